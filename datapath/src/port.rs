//! What a core's loop needs of a network port, and a port in memory.
//!
//! ```text
//!              refill ─→ fill ring ─→ NIC writes ─→ RX ring ─→ rx_burst
//!   FramePool                                                            Stack
//!              reclaim ←─ completion ring ←─ NIC reads ←─ TX ring ←─ tx_burst
//! ```
//!
//! A frame in one of the four rings is the port's; [`Port::held`] counts them, and the loop holds
//! that against the pool's ledger (promise P3).

use core::time::Duration;
use std::collections::VecDeque;

use byway_tcp::frame::{FramePool, FrameSlice, Memory};

use crate::control::Waker;
use crate::error::Error;

/// Frames per burst. Long enough to spread a system call (about 500 ns) to below 10 ns a frame,
/// short enough that a batch's headers stay in the L1 cache (64 × 2 lines = 8 KiB) and that the
/// last frame waits some 20 µs at most. DPDK, Firedancer and NAPI settled on the same order.
pub const BATCH: usize = 64;

/// How many frames a port holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Held {
    /// In the fill ring, in the NIC, or in the RX ring: `Owner::Fill` in the ledger.
    pub fill: u32,
    /// In the TX ring, in the NIC, or in the completion ring: `Owner::TxRing`, together with
    /// what waits in the loop's transmit batch.
    pub tx: u32,
}

/// What a port counted since it was opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PortCounters {
    /// Received frames lost because the RX ring was full.
    pub rx_ring_full: u64,
    /// Frames the NIC couldn't receive because the fill ring was empty.
    pub fill_ring_empty: u64,
    /// Received frames lost for other reasons (too long for a frame).
    pub rx_dropped: u64,
    /// Descriptors the kernel refused; never, unless byway has a bug.
    pub invalid_descriptors: u64,
    /// System calls to get frames sent.
    pub tx_wakeups: u64,
    /// Those the kernel answered with "try again".
    pub tx_wakeups_again: u64,
    /// System calls to get frames received.
    pub rx_wakeups: u64,
    /// Bursts for which the TX ring had too little room.
    pub tx_ring_full: u64,
    /// Times the link was found down while sending or receiving.
    pub link_down: u64,
    /// Times the loop slept.
    pub sleeps: u64,
}

/// One queue of one interface, or something that behaves as such.
pub trait Port {
    /// Appends some [`BATCH`] received frames to `out`, whole packets only: one may lie in several frames. Each is user
    /// space's from now on.
    fn rx_burst(&mut self, out: &mut Vec<FrameSlice>) -> usize;

    /// Moves free frames into the fill ring, as far as there is room and the pool gives any: it keeps
    /// a reserve for answers (D2). Returns how many.
    fn refill<M: Memory>(&mut self, pool: &mut FramePool<M>) -> usize;

    /// Puts frames into the TX ring, first ones first and whole packets only. Returns how many fitted; the others stay
    /// the caller's. Never waits.
    fn tx_burst(&mut self, frames: &[FrameSlice]) -> usize;

    /// Gives sent frames back to the pool. Returns how many.
    fn reclaim<M: Memory>(&mut self, pool: &mut FramePool<M>) -> usize;

    /// Tells the kernel that there is work in the rings, where it wants to be told. Called every
    /// turn, new frames or not: an earlier call may have been answered with "try again".
    ///
    /// # Errors
    /// [`Error::DeviceGone`], or a socket error that trying again doesn't mend. A link that is
    /// down is no error: it may come back (D5).
    fn kick(&mut self) -> Result<(), Error>;

    /// Sleeps until a frame arrives, `waker` is woken, or `timeout` has passed.
    ///
    /// # Errors
    /// As [`kick`](Self::kick).
    fn park(&mut self, timeout: Duration, waker: &Waker) -> Result<(), Error>;

    /// How many frames are in the rings.
    fn held(&self) -> Held;

    /// Entries of the RX ring: what can have piled up while the loop was held up.
    fn rx_ring_size(&self) -> u32;

    /// What was counted so far.
    fn counters(&self) -> PortCounters;
}

