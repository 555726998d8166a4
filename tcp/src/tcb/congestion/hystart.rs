//! HyStart++ (RFC 9406): slow start ends when the round-trip time begins to rise, before the queue overflows. S7.2
//!
//! ```text
//!               RTT rises by an eighth                five rounds
//!   slow start ───────────────────────→ conservative ────────────→ congestion avoidance
//!       ↑                                   │ a quarter of the growth
//!       └────── it was only jitter ─────────┘
//! ```
//!
//! Only for a connection's first slow start: later ones know where to stop (§4.2).

use super::AckSample;
use crate::seq::SeqNumber;

/// RFC 9406 §4.3, all of them as recommended: a rise counts from 4 ms, which a receiver's delay of ACKs rarely
/// reaches within a round's minimum, and always from 16 ms; between them from an eighth of the round trip.
const RTT_THRESH_MIN_US: u32 = 4_000;
const RTT_THRESH_MAX_US: u32 = 16_000;
const RTT_DIVISOR: u32 = 8;
/// Samples without which a round's minimum says nothing.
const RTT_SAMPLES: u8 = 8;
const CSS_GROWTH_DIVISOR: u32 = 4;
const CSS_ROUNDS: u8 = 5;
// There is no limit L on what one ACK adds: §4.2 drops it for paced senders, and where pacing is off, on paths
// of less than 2 ms, a burst is a fraction of what the network holds anyway.

/// No sample yet.
const INFINITE: u32 = u32::MAX;

/// What an ACK means for slow start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// The window may grow by so many octets.
    Grow(u32),
    /// Slow start is over: ssthresh is the window.
    Exit,
}

/// A first slow start's watch on the round-trip time; times in µs.
#[derive(Clone, Copy, Debug)]
pub(super) struct HyStart {
    /// windowEnd: the round ends when this is acknowledged; `None` before the first ACK.
    round_end: Option<SeqNumber>,
    last_round_min: u32,
    round_min: u32,
    samples: u8,
    /// Rounds of conservative slow start begun; 0: it's the standard one.
    css_rounds: u8,
    /// cssBaselineMinRtt: below it, the rise was jitter.
    css_baseline: u32,
}

impl HyStart {
    pub(super) fn new() -> Self {
        Self {
            round_end: None,
            last_round_min: INFINITE,
            round_min: INFINITE,
            samples: 0,
            css_rounds: 0,
            css_baseline: INFINITE,
        }
    }

    /// Whether the window grows at a quarter of the pace.
    pub(super) fn conservative(&self) -> bool {
        self.css_rounds > 0
    }

    /// An ACK in slow start (RFC 9406 §4.2).
    pub(super) fn on_ack(&mut self, ack: &AckSample) -> Step {
        let growth = if self.conservative() { ack.acked / CSS_GROWTH_DIVISOR } else { ack.acked };
        if let Some(rtt) = ack.rtt {
            let rtt = u32::try_from(rtt.as_micros()).unwrap_or(INFINITE);
            self.round_min = self.round_min.min(rtt);
            self.samples = self.samples.saturating_add(1);
            if self.samples >= RTT_SAMPLES {
                self.judge();
            }
        }
        let round_end = *self.round_end.get_or_insert(ack.nxt);
        if round_end.leq(ack.una) && self.next_round(ack.nxt) {
            return Step::Exit;
        }
        Step::Grow(growth)
    }

    fn judge(&mut self) {
        if self.conservative() {
            if self.round_min < self.css_baseline {
                // It was jitter: standard slow start resumes.
                self.css_baseline = INFINITE;
                self.css_rounds = 0;
            }
        } else if self.last_round_min != INFINITE {
            let thresh = (self.last_round_min / RTT_DIVISOR).clamp(RTT_THRESH_MIN_US, RTT_THRESH_MAX_US);
            if self.round_min >= self.last_round_min.saturating_add(thresh) {
                self.css_baseline = self.round_min;
                // The rest of this round counts as the first.
                self.css_rounds = 1;
            }
        }
    }

