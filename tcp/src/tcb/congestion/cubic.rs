//! CUBIC (RFC 9438): the window follows a cubic function of the time since the last reduction. S7.2
//!
//! ```text
//!   W_max ┤            ______        W_cubic(t) = C·(t − K)³ + W_max
//!         │        _,-'      '-       concave up to W_max, where loss was met before;
//!         │     ,-'            \      convex beyond, looking for a new limit
//!   β·W_max ┤ ,'
//!         └─┴──────────┴───────→ t    never below W_est, the window Reno would have (§4.3)
//!           0          K
//! ```
//!
//! All in integers: windows in octets, time in milliseconds. An acknowledgement costs three divisions by a
//! variable and no loop; the cube root is taken once per stage.

use super::hystart::{HyStart, Step};
use super::validation::Validation;
use super::{AckSample, CWND_MAX, Congestion, CongestionEvent, Phase, Signal};
use super::{initial_window, window_in_segments, window_rate};
use crate::time::{Duration, Instant};

/// W_est is kept in 2^-12 octets: an ACK of one segment adds MSS²/cwnd octets to it, 4 of these units at the
/// largest window there is.
const EST_SHIFT: u32 = 12;
/// α_cubic = 3·(1 − β)/(1 + β) = 9/17 (RFC 9438 §4.3).
const ALPHA_CUBIC: u64 = 9;
const ALPHA_RENO: u64 = 17;
/// Milliseconds away from K at which W_cubic has left any window behind (17 minutes: 0.4 · 1000³ segments).
const FAR_MS: u64 = 1 << 20;

/// A stage of congestion avoidance: where on the curve the window is.
#[derive(Clone, Copy, Debug)]
struct Stage {
    /// W_max, octets: the window at which congestion was met; 0: unknown, as before the first time (§4.10) and
    /// after a timeout (§4.8).
    w_max: u32,
    /// cwnd_prior, octets: the window before the last reduction.
    prior: u32,
    /// K, ms: when the curve reaches W_max.
    k_ms: u32,
    /// W_est, 2^-12 octets: what Reno's window would be.
    est: u64,
    /// t_epoch; `NEVER` until the stage's first ACK.
    epoch: Instant,
}

impl Stage {
    /// RFC 9438 §4.2: K, and W_est at its start.
    fn begin(&mut self, now: Instant, cwnd: u32, mss: u32) {
        if self.prior == 0 {
            // §4.10: slow start ended without a loss.
            self.prior = cwnd;
        }
        self.w_max = self.w_max.max(cwnd);
        // K = cbrt((W_max − cwnd_epoch)/C), C = 0.4 segments/s³, in ms: 10^9 ms³ in an s³. Below 2^64.
        let rise = u64::from((self.w_max - cwnd).min(CWND_MAX));
        self.k_ms = cube_root(rise * 10_000_000_000 / (4 * u64::from(mss)));
        self.est = u64::from(cwnd) << EST_SHIFT;
        self.epoch = now;
    }

    /// W_cubic, octets, `t_ms` after the stage began (§4.2, figure 1).
    fn w_cubic(&self, t_ms: u64, mss: u32) -> u64 {
        let k_ms = u64::from(self.k_ms);
        let away = t_ms.abs_diff(k_ms).min(FAR_MS);
        // ms³ → 10^-3 s³, so that the product stays below 2^60; that is half an octet of C·t³.
        let milli_cubic_seconds = away * away * away / 1_000_000;
        let octets = milli_cubic_seconds * 4 * u64::from(mss) / 10_000;
        let w_max = u64::from(self.w_max);
        if t_ms < k_ms { w_max.saturating_sub(octets) } else { w_max + octets }
    }

    /// W_est after `acked` more octets (§4.3), octets.
    fn reno_window(&mut self, acked: u32, cwnd: u32, mss: u32) -> u32 {
        let prior_reached = self.est >> EST_SHIFT >= u64::from(self.prior);
        let alpha = if prior_reached { ALPHA_RENO } else { ALPHA_CUBIC };
        // acked ≤ 2^30, mss < 2^16: 2^58 before α.
        let gain = (u64::from(acked) * u64::from(mss)) << EST_SHIFT;
        self.est += gain / u64::from(cwnd) * alpha / 17;
        self.est = self.est.min(u64::from(CWND_MAX) << EST_SHIFT);
        (self.est >> EST_SHIFT) as u32
    }
}

/// ⌊∛x⌋, a bit at a time: ∛(2^64) < 2^22.
fn cube_root(x: u64) -> u32 {
    let mut root = 0u64;
    for bit in (0..22).rev() {
        let more = root | 1 << bit;
        if more.checked_mul(more * more).is_some_and(|cube| cube <= x) {
            root = more;
        }
    }
    root as u32
}

/// What a reduction changed, to be put back if it was a mistake (§4.9.2).
#[derive(Clone, Copy, Debug)]
struct Before {
    cwnd: u32,
    ssthresh: u32,
    stage: Stage,
}

