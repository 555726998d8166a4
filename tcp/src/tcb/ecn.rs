//! Explicit congestion notification (RFC 3168): the network marks a segment instead of dropping it. S4.2
//!
//! ```text
//!   sender:    data with ECT(0) ──→ router marks CE ──→ receiver
//!              one reduction a window ←── ECE in every ACK ──┘ until CWR
//!              new data with CWR ──────────────────────────────→
//! ```

use super::congestion::Congestion;
use super::{Ctx, Tcb};
use crate::seq::SeqNumber;
use crate::stack::Ecn as Mode;
use crate::wire::ip::{ECN_CE, ECN_ECT0};
use crate::wire::tcp::{Flags, Segment};

/// Both in a SYN ask for ECN (RFC 3168 §6.1.1, "ECN-setup SYN").
pub(crate) const SETUP: Flags = Flags::ECE.union(Flags::CWR);

/// Whether a SYN asks for ECN and may be told yes: with marks of its own it came through a middlebox that sets them
/// on everything, which no SYN may have (RFC 3168 §6.1.1); Linux doubts it likewise.
pub(crate) fn asks(syn: &Segment) -> bool {
    syn.flags.contains(SETUP) && syn.ecn == 0
}

/// One connection's ECN.
#[derive(Debug, Default)]
pub(super) struct Ecn {
    /// Our SYN asked, and no SYN of ours has been sent that didn't.
    asked: bool,
    /// Both sides have agreed.
    on: bool,
    /// CE was received, and no CWR since.
    echo: bool,
    /// The window was reduced: the next new segment says so.
    cwr: bool,
    /// SND.NXT when it was. What was out then may have been marked before the peer could know.
    reduced: SeqNumber,
}

impl Ecn {
    pub(super) fn for_active(mode: Mode) -> Self {
        Self { asked: mode == Mode::Ask, ..Self::default() }
    }

    /// The peer's SYN or SYN-ACK.
    pub(super) fn on_syn(&mut self, syn: &Segment, active: bool, mode: Mode) {
        self.on = if syn.flags.contains(Flags::ACK) {
            // Both bits in a SYN-ACK are our own, reflected by a broken peer (RFC 3168 §6.1.1).
            self.asked && syn.flags.contains(Flags::ECE) && !syn.flags.contains(Flags::CWR)
        } else {
            // Who opens at the same time does without.
            !active && mode != Mode::Off && asks(syn)
        };
    }

    /// The peer's SYN again: one that doesn't ask takes the question back (RFC 3168 §6.1.1.1).
    pub(super) fn on_syn_again(&mut self, syn: &Segment) {
        self.on &= asks(syn);
    }

    /// Flags of our SYN or SYN-ACK. A SYN that is repeated doesn't ask any more: something on the way may have dropped
    /// it for asking (RFC 3168 §6.1.1.1).
    pub(super) fn syn_flags(&mut self, answer: bool, first: bool) -> Flags {
        self.asked &= first;
        match (answer, self.asked, self.on) {
            (true, _, true) => Flags::ECE,
            (false, true, _) => SETUP,
            _ => Flags::NONE,
        }
    }

    /// Flags of a segment that acknowledges (RFC 3168 §6.1.3).
    pub(super) fn echo(&self) -> Flags {
        if self.echo { Flags::ECE } else { Flags::NONE }
    }

    /// Flags and IP bits of a segment with text. Only new text may be marked (RFC 3168 §6.1.5).
    pub(super) fn for_data(&mut self, new: bool) -> (Flags, u8) {
        if !self.on || !new {
            return (Flags::NONE, 0);
        }
        let cwr = core::mem::take(&mut self.cwr);
        (if cwr { Flags::CWR } else { Flags::NONE }, ECN_ECT0)
    }

    /// The congestion window was reduced, whatever for (RFC 3168 §6.1.2).
    pub(super) fn on_reduction(&mut self, nxt: SeqNumber) {
        self.cwr = self.on;
        self.reduced = nxt;
    }
}

impl Tcb {
    /// A segment with text, inside the window, arrived.
    pub(super) fn take_marks<M>(&mut self, seg: &Segment, ctx: &mut Ctx<'_, M>) {
        if !self.ecn.on || seg.payload.1 == 0 {
            return;
        }
        if seg.flags.contains(Flags::CWR) {
            self.ecn.echo = false;
        }
        if seg.ecn == ECN_CE {
            ctx.counters.ip_in_ce_pkts += 1;
            // At once: the sender's window is too large already.
            self.owed.ack |= !self.ecn.echo;
            self.ecn.echo = true;
        }
    }

    /// An acceptable ACK up to `ack` may echo a mark: one reduction for each window of data (RFC 3168 §6.1.2, T24).
    pub(super) fn on_ece<M>(&mut self, seg: &Segment, ctx: &mut Ctx<'_, M>) {
        if !self.ecn.on || !seg.flags.contains(Flags::ECE) || seg.flags.contains(Flags::SYN) {
            return self.release();
        }
        // The first segment that carries CWR lies at `reduced`: before it is acknowledged the echo is old.
        let old = self.ecn.reduced.since(seg.ack) <= self.snd.nxt.since(seg.ack);
        let smallest = self.congestion.cwnd() <= u32::from(self.snd.mss);
        if !old && self.enter_cwr(ctx.now) {
            ctx.counters.ecn_reductions += 1;
            if smallest {
                self.hold(ctx.now);
            }
        }
    }
}
