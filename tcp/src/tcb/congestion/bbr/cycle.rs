//! BBR's state machine: when to send faster than the path delivers, when slower.

use super::{Bbr, INFINITE, Rs, model};
use crate::tcb::rate::RateSample;
use crate::time::{Duration, Instant};

/// Losses in so many ACKs of a round trip end Startup (BBRStartupFullLossCnt).
const STARTUP_FULL_LOSS_COUNT: u8 = 6;
/// Round trips after which Drain ends anyway.
const DRAIN_ROUNDS: u32 = 3;
/// T_reno_bound: Reno would have lost something after so many round trips, whatever its window.
const RENO_ROUNDS_MAX: u32 = 63;
/// T_bbr: two seconds, and up to one more.
const PROBE_WAIT_US: u64 = 2_000_000;
const PROBE_WAIT_SPREAD_US: u64 = 1_000_000;
/// ProbeRTTDuration
const PROBE_RTT_DURATION: Duration = Duration::from_millis(200);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    Startup,
    Drain,
    Down,
    Cruise,
    Refill,
    Up,
    ProbeRtt,
}

impl State {
    /// BBR.pacing_gain, per cent.
    pub(super) fn pacing_gain(self) -> u64 {
        match self {
            Self::Startup => super::STARTUP_PACING_GAIN,
            Self::Drain => 50,
            Self::Down => 90,
            Self::Cruise | Self::Refill | Self::ProbeRtt => 100,
            Self::Up => 125,
        }
    }

    /// BBR.cwnd_gain, per cent.
    pub(super) fn cwnd_gain(self) -> u64 {
        match self {
            Self::Up => 225,
            Self::ProbeRtt => 50,
            _ => 200,
        }
    }

    /// IsInAProbeBWState
    pub(super) fn probes_bw(self) -> bool {
        matches!(self, Self::Down | Self::Cruise | Self::Refill | Self::Up)
    }

    /// IsProbingBW
    pub(super) fn accelerates(self) -> bool {
        matches!(self, Self::Startup | Self::Refill | Self::Up)
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Drain => "Drain",
            Self::Down => "ProbeBW_DOWN",
            Self::Cruise => "ProbeBW_CRUISE",
            Self::Refill => "ProbeBW_REFILL",
            Self::Up => "ProbeBW_UP",
            Self::ProbeRtt => "ProbeRTT",
        }
    }
}

/// What ACKs tell of the probe for bandwidth: they come a round trip after it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum AckPhase {
    Init,
    Refilling,
    ProbeStarting,
    ProbeFeedback,
    ProbeStopping,
}

/// Where BBR stands in its cycle.
#[derive(Clone, Debug)]
pub(super) struct Cycle {
    pub(super) state: State,
    drain_start_round: u32,
    pub(super) ack_phase: AckPhase,
    pub(super) is_bw_probe_sample: bool,
    prev_probe_too_high: bool,
    prev_probe_precautionary: bool,
    bw_probe_up_rounds: u8,
    bw_probe_up_acked: u32,
    probe_up_acked_per_inc: u32,
    rounds_since_probe_up: u32,
    pub(super) bw_probe_wait: Duration,
    cycle_stamp: Instant,
    probe_rtt_done_stamp: Option<Instant>,
    probe_rtt_round_done: bool,
    /// C.delivered when ProbeRTT began, and when all that was sent in it will have arrived.
    probe_rtt_sent: (u64, u64),
    /// C.is_cwnd_limited: in the round trip before, and in this one.
    limited: (bool, bool),
}

impl Cycle {
    pub(super) fn new() -> Self {
        Self {
            state: State::Startup,
            drain_start_round: 0,
            ack_phase: AckPhase::Init,
            is_bw_probe_sample: false,
            prev_probe_too_high: false,
            prev_probe_precautionary: false,
            bw_probe_up_rounds: 0,
            bw_probe_up_acked: 0,
            probe_up_acked_per_inc: INFINITE,
            rounds_since_probe_up: 0,
            bw_probe_wait: Duration::ZERO,
            cycle_stamp: Instant::ZERO,
            probe_rtt_done_stamp: None,
            probe_rtt_round_done: false,
            probe_rtt_sent: (0, 0),
            limited: (false, false),
        }
    }

