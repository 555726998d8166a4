//! BBR version 3 (draft-ietf-ccwg-bbr, August 2026): a model of the path instead of a window that grows until
//! something is lost. S7.2
//!
//! ```text
//!   Startup ──→ Drain ──→ ProbeBW: DOWN ─→ CRUISE ─→ REFILL ─→ UP ─┐
//!   2.77·bw     ½·bw          0.9·bw   bw        bw        1.25·bw │
//!                               ↑                                  │
//!                               └──────────────────────────────────┘
//!   every 5 s without a shorter round trip: ProbeRTT, half the BDP in flight for 200 ms
//! ```
//!
//! `model.rs` has what is known of the path (bandwidth, round trip, how much may be in flight), `cycle.rs` the state
//! machine, this file the events and what comes of them: pacing rate and window. The names are the draft's.
//!
//! Where the draft leaves a choice:
//! - A mark of the network (§"ECN": not specified, but MUST count as congestion) counts as a round trip with loss,
//!   and as too much in flight where the flow is probing.
//! - Losses in Startup are counted by ACKs that brought any, not by ranges of sequence numbers, as Linux does.
//! - A connection without SACK isn't told apart: it sees one loss a round trip, and seldom two per cent.
//! - The short-term bounds are what the last round trip delivered without the pacing margin, which would compound.
//! - State saved for undo is that of the whole episode's beginning, not of its latest round trip.

mod cycle;
mod model;

use super::{AckSample, CWND_MAX, Congestion, CongestionEvent, Descent, Phase, Signal};
use super::{initial_window, window_in_segments};
use crate::tcb::rate::{LostSample, RateSampler};
use crate::time::{Duration, Instant};
use cycle::{Cycle, State};
use model::{Model, bdp};

/// Rates in octets per second, volumes in octets, gains in per cent.
const STARTUP_PACING_GAIN: u64 = 277;
/// PacingMarginPercent: the rate is 1 % below the bandwidth, so that a queue drains rather than builds.
const PACING_MARGIN: u64 = 1;
/// MinPipeCwnd, segments: enough for a peer that acknowledges every other one.
const MIN_PIPE_SEGMENTS: u32 = 4;
/// How much goes out at once at most, octets and time: as the draft has it.
const QUANTUM_MAX: u64 = 64 * 1024;
const QUANTUM_PER_SECOND: u64 = 1_000;
/// No bound.
const INFINITE: u32 = u32::MAX;

/// What an ACK says (the draft's RS and C).
#[derive(Clone, Copy, Debug)]
struct Rs {
    now: Instant,
    mss: u32,
    newly_acked: u32,
    newly_lost: u32,
    in_flight: u32,
    rtt_us: Option<u32>,
    /// There is a delivery-rate sample; the rest is zero otherwise.
    sampled: bool,
    rate: u64,
    delivered: u32,
    prior_delivered: u64,
    app_limited: bool,
    tx_in_flight: u32,
    lost: u32,
    in_recovery: bool,
}

/// What a loss episode may have spoiled, as it was before.
#[derive(Clone, Copy, Debug)]
struct Undo {
    /// The state that loss ended, Startup or UP.
    state: Option<State>,
    bw_shortterm: u64,
    inflight_shortterm: u32,
    inflight_longterm: u32,
}

/// A BBR sender.
#[derive(Clone, Debug)]
pub struct Bbr {
    cwnd: u32,
    /// Octets per second; 0: no round trip has been measured yet.
    pacing_rate: u64,
    mss: u32,
    initial_cwnd: u32,
    /// The window before recovery or ProbeRTT cut it.
    prior_cwnd: u32,
    recovering: bool,
    idle_restart: bool,
    sampler: RateSampler,
    model: Model,
    cycle: Cycle,
    undo: Undo,
    /// State of the generator behind the random waits.
    random: u32,
}

impl Bbr {
    /// At connection start. `seed` should differ from one connection to the next, so that flows over the same path
    /// don't probe all at once.
    pub fn new(mss: u32, seed: u32) -> Self {
        let cwnd = initial_window(mss);
        let undo = Undo { state: None, bw_shortterm: 0, inflight_shortterm: 0, inflight_longterm: 0 };
        Self {
            cwnd,
            pacing_rate: 0,
            mss,
            initial_cwnd: cwnd,
            prior_cwnd: 0,
            recovering: false,
            idle_restart: false,
            sampler: RateSampler::default(),
            model: Model::new(),
            cycle: Cycle::new(),
            undo,
            random: seed | 1,
        }
    }

