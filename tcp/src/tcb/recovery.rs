//! What an acknowledgement means for what was sent: which segments are lost, and when recovery is over.
//!
//! ```text
//!   ACK ─→ acknowledge, sack ─→ News ─→ undo ─→ over? ─→ rack or duplicate ACKs ─→ lost? ─→ prr ─→ congestion control
//!
//!             segments are lost by RACK, or 3 duplicate ACKs         ACK ≥ point, or it was a mistake
//!   Open, Cwr ──────────────────────────────────────────→ FastRecovery ────────────→ Open
//!      └───────────────── retransmission timeout ───────→ Loss ────────────────────→ Open
//! ```
//!
//! Segments carry marks (SACKED, LOST); output sends what is LOST first. With SACK it is time that tells what is
//! lost (`rack`, RFC 8985), without it a duplicate ACK is taken for one segment that arrived (RFC 6582).

mod prr;
mod rack;
mod sack;
mod tail_loss;
mod undo;

use super::congestion::{AckSample, Congestion, CongestionEvent, Descent, Phase, Signal};
use super::rate::{RateSampler, between, stamp};
use super::send_queue::{Delivered, SACKED};
use super::{Ctx, Tcb, Timestamps};
use crate::frame::Memory;
use crate::seq::SeqNumber;
use crate::time::{Duration, Instant};
use crate::timer::TimerKind;
use crate::wire::tcp::Segment;

use prr::Prr;
use rack::Rack;
use sack::Walk;
use tail_loss::TailLossProbe;
use undo::{Frto, Undo, Undone};

/// RFC 5681 §3.2
const DUPLICATES_FOR_LOSS: u32 = 3;

/// What every ACK needs is in front: see [`Tcb`].
#[derive(Debug, Default)]
#[repr(C)]
pub(super) struct Recovery {
    pub(super) rack: Rack,
    probe: TailLossProbe,
    /// Duplicate ACKs in a row, when the peer doesn't do SACK.
    duplicates: u32,
    /// Timeouts since SND.UNA last moved.
    timeouts: u32,
    /// SND.NXT when something was sent again last, or SND.UNA if that is further: below it an acknowledgement may be for
    /// an earlier transmission.
    pub(super) again: SeqNumber,
    phase: Phase,
    /// The next lost segment goes out whatever is in flight.
    now: bool,
    /// The round trip was measured since the last tail loss probe, or the start (RFC 8985 §7.3).
    measured: bool,
    frto: Frto,
    prr: Prr,
    /// SND.NXT when the phase began ("recover", RFC 6582; RecoveryPoint, RFC 6675).
    point: SeqNumber,
    undo: Undo,
    undone: Undone,
    walk: Walk,
    /// Segments that arrived twice.
    duplicated: u32,
}

impl Recovery {
    pub(super) fn new(iss: SeqNumber) -> Self {
        Self { rack: Rack::new(iss), again: iss, ..Self::default() }
    }

    /// Whether a lost segment goes out however much is in flight: the first one, at once (RFC 5681 §3.2 step 3,
    /// RFC 6675 §5 step 4.3), and without SACK the next one at a partial ACK (RFC 6582 §3.2 step 3).
    pub(super) fn retransmit_now(&self) -> bool {
        self.now
    }

    /// Timeouts since SND.UNA last moved.
    pub(super) fn timeouts(&self) -> u32 {
        self.timeouts
    }

    /// Whether a lost segment waits although the window would take it: between a timeout and the first word from the
    /// peer one segment is out, not an MSS of them, however small they are (RFC 6298 §5.4).
    pub(super) fn waits_for_word(&self) -> bool {
        self.timeouts > 0 && !self.now
    }

    /// Whether new segments go before lost ones: F-RTO is finding out whether anything was lost.
    pub(super) fn prefers_new(&self) -> bool {
        self.frto == Frto::NewData
    }

    /// Octets taken to have arrived, from duplicate ACKs without SACK.
    pub(super) fn assumed_sacked(&self, mss: u32) -> u32 {
        self.duplicates.saturating_mul(mss)
    }

