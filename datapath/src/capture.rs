//! What a core sees and sends, copied for whoever wants to look: `byway capture`. S4.6
//!
//! ```text
//!   core:   RX ring → copies → stack → why each was discarded ─┐              ┌→ TX ring → copies
//!                                                              ▼              ▼
//!           free slots ←───────────────── ring of full slots, bounded, lock-free ─→ Capture::take
//! ```
//!
//! A core that nobody watches pays one branch a burst. One that is watched asks the filter, a bounded program, before
//! it copies; when no slot is free it leaves the frame out, counts it and goes on: it never waits for the watcher.
//! Slots are allocated, and touched for the first time, by the watcher's thread, and go back to it to be freed.

pub mod filter;

use core::time::Duration;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use byway_tcp::counters::DropReason;
use byway_tcp::frame::{FramePool, FrameSlice, Memory};
use byway_tcp::time::Instant;
use crossbeam::queue::ArrayQueue;

use crate::control::{Command, Handle};
use crate::port::BATCH;
use filter::Filter;

/// Slots of a tap. A core sends and receives a million frames a second at most, and the watcher looks each millisecond:
/// that is 8 ms of patience with it, for 16 MiB with frames of 2 KiB.
pub const SLOTS: usize = 8192;

/// Captures at once. Each takes [`SLOTS`] and, while it runs, a copy of each frame it asks for.
pub const CAPTURES_MAX: usize = 4;

/// How long a core may take to give a tap back: a turn, or the end of a sleep. Longer: it has failed.
const UNTAP_TIMEOUT: Duration = Duration::from_secs(1);

/// What is to be captured.
#[derive(Clone, Debug)]
pub struct Wish {
    /// Which frames; `None`: all.
    pub filter: Option<Filter>,
    /// So many octets of each, from its beginning.
    pub snaplen: u16,
    /// Only frames that the stack discarded.
    pub discarded: bool,
}

/// A frame that was seen, whole also if it lay in several of ours.
#[derive(Debug)]
pub struct Slot {
    /// When: the beginning of the loop's turn in which it was received, or given to the TX ring.
    pub at: Instant,
    /// Whether we sent it.
    pub outbound: bool,
    /// Why the stack discarded it, if it did.
    pub reason: Option<DropReason>,
    /// Its length on the wire; what was kept of it may be less.
    pub len: u32,
    kept: u32,
    octets: Box<[u8]>,
}

impl Slot {
    fn new(snaplen: u16) -> Self {
        Self {
            at: Instant::NEVER,
            outbound: false,
            reason: None,
            len: 0,
            kept: 0,
            // Not zeros, which the kernel would map only once a core writes there.
            octets: vec![1; usize::from(snaplen)].into(),
        }
    }

    /// What was kept.
    pub fn octets(&self) -> &[u8] {
        &self.octets[..self.kept as usize]
    }

    fn fill(&mut self, octets: &[u8], outbound: bool, at: Instant) {
        let kept = octets.len().min(self.octets.len());
        self.octets[..kept].copy_from_slice(&octets[..kept]);
        self.at = at;
        self.outbound = outbound;
        self.reason = None;
        self.len = octets.len() as u32;
        self.kept = kept as u32;
    }

    /// The frame goes on with these.
    fn extend(&mut self, octets: &[u8]) {
        let room = &mut self.octets[self.kept as usize..];
        let kept = octets.len().min(room.len());
        room[..kept].copy_from_slice(&octets[..kept]);
        self.len += octets.len() as u32;
        self.kept += kept as u32;
    }
}

/// What a tap counted; the core alone writes.
#[derive(Debug, Default)]
struct Counts {
    wanted: AtomicU64,
    left_out: AtomicU64,
}

/// Between a core and its watcher.
#[derive(Debug)]
pub struct Ring {
    free: ArrayQueue<Box<Slot>>,
    full: ArrayQueue<Box<Slot>>,
    counts: Counts,
}

