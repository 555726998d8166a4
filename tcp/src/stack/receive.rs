//! A batch of frames on its way in: to a connection, to TIME-WAIT, or to a listener.

use super::{ROOM_LOW, Stack};
use crate::CACHE_LINE;
use crate::app::App;
use crate::counters::DropReason;
use crate::flow_table::FourTuple;
use crate::frame::{Chunk, FrameSlice, Memory};
use crate::tcb::Tcb;
use crate::tcb::state::State;
use crate::time::Instant;
use crate::time_wait::Verdict;
use crate::wire::plain::{self, Plain};
use crate::wire::tcp::Segment;
use crate::wire::{self, Body, Packet, ethernet, ip};

/// Frames that are read ahead of the first that is acted on: enough that what the processor fetches for the last
/// overlaps with what it fetches for the first, and few enough that all of it stays in the first-level cache.
pub(super) const AHEAD: usize = 32;

/// Headers with timestamps are 66 octets, or 86; a short request's text is in the lines behind. Where more follows, the
/// processor sees that it goes on.
const LINES_AHEAD: usize = 3;

/// So many connections' memory is never far: half a MiB, of a second-level cache of one or two.
const NEAR: usize = 512;

/// Where connections were found last, by their ports: while they are few, that spares most segments the hash and the
/// table. Twice as many places as there are then connections.
#[derive(Debug)]
pub(super) struct Hints(Box<[u32; 2 * NEAR]>);

impl Hints {
    pub(super) fn new() -> Self {
        Self(Box::new([0; 2 * NEAR]))
    }

    /// The slot that a connection with these ports may be in.
    #[inline]
    fn of(&mut self, tuple: &FourTuple) -> &mut u32 {
        &mut self.0[usize::from(tuple.local_port ^ tuple.remote_port) % (2 * NEAR)]
    }
}

/// A frame that is read and not acted on.
#[derive(Debug)]
pub(super) struct Arrival {
    chunk: Chunk,
    /// What it says, if that can be told at once.
    plain: Option<Plain>,
    /// Of its connection's tuple, if it is plain.
    hash: u64,
    /// The slot that its connection may be in, if that is known. Frames before it may change that.
    hint: Option<u32>,
}

impl<M: Memory> Stack<M> {
    /// Takes a batch of received frames, whole packets; all of them are the stack's afterwards. Calls the
    /// application once for each connection on which something happened.
    pub fn receive<A: App>(&mut self, app: &mut A, frames: &[FrameSlice], now: Instant) {
        if let Some(verdicts) = &mut self.verdicts {
            verdicts.clear();
            // What was discarded since is no frame's of this batch.
            self.counters.take_latest();
        }
        let mut rest = frames;
        while !rest.is_empty() {
            let ahead = &rest[..rest.len().min(AHEAD)];
            let whole = ahead.iter().position(|slice| slice.more).unwrap_or(ahead.len());
            if whole > 0 {
                self.receive_some(&rest[..whole], now);
                rest = &rest[whole..];
            } else {
                rest = self.receive_scattered(rest, now);
            }
        }
        self.wake_resolved();
        self.serve(app, now);
    }

    /// From now on notes what became of each received frame, for those who watch; or no longer.
    pub fn note_verdicts(&mut self, on: bool) {
        self.verdicts = on.then(|| self.verdicts.take().unwrap_or_default());
    }

    /// Why each packet of the batch last received was discarded, in its order; `None` for one that wasn't, as far as
    /// that was known before an application was called. Empty unless [`note_verdicts`](Self::note_verdicts) was.
    pub fn verdicts(&self) -> &[Option<DropReason>] {
        self.verdicts.as_deref().unwrap_or_default()
    }