/// Slow start, then the cubic curve.
// In front is what an ACK needs whose window isn't what limits the sender: one cache line (see `Tcb`).
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Cubic {
    validation: Validation,
    /// Since when the window isn't what limits the sender; `NEVER`: it does.
    unused_since: Instant,
    cwnd: u32,
    ssthresh: u32,
    stage: Stage,
    /// Growth that isn't a whole octet yet, in octets · cwnd.
    credit: u64,
    hystart: HyStart,
    /// What was in flight when a loss met a window that wasn't validated; 0 otherwise.
    loss_flight: u32,
    before: Before,
}

impl Cubic {
    /// At connection start; ssthresh is arbitrarily high (RFC 5681 §3.1).
    pub fn new(mss: u32) -> Self {
        let (cwnd, ssthresh) = (initial_window(mss), u32::MAX);
        let stage = Stage { w_max: 0, prior: 0, k_ms: 0, est: 0, epoch: Instant::NEVER };
        let before = Before { cwnd, ssthresh, stage };
        let (unused_since, hystart) = (Instant::NEVER, HyStart::new());
        let validation = Validation::new();
        Self { cwnd, ssthresh, stage, credit: 0, unused_since, hystart, validation, loss_flight: 0, before }
    }

    /// Slow start (§4.10) by octets acknowledged (RFC 3465, T23), as far as ssthresh. Returns what is left
    /// over for congestion avoidance.
    fn slow_start(&mut self, ack: &AckSample) -> u32 {
        let step = if self.first_slow_start() {
            match self.hystart.on_ack(ack) {
                Step::Grow(octets) => octets,
                Step::Exit => {
                    self.ssthresh = self.cwnd;
                    return ack.acked;
                }
            }
        } else {
            ack.acked
        };
        let room = self.ssthresh - self.cwnd;
        self.cwnd = (self.cwnd + step.min(room)).min(CWND_MAX);
        step.saturating_sub(room)
    }

    /// RFC 9406 §4.2: HyStart++ is for the slow start that doesn't know where to stop.
    fn first_slow_start(&self) -> bool {
        self.ssthresh == u32::MAX
    }

    /// Congestion avoidance (§4.2 to §4.5).
    fn avoid(&mut self, ack: &AckSample, acked: u32) {
        if self.stage.epoch == Instant::NEVER {
            self.stage.begin(ack.now, self.cwnd, ack.mss);
            self.credit = 0;
        } else if self.unused_since != Instant::NEVER {
            // §4.2 (MUST NOT), §5.8: while the application was the limit, t stood still.
            self.stage.epoch = self.stage.epoch + ack.now.since(self.unused_since);
        }
        self.unused_since = Instant::NEVER;
        // Nobody acknowledges more than was out; a window's worth is what the sum below is right for.
        let acked = acked.min(self.cwnd);
        let t_ms = ack.now.since(self.stage.epoch).as_millis();
        let est = self.stage.reno_window(acked, self.cwnd, ack.mss);
        if self.stage.w_cubic(t_ms, ack.mss) < u64::from(est) {
            // §4.3: the Reno-friendly region.
            self.cwnd = self.cwnd.max(est);
            return;
        }
        // §4.2: the window to be reached in a round trip, neither below cwnd nor above 1.5 cwnd.
        let cwnd = u64::from(self.cwnd);
        let rtt_ms = ack.srtt.map_or(0, |srtt| srtt.as_millis());
        let target = self.stage.w_cubic(t_ms + rtt_ms, ack.mss).clamp(cwnd, cwnd + cwnd / 2);
        // §4.4, §4.5: (target − cwnd)/cwnd for each segment acknowledged. One ACK for many segments gives what
        // ACKs one by one would, each of which finds the distance smaller: 1 − e^-x is near x/(1 + x/2), where
        // x is acked/cwnd without the first segment.
        let divisor = cwnd + u64::from(acked.saturating_sub(ack.mss) / 2);
        self.credit += (target - cwnd) * u64::from(acked);
        self.cwnd = ((cwnd + self.credit / divisor).min(target) as u32).min(CWND_MAX);
        self.credit %= divisor;
    }

    /// ssthresh after congestion, without its lower bound (§4.6).
    fn reduced(&self, event: &CongestionEvent) -> u32 {
        let flight = u64::from(self.flight(event));
        // β_cubic = 0.7; for a mark 0.85 (RFC 8511), since a queue that marks is a short one. Not in slow start,
        // which overshoots by up to a window.
        let percent = match event.signal {
            Signal::Ecn if self.cwnd >= self.ssthresh => 85,
            _ => 70,
        };
        (flight * percent / 100) as u32
    }

    /// FlightSize, or what RFC 7661 §4.4.2 has instead for an application that was sending little just now. Not
    /// more than the window: in a long recovery SND.NXT − SND.UNA counts several windows of what is SACKed.
    fn flight(&self, event: &CongestionEvent) -> u32 {
        event.flight.max(self.validation.pipe_ack()).min(self.cwnd)
    }