    /// `octets` of data go out.
    pub(super) fn on_send(&mut self, octets: u32) {
        self.prr.on_send(octets);
    }

    /// Something that is up to `nxt`, SND.NXT, was sent before, if only in part.
    pub(super) fn sent_again(&mut self, nxt: SeqNumber) {
        self.again = nxt;
    }

    /// SND.UNA is `una` now. Left behind, [`again`](Self::again) would be ahead half the sequence space later.
    #[inline]
    pub(super) fn progressed(&mut self, una: SeqNumber) {
        self.again = self.again.max(una);
    }

    /// A segment goes out again. `timestamp` is the one it carries.
    pub(super) fn on_retransmit(&mut self, timestamp: Option<u32>) {
        self.now = false;
        self.undo.on_retransmit(timestamp);
    }

    /// Whether nothing is lost, sent again, or in doubt: whatever is out, from `una` on, was sent once.
    #[inline]
    pub(super) fn is_quiet(&self, una: SeqNumber) -> bool {
        self.phase == Phase::Open
            && self.again.leq(una)
            && self.rack.fack().leq(una)
            && self.duplicates == 0
            && self.timeouts == 0
            && self.probe == TailLossProbe::None
    }
}

/// What one ACK tells that wasn't known.
#[derive(Debug, Default)]
pub(super) struct News {
    /// Octets by which SND.UNA moved.
    pub(super) acked: u32,
    /// Octets that arrived, by ACK or SACK.
    delivered: u32,
    /// Octets that RACK takes for lost.
    lost: u32,
    /// Round-trip time of the segment sent last among those sent once (Karn's rule, RFC 6298 §3).
    rtt: Option<Duration>,
    /// Something arrived that was sent once, before recovery began.
    original: bool,
    /// An octet range that arrived twice (RFC 2883).
    duplicate: Option<(SeqNumber, SeqNumber)>,
    in_flight_before: u32,
    limited: bool,
}

/// Takes what is delivered to everything that learns from it.
struct Digest<'a> {
    news: &'a mut News,
    rate: Option<&'a mut RateSampler>,
    rack: &'a mut Rack,
    /// Numbers up to here were sent before recovery began.
    point: SeqNumber,
    /// RACK.fack before this ACK.
    fack: SeqNumber,
    min_rtt: Option<Duration>,
    timestamps: Option<Timestamps>,
    echo: Option<u32>,
    /// The ACK covers a segment that was sent again; what it covers beyond may have arrived long ago and waited for it.
    held_up: bool,
    srtt: Option<Duration>,
    now: Instant,
}

impl Digest<'_> {
    fn take(&mut self, delivered: &Delivered) {
        let now = stamp(self.now);
        self.news.delivered += delivered.octets;
        if let Some(rate) = &mut self.rate {
            rate.on_delivered(&delivered.record, delivered.at, delivered.octets, now);
        }
        if !delivered.whole {
            return;
        }
        let age = between(delivered.at, now);
        if delivered.sent == 1 && self.held_up {
            // It tells what else should have arrived by now, but neither how long that takes nor that it was on
            // its way just now.
            let age = age.min(self.srtt.unwrap_or(age));
            return self.rack.arrived(delivered.at, delivered.end, age);
        }
        if delivered.sent == 1 {
            self.news.rtt = Some(self.news.rtt.map_or(age, |rtt| rtt.min(age)));
            self.news.original |= delivered.end.leq(self.point);
            self.rack.saw_original(delivered.end, self.fack);
        } else if self.is_ambiguous(delivered, age) {
            return;
        }
        self.rack.arrived(delivered.at, delivered.end, age);
    }

    /// It was sent again, and that is what arrived now: the echo says so, or else there was time enough. Half of the
    /// shortest round trip so far is less than any will take.
    fn filled_a_hole(&self, delivered: &Delivered) -> bool {
        let age = between(delivered.at, stamp(self.now));
        let arrived = match self.timestamps.zip(self.echo) {
            Some(_) => !self.echoes_earlier(age),
            None => self.min_rtt.is_none_or(|min| age >= min / 2),
        };
        delivered.sent > 1 && arrived
    }

    /// RFC 8985 §6.2 step 2: the ACK may be for an earlier transmission of the segment.
    fn is_ambiguous(&self, delivered: &Delivered, age: Duration) -> bool {
        (delivered.sent > 1 && self.echoes_earlier(age)) || self.min_rtt.is_some_and(|min| age < min)
    }

    /// The ACK was caused by something sent more than `age` ago.
    fn echoes_earlier(&self, age: Duration) -> bool {
        self.timestamps.zip(self.echo).is_some_and(|(timestamps, echo)| {
            (echo.wrapping_sub(timestamps.value(self.now - age)) as i32) < 0
        })
    }
}