impl Ring {
    /// A ring of free slots.
    pub fn new(slots: usize, snaplen: u16) -> Arc<Self> {
        let ring =
            Self { free: ArrayQueue::new(slots), full: ArrayQueue::new(slots), counts: Counts::default() };
        for _ in 0..slots {
            ring.give_back(Box::new(Slot::new(snaplen)));
        }
        Arc::new(ring)
    }

    /// The next frame seen.
    pub fn take(&self) -> Option<Box<Slot>> {
        self.full.pop()
    }

    /// A slot to be used again.
    pub fn give_back(&self, slot: Box<Slot>) {
        // There are no more slots than places.
        let _ = self.free.push(slot);
    }

    /// Frames that the filter asked for, and those of them that were left out because no slot was free.
    pub fn counts(&self) -> (u64, u64) {
        (self.counts.wanted.load(Ordering::Relaxed), self.counts.left_out.load(Ordering::Relaxed))
    }
}

/// A core's side of a capture.
#[derive(Debug)]
pub struct Tap {
    /// Which capture.
    pub id: u64,
    filter: Option<Filter>,
    discarded: bool,
    ring: Arc<Ring>,
    /// Received frames of which is not known yet what becomes of them, with their places in the burst.
    waiting: Vec<(usize, Box<Slot>)>,
}

impl Tap {
    /// A tap that fills `ring`.
    pub fn new(id: u64, wish: &Wish, ring: Arc<Ring>) -> Self {
        let Wish { filter, discarded, .. } = wish.clone();
        Self { id, filter, discarded, ring, waiting: Vec::with_capacity(BATCH) }
    }

    /// Copies a frame, if it is asked for and there is a slot.
    #[inline]
    fn copy(&self, octets: &[u8], outbound: bool, now: Instant) -> Option<Box<Slot>> {
        if self.filter.as_ref().is_some_and(|filter| !filter.accepts_frame(octets)) {
            return None;
        }
        let counts = &self.ring.counts;
        if !self.discarded {
            bump(&counts.wanted);
        }
        let Some(mut slot) = self.ring.free.pop() else {
            bump(&counts.left_out);
            return None;
        };
        slot.fill(octets, outbound, now);
        Some(slot)
    }

    /// Before the stack has a burst, which it may answer in place.
    pub fn see_received<M: Memory>(&mut self, pool: &FramePool<M>, burst: &[FrameSlice], now: Instant) {
        for (place, packet) in packets(burst).enumerate() {
            if let Some(mut slot) = self.copy(pool.arrived(packet[0]), false, now) {
                packet[1..].iter().for_each(|&slice| slot.extend(pool.arrived(slice)));
                self.waiting.push((place, slot));
            }
        }
    }

    /// After it: what became of each of its packets.
    pub fn see_verdicts(&mut self, verdicts: &[Option<DropReason>]) {
        for (place, mut slot) in self.waiting.drain(..) {
            slot.reason = verdicts.get(place).copied().flatten();
            if self.discarded && slot.reason.is_none() {
                self.ring.give_back(slot);
                continue;
            }
            if self.discarded {
                bump(&self.ring.counts.wanted);
            }
            let _ = self.ring.full.push(slot);
        }
    }

    /// Frames that the TX ring has taken.
    pub fn see_sent<M: Memory>(&self, pool: &FramePool<M>, burst: &[FrameSlice], now: Instant) {
        // None of ours is discarded.
        if self.discarded {
            return;
        }
        for packet in packets(burst) {
            if let Some(mut slot) = self.copy(pool.transmitted(packet[0]), true, now) {
                packet[1..].iter().for_each(|&slice| slot.extend(pool.transmitted(slice)));
                let _ = self.ring.full.push(slot);
            }
        }
    }
}

/// The frames of each packet.
fn packets(burst: &[FrameSlice]) -> impl Iterator<Item = &[FrameSlice]> {
    burst.split_inclusive(|slice| !slice.more)
}

/// One writer: no need for an atomic addition.
#[inline]
fn bump(counter: &AtomicU64) {
    counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
}

/// All taps of a core.
#[derive(Debug, Default)]
pub(crate) struct Taps(Vec<Tap>);

