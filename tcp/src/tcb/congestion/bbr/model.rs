//! What BBR knows of the path: how fast it delivers, how long it takes, how much it holds.

use super::{Bbr, INFINITE, PACING_MARGIN, Rs};
use crate::tcb::rate::LostSample;
use crate::time::{Duration, Instant};

/// LossThresh: 2 % of a round trip's data may be lost.
const LOSS_THRESH_PERCENT: i64 = 2;
/// Beta, per cent: what a round trip with loss leaves of the short-term bounds.
const BETA: u64 = 70;
/// Headroom, per cent of the long-term bound.
pub(super) const HEADROOM: u32 = 15;
/// No path is taken to be faster than 2^37 octets a second, a terabit: such a sample is the clock's doing.
pub(super) const BW_MAX: u64 = 1 << 37;
/// No bound on the bandwidth.
const BW_INFINITE: u64 = u64::MAX;
/// ExtraAckedFilterLen is 10 round trips: two slots of 5.
const EXTRA_ACKED_SLOT: u32 = 5;
/// Rounds without growth of a quarter after which the pipe is full.
const FULL_BW_ROUNDS: u8 = 3;
/// MinRTTFilterLen, ProbeRTTInterval.
const MIN_RTT_WINDOW: Duration = Duration::from_secs(10);
const PROBE_RTT_INTERVAL: Duration = Duration::from_secs(5);

/// Microseconds; a minute, the longest RTO, if it's more.
pub(super) fn micros(time: Duration) -> u32 {
    time.as_micros().min(60_000_000) as u32
}

/// `gain` per cent of bandwidth times delay, octets. 2^37 · 2^26 µs fits; the product is at most a window.
pub(super) fn bdp(bw: u64, rtt_us: u32, gain: u64) -> u32 {
    let octets = (bw.min(BW_MAX) * u64::from(rtt_us) / 1_000_000).min(u64::from(INFINITE));
    (octets * gain / 100).min(u64::from(INFINITE / 2)) as u32
}

/// IsInflightTooHigh, for a connection with SACK.
pub(super) fn too_high(lost: u32, tx_in_flight: u32) -> bool {
    i64::from(lost) * 100 > i64::from(tx_in_flight) * LOSS_THRESH_PERCENT
}

/// InflightAtLoss: with how much in flight the losses became too many.
pub(super) fn inflight_at_loss(sample: &LostSample) -> u32 {
    let before = i64::from(sample.tx_in_flight) - i64::from(sample.octets);
    let lost_before = i64::from(sample.lost) - i64::from(sample.octets);
    let prefix = (LOSS_THRESH_PERCENT * before - 100 * lost_before) / (100 - LOSS_THRESH_PERCENT);
    (before + prefix).clamp(0, i64::from(INFINITE / 2)) as u32
}

/// The network path model.
#[derive(Clone, Debug)]
pub(super) struct Model {
    /// C.delivered
    pub(super) delivered: u64,

    pub(super) round_count: u32,
    pub(super) round_start: bool,
    next_round_delivered: u64,

    /// BBR.max_bw_filter: the maximum of the last cycle of ProbeBW, and of this one.
    max_bw_filter: [u64; 2],
    pub(super) bw_shortterm: u64,
    pub(super) bw: u64,

    pub(super) min_rtt_us: u32,
    min_rtt_stamp: Instant,
    probe_rtt_min_us: u32,
    pub(super) probe_rtt_min_stamp: Instant,
    pub(super) probe_rtt_expired: bool,

    pub(super) inflight_longterm: u32,
    pub(super) inflight_shortterm: u32,

    extra_acked_start: Instant,
    extra_acked_delivered: u64,
    /// Maxima of the last five round trips, and of those before.
    extra_acked_filter: [u32; 2],
    extra_acked_round: u32,

    pub(super) full_bw_reached: bool,
    pub(super) full_bw_now: bool,
    full_bw: u64,
    full_bw_count: u8,

    pub(super) loss_in_round: bool,
    pub(super) loss_round_start: bool,
    pub(super) loss_round_delivered: u64,
    /// ACKs in this round that brought losses.
    pub(super) loss_events: u8,
    bw_latest: u64,
    pub(super) inflight_latest: u32,
}