    /// Xorshift (Marsaglia): enough to keep flows from moving in step.
    fn random(&mut self) -> u32 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 17;
        self.random ^= self.random << 5;
        self.random
    }

    fn take(&mut self, ack: &AckSample) -> Rs {
        let rate = ack.rate;
        let rs = Rs {
            now: ack.now,
            mss: ack.mss,
            newly_acked: ack.delivered,
            newly_lost: ack.lost,
            in_flight: ack.in_flight,
            rtt_us: ack.rtt.map(model::micros),
            sampled: rate.is_some(),
            rate: rate.map_or(0, |rate| rate.octets_per_second().min(model::BW_MAX)),
            delivered: rate.map_or(0, |rate| rate.delivered),
            prior_delivered: rate.map_or(0, |rate| rate.prior_delivered),
            app_limited: rate.is_some_and(|rate| rate.app_limited || self.cycle.sent_in_probe_rtt(&rate)),
            tx_in_flight: rate.map_or(0, |rate| rate.tx_in_flight),
            lost: rate.map_or(0, |rate| rate.lost),
            in_recovery: ack.phase == Phase::FastRecovery,
        };
        self.mss = ack.mss;
        self.model.delivered = match rate {
            Some(rate) => rate.total_delivered,
            None => self.model.delivered + u64::from(ack.delivered),
        };
        rs
    }

    // What may be in flight.

    fn min_pipe(&self) -> u32 {
        MIN_PIPE_SEGMENTS * self.mss
    }

    /// BDPMultiple, at `bw`.
    fn bdp_multiple(&self, bw: u64, gain: u64) -> u32 {
        match self.model.min_rtt_us {
            INFINITE => self.initial_cwnd,
            min_rtt_us => bdp(bw, min_rtt_us, gain),
        }
    }

    /// SetSendQuantum: a millisecond of the rate, at least two segments.
    fn send_quantum(&self) -> u32 {
        (self.pacing_rate / QUANTUM_PER_SECOND).min(QUANTUM_MAX).max(2 * u64::from(self.mss)) as u32
    }

    /// QuantizationBudget: what offloads at both ends need on top.
    fn quantized(&self, inflight: u32) -> u32 {
        let budget = inflight.max(3 * self.send_quantum()).max(self.min_pipe());
        if self.cycle.state == State::Up { budget.saturating_add(2 * self.mss) } else { budget }
    }

    fn inflight(&self, bw: u64, gain: u64) -> u32 {
        self.quantized(self.bdp_multiple(bw, gain))
    }

    /// TargetInflight: the BDP, unless congestion has cut the window.
    fn target_inflight(&self) -> u32 {
        self.bdp_multiple(self.model.bw, 100).min(self.cwnd)
    }

    /// InflightWithHeadroom: a part of the long-term bound is left to others.
    fn inflight_with_headroom(&self) -> u32 {
        let bound = self.model.inflight_longterm;
        if bound == INFINITE {
            return INFINITE;
        }
        let headroom = self.mss.max(bound / 100 * model::HEADROOM);
        bound.saturating_sub(headroom).max(self.min_pipe())
    }

    fn probe_rtt_cwnd(&self) -> u32 {
        self.bdp_multiple(self.model.bw, State::ProbeRtt.cwnd_gain()).max(self.min_pipe())
    }

    // Control parameters.

    /// InitPacingRate: as fast as the initial window is worth over the first round trip.
    fn init_pacing_rate(&mut self, srtt: Option<Duration>) {
        if let Some(srtt) = srtt.filter(|_| self.pacing_rate == 0) {
            self.pacing_rate = self.initial_rate(srtt);
        }
    }

    fn initial_rate(&self, srtt: Duration) -> u64 {
        let nominal = u64::from(self.initial_cwnd) * 1_000_000 / u64::from(model::micros(srtt).max(1));
        (nominal * STARTUP_PACING_GAIN / 100).max(1)
    }

    fn set_pacing_rate(&mut self, gain: u64) {
        let rate = self.model.bw / 100 * gain * (100 - PACING_MARGIN) / 100;
        // Until the pipe is known to be full, samples that the application limited mustn't slow it down.
        if rate > 0 && (self.model.full_bw_reached || rate > self.pacing_rate) {
            self.pacing_rate = rate;
        }
    }

    fn set_cwnd(&mut self, rs: &Rs) {
        let wanted = self
            .bdp_multiple(self.model.bw, self.cycle.state.cwnd_gain())
            .saturating_add(self.model.extra_acked());
        let max_inflight = self.quantized(wanted);
        let grown = self.cwnd.saturating_add(rs.newly_acked);
        if self.model.full_bw_reached {
            self.cwnd = grown.min(max_inflight);
        } else if self.cwnd < max_inflight || self.model.delivered < u64::from(self.initial_cwnd) {
            self.cwnd = grown;
        }
        self.cwnd = self.cwnd.max(self.min_pipe());
        if self.cycle.state == State::ProbeRtt {
            self.cwnd = self.cwnd.min(self.probe_rtt_cwnd());
        }
        self.bound_cwnd_for_model();
    }

    fn bound_cwnd_for_model(&mut self) {
        let longterm = match self.cycle.state {
            State::Startup | State::Drain => INFINITE,
            State::Down | State::Refill | State::Up => self.model.inflight_longterm,
            State::Cruise | State::ProbeRtt => self.inflight_with_headroom(),
        };
        let cap = longterm.min(self.model.inflight_shortterm).max(self.min_pipe());
        self.cwnd = self.cwnd.min(cap).min(CWND_MAX);
    }

    // Loss recovery.

    fn save_cwnd(&mut self) {
        let modulated = self.recovering || self.cycle.state == State::ProbeRtt;
        self.prior_cwnd = if modulated { self.prior_cwnd.max(self.cwnd) } else { self.cwnd };
    }

    fn restore_cwnd(&mut self) {
        self.cwnd = self.cwnd.max(self.prior_cwnd);
    }

    /// SaveStateUponLoss, at an episode's beginning.
    fn save_state(&mut self) {
        self.save_cwnd();
        if self.recovering {
            return;
        }
        self.undo = Undo {
            state: None,
            bw_shortterm: self.model.bw_shortterm,
            inflight_shortterm: self.model.inflight_shortterm,
            inflight_longterm: self.model.inflight_longterm,
        };
    }

    /// NoteLoss
    fn note_loss(&mut self) {
        if !self.model.loss_in_round {
            self.model.loss_round_delivered = self.model.delivered;
            self.save_state();
        }
        self.model.loss_in_round = true;
    }

    fn enter_recovery(&mut self) {
        // Losses told before have saved the state already.
        if !self.model.loss_in_round {
            self.save_state();
        }
        self.recovering = true;
    }
}

