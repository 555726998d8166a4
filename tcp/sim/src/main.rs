//! `byway-sim`: runs seeds, or replays one.

use std::fmt;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use byway_sim::capture::Capture;
use byway_sim::plot::{self, Probe};
use byway_sim::scenario::{Choices, Scenario};
use byway_sim::world::Observer;
use byway_sim::{Options, many, one};
use byway_tcp::tcb::congestion::Algorithm;
use clap::Parser;

/// Runs byway's TCP in a simulated network, a scenario for each seed.
#[derive(Parser, Debug)]
#[command(version)]
struct Arguments {
    /// How many seeds to run
    #[arg(long, default_value_t = 1000, conflicts_with = "seed")]
    seeds: u64,
    /// The first of them
    #[arg(long, default_value_t = 0, conflicts_with = "seed")]
    from: u64,
    /// Replay this one, and say what happens
    #[arg(long)]
    seed: Option<u64>,
    /// Write every frame at both its ends to this pcapng file
    #[arg(long, requires = "seed")]
    capture: Option<PathBuf>,
    /// Draw the busiest sender's cwnd, ssthresh, flight, RTT and phase over time into this SVG file
    #[arg(long, requires = "seed")]
    plot: Option<PathBuf>,
    /// Congestion control of all hosts (each draws its own otherwise)
    #[arg(long, value_parser = algorithm)]
    congestion: Option<Algorithm>,
}

fn algorithm(name: &str) -> Result<Algorithm, String> {
    let names: Vec<_> = Algorithm::ALL.iter().map(|algorithm| algorithm.name()).collect();
    name.parse().map_err(|()| format!("known are: {}", names.join(", ")))
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let options =
        Options { choices: Choices { congestion: arguments.congestion, ..Choices::default() }, fault: None };
    match arguments.seed {
        Some(seed) => replay(seed, &arguments, &options).unwrap_or_else(|error| {
            eprintln!("byway-sim: {error}");
            ExitCode::FAILURE
        }),
        None => run(arguments.from, arguments.seeds, &options),
    }
}

#[expect(clippy::disallowed_methods, reason = "how fast the simulator is, is a matter of real time")]
fn run(from: u64, count: u64, options: &Options) -> ExitCode {
    let began = std::time::Instant::now();
    let (mut failures, mut frames, mut delivered, mut virtual_time) = (0, 0, 0, 0.0);
    let mut worst = (0.0, 0);
    many(from..from.saturating_add(count), options, |seed, outcome| match outcome {
        Ok(summary) => {
            frames += summary.frames;
            delivered += summary.delivered;
            virtual_time += summary.time.as_secs_f64();
            if summary.frames_per_need > worst.0 {
                worst = (summary.frames_per_need, seed);
            }
        }
        Err(failure) => {
            failures += 1;
            say(format_args!("seed {} failed: {}\n", failure.seed, failure.why));
        }
    });
    let seconds = began.elapsed().as_secs_f64();
    say(format_args!(
        "{count} seeds in {seconds:.1} s: {:.0} seeds/s; {frames} frames, {:.1} MB delivered, {:.1} h of virtual time\n",
        count as f64 / seconds,
        delivered as f64 / 1e6,
        virtual_time / 3600.0
    ));
    say(format_args!(
        "most frames for what there was to say: {:.1} times the need, seed {}\n{failures} failed\n",
        worst.0, worst.1
    ));
    if failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn replay(seed: u64, arguments: &Arguments, options: &Options) -> io::Result<ExitCode> {
    let scenario = Scenario::draw(seed, options.choices);
    say(format_args!("{scenario}"));
    // The first run tells which connection is worth a picture; the second is the same.
    let outcome = one(seed, options, &mut ());
    let (flow, client) = outcome.as_ref().map_or((0, true), |summary| summary.busiest);
    let mut probe = Probe::new(flow, client);
    let mut observers: Vec<&mut dyn Observer> = vec![&mut probe];
    let mut capture = match &arguments.capture {
        Some(path) => Some(Capture::new(
            BufWriter::new(File::create(path).map_err(|error| about(path, &error))?),
            scenario.hosts.len(),
        )?),
        None => None,
    };
    observers.extend(capture.as_mut().map(|capture| capture as &mut dyn Observer));
    let again = one(seed, options, &mut observers);
    assert_eq!(again.is_ok(), outcome.is_ok(), "the same seed came to another end");
    if let Some(capture) = capture {
        capture.finish()?;
    }
    if let Some(path) = &arguments.plot {
        let host =
            &scenario.hosts[if client { scenario.flows[flow].client } else { scenario.flows[flow].server }];
        let title = format!(
            "byway-sim seed {seed}: flow {flow} ({}), the {} sends with {}",
            scenario.flows[flow].kind,
            if client { "client" } else { "server" },
            host.config.congestion
        );
        std::fs::write(path, plot::draw(&probe, &title)).map_err(|error| about(path, &error))?;
    }
    Ok(match outcome {
        Ok(summary) => {
            say(format_args!("{summary:#?}\n"));
            ExitCode::SUCCESS
        }
        Err(failure) => {
            say(format_args!("failed: {}\n", failure.why));
            ExitCode::FAILURE
        }
    })
}

/// On standard output, whose reader may have seen enough, as `head`: the rest is done all the same, and the exit code
/// tells how it went.
fn say(text: fmt::Arguments<'_>) {
    let _ = io::stdout().write_fmt(text);
}

/// Which file it is about.
fn about(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}
