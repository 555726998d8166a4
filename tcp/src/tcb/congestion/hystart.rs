//! HyStart++ (RFC 9406): slow start ends when the round-trip time begins to rise, before the queue overflows. S7.2
//!
//! ```text
//!               RTT rises by an eighth, or
//!               ACKs come for three quarters of it      five rounds
//!   slow start ─────────────────────────→ conservative ────────────→ congestion avoidance
//!       ↑                                     │ a quarter of the growth
//!       └──────── it was only jitter ─────────┘
//! ```
//!
//! Only for a connection's first slow start: later ones know where to stop (§4.2).
//!
//! A round's minimum alone says it a round too late when the window is paced: it leaves in half a round trip, the
//! queue it builds is gone when the next round begins, and by then the window has passed twice what the path holds.
//! So the length of a round's ACK train counts as well, as in the first HyStart (Ha and Rhee, 2011): ACKs that
//! come without a pause for most of a round trip mean that the path is full for most of it.

use super::AckSample;
use crate::seq::SeqNumber;
use crate::tcb::rate::stamp;
use crate::time::Instant;

/// RFC 9406 §4.3, all of them as recommended: a rise counts from 4 ms, which a receiver's delay of ACKs rarely
/// reaches within a round's minimum, and always from 16 ms; between them from an eighth of the round trip.
const RTT_THRESH_MIN_US: u32 = 4_000;
const RTT_THRESH_MAX_US: u32 = 16_000;
const RTT_DIVISOR: u32 = 8;
/// Samples without which a round's minimum says nothing.
const RTT_SAMPLES: u8 = 8;
const CSS_GROWTH_DIVISOR: u32 = 4;
const CSS_ROUNDS: u8 = 5;
/// ACKs with longer pauses between them are no train: as Linux's `hystart_ack_delta_us`, or an eighth of a round trip
/// where that is longer, so that ACKs that a network card or a radio link hands over in bunches still make one.
const TRAIN_GAP_US: u32 = 2_000;
/// A train so long, of a round trip without queue, fills the path. A paced window alone makes half of one; at three
/// quarters half a window's growth of what the path and a queue as long hold is left.
const TRAIN_PERCENT: u32 = 75;
/// A train is seen in the round whose ACKs release too much; that stands in the queue a round later, and shows in
/// the ACKs of the round after: only then was there no queue if the round-trip time hasn't risen.
const TRAIN_SHOWS: u8 = 3;
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
    /// The round of conservative slow start from which on the baseline counts.
    css_judged: u8,
    /// The shortest round trip so far.
    path_min: u32,
    /// Both as [`stamp`] has them.
    train_began: u32,
    last_ack: u32,
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
            css_judged: 0,
            path_min: INFINITE,
            train_began: 0,
            last_ack: 0,
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
            self.path_min = self.path_min.min(rtt);
            self.samples = self.samples.saturating_add(1);
            if self.samples >= RTT_SAMPLES {
                self.judge();
            }
        }
        if !self.conservative() && self.train(ack.now) {
            self.css_rounds = 1;
            self.css_judged = TRAIN_SHOWS;
            self.css_baseline = self.path_min.saturating_add(rise(self.path_min));
        }
        let round_end = *self.round_end.get_or_insert(ack.nxt);
        if round_end.leq(ack.una) {
            self.train_began = stamp(ack.now);
            if self.next_round(ack.nxt) {
                return Step::Exit;
            }
        }
        Step::Grow(growth)
    }

    /// Whether the round's ACKs have come without a pause for long enough.
    fn train(&mut self, now: Instant) -> bool {
        if self.path_min == INFINITE {
            return false;
        }
        let gap = (self.path_min / RTT_DIVISOR).max(TRAIN_GAP_US);
        let now = stamp(now);
        if now.wrapping_sub(self.last_ack) > gap {
            self.train_began = now;
        }
        self.last_ack = now;
        let enough = (self.path_min / 100 * TRAIN_PERCENT).max(RTT_THRESH_MIN_US);
        now.wrapping_sub(self.train_began) >= enough
    }

    fn judge(&mut self) {
        if self.conservative() {
            if self.round_min < self.css_baseline && self.css_rounds >= self.css_judged {
                // It was jitter: standard slow start resumes.
                self.css_baseline = INFINITE;
                self.css_rounds = 0;
            }
        } else if self.last_round_min != INFINITE
            && self.round_min >= self.last_round_min.saturating_add(rise(self.last_round_min))
        {
            self.css_baseline = self.round_min;
            self.css_judged = 0;
            // The rest of this round counts as the first.
            self.css_rounds = 1;
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

/// RttThresh (RFC 9406 §4.2), µs.
fn rise(rtt: u32) -> u32 {
    (rtt / RTT_DIVISOR).clamp(RTT_THRESH_MIN_US, RTT_THRESH_MAX_US)
}

#[cfg(test)]
mod tests {
    use super::super::Phase;
    use super::*;
    use crate::time::Duration;

    /// A round of `acks` ACKs for one octet each, `rtt` giving each one's round-trip time in µs. All at once, so that
    /// they make no train.
    fn round(hystart: &mut HyStart, acks: u32, una: &mut u32, rtt: impl Fn(u32) -> u64) -> Vec<Step> {
        timed_round(hystart, acks, una, rtt, |_| Instant::ZERO)
    }

    fn timed_round(
        hystart: &mut HyStart,
        acks: u32,
        una: &mut u32,
        rtt: impl Fn(u32) -> u64,
        at: impl Fn(u32) -> Instant,
    ) -> Vec<Step> {
        let end = *una + acks;
        (0..acks)
            .map(|i| {
                *una += 1;
                hystart.on_ack(&AckSample {
                    now: at(i),
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

    /// A round of 100 ACKs, one each `spacing` µs, 40 ms after the one before.
    fn train(hystart: &mut HyStart, number: u64, spacing: u64, una: &mut u32, rtt: u64) -> Vec<Step> {
        let at =
            |i| Instant::from_millis(1_000 + 40 * number) + Duration::from_micros(spacing * u64::from(i));
        timed_round(hystart, 100, una, |_| rtt, at)
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

    #[test]
    fn s7_2_acks_for_most_of_a_round_trip_slow_the_growth_before_its_minimum_rises() {
        let (mut hystart, mut una) = (HyStart::new(), 0);
        // A paced window makes a train of half a round trip.
        train(&mut hystart, 0, 200, &mut una, 40_000);
        assert!(!hystart.conservative());
        let steps = train(&mut hystart, 1, 390, &mut una, 40_000);
        // At three quarters of 40 ms.
        assert_eq!((steps[77], steps[78]), (Step::Grow(1460), Step::Grow(365)));
        // What is too much stands in the queue a round later.
        train(&mut hystart, 2, 390, &mut una, 40_000);
        let mut last = Step::Grow(0);
        for number in 3..6 {
            assert_ne!(last, Step::Exit);
            last = train(&mut hystart, number, 390, &mut una, 50_000)[99];
        }
        assert_eq!(last, Step::Exit);
    }

    #[test]
    fn s7_2_a_train_without_a_queue_was_none() {
        let (mut hystart, mut una) = (HyStart::new(), 0);
        train(&mut hystart, 0, 390, &mut una, 40_000);
        train(&mut hystart, 1, 200, &mut una, 40_000);
        assert!(hystart.conservative());
        train(&mut hystart, 2, 200, &mut una, 40_000);
        assert!(!hystart.conservative());
    }
}