    /// Saves what [`on_undo`](Congestion::on_undo) restores, and ends the stage.
    fn leave(&mut self) {
        self.before = Before { cwnd: self.cwnd, ssthresh: self.ssthresh, stage: self.stage };
        // §4.7, fast convergence: meeting congestion below W_max means that somebody else wants room.
        let less = self.cwnd < self.stage.w_max;
        self.stage.w_max = if less { (u64::from(self.cwnd) * 17 / 20) as u32 } else { self.cwnd };
        self.stage.prior = self.cwnd;
        self.stage.epoch = Instant::NEVER;
    }
}

impl Congestion for Cubic {
    fn cwnd(&self) -> u32 {
        self.cwnd
    }

    fn ssthresh(&self) -> u32 {
        self.ssthresh
    }

    fn pacing_rate(&self, min_rtt: Option<Duration>) -> Option<u64> {
        window_rate(self.cwnd, self.ssthresh, min_rtt)
    }

    fn on_ack(&mut self, ack: &AckSample) {
        // RFC 5681 §3.1: after a timeout slow start begins anew; in fast recovery nothing grows.
        match ack.phase {
            Phase::Open => self.validation.on_ack(ack, &mut self.cwnd, &mut self.ssthresh),
            Phase::FastRecovery => self.loss_flight = self.loss_flight.saturating_sub(ack.lost),
            Phase::Cwr | Phase::Loss => {}
        }
        match ack.phase {
            Phase::Open if !ack.limited => {
                self.unused_since = self.unused_since.min(ack.now);
                return;
            }
            Phase::Open | Phase::Loss => {}
            Phase::Cwr | Phase::FastRecovery => return,
        }
        let mut acked = ack.acked;
        if self.cwnd < self.ssthresh {
            self.stage.epoch = Instant::NEVER;
            acked = self.slow_start(ack);
        }
        if acked > 0 && self.cwnd >= self.ssthresh {
            self.avoid(ack, acked);
        }
    }

    fn on_congestion(&mut self, event: &CongestionEvent) {
        let lapsed = self.validation.lapsed() && event.signal == Signal::Loss;
        self.loss_flight = if lapsed { self.flight(event) } else { 0 };
        let ssthresh = self.reduced(event);
        self.leave();
        // §4.6: cwnd at least 2 MSS after a loss, 1 MSS after a mark; ssthresh 2 MSS.
        self.ssthresh = ssthresh.max(2 * event.mss);
        self.cwnd = match event.signal {
            Signal::Loss => self.ssthresh,
            Signal::Ecn => ssthresh.max(event.mss),
        };
    }

    fn on_recovered(&mut self, _now: Instant, mss: u32) {
        if self.loss_flight > 0 {
            // RFC 7661 §4.4.2: without what had to be sent again.
            let kept = (u64::from(self.loss_flight) * 70 / 100) as u32;
            self.ssthresh = self.ssthresh.min(kept.max(2 * mss));
            self.cwnd = self.cwnd.min(self.ssthresh.max(mss));
            self.loss_flight = 0;
        }
        self.validation.reset();
    }

    fn on_timeout(&mut self, event: &CongestionEvent, first: bool) {
        // RFC 5681 §3.1: ssthresh stays when the same segment times out again.
        if first {
            let ssthresh = self.reduced(event).max(2 * event.mss);
            self.leave();
            self.ssthresh = ssthresh;
        }
        self.loss_flight = 0;
        self.validation.reset();
        // §4.8: the next stage starts at K = 0 and W_max = cwnd.
        self.stage.w_max = 0;
        self.stage.epoch = Instant::NEVER;
        self.cwnd = event.mss;
    }

    fn on_undo(&mut self, _now: Instant) {
        self.loss_flight = 0;
        // §4.9.2: unless the window has outgrown what it was.
        if self.cwnd < self.stage.prior {
            self.cwnd = self.cwnd.max(self.before.cwnd);
            self.ssthresh = self.before.ssthresh;
            self.stage = self.before.stage;
        }
    }

    fn on_idle(&mut self, now: Instant, idle: Duration, mss: u32) {
        // RFC 7661 §4.4: instead of the restart window of RFC 5681 §4.1. What goes out then is paced, but for
        // paths so short that a burst is over before it matters.
        self.validation.on_idle(now, idle, mss, &mut self.cwnd, &mut self.ssthresh);
        self.unused_since = self.unused_since.min(now - idle);
    }

    fn on_syn_lost(&mut self, mss: u32) {
        self.cwnd = mss;
    }

    fn on_mss(&mut self, before: u32, mss: u32) {
        self.cwnd = window_in_segments(self.cwnd, before, mss);
        // K was counted in the old segments: a new stage from here.
        self.stage.epoch = Instant::NEVER;
    }

    fn mode(&self) -> &'static str {
        if self.cwnd < self.ssthresh {
            let conservative = self.first_slow_start() && self.hystart.conservative();
            if conservative { "conservative slow start" } else { "slow start" }
        } else if self.stage.est >> EST_SHIFT >= u64::from(self.cwnd) {
            "Reno-friendly"
        } else if self.cwnd < self.stage.w_max {
            "concave"
        } else {
            "convex"
        }
    }
}

#[cfg(test)]
mod tests;
