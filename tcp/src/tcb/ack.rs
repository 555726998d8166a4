//! The acknowledgement field (RFC 9293 §3.10.7.4, fifth step). S5.1

use super::congestion::Congestion;
use super::input::Disposition;
use super::state::State;
use super::{Ctx, Tcb};
use crate::app::Closed;
use crate::counters::DropReason;
use crate::frame::Memory;
use crate::seq::SeqNumber;
use crate::time::Instant;
use crate::timer::TimerKind;
use crate::wire::tcp::{Flags, Segment};

impl Tcb {
    /// Fifth step. `Ok`: go on with the segment's text.
    pub(super) fn check_ack<M: Memory>(
        &mut self,
        seg: &Segment,
        ctx: &mut Ctx<'_, M>,
    ) -> Result<(), Disposition> {
        if !seg.flags.contains(Flags::ACK) {
            return Err(Disposition::Discard(DropReason::BadAck));
        }
        let (una, nxt) = (self.snd.una, self.snd.nxt);
        let acknowledges = seg.ack.acknowledges(una, nxt);
        if self.state == State::SynReceived {
            if !acknowledges {
                return Err(Disposition::Reset(DropReason::BadAck));
            }
            self.establish(seg, ctx);
        } else if !acknowledges && seg.ack != una {
            // RFC 5961 §5.2 (MAY-12): what was never sent (T23), or is older than any window could explain, is an
            // attack; otherwise it's just late.
            return if una.since(seg.ack) > self.snd.max_wnd {
                Err(Disposition::ChallengeAck(DropReason::BadAck))
            } else {
                Ok(())
            };
        }
        self.acknowledged(seg, ctx);
        Ok(())
    }

    /// SYN-SENT or SYN-RECEIVED → ESTABLISHED. S1.1
    pub(super) fn establish<M: Memory>(&mut self, seg: &Segment, ctx: &mut Ctx<'_, M>) {
        let Some(next) = self.state.established() else { return };
        self.enter(next, ctx);
        self.opening = true;
        if self.tries > 1 {
            self.congestion.on_syn_lost(u32::from(self.snd.mss));
        }
        if self.tries > 0 {
            self.rtt.after_syn_timeout();
        } else if self.retransmits == 0 {
            // Karn's rule (RFC 6298 §3): not if the SYN-ACK was sent again for a repeated SYN.
            self.measured(ctx.now.since(self.last_sent), ctx.now);
        }
        self.tries = 0;
        self.owed.syn = false;
        self.timers.clear(TimerKind::Retransmit);
        self.snd.wl1 = seg.seq;
        self.snd.wl2 = seg.ack;
        self.watch(ctx.now);
    }

    /// SND.UNA =< SEG.ACK =< SND.NXT
    pub(super) fn acknowledged<M: Memory>(&mut self, seg: &Segment, ctx: &mut Ctx<'_, M>) {
        self.on_ece(seg, ctx);
        let outstanding = self.snd.nxt != self.snd.una;
        let window_before = self.snd.wnd;
        let sacked_before = self.send.sacked;
        let moved = self.snd.una.lt(seg.ack);
        let acked = if moved { self.move_una(seg.ack, ctx.now) } else { 0 };
        self.update_window(seg, moved);
        // RFC 5681 §2: no data, no SYN or FIN, same ACK, same window. A new SACK block says more than the window does.
        let bare = !moved && seg.payload.1 == 0 && !seg.flags.contains(Flags::FIN);
        if outstanding {
            let news = self.learn(seg, acked, ctx);
            let same = self.snd.wnd == window_before || self.send.sacked != sacked_before;
            self.recover(seg, news, bare && same, ctx);
        } else {
            self.hear_of_the_past(seg, bare && self.snd.wnd == window_before, ctx);
        }
        if moved {
            self.raise_path_if_due(ctx);
            self.persist_backoff = 0;
            self.after_progress(seg.ack, ctx);
        }
        if moved || self.send.sacked != sacked_before {
            self.schedule_probe(ctx);
        }
        // A window that is open but small leaves the timer running: it allows the use of such a window, and
        // a peer that says something all the time mustn't put that off.
        if window_before == 0 && self.snd.wnd > 0 {
            self.timers.clear(TimerKind::Persist);
            // A window that lets nothing out is no progress: what waits has waited since before (T3).
            self.persist_backoff = u8::from(self.send.unsent().is_some());
        }
    }

