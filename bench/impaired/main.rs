//! `make bench-impaired`: byway's goodput and fairness as a sender, beside the kernel's in the same run.
//!
//! ```text
//!   ┌ byway ────────┐          ┌ wire ─────────────────────┐
//!   │ byway serve   │── veth ──│ near0                     │          ┌ receiver ─────┐
//!   └───────────────┘          │      ▶ loss ▶ queue ▶ far │── veth ──│ kernel: reads │
//!   ┌ sender ───────┐          │       100 Mbit/s, 20 ms   │          └───────────────┘
//!   │ kernel: writes│── veth ──│ near1                     │
//!   └───────────────┘          └───────────────────────────┘
//! ```
//!
//! Both senders stand before the same bottleneck, 20 ms each way, with a queue of one bandwidth-delay product. What
//! the line loses or reorders depends on the round and the number of the frame alone, so that both meet the
//! same. A table of medians goes to standard output, what each run did to standard error.

#[path = "../common.rs"]
mod common;
mod line;
mod table;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use byway_lab::is_root;
use clap::Parser;

use common::median;
use line::{Line, Outcome, Sender, Shares};
use table::{say, say_while};

/// What the line does to data beside delaying it.
#[derive(Clone, Copy, Debug)]
struct Scenario {
    name: &'static str,
    loss: f64,
    reorder: f64,
    ecn: bool,
}

const SCENARIOS: [Scenario; 5] = [
    Scenario { name: "clean", loss: 0.0, reorder: 0.0, ecn: false },
    Scenario { name: "1 % loss", loss: 0.01, reorder: 0.0, ecn: false },
    Scenario { name: "0.1 % loss", loss: 0.001, reorder: 0.0, ecn: false },
    Scenario { name: "1 % reordering", loss: 0.0, reorder: 0.01, ecn: false },
    Scenario { name: "ECN marks", loss: 0.0, reorder: 0.0, ecn: true },
];

/// Measures byway as a sender over an impaired line, beside the kernel.
#[derive(Debug, Parser)]
struct Options {
    /// Congestion control, by both sides' names
    #[arg(long, value_delimiter = ',', default_value = "reno,cubic,bbr")]
    congestion: Vec<String>,
    /// Times that everything is measured
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    rounds: u64,
    /// Length of a run of one flow
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Length of a run of two flows, of which the first quarter doesn't count. AIMD takes half a minute to
    /// share this line
    #[arg(long, default_value_t = 80)]
    fairness_seconds: u64,
    /// Only the scenarios with this in their names
    #[arg(long, default_value = "")]
    scenario: String,
    /// Leaves the pairs of flows out
    #[arg(long)]
    no_fairness: bool,
    /// What cargo says to every bench
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    if !is_root() {
        return ExitCode::SUCCESS;
    }
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench-impaired: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<()> {
    let line = Line::new()?;
    say(&table::environment());
    goodput(&line, options)?;
    if !options.no_fairness {
        fairness(&line, options)?;
    }
    Ok(())
}

/// One flow at a time, of either side.
fn goodput(line: &Line, options: &Options) -> Result<()> {
    let scenarios: Vec<_> =
        SCENARIOS.into_iter().filter(|scenario| scenario.name.contains(&options.scenario)).collect();
    // By algorithm, scenario and sender: what each round gave.
    let mut outcomes = vec![[const { Vec::<Outcome>::new() }; 2]; scenarios.len() * options.congestion.len()];
    for round in 0..options.rounds {
        for (at, congestion) in options.congestion.iter().enumerate() {
            let byway = line.serve(congestion)?;
            for (number, scenario) in scenarios.iter().enumerate() {
                // Who goes first takes turns, too.
                for place in [round % 2, (round + 1) % 2] {
                    let sender = [Sender::Byway, Sender::Kernel][place as usize];
                    let name = format!("{congestion}, {}, round {round}, {sender}", scenario.name);
                    let outcome = say_while(&name, || {
                        line.measure(&byway, congestion, *scenario, round, sender, options.seconds)
                    })?;
                    outcomes[at * scenarios.len() + number][place as usize].push(outcome);
                }
            }
        }
    }
    tell_goodput(options, &scenarios, &outcomes);
    Ok(())
}

fn tell_goodput(options: &Options, scenarios: &[Scenario], outcomes: &[[Vec<Outcome>; 2]]) {
    say(
        "| algorithm | line | byway Mbit/s | kernel Mbit/s | ratio | byway resent (needlessly) | kernel resent (needlessly) |",
    );
    say("|---|---|---:|---:|---:|---:|---:|");
    for (at, congestion) in options.congestion.iter().enumerate() {
        let rows = &outcomes[at * scenarios.len()..];
        for (scenario, both) in scenarios.iter().zip(rows) {
            let [byway, kernel] = both.each_ref().map(|runs| median(runs.iter().map(Outcome::mbits)));
            let resent = both.each_ref().map(|runs| {
                let all = median(runs.iter().map(Outcome::resent));
                let needless = median(runs.iter().map(Outcome::resent_needlessly));
                format!("{:.2} % ({:.2} %)", all * 100.0, needless * 100.0)
            });
            let pairs = both[0].iter().zip(&both[1]);
            let ratio = median(pairs.map(|(byway, kernel)| byway.mbits() / kernel.mbits()));
            let [byways, kernels] = resent;
            let name = scenario.name;
            say(&format!(
                "| {congestion} | {name} | {byway:.1} | {kernel:.1} | {ratio:.2} | {byways} | {kernels} |"
            ));
        }
    }
}

/// Two flows at once.
fn fairness(line: &Line, options: &Options) -> Result<()> {
    use Sender::{Byway, Kernel};
    let pairs = [[Byway, Byway], [Byway, Kernel], [Kernel, Kernel]];
    let mut outcomes = vec![Vec::<Shares>::new(); pairs.len() * options.congestion.len()];
    let total = Duration::from_secs(options.fairness_seconds);
    for round in 0..options.rounds {
        for (at, congestion) in options.congestion.iter().enumerate() {
            let byway = line.serve(congestion)?;
            for (number, pair) in pairs.into_iter().enumerate() {
                let name = format!("{congestion}, {} and {}, round {round}", pair[0], pair[1]);
                let flows = say_while(&name, || line.share(&byway, congestion, round, pair, total))?;
                outcomes[at * pairs.len() + number].push(flows);
            }
        }
    }
    say("");
    say("| algorithm | flows | Mbit/s | Mbit/s | Jain index | worst round |");
    say("|---|---|---:|---:|---:|---:|");
    for (at, congestion) in options.congestion.iter().enumerate() {
        for (number, pair) in pairs.iter().enumerate() {
            let rounds = &outcomes[at * pairs.len() + number];
            let jain: Vec<f64> = rounds.iter().map(|Shares([one, other])| jain(*one, *other)).collect();
            let worst = jain.iter().copied().fold(1.0, f64::min);
            let [one, other] = [0, 1].map(|flow| median(rounds.iter().map(|shares| shares.0[flow])));
            let [first, second] = pair;
            say(&format!(
                "| {congestion} | {first} and {second} | {one:.1} | {other:.1} | {:.3} | {worst:.3} |",
                median(jain.iter().copied())
            ));
        }
    }
    Ok(())
}

/// Jain's index of fairness: 1 for equal shares, 1/2 if one of two has it all.
fn jain(one: f64, other: f64) -> f64 {
    (one + other).powi(2) / (2.0 * (one * one + other * other)).max(f64::MIN_POSITIVE)
}