impl Model {
    pub(super) fn new() -> Self {
        Self {
            delivered: 0,
            round_count: 0,
            round_start: false,
            next_round_delivered: 0,
            max_bw_filter: [0; 2],
            bw_shortterm: BW_INFINITE,
            bw: 0,
            min_rtt_us: INFINITE,
            min_rtt_stamp: Instant::ZERO,
            probe_rtt_min_us: INFINITE,
            probe_rtt_min_stamp: Instant::ZERO,
            probe_rtt_expired: false,
            inflight_longterm: INFINITE,
            inflight_shortterm: INFINITE,
            extra_acked_start: Instant::ZERO,
            extra_acked_delivered: 0,
            extra_acked_filter: [0; 2],
            extra_acked_round: 0,
            full_bw_reached: false,
            full_bw_now: false,
            full_bw: 0,
            full_bw_count: 0,
            loss_in_round: false,
            loss_round_start: false,
            loss_round_delivered: 0,
            loss_events: 0,
            bw_latest: 0,
            inflight_latest: 0,
        }
    }

    pub(super) fn max_bw(&self) -> u64 {
        self.max_bw_filter[0].max(self.max_bw_filter[1])
    }

    pub(super) fn extra_acked(&self) -> u32 {
        self.extra_acked_filter[0].max(self.extra_acked_filter[1])
    }

    /// StartRound: it ends with the ACK of what is sent from now on.
    pub(super) fn start_round(&mut self) {
        self.next_round_delivered = self.delivered;
    }

    /// UpdateLatestDeliverySignals
    pub(super) fn update_latest_delivery(&mut self, rs: &Rs) {
        self.loss_round_start = false;
        if !rs.sampled {
            return;
        }
        self.bw_latest = self.bw_latest.max(rs.rate);
        self.inflight_latest = self.inflight_latest.max(rs.delivered);
        if rs.prior_delivered >= self.loss_round_delivered {
            self.loss_round_delivered = self.delivered;
            self.loss_round_start = true;
        }
    }

    /// AdvanceLatestDeliverySignals
    pub(super) fn advance_latest_delivery(&mut self, rs: &Rs) {
        if self.loss_round_start {
            self.bw_latest = rs.rate;
            self.inflight_latest = rs.delivered;
        }
    }

    /// UpdateRound; whether one began.
    pub(super) fn update_round(&mut self, rs: &Rs) -> bool {
        self.round_start = rs.sampled && rs.prior_delivered >= self.next_round_delivered;
        if self.round_start {
            self.start_round();
            self.round_count = self.round_count.wrapping_add(1);
        }
        self.round_start
    }

    /// The rest of UpdateMaxBw.
    pub(super) fn update_max_bw(&mut self, rs: &Rs) {
        if rs.rate > 0 && (rs.rate >= self.max_bw() || !rs.app_limited) {
            self.max_bw_filter[1] = self.max_bw_filter[1].max(rs.rate);
        }
    }

    /// AdvanceMaxBwFilter, unless this cycle measured nothing.
    pub(super) fn advance_max_bw_filter(&mut self) {
        if self.max_bw_filter[1] > 0 {
            self.max_bw_filter = [self.max_bw_filter[1], 0];
        }
    }

    /// InitLowerBounds and LossLowerBounds, once in a round trip with loss.
    pub(super) fn lower_bounds(&mut self, cwnd: u32) {
        if self.bw_shortterm == BW_INFINITE {
            self.bw_shortterm = self.max_bw();
        }
        if self.inflight_shortterm == INFINITE {
            self.inflight_shortterm = cwnd;
        }
        // What was delivered was sent with the pacing margin, which isn't the path's: counted again in each round trip
        // with a loss, it would take 1 % off each time, and a path with random loss never got it back.
        let unpaced = |latest: u64| latest * 100 / (100 - PACING_MARGIN);
        let bw = self.bw_shortterm.min(BW_MAX);
        self.bw_shortterm = unpaced(self.bw_latest).max(bw * BETA / 100);
        let inflight = u64::from(self.inflight_shortterm);
        let bound = unpaced(u64::from(self.inflight_latest)).max(inflight * BETA / 100);
        self.inflight_shortterm = bound.min(u64::from(INFINITE - 1)) as u32;
    }

