//! What goes out: finished answers first, then each connection in its turn, to a next hop that is known.

use super::Stack;
use crate::counters::DropReason;
use crate::frame::{FrameSlice, Memory};
use crate::neighbor::{Resolution, Station};
use crate::tcb::Output;
use crate::time::{Duration, Instant};
use crate::timer::TimerKind;

/// When one of more than the table wakes looks again: soon against a second for a SYN-ACK, and seldom enough for a
/// full table of them.
const HOP_AGAIN: Duration = Duration::from_millis(100);
/// How long a resolved next hop is used without asking the table again.
const HOP_FRESH: Duration = Duration::from_secs(1);

impl<M: Memory> Stack<M> {
    /// Before anybody comes: behind a gateway that is still being asked for, a burst of connections would
    /// wait for their retransmission timers.
    pub(super) fn ask_gateways(&mut self, now: Instant) {
        for at in 0..self.config.gateways.len() {
            let ip = self.config.gateways[at];
            if self.neighbors.lookup(ip, None, now) == Resolution::Ask {
                self.ask(self.neighbors.question(ip), now);
            }
        }
    }

    /// Appends up to `room` frames to send; each is the kernel's until
    /// [`FramePool::completed`](crate::frame::FramePool::completed) is called with its index. Returns whether more is waiting.
    pub fn poll_transmit(&mut self, room: usize, now: Instant, out: &mut Vec<FrameSlice>) -> bool {
        let first = out.len();
        let full = first + room;
        while out.len() < full {
            let Some(slice) = self.control.pop_front() else { break };
            out.push(slice);
        }
        // Each connection gets at most one turn per call: the loop ends even if none can go on.
        for _ in 0..self.output.len() {
            if out.len() >= full {
                break;
            }
            let Some(index) = self.output.pop_front() else { break };
            self.transmit_one(index, full - out.len(), now, out);
        }
        for slice in &out[first..] {
            self.counters.octets_out += u64::from(slice.len);
        }
        self.counters.frames_out += (out.len() - first) as u64;
        if self.output.is_empty() {
            // From its beginning again, which is near: it has room for every connection.
            self.output.clear();
        }
        !self.output.is_empty() || !self.control.is_empty()
    }

    fn transmit_one(&mut self, index: u32, room: usize, now: Instant, out: &mut Vec<FrameSlice>) {
        let slot = &mut self.slots[index as usize];
        slot.output = false;
        let Some(tcb) = &slot.tcb else { return };
        if tcb.hop.fresh_until <= now && !self.resolve(index, now) {
            return;
        }
        let Some((tcb, mut ctx)) = self.tcb(index, now) else { return };
        let (fresh, before) = (tcb.snd.nxt, out.len());
        if tcb.output(room, out, &mut ctx) == Output::More {
            self.schedule_output(index);
        }
        if self.config.frames_sent > 1 && out.len() > before + 1 {
            self.merge(index, fresh, &mut out[before..]);
        }
        self.sync_timer(index);
    }

    /// Looks the next hop up. False: it is being asked for, and the connection waits.
    fn resolve(&mut self, index: u32, now: Instant) -> bool {
        let Some(tcb) = self.slots[index as usize].tcb.as_mut() else { return false };
        let remote = tcb.tuple.remote_ip;
        // Neither on-link nor a gateway for it: straight back to where it came from, if it came.
        let Some(next) = self.config.next_hop(remote).or((!tcb.passive).then_some(remote)) else {
            tcb.hop.fresh_until = Instant::NEVER;
            return true;
        };
        // Who opens a connection hears from the neighbour in which VLAN it is; who was called knows.
        let vlan = tcb.passive.then_some(tcb.hop.station.vlan);
        if tcb.has_progressed_since(now - 2 * HOP_FRESH) {
            self.neighbors.confirm(next, tcb.hop.station.mac, now);
        }
        let mut woken = true;
        match self.neighbors.lookup(next, vlan, now) {
            Resolution::Known(Station { mac, vlan }) => {
                tcb.hop.station.mac = mac;
                if !tcb.passive {
                    tcb.hop.station.vlan = vlan;
                }
                tcb.hop.fresh_until = now + HOP_FRESH;
                return true;
            }
            Resolution::Ask => {
                woken = self.neighbors.wait(next, index);
                self.ask(self.neighbors.question(next), now);
            }
            Resolution::Wait => woken = self.neighbors.wait(next, index),
            Resolution::Unreachable => {}
        }
        self.counters.drop(DropReason::NoNeighbor);
        // The retransmission timer, once armed, tries again; before the first segment arm it here.
        if let Some(tcb) = self.slots[index as usize].tcb.as_mut() {
            if !tcb.timers.is_set(TimerKind::Retransmit) {
                tcb.timers.set(TimerKind::Retransmit, now + tcb.rtt.rto());
            }
            if !woken {
                tcb.timers.set(TimerKind::Pacing, now + HOP_AGAIN);
            }
        }
        self.sync_timer(index);
        false
    }

    #[inline]
    pub(super) fn wake_resolved(&mut self) {
        if self.neighbors.has_woken() {
            self.schedule_woken();
        }
    }

    fn schedule_woken(&mut self) {
        let mut woken = core::mem::take(&mut self.woken);
        self.neighbors.take_woken(&mut woken);
        for index in woken.drain(..) {
            self.schedule_output(index);
        }
        self.woken = woken;
    }
}
