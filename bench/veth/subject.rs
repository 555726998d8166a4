//! What is measured of whom, and what came of it.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use byway::load::grouped;

use crate::bare;
use crate::bed::Bed;
use crate::common::median;
use crate::load::Load;
use crate::many;
use crate::report::Report;
use crate::server::{ECHO_PORT, Server};

/// Connections, and the bare reflector's frames, at once: as many as `make compare` has. veth's queue has 256 places.
pub(crate) const AT_ONCE: u32 = 64;
/// Of a full frame, of MTU 1500.
pub(crate) const FULL: usize = 1514;
/// A small frame.
pub(crate) const SMALL: usize = 64;
const BULK: &str = "/bytes/1000000000";

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Measure {
    /// Requests a second, closed loop, many at once.
    Rate,
    /// Median latency of one at a time.
    One,
    /// Octets a second of one large answer; for a reflector, of the frames one way.
    Bulk,
    /// 99.9th percentile at half of nginx's maximum, open loop.
    Open,
    /// Of the same runs the 99th percentile.
    OpenP99,
    /// And the median.
    OpenP50,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum What {
    Reflector { octets: usize },
    Http(Server),
    WebSocket,
    RawEcho,
}

/// Who or what is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subject {
    pub(crate) name: &'static str,
    /// In the names of files.
    file: &'static str,
    what: What,
    /// See [`Bed::receive_at_home`].
    pub(crate) home: bool,
}

const fn subject(name: &'static str, file: &'static str, what: What) -> Subject {
    Subject { name, file, what, home: false }
}

/// A kernel that receives on the server's core, as with a NIC whose interrupts go there.
const fn at_home(name: &'static str, file: &'static str, what: What) -> Subject {
    Subject { home: true, ..subject(name, file, what) }
}

pub(crate) const SUBJECTS: [Subject; 9] = [
    subject("bare reflector, 64 octets", "", What::Reflector { octets: SMALL }),
    subject("bare reflector, 1514 octets", "", What::Reflector { octets: FULL }),
    subject("byway, TCP echo of 64 octets", "byway-echo", What::RawEcho),
    subject("byway, WebSocket echo of 64 octets", "byway-websocket", What::WebSocket),
    subject("byway, GET /hello", "byway-hello", What::Http(Server::Byway)),
    subject("byway on kernel sockets, GET /hello", "sockets-hello", What::Http(Server::BywayOnKernel)),
    subject("nginx, GET /hello", "nginx-hello", What::Http(Server::Nginx)),
    at_home(
        "byway on kernel sockets that receive on its core, GET /hello",
        "sockets-home-hello",
        What::Http(Server::BywayOnKernel),
    ),
    at_home(
        "nginx on kernel sockets that receive on its core, GET /hello",
        "nginx-home-hello",
        What::Http(Server::Nginx),
    ),
];
pub(crate) const REFLECTOR_SMALL: usize = 0;
pub(crate) const REFLECTOR_FULL: usize = 1;
pub(crate) const BYWAY: usize = 4;
pub(crate) const BYWAY_ON_KERNEL: usize = 5;
pub(crate) const NGINX: usize = 6;
pub(crate) const BYWAY_ON_KERNEL_HOME: usize = 7;
pub(crate) const NGINX_HOME: usize = 8;

impl Subject {
    pub(crate) fn server(&self) -> Option<Server> {
        match self.what {
            What::Reflector { .. } => None,
            What::Http(server) => Some(server),
            What::WebSocket | What::RawEcho => Some(Server::Byway),
        }
    }

    fn has(&self, measure: Measure) -> bool {
        match measure {
            Measure::Rate | Measure::One => true,
            Measure::Bulk => {
                matches!(self.what, What::Http(Server::Byway) | What::Reflector { octets: FULL })
            }
            Measure::Open => matches!(self.what, What::Http(_)) && !self.home,
            // They come with it.
            Measure::OpenP99 | Measure::OpenP50 => false,
        }
    }

    fn url(&self, measure: Measure) -> String {
        let host = self.server().map(Server::address).expect("a reflector has no URL");
        match (self.what, measure) {
            (What::RawEcho, _) => format!("tcp://{host}:{ECHO_PORT}"),
            (What::WebSocket, _) => format!("ws://{host}/"),
            (_, Measure::Bulk) => format!("http://{host}{BULK}"),
            _ => format!("http://{host}/hello"),
        }
    }

    /// Those of `measures` that there are of it.
    pub(crate) fn run(
        &self,
        bed: &Bed,
        report: &Report,
        results: &mut Results,
        measures: &[Measure],
        round: u32,
        time: Duration,
    ) -> Result<()> {
        let measures: Vec<Measure> = measures.iter().copied().filter(|&measure| self.has(measure)).collect();
        if measures.is_empty() {
            return Ok(());
        }
        if self.server().is_some_and(Server::is_on_kernel) {
            bed.receive_at_home(self.home)?;
        }
        // From start to end of one process: nobody keeps an advantage, or a fault, for the whole bench.
        let _running = self.server().map(|server| server.start(bed)).transpose()?;
        for measure in measures {
            bed.go_on()?;
            let value = match self.what {
                What::Reflector { octets } => reflect(bed, octets, measure, results, time)?,
                _ => self.load(bed, report, results, measure, round, time)?,
            };
            eprintln!("round {round}: {}: {} {}", self.name, measure.file(), measure.shown(value));
            results.add(self.name, measure, value);
        }
        Ok(())
    }

