//! A batch of frames on its way in: to a connection, to TIME-WAIT, or to a listener.

use super::{ROOM_LOW, Stack};
use crate::app::App;
use crate::counters::DropReason;
use crate::flow_table::FourTuple;
use crate::frame::{Chunk, FrameSlice, Memory};
use crate::tcb::state::State;
use crate::time::Instant;
use crate::time_wait::Verdict;
use crate::wire::tcp::Segment;
use crate::wire::{Body, Packet, ethernet, ip};

impl<M: Memory> Stack<M> {
    /// Takes a batch of received frames; all of them are the stack's afterwards. Calls the
    /// application once for each connection on which something happened.
    pub fn receive<A: App>(&mut self, app: &mut A, frames: &[FrameSlice], now: Instant) {
        for &slice in frames {
            self.counters.frames_in += 1;
            self.counters.octets_in += u64::from(slice.len);
            let chunk = self.pool.received(slice);
            match crate::wire::parse(self.pool.bytes(&chunk), self.config.checksums) {
                Ok(Packet { link, body }) => match body {
                    Body::Tcp(ip, seg) => self.receive_tcp(&link, &ip, &seg, chunk, now),
                    Body::Fragment(ip, fragment) => self.receive_fragment(&link, &ip, &fragment, chunk, now),
                    Body::Arp(arp) => self.receive_arp(&link, &arp, chunk, now),
                    Body::Icmpv4(ip) => self.receive_icmpv4(&link, &ip, chunk, now),
                    Body::Icmpv6(ip) => self.receive_icmpv6(&link, &ip, chunk, now),
                },
                Err(reason) => self.discard(chunk, reason),
            }
        }
        self.wake_resolved();
        self.serve(app, now);
    }

    pub(super) fn receive_tcp(
        &mut self,
        link: &ethernet::Header,
        ip: &ip::Header,
        seg: &Segment,
        chunk: Chunk,
        now: Instant,
    ) {
        if let Err(reason) = self.check_ours(link, ip) {
            return self.discard(chunk, reason);
        }
        self.counters.tcp_in_segs += 1;
        let tuple = FourTuple {
            local_ip: ip.dst,
            remote_ip: ip.src,
            local_port: seg.dst_port,
            remote_port: seg.src_port,
        };
        if let Some(index) = self.find(&tuple) {
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
        let (news, tuple) = (tcb.has_news(), tcb.tuple);
        if tcb.state != State::SynReceived && core::mem::take(&mut tcb.in_backlog) {
            self.half_open_done(&tuple);
        }
        if reset {
            self.reset_for(link, &tuple, seg, now);
        }
        if news {
            self.mark_dirty(index);
        }
        self.schedule_output(index);
    }
}
