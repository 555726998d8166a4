//! What is said of a run: a line a second, a table at the end, a JSON object.

use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::load::{Failed, Pace, Progress, Report, grouped};
use byway_tcp::time::Instant;
use serde_json::{Map, Value, json};

use super::super::running::{Facts, joined};
use super::Options;

/// The percentiles that are reported.
const PERCENTILES: [(&str, &str, f64); 4] =
    [("p50", "p50", 0.5), ("p90", "p90", 0.9), ("p99", "p99", 0.99), ("p999", "p99.9", 0.999)];

/// A run that is over.
pub(super) struct Outcome<'a> {
    pub(super) options: &'a Options,
    pub(super) remote: SocketAddr,
    pub(super) report: &'a Report,
    pub(super) facts: &'a Facts,
    pub(super) interrupted: bool,
}

impl Outcome<'_> {
    /// A line that says what was done.
    pub(super) fn title(&self) -> String {
        let options = self.options;
        let pace = match options.rate.0 {
            Pace::Max => "closed loop".to_owned(),
            Pace::Rate(rate) => format!("{} requests/s", grouped(rate)),
        };
        let fresh = if options.new_connection_per_request { ", a new connection per request" } else { "" };
        let count = grouped(options.connections.into());
        let plural = if options.connections == 1 { "" } else { "s" };
        format!("{}: {count} connection{plural}, {pace}{fresh}", options.url)
    }

    /// The table, on standard output. That nobody reads it is no reason to fail.
    pub(super) fn print(&self) {
        let Self { report, facts, .. } = self;
        let mut text = format!("{}\n", self.title());
        let early = if self.interrupted { ", interrupted" } else { "" };
        text += &format!(
            "  {:.2} s{early}; {} ({}), {} XDP, {} mode, {} {}\n\n",
            report.elapsed.as_secs_f64(),
            facts.interface,
            facts.driver,
            facts.attach,
            facts.mode,
            if facts.cores.len() == 1 { "core" } else { "cores" },
            joined(&facts.cores),
        );
        let rate = |count| grouped(report.per_second(count).round() as u64);
        let mut row = |name: &str, count: u64, more: String| {
            text += &format!("  {name:<10} {:>15}   {more}\n", grouped(count));
        };
        row("requests", report.requests, format!("{}/s", rate(report.requests)));
        row("errors", report.errors(), self.kinds());
        row("opened", report.opened, "connections".to_owned());
        row("received", report.bytes_received, format!("octets, {}/s", rate(report.bytes_received)));
        row("sent", report.bytes_sent, format!("octets, {}/s", rate(report.bytes_sent)));
        if report.requests > 0 {
            text += "\n  latency   ";
            for (_, name, _) in PERCENTILES {
                text += &format!(" {name:>10}");
            }
            text += &format!(" {:>10}\n            ", "max");
            for (.., share) in PERCENTILES {
                text += &format!(" {:>10}", short(report.latency.value_at_quantile(share)));
            }
            text += &format!(" {:>10}\n", short(report.latency.max()));
        }
        let mut out = std::io::stdout().lock();
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }

    /// The errors by kind, with an example.
    fn kinds(&self) -> String {
        let report = self.report;
        let kind = |how: Failed| match report.count(how) {
            0 => None,
            count => Some(format!("{} {}", grouped(count), how.name())),
        };
        let mut text = Failed::ALL.into_iter().filter_map(kind).collect::<Vec<_>>().join(", ");
        let status = report.status.map(|status| format!("status {status}"));
        let examples: Vec<_> = report.example.map(str::to_owned).into_iter().chain(status).collect();
        if !examples.is_empty() {
            text += &format!(" (the first: {})", examples.join("; "));
        }
        text
    }

    /// The object that deploy/load.schema.json describes.
    pub(super) fn json(&self) -> String {
        let Self { options, report, facts, .. } = self;
        let mut latency: Map<String, Value> = PERCENTILES
            .iter()
            .map(|&(key, _, share)| (key.to_owned(), report.latency.value_at_quantile(share).into()))
            .collect();
        latency.insert("max".into(), report.latency.max().into());
        let by_kind: Map<String, Value> =
            Failed::ALL.into_iter().map(|how| (how.name().to_owned(), report.count(how).into())).collect();
        let rate = match options.rate.0 {
            Pace::Max => json!("max"),
            Pace::Rate(rate) => json!(rate),
        };
        let object = json!({
            "url": options.url.to_string(),
            "remote": self.remote.to_string(),
            "rate": rate,
            "connections": options.connections,
            "new_connection_per_request": options.new_connection_per_request,
            "payload": options.payload(),
            "duration_seconds": report.elapsed.as_secs_f64(),
            "interrupted": self.interrupted,
            "requests": report.requests,
            "requests_per_second": report.per_second(report.requests),
            "bytes_per_second": report.per_second(report.bytes_received),
            "bytes_received": report.bytes_received,
            "bytes_sent": report.bytes_sent,
            "connections_opened": report.opened,
            "errors": report.errors(),
            "errors_by_kind": by_kind,
            "latency_ns": latency,
            "environment": {
                "kernel": kernel(),
                "interface": facts.interface,
                "driver": facts.driver,
                "attach": facts.attach,
                "copy_mode": facts.mode,
                "busy_poll": facts.busy_poll,
                "queues": facts.queues,
                "cores": facts.cores,
                "checksums": facts.checksums,
                "mtu": facts.mtu,
                "congestion": options.nic.congestion.name(),
                "version": env!("CARGO_PKG_VERSION"),
                "commit": env!("BYWAY_COMMIT"),
            },
        });
        format!("{object:#}\n")
    }
}

