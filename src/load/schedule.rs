//! When requests are intended to go: at a constant rate over all connections of all cores.

use byway_tcp::time::{Duration, Instant};

/// One core's share: of every `cores` requests in a row the one at its `place`.
///
/// Times are computed from the request's number, never added up, so that no rounding accumulates.
#[derive(Clone, Copy, Debug)]
pub(super) struct Schedule {
    start: Instant,
    /// All cores' requests a second.
    rate: u64,
    cores: u64,
    place: u64,
    /// Of this core's own requests, the next one's number and time.
    next: u64,
    due: Instant,
}

impl Schedule {
    pub(super) fn new(start: Instant, rate: u64, cores: u64, place: u64) -> Self {
        assert!(rate > 0 && place < cores, "a share of something");
        let mut schedule = Self { start, rate, cores, place, next: 0, due: start };
        schedule.due = schedule.time_of(0);
        schedule
    }

    /// When the next request is intended to go.
    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// Takes the next request: when it was intended to go.
    pub(super) fn take(&mut self) -> Instant {
        let due = self.due;
        self.next += 1;
        self.due = self.time_of(self.next);
        due
    }

    /// Passes over the requests that were intended to go before `time`: how many.
    pub(super) fn skip_until(&mut self, time: Instant) -> u64 {
        if self.due >= time {
            return 0;
        }
        // The first number whose time isn't before: time_of(n) ≥ time.
        let nanos = time.since(self.start).as_nanos();
        let all = (u128::from(nanos) * u128::from(self.rate)).div_ceil(1_000_000_000) as u64;
        let first = all.saturating_sub(self.place).div_ceil(self.cores).saturating_sub(1).max(self.next);
        let before = self.next;
        self.next = first;
        self.due = self.time_of(first);
        while self.due < time {
            self.take();
        }
        self.next - before
    }

    fn time_of(&self, number: u64) -> Instant {
        let all = u128::from(number) * u128::from(self.cores) + u128::from(self.place);
        let nanos = all * 1_000_000_000 / u128::from(self.rate);
        self.start + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const START: Instant = Instant::from_millis(7);

    #[test]
    fn a_rate_is_kept_for_ever_without_drift() {
        let mut schedule = Schedule::new(START, 3, 1, 0);
        let times: Vec<u64> = (0..4).map(|_| schedule.take().since(START).as_nanos()).collect();
        assert_eq!(times, [0, 333_333_333, 666_666_666, 1_000_000_000]);
        let mut schedule = Schedule::new(START, 700_001, 1, 0);
        let passed = schedule.skip_until(START + Duration::from_secs(1000));
        assert_eq!(passed, 700_001_000);
        assert_eq!(schedule.due(), START + Duration::from_secs(1000));
    }

    #[test]
    fn cores_share_a_rate_evenly_and_take_turns() {
        let mut shares: Vec<_> = (0..4).map(|place| Schedule::new(START, 1000, 4, place)).collect();
        let mut all = Vec::new();
        for _ in 0..10 {
            all.extend(shares.iter_mut().map(Schedule::take));
        }
        let expected: Vec<_> = (0..40).map(|millis| START + Duration::from_millis(millis)).collect();
        assert_eq!(all, expected);
    }

    proptest! {
        #[test]
        fn skipping_is_taking_one_by_one(
            rate in 1u64..5_000_000, cores in 1u64..5, place in 0u64..5, taken in 0u64..20, micros in 0u64..20_000,
        ) {
            let place = place % cores;
            let mut skips = Schedule::new(START, rate, cores, place);
            for _ in 0..taken {
                skips.take();
            }
            let mut takes = skips;
            let until = START + Duration::from_micros(micros);
            let mut count = 0;
            while takes.due() < until {
                takes.take();
                count += 1;
            }
            prop_assert_eq!(skips.skip_until(until), count);
            prop_assert_eq!(skips.due(), takes.due());
            prop_assert_eq!(skips.next, takes.next);
        }
    }
}