/// A port in memory: four rings, and a peer that is the caller.
///
/// For tests, simulators and benches. It behaves as an AF_XDP socket does: frames are lost when
/// the fill ring is empty or the RX ring full, and sent frames stay the port's until completed.
#[derive(Debug)]
pub struct MemPort {
    fill: VecDeque<u32>,
    rx: VecDeque<FrameSlice>,
    tx: VecDeque<FrameSlice>,
    completion: VecDeque<u32>,
    sizes: crate::config::Rings,
    counters: PortCounters,
    /// Whether `kick` finds the device gone.
    gone: bool,
}

impl MemPort {
    /// Where a frame's octets begin, as AF_XDP puts them.
    const RX_OFFSET: usize = crate::config::XDP_HEADROOM as usize;

    /// Empty rings of these sizes.
    pub fn new(sizes: crate::config::Rings) -> Self {
        Self {
            fill: VecDeque::with_capacity(sizes.fill as usize),
            rx: VecDeque::with_capacity(sizes.rx as usize),
            tx: VecDeque::with_capacity(sizes.tx as usize),
            completion: VecDeque::with_capacity(sizes.completion as usize),
            sizes,
            counters: PortCounters::default(),
            gone: false,
        }
    }

    /// The peer sends a frame. False if it was lost: no frame in the fill ring, no room in the RX ring.
    pub fn inject<M: Memory>(&mut self, pool: &mut FramePool<M>, octets: &[u8]) -> bool {
        let Some(index) = self.fill.pop_front() else {
            self.counters.fill_ring_empty += 1;
            return false;
        };
        if self.rx.len() == self.sizes.rx as usize {
            self.counters.rx_ring_full += 1;
            self.fill.push_front(index);
            return false;
        }
        self.rx.push_back(pool.write_as_nic(index, Self::RX_OFFSET, octets));
        true
    }

    /// The peer sends a packet that arrives in these frames. False if it was lost, as a whole.
    pub fn inject_scattered<M: Memory>(&mut self, pool: &mut FramePool<M>, frames: &[&[u8]]) -> bool {
        let room = self.sizes.rx as usize - self.rx.len();
        if frames.len() > room.min(self.fill.len()) {
            return false;
        }
        let injected = frames.iter().filter(|octets| self.inject(pool, octets)).count();
        for slice in self.rx.iter_mut().rev().take(injected).skip(1) {
            slice.more = true;
        }
        true
    }

    /// The peer receives the next packet sent to it, which completes its frames. `None` if there is none,
    /// or no room in the completion ring.
    pub fn take<M: Memory, R>(
        &mut self,
        pool: &mut FramePool<M>,
        look: impl FnOnce(&[u8]) -> R,
    ) -> Option<R> {
        let frames = self.tx.iter().position(|slice| !slice.more)? + 1;
        if self.completion.len() + frames > self.sizes.completion as usize {
            return None;
        }
        let octets = || self.tx.iter().take(frames).map(|&slice| pool.transmitted(slice));
        let whole;
        let packet = if frames == 1 {
            pool.transmitted(self.tx[0])
        } else {
            whole = octets().collect::<Vec<_>>().concat();
            &whole
        };
        let result = look(packet);
        self.completion.extend(self.tx.drain(..frames).map(|slice| slice.index));
        Some(result)
    }

    /// Frames sent and not yet taken by the peer.
    pub fn in_flight(&self) -> usize {
        self.tx.len()
    }

    /// From now on the device is gone.
    pub fn remove_device(&mut self) {
        self.gone = true;
    }
}

impl Port for MemPort {
    fn rx_burst(&mut self, out: &mut Vec<FrameSlice>) -> usize {
        let mut count = self.rx.len().min(BATCH);
        while count > 0 && self.rx[count - 1].more {
            count += 1;
        }
        out.extend(self.rx.drain(..count));
        count
    }

    fn refill<M: Memory>(&mut self, pool: &mut FramePool<M>) -> usize {
        let room = self.sizes.fill - self.fill.len() as u32;
        let before = self.fill.len();
        self.fill.extend((0..room).map_while(|_| pool.fill()));
        self.fill.len() - before
    }