    /// Octets of data that `ack` newly acknowledges: SYN and FIN aren't data.
    fn move_una(&mut self, ack: SeqNumber, now: Instant) -> u32 {
        let first = if self.snd.una == self.snd.iss { self.snd.iss + 1 } else { self.snd.una };
        let acked = ack.min(self.send.end());
        self.snd.una = ack;
        self.snd.up = self.snd.up.filter(|&up| ack.lt(up));
        self.stalled_since = now;
        self.progressed = now;
        if first.lt(acked) { acked.since(first) } else { 0 }
    }

    /// FIN may have been acknowledged; the retransmission timer starts anew (RFC 6298 §5.2, 5.3).
    pub(super) fn after_progress<M: Memory>(&mut self, ack: SeqNumber, ctx: &mut Ctx<'_, M>) {
        if self.fin_sent && ack == self.snd.nxt {
            self.fin_acknowledged(ctx);
        }
        if self.snd.una == self.snd.nxt {
            self.timers.clear(TimerKind::Retransmit);
            self.recovery.rack.forget_newest();
        } else if self.state != State::Closed {
            self.timers.set(TimerKind::Retransmit, ctx.now + self.rtt.rto());
        }
    }

    fn fin_acknowledged<M: Memory>(&mut self, ctx: &mut Ctx<'_, M>) {
        match self.state.fin_acked() {
            Some(State::FinWait2) => {
                self.enter(State::FinWait2, ctx);
                self.timers.set(TimerKind::FinWait2, ctx.now + ctx.config.fin_timeout);
            }
            Some(State::TimeWait) => self.enter_time_wait(ctx),
            Some(State::Closed) => self.finish(Closed::Finished, ctx),
            _ => {}
        }
    }

    /// Both sides have closed, ours first or at once. The stack moves the connection to the compact table
    /// when the application has read everything. RFC 9293 §3.6.1 (MUST-13): 2 MSL. S2.4
    pub(super) fn enter_time_wait<M: Memory>(&mut self, ctx: &mut Ctx<'_, M>) {
        self.enter(State::TimeWait, ctx);
        self.timers.clear(TimerKind::Retransmit);
        self.timers.clear(TimerKind::KeepAlive);
        self.timers.clear(TimerKind::Persist);
        self.timers.set(TimerKind::FinWait2, ctx.now + ctx.config.time_wait);
        self.over = Some(Closed::Finished);
    }

    /// RFC 9293 §3.10.7.4: only a newer segment updates the window. One that acknowledges something new, `moved`, is
    /// newer whatever its number: with the old window SND.UNA + SND.WND would lie beyond what was ever granted. S5.2
    fn update_window(&mut self, seg: &Segment, moved: bool) {
        let newer =
            moved || self.snd.wl1.lt(seg.seq) || (self.snd.wl1 == seg.seq && self.snd.wl2.leq(seg.ack));
        if newer {
            // Unsigned, in 32 bits (RFC 9293 §3.1, MUST-1, REC-1); that of a SYN is never scaled (RFC 7323 §2.2).
            let scale = if seg.flags.contains(Flags::SYN) { 0 } else { self.snd.scale };
            self.snd.wnd = u32::from(seg.window) << scale;
            self.snd.max_wnd = self.snd.max_wnd.max(self.snd.wnd);
            self.snd.wl1 = seg.seq;
            self.snd.wl2 = seg.ack;
        }
    }
}
