//! A hundred thousand connections at once, and a moderate rate over all of them: a request on each every two seconds.
//!
//! One address has 28,232 ports towards a server, so it takes four. What a connection takes of memory is what the
//! server grew by from "ready" to its peak, application included; the frames, 128 MiB, are there from the start.

use std::time::Duration;

use anyhow::Result;
use byway::load::grouped;
use serde_json::{Value, json};

use crate::bed::{BYPASS, Bed};
use crate::load::Load;
use crate::report::Report;
use crate::server::Server;
use crate::subject::Measure;

pub(crate) const NAME: &str = "byway, many connections, GET /hello";
const CONNECTIONS: u32 = 100_000;
const ADDRESSES: u8 = 4;
/// A tenth of what `AT_ONCE` connections do at most.
const RATE: u64 = 50_000;

/// What one run gave.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    opened: u64,
    errors: u64,
    /// Requests a second.
    rate: f64,
    latency_ns: [f64; 3],
    /// Octets of the server's memory.
    connection: u64,
}

pub(crate) fn run(bed: &Bed, report: &Report, round: u32, time: Duration) -> Result<Run> {
    bed.go_on()?;
    let server = Server::Byway.start_with(bed, &["--max-connections", &CONNECTIONS.to_string()])?;
    let before = server.memory("VmRSS")?;
    let load = Load { connections: CONNECTIONS, addresses: ADDRESSES, rate: Some(RATE), time };
    let stem = report.run_file(&format!("byway-many-{round}"));
    let outcome = load.run(bed, &format!("http://{BYPASS}/hello"), &stem)?;
    let run = Run {
        opened: outcome.opened(),
        errors: outcome.errors(),
        rate: outcome.rate(),
        latency_ns: ["p50", "p99", "p999"].map(|percentile| outcome.latency_ns(percentile)),
        connection: (server.memory("VmHWM")? - before) / u64::from(CONNECTIONS),
    };
    let [opened, errors, rate, p50, p99, p999, memory] = run.cells();
    eprintln!(
        "round {round}: {NAME}: {opened} opened, {errors} errors, {rate}, {p50}, {p99}, {p999}, {memory} each"
    );
    Ok(run)
}

impl Run {
    /// As the table has it: connections opened, errors, requests/s, p50, p99, p99.9, memory.
    fn cells(&self) -> [String; 7] {
        let [p50, p99, p999] = self.latency_ns.map(|nanos| Measure::Open.shown(nanos));
        let memory = format!("{} octets", grouped(self.connection));
        let rate = Measure::Rate.shown(self.rate);
        [grouped(self.opened), grouped(self.errors), rate, p50, p99, p999, memory]
    }

    pub(crate) fn json(&self) -> Value {
        let [p50, p99, p999] = self.latency_ns;
        json!({
            "connections_opened": self.opened,
            "errors": self.errors,
            "requests_per_second": self.rate,
            "latency_ns": { "p50": p50, "p99": p99, "p999": p999 },
            "server_octets_per_connection": self.connection,
        })
    }
}

/// All runs' table; nothing if there is none.
pub(crate) fn markdown(runs: &[Run]) -> String {
    if runs.is_empty() {
        return String::new();
    }
    let mut text = format!(
        "{NAME}: {} at once from {ADDRESSES} addresses, open loop of {}/s.\n\n\
         | connections | errors | requests/s | p50 | p99 | p99.9 | server's memory for each |\n\
         |---:|---:|---:|---:|---:|---:|---:|\n",
        grouped(CONNECTIONS.into()),
        grouped(RATE),
    );
    for run in runs {
        text += &format!("| {} |\n", run.cells().join(" | "));
    }
    text + "\n"
}
