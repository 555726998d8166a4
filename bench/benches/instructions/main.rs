//! `make bench-check`: the instructions that byway's path through memory takes, held against `bench/instructions.toml`.
//!
//! ```text
//!   make bench-check ──▶ this program ──▶ valgrind --tool=callgrind this program --run CASE N     (and 2N)
//!                            │                                    └─ counted: what runs inside `timed`
//!                            └─ (count of 2N - count of N) / N beside the baseline: a table; 5 % above it fails
//! ```
//!
//! Time on a shared machine differs by tens of per cent from run to run; the number of instructions doesn't, and most
//! of what makes the path slower shows in it (not cache misses: they are for `cargo bench`). The difference of two runs
//! leaves out what happens once. Another compiler, another libc or another processor (libc's copies choose their
//! instructions by it) may count otherwise: then look, and take the new counts over with `make bench-check UPDATE=1`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, ExitCode};
use std::time::Duration;

use byway_bench::bulk::{Receiving, Sending};
use byway_bench::connections::Connections;
use byway_bench::exchange::Exchanges;
use byway_datapath::capture::Wish;
use serde::Deserialize;

const BASELINE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/instructions.toml");
/// What is more than this above the baseline is a failure. Counts repeat to 0.1 %; ordinary changes of the packet path
/// stay within 1 or 2 %.
const TOLERANCE: f64 = 0.05;
/// By mangled and demangled name alike, whatever its type parameters.
const COUNTED: &str = "*byway_bench*timed*";

/// Something that is done so many times.
struct Case {
    name: &'static str,
    /// How often in the shorter run: some seconds under valgrind.
    count: u64,
    run: fn(u64) -> Duration,
}

/// Instructions of byway's own in a second of a core that is full. 627,000 requests over veth at 6,184 each were 3.9
/// thousand million in two fifths of the second (commit c597ae8); at 4,527 each, which leaves more of it to the kernel,
/// the same speed makes 3.2. Rounded down.
const SECOND: u64 = 3_100_000_000;
/// What may go to showing the core to people and scrapers meanwhile.
const WATCHING_MAX: f64 = 0.01;
/// That is: so many connections shown, once, and so many snapshots. `byway conns` beside a busy core is slower than
/// that, for it measures what a page costs in time, cache misses included, and waits 99 times as long before the next.
const SHOWN: u64 = 100_000;
const SNAPSHOTS: u64 = 100;
const SHOW: &str = "connection shown, of 4,096";
const SNAPSHOT: &str = "snapshot of the counters, given and taken";

const CASES: [Case; 10] = [
    Case {
        name: "64 octets echoed, one segment a turn",
        count: 32_768,
        run: |count| Exchanges::echo(1).run(1, count),
    },
    Case {
        name: "64 octets echoed, 64 segments a turn",
        count: 32_768,
        run: |count| Exchanges::echo(1).run(64, count),
    },
    Case {
        name: "64 octets echoed, 64 segments a turn, captured",
        count: 32_768,
        run: |count| Exchanges::echo(1).watched(&wish("tcp")).run(64, count),
    },
    Case {
        name: "64 octets echoed, 64 segments a turn, none wanted by a filter",
        count: 32_768,
        run: |count| Exchanges::echo(1).watched(&wish("udp port 53 or arp")).run(64, count),
    },
    Case { name: SHOW, count: 65_536, run: |count| Exchanges::echo(4096).show(count) },
    Case {
        name: "GET /hello, 64 connections, 64 segments a turn",
        count: 16_384,
        run: |count| Exchanges::hello(64).run(64, count),
    },
    Case { name: SNAPSHOT, count: 8192, run: |count| Exchanges::echo(64).snapshots(count) },
    Case {
        name: "connection: open, request and answer, close",
        count: 8192,
        run: |count| Connections::default().run(count),
    },
    Case { name: "full segment received", count: 16_384, run: |count| Receiving::default().run(count) },
    Case { name: "full segment sent", count: 16_384, run: |count| Sending::default().run(count) },
];

/// Whole frames.
fn wish(filter: &str) -> Wish {
    Wish { filter: Some(filter.parse().expect("a filter")), snaplen: 2048, discarded: false }
}

/// `bench/instructions.toml`.
#[derive(Debug, Deserialize)]
struct Baseline {
    rustc: String,
    valgrind: String,
    target: String,
    instructions: BTreeMap<String, u64>,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let result = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => check(),
        ["--update"] => update(),
        ["--run", name, count] => run(name, count),
        _ => Err("make bench-check, or make bench-check UPDATE=1".to_owned()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("bench-check: {why}");
            ExitCode::FAILURE
        }
    }
}

/// What happens under valgrind.
fn run(name: &str, count: &str) -> Result<(), String> {
    let case = CASES.iter().find(|case| case.name == name).ok_or("no such case")?;
    (case.run)(count.parse().map_err(|_| "no number")?);
    Ok(())
}

