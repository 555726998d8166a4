//! What became of the requests: counted on each core, put together at the end.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use byway_tcp::time::Duration;
use hdrhistogram::Histogram;

/// Significant digits of the latencies: 0.1 %, as wrk2 and HdrHistogram's own examples have it; 220 KiB a core.
const DIGITS: u8 = 3;

/// How a request, or a connection, failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Failed {
    /// The server's host refused the connection.
    Refused,
    /// The server reset the connection.
    Reset,
    /// The server closed the connection before its answer was complete.
    Closed,
    /// No answer, or no connection, within the limit.
    TimedOut,
    /// Something on the way says that the server can't be reached.
    Unreachable,
    /// What came isn't an answer.
    Protocol,
    /// The answer is an error: 4xx, 5xx.
    Status,
    /// No connection could even be tried: no port is free.
    NoPort,
}

impl Failed {
    /// All, in the order in which they are reported.
    pub const ALL: [Self; 8] = [
        Self::Refused,
        Self::Reset,
        Self::Closed,
        Self::TimedOut,
        Self::Unreachable,
        Self::Protocol,
        Self::Status,
        Self::NoPort,
    ];

    /// What it is called in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Reset => "reset",
            Self::Closed => "closed",
            Self::TimedOut => "timeout",
            Self::Unreachable => "unreachable",
            Self::Protocol => "protocol",
            Self::Status => "status",
            Self::NoPort => "no_port",
        }
    }
}

/// What one core measured, or all of them.
#[derive(Clone, Debug)]
pub struct Report {
    /// From intention to the answer's last octet, ns.
    pub latency: Histogram<u64>,
    /// Requests answered.
    pub requests: u64,
    /// By [`Failed`], in the order of [`Failed::ALL`].
    pub failures: [u64; Failed::ALL.len()],
    /// Payload octets received.
    pub bytes_received: u64,
    /// Payload octets given to the stack to send.
    pub bytes_sent: u64,
    /// Connections that opened, those before the measurement included.
    pub opened: u64,
    /// How long was measured.
    pub elapsed: Duration,
    /// The first thing that was wrong with an answer.
    pub example: Option<&'static str>,
    /// The first status that was an error.
    pub status: Option<u16>,
}

impl Report {
    /// Nothing so far; latencies up to `longest` are told apart.
    ///
    /// # Panics
    /// If `longest` is shorter than 2 ns.
    pub fn new(longest: Duration) -> Self {
        let most = longest.as_nanos().min(u64::MAX / 2);
        Self {
            latency: Histogram::new_with_bounds(1, most, DIGITS).expect("bounds that fit each other"),
            requests: 0,
            failures: [0; Failed::ALL.len()],
            bytes_received: 0,
            bytes_sent: 0,
            opened: 0,
            elapsed: Duration::ZERO,
            example: None,
            status: None,
        }
    }

    pub(super) fn answered(&mut self, latency: Duration) {
        self.requests += 1;
        self.latency.saturating_record(latency.as_nanos());
    }

    pub(super) fn failed(&mut self, how: Failed, count: u64) {
        self.failures[how as usize] += count;
    }

    /// All failures.
    pub fn errors(&self) -> u64 {
        self.failures.iter().sum()
    }

    /// Failures of one kind.
    pub fn count(&self, how: Failed) -> u64 {
        self.failures[how as usize]
    }

    /// Adds another core's.
    ///
    /// # Panics
    /// If the two were made with different bounds.
    pub fn merge(&mut self, other: &Self) {
        self.latency.add(&other.latency).expect("the same bounds");
        self.requests += other.requests;
        for (ours, theirs) in self.failures.iter_mut().zip(other.failures) {
            *ours += theirs;
        }
        self.bytes_received += other.bytes_received;
        self.bytes_sent += other.bytes_sent;
        self.opened += other.opened;
        self.elapsed = self.elapsed.max(other.elapsed);
        self.example = self.example.or(other.example);
        self.status = self.status.or(other.status);
    }

    /// `count` a second of what was measured.
    pub fn per_second(&self, count: u64) -> f64 {
        if self.elapsed.is_zero() { 0.0 } else { count as f64 / self.elapsed.as_secs_f64() }
    }
}

/// How far a core is, for whoever looks on; stored once a turn, never waited for.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct Progress {
    /// Requests answered.
    pub requests: AtomicU64,
    /// Failures.
    pub errors: AtomicU64,
    /// Connections that are open.
    pub open: AtomicU64,
    /// The connections have been tried, and what is said counts.
    pub measuring: AtomicBool,
    /// There is nothing more to do.
    pub done: AtomicBool,
    /// Set from outside: end now.
    pub stop: AtomicBool,
}

impl Progress {
    pub(super) fn tell(&self, report: &Report, open: u32) {
        self.requests.store(report.requests, Ordering::Relaxed);
        self.errors.store(report.errors(), Ordering::Relaxed);
        self.open.store(open.into(), Ordering::Relaxed);
    }
}

/// A number with a comma at each thousand.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_reports_add_up_and_the_longest_time_counts() {
        let mut all = Report::new(Duration::from_secs(60));
        for core in 1..=2u64 {
            let mut one = Report::new(Duration::from_secs(60));
            one.answered(Duration::from_micros(core * 100));
            one.failed(Failed::Reset, core);
            one.bytes_received = 10;
            one.elapsed = Duration::from_secs(core);
            all.merge(&one);
        }
        assert_eq!((all.requests, all.errors(), all.count(Failed::Reset)), (2, 3, 3));
        assert_eq!(all.per_second(all.requests), 1.0);
        assert_eq!(all.latency.len(), 2);
        assert_eq!(Report::new(Duration::from_secs(1)).per_second(5), 0.0);
    }

    #[test]
    fn failures_are_counted_where_their_names_stand() {
        for (place, how) in Failed::ALL.into_iter().enumerate() {
            assert_eq!(how as usize, place);
        }
    }

    #[test]
    fn what_takes_longer_than_the_bounds_is_still_counted() {
        let mut report = Report::new(Duration::from_secs(1));
        report.answered(Duration::from_secs(100));
        assert_eq!(report.latency.len(), 1);
        assert!(report.latency.max() >= 1_000_000_000);
    }
}
