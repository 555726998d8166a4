//! Recoveries that were mistakes: nothing had been lost, only late.
//!
//! | who tells | how |
//! | --- | --- |
//! | Eifel (RFC 3522, RFC 4015) | the ACK echoes a timestamp from before the first retransmission |
//! | DSACK (RFC 2883, RFC 3708) | every segment sent again arrived twice |
//! | F-RTO (RFC 5682) | after a timeout, something arrives that was never sent again |
//!
//! The windows are put back, what is marked lost isn't any more, and RACK knows that segments overtake each other.

use super::News;
use crate::frame::Memory;
use crate::seq::SeqNumber;
use crate::tcb::congestion::{Congestion, Phase};
use crate::tcb::{Ctx, Tcb};
use crate::wire::tcp::Segment;

/// Mistakes that are believed in a window of data. A path that reorders makes one or two before RACK is patient
/// enough; each costs a look at whatever was taken for lost, and a peer could have it cost that with each ACK (T10).
const UNDOS_PER_WINDOW: u8 = 4;

/// How many there were.
#[derive(Debug, Default)]
pub(super) struct Undone {
    times: u8,
    /// SND.NXT at the first.
    until: SeqNumber,
}

/// What the last recovery sent again.
#[derive(Debug, Default)]
pub(super) struct Undo {
    /// SND.UNA when it began; `None`: there is nothing to undo.
    from: Option<SeqNumber>,
    /// Segments sent again that haven't been shown to be needless.
    needed: u32,
    /// The first of them carried this timestamp.
    timestamp: Option<u32>,
}

impl Undo {
    pub(super) fn begin(&mut self, una: SeqNumber) {
        *self = Self { from: Some(una), needed: 0, timestamp: None };
    }

    pub(super) fn on_retransmit(&mut self, timestamp: Option<u32>) {
        if self.needed == 0 {
            self.timestamp = timestamp;
        }
        self.needed = self.needed.saturating_add(1);
    }
}

/// F-RTO (RFC 5682 §3.1), after a timeout.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Frto {
    /// Not, or no longer.
    #[default]
    Off,
    /// The first segment was sent again; its ACK is awaited.
    Retransmitted,
    /// The ACK moved on: new segments go out, and what comes back for them tells.
    NewData,
}

impl Tcb {
    /// RFC 5682 §3.1 step 1: not when the timer expires again for the same segment, or within a recovery.
    pub(super) fn may_try_frto(&self, first: bool) -> bool {
        first && self.sack && matches!(self.recovery.phase, Phase::Open | Phase::Cwr)
    }

    /// A segment arrived twice: RACK gets more patient; a segment sent again needn't have been.
    pub(super) fn note_duplicate_arrival<M: Memory>(&mut self, news: &News, ctx: &mut Ctx<'_, M>) {
        let Some((start, end)) = news.duplicate else { return };
        ctx.counters.tcp_dsack_recv += 1;
        let segments = end.since(start).div_ceil(u32::from(self.snd.mss));
        if self.recovery.duplicated + segments > self.retransmits {
            // More than was sent again: the network doubled it.
            return;
        }
        self.recovery.duplicated += segments;
        self.recovery.rack.widen(self.snd.nxt);
        let Some(from) = self.recovery.undo.from else { return };
        // Behind the point lies what was sent since: its copies are a probe's, or the network's.
        if self.recovery.undo.needed == 0 || start.lt(from) || self.recovery.point.lt(end) {
            return;
        }
        self.recovery.undo.needed = self.recovery.undo.needed.saturating_sub(segments);
        if self.recovery.undo.needed == 0 && self.may_undo() {
            ctx.counters.tcp_dsack_undo += 1;
            self.undo(ctx);
        }
    }

    /// Eifel and F-RTO, while recovery goes on.
    pub(super) fn undo_if_spurious<M: Memory>(&mut self, seg: &Segment, news: &News, ctx: &mut Ctx<'_, M>) {
        let phase = self.recovery.phase;
        if !matches!(phase, Phase::FastRecovery | Phase::Loss) {
            return;
        }
        if news.acked > 0 && self.echoes_original(seg) && self.may_undo() {
            ctx.counters.tcp_full_undo += u64::from(phase == Phase::FastRecovery);
            ctx.counters.tcp_spurious_rtos += u64::from(phase == Phase::Loss);
            return self.undo(ctx);
        }
        if self.recovery.frto == Frto::Off {
            return;
        }
        if news.original && self.may_undo() {
            // Step 3.b: it was on its way all the time.
            ctx.counters.tcp_spurious_rtos += 1;
            return self.undo(ctx);
        }
        self.recovery.frto = match self.recovery.frto {
            // Step 2.b, if there is something to send; else conventional recovery.
            Frto::Retransmitted if news.acked > 0 && self.can_send_new(ctx) => Frto::NewData,
            _ => Frto::Off,
        };
    }

    /// RFC 3522 §3.2: the ACK was caused by a segment that was sent before the first retransmission.
    fn echoes_original(&self, seg: &Segment) -> bool {
        match (self.recovery.undo.timestamp, seg.options.timestamps) {
            (Some(first), Some((_, echo))) => echo != 0 && (echo.wrapping_sub(first) as i32) < 0,
            _ => false,
        }
    }

    fn can_send_new<M: Memory>(&self, ctx: &Ctx<'_, M>) -> bool {
        self.send.unsent().is_some_and(|index| {
            let meta = ctx.pool.meta(index);
            SeqNumber(meta.seq).since(self.snd.una) + u32::from(meta.len) <= self.snd.wnd
        })
    }

    fn may_undo(&mut self) -> bool {
        let undone = &mut self.recovery.undone;
        if undone.times == 0 || undone.until.leq(self.snd.una) {
            *undone = Undone { times: 0, until: self.snd.nxt };
        }
        let may = undone.times < UNDOS_PER_WINDOW;
        undone.times += u8::from(may);
        may
    }

    fn undo<M: Memory>(&mut self, ctx: &mut Ctx<'_, M>) {
        self.send.unmark_lost(ctx.pool);
        self.congestion.on_undo(ctx.now);
        self.recovery.rack.saw_spurious();
        self.recovery.undo = Undo::default();
        self.open();
    }
}
