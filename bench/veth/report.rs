//! What is left of a bench: `target/bench-report`.
//!
//! ```text
//!   report.md     the table, with where and how it was measured     report.json   the same for programs, every round
//!   runs/         of each run of `byway load`: JSON, percentiles as HdrHistogram writes them, and their plot
//! ```

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use byway::load::grouped;
use serde_json::{Map, Value, json};

use crate::bed::Bed;
use crate::common::{median, told};
use crate::many;
use crate::server::Server;
use crate::subject::{
    AT_ONCE, BYWAY, BYWAY_ON_KERNEL, BYWAY_ON_KERNEL_HOME, FULL, Measure, NGINX, NGINX_HOME, REFLECTOR_FULL,
    REFLECTOR_SMALL, Results, Subject,
};

const MEASURES: [(Measure, &str); 6] = [
    (Measure::Rate, "requests_per_second"),
    (Measure::One, "one_at_a_time_p50_ns"),
    (Measure::Bulk, "bulk_bytes_per_second"),
    (Measure::OpenP50, "open_loop_p50_ns"),
    (Measure::OpenP99, "open_loop_p99_ns"),
    (Measure::Open, "open_loop_p999_ns"),
];

/// What of whom.
type Figure = (usize, Measure);

/// What is held against what, and how that is called.
const RATIOS: [(&str, Figure, Figure); 10] = [
    ("requests/s, byway : nginx", (BYWAY, Measure::Rate), (NGINX, Measure::Rate)),
    (
        "requests/s, byway : nginx that receives on its core",
        (BYWAY, Measure::Rate),
        (NGINX_HOME, Measure::Rate),
    ),
    ("requests/s, byway : byway on kernel sockets", (BYWAY, Measure::Rate), (BYWAY_ON_KERNEL, Measure::Rate)),
    (
        "requests/s, byway : byway on kernel sockets that receive on its core",
        (BYWAY, Measure::Rate),
        (BYWAY_ON_KERNEL_HOME, Measure::Rate),
    ),
    ("p50 of one at a time, byway : nginx", (BYWAY, Measure::One), (NGINX, Measure::One)),
    ("p99.9 in the open loop, byway : nginx", (BYWAY, Measure::Open), (NGINX, Measure::Open)),
    (
        "p99.9 in the open loop, byway : byway on kernel sockets",
        (BYWAY, Measure::Open),
        (BYWAY_ON_KERNEL, Measure::Open),
    ),
    ("requests/s, byway : reflector of 64 octets", (BYWAY, Measure::Rate), (REFLECTOR_SMALL, Measure::Rate)),
    (
        "p50 of one at a time, byway : reflector of 64 octets",
        (BYWAY, Measure::One),
        (REFLECTOR_SMALL, Measure::One),
    ),
    (
        "octets/s, GET /bytes of byway : reflector of 1514 octets",
        (BYWAY, Measure::Bulk),
        (REFLECTOR_FULL, Measure::Bulk),
    ),
];

#[derive(Debug)]
pub(crate) struct Report {
    directory: PathBuf,
    environment: Vec<(&'static str, String)>,
}

impl Report {
    /// An empty report in place of the last one.
    pub(crate) fn new(bed: &Bed) -> Result<Self> {
        // target/release/deps/veth-…
        let program = std::env::current_exe()?;
        let target = program.ancestors().nth(3).context("no target directory")?;
        let directory = target.join("bench-report");
        let runs = directory.join("runs");
        let _ = std::fs::remove_dir_all(&runs);
        std::fs::create_dir_all(&runs).with_context(|| runs.display().to_string())?;
        let unknown = || "unknown".to_owned();
        let model = std::fs::read_to_string("/proc/cpuinfo").ok().and_then(|text| {
            let line = text.lines().find(|line| line.starts_with("model name"))?;
            Some(line.split(": ").nth(1)?.to_owned())
        });
        let mut command = String::from("cargo bench --bench veth --");
        for argument in std::env::args().skip(1).filter(|argument| argument != "--bench") {
            command = command + " " + &argument;
        }
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let environment = vec![
            ("label", "veth, copy mode".to_owned()),
            ("date", told("date -u +%FT%TZ").unwrap_or_else(unknown)),
            ("commit", told("git describe --always --dirty").unwrap_or_else(unknown)),
            ("command", command.trim_end_matches(" --").to_owned()),
            ("kernel", told("uname -r").unwrap_or_else(unknown)),
            ("processor", format!("{}, {cores} cores", model.unwrap_or_else(unknown))),
            ("cores", format!("server {}, client {}, at nice -20", bed.server.core, bed.client.core)),
            ("load average before", told("cat /proc/loadavg").unwrap_or_else(unknown)),
            (
                "checksums",
                "AF_XDP senders compute all of theirs; the kernel's TCP leaves its own undone, as to a NIC, and the \
                 client accepts that; receivers check what comes from AF_XDP"
                    .to_owned(),
            ),
            (
                "where the kernel works",
                "veth hands a frame over on the core of who sends it, XDP programs included; and so does the kernel's \
                 TCP receive on the client's core, for nothing. On the server's it does where the name says so"
                    .to_owned(),
            ),
        ];
        Ok(Self { directory, environment })
    }

    /// Without its extension, a file of a run.
    pub(crate) fn run_file(&self, name: &str) -> PathBuf {
        self.directory.join("runs").join(name)
    }

    /// What a server said of itself.
    pub(crate) fn note(&mut self, server: Server, said: String) {
        self.environment.push((server.name(), said));
    }