    pub(super) fn reset_short_term(&mut self) {
        self.bw_shortterm = BW_INFINITE;
        self.inflight_shortterm = INFINITE;
    }

    /// ResetCongestionSignals
    pub(super) fn reset_congestion_signals(&mut self) {
        self.loss_in_round = false;
        self.bw_latest = 0;
        self.inflight_latest = 0;
    }

    pub(super) fn bound_bw(&mut self) {
        self.bw = self.max_bw().min(self.bw_shortterm);
    }

    /// ResetFullBW, with a new baseline.
    pub(super) fn reset_full_bw(&mut self, baseline: u64) {
        self.full_bw = baseline;
        self.full_bw_count = 0;
        self.full_bw_now = false;
    }

    /// CheckFullBWReached: three round trips in which the bandwidth grew by less than a quarter.
    pub(super) fn check_full_bw(&mut self, rs: &Rs) {
        if self.full_bw_now || !self.round_start || rs.app_limited {
            return;
        }
        if rs.rate >= self.full_bw + self.full_bw / 4 {
            self.reset_full_bw(rs.rate);
            return;
        }
        self.full_bw_count += 1;
        self.full_bw_now = self.full_bw_count >= FULL_BW_ROUNDS;
        self.full_bw_reached |= self.full_bw_now;
    }

    /// UpdateMinRTT
    pub(super) fn update_min_rtt(&mut self, rs: &Rs) {
        // Nothing is out of date before the first sample.
        let measured = self.probe_rtt_min_us != INFINITE;
        self.probe_rtt_expired = measured && rs.now > self.probe_rtt_min_stamp + PROBE_RTT_INTERVAL;
        if let Some(rtt_us) = rs.rtt_us
            && (rtt_us < self.probe_rtt_min_us || self.probe_rtt_expired)
        {
            self.probe_rtt_min_us = rtt_us;
            self.probe_rtt_min_stamp = rs.now;
        }
        let expired = rs.now > self.min_rtt_stamp + MIN_RTT_WINDOW;
        if self.probe_rtt_min_us < self.min_rtt_us || expired {
            self.min_rtt_us = self.probe_rtt_min_us;
            self.min_rtt_stamp = self.probe_rtt_min_stamp;
        }
    }

    /// UpdateACKAggregation: how much more came at once than the bandwidth explains.
    pub(super) fn update_aggregation(&mut self, rs: &Rs, cwnd: u32) {
        let interval_us = micros(rs.now.since(self.extra_acked_start));
        let mut expected = u64::from(bdp(self.bw, interval_us, 100));
        if self.extra_acked_delivered <= expected {
            self.restart_aggregation(rs.now);
            expected = 0;
        }
        self.extra_acked_delivered += u64::from(rs.newly_acked);
        let extra = (self.extra_acked_delivered - expected).min(u64::from(cwnd)) as u32;
        // In Startup only the last round trip counts.
        let slot = if self.full_bw_reached { EXTRA_ACKED_SLOT } else { 1 };
        if self.round_count.wrapping_sub(self.extra_acked_round) >= slot {
            self.extra_acked_round = self.round_count;
            self.extra_acked_filter = [0, self.extra_acked_filter[0]];
        }
        self.extra_acked_filter[0] = self.extra_acked_filter[0].max(extra);
    }

    pub(super) fn restart_aggregation(&mut self, now: Instant) {
        self.extra_acked_delivered = 0;
        self.extra_acked_start = now;
    }
}

impl Bbr {
    /// UpdateCongestionSignals
    pub(super) fn update_congestion_signals(&mut self, rs: &Rs) {
        if self.model.update_round(rs) {
            self.cycle.on_round();
        }
        self.model.update_max_bw(rs);
        if !self.model.loss_round_start {
            return;
        }
        // AdaptLowerBoundsFromCongestion
        if self.model.loss_in_round && !self.cycle.state.accelerates() {
            self.model.lower_bounds(self.cwnd);
        }
        self.model.loss_in_round = false;
    }
}
