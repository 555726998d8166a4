//! Round-trip time and retransmission timeout (RFC 6298). S5.6

use crate::time::{Duration, Instant};

/// RFC 6298 §2.1: until a measurement is made, RTO is one second.
const RTO_INITIAL: Duration = Duration::from_secs(1);
/// RFC 6298 §2.4 says one second; Linux's 200 ms is what every peer lives with. As there it is the least that is
/// added to SRTT: a delayed ACK (40 ms on Linux, 200 ms on Windows) comes after a round trip, not instead of it.
pub const RTO_MIN: Duration = Duration::from_millis(200);
/// RFC 6298 §2.5: an upper bound must be at least 60 seconds.
pub const RTO_MAX: Duration = Duration::from_secs(60);
/// The minimum is that of the last one to two of these: long enough to have seen the path without a queue, short
/// enough to notice a new path (RFC 8985 §6.2 step 1; Linux's tcp_min_rtt_wlen is five minutes).
const MIN_RTT_WINDOW: Duration = Duration::from_secs(150);

/// Smoothed RTT, its variation, and the timeout they give.
#[derive(Clone, Copy, Debug)]
pub struct RttEstimator {
    /// SRTT in µs; meaningful once `measured`.
    srtt_us: u32,
    /// RTTVAR in µs.
    rttvar_us: u32,
    /// RTO before back-off, in µs.
    rto_us: u32,
    /// How often it has been doubled since the last fresh acknowledgement.
    backoff: u8,
    measured: bool,
    /// Smallest measurement in µs of this window and of the one before.
    min_us: [u32; 2],
    min_since: Instant,
}

impl Default for RttEstimator {
    fn default() -> Self {
        Self {
            srtt_us: 0,
            rttvar_us: 0,
            rto_us: RTO_INITIAL.as_micros() as u32,
            backoff: 0,
            measured: false,
            min_us: [u32::MAX; 2],
            min_since: Instant::ZERO,
        }
    }
}

impl RttEstimator {
    /// A measurement from a segment that was sent once (Karn's rule is the caller's). Ends back-off.
    pub fn sample(&mut self, rtt: Duration, now: Instant) {
        let r = u32::try_from(rtt.as_micros()).unwrap_or(u32::MAX).clamp(1, RTO_MAX.as_micros() as u32);
        if now.since(self.min_since) >= MIN_RTT_WINDOW {
            self.min_us = [u32::MAX, self.min_us[0]];
            self.min_since = now;
        }
        self.min_us[0] = self.min_us[0].min(r);
        if self.measured {
            // RFC 6298 §2.3 with alpha = 1/8, beta = 1/4, RTTVAR first.
            self.rttvar_us = self.rttvar_us - self.rttvar_us / 4 + self.srtt_us.abs_diff(r) / 4;
            self.srtt_us = self.srtt_us - self.srtt_us / 8 + r / 8;
        } else {
            // RFC 6298 §2.2
            self.srtt_us = r;
            self.rttvar_us = r / 2;
            self.measured = true;
        }
        let spread = (4 * self.rttvar_us).max(RTO_MIN.as_micros() as u32);
        self.rto_us = (self.srtt_us + spread).min(RTO_MAX.as_micros() as u32);
        self.backoff = 0;
    }

    /// The timeout expired: doubles it (RFC 6298 §5.5, RFC 9293 §3.8.2, MUST-19).
    pub fn back_off(&mut self) {
        self.backoff = self.backoff.saturating_add(1);
    }

    /// RFC 6298 §5.7: the SYN timed out, so data starts with three seconds.
    pub fn after_syn_timeout(&mut self) {
        self.backoff = 0;
        if !self.measured {
            self.rto_us = 3_000_000;
        }
    }

    /// The timeout to arm, back-off included, at most [`RTO_MAX`].
    pub fn rto(&self) -> Duration {
        let doubled = u64::from(self.rto_us) << self.backoff.min(16);
        Duration::from_micros(doubled).min(RTO_MAX)
    }

    /// How often the timeout has been doubled since the last progress.
    pub fn backoff(&self) -> u8 {
        self.backoff
    }

    /// Smallest RTT of the last minutes, once measured.
    pub fn min_rtt(&self) -> Option<Duration> {
        self.measured.then(|| Duration::from_micros(u64::from(self.min_us[0].min(self.min_us[1]))))
    }

    /// RTTVAR: zero before the first measurement.
    pub fn variation(&self) -> Duration {
        Duration::from_micros(u64::from(self.rttvar_us))
    }

    /// Smoothed RTT, once measured.
    pub fn srtt(&self) -> Option<Duration> {
        self.measured.then(|| Duration::from_micros(u64::from(self.srtt_us)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s5_6_first_and_second_sample_follow_rfc_6298() {
        let mut rtt = RttEstimator::default();
        assert_eq!(rtt.rto(), Duration::from_secs(1));
        rtt.sample(Duration::from_millis(400), Instant::ZERO);
        // RTO = R + 4 * R/2
        assert_eq!(rtt.rto(), Duration::from_millis(1200));
        rtt.sample(Duration::from_millis(800), Instant::ZERO);
        // RTTVAR = 3/4*200 + 1/4*400 = 250; SRTT = 7/8*400 + 1/8*800 = 450
        assert_eq!(rtt.rto(), Duration::from_millis(450 + 1000));
    }

    #[test]
    fn s5_6_back_off_doubles_up_to_the_maximum_and_ends_with_a_sample() {
        let mut rtt = RttEstimator::default();
        for expected in [2, 4, 8, 16, 32, 60, 60] {
            rtt.back_off();
            assert_eq!(rtt.rto(), Duration::from_secs(expected));
        }
        rtt.sample(Duration::from_micros(50), Instant::ZERO);
        assert_eq!(rtt.rto(), RTO_MIN + Duration::from_micros(50));
        for _ in 0..300 {
            rtt.back_off();
        }
        assert_eq!(rtt.rto(), RTO_MAX);
    }

    #[test]
    fn s5_7_the_minimum_is_that_of_the_last_minutes() {
        let mut rtt = RttEstimator::default();
        assert_eq!(rtt.min_rtt(), None);
        let millis = |seconds: u64| Duration::from_millis(if seconds < 100 { 10 } else { 30 });
        for seconds in 0..=300 {
            rtt.sample(millis(seconds), Instant::from_millis(1000 * seconds));
            let expected = if seconds < 300 { 10 } else { 30 };
            assert_eq!(rtt.min_rtt(), Some(Duration::from_millis(expected)), "{seconds}");
        }
    }
}