    fn load(
        &self,
        bed: &Bed,
        report: &Report,
        results: &mut Results,
        measure: Measure,
        round: u32,
        time: Duration,
    ) -> Result<f64> {
        let connections = if matches!(measure, Measure::Rate | Measure::Open) { AT_ONCE } else { 1 };
        let rate = results.open_rate.filter(|_| measure == Measure::Open);
        let stem = report.run_file(&format!("{}-{}-{round}", self.file, measure.file()));
        let outcome = Load { connections, addresses: 1, rate, time }.run(bed, &self.url(measure), &stem)?;
        if outcome.errors() > 0 {
            let errors = format!("{}: {} errors in {}", self.name, outcome.errors(), measure.file());
            eprintln!("round {round}: {errors}");
            results.errors.push(errors);
        }
        results.environment = Some(outcome.json["environment"].clone());
        Ok(match measure {
            Measure::Rate => outcome.rate(),
            Measure::Bulk => outcome.bytes_per_second(),
            Measure::One | Measure::OpenP50 => outcome.latency_ns("p50"),
            Measure::OpenP99 => outcome.latency_ns("p99"),
            Measure::Open => {
                results.add(self.name, Measure::OpenP50, outcome.latency_ns("p50"));
                results.add(self.name, Measure::OpenP99, outcome.latency_ns("p99"));
                outcome.latency_ns("p999")
            }
        })
    }
}

fn reflect(bed: &Bed, octets: usize, measure: Measure, results: &Results, time: Duration) -> Result<f64> {
    if measure == Measure::Bulk {
        // The same run as the rate's.
        let rate = results.last(SUBJECTS[REFLECTOR_FULL].name, Measure::Rate);
        return Ok(rate * octets as f64);
    }
    let window = if measure == Measure::One { 1 } else { AT_ONCE as usize };
    let limit = bare::measure(bed, octets, window, time)?;
    Ok(if measure == Measure::One { limit.p50_ns as f64 } else { limit.rate })
}

impl Measure {
    fn file(self) -> &'static str {
        match self {
            Self::Rate => "closed-loop",
            Self::One => "one-at-a-time",
            Self::Bulk => "bulk",
            Self::Open | Self::OpenP99 | Self::OpenP50 => "open-loop",
        }
    }

    pub(crate) fn shown(self, value: f64) -> String {
        match self {
            Self::Rate => format!("{}/s", grouped(value.round() as u64)),
            Self::Bulk => format!("{:.2} Gbit/s", value * 8e-9),
            Self::One | Self::Open | Self::OpenP99 | Self::OpenP50 if value < 1e6 => {
                format!("{:.1} µs", value / 1e3)
            }
            Self::One | Self::Open | Self::OpenP99 | Self::OpenP50 => format!("{:.2} ms", value / 1e6),
        }
    }
}

/// By subject and measure, a value of each round.
#[derive(Debug, Default)]
pub(crate) struct Results {
    values: BTreeMap<(&'static str, Measure), Vec<f64>>,
    /// Requests a second of the open loop.
    pub(crate) open_rate: Option<u64>,
    /// What went wrong in runs that count all the same.
    pub(crate) errors: Vec<String>,
    /// Of many connections.
    pub(crate) many: Vec<many::Run>,
    /// As `byway load` has it.
    pub(crate) environment: Option<serde_json::Value>,
}

impl Results {
    fn add(&mut self, name: &'static str, measure: Measure, value: f64) {
        self.values.entry((name, measure)).or_default().push(value);
    }

    fn last(&self, name: &'static str, measure: Measure) -> f64 {
        self.values(name, measure).last().copied().unwrap_or(f64::NAN)
    }

    pub(crate) fn values(&self, name: &'static str, measure: Measure) -> &[f64] {
        self.values.get(&(name, measure)).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn median(&self, name: &'static str, measure: Measure) -> Option<f64> {
        Some(median(self.values(name, measure).iter().copied())).filter(|value| value.is_finite())
    }

    /// The rounds' ratios.
    pub(crate) fn ratios(&self, one: (usize, Measure), other: (usize, Measure)) -> Vec<f64> {
        let of = |(subject, measure): (usize, Measure)| self.values(SUBJECTS[subject].name, measure);
        of(one).iter().zip(of(other)).map(|(one, other)| one / other).collect()
    }

    /// Half of nginx's maximum; without nginx, of byway's.
    pub(crate) fn choose_open_rate(&mut self) {
        let most = [NGINX, BYWAY, BYWAY_ON_KERNEL]
            .into_iter()
            .find_map(|subject| self.median(SUBJECTS[subject].name, Measure::Rate));
        self.open_rate = most.map(|most| (most / 2.0) as u64);
    }
}