    /// True: conservative slow start has had its rounds.
    fn next_round(&mut self, nxt: SeqNumber) -> bool {
        self.round_end = Some(nxt);
        self.last_round_min = self.round_min;
        self.round_min = INFINITE;
        self.samples = 0;
        if self.conservative() {
            self.css_rounds += 1;
        }
        self.css_rounds > CSS_ROUNDS
    }
}

#[cfg(test)]
mod tests {
    use super::super::Phase;
    use super::*;
    use crate::time::{Duration, Instant};

    /// A round of `acks` ACKs for one octet each, `rtt` giving each one's round-trip time in µs.
    fn round(hystart: &mut HyStart, acks: u32, una: &mut u32, rtt: impl Fn(u32) -> u64) -> Vec<Step> {
        let end = *una + acks;
        (0..acks)
            .map(|i| {
                *una += 1;
                hystart.on_ack(&AckSample {
                    now: Instant::ZERO,
                    una: SeqNumber(*una),
                    // Everything up to the round's end is out, and as much again when it ends.
                    nxt: SeqNumber(if *una == end { end + acks } else { end }),
                    mss: 1460,
                    acked: 1460,
                    delivered: 1460,
                    lost: 0,
                    in_flight_before: 0,
                    in_flight: 0,
                    limited: true,
                    rtt: Some(Duration::from_micros(rtt(i))),
                    srtt: None,
                    rate: None,
                    phase: Phase::Open,
                })
            })
            .collect()
    }

    #[test]
    fn s7_2_a_rising_round_trip_time_ends_slow_start_after_five_slow_rounds() {
        let (mut hystart, mut una) = (HyStart::new(), 0);
        round(&mut hystart, 20, &mut una, |_| 40_000);
        round(&mut hystart, 20, &mut una, |_| 44_900);
        assert!(!hystart.conservative(), "less than an eighth");
        round(&mut hystart, 20, &mut una, |_| 51_000);
        assert!(hystart.conservative());
        // The round that noticed was the first.
        for _ in 1..CSS_ROUNDS - 1 {
            let steps = round(&mut hystart, 20, &mut una, |_| 52_000);
            assert!(steps.iter().all(|step| *step == Step::Grow(1460 / 4)));
        }
        let steps = round(&mut hystart, 20, &mut una, |_| 52_000);
        assert_eq!(steps[19], Step::Exit);
        assert_eq!(steps[18], Step::Grow(365));
    }

    #[test]
    fn s7_2_jitter_does_not_end_slow_start() {
        let (mut hystart, mut una) = (HyStart::new(), 0);
        for _ in 0..20 {
            // Each round's fastest is the path's.
            let steps = round(&mut hystart, 20, &mut una, |i| 40_000 + u64::from(i * 7 % 20) * 2_000);
            assert!(steps.iter().all(|step| *step == Step::Grow(1460)));
        }
    }

    #[test]
    fn s7_2_slow_start_resumes_when_the_rise_was_jitter() {
        let (mut hystart, mut una) = (HyStart::new(), 0);
        round(&mut hystart, 20, &mut una, |_| 40_000);
        round(&mut hystart, 20, &mut una, |_| 60_000);
        assert!(hystart.conservative());
        round(&mut hystart, 20, &mut una, |_| 41_000);
        assert!(!hystart.conservative());
        assert_eq!(round(&mut hystart, 1, &mut una, |_| 41_000), [Step::Grow(1460)]);
    }

    #[test]
    fn s7_2_few_samples_decide_nothing() {
        let (mut hystart, mut una) = (HyStart::new(), 0);
        for rtt in [10_000, 30_000, 90_000, 270_000] {
            round(&mut hystart, 7, &mut una, |_| rtt);
            assert!(!hystart.conservative());
        }
    }

    #[test]
    fn s7_2_on_short_paths_a_rise_counts_from_four_milliseconds() {
        for (rtt, css) in [(4_800, false), (5_000, true)] {
            let (mut hystart, mut una) = (HyStart::new(), 0);
            round(&mut hystart, 10, &mut una, |_| 1_000);
            round(&mut hystart, 10, &mut una, |_| rtt);
            assert_eq!(hystart.conservative(), css);
        }
    }
}