    /// Among many connections nearly every one's memory is far away. Fetched one after the other, each in its turn,
    /// that would be most of a segment's time; fetched together it is much less.
    fn receive_some(&mut self, frames: &[FrameSlice], now: Instant) {
        if frames.len() > 1 {
            self.fetch_frames(frames);
        }
        let near = self.slots.len() <= NEAR;
        let mut arrivals = core::mem::take(&mut self.arrivals);
        for &slice in frames {
            self.counters.frames_in += 1;
            self.counters.octets_in += u64::from(slice.len);
            let chunk = self.pool.received(slice);
            let plain = self.read(&chunk);
            if near {
                let hint = plain.as_ref().map(|plain| *self.hints.of(&plain.tuple));
                self.act_on(chunk, &plain, hint, now);
            } else {
                let hash = plain.as_ref().map_or(0, |plain| self.flows.hash(&plain.tuple));
                arrivals.push(Arrival { chunk, plain, hash, hint: None });
            }
        }
        self.fetch(&mut arrivals);
        for Arrival { chunk, plain, hint, .. } in arrivals.drain(..) {
            self.act_on(chunk, &plain, hint, now);
        }
        self.arrivals = arrivals;
    }

    /// What was just written is in another core's cache, or in memory: to wait for each frame when its turn comes was a
    /// quarter of byway's own time in a batch.
    #[inline]
    fn fetch_frames(&self, frames: &[FrameSlice]) {
        let touched = |touched, &slice| {
            let lines = self.pool.arrived(slice).iter().step_by(CACHE_LINE).take(LINES_AHEAD);
            lines.fold(touched, |touched, octet| touched ^ octet)
        };
        core::hint::black_box(frames.iter().fold(0, touched));
    }

    #[inline]
    fn read(&self, chunk: &Chunk) -> Option<Plain> {
        if self.config.prediction { plain::read(self.pool.bytes(chunk), self.config.mac) } else { None }
    }

    #[inline]
    fn act_on(&mut self, chunk: Chunk, plain: &Option<Plain>, hint: Option<u32>, now: Instant) {
        let chunk = match plain {
            Some(plain) => self.receive_plain(plain, chunk, hint, now),
            None => Some(chunk),
        };
        if let Some(chunk) = chunk {
            self.receive_any(chunk, now);
        }
        if let Some(verdicts) = &mut self.verdicts {
            verdicts.push(self.counters.take_latest());
        }
    }

    /// Touches what the segments' connections will need: first what the table says of where they are, then what they
    /// say of where their frames are.
    fn fetch(&self, arrivals: &mut [Arrival]) {
        let mut touched = 0;
        for arrival in arrivals.iter_mut().filter(|arrival| arrival.plain.is_some()) {
            arrival.hint = self.flows.guess(arrival.hash);
        }
        let hinted = || arrivals.iter().filter_map(|arrival| self.slots.get(arrival.hint? as usize));
        for slot in hinted() {
            touched ^= slot.tcb.as_ref().map_or(0, Tcb::touch) ^ u64::from(slot.output);
        }
        for slot in hinted() {
            touched ^= slot.tcb.as_ref().map_or(0, |tcb| u64::from(tcb.send.touch(&self.pool)));
        }
        core::hint::black_box(touched);
    }

    /// A plain segment for an established connection; the chunk comes back if there is none.
    #[inline]
    fn receive_plain(
        &mut self,
        plain: &Plain,
        chunk: Chunk,
        hint: Option<u32>,
        now: Instant,
    ) -> Option<Chunk> {
        let is_it =
            |index: &u32| self.slots.get(*index as usize).is_some_and(|slot| slot.is_of(&plain.tuple));
        let index = match hint.filter(is_it) {
            Some(index) => index,
            None => {
                let Some(index) = self.find(&plain.tuple) else { return Some(chunk) };
                *self.hints.of(&plain.tuple) = index;
                index
            }
        };
        let Some((tcb, mut ctx)) = self.tcb(index, now) else { return Some(chunk) };
        if tcb.state != State::Established {
            return Some(chunk);
        }
        ctx.counters.tcp_in_segs += 1;
        if let Err(chunk) = tcb.take_plain(plain, chunk, &mut ctx) {
            tcb.input_established(&plain.into(), chunk, &mut ctx);
        }
        self.after_input(index);
        None
    }

