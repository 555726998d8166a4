//! The one place that reads clocks: [`Clock::now`] once per turn of the loop.

use byway_tcp::time::{Duration, Instant};

/// CLOCK_MONOTONIC, as the stack's [`Instant`]: the same origin on every core, so that times of
/// different cores can be compared, and never set back. Like the kernel's own timers it doesn't
/// run while the machine is suspended.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock;

impl Clock {
    /// Now.
    #[inline]
    pub fn now(self) -> Instant {
        let time = read(libc::CLOCK_MONOTONIC);
        Instant::from_nanos(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
    }

    /// The host's time of day, since 1970 (CLOCK_REALTIME): for people and protocols, not to be measured with. It may
    /// be set at any time; zero if it is set to before 1970.
    pub fn unix(self) -> Duration {
        let time = read(libc::CLOCK_REALTIME);
        Duration::from_secs(u64::try_from(time.tv_sec).unwrap_or(0))
            + Duration::from_nanos(time.tv_nsec as u64)
    }
}

#[inline]
fn read(clock: libc::clockid_t) -> libc::timespec {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a writable timespec; the call keeps no pointer to it.
    let result = unsafe { libc::clock_gettime(clock, &raw mut time) };
    assert_eq!(result, 0, "both clocks exist on every Linux");
    time
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_on_and_never_back() {
        let first = Clock.now();
        let mut last = first;
        while last == first {
            let now = Clock.now();
            assert!(now >= last);
            last = now;
        }
    }
}
