//! What is printed.

use std::fmt::Display;
use std::io::Write as _;
use std::process::Command;

use anyhow::Result;

/// A line of the table. Nobody may be reading.
pub(crate) fn say(text: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

/// Says on standard error what a run gave.
pub(crate) fn say_while<T: Display>(name: &str, run: impl FnOnce() -> Result<T>) -> Result<T> {
    let outcome = run()?;
    eprintln!("{name}: {outcome}");
    Ok(outcome)
}

/// The middle value, or the mean of both middle values; not a number if there is none.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        len => (values[(len - 1) / 2] + values[len / 2]) / 2.0,
    }
}

/// Where and of what the table is.
pub(crate) fn environment() -> String {
    let told = |command: &str| {
        let mut words = command.split(' ');
        let output = Command::new(words.next()?).args(words).output().ok()?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned()).filter(|text| !text.is_empty())
    };
    let kernel = told("uname -r").unwrap_or_else(|| "unknown".to_owned());
    let commit = told("git describe --always --dirty").unwrap_or_else(|| "unknown".to_owned());
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!(
        "Linux {kernel}, {cores} cores shared by everything, veth in AF_XDP copy mode, no offloads, byway at {commit}; \
         100 Mbit/s, 20 ms each way, 500,000 octets of queue.\n"
    )
}