    pub(super) fn on_round(&mut self) {
        self.rounds_since_probe_up = self.rounds_since_probe_up.saturating_add(1);
        self.limited = (self.limited.1, false);
    }

    /// The window was full when this ACK came, or not.
    pub(super) fn note_limited(&mut self, full: bool) {
        self.limited.1 |= full;
    }

    fn is_cwnd_limited(&self) -> bool {
        self.limited.0 || self.limited.1
    }

    /// ProbeRTT limits the rate, not the path (MarkConnectionAppLimited): whether the sample is of that time.
    pub(super) fn sent_in_probe_rtt(&self, rate: &RateSample) -> bool {
        let (from, to) = self.probe_rtt_sent;
        from <= rate.prior_delivered && rate.prior_delivered < to
    }
}

impl Bbr {
    /// UpdateModelAndState
    pub(super) fn update_model_and_state(&mut self, rs: &Rs) {
        self.model.update_latest_delivery(rs);
        self.update_congestion_signals(rs);
        self.model.update_aggregation(rs, self.cwnd);
        self.model.check_full_bw(rs);
        self.check_startup_done(rs);
        self.check_drain_done(rs);
        self.update_probe_bw(rs);
        self.model.update_min_rtt(rs);
        self.check_probe_rtt(rs);
        self.model.advance_latest_delivery(rs);
        self.model.bound_bw();
    }

    // Startup and Drain.

    fn check_startup_done(&mut self, rs: &Rs) {
        self.check_startup_high_loss(rs);
        if self.cycle.state == State::Startup && self.model.full_bw_reached {
            self.enter_drain();
        }
    }

    fn enter_drain(&mut self) {
        self.cycle.state = State::Drain;
        self.cycle.drain_start_round = self.model.round_count;
    }

    /// CheckStartupHighLoss: a round trip of fast recovery with losses in many places, more than 2 %.
    fn check_startup_high_loss(&mut self, rs: &Rs) {
        if self.model.full_bw_reached {
            return;
        }
        if rs.newly_lost > 0 {
            self.model.loss_events = self.model.loss_events.saturating_add(1);
        }
        if !self.model.loss_round_start {
            return;
        }
        let many = self.model.loss_events >= STARTUP_FULL_LOSS_COUNT;
        if many && rs.in_recovery && model::too_high(rs.lost, rs.tx_in_flight) {
            self.leave_startup_for_loss();
        }
        self.model.loss_events = 0;
    }

    /// Loss or marks say that the pipe is full.
    pub(super) fn leave_startup_for_loss(&mut self) {
        self.undo.state = Some(State::Startup);
        self.model.full_bw_reached = true;
        let bdp = self.bdp_multiple(self.model.bw, 100);
        self.model.inflight_longterm = bdp.max(self.model.inflight_latest);
        if self.cycle.state == State::Startup {
            self.enter_drain();
        }
    }

    fn check_drain_done(&mut self, rs: &Rs) {
        if self.cycle.state != State::Drain {
            return;
        }
        let rounds = self.model.round_count.wrapping_sub(self.cycle.drain_start_round);
        if rs.in_flight <= self.inflight(self.model.bw, 100) || rounds > DRAIN_ROUNDS {
            self.start_down(rs.now);
        }
    }

    // ProbeBW.

    fn start_down(&mut self, now: Instant) {
        self.model.reset_congestion_signals();
        self.cycle.probe_up_acked_per_inc = INFINITE;
        self.pick_probe_wait();
        self.cycle.cycle_stamp = now;
        self.cycle.ack_phase = AckPhase::ProbeStopping;
        self.model.start_round();
        self.cycle.state = State::Down;
    }

    /// PickProbeWait
    pub(super) fn pick_probe_wait(&mut self) {
        self.cycle.rounds_since_probe_up = self.random() >> 31;
        let spread = (u64::from(self.random()) * PROBE_WAIT_SPREAD_US) >> 32;
        self.cycle.bw_probe_wait = Duration::from_micros(PROBE_WAIT_US + spread);
    }

