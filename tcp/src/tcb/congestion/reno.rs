//! Reno (RFC 5681). S7.1

use super::{Congestion, initial_window};

/// Slow start, congestion avoidance, halving on loss.
#[derive(Clone, Copy, Debug)]
pub struct Reno {
    cwnd: u32,
    ssthresh: u32,
    /// Octets acknowledged since the window last grew, in congestion avoidance.
    acked: u32,
}

/// No window grows beyond what a scaled receive window can express (RFC 7323 §2.3).
const CWND_MAX: u32 = 1 << 30;

impl Reno {
    /// At connection start; ssthresh is arbitrarily high (RFC 5681 §3.1).
    pub fn new(mss: u32) -> Self {
        Self { cwnd: initial_window(mss), ssthresh: u32::MAX, acked: 0 }
    }

    /// RFC 5681 eq. 4.
    fn halved(flight: u32, mss: u32) -> u32 {
        (flight / 2).max(2 * mss)
    }
}

impl Congestion for Reno {
    fn cwnd(&self) -> u32 {
        self.cwnd
    }

    fn ssthresh(&self) -> u32 {
        self.ssthresh
    }

    fn on_ack(&mut self, acked: u32, mss: u32, limited: bool) {
        if !limited {
            return;
        }
        if self.cwnd < self.ssthresh {
            // RFC 5681 eq. 2 by octets acknowledged (RFC 3465), so that splitting an ACK gains nothing,
            // T23. Without its limit L, because one ACK answers a whole batch; ssthresh bounds the
            // step, as in Linux.
            self.cwnd = self.cwnd.saturating_add(acked).min(self.ssthresh).min(CWND_MAX);
        } else {
            // RFC 3465 §2.1: one MSS for each window acknowledged.
            self.acked = self.acked.saturating_add(acked);
            if self.acked >= self.cwnd {
                self.acked -= self.cwnd;
                self.cwnd = self.cwnd.saturating_add(mss).min(CWND_MAX);
            }
        }
    }

    fn on_loss(&mut self, flight: u32, mss: u32) {
        self.ssthresh = Self::halved(flight, mss);
        self.cwnd = self.ssthresh;
        self.acked = 0;
    }

    fn on_recovered(&mut self, _mss: u32) {
        self.cwnd = self.cwnd.min(self.ssthresh);
    }

    fn on_timeout(&mut self, flight: u32, mss: u32, first: bool) {
        // RFC 5681 §3.1: ssthresh stays when the same segment times out again.
        if first {
            self.ssthresh = Self::halved(flight, mss);
        }
        self.cwnd = mss;
        self.acked = 0;
    }

    fn on_idle(&mut self, mss: u32) {
        self.cwnd = self.cwnd.min(initial_window(mss));
        self.acked = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MSS: u32 = 1460;

    #[test]
    fn s7_2_initial_window_is_rfc_6928() {
        assert_eq!(initial_window(1460), 14_600);
        assert_eq!(initial_window(536), 5_360);
        assert_eq!(initial_window(9000), 18_000);
    }

    #[test]
    fn s7_1_slow_start_doubles_then_one_mss_a_window() {
        let mut reno = Reno::new(MSS);
        let start = reno.cwnd();
        reno.on_ack(start, MSS, true);
        assert_eq!(reno.cwnd(), 2 * start);
        reno.on_loss(20 * MSS, MSS);
        assert_eq!((reno.cwnd(), reno.ssthresh()), (10 * MSS, 10 * MSS));
        for _ in 0..10 {
            reno.on_ack(MSS, MSS, true);
        }
        assert_eq!(reno.cwnd(), 11 * MSS);
    }

    #[test]
    fn s7_1_a_timeout_leaves_one_segment_and_halves_once() {
        let mut reno = Reno::new(MSS);
        reno.on_timeout(20 * MSS, MSS, true);
        assert_eq!((reno.cwnd(), reno.ssthresh()), (MSS, 10 * MSS));
        reno.on_timeout(MSS, MSS, false);
        assert_eq!((reno.cwnd(), reno.ssthresh()), (MSS, 10 * MSS));
    }

    #[test]
    fn t23_split_acks_gain_nothing() {
        let (mut whole, mut split) = (Reno::new(MSS), Reno::new(MSS));
        whole.on_ack(MSS, MSS, true);
        for _ in 0..MSS / 10 {
            split.on_ack(10, MSS, true);
        }
        assert_eq!(whole.cwnd(), split.cwnd());
    }

    #[test]
    fn a_window_that_is_not_used_does_not_grow() {
        let mut reno = Reno::new(MSS);
        let start = reno.cwnd();
        reno.on_ack(MSS, MSS, false);
        assert_eq!(reno.cwnd(), start);
    }
}
