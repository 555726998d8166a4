//! A batch of frames on its way in: to a connection, to TIME-WAIT, or to a listener.

use super::{ROOM_LOW, Stack};
use crate::app::App;
use crate::counters::DropReason;
use crate::flow_table::FourTuple;
use crate::frame::{Chunk, FrameSlice, Memory};
use crate::tcb::Tcb;
use crate::tcb::state::State;
use crate::time::Instant;
use crate::time_wait::Verdict;
use crate::wire::tcp::Segment;
use crate::wire::{Body, Packet, ethernet, ip};

/// Frames that are read ahead of the first that is acted on: enough that what the processor fetches for the last
/// overlaps with what it fetches for the first, and few enough that all of it stays in the first-level cache.
const AHEAD: usize = 32;

/// So many connections' memory is never far: half a MiB, of a second-level cache of one or two.
const NEAR: usize = 512;

/// Frames that are read and not acted on.
#[derive(Debug, Default)]
pub(super) struct Arrivals {
    packets: Vec<Packet>,
    /// Of each packet its frame, and the slot that its connection seems to be in. Frames before it may change that.
    frames: Vec<(Chunk, Option<u32>)>,
}

impl Arrivals {
    /// With all the memory that a batch takes.
    pub(super) fn new() -> Self {
        Self { packets: Vec::with_capacity(AHEAD), frames: Vec::with_capacity(AHEAD) }
    }
}

impl<M: Memory> Stack<M> {
    /// Takes a batch of received frames; all of them are the stack's afterwards. Calls the
    /// application once for each connection on which something happened.
    pub fn receive<A: App>(&mut self, app: &mut A, frames: &[FrameSlice], now: Instant) {
        for frames in frames.chunks(AHEAD) {
            self.receive_some(frames, now);
        }
        self.wake_resolved();
        self.serve(app, now);
    }

    /// Among many connections nearly every one's memory is far away. Fetched one after the other, each in its turn,
    /// that would be most of a segment's time; fetched together it is much less.
    fn receive_some(&mut self, frames: &[FrameSlice], now: Instant) {
        let mut arrivals = core::mem::take(&mut self.arrivals);
        for &slice in frames {
            self.counters.frames_in += 1;
            self.counters.octets_in += u64::from(slice.len);
            let chunk = self.pool.received(slice);
            match crate::wire::parse(self.pool.bytes(&chunk), self.config.checksums) {
                Ok(packet) => {
                    arrivals.packets.push(packet);
                    arrivals.frames.push((chunk, None));
                }
                Err(reason) => self.discard(chunk, reason),
            }
        }
        if self.slots.len() > NEAR {
            self.fetch(&mut arrivals);
        }
        for (packet, (chunk, hint)) in arrivals.packets.iter().zip(arrivals.frames.drain(..)) {
            self.act(packet, chunk, hint, now);
        }
        arrivals.packets.clear();
        self.arrivals = arrivals;
    }

    /// Touches what the packets' connections will need: first what the table says of where they are, then what they
    /// say of where their frames are.
    fn fetch(&self, arrivals: &mut Arrivals) {
        for (packet, (_, hint)) in arrivals.packets.iter().zip(&mut arrivals.frames) {
            if let Body::Tcp(ip, seg) = &packet.body {
                *hint = self.flows.guess(&FourTuple::of(ip, seg));
            }
        }
        let hints = || arrivals.frames.iter().filter_map(|&(_, hint)| hint);
        let mut touched = 0;
        for index in hints() {
            touched ^= self.slots[index as usize].tcb.as_ref().map_or(0, Tcb::touch);
            touched ^= u64::from(self.wheel.touch(index));
        }
        for index in hints() {
            let tcb = self.slots[index as usize].tcb.as_ref();
            touched ^= u64::from(tcb.map_or(0, |tcb| tcb.send.touch(&self.pool)));
        }
        core::hint::black_box(touched);
    }

    fn act(&mut self, packet: &Packet, chunk: Chunk, hint: Option<u32>, now: Instant) {
        let link = &packet.link;
        match &packet.body {
            Body::Tcp(ip, seg) => self.receive_tcp(link, ip, seg, chunk, hint, now),
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
        hint: Option<u32>,
        now: Instant,
    ) {
        let tuple = FourTuple::of(ip, seg);
        let hint = hint.filter(|&index| self.slots[index as usize].is_of(&tuple));
        let index = hint.or_else(|| self.find(&tuple));
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
                self.states[State::TimeWait as usize] -= 1;
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
        if tcb.wants_room && (tcb.send.is_empty() || tcb.send_room(ctx.pool, ctx.config) >= ROOM_LOW) {
            tcb.wants_room = false;
            tcb.ready.writable = true;
        }
        let news = tcb.has_news();
        let established = tcb.state != State::SynReceived && core::mem::take(&mut tcb.in_backlog);
        if established || reset {
            let tuple = tcb.tuple;
            if established {
                self.half_open_done(&tuple);
            }
            if reset {
                self.reset_for(link, &tuple, seg, now);
            }
        }
        if news {
            self.mark_dirty(index);
        }
        self.schedule_output(index);
    }
}
