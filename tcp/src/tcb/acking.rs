//! When an acknowledgement is sent: at once, or a little later on the answer (RFC 5681 §4.2, RFC 9293 §3.8.6.3). S8.1
//!
//! ```text
//!   text in order ──→ quick: at once ──────────── Config::quick_acks at the start, after a pause, a hole
//!                └──→ delayed: 40 ms from the output that doesn't send it, or the second full segment, or the
//!                     answer that it rides on
//!   a hole, its filling, FIN, a mark, a window nearly used up ──→ at once
//! ```
//!
//! One ACK answers all that a batch brought (RFC 9293 §3.10.7.4, MUST-58, MUST-59), and goes behind what the
//! application answers in that batch: at once costs nothing then.

use super::{Ctx, Tcb};
use crate::stack::Config;
use crate::time::{Duration, Instant};
use crate::timer::TimerKind;

/// How long an acknowledgement may wait for data to ride on (RFC 9293 §3.8.6.3: SHLD-18; less than 0.5 s, MUST-40).
/// Linux's minimum: long enough for an application's answer, short against every peer's RTO minimum.
pub const DELAYED_ACK: Duration = Duration::from_millis(40);
/// How one connection acknowledges.
#[derive(Debug)]
pub(super) struct Acking {
    /// Segments still to be acknowledged at once.
    quick: u8,
    /// The application answers before an ACK's time is over: it rides on the answer.
    answers: bool,
}

impl Acking {
    pub(super) fn new(config: &Config) -> Self {
        Self { quick: config.quick_acks, answers: false }
    }
}

impl Tcb {
    /// `octets` of text came in order, after a pause of `pause` without any; `hole`: there was one before.
    pub(super) fn owe_ack<M>(&mut self, octets: u32, pause: Duration, hole: bool, ctx: &Ctx<'_, M>) {
        self.owed.unacked += octets;
        if pause > self.rtt.rto() {
            // The sender's window starts over, too (RFC 5681 §4.1).
            self.acking.quick = ctx.config.quick_acks;
        }
        let quick = self.acking.quick > 0 && !self.acking.answers;
        self.acking.quick = self.acking.quick.saturating_sub(1);
        // RFC 5681 §4.2 (SHLD-19): at least every second full segment, at once when a hole is filled. A peer that may not
        // send another segment waits.
        let full = u32::from(self.snd.mss.min(self.rcv.mss));
        if quick || hole || self.owed.unacked >= 2 * full || self.rcv.wnd() < full {
            self.owed.ack = true;
        }
    }

    /// Output is over, and what came isn't acknowledged: it will be. Not before, since most answers are in that output.
    pub(super) fn delay_ack(&mut self, now: Instant) {
        if self.owed.unacked > 0 && !self.timers.is_set(TimerKind::DelayedAck) {
            self.timers.set(TimerKind::DelayedAck, now + DELAYED_ACK);
        }
    }

    /// A segment came ahead of a hole, or again: its sender recovers, and lives on our ACKs (RFC 5681 §4.2).
    pub(super) fn owe_ack_now<M>(&mut self, ctx: &Ctx<'_, M>) {
        self.owed.ack = true;
        self.acking.quick = ctx.config.quick_acks;
    }

    /// New text goes out: an answer, if it comes soon enough after the peer's.
    pub(super) fn answered(&mut self, now: Instant) {
        let was_asked = self.rcv.nxt != self.rcv.irs + 1;
        self.acking.answers |= was_asked && now.since(self.in_order_at) < DELAYED_ACK;
    }

    /// The ACK's time is over, and no answer came.
    pub(super) fn on_delayed_ack<M>(&mut self, ctx: &mut Ctx<'_, M>) {
        ctx.counters.tcp_delayed_acks += 1;
        self.owed.ack = true;
        self.acking.answers = false;
    }
}
