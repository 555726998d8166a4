//! Which segments are lost, and when recovery is over.
//!
//! ```text
//!            3 duplicate ACKs, or 3 segments SACKed above       ACK ≥ point
//!   Open ───────────────────────────────────────→ FastRecovery ────────────→ Open
//!     └──────────── retransmission timeout ─────→ Loss ────────────────────→ Open
//! ```
//!
//! Segments carry marks (SACKED, LOST, RETRANSMITTED); output sends what is LOST first. Without
//! SACK a duplicate ACK is taken for one segment that arrived (RFC 6582).

use super::congestion::{AckSample, Congestion, CongestionEvent, Phase, Signal};
use super::send_queue::SACKED;
use super::{Ctx, Tcb};
use crate::frame::Memory;
use crate::seq::SeqNumber;
use crate::time::Instant;
use crate::wire::tcp::{SackBlocks, Segment};

/// Frames that SACK blocks may make us look at (T10): so many at once, which is a hole of 12 MiB, and so many
/// more with each ACK. A new block nearly always lies right behind what is SACKED already, where the walk
/// begins. What isn't looked at stays outstanding, and is acknowledged in the end.
const WALK_BURST: u32 = 8192;
const WALK_PER_ACK: u32 = 64;
/// RFC 5681 §3.2
const DUPLICATES_FOR_LOSS: u32 = 3;

#[derive(Debug, Default)]
pub(super) struct Recovery {
    phase: Phase,
    /// SND.NXT when recovery began ("recover", RFC 6582).
    point: SeqNumber,
    /// Duplicate ACKs in a row, when the peer doesn't do SACK.
    duplicates: u32,
    /// The next lost segment goes out whatever is in flight.
    now: bool,
    /// Frames looked at for SACK blocks, and not yet made good by ACKs.
    walked: u32,
    /// Blocks of the last ACK, as far as they are marked: most come again with the next.
    marked: SackBlocks,
}

impl Recovery {
    /// Whether a lost segment goes out however much is in flight: the first one, at once (RFC 5681 §3.2 step 3,
    /// RFC 6675 §5 step 4.3), and without SACK the next one at a partial ACK (RFC 6582 §3.2 step 3).
    pub(super) fn retransmit_now(&self) -> bool {
        self.now
    }

    pub(super) fn on_retransmit(&mut self) {
        self.now = false;
    }

    /// Octets taken to have arrived, from duplicate ACKs without SACK.
    pub(super) fn assumed_sacked(&self, mss: u32) -> u32 {
        self.duplicates.saturating_mul(mss)
    }
}

impl Tcb {
    /// Takes over the SACK blocks of an ACK (RFC 2018 §5). Blocks outside SND.UNA..SND.NXT are ignored (T10).
    pub(super) fn take_sack<M: Memory>(&mut self, seg: &Segment, ctx: &mut Ctx<'_, M>) {
        if !self.sack {
            return;
        }
        self.recovery.walked = self.recovery.walked.saturating_sub(WALK_PER_ACK);
        let known = core::mem::take(&mut self.recovery.marked);
        for (start, end) in seg.options.sack.iter() {
            let valid =
                end.acknowledges(self.snd.una, self.snd.nxt) && start.acknowledges(self.snd.una, end - 1);
            if !valid {
                continue;
            }
            if known.iter().any(|block| block == (start, end)) {
                self.recovery.marked.push(start, end);
                continue;
            }
            let mut at = self.send.near(ctx.pool, start);
            while let Some(index) = at
                && self.recovery.walked < WALK_BURST
            {
                self.recovery.walked += 1;
                let meta = ctx.pool.meta(index);
                let seq = SeqNumber(meta.seq);
                if end.leq(seq) {
                    break;
                }
                let covered = start.leq(seq) && (seq + u32::from(meta.len)).leq(end);
                if covered && let Some(rtt) = self.send.mark_sacked(ctx.pool, index, ctx.now) {
                    self.rtt.sample(rtt);
                }
                at = self.send.next_outstanding(ctx.pool, Some(index));
            }
            if self.recovery.walked < WALK_BURST {
                self.recovery.marked.push(start, end);
            }
        }
    }

    /// An ACK that moves nothing, with data outstanding (RFC 5681 §2 "duplicate").
    pub(super) fn on_duplicate_ack<M: Memory>(&mut self, ctx: &mut Ctx<'_, M>) {
        if self.sack {
            self.find_lost(ctx);
            return;
        }
        // No more can have arrived than was outstanding, whatever the peer says (RFC 5681 §3.2 step 4, T23).
        let open = self.recovery.phase == Phase::Open;
        let sent = if open { self.snd.nxt } else { self.recovery.point };
        let outstanding = sent.since(self.snd.una) / u32::from(self.snd.mss) + 1;
        self.recovery.duplicates = (self.recovery.duplicates + 1).min(outstanding);
        if self.recovery.duplicates >= DUPLICATES_FOR_LOSS && self.recovery.phase == Phase::Open {
            self.mark_head_lost(ctx);
            self.enter_fast_recovery(ctx);
        }
    }