impl Tcb {
    /// What the segment's ACK and SACK blocks say is here now. SND.UNA has been moved by `acked` octets of data
    /// already.
    pub(super) fn learn<M: Memory>(&mut self, seg: &Segment, acked: u32, ctx: &mut Ctx<'_, M>) -> News {
        let mut news = News {
            acked,
            in_flight_before: self.in_flight() + acked,
            limited: self.window_was_used(acked),
            ..News::default()
        };
        // With the timer's mark all that was in flight may count as lost: before it says nothing about an original.
        let mut digest = Digest {
            news: &mut news,
            rate: self.congestion.sampler(),
            point: self.recovery.point,
            fack: self.recovery.rack.fack(),
            rack: &mut self.recovery.rack,
            min_rtt: self.rtt.min_rtt(),
            timestamps: self.timestamps,
            echo: seg.options.timestamps.map(|(_, echo)| echo),
            held_up: false,
            srtt: self.rtt.srtt(),
            now: ctx.now,
        };
        if acked > 0 {
            self.send.acknowledge(ctx.pool, self.snd.una, |delivered| {
                digest.take(delivered);
                digest.held_up |= digest.filled_a_hole(delivered);
            });
            digest.held_up = false;
        }
        if self.sack && !seg.options.sack.is_empty() {
            let range = (self.snd.una, self.snd.nxt);
            digest.news.duplicate = sack::duplicate(seg);
            self.recovery.walk.take(&mut self.send, &seg.options.sack, range, ctx.pool, &mut digest);
        }
        if news.delivered > 0 {
            self.recovery.timeouts = 0;
        }
        self.recovery.progressed(self.snd.una);
        // Without either the back-off stays (Karn's rule, RFC 6298 §5, RFC 9293 MUST-18).
        let echoed = if acked > 0 { self.echoed_rtt(seg, ctx.now) } else { None };
        if let Some(rtt) = news.rtt.or(echoed) {
            self.measured(rtt, ctx.now);
        }
        news
    }

    /// A round trip took `rtt`.
    pub(super) fn measured(&mut self, rtt: Duration, now: Instant) {
        self.rtt.sample(rtt, now);
        self.recovery.measured = true;
    }

    /// RFC 7323 §4.1: an ACK of new data measures the round trip by its echo, also of what was sent twice.
    fn echoed_rtt(&self, seg: &Segment, now: Instant) -> Option<Duration> {
        let (timestamps, (_, echo)) = self.timestamps.zip(seg.options.timestamps)?;
        let ticks = timestamps.value(now).wrapping_sub(echo);
        // An echo from the future, or from before any RTO, isn't one of ours.
        (echo != 0 && ticks < 60_000).then(|| Duration::from_millis(u64::from(ticks.max(1))))
    }

    /// RFC 7661 §4.3: half of the window was in use, or it was in the way.
    fn window_was_used(&self, acked: u32) -> bool {
        self.window_was_used_by(self.in_flight() + acked)
    }

    /// The same for so many octets in flight.
    pub(super) fn window_was_used_by(&self, flight: u32) -> bool {
        self.cwnd_limited || flight >= self.congestion.cwnd() / 2
    }

