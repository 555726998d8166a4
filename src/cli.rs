//! The command line: verbs, exit codes, and one line per error.
//!
//! ```text
//!   byway serve ──→ serve.rs ─┬→ running.rs: steering, cores ─────┐ control.rs: a Unix socket,
//!   byway conns ──→ conns.rs ──┐                                 │ mode 0600, its own thread
//!   byway stats ──→ stats.rs ──┼── one question, one answer ────→┘
//!   byway capture → capture.rs ┘   (or a stream of frames)
//! ```

mod capture;
mod clients;
pub(crate) mod config_file;
mod conns;
mod control;
mod demo;
mod doctor;
pub(crate) mod failure;
mod host;
mod link_watch;
mod load;
mod metrics;
mod notify;
pub(crate) mod options;
mod reload;
mod running;
pub(crate) mod serve;
mod sockets;
mod stats;
mod top;
mod tune;
pub(crate) mod usage;

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::OnceLock;

use clap::{Parser, Subcommand};

use failure::Failure;

pub(crate) const EXIT_CODES: &str = "Exit codes: 0 done, 2 usage, 69 device gone, 71 the system lacks something, \
                                     77 permission, 78 configuration";

/// Who speaks on standard error, if it isn't `byway` itself.
static SPEAKER: OnceLock<String> = OnceLock::new();

#[derive(Parser, Debug)]
#[command(
    name = "byway",
    version,
    // Then also a bare `byway` is told in a line which verbs there are.
    arg_required_else_help = false,
    about = "HTTP and WebSocket over a kernel-bypass TCP/IP stack on AF_XDP",
    after_help = EXIT_CODES
)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// Serve HTTP, WebSocket and raw TCP on an interface
    Serve(options::Serve),
    /// Drive an HTTP, WebSocket or echo server from byway's own client side, and measure it
    Load(load::Options),
    /// Show byway at work between two network namespaces; leaves nothing behind
    Demo,
    /// Tell what this host, its kernel and a NIC really give, and the commands that mend what is missing
    Doctor(doctor::Options),
    /// Print, apply or undo the settings a NIC should have under byway
    Tune(tune::Options),
    /// Show connections, as `ss -tan` does for the kernel's
    Conns(conns::Options),
    /// Show counters, as `nstat` does for the kernel's
    Stats(stats::Options),
    /// Show or write down what a running byway receives and sends, and why it discards what it does, as `tcpdump`
    /// does for the kernel's
    Capture(capture::Options),
    /// Show what a running byway does, each second anew
    Top(top::Options),
}

/// Runs the verb; an error becomes one line on standard error and an exit code.
pub fn main() -> ExitCode {
    let arguments = match config_file::splice_for_serve(std::env::args_os().collect()) {
        Ok(arguments) => arguments,
        Err(failure) => return end(Err(failure)),
    };
    end(match Cli::try_parse_from(&arguments) {
        Ok(Cli { verb: Verb::Serve(options) }) if options.print_config => {
            say(config_file::print(&arguments).trim_end());
            Ok(())
        }
        Ok(cli) => run(cli.verb),
        Err(error) if error.use_stderr() => Err(usage::failure(&error)),
        // `--help` and `--version`. That nobody reads them is no reason to fail.
        Err(shown) => {
            let _ = shown.print();
            Ok(())
        }
    })
}

/// Says what went wrong, if something did.
pub(crate) fn end(result: Result<(), Failure>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            warn(&failure.message);
            ExitCode::from(failure.code)
        }
    }
}

fn run(verb: Verb) -> Result<(), Failure> {
    match verb {
        Verb::Serve(options) => serve::run(&options),
        Verb::Load(options) => load::run(&options),
        Verb::Demo => demo::run(),
        Verb::Doctor(options) => doctor::run(&options),
        Verb::Tune(options) => tune::run(&options),
        Verb::Conns(options) => conns::run(&options),
        Verb::Stats(options) => stats::run(&options),
        Verb::Capture(options) => capture::run(&options),
        Verb::Top(options) => top::run(&options),
    }
}

/// So many of a thing, whose plural is regular.
fn counted(count: impl TryInto<u64>, thing: &str) -> String {
    match count.try_into().unwrap_or(u64::MAX) {
        1 => format!("1 {thing}"),
        count if thing.ends_with('s') => format!("{count} {thing}es"),
        count => format!("{count} {thing}s"),
    }
}

/// One line on standard output. That nobody reads it is no reason to fail.
fn say(message: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{message}");
}

/// Says from now on who warns: the program that was launched.
pub(crate) fn set_speaker(name: &str) {
    let _ = SPEAKER.set(name.to_owned());
}

/// One line on standard error. That nobody reads it is no reason to fail.
fn warn(message: &str) {
    let speaker = SPEAKER.get().map_or("byway", String::as_str);
    let _ = writeln!(std::io::stderr().lock(), "{speaker}: {}", message.replace('\n', " "));
}
