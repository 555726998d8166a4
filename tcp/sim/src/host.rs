//! A host: a stack, its applications, and a NIC with two rings.
//!
//! ```text
//!  link ─→ rx (NIC) ─→ fill ring's frames ─→ Stack::receive ─→ advance ─→ poll_transmit ─→ TX ring ─→ link
//!                                                                              └─ completed later ─┘
//! ```

use core::net::SocketAddr;
use std::collections::VecDeque;

use byway_tcp::counters::DropReason;
use byway_tcp::frame::{FramePool, FrameSlice, HeapMemory, Owner};
use byway_tcp::stack::{Config, ConnectError, Stack};
use byway_tcp::tcb::state::State;
use byway_tcp::time::{Duration, Instant};

use crate::app::{Apps, Plan};
use crate::fault::Fault;
use crate::headers;
use crate::witness::Manners;

/// Frames of one call of `receive`, as the core loop's.
const BATCH: usize = 64;
/// A loop that is told to come back at once does so after this time: a turn takes some.
const TURN: Duration = Duration::from_micros(20);
/// Where a NIC writes: behind XDP's headroom.
const HEADROOM: usize = 256;

/// How a host is built.
#[derive(Clone, Debug)]
pub struct HostSpec {
    /// The stack's.
    pub config: Config,
    /// Frames in all.
    pub frames: u32,
    /// Frames the NIC can have for receiving.
    pub fill_ring: usize,
    /// Frames it can have for sending.
    pub tx_ring: usize,
    /// How long it keeps a frame that it sends.
    pub completion: Duration,
    /// Frames that arrive within this time are handled together.
    pub coalesce: Duration,
    /// Octets of a segment that its NIC writes into one frame, if not all.
    pub scatter: Option<usize>,
}

/// What the NIC has seen: to be compared with what the stack says.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct NicStats {
    /// Frames and octets given to the stack.
    pub frames_in: u64,
    /// See `frames_in`.
    pub octets_in: u64,
    /// Packets in those frames.
    pub packets_in: u64,
    /// Frames and octets taken from it.
    pub frames_out: u64,
    /// See `frames_out`.
    pub octets_out: u64,
    /// Arrived while the fill ring was empty.
    pub missed: u64,
    /// Arrived in IPv4 with bits flipped: each has to be discarded.
    pub corrupted: u64,
}

/// A host at work.
#[derive(Debug)]
pub struct Host {
    /// How it is built.
    pub spec: HostSpec,
    /// The stack under test.
    pub stack: Stack<HeapMemory>,
    /// Its applications.
    pub apps: Apps,
    /// The NIC's counts.
    pub nic: NicStats,
    /// When its loop turns next.
    pub wake_at: Instant,
    /// Until when its loop doesn't turn, whatever happens.
    pub stalled_until: Instant,
    /// What is broken on purpose.
    pub fault: Option<Fault>,
    /// Most octets seen in any connection's queues, received and to be sent.
    pub most_queued: (u32, u32),
    /// How often something waited for its next hop to be found, and when last.
    speechless: (u64, Instant),
    rx: VecDeque<(Vec<u8>, bool)>,
    fill: Vec<u32>,
    completions: VecDeque<(Instant, u32)>,
    slices: Vec<FrameSlice>,
}

impl Host {
    /// A host with nothing to do yet.
    pub fn new(spec: HostSpec, fault: Option<Fault>) -> Self {
        let pool = FramePool::new(HeapMemory::new(spec.frames, 2048));
        let mut apps = Apps::default();
        apps.fault = fault;
        Self {
            stack: Stack::new(spec.config.clone(), pool),
            spec,
            apps,
            nic: NicStats::default(),
            wake_at: Instant::NEVER,
            stalled_until: Instant::ZERO,
            fault,
            most_queued: (0, 0),
            speechless: (0, Instant::ZERO),
            rx: VecDeque::new(),
            fill: Vec::new(),
            completions: VecDeque::new(),
            slices: Vec::new(),
        }
    }

