//! The one place that reads a clock, once per turn of the loop.

use byway_tcp::time::Instant;

/// CLOCK_MONOTONIC, as the stack's [`Instant`]: the same origin on every core, so that times of
/// different cores can be compared, and never set back. Like the kernel's own timers it doesn't
/// run while the machine is suspended.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock;

impl Clock {
    /// Now.
    #[inline]
    pub fn now(self) -> Instant {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: `time` is a writable timespec; the call keeps no pointer to it.
        let result = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
        assert_eq!(result, 0, "CLOCK_MONOTONIC exists on every Linux");
        Instant::from_nanos(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
    }
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