    /// Acts on what an ACK told. `duplicate`: one of RFC 5681 §2.
    pub(super) fn recover<M: Memory>(
        &mut self,
        seg: &Segment,
        mut news: News,
        duplicate: bool,
        ctx: &mut Ctx<'_, M>,
    ) {
        self.note_duplicate_arrival(&news, ctx);
        self.undo_if_spurious(seg, &news, ctx);
        self.leave_if_over(&mut news, ctx);
        if self.sack {
            news.lost += self.detect_lost(ctx);
        } else {
            self.count_duplicates(&mut news, duplicate, ctx);
        }
        self.check_probe(seg, &news, duplicate, ctx);
        if news.lost > 0 && matches!(self.recovery.phase, Phase::Open | Phase::Cwr) {
            self.enter_fast_recovery(news.in_flight_before, ctx);
        }
        if self.recovery.phase == Phase::FastRecovery {
            let (flight, ssthresh) = (self.in_flight(), self.congestion.ssthresh());
            let safe = news.acked > 0 && news.lost == 0;
            self.recovery.prr.on_ack(news.delivered, flight, ssthresh, u32::from(self.snd.mss), safe);
        }
        let sample = self.ack_sample(&news, ctx.now);
        self.congestion.on_ack(&sample);
        self.set_pace();
    }

    /// Everything is acknowledged, but what is said may still be about retransmissions and probes: that they were
    /// needless (RFC 2883, RFC 8985 §7.4.2). `repeated`: the ACK says nothing else.
    pub(super) fn hear_of_the_past<M: Memory>(
        &mut self,
        seg: &Segment,
        repeated: bool,
        ctx: &mut Ctx<'_, M>,
    ) {
        if self.sack {
            let news = News { duplicate: sack::duplicate(seg), ..News::default() };
            self.note_duplicate_arrival(&news, ctx);
            self.check_probe(seg, &news, repeated, ctx);
        }
    }

    fn ack_sample(&mut self, news: &News, now: Instant) -> AckSample {
        let min_rtt = self.rtt.min_rtt();
        let rate = self.congestion.sampler().and_then(|rate| rate.take_sample(min_rtt, stamp(now)));
        // Slow start after a timeout counts what arrives, not what was SACKed before (RFC 3465 §2.3).
        let after_timeout = self.recovery.phase == Phase::Loss;
        let acked = if after_timeout { news.acked.min(news.delivered) } else { news.acked };
        AckSample {
            now,
            una: self.snd.una,
            nxt: self.snd.nxt,
            mss: u32::from(self.snd.mss),
            acked,
            delivered: news.delivered,
            lost: news.lost,
            in_flight_before: news.in_flight_before,
            in_flight: self.in_flight(),
            limited: news.limited,
            rtt: news.rtt,
            srtt: self.rtt.srtt(),
            rate,
            phase: self.recovery.phase,
        }
    }

    /// Octets that may be in flight. S7.1
    pub(super) fn send_window(&self) -> u32 {
        let proportional = match self.congestion.descent() {
            Descent::Proportional => true,
            // Duplicate ACKs are taken off what is in flight instead: the difference is the same.
            Descent::Inflation => self.sack,
            Descent::Own => false,
        };
        if self.recovery.phase == Phase::FastRecovery && proportional {
            self.recovery.prr.window()
        } else {
            self.congestion.cwnd()
        }
    }

    /// The window as RFC 5681 §3.2 steps 3 and 4 count it: inflated by what duplicate ACKs say has left.
    pub(crate) fn shown_window(&self) -> u32 {
        let inflates = self.recovery.phase == Phase::FastRecovery && !self.sack;
        let inflation = if inflates { self.recovery.assumed_sacked(u32::from(self.snd.mss)) } else { 0 };
        self.send_window().saturating_add(inflation)
    }

    /// Where loss recovery stands.
    pub(crate) fn phase(&self) -> Phase {
        self.recovery.phase
    }