    fn tx_burst(&mut self, frames: &[FrameSlice]) -> usize {
        let room = frames.len().min(self.sizes.tx as usize - self.tx.len());
        let count = frames[..room].iter().rposition(|slice| !slice.more).map_or(0, |last| last + 1);
        self.counters.tx_ring_full += u64::from(count < frames.len());
        self.tx.extend(&frames[..count]);
        count
    }

    fn reclaim<M: Memory>(&mut self, pool: &mut FramePool<M>) -> usize {
        let count = self.completion.len();
        self.completion.drain(..).for_each(|index| pool.completed(index));
        count
    }

    fn kick(&mut self) -> Result<(), Error> {
        if self.gone { Err(Error::DeviceGone { interface: "memory".into(), queue: 0 }) } else { Ok(()) }
    }

    fn park(&mut self, timeout: Duration, waker: &Waker) -> Result<(), Error> {
        self.counters.sleeps += 1;
        waker.sleep(timeout)?;
        self.kick()
    }

    fn held(&self) -> Held {
        Held {
            fill: (self.fill.len() + self.rx.len()) as u32,
            tx: (self.tx.len() + self.completion.len()) as u32,
        }
    }

    fn rx_ring_size(&self) -> u32 {
        self.sizes.rx
    }

    fn counters(&self) -> PortCounters {
        self.counters
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use byway_tcp::frame::{HeapMemory, Owner};

    fn small() -> (MemPort, FramePool<HeapMemory>) {
        let sizes = crate::config::Rings { fill: 128, rx: 64, tx: 64, completion: 64 };
        (MemPort::new(sizes), FramePool::new(HeapMemory::new(1000, 2048)))
    }

    #[test]
    fn refill_fills_the_ring_when_frames_abound() {
        let (mut port, mut pool) = small();
        assert_eq!(port.refill(&mut pool), 128);
        assert_eq!(port.refill(&mut pool), 0);
        assert_eq!(pool.count(Owner::Fill), 128);
        assert_eq!(port.held(), Held { fill: 128, tx: 0 });
    }

    /// D2, D3: an empty pool starves the fill ring, and frames that come back feed it again.
    #[test]
    fn refill_recovers_from_starvation() {
        let (mut port, mut pool) = small();
        let mut held: Vec<_> = std::iter::from_fn(|| pool.alloc(Owner::Rx)).collect();
        assert_eq!(held.len(), 1000);
        assert_eq!(port.refill(&mut pool), 0);
        assert!(!port.inject(&mut pool, b"x"), "nothing to receive into");
        held.drain(..100).for_each(|chunk| pool.release(chunk));
        let filled = port.refill(&mut pool);
        assert!(filled > 64, "{filled}");
        assert_eq!(filled + pool.free_count() as usize, 100);
        assert!(pool.free_count() > 0, "the reserve for answers stays");
        assert!(port.inject(&mut pool, b"x"));
        held.into_iter().for_each(|chunk| pool.release(chunk));
        pool.assert_conserved();
    }

    #[test]
    fn a_frame_goes_round_and_is_conserved() {
        let (mut port, mut pool) = small();
        port.refill(&mut pool);
        assert!(port.inject(&mut pool, b"ping"));
        let mut rx = Vec::with_capacity(BATCH);
        assert_eq!(port.rx_burst(&mut rx), 1);
        let chunk = pool.received(rx[0]);
        assert_eq!(pool.bytes(&chunk), b"ping");
        pool.release(chunk);
        pool.assert_conserved();
        assert_eq!(pool.count(Owner::Fill), port.held().fill);
    }

    #[test]
    fn frames_are_lost_when_nobody_makes_room() {
        let (mut port, mut pool) = small();
        assert!(!port.inject(&mut pool, b"x"), "nothing in the fill ring");
        port.refill(&mut pool);
        let taken = (0..100).filter(|_| port.inject(&mut pool, b"x")).count();
        assert_eq!(taken, 64, "the RX ring's size");
        assert_eq!(port.counters().fill_ring_empty, 1);
        assert_eq!(port.counters().rx_ring_full, 36);
        assert_eq!(port.held().fill, pool.count(Owner::Fill));
    }
}