/// The kernel's release.
fn kernel() -> String {
    let read = std::fs::read_to_string("/proc/sys/kernel/osrelease");
    read.map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned())
}

/// A line a second on how it goes.
pub(super) struct Ticker {
    shown: bool,
    next: Instant,
    began: Instant,
    before: u64,
}

/// As often as a person looks.
const EVERY: Duration = Duration::from_secs(1);

impl Ticker {
    /// Says something only if it is `shown` to somebody.
    pub(super) fn new(shown: bool, now: Instant) -> Self {
        Self { shown, next: now + EVERY, began: now, before: 0 }
    }

    pub(super) fn tick(&mut self, progress: &[Arc<Progress>], now: Instant) {
        if !self.shown || now < self.next {
            return;
        }
        self.next = self.next + EVERY;
        let sum = |of: fn(&Progress) -> u64| progress.iter().map(|core| of(core)).sum::<u64>();
        let requests = sum(|core| core.requests.load(Ordering::Relaxed));
        let errors = sum(|core| core.errors.load(Ordering::Relaxed));
        let open = sum(|core| core.open.load(Ordering::Relaxed));
        let measuring = progress.iter().all(|core| core.measuring.load(Ordering::Relaxed));
        let what = if measuring { "" } else { ", opening" };
        let _ = writeln!(
            std::io::stderr().lock(),
            "{:>4} s  {:>11} requests/s  {:>8} errors  {:>7} connections{what}",
            now.since(self.began).as_secs(),
            grouped(requests.saturating_sub(self.before)),
            grouped(errors),
            grouped(open),
        );
        self.before = requests;
    }
}

/// A time in three digits.
fn short(nanos: u64) -> String {
    let value = nanos as f64;
    let (value, unit) = match nanos {
        0..1_000_000 => (value / 1e3, "µs"),
        1_000_000..1_000_000_000 => (value / 1e6, "ms"),
        _ => (value / 1e9, "s"),
    };
    let digits = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
    format!("{value:.digits$} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_times_are_written_for_people() {
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!(
            [0, 9_990, 42_000, 420_400, 4_200_000, 61_000_000_000].map(short),
            ["0.00 µs", "9.99 µs", "42.0 µs", "420 µs", "4.20 ms", "61.0 s"]
        );
    }
}