    /// Duplicate ACKs and partial ACKs of a peer without SACK (RFC 5681 §3.2, RFC 6582).
    fn count_duplicates<M: Memory>(&mut self, news: &mut News, duplicate: bool, ctx: &mut Ctx<'_, M>) {
        let mss = u32::from(self.snd.mss);
        if news.acked > 0 {
            if self.recovery.phase == Phase::FastRecovery {
                // RFC 6582 §3.2: a partial ACK means the next segment was lost as well. Deflation: what is
                // acknowledged now was counted as arrived before; one MSS stays.
                let counted = news.acked / mss;
                news.delivered = news.delivered.saturating_sub(self.recovery.duplicates.min(counted) * mss);
                let kept = u32::from(news.acked >= mss);
                self.recovery.duplicates = self.recovery.duplicates.saturating_sub(counted) + kept;
                self.mark_head_lost(ctx);
                self.recovery.now = true;
            } else {
                self.recovery.duplicates = 0;
            }
            return;
        }
        // After a timeout they are answers to what was sent again needlessly (RFC 6582 §4).
        if !duplicate || self.recovery.phase == Phase::Loss {
            return;
        }
        // No more can have arrived than was outstanding, whatever the peer says (RFC 5681 §3.2 step 4, T23).
        let open = self.recovery.phase != Phase::FastRecovery;
        let sent = if open { self.snd.nxt } else { self.recovery.point };
        let outstanding = sent.since(self.snd.una) / mss + 1;
        if self.recovery.duplicates < outstanding {
            self.recovery.duplicates += 1;
            news.delivered += mss;
        }
        let enough = self.recovery.duplicates >= DUPLICATES_FOR_LOSS;
        if enough && matches!(self.recovery.phase, Phase::Open | Phase::Cwr) {
            news.lost += self.mark_head_lost(ctx);
        }
    }

    fn mark_head_lost<M: Memory>(&mut self, ctx: &mut Ctx<'_, M>) -> u32 {
        let head = self.send.next_outstanding(ctx.pool, None);
        head.map_or(0, |head| self.mark_lost(head, ctx))
    }

    fn mark_lost<M: Memory>(&mut self, index: u32, ctx: &mut Ctx<'_, M>) -> u32 {
        let again = ctx.pool.meta(index).sent > 1;
        let octets = self.send.mark_lost(ctx.pool, index);
        if octets > 0 {
            ctx.counters.tcp_lost_retransmit += u64::from(again);
            if let Some(rate) = self.congestion.sampler() {
                let lost = rate.on_lost(&ctx.pool.transmission(index).record, octets);
                self.congestion.on_lost(&lost, ctx.now);
            }
        }
        octets
    }

    fn event(&self, signal: Signal, now: Instant) -> CongestionEvent {
        let mut flight = self.snd.nxt.since(self.snd.una);
        if self.recovery.phase == Phase::Open {
            // What limited transmit let out beyond the window doesn't count (RFC 5681 §3.2 step 2).
            let cwnd = self.congestion.cwnd();
            flight = flight.min(cwnd);
            // ACKs before this one in its batch have made room that is filled only behind the batch, if there is
            // something to fill it and the peer takes that.
            if self.cwnd_limited {
                let room = cwnd - cwnd % u32::from(self.snd.mss);
                let queued = self.send.end().since(self.snd.una);
                flight = flight.max(room.min(queued).min(self.snd.wnd));
            }
        }
        CongestionEvent { signal, now, nxt: self.snd.nxt, flight, mss: u32::from(self.snd.mss) }
    }

    fn begin(&mut self, phase: Phase) {
        self.recovery.phase = phase;
        self.recovery.point = self.snd.nxt;
        self.recovery.frto = Frto::Off;
        self.timers.clear(TimerKind::LossProbe);
        self.ecn.on_reduction(self.snd.nxt);
    }

    pub(super) fn enter_fast_recovery<M: Memory>(&mut self, flight: u32, ctx: &mut Ctx<'_, M>) {
        ctx.counters.tcp_fast_retrans += 1;
        // What a mark has reduced already isn't reduced again in the same window (RFC 3168 §6.1.2).
        let reduced = self.recovery.phase == Phase::Cwr;
        let event = self.event(Signal::Loss, ctx.now);
        self.begin(Phase::FastRecovery);
        self.recovery.now = true;
        self.recovery.undo.begin(self.snd.una);
        if !reduced {
            self.congestion.on_congestion(&event);
        }
        self.recovery.prr.begin(flight.max(self.in_flight()), self.congestion.ssthresh());
    }