    /// That, and why, a server wasn't measured.
    pub(crate) fn skip(&mut self, server: Server, why: &anyhow::Error) {
        self.environment.push((server.name(), format!("skipped: {why:#}")));
    }

    pub(crate) fn write(
        &self,
        subjects: &[Subject],
        results: &Results,
        rounds: u32,
        seconds: u64,
    ) -> Result<()> {
        let markdown = self.markdown(subjects, results, rounds, seconds);
        let json = self.json(subjects, results, rounds, seconds);
        let write =
            |path: &Path, text: &str| std::fs::write(path, text).with_context(|| path.display().to_string());
        write(&self.directory.join("report.md"), &markdown)?;
        write(&self.directory.join("report.json"), &format!("{json:#}\n"))?;
        // Nobody may be reading.
        let _ = write!(std::io::stdout().lock(), "{markdown}\n{}\n", self.directory.display());
        Ok(())
    }

    fn markdown(&self, subjects: &[Subject], results: &Results, rounds: u32, seconds: u64) -> String {
        let mut text = format!("veth, copy mode; one core each side; {rounds} rounds, {seconds} s each.\n\n");
        if !subjects.is_empty() {
            text += &tables(subjects, results);
        }
        text += &many::markdown(&results.many);
        self.surroundings(&mut text, results);
        text
    }

    /// Where and how it was measured, and what went wrong.
    fn surroundings(&self, text: &mut String, results: &Results) {
        for (name, value) in &self.environment {
            let _ = writeln!(text, "- {name}: {value}");
        }
        if let Some(load) = &results.environment {
            let fact = |name: &str| load[name].as_str().unwrap_or("unknown").to_owned();
            let _ = writeln!(
                text,
                "- client: byway load, driver {}, {} XDP, {} mode, checksums {}, commit {}",
                fact("driver"),
                fact("attach"),
                fact("copy_mode"),
                fact("checksums"),
                fact("commit")
            );
        }
        for error in &results.errors {
            let _ = writeln!(text, "- **{error}**");
        }
    }

    fn json(&self, subjects: &[Subject], results: &Results, rounds: u32, seconds: u64) -> Value {
        let measured: Map<String, Value> = subjects
            .iter()
            .map(|subject| {
                let of = MEASURES.iter().filter_map(|&(measure, key)| {
                    let median = results.median(subject.name, measure)?;
                    let rounds = results.values(subject.name, measure);
                    Some((key.to_owned(), json!({ "median": median, "rounds": rounds })))
                });
                (subject.name.to_owned(), Value::Object(of.collect()))
            })
            .collect();
        let environment: Map<String, Value> =
            self.environment.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
        let ratios: Map<String, Value> = ratios(results)
            .map(|(name, ratios)| (name.to_owned(), json!(median(ratios.iter().copied()))))
            .collect();
        json!({
            "rounds": rounds,
            "seconds": seconds,
            "connections": AT_ONCE,
            "open_loop_requests_per_second": results.open_rate,
            "results": measured,
            "ratios": ratios,
            "many_connections": results.many.iter().map(many::Run::json).collect::<Vec<_>>(),
            "errors": results.errors,
            "environment": environment,
            "client": results.environment,
        })
    }
}

/// What each can do, and how that compares.
fn tables(subjects: &[Subject], results: &Results) -> String {
    let open = results.open_rate.map_or_else(|| "-".to_owned(), grouped);
    let mut text = format!(
        "Medians of interleaved rounds.\n\n\
         | | requests/s, {AT_ONCE} at once | p50, one at a time | open loop of {open}/s: p50, p99, p99.9 | bulk |\n\
         |---|---:|---:|---:|---:|\n"
    );
    for subject in subjects {
        let cell = |measure: Measure| {
            results.median(subject.name, measure).map_or_else(String::new, |value| measure.shown(value))
        };
        let [rate, one, bulk] = [Measure::Rate, Measure::One, Measure::Bulk].map(cell);
        let open = [Measure::OpenP50, Measure::OpenP99, Measure::Open].map(cell).join(", ");
        let open = open.trim_matches([',', ' ']);
        let _ = writeln!(text, "| {} | {rate} | {one} | {open} | {bulk} |", subject.name);
    }
    text += "\n| ratio | median | rounds |\n|---|---:|---:|\n";
    for (name, ratios) in ratios(results) {
        let (least, most) = ratios
            .iter()
            .fold((f64::MAX, 0.0), |(least, most): (f64, f64), &ratio| (least.min(ratio), most.max(ratio)));
        let _ =
            writeln!(text, "| {name} | {:.2} | {least:.2} to {most:.2} |", median(ratios.iter().copied()));
    }
    let _ = writeln!(
        text,
        "\nA request of the reflector is a frame sent there and back, {AT_ONCE} or one under way; its bulk is the \
         octets of frames of {FULL}, one way. Bulk of byway is the payload of one connection. The open loop's rate \
         is half of nginx's median, or of byway's without nginx. byway spins where a kernel's socket sleeps and is \
         woken; tails of whole milliseconds are other processes' turns on these cores.\n"
    );
    text
}

/// Of those of which both sides were measured.
fn ratios(results: &Results) -> impl Iterator<Item = (&'static str, Vec<f64>)> {
    let all = RATIOS.iter().map(|&(name, one, other)| (name, results.ratios(one, other)));
    all.filter(|(_, ratios)| !ratios.is_empty())
}