impl Congestion for Bbr {
    fn sampler(&mut self) -> Option<&mut RateSampler> {
        Some(&mut self.sampler)
    }

    fn cwnd(&self) -> u32 {
        self.cwnd
    }

    /// There is none.
    fn ssthresh(&self) -> u32 {
        u32::MAX
    }

    fn pacing_rate(&self, min_rtt: Option<Duration>) -> Option<u64> {
        match self.pacing_rate {
            0 => min_rtt.map(|rtt| self.initial_rate(rtt)),
            rate => Some(rate),
        }
    }

    /// UpdateOnACK
    fn on_ack(&mut self, ack: &AckSample) {
        self.init_pacing_rate(ack.srtt);
        let rs = self.take(ack);
        self.cycle.note_limited(ack.in_flight_before.saturating_add(ack.mss) > self.cwnd);
        self.update_model_and_state(&rs);
        self.set_pacing_rate(self.cycle.state.pacing_gain());
        self.set_cwnd(&rs);
    }

    /// HandleLostPacket
    fn on_lost(&mut self, lost: &LostSample, now: Instant) {
        self.note_loss();
        if !self.cycle.is_bw_probe_sample || !model::too_high(lost.lost, lost.tx_in_flight) {
            return;
        }
        let inflight = model::inflight_at_loss(lost);
        self.handle_inflight_too_high(inflight, lost.app_limited, now);
    }

    fn on_congestion(&mut self, event: &CongestionEvent) {
        self.mss = event.mss;
        match event.signal {
            Signal::Loss => self.enter_recovery(),
            Signal::Ecn => {
                self.note_loss();
                if self.cycle.state == State::Startup {
                    self.leave_startup_for_loss();
                } else if self.cycle.is_bw_probe_sample {
                    self.handle_inflight_too_high(event.flight, false, event.now);
                }
            }
        }
    }

    fn on_recovered(&mut self, _now: Instant, _mss: u32) {
        if self.recovering {
            self.recovering = false;
            self.restore_cwnd();
            self.bound_cwnd_for_model();
        }
    }

    /// OnEnterRTO: a segment goes out, whatever else is.
    fn on_timeout(&mut self, event: &CongestionEvent, _first: bool) {
        self.mss = event.mss;
        self.note_loss();
        self.enter_recovery();
        self.cwnd = event.mss;
    }

    /// HandleSpuriousLossDetection
    fn on_undo(&mut self, _now: Instant) {
        self.restore_cwnd();
        self.model.loss_in_round = false;
        self.model.reset_full_bw(0);
        self.model.bw_shortterm = self.model.bw_shortterm.max(self.undo.bw_shortterm);
        self.model.inflight_shortterm = self.model.inflight_shortterm.max(self.undo.inflight_shortterm);
        self.model.inflight_longterm = self.model.inflight_longterm.max(self.undo.inflight_longterm);
        let ended = self.undo.state.take();
        self.return_to(ended);
        self.recovering = false;
    }

    /// HandleRestartFromIdle
    fn on_idle(&mut self, now: Instant, _idle: Duration, _mss: u32) {
        self.idle_restart = true;
        self.model.restart_aggregation(now);
        if self.cycle.state.probes_bw() {
            self.set_pacing_rate(100);
        } else if self.cycle.state == State::ProbeRtt {
            self.check_probe_rtt_done(now);
        }
    }

    fn on_syn_lost(&mut self, mss: u32) {
        self.cwnd = mss;
    }

    fn on_mss(&mut self, before: u32, mss: u32) {
        self.mss = mss;
        self.cwnd = window_in_segments(self.cwnd, before, mss);
    }

    /// It has no ssthresh to come down to.
    fn descent(&self) -> Descent {
        Descent::Own
    }

    fn mode(&self) -> &'static str {
        self.cycle.state.name()
    }
}

#[cfg(test)]
mod tests;
