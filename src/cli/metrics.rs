//! `--metrics ADDR:PORT`: what `byway stats` says, in Prometheus's text format, over HTTP on a loopback address.
//!
//! Threads of its own, for some clients at a time, so that one that is slow holds nobody up; the cores are asked ten
//! times a second at most, however often somebody comes (D13).

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use byway_datapath::clock::Clock;
use byway_tcp::counters::DropReason;
use byway_tcp::time::Instant;

use super::clients::{self, Patience};
use super::control::Answerer;
use super::failure::Failure;
use super::stats::{Named, Stats};

/// Longest head of a request; scrapers send some 300 octets.
const HEAD_MAX: usize = 4096;
/// How long a client may take for its request and to read the answer, all in all: it is on this host.
const PATIENCE: Duration = Duration::from_secs(1);
/// Clients at a time: a scraper or two, a person, and as many that stand still.
const CLIENTS_MAX: usize = 8;
/// How long an answer is good for others who ask.
const FRESH: Duration = Duration::from_millis(100);
/// <https://prometheus.io/docs/instrumenting/exposition_formats/>
const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What is wrong with such an address, whatever the host.
pub(super) fn check(address: SocketAddr) -> Result<(), Failure> {
    if address.ip().is_loopback() {
        return Ok(());
    }
    Err(Failure::configuration(format!(
        "--metrics {address}: anybody could read them there: give a loopback address, as 127.0.0.1:{}",
        address.port()
    )))
}

/// Takes the address.
pub(super) fn bind(address: SocketAddr) -> Result<TcpListener, Failure> {
    check(address)?;
    TcpListener::bind(address).map_err(|error| {
        let mend = match error.kind() {
            io::ErrorKind::AddrNotAvailable => {
                "this network namespace has no such address: give one that `ip addr show dev lo` lists"
            }
            io::ErrorKind::PermissionDenied => {
                "a port below 1024 takes CAP_NET_BIND_SERVICE: give another port"
            }
            _ => "give another port",
        };
        let text = format!("--metrics {address}: {error}: {mend}");
        match error.kind() {
            io::ErrorKind::PermissionDenied => Failure { code: Failure::PERMISSION, message: text },
            _ => Failure::system(text),
        }
    })
}

/// Answers on threads of its own until the process ends.
pub(super) fn serve(listener: TcpListener, answerer: Arc<Answerer>) -> Result<(), Failure> {
    let latest = Mutex::new(Latest::default());
    let accept = move || listener.accept().map(|(client, _)| client);
    let lanes = answerer.inquirer.lanes().to_vec();
    clients::serve("byway-metrics", CLIENTS_MAX, &lanes, accept, move |client| {
        let metrics = || latest.lock().unwrap_or_else(PoisonError::into_inner).text(&answerer);
        // A client that went away or stood still is no news.
        let _ = answer(Patience::new(client, PATIENCE), metrics);
    })
}

/// What was answered last, and when the cores were asked for it.
#[derive(Default)]
struct Latest {
    text: Arc<str>,
    asked: Option<Instant>,
}

impl Latest {
    fn text(&mut self, answerer: &Answerer) -> Arc<str> {
        let now = Clock.now();
        if self.asked.is_none_or(|asked| now.since(asked) >= FRESH.into()) {
            self.text = render(&answerer.stats()).into();
            self.asked = Some(now);
        }
        Arc::clone(&self.text)
    }
}

fn answer(mut client: impl Read + Write, metrics: impl FnOnce() -> Arc<str>) -> io::Result<()> {
    let head = read_head(&mut client)?;
    let mut words = head.lines().next().unwrap_or_default().split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let path = target.split('?').next().unwrap_or_default();
    let (status, body) = match (method, path) {
        ("GET" | "HEAD", "/metrics") => ("200 OK", metrics()),
        ("GET" | "HEAD", _) => ("404 Not Found", "metrics are at /metrics\n".into()),
        _ => ("405 Method Not Allowed", "GET /metrics\n".into()),
    };
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {CONTENT_TYPE}\r\nContent-Length: {length}\r\nAllow: GET, HEAD\r\n\
         Connection: close\r\n\r\n"
    );
    client.write_all(head.as_bytes())?;
    if method != "HEAD" {
        client.write_all(body.as_bytes())?;
    }
    Ok(())
}

/// A request's head; what comes behind it isn't read.
fn read_head(client: &mut impl Read) -> io::Result<String> {
    let mut head = vec![0; HEAD_MAX];
    let mut len = 0;
    while !head[..len].windows(4).any(|octets| octets == b"\r\n\r\n") {
        let count = client.read(&mut head[len..])?;
        len += count;
        if count == 0 || len == HEAD_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
    head.truncate(len);
    Ok(String::from_utf8_lossy(&head).into_owned())
}

/// A metric: its name, kind, and what it says.
struct Family<'a> {
    text: &'a mut String,
    name: &'static str,
}