    fn start_refill(&mut self) {
        self.model.reset_short_term();
        self.cycle.bw_probe_up_rounds = 0;
        self.cycle.bw_probe_up_acked = 0;
        self.cycle.prev_probe_precautionary = false;
        self.cycle.ack_phase = AckPhase::Refilling;
        self.model.start_round();
        self.cycle.state = State::Refill;
    }

    fn start_up(&mut self, rs: &Rs) {
        self.cycle.is_bw_probe_sample = true;
        self.cycle.ack_phase = AckPhase::ProbeStarting;
        self.model.start_round();
        self.model.reset_full_bw(rs.rate);
        self.cycle.state = State::Up;
        self.raise_longterm_slope();
    }

    /// UpdateProbeBWCyclePhase
    fn update_probe_bw(&mut self, rs: &Rs) {
        if !self.model.full_bw_reached || self.adapt_longterm_model(rs) {
            return;
        }
        match self.cycle.state {
            State::Down => {
                if !self.check_time_to_probe(rs.now) && self.is_time_to_cruise(rs) {
                    self.cycle.state = State::Cruise;
                }
            }
            State::Cruise => {
                self.check_time_to_probe(rs.now);
            }
            State::Refill => {
                if self.model.round_start {
                    self.start_up(rs);
                }
            }
            State::Up => {
                if self.is_time_to_go_down(rs) {
                    // No high loss, so far.
                    self.cycle.prev_probe_too_high = false;
                    self.start_down(rs.now);
                }
            }
            State::Startup | State::Drain | State::ProbeRtt => {}
        }
    }

    /// IsTimeToProbeBW: after two to three seconds, or as many round trips as Reno would take.
    fn check_time_to_probe(&mut self, now: Instant) -> bool {
        let waited = now > self.cycle.cycle_stamp + self.cycle.bw_probe_wait;
        let reno_rounds = (self.target_inflight() / self.mss.max(1)).min(RENO_ROUNDS_MAX);
        let due = waited || self.cycle.rounds_since_probe_up >= reno_rounds;
        if due {
            self.start_refill();
        }
        due
    }

    fn is_time_to_cruise(&self, rs: &Rs) -> bool {
        rs.in_flight <= self.inflight_with_headroom()
            && rs.in_flight <= self.inflight(self.model.max_bw(), 100)
    }

    fn is_time_to_go_down(&mut self, rs: &Rs) -> bool {
        let bound = self.model.inflight_longterm;
        if self.cycle.prev_probe_too_high && rs.in_flight >= bound {
            self.cycle.prev_probe_precautionary = true;
            return true;
        }
        if self.cycle.is_cwnd_limited() && self.cwnd >= bound {
            // The bound is what limits the bandwidth.
            self.model.reset_full_bw(rs.rate);
            return false;
        }
        self.model.full_bw_now
    }

    /// RaiseInflightLongtermSlope: 1, 2, 4, … segments more in each round trip.
    fn raise_longterm_slope(&mut self) {
        let growth = 1u32 << self.cycle.bw_probe_up_rounds;
        self.cycle.bw_probe_up_rounds = (self.cycle.bw_probe_up_rounds + 1).min(30);
        self.cycle.probe_up_acked_per_inc = (self.cwnd / growth).max(self.mss).max(1);
    }

    /// ProbeInflightLongtermUpward
    fn probe_longterm_upward(&mut self, rs: &Rs) {
        if !self.cycle.is_cwnd_limited() || self.cwnd < self.model.inflight_longterm {
            return;
        }
        let acked = self.cycle.bw_probe_up_acked.saturating_add(rs.newly_acked);
        let delta = acked / self.cycle.probe_up_acked_per_inc;
        self.cycle.bw_probe_up_acked = acked % self.cycle.probe_up_acked_per_inc;
        let grown = self.model.inflight_longterm.saturating_add(delta.saturating_mul(rs.mss));
        self.model.inflight_longterm = grown.min(INFINITE - 1);
        if self.model.round_start {
            self.raise_longterm_slope();
        }
    }

