//! Tail loss probe (RFC 8985 §7): when the last segments of a flight are lost, nothing comes back that could tell. So
//! after two round trips of silence one segment is sent whose ACK does.

use super::News;
use super::undo::Undo;
use crate::frame::Memory;
use crate::seq::SeqNumber;
use crate::tcb::congestion::{Congestion, Phase, Signal};
use crate::tcb::{Ctx, Tcb};
use crate::time::Duration;
use crate::timer::TimerKind;
use crate::wire::tcp::Segment;

/// A receiver of a single segment may hold its ACK back so long (TLP.max_ack_delay): Linux's longest delayed ACK.
const MAX_ACK_DELAY: Duration = Duration::from_millis(200);
/// Beyond two round trips, for timers that tick (Linux: two jiffies). It also keeps exchanges within a data centre
/// from arming and disarming the wheel with each segment.
const SLACK: Duration = Duration::from_millis(2);

/// The probe that is out, with TLP.end_seq: SND.NXT after it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum TailLossProbe {
    /// There is none.
    #[default]
    None,
    /// A segment that was new.
    New(SeqNumber),
    /// One that was sent before (TLP.is_retrans).
    Again(SeqNumber),
}

impl Tcb {
    /// Arms or clears the probe's timer, after new data was sent or an ACK told something (RFC 8985 §7.2).
    pub(in crate::tcb) fn schedule_probe<M>(&mut self, ctx: &Ctx<'_, M>) {
        self.timers.clear(TimerKind::LossProbe);
        let quiet = self.sack
            && self.snd.una != self.snd.nxt
            && matches!(self.recovery.phase, Phase::Open | Phase::Cwr)
            && self.send.sacked_frames == 0;
        // RFC 8985 §7.3: one probe at a time, and none before the round trip was measured since the last: probes whose
        // ACKs measure nothing would hide that the path has got longer. Then only the retransmission timer runs.
        let may_probe = self.recovery.probe == TailLossProbe::None && self.recovery.measured;
        let Some(srtt) = self.rtt.srtt().filter(|_| quiet && may_probe) else { return };
        let mut timeout = 2 * srtt + SLACK;
        if self.snd.nxt.since(self.snd.una) <= u32::from(self.snd.mss) {
            timeout += MAX_ACK_DELAY;
        }
        let at = (ctx.now + timeout).min(self.timers.deadline(TimerKind::Retransmit));
        self.timers.set(TimerKind::LossProbe, at);
    }

    /// The probe is due: output sends it, and the retransmission timer starts anew (RFC 8985 §7.3).
    pub(in crate::tcb) fn on_probe_timeout<M>(&mut self, ctx: &Ctx<'_, M>) {
        self.owed.loss_probe = true;
        self.timers.set(TimerKind::Retransmit, ctx.now + self.rtt.rto());
    }

    /// The probe went out: a segment `again`, or a new one.
    pub(in crate::tcb) fn probe_sent<M>(&mut self, again: bool, ctx: &mut Ctx<'_, M>) {
        ctx.counters.tcp_loss_probes += 1;
        self.recovery.measured = false;
        let end = self.snd.nxt;
        self.recovery.probe = if again { TailLossProbe::Again(end) } else { TailLossProbe::New(end) };
        self.timers.clear(TimerKind::LossProbe);
    }

    /// What the ACK says about a probe (RFC 8985 §7.4.2).
    pub(super) fn check_probe<M: Memory>(
        &mut self,
        seg: &Segment,
        news: &News,
        duplicate: bool,
        ctx: &mut Ctx<'_, M>,
    ) {
        let (end, again) = match self.recovery.probe {
            TailLossProbe::None => return,
            TailLossProbe::New(end) => (end, false),
            TailLossProbe::Again(end) => (end, true),
        };
        if !end.leq(seg.ack) {
            return;
        }
        if !again || news.duplicate.is_some() {
            // A new segment, or the original arrived as well: nothing was lost.
            self.recovery.probe = TailLossProbe::None;
        } else if end.lt(seg.ack) {
            // The probe mended a loss that nobody saw: the network dropped, so the window shrinks.
            self.recovery.probe = TailLossProbe::None;
            if self.recovery.phase == Phase::Open {
                ctx.counters.tcp_loss_probe_recovery += 1;
                self.congestion.on_congestion(&self.event(Signal::Loss, ctx.now));
                self.congestion.on_recovered(ctx.now, u32::from(self.snd.mss));
                // What an earlier recovery could have put back is gone with this reduction.
                self.recovery.undo = Undo::default();
            }
        } else if duplicate && seg.options.sack.is_empty() {
            // Two ACKs of the same: both copies arrived.
            self.recovery.probe = TailLossProbe::None;
        }
    }
}