impl<'a> Family<'a> {
    fn new(text: &'a mut String, name: &'static str, kind: &str, help: &str) -> Self {
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        Self { text, name }
    }

    fn sample(&mut self, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        let _ = write!(self.text, "{}", self.name);
        for (place, (name, value)) in labels.iter().enumerate() {
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.text, "{}{name}=\"{value}\"", if place == 0 { '{' } else { ',' });
        }
        let _ = writeln!(self.text, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }

    /// A sample each, the name as a label.
    fn all<'v>(mut self, label: &str, values: impl IntoIterator<Item = (&'v String, &'v u64)>) {
        for (name, value) in values {
            self.sample(&[(label, name)], value);
        }
    }
}

/// Counters by name as labels: their names are Linux's, which no metric's name could keep.
fn render(stats: &Stats) -> String {
    let mut text = String::new();
    let (interface, backend) = (stats.interface.as_str(), stats.backend.as_str());
    Family::new(&mut text, "byway_info", "gauge", "Always 1; what this byway is.")
        .sample(&[("version", env!("CARGO_PKG_VERSION")), ("interface", interface), ("backend", backend)], 1);
    let is_reason = |name: &str| DropReason::ALL.iter().any(|reason| reason.name() == name);
    let (reasons, others): (Named, Named) =
        stats.counters.clone().into_iter().partition(|(name, _)| is_reason(name));
    let help = "Counters of the stack, by Linux's MIB name (nstat) where one exists.";
    Family::new(&mut text, "byway_stack_total", "counter", help).all("counter", &others);
    let help = "Frames and segments discarded, by the reason's counter.";
    Family::new(&mut text, "byway_discarded_total", "counter", help).all("reason", &reasons);
    Family::new(&mut text, "byway_connections", "gauge", "Connections by state, as ss names it.")
        .all("state", &stats.connections);
    for (name, label, help, values) in [
        ("byway_steering_total", "verdict", "Frames by what the XDP program did with them.", &stats.steering),
        ("byway_xsk_total", "event", "Events of the AF_XDP sockets.", &stats.xsk),
        ("byway_sockets_total", "event", "Events of the kernel's sockets.", &stats.sockets),
    ] {
        // A backend has one or the others.
        if !values.is_empty() {
            Family::new(&mut text, name, "counter", help).all(label, values);
        }
    }
    let cores: Vec<_> =
        stats.cores.iter().map(|core| (core, core.core.to_string(), core.queue.to_string())).collect();
    let mut frames = Family::new(&mut text, "byway_frames", "gauge", "Frames of memory by owner.");
    for (core, number, queue) in &cores {
        for (owner, count) in core.frames.iter().filter(|(owner, _)| *owner != "total") {
            frames.sample(&[("core", number), ("queue", queue), ("owner", owner)], count);
        }
    }
    for (name, key, help) in [
        ("byway_loop_turns_total", "turns", "Turns of a core's loop."),
        ("byway_loop_busy_turns_total", "busy_turns", "Turns in which something happened."),
        ("byway_loop_stalls_total", "stalls", "Turns that began more than 5 ms late."),
        ("byway_loop_preemptions_total", "preempted", "Times the kernel gave the core to somebody else."),
        (
            "byway_loop_tx_backlogs_total",
            "tx_backlogs",
            "Turns that left frames because the TX ring was full.",
        ),
    ] {
        let mut family = Family::new(&mut text, name, "counter", help);
        for (core, number, queue) in &cores {
            family.sample(&[("core", number), ("queue", queue)], core.turns.get(key).unwrap_or(&0));
        }
    }
    let mut gap = Family::new(
        &mut text,
        "byway_loop_gap_max_seconds",
        "gauge",
        "Longest time between two turns, sleeps left out.",
    );
    for (core, number, queue) in &cores {
        let nanos = core.turns.get("gap_max_ns").unwrap_or(&0);
        gap.sample(&[("core", number), ("queue", queue)], *nanos as f64 / 1e9);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn d13_only_loopback_addresses_are_taken() {
        for address in ["127.0.0.1:9100", "127.9.9.9:1", "[::1]:9100"] {
            check(address.parse().expect("an address")).expect(address);
        }
        for address in ["0.0.0.0:9100", "[::]:9100", "192.0.2.1:9100"] {
            let failure = check(address.parse().expect("an address")).expect_err(address);
            assert_eq!(failure.code, Failure::CONFIGURATION);
            assert!(failure.message.contains("127.0.0.1:9100"), "{}", failure.message);
        }
    }

    #[test]
    fn labels_are_escaped() {
        let mut text = String::new();
        Family::new(&mut text, "a_total", "counter", "What it is.")
            .sample(&[("b", "c\"\\\nd"), ("e", "f")], 7);
        assert_eq!(
            text,
            "# HELP a_total What it is.\n# TYPE a_total counter\na_total{b=\"c\\\"\\\\\\nd\",e=\"f\"} 7\n"
        );
    }
}