    /// AdaptLongTermModel; whether it changed the state.
    fn adapt_longterm_model(&mut self, rs: &Rs) -> bool {
        let probes = self.cycle.state.probes_bw();
        if self.model.round_start {
            match self.cycle.ack_phase {
                AckPhase::ProbeStarting => self.cycle.ack_phase = AckPhase::ProbeFeedback,
                AckPhase::ProbeStopping => {
                    self.cycle.is_bw_probe_sample = false;
                    self.cycle.ack_phase = AckPhase::Init;
                    if probes && !rs.app_limited {
                        self.model.advance_max_bw_filter();
                    }
                    // The careful probe went well: now a real one.
                    let again = self.cycle.prev_probe_precautionary && !self.cycle.prev_probe_too_high;
                    if probes && again {
                        self.start_refill();
                        return true;
                    }
                }
                _ => {}
            }
        }
        if model::too_high(rs.lost, rs.tx_in_flight) || self.model.inflight_longterm == INFINITE {
            return false;
        }
        self.model.inflight_longterm = self.model.inflight_longterm.max(rs.tx_in_flight.min(INFINITE - 1));
        if self.cycle.state == State::Up {
            self.probe_longterm_upward(rs);
        }
        false
    }

    /// HandleInflightTooHigh
    pub(super) fn handle_inflight_too_high(&mut self, inflight: u32, app_limited: bool, now: Instant) {
        self.cycle.prev_probe_too_high = true;
        // One reaction for each probe.
        self.cycle.is_bw_probe_sample = false;
        if !app_limited {
            let beta = (u64::from(self.target_inflight()) * 70 / 100) as u32;
            self.model.inflight_longterm = inflight.max(beta);
        }
        if self.cycle.state == State::Up {
            self.undo.state = Some(State::Up);
            self.start_down(now);
        }
    }

    /// The state that a spurious loss ended goes on.
    pub(super) fn return_to(&mut self, state: Option<State>) {
        let now_in = self.cycle.state;
        match state {
            Some(State::Startup) if now_in != State::Startup => {
                self.model.full_bw_reached = false;
                if now_in != State::ProbeRtt {
                    self.cycle.state = State::Startup;
                }
            }
            Some(State::Up) if now_in != State::Up && now_in != State::ProbeRtt => self.start_refill(),
            _ => {}
        }
    }

    // ProbeRTT.

    fn check_probe_rtt(&mut self, rs: &Rs) {
        let due = self.model.probe_rtt_expired && !self.idle_restart;
        if self.cycle.state != State::ProbeRtt && due {
            self.save_cwnd();
            self.cycle.state = State::ProbeRtt;
            self.cycle.probe_rtt_done_stamp = None;
            self.cycle.ack_phase = AckPhase::ProbeStopping;
            self.model.start_round();
            self.cycle.probe_rtt_sent = (self.model.delivered, 0);
        }
        if self.cycle.state == State::ProbeRtt {
            self.handle_probe_rtt(rs);
        }
        if rs.delivered > 0 {
            self.idle_restart = false;
        }
    }

    fn handle_probe_rtt(&mut self, rs: &Rs) {
        self.cycle.probe_rtt_sent.1 = self.model.delivered + u64::from(rs.in_flight).max(1);
        match self.cycle.probe_rtt_done_stamp {
            None => {
                if rs.in_flight <= self.probe_rtt_cwnd() {
                    self.cycle.probe_rtt_done_stamp = Some(rs.now + PROBE_RTT_DURATION);
                    self.cycle.probe_rtt_round_done = false;
                    self.model.start_round();
                }
            }
            Some(_) => {
                self.cycle.probe_rtt_round_done |= self.model.round_start;
                if self.cycle.probe_rtt_round_done {
                    self.check_probe_rtt_done(rs.now);
                }
            }
        }
    }

    pub(super) fn check_probe_rtt_done(&mut self, now: Instant) {
        if self.cycle.probe_rtt_done_stamp.is_some_and(|done| now > done) {
            self.model.probe_rtt_min_stamp = now;
            self.restore_cwnd();
            self.exit_probe_rtt(now);
        }
    }

    fn exit_probe_rtt(&mut self, now: Instant) {
        self.model.reset_short_term();
        if self.model.full_bw_reached {
            self.start_down(now);
            // What is in flight is below the BDP already.
            self.cycle.state = State::Cruise;
        } else {
            self.cycle.state = State::Startup;
        }
    }
}
