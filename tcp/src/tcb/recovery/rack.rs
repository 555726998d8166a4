//! RACK: time tells what is lost (RFC 8985 §6).
//!
//! ```text
//!    in flight, by time of transmission
//!   ┌────────┬────────┬────────┬────────┬────────┐
//!   │ sent   │        │        │ newest │        │     Whatever was sent before the newest that arrived, and
//!   │ first  │        │        │ arrived│        │     longer ago than its round trip plus the reordering
//!   └────────┴────────┴────────┴────────┴────────┘     window, is lost.
//!      lost     lost   wait a bit
//! ```
//!
//! The list is looked at from its front, and what is lost leaves it: O(1) amortised.

use super::DUPLICATES_FOR_LOSS;
use crate::frame::Memory;
use crate::seq::SeqNumber;
use crate::tcb::congestion::Phase;
use crate::tcb::rate::{between, stamp};
use crate::tcb::{Ctx, Tcb};
use crate::time::Duration;
use crate::timer::TimerKind;

/// Recoveries after which a widened reordering window is given up if no duplicate comes (RFC 8985 §6.2 step 4).
const WINDOW_PERSISTS: u8 = 16;

/// RFC 8985 §5.3, per-connection variables.
#[derive(Debug, Default)]
pub(in crate::tcb) struct Rack {
    /// RACK.xmit_ts, RACK.end_seq: the segment sent last of those that arrived; `None` at first.
    newest: Option<(u32, SeqNumber)>,
    /// RACK.rtt: its round trip, µs.
    rtt_us: u32,
    /// Highest number that has arrived.
    fack: SeqNumber,
    /// RACK.reordering_seen
    reordering: bool,
    /// RACK.reo_wnd_mult, less one.
    widened: u8,
    /// RACK.reo_wnd_persist
    persists: u8,
    /// RACK.dsack_round: until this is acknowledged further duplicates widen nothing.
    round: Option<SeqNumber>,
}

impl Rack {
    pub(super) fn new(iss: SeqNumber) -> Self {
        Self { fack: iss, ..Self::default() }
    }

    pub(super) fn fack(&self) -> SeqNumber {
        self.fack
    }

    fn rtt(&self) -> Duration {
        Duration::from_micros(u64::from(self.rtt_us))
    }

    /// A segment sent once arrived, `fack` being what it was before this ACK (§6.2 step 3).
    pub(super) fn saw_original(&mut self, end: SeqNumber, fack: SeqNumber) {
        if end.lt(fack) {
            self.reordering = true;
        }
    }

    /// A segment arrived (§6.2 step 2).
    pub(super) fn arrived(&mut self, at: u32, end: SeqNumber, rtt: Duration) {
        self.fack = self.fack.max(end);
        if self.newest.is_none_or(|newest| !is_later(newest, (at, end))) {
            self.newest = Some((at, end));
            self.rtt_us = u32::try_from(rtt.as_micros()).unwrap_or(u32::MAX);
        }
    }

    /// Octets arrived twice: the window was too small (§6.2 step 4).
    pub(super) fn widen(&mut self, nxt: SeqNumber) {
        if self.round.is_none() {
            self.round = Some(nxt);
            self.widened = self.widened.saturating_add(1);
            self.persists = WINDOW_PERSISTS;
        }
    }

    /// What was taken for lost wasn't: segments do overtake each other here, and the ACK that told so was for an
    /// original, not for the retransmission.
    pub(super) fn saw_spurious(&mut self) {
        self.reordering = true;
        self.newest = None;
    }

    /// Everything up to `una` arrived and nothing behind it, the last, sent `at`, after `rtt`.
    #[inline]
    pub(in crate::tcb) fn arrived_in_order(&mut self, at: u32, una: SeqNumber, rtt: Duration) {
        self.arrived(at, una, rtt);
        self.round = self.round.filter(|&round| una.lt(round));
    }

    /// Nothing is out: what is sent from now on is later than all that has arrived, and after half an hour the stamps
    /// wouldn't say so any more.
    pub(in crate::tcb) fn forget_newest(&mut self) {
        self.newest = None;
    }

    /// A recovery is over (§6.2 step 4).
    pub(super) fn on_recovered(&mut self) {
        self.persists = self.persists.saturating_sub(1);
        if self.persists == 0 {
            self.widened = 0;
        }
    }
}

/// RACK_sent_after: by time, then by number.
fn is_later(one: (u32, SeqNumber), other: (u32, SeqNumber)) -> bool {
    match one.0.wrapping_sub(other.0) as i32 {
        0 => other.1.lt(one.1),
        difference => difference > 0,
    }
}

impl Tcb {
    /// How much longer than RACK.rtt a segment may take (RFC 8985 §6.2 step 4).
    fn reordering_window(&mut self) -> Duration {
        let rack = &mut self.recovery.rack;
        if rack.round.is_some_and(|round| round.leq(self.snd.una)) {
            rack.round = None;
        }
        if !rack.reordering {
            let recovering = matches!(self.recovery.phase, Phase::FastRecovery | Phase::Loss);
            if recovering || self.send.sacked_frames >= DUPLICATES_FOR_LOSS {
                return Duration::ZERO;
            }
        }
        let quarter = self.rtt.min_rtt().unwrap_or_default() / 4;
        (quarter * (1 + u32::from(rack.widened))).min(self.rtt.srtt().unwrap_or_default())
    }

    /// RACK_detect_loss (RFC 8985 §6.2 step 5): marks what is lost, and arms the timer for what may be soon. Octets
    /// newly lost.
    pub(super) fn detect_lost<M: Memory>(&mut self, ctx: &mut Ctx<'_, M>) -> u32 {
        self.timers.clear(TimerKind::Reorder);
        let Some(newest) = self.recovery.rack.newest else { return 0 };
        let now = stamp(ctx.now);
        let allowed = self.recovery.rack.rtt() + self.reordering_window();
        let mut lost = 0;
        while let Some(index) = self.send.earliest_sent() {
            let meta = ctx.pool.meta(index);
            let end = SeqNumber(meta.seq) + u32::from(meta.len);
            let at = ctx.pool.transmission(index).at;
            if !is_later(newest, (at, end)) {
                break;
            }
            let age = between(at, now);
            if age < allowed {
                // By then all that was sent before the newest is due.
                let due = allowed.saturating_sub(between(newest.0, now)).max(allowed - age);
                self.timers.set(TimerKind::Reorder, ctx.now + due);
                break;
            }
            lost += self.mark_lost(index, ctx);
        }
        lost
    }

    /// The timer of what might only have been late.
    pub(in crate::tcb) fn on_reorder_timeout<M: Memory>(&mut self, ctx: &mut Ctx<'_, M>) {
        let flight = self.in_flight();
        let lost = self.detect_lost(ctx);
        if lost > 0 && matches!(self.recovery.phase, Phase::Open | Phase::Cwr) {
            self.enter_fast_recovery(flight, ctx);
        }
    }

    /// After a timeout: what was sent longer ago than a round trip (RFC 8985 §8); without SACK everything, because
    /// nothing else will tell.
    pub(super) fn mark_expired<M: Memory>(&mut self, ctx: &mut Ctx<'_, M>) {
        self.timers.clear(TimerKind::Reorder);
        let now = stamp(ctx.now);
        let allowed =
            if self.sack { self.recovery.rack.rtt() + self.reordering_window() } else { Duration::ZERO };
        while let Some(index) = self.send.earliest_sent() {
            if between(ctx.pool.transmission(index).at, now) < allowed {
                break;
            }
            self.mark_lost(index, ctx);
        }
    }
}
