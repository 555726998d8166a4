//! `byway-impair`: a bridge between two interfaces that loses, duplicates, reorders, corrupts and delays frames.

use std::io::Read;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::Result;
use byway_lab::{Directions, Impair, ImpairOptions};
use clap::Parser;

/// Bridges interfaces and impairs what passes, both ways, as the seed says.
///
/// Chances are given as 0.05 or 5%. The same seed does the same to the n-th frame of each direction. Switch
/// offload off at the sending ends (ethtool -K IF tx off tso off gso off gro off): a frame larger than the
/// MTU cannot be bridged, and a flipped bit is not seen behind a partial checksum.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// One interface. Again for more that share the line.
    #[arg(long, value_name = "IF", required = true)]
    a: Vec<String>,
    /// The other interface.
    #[arg(long, value_name = "IF")]
    b: String,
    /// Of everything that is left to chance.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// The chance of a frame to be lost.
    #[arg(long, value_name = "P", default_value = "0", value_parser = chance)]
    loss: f64,
    /// The chance of a frame to arrive twice.
    #[arg(long, value_name = "P", default_value = "0", value_parser = chance)]
    duplicate: f64,
    /// The chance of a frame to be overtaken by the three behind it.
    #[arg(long, value_name = "P", default_value = "0", value_parser = chance)]
    reorder: f64,
    /// The chance of a frame to have one bit flipped, behind the Ethernet header.
    #[arg(long, value_name = "P", default_value = "0", value_parser = chance)]
    corrupt: f64,
    /// How long every frame takes.
    #[arg(long, value_name = "X", default_value = "0", value_parser = milliseconds)]
    delay_ms: Duration,
    /// How much longer or shorter, evenly distributed.
    #[arg(long, value_name = "X", default_value = "0", value_parser = milliseconds)]
    jitter_ms: Duration,
    /// The rate of the line. Without it there is no limit.
    #[arg(long, value_name = "R", value_parser = clap::value_parser!(u64).range(1..))]
    rate_mbit: Option<u64>,
    /// How many frames wait for the line at most.
    #[arg(long, value_name = "N", default_value_t = 1000, requires = "rate_mbit")]
    queue_packets: usize,
    /// How many octets of frames wait for the line at most.
    #[arg(long, value_name = "N", requires = "rate_mbit")]
    queue_octets: Option<usize>,
    /// From how many waiting octets on packets of ECN-capable transports are marked.
    #[arg(long, value_name = "N", requires = "rate_mbit")]
    mark_octets: Option<usize>,
    /// Loses, duplicates, reorders and corrupts only what goes from A to B.
    #[arg(long)]
    one_way: bool,
    /// Ends after this many seconds. Without it, on SIGTERM or SIGINT.
    #[arg(long, value_name = "N")]
    seconds: Option<u64>,
    /// Ends when standard input closes, too: with the process that holds its other end.
    #[arg(long)]
    until_stdin_closes: bool,
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("byway-impair: {error:#}");
            // EX_OSERR, as byway's own programs: the system lacks something, and the message names it.
            ExitCode::from(71)
        }
    }
}

fn run(arguments: Arguments) -> Result<ExitCode> {
    let options = ImpairOptions {
        seed: arguments.seed,
        loss: arguments.loss,
        duplicate: arguments.duplicate,
        reorder: arguments.reorder,
        corrupt: arguments.corrupt,
        delay: arguments.delay_ms,
        jitter: arguments.jitter_ms,
        rate_bits: arguments.rate_mbit.map(|rate| rate.saturating_mul(1_000_000)),
        queue_packets: arguments.queue_packets,
        queue_octets: arguments.queue_octets,
        mark_octets: arguments.mark_octets,
    };
    let mut directions = Directions::from(options);
    if arguments.one_way {
        directions.b_to_a.without_chance();
    }
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    if let Some(seconds) = arguments.seconds {
        let stop = Arc::clone(&stop);
        thread::spawn(move || {
            thread::sleep(Duration::from_secs(seconds));
            stop.store(true, Ordering::Relaxed);
        });
    }
    if arguments.until_stdin_closes {
        let stop = Arc::clone(&stop);
        thread::spawn(move || {
            let mut ignored = [0; 256];
            while std::io::stdin().read(&mut ignored).is_ok_and(|read| read > 0) {}
            stop.store(true, Ordering::Relaxed);
        });
    }

    let ready = || {
        println!("byway-impair ready: {} <-> {}, seed {}", arguments.a.join("+"), arguments.b, arguments.seed)
    };
    let report = Impair::run(&arguments.a, &arguments.b, directions, ready, &stop)?;
    println!("{report}");
    if report.oversized() {
        eprintln!("byway-impair: frames larger than the MTU were lost; what was measured is void");
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

fn chance(text: &str) -> Result<f64, String> {
    let (number, whole) = match text.strip_suffix('%') {
        Some(percent) => (percent, 100.0),
        None => (text, 1.0),
    };
    match number.trim().parse::<f64>().map(|number| number / whole) {
        Ok(chance) if (0.0..=1.0).contains(&chance) => Ok(chance),
        _ => Err("a chance lies between 0 and 1, or 0% and 100%".into()),
    }
}

fn milliseconds(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(number) if (0.0..=3_600_000.0).contains(&number) => Ok(Duration::from_secs_f64(number / 1000.0)),
        _ => Err("a number of milliseconds, at most an hour".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chances_are_fractions_or_percent() {
        assert_eq!(chance("0.05"), Ok(0.05));
        assert_eq!(chance("5%"), Ok(0.05));
        assert_eq!(chance("1"), Ok(1.0));
        for wrong in ["5", "-0.1", "101%", "NaN", "", "%", "few"] {
            assert!(chance(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn milliseconds_have_a_limit() {
        assert_eq!(milliseconds("0.5"), Ok(Duration::from_micros(500)));
        assert!(milliseconds("-1").is_err());
        assert!(milliseconds("1e300").is_err());
    }
}