fn check() -> Result<(), String> {
    let hint = "`make bench-check UPDATE=1` writes it";
    let text = std::fs::read_to_string(BASELINE).map_err(|why| format!("{BASELINE}: {why}: {hint}"))?;
    let baseline: Baseline = toml::from_str(&text).map_err(|why| format!("{BASELINE}: {why}"))?;
    let now = measure(Some(&baseline))?;
    for (before, now) in
        [(&baseline.rustc, &now.rustc), (&baseline.valgrind, &now.valgrind), (&baseline.target, &now.target)]
    {
        if before != now {
            say(&format!("note: the baseline is of {before}, this is {now}"));
        }
    }
    let watching = watching(&now.instructions);
    say(&format!(
        "\n{SHOWN} connections shown and {SNAPSHOTS} snapshots are {:.2} % of {SECOND} instructions, a core's second",
        watching * 100.0
    ));
    if watching > WATCHING_MAX {
        return Err(format!("being watched may cost a core {:.0} %", WATCHING_MAX * 100.0));
    }
    let worse = now.instructions.iter().filter(|(name, count)| match baseline.instructions.get(*name) {
        Some(&before) => change(before, **count) > TOLERANCE,
        None => true,
    });
    let worse: Vec<&str> = worse.map(|(name, _)| name.as_str()).collect();
    if worse.is_empty() {
        return Ok(());
    }
    Err(format!(
        "more than {:.0} % above the baseline, or without one: {}. If that is what it costs: \
         `make bench-check UPDATE=1`, and commit bench/instructions.toml with the reason",
        TOLERANCE * 100.0,
        worse.join("; ")
    ))
}

/// The part of a core's instructions that being watched takes.
fn watching(instructions: &BTreeMap<String, u64>) -> f64 {
    let of = |name: &str| instructions.get(name).copied().unwrap_or(u64::MAX / SHOWN);
    let watching = SHOWN * of(SHOW) + SNAPSHOTS * of(SNAPSHOT);
    watching as f64 / SECOND as f64
}

fn update() -> Result<(), String> {
    let text = std::fs::read_to_string(BASELINE).unwrap_or_default();
    let now = measure(toml::from_str(&text).ok().as_ref())?;
    let mut text = String::from(
        "# Instructions that each of these takes, counted by callgrind on the bench profile.\n\
         # `make bench-check` compares, `make bench-check UPDATE=1` writes this file.\n",
    );
    for (key, value) in [("rustc", &now.rustc), ("valgrind", &now.valgrind), ("target", &now.target)] {
        let _ = writeln!(text, "{key} = {value:?}");
    }
    text += "\n[instructions]\n";
    for (name, count) in &now.instructions {
        let _ = writeln!(text, "{name:?} = {count}");
    }
    std::fs::write(BASELINE, text).map_err(|why| format!("{BASELINE}: {why}"))
}

/// Counts everything, and prints a row for each.
fn measure(baseline: Option<&Baseline>) -> Result<Baseline, String> {
    let valgrind = first_line("valgrind").ok_or("valgrind is missing: deploy/install-deps.sh bench")?;
    let mut now = Baseline {
        rustc: first_line("rustc").unwrap_or_else(|| "unknown".to_owned()),
        valgrind,
        target: format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS),
        instructions: BTreeMap::new(),
    };
    say("| instructions for | now | baseline | change |");
    say("|---|---:|---:|---:|");
    for case in &CASES {
        let each = (counted(case, 2 * case.count)? - counted(case, case.count)?) / case.count as f64;
        let each = each.round() as u64;
        let before = baseline.and_then(|baseline| baseline.instructions.get(case.name));
        let row = match before {
            Some(&before) => format!("{before} | {:+.1} %", change(before, each) * 100.0),
            None => "none |".to_owned(),
        };
        say(&format!("| {} | {each} | {row} |", case.name));
        now.instructions.insert(case.name.to_owned(), each);
    }
    Ok(now)
}

fn change(before: u64, now: u64) -> f64 {
    now as f64 / before as f64 - 1.0
}

/// Instructions inside `timed` while `count` of `case` are done.
fn counted(case: &Case, count: u64) -> Result<f64, String> {
    let program = std::env::current_exe().map_err(|why| why.to_string())?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(format!("--toggle-collect={COUNTED}"))
        .arg(program)
        .args(["--run", case.name, &count.to_string()])
        .output()
        .map_err(|why| format!("valgrind: {why}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let collected = said.lines().find_map(|line| line.split("Collected : ").nth(1));
    match collected.and_then(|count| count.trim().parse::<f64>().ok()) {
        Some(collected) if output.status.success() && collected > 0.0 => Ok(collected),
        _ => Err(format!("{}: {}: {said}", case.name, output.status)),
    }
}

/// `PROGRAM --version`, shortened to its first line.
fn first_line(program: &str) -> Option<String> {
    let output = Command::new(program).arg("--version").output().ok()?;
    String::from_utf8_lossy(&output.stdout).lines().next().map(|line| line.trim().to_owned())
}

/// A line of the table. Nobody may be reading.
fn say(text: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}