    /// Opens a connection; its local address.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub fn connect(
        &mut self,
        remote: SocketAddr,
        plan: Plan,
        now: Instant,
    ) -> Result<SocketAddr, ConnectError> {
        let id = self.stack.connect(remote, now)?;
        self.apps.connecting(id, plan);
        let mut nobody = Apps::default();
        let local = self.stack.with_conn(&mut nobody, id, now, |_, conn| conn.local());
        Ok(local.expect("just opened"))
    }

    /// A frame arrives at the NIC.
    pub fn arrive(&mut self, frame: Vec<u8>, corrupted: bool) {
        // What the NIC can't keep until the loop turns is lost.
        if self.rx.len() >= self.spec.fill_ring {
            self.nic.missed += 1;
        } else {
            self.rx.push_back((frame, corrupted));
        }
    }

    /// One turn of the loop; what is sent goes to `out`.
    pub fn turn(&mut self, now: Instant, out: &mut Vec<Vec<u8>>) {
        while self.completions.front().is_some_and(|&(at, _)| at <= now) {
            let Some((_, index)) = self.completions.pop_front() else { break };
            if self.fault == Some(Fault::LeakFrame) {
                self.fault = None;
                continue;
            }
            self.stack.pool_mut().completed(index);
        }
        loop {
            self.refill();
            self.receive(now);
            if self.rx.is_empty() {
                break;
            }
        }
        self.stack.advance(&mut self.apps, now);
        self.transmit(now, out);
        let waiting = self.stack.counters().dropped(DropReason::NoNeighbor);
        if waiting != self.speechless.0 {
            self.speechless = (waiting, now);
        }
        self.wake_at = self.next_turn(now);
    }

    fn refill(&mut self) {
        while self.fill.len() < self.spec.fill_ring {
            let Some(index) = self.stack.pool_mut().fill() else { break };
            self.fill.push(index);
        }
    }

    fn receive(&mut self, now: Instant) {
        let mut must_fall = 0;
        while self.slices.len() < BATCH {
            let Some((frame, corrupted)) = self.rx.pop_front() else { break };
            let parts = self.parts(&frame);
            if self.fill.len() < parts {
                self.nic.missed += 1;
                continue;
            }
            let index = self.fill.pop().expect("as many as parts");
            self.nic.packets_in += 1;
            self.nic.frames_in += parts as u64;
            self.nic.octets_in += frame.len() as u64;
            if self.fault == Some(Fault::UncountedDiscard) {
                self.fault = None;
                self.stack.pool_mut().unfill(index);
                continue;
            }
            // An IPv6 header has fields that no checksum covers.
            must_fall += u64::from(corrupted && headers::ethertype(&frame) == headers::IPV4);
            let mut octets = frame.chunks(frame.len().div_ceil(parts));
            let mut index = Some(index);
            while let Some(part) = octets.next() {
                let index = index.take().or_else(|| self.fill.pop()).expect("as many as parts");
                let slice = self.stack.pool_mut().write_as_nic(index, HEADROOM, part);
                self.slices.push(FrameSlice { more: octets.len() > 0, ..slice });
            }
        }
        if self.slices.is_empty() {
            return;
        }
        let before = self.stack.counters().dropped_total();
        self.stack.receive(&mut self.apps, &self.slices, now);
        self.slices.clear();
        self.nic.corrupted += must_fall;
        let dropped = self.stack.counters().dropped_total() - before;
        if dropped < must_fall {
            self.apps
                .wrong
                .push(format!("{must_fall} corrupted frames arrived, {dropped} were counted as dropped"));
        }
    }

    /// In how many frames a segment arrives.
    fn parts(&self, frame: &[u8]) -> usize {
        let is_segment = headers::Segment::of(frame).is_some();
        self.spec.scatter.filter(|_| is_segment).map_or(1, |most| frame.len().div_ceil(most).max(1))
    }

    fn transmit(&mut self, now: Instant, out: &mut Vec<Vec<u8>>) {
        loop {
            let room = self.spec.tx_ring - self.completions.len();
            let more = self.stack.poll_transmit(room, now, &mut self.slices);
            if self.slices.len() > room {
                self.apps
                    .wrong
                    .push(format!("{} frames into a TX ring with room for {room}", self.slices.len()));
            }
            let any = !self.slices.is_empty();
            for packet in self.slices.split_inclusive(|slice| !slice.more) {
                let octets = packet.iter().map(|&slice| self.stack.pool().transmitted(slice));
                let frame = octets.collect::<Vec<_>>().concat();
                self.nic.frames_out += packet.len() as u64;
                self.nic.octets_out += frame.len() as u64;
                let completed = now + self.spec.completion;
                self.completions.extend(packet.iter().map(|slice| (completed, slice.index)));
                out.push(frame);
            }
            self.slices.clear();
            if !more || !any {
                return;
            }
        }
    }

    fn next_turn(&self, now: Instant) -> Instant {
        let full = self.completions.len() >= self.spec.tx_ring;
        let completion = if full { self.completions.front() } else { self.completions.back() };
        let deadline = self.stack.next_deadline();
        // With a full ring there is no point in coming back before there is room.
        let soonest = if full { completion.map_or(now, |&(at, _)| at) } else { now };
        let again = if deadline <= now { (now + TURN).max(soonest) } else { deadline };
        again.min(completion.map_or(Instant::NEVER, |&(at, _)| at))
    }

    /// Connections and half-open ones, TIME-WAIT counted.
    pub fn connections(&self) -> u32 {
        self.stack.connection_count() + self.stack.connections_by_state()[State::TimeWait as usize]
    }

    /// What can be expected of what it says.
    pub(crate) fn manners(&self) -> Manners {
        let counters = self.stack.counters();
        let dropped = |reason| counters.dropped(reason) > 0;
        // A segment may be so late that its ACK is older than any window (RFC 5961 §5.2), or its timestamp than what
        // was sent again since (RFC 7323 §5.3), or it comes before the one with the cookie.
        let refused = dropped(DropReason::MemoryPressure)
            || dropped(DropReason::OutOfOrderLimit)
            || dropped(DropReason::BadAck)
            || dropped(DropReason::Paws)
            || counters.syncookies_failed > 0;
        Manners {
            punctual: self.nic.missed == 0 && self.stalled_until == Instant::ZERO && !refused,
            forgetful: counters.syncookies_sent > 0,
            speechless_at: self.speechless.1,
        }
    }

    /// Whether something waits for room in the TX ring.
    pub fn has_more_to_send(&self) -> bool {
        self.stack.next_deadline() == Instant::ZERO
    }

    /// Checks what must hold at any time between turns; `Err` says what doesn't.
    ///
    /// # Panics
    /// If the stack's own invariants don't hold.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn check(&mut self, now: Instant) -> Result<(), String> {
        self.stack.assert_consistent();
        let pool = self.stack.pool();
        pool.assert_conserved();
        // Answers that wait for room in the TX ring are counted as its already.
        let waiting = self.has_more_to_send();
        for (owner, held) in [
            (Owner::Fill, self.fill.len()),
            (Owner::TxRing, self.completions.len()),
            (Owner::App, 0),
            (Owner::Control, 0),
        ] {
            let counted = pool.count(owner) as usize;
            if counted != held && !(owner == Owner::TxRing && waiting && counted > held) {
                return Err(format!("{counted} frames are {owner:?}'s, which has {held}"));
            }
        }
        self.check_queues(now)?;
        self.check_counters()
    }

    /// P2: no queue is longer than configured, and no state lasts longer than it can.
    fn check_queues(&mut self, now: Instant) -> Result<(), String> {
        let config = &self.spec.config;
        // A window may be as small as two segments, whatever the buffer; and a chunk, once begun, is taken.
        let mtu = u32::from(config.mtu.max(config.receive_mtu));
        let receive_max = config.receive_buffer.max(2 * mtu) + mtu;
        let send_max = 2 * config.send_buffer.max(8 * 2048) + 2048;
        let (mut wrong, mut most) = (None, self.most_queued);
        self.stack.connections(0, u32::MAX, now, &mut |info| {
            if info.state == State::Listen {
                return;
            }
            most = (most.0.max(info.recv_queue), most.1.max(info.send_queue));
            if info.recv_queue > receive_max || info.send_queue > send_max {
                wrong = Some(format!("queues beyond {receive_max} and {send_max} octets: {info:?}"));
            }
            if info.in_state > bound(info.state, config) {
                wrong = Some(format!("longer in its state than {:?}: {info:?}", bound(info.state, config)));
            }
        });
        self.most_queued = most;
        wrong.map_or(Ok(()), Err)
    }

    /// Every frame is counted, and every discarded one has a reason.
    fn check_counters(&self) -> Result<(), String> {
        let (nic, counters) = (&self.nic, self.stack.counters());
        let seen = [counters.frames_in, counters.octets_in, counters.frames_out, counters.octets_out];
        let handed = [nic.frames_in, nic.octets_in, nic.frames_out, nic.octets_out];
        if seen != handed {
            return Err(format!("frames and octets in and out: NIC {handed:?}, stack {seen:?}"));
        }
        let taken = counters.tcp_in_segs
            + counters.arp_in
            + counters.ndp_in
            + counters.icmp_in_echos
            + counters.icmp6_in_echos
            + counters.icmp_in_dest_unreachs
            + counters.icmp6_in_pkt_too_bigs;
        if taken + counters.dropped_total() < nic.packets_in {
            return Err(format!(
                "{} packets in, {taken} taken, {} dropped: some were discarded uncounted",
                nic.packets_in,
                counters.dropped_total()
            ));
        }
        Ok(())
    }

    /// The NIC gives everything back; then every frame must be free.
    ///
    /// # Errors
    /// Who still holds some.
    pub fn end(&mut self) -> Result<(), String> {
        for (_, index) in self.completions.drain(..) {
            self.stack.pool_mut().completed(index);
        }
        for index in self.fill.drain(..) {
            self.stack.pool_mut().unfill(index);
        }
        let pool = self.stack.pool();
        pool.assert_conserved();
        if pool.free_count() == pool.total() {
            Ok(())
        } else {
            Err(format!("frames not free at the end: {pool:?}"))
        }
    }
}

/// How long a connection can be in a state in which its own application has no say.
fn bound(state: State, config: &Config) -> Duration {
    // Retransmission ends with the first expiry after the limit: one more back-off of at most a minute.
    let retransmission = config.user_timeout + Duration::from_secs(61);
    match state {
        // 1 + 2 + … + 32 + 60 + 60 s, and half a minute for a neighbour that has to be found first.
        State::SynSent | State::SynReceived => Duration::from_secs(183 + 30),
        State::TimeWait => config.time_wait + Duration::from_secs(1),
        State::Closing | State::LastAck => retransmission,
        _ => Duration::MAX,
    }
}