impl Taps {
    /// Whether somebody watches.
    #[inline]
    pub(crate) fn is_on(&self) -> bool {
        !self.0.is_empty()
    }

    pub(crate) fn add(&mut self, tap: Tap) {
        self.0.push(tap);
    }

    /// The tap of this capture, to be freed by somebody else.
    pub(crate) fn remove(&mut self, id: u64) -> Option<Tap> {
        let place = self.0.iter().position(|tap| tap.id == id)?;
        Some(self.0.swap_remove(place))
    }

    /// Before the stack has a burst, which it may answer in place.
    #[cold]
    pub(crate) fn see_received<M: Memory>(
        &mut self,
        pool: &FramePool<M>,
        burst: &[FrameSlice],
        now: Instant,
    ) {
        self.0.iter_mut().for_each(|tap| tap.see_received(pool, burst, now));
    }

    /// After it.
    #[cold]
    pub(crate) fn see_verdicts(&mut self, verdicts: &[Option<DropReason>]) {
        self.0.iter_mut().for_each(|tap| tap.see_verdicts(verdicts));
    }

    /// Frames that the TX ring has taken.
    #[cold]
    pub(crate) fn see_sent<M: Memory>(&self, pool: &FramePool<M>, burst: &[FrameSlice], now: Instant) {
        self.0.iter().for_each(|tap| tap.see_sent(pool, burst, now));
    }
}

/// The watcher's side of a capture of all cores. Dropping it ends it.
#[derive(Debug)]
pub struct Capture {
    id: u64,
    watched: Vec<Watched>,
    /// How many captures there are.
    running: Arc<AtomicUsize>,
}

#[derive(Debug)]
struct Watched {
    core: Handle,
    ring: Arc<Ring>,
    is_on: bool,
}

impl Capture {
    /// One more, if there may be.
    pub(crate) fn begin(running: &Arc<AtomicUsize>) -> Option<Self> {
        static SERIAL: AtomicU64 = AtomicU64::new(0);
        let before = running.fetch_add(1, Ordering::Relaxed);
        let id = SERIAL.fetch_add(1, Ordering::Relaxed);
        let capture = Self { id, watched: Vec::new(), running: Arc::clone(running) };
        // Dropped, it takes itself off the count.
        (before < CAPTURES_MAX).then_some(capture)
    }

    /// Taps a core, too. False if it takes no order.
    pub(crate) fn watch(&mut self, core: &Handle, wish: &Wish, packet_max: u32) -> bool {
        let ring = Ring::new(SLOTS, u32::from(wish.snaplen).min(packet_max) as u16);
        let tap = Tap::new(self.id, wish, Arc::clone(&ring));
        let is_on = core.send(Command::Tap(tap));
        self.watched.push(Watched { core: core.clone(), ring, is_on });
        is_on
    }

    /// Moves what was seen to `out`, each frame with its core's place.
    pub fn take(&self, out: &mut Vec<(usize, Box<Slot>)>) {
        for (place, watched) in self.watched.iter().enumerate() {
            // No more than there were: a core that is faster than we are doesn't keep us here.
            let seen = watched.ring.full.len();
            out.extend((0..seen).map_while(|_| watched.ring.take()).map(|slot| (place, slot)));
        }
    }

    /// A slot to be used again by the core that it came from.
    pub fn give_back(&self, place: usize, slot: Box<Slot>) {
        self.watched[place].ring.give_back(slot);
    }

    /// What each core counted: see [`Ring::counts`].
    pub fn counts(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.watched.iter().map(|watched| watched.ring.counts())
    }

    /// Takes the taps off; what they saw can still be taken.
    pub fn end(&mut self) {
        let id = self.id;
        for watched in &mut self.watched {
            if !core::mem::take(&mut watched.is_on) {
                continue;
            }
            // Freed here, not on the core. One that doesn't answer has ended, and its tap with it.
            drop(watched.core.ask(UNTAP_TIMEOUT, |reply| Command::Untap { id, reply }));
        }
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.end();
        self.running.fetch_sub(1, Ordering::Relaxed);
    }
}