    fn receive_any(&mut self, chunk: Chunk, now: Instant) {
        match wire::parse(self.pool.bytes(&chunk), self.config.checksums) {
            Ok(packet) => self.act(&packet, chunk, now),
            Err(reason) => self.discard(chunk, reason),
        }
    }

    fn act(&mut self, packet: &Packet, chunk: Chunk, now: Instant) {
        let link = &packet.link;
        match &packet.body {
            Body::Tcp(ip, seg) => self.receive_tcp(link, ip, seg, chunk, now),
            Body::Fragment(ip, fragment) => self.receive_fragment(link, ip, fragment, chunk, now),
            Body::Arp(arp) => self.receive_arp(link, arp, chunk, now),
            Body::Icmpv4(ip) => self.receive_icmpv4(link, ip, chunk, now),
            Body::Icmpv6(ip) => self.receive_icmpv6(link, ip, chunk, now),
        }
    }

    pub(super) fn receive_tcp(
        &mut self,
        link: &ethernet::Header,
        ip: &ip::Header,
        seg: &Segment,
        chunk: Chunk,
        now: Instant,
    ) {
        let tuple = FourTuple::of(ip, seg);
        let index = self.find(&tuple);
        // A connection's addresses were looked at when it was opened.
        let ours = if index.is_some() { self.check_link(link) } else { self.check_ours(link, ip) };
        if let Err(reason) = ours {
            return self.discard(chunk, reason);
        }
        self.counters.tcp_in_segs += 1;
        if let Some(index) = index {
            return self.input(index, link, ip, seg, chunk, now);
        }
        let may_reopen = !self.draining && self.listeners.find(&tuple).is_some_and(|port| port.has_room());
        let mut used = None;
        match self.time_wait.input(&tuple, seg, may_reopen, &self.config, now) {
            None => {}
            Some(Verdict::Reopen { used: last }) => {
                self.counters.tcp_time_wait_recycled += 1;
                self.states.enter(State::TimeWait, State::Closed);
                used = Some(last);
            }
            Some(Verdict::Ignore) => return self.discard(chunk, DropReason::TimeWait),
            Some(Verdict::Ack { seq, ack, recent }) => {
                self.counters.drop(DropReason::TimeWait);
                return self.answer_for_time_wait(link, &tuple, (seq, ack, recent), chunk, now);
            }
        }
        self.receive_for_listener(link, ip, &tuple, seg, chunk, used, now);
    }

    /// A segment for a connection.
    pub(super) fn input(
        &mut self,
        index: u32,
        link: &ethernet::Header,
        ip: &ip::Header,
        seg: &Segment,
        mut chunk: Chunk,
        now: Instant,
    ) {
        let Some((tcb, mut ctx)) = self.tcb(index, now) else { return };
        // Ethernet padding and the like end here: the chunk is the IP packet's octets.
        chunk.truncate(ip.payload.0 + ip.payload.1);
        let reset = tcb.input(seg, chunk, &mut ctx);
        let established = tcb.state != State::SynReceived && core::mem::take(&mut tcb.in_backlog);
        let tuple = tcb.tuple;
        if established {
            self.half_open_done(&tuple);
        }
        if reset {
            self.reset_for(link, &tuple, seg, now);
        }
        self.after_input(index);
    }

    /// What a segment leads to: the application's turn, if it has news, and the output's.
    #[inline]
    fn after_input(&mut self, index: u32) {
        let slot = &mut self.slots[index as usize];
        let Some(tcb) = &mut slot.tcb else { return };
        if tcb.wants_room && (tcb.send.is_empty() || tcb.send_room(&self.pool, &self.config) >= ROOM_LOW) {
            tcb.wants_room = false;
            tcb.ready.writable = true;
        }
        if tcb.has_news() && !core::mem::replace(&mut slot.dirty, true) {
            self.dirty.push(index);
        }
        if !core::mem::replace(&mut slot.output, true) {
            self.output.push_back(index);
        }
    }
}
