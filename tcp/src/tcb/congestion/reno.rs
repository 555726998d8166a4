//! Reno (RFC 5681). S7.1

use super::{AckSample, CWND_MAX, Congestion, CongestionEvent, Descent, Phase};
use super::{initial_window, window_in_segments, window_rate};
use crate::time::{Duration, Instant};

/// Slow start, congestion avoidance, halving on loss.
#[derive(Clone, Copy, Debug)]
pub struct Reno {
    cwnd: u32,
    ssthresh: u32,
    /// Octets acknowledged since the window last grew, in congestion avoidance.
    acked: u32,
    /// Both windows before the last reduction.
    before: (u32, u32),
}

impl Reno {
    /// At connection start; ssthresh is arbitrarily high (RFC 5681 §3.1).
    pub fn new(mss: u32) -> Self {
        let cwnd = initial_window(mss);
        Self { cwnd, ssthresh: u32::MAX, acked: 0, before: (cwnd, u32::MAX) }
    }

    /// RFC 5681 eq. 4.
    fn halved(event: &CongestionEvent) -> u32 {
        (event.flight / 2).max(2 * event.mss)
    }

    fn remember(&mut self) {
        self.before = (self.cwnd, self.ssthresh);
    }
}

impl Congestion for Reno {
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
        let grows = match ack.phase {
            Phase::Open => ack.limited,
            Phase::Loss => true,
            Phase::Cwr | Phase::FastRecovery => false,
        };
        if !grows {
            return;
        }
        if self.cwnd < self.ssthresh {
            // RFC 5681 eq. 2 by octets acknowledged (RFC 3465), so that splitting an ACK gains nothing,
            // T23. Without its limit L, because one ACK answers a whole batch; ssthresh bounds the
            // step, as in Linux.
            self.cwnd = self.cwnd.saturating_add(ack.acked).min(self.ssthresh).min(CWND_MAX);
        } else {
            // RFC 3465 §2.1: one MSS for each window acknowledged, of which a segment's part isn't used: counted
            // in, it would cost up to every second round trip its step.
            self.acked = self.acked.saturating_add(ack.acked);
            let whole = self.cwnd - self.cwnd % ack.mss;
            if self.acked >= whole {
                self.acked -= whole;
                self.cwnd = self.cwnd.saturating_add(ack.mss).min(CWND_MAX);
            }
        }
    }

    fn on_congestion(&mut self, event: &CongestionEvent) {
        self.remember();
        self.ssthresh = Self::halved(event);
        self.cwnd = self.ssthresh;
        self.acked = 0;
    }

    fn on_recovered(&mut self, _now: Instant, mss: u32) {
        // ssthresh may be of a time with smaller segments.
        self.cwnd = self.cwnd.min(self.ssthresh.max(mss));
    }

    fn on_timeout(&mut self, event: &CongestionEvent, first: bool) {
        // RFC 5681 §3.1: ssthresh stays when the same segment times out again.
        if first {
            self.remember();
            self.ssthresh = Self::halved(event);
        }
        self.cwnd = event.mss;
        self.acked = 0;
    }

    fn on_undo(&mut self, _now: Instant) {
        self.cwnd = self.cwnd.max(self.before.0);
        self.ssthresh = self.ssthresh.max(self.before.1);
    }

    fn on_idle(&mut self, _now: Instant, _idle: Duration, mss: u32) {
        self.cwnd = self.cwnd.min(initial_window(mss));
        self.acked = 0;
    }

    fn on_syn_lost(&mut self, mss: u32) {
        self.cwnd = mss;
    }

    fn on_mss(&mut self, before: u32, mss: u32) {
        self.cwnd = window_in_segments(self.cwnd, before, mss);
    }

    fn descent(&self) -> Descent {
        Descent::Inflation
    }

    fn mode(&self) -> &'static str {
        if self.cwnd < self.ssthresh { "slow start" } else { "congestion avoidance" }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seq::SeqNumber;

    const MSS: u32 = 1460;

    fn ack(acked: u32, phase: Phase, limited: bool) -> AckSample {
        AckSample {
            now: Instant::ZERO,
            una: SeqNumber(0),
            nxt: SeqNumber(0),
            mss: MSS,
            acked,
            delivered: acked,
            lost: 0,
            in_flight_before: acked,
            in_flight: 0,
            limited,
            rtt: None,
            srtt: None,
            rate: None,
            phase,
        }
    }

    fn event(flight: u32) -> CongestionEvent {
        let signal = super::super::Signal::Loss;
        CongestionEvent { signal, now: Instant::ZERO, nxt: SeqNumber(0), flight, mss: MSS }
    }

    #[test]
    fn s7_1_slow_start_doubles_then_one_mss_a_window() {
        let mut reno = Reno::new(MSS);
        let start = reno.cwnd();
        reno.on_ack(&ack(start, Phase::Open, true));
        assert_eq!(reno.cwnd(), 2 * start);
        reno.on_congestion(&event(20 * MSS));
        assert_eq!((reno.cwnd(), reno.ssthresh()), (10 * MSS, 10 * MSS));
        for _ in 0..10 {
            reno.on_ack(&ack(MSS, Phase::Open, true));
        }
        assert_eq!(reno.cwnd(), 11 * MSS);
    }

    /// RFC 5681 §3.1: "1 full-sized segment per RTT", also if half of one is left over by the halving.
    #[test]
    fn s7_1_a_window_with_half_a_segment_grows_in_a_round_trip() {
        let mut reno = Reno::new(MSS);
        reno.on_congestion(&event(13 * MSS));
        assert_eq!(reno.cwnd(), 13 * MSS / 2);
        for round_trip in 1..10 {
            // What such a window lets out.
            for _ in 0..reno.cwnd() / MSS {
                reno.on_ack(&ack(MSS, Phase::Open, true));
            }
            assert_eq!(reno.cwnd(), 13 * MSS / 2 + round_trip * MSS);
        }
    }

    #[test]
    fn s7_1_a_timeout_leaves_one_segment_and_halves_once() {
        let mut reno = Reno::new(MSS);
        reno.on_timeout(&event(20 * MSS), true);
        assert_eq!((reno.cwnd(), reno.ssthresh()), (MSS, 10 * MSS));
        reno.on_timeout(&event(MSS), false);
        assert_eq!((reno.cwnd(), reno.ssthresh()), (MSS, 10 * MSS));
        reno.on_ack(&ack(MSS, Phase::Loss, false));
        assert_eq!(reno.cwnd(), 2 * MSS);
    }

    #[test]
    fn s5_7_what_was_no_loss_is_undone() {
        let mut reno = Reno::new(MSS);
        let start = (reno.cwnd(), reno.ssthresh());
        reno.on_timeout(&event(10 * MSS), true);
        reno.on_undo(Instant::ZERO);
        assert_eq!((reno.cwnd(), reno.ssthresh()), start);
    }

    #[test]
    fn t23_split_acks_gain_nothing() {
        let (mut whole, mut split) = (Reno::new(MSS), Reno::new(MSS));
        whole.on_ack(&ack(MSS, Phase::Open, true));
        for _ in 0..MSS / 10 {
            split.on_ack(&ack(10, Phase::Open, true));
        }
        assert_eq!(whole.cwnd(), split.cwnd());
    }

    #[test]
    fn a_window_that_is_not_used_does_not_grow() {
        let mut reno = Reno::new(MSS);
        let start = reno.cwnd();
        reno.on_ack(&ack(MSS, Phase::Open, false));
        assert_eq!(reno.cwnd(), start);
    }
}