    /// Marks what three SACKed segments lie above (RFC 6675 §4, counted in segments as Linux does: a peer
    /// that is sent small segments would never SACK three MSS of octets).
    pub(super) fn find_lost<M: Memory>(&mut self, ctx: &mut Ctx<'_, M>) {
        let found = self.send.judge(ctx.pool, DUPLICATES_FOR_LOSS);
        if found && self.recovery.phase == Phase::Open {
            self.enter_fast_recovery(ctx);
        }
    }

    fn mark_head_lost<M: Memory>(&mut self, ctx: &mut Ctx<'_, M>) {
        if let Some(head) = self.send.next_outstanding(ctx.pool, None) {
            self.send.mark_lost(ctx.pool, head);
        }
    }

    fn enter_fast_recovery<M: Memory>(&mut self, ctx: &mut Ctx<'_, M>) {
        ctx.counters.tcp_fast_retrans += 1;
        self.recovery.phase = Phase::FastRecovery;
        self.recovery.point = self.snd.nxt;
        self.recovery.now = true;
        self.congestion.on_congestion(&self.event(ctx.now));
    }

    fn event(&self, now: Instant) -> CongestionEvent {
        CongestionEvent {
            signal: Signal::Loss,
            now,
            nxt: self.snd.nxt,
            flight: self.snd.nxt.since(self.snd.una),
            mss: u32::from(self.snd.mss),
        }
    }

    fn sample(&self, acked: u32, limited: bool, now: Instant) -> AckSample {
        AckSample {
            now,
            una: self.snd.una,
            nxt: self.snd.nxt,
            mss: u32::from(self.snd.mss),
            acked,
            delivered: acked,
            lost: 0,
            in_flight_before: self.in_flight() + acked,
            in_flight: self.in_flight(),
            limited,
            rtt: None,
            srtt: self.rtt.srtt(),
            rate: None,
            phase: self.recovery.phase,
        }
    }

    /// SND.UNA moved to `ack` by `acked` octets.
    pub(super) fn on_progress<M: Memory>(&mut self, acked: u32, limited: bool, ctx: &mut Ctx<'_, M>) {
        let mss = u32::from(self.snd.mss);
        let done = self.recovery.phase != Phase::Open && self.recovery.point.leq(self.snd.una);
        if done {
            self.recovery = Recovery { walked: self.recovery.walked, ..Recovery::default() };
            self.congestion.on_recovered(ctx.now, mss);
            return;
        }
        match self.recovery.phase {
            Phase::Open => {
                self.recovery.duplicates = 0;
                self.congestion.on_ack(&self.sample(acked, limited, ctx.now));
            }
            Phase::FastRecovery => {
                if self.sack {
                    self.find_lost(ctx);
                } else {
                    // RFC 6582 §3.2: a partial ACK means the next segment was lost as well.
                    self.recovery.duplicates = self.recovery.duplicates.saturating_sub(acked / mss);
                    self.mark_head_lost(ctx);
                    self.recovery.now = true;
                }
            }
            // RFC 5681 §3.1: slow start from one segment.
            Phase::Loss | Phase::Cwr => self.congestion.on_ack(&self.sample(acked, true, ctx.now)),
        }
    }

    /// The retransmission timer expired: everything not SACKed counts as lost (RFC 6298 §5.4, RFC 6675 §5.1).
    pub(super) fn on_retransmission_timeout<M: Memory>(&mut self, ctx: &mut Ctx<'_, M>) {
        let first = self.rtt.backoff() <= 1;
        self.congestion.on_timeout(&self.event(ctx.now), first);
        self.recovery = Recovery {
            phase: Phase::Loss,
            point: self.snd.nxt,
            walked: self.recovery.walked,
            ..Recovery::default()
        };
        // RFC 2018 §8: a receiver may drop what it has SACKed. It has if the first segment is SACKed.
        let mut at = self.send.next_outstanding(ctx.pool, None);
        let reneged = at.is_some_and(|head| ctx.pool.meta(head).flags & SACKED != 0);
        while let Some(index) = at {
            if reneged {
                self.send.clear_sacked(ctx.pool, index);
            }
            self.send.mark_lost(ctx.pool, index);
            at = self.send.next_outstanding(ctx.pool, Some(index));
        }
    }
}