    /// The peer echoes a mark of the network: one reduction for each window of data (RFC 3168 §6.1.2). Whether
    /// there was one. S4.2
    pub(super) fn enter_cwr(&mut self, now: Instant) -> bool {
        if self.recovery.phase != Phase::Open {
            return false;
        }
        let event = self.event(Signal::Ecn, now);
        self.begin(Phase::Cwr);
        self.recovery.undo = Undo::default();
        self.congestion.on_congestion(&event);
        self.set_pace();
        true
    }

    /// Everything that was out when the phase began is acknowledged. The ACK that ends fast recovery sets the window to
    /// ssthresh and adds nothing (RFC 6582 §3.2 step 3), nor does one that ends the reduction for a mark (RFC 3168
    /// §6.1.2); after a timeout what arrived in the course of it doesn't count now.
    fn leave_if_over<M>(&mut self, news: &mut News, ctx: &mut Ctx<'_, M>) {
        if self.recovery.phase == Phase::Open || !self.recovery.point.leq(self.snd.una) {
            return;
        }
        let mss = u32::from(self.snd.mss);
        news.delivered = news.delivered.saturating_sub(self.recovery.assumed_sacked(mss));
        news.acked = if self.recovery.phase == Phase::Loss { news.acked.min(news.delivered) } else { 0 };
        if self.recovery.phase != Phase::Cwr {
            self.recovery.rack.on_recovered();
        }
        self.congestion.on_recovered(ctx.now, mss);
        self.open();
    }

    /// Back to normal; what may still be undone is remembered.
    fn open(&mut self) {
        self.recovery.phase = Phase::Open;
        self.recovery.duplicates = 0;
        self.recovery.now = false;
        self.recovery.frto = Frto::Off;
    }

    /// The retransmission timer expired (RFC 6298 §5.4, RFC 8985 §8): the first segment is lost, and whatever was sent so
    /// long ago that RACK would have it so, too.
    pub(super) fn on_retransmission_timeout<M: Memory>(&mut self, ctx: &mut Ctx<'_, M>) {
        let first = self.recovery.timeouts == 0;
        self.recovery.timeouts = self.recovery.timeouts.saturating_add(1);
        self.congestion.on_timeout(&self.event(Signal::Loss, ctx.now), first);
        self.set_pace();
        let try_frto = self.may_try_frto(first);
        self.recovery.duplicates = 0;
        self.recovery.now = true;
        if self.recovery.phase != Phase::Loss || first {
            self.recovery.undo.begin(self.snd.una);
        }
        self.begin(Phase::Loss);
        self.recovery.probe = TailLossProbe::default();
        if try_frto {
            self.recovery.frto = Frto::Retransmitted;
        }
        self.forget_reneged(ctx);
        self.mark_head_lost(ctx);
        self.mark_expired(ctx);
    }

    /// RFC 2018 §8: a receiver may drop what it has SACKed. It has if the first segment is SACKed.
    fn forget_reneged<M: Memory>(&mut self, ctx: &mut Ctx<'_, M>) {
        let mut at = self.send.next_outstanding(ctx.pool, None);
        if at.is_none_or(|head| ctx.pool.meta(head).flags & SACKED == 0) {
            return;
        }
        ctx.counters.tcp_sack_reneging += 1;
        self.recovery.walk.forget();
        while let Some(index) = at {
            self.send.clear_sacked(ctx.pool, index);
            self.mark_lost(index, ctx);
            at = self.send.next_outstanding(ctx.pool, Some(index));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// T14: a stream that is never all acknowledged goes once around the sequence space, and what was sent again at its
    /// beginning stays behind it.
    #[test]
    fn t14_what_was_sent_again_long_ago_is_forgotten() {
        let iss = SeqNumber(7);
        let mut recovery = Recovery::new(iss);
        recovery.sent_again(iss + 3000);
        assert!(!recovery.is_quiet(iss + 1000));
        for gib in 0..5 {
            let una = iss + 3000 + (gib << 30);
            recovery.progressed(una);
            recovery.rack.arrived_in_order(gib, una, Duration::ZERO);
            assert!(recovery.is_quiet(una), "{gib} GiB");
        }
    }
}
