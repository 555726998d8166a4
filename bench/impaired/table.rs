//! What is printed.

use std::fmt::Display;
use std::io::Write as _;

use anyhow::Result;

use crate::common::told;

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

/// Where and of what the table is.
pub(crate) fn environment() -> String {
    let kernel = told("uname -r").unwrap_or_else(|| "unknown".to_owned());
    let commit = told("git describe --always --dirty").unwrap_or_else(|| "unknown".to_owned());
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!(
        "Linux {kernel}, {cores} cores shared by everything, veth in AF_XDP copy mode, no offloads, byway at {commit}; \
         100 Mbit/s, 20 ms each way, 500,000 octets of queue.\n"
    )
}
