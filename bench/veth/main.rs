//! `cargo bench --bench veth`: byway over a veth pair in copy mode, beside nginx on the kernel's TCP and the limit.
//!
//! ```text
//!   ┌ client, a core ───────┐               ┌ server, a core, one of these at a time ────────┐
//!   │ byway load            │ ──── veth ─── │ byway serve     on AF_XDP                      │
//!   │   closed loop, one at │               │ byway serve     on the kernel's sockets        │
//!   │   a time, open loop   │               │ nginx           on the kernel's sockets        │
//!   │ or bare AF_XDP frames │               │ bare AF_XDP     sends each frame back (bare.rs)│
//!   └───────────────────────┘               └────────────────────────────────────────────────┘
//! ```
//!
//! Rounds take turns, and each has another order. First come what each can do at most and the latency of one request
//! at a time; then, open loop, all at one rate: half of nginx's maximum; at last byway by itself with 100,000
//! connections (many.rs). Tables go to standard output and, with everything behind them, into `target/bench-report`;
//! what each run gave goes to standard error.

mod bare;
mod bed;
#[path = "../common.rs"]
mod common;
mod load;
mod many;
mod report;
mod server;
mod subject;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, ensure};
use byway_datapath::pin;
use byway_lab::is_root;
use clap::Parser;
use clap::error::ErrorKind;

use bed::Bed;
use report::Report;
use server::Server;
use subject::{Measure, Results, SUBJECTS, Subject};

/// Measures byway over a veth pair in copy mode, beside nginx and a bare AF_XDP reflector.
#[derive(Debug, Parser)]
#[command(name = "cargo bench --bench veth --")]
struct Options {
    /// Times that everything is measured
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Length of a run
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Only what has this in its name, as the table has it
    #[arg(long, default_value = "")]
    only: String,
    /// What cargo says to every bench
    #[arg(long, hide = true)]
    bench: bool,
    /// `cargo bench -- NAME` picks among the micro-benchmarks
    #[arg(hide = true)]
    filter: Vec<String>,
}

fn main() -> ExitCode {
    let options = match Options::try_parse() {
        Ok(options) => options,
        // `cargo bench -- --save-baseline main` is for criterion.
        Err(error) if error.kind() == ErrorKind::UnknownArgument => {
            return skip(error.to_string().lines().next().unwrap_or_default());
        }
        Err(error) => error.exit(),
    };
    if let [filter, ..] = &options.filter[..] {
        return skip(&format!("'{filter}' names micro-benchmarks; for part of this: --only NAME"));
    }
    if !is_root() {
        return ExitCode::SUCCESS;
    }
    let cores = pin::allowed();
    let &[server, client, ..] = &cores[..] else {
        return skip("it takes two cores, one for each side");
    };
    match run(&options, [server, client]) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench veth: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn skip(why: &str) -> ExitCode {
    eprintln!("bench veth: skipped: {why}");
    ExitCode::SUCCESS
}

fn run(options: &Options, cores: [usize; 2]) -> Result<()> {
    let bed = Bed::new(cores)?;
    let mut report = Report::new(&bed)?;
    let mut subjects: Vec<Subject> =
        SUBJECTS.iter().copied().filter(|subject| subject.name.contains(&options.only)).collect();
    let many = many::NAME.contains(&options.only);
    ensure!(many || !subjects.is_empty(), "nothing has '{}' in its name", options.only);
    for server in [Server::Byway, Server::BywayOnKernel, Server::Nginx] {
        if !subjects.iter().any(|subject| subject.server() == Some(server)) {
            continue;
        }
        match server.try_out(&bed) {
            Ok(said) => report.note(server, said),
            Err(why) => {
                eprintln!("bench veth: skipped: {}: {why:#}", server.name());
                report.skip(server, &why);
                subjects.retain(|subject| subject.server() != Some(server));
            }
        }
    }

    if let Err(why) = bed.receive_at_home(false) {
        eprintln!("bench veth: skipped: kernels that receive on the server's core: {why:#}");
        subjects.retain(|subject| !subject.home);
    }

    let mut results = Results::default();
    let seconds = Duration::from_secs(options.seconds);
    for round in 0..options.rounds {
        for subject in turned(&subjects, round) {
            subject.run(
                &bed,
                &report,
                &mut results,
                &[Measure::Rate, Measure::One, Measure::Bulk],
                round,
                seconds,
            )?;
        }
    }
    results.choose_open_rate();
    if results.open_rate.is_some() {
        for round in 0..options.rounds {
            for subject in turned(&subjects, round) {
                subject.run(&bed, &report, &mut results, &[Measure::Open], round, seconds)?;
            }
        }
    }
    for round in 0..if many { options.rounds } else { 0 } {
        results.many.push(many::run(&bed, &report, round, seconds)?);
    }
    report.write(&subjects, &results, options.rounds, options.seconds)
}

/// Who goes first takes turns.
fn turned(subjects: &[Subject], round: u32) -> impl Iterator<Item = &Subject> {
    let (first, rest) = subjects.split_at(round as usize % subjects.len().max(1));
    rest.iter().chain(first)
}
