//! A program of one's own on byway: options, cores, ready line, signals and the end are the same as `byway serve`'s.
//!
//! ```text
//!   command line ──→ own options ──→ setup ──→ ports and make_app ──→ an application on each core
//!        └──→ --interface, --address, --backend, --cores …            ready line, `byway conns`, drain, exit code
//! ```
//!
//! ```no_run
//! use byway::launch::{Setup, launch};
//! # use byway_tcp::app::{App, Closed, Conn, Ready};
//! # struct Discard;
//! # impl App for Discard {
//! #     fn opened<C: Conn>(&mut self, _: &mut C) {}
//! #     fn ready<C: Conn>(&mut self, _: &mut C, _: Ready) {}
//! #     fn closed<C: Conn>(&mut self, _: &mut C, _: Closed) {}
//! # }
//!
//! /// Throws away what arrives
//! #[derive(clap::Args)]
//! struct Options {
//!     /// Port to listen on
//!     #[arg(long, default_value_t = 9)]
//!     port: u16,
//! }
//!
//! fn main() -> std::process::ExitCode {
//!     launch(|options: Options| Ok(Setup::new(|_core| Discard).listen("discard", options.port)))
//! }
//! ```
//!
//! Run with `--backend kernel` it serves anywhere and without privileges; with `--interface eth1 --address 192.0.2.7/24`
//! on byway's own TCP. `byway stats` and `byway conns` ask it by its `--control` socket.
//!
//! A client is the same without `listen`: its application opens connections in [`App::turn`], and says by
//! [`Core::end`] that it is done. Clients need an interface of one queue, or one that tells its RSS key: answers
//! have to reach the core that asked.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use byway_datapath::control::Waker;
use byway_tcp::app::App;
use clap::{ArgMatches, Args, Command, FromArgMatches};

use crate::app::WallClock;
use crate::cli::failure::Failure;
use crate::cli::options::{Launch, Network, Serving};
use crate::cli::{self, config_file, serve, usage};

/// What is to run: an application for each core, and the ports it is reached at.
#[derive(Debug)]
pub struct Setup<F> {
    make_app: F,
    services: Vec<(String, u16)>,
}

impl<F> Setup<F> {
    /// `make_app` is called once on each core's own thread; what it makes never leaves that.
    pub fn new<A: App>(make_app: F) -> Self
    where
        F: Fn(Core) -> A + Send + Sync + 'static,
    {
        Self { make_app, services: Vec::new() }
    }

    /// Opens `port` on every core; `name` says in the ready line what is spoken there.
    pub fn listen(mut self, name: &str, port: u16) -> Self {
        self.services.push((name.to_owned(), port));
        self
    }
}

/// An application's core, and its word to the rest of the program.
#[derive(Clone, Debug)]
pub struct Core {
    place: usize,
    count: usize,
    waker: Waker,
    ports: Arc<[u16]>,
    end: Arc<End>,
    /// Has said that it is done; once counts.
    done: Arc<AtomicBool>,
}

/// How the program ends.
#[derive(Debug)]
struct End {
    stop: Arc<AtomicBool>,
    stopped: AtomicBool,
    done: AtomicUsize,
    failed: Mutex<Option<String>>,
}

impl End {
    /// As SIGTERM does; once, for a second time would cut the drain short.
    fn stop(&self) {
        if !self.stopped.swap(true, Ordering::Relaxed) {
            self.stop.store(true, Ordering::Relaxed);
        }
    }
}

impl Core {
    /// Its place among the program's cores, from 0.
    pub fn place(&self) -> usize {
        self.place
    }

    /// How many cores there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Ports that were opened by [`Setup::listen`].
    pub fn ports(&self) -> &[u16] {
        &self.ports
    }

    /// Ends this core's sleep, from any thread; costs a system call.
    pub fn wake(&self) {
        self.waker.wake();
    }

    /// This core has nothing more to do. Once all cores have said so, the program closes its connections in order, as
    /// far as they do within `--drain`, and ends with exit code 0. An error ends it at once: the first one is its last
    /// line on standard error, and the exit code is 1.
    pub fn end(&self, result: Result<(), String>) {
        match result {
            Ok(()) => {
                let first = !self.done.swap(true, Ordering::Relaxed);
                if first && self.end.done.fetch_add(1, Ordering::Relaxed) + 1 == self.count {
                    self.end.stop();
                }
            }
            Err(why) => {
                let mut failed = self.end.failed.lock().unwrap_or_else(PoisonError::into_inner);
                failed.get_or_insert(why);
                self.end.stop();
            }
        }
    }
}

/// Runs a program: parses the command line, of which `O` is the program's own part, and serves what `setup` makes of
/// that until a signal, a failure or [`Core::end`].
///
/// `--help` describes `O` by its doc comment and `#[command(…)]` attributes, as clap's derive does. What `setup` finds
/// wrong with its options is said in a line, with exit code 78; all codes are those of `byway serve` (`--help` lists
/// them).
pub fn launch<O, F, A>(setup: impl FnOnce(O) -> Result<Setup<F>, String>) -> ExitCode
where
    O: Args,
    F: Fn(Core) -> A + Send + Sync + 'static,
    A: App,
{
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let name = arguments.first().and_then(|path| Path::new(path).file_name());
    let name = name.map_or_else(|| "byway".to_owned(), |name| name.to_string_lossy().into_owned());
    cli::set_speaker(&name);
    let command = command::<O>(&name);
    let matches = match parse(&command, arguments) {
        Ok(matches) => matches,
        Err(Parsing::Wrong(failure)) => return cli::end(Err(failure)),
        // `--help`, `--version`. That nobody reads them is no reason to fail.
        Err(Parsing::Shown(shown)) => {
            let _ = shown.print();
            return ExitCode::SUCCESS;
        }
    };
    cli::end(run(&matches, setup))
}

/// Options in the order of `byway serve`: the network's, the program's, then how much and how long.
fn command<O: Args>(name: &str) -> Command {
    let own = O::augment_args(Command::new(name.to_owned()));
    let (about, long_about) = (own.get_about().cloned(), own.get_long_about().cloned());
    let command = Network::augment_args(Command::new(name.to_owned()));
    let command = Serving::augment_args(O::augment_args(command));
    // Each part describes itself; what is wanted is what the program says of itself, if it does.
    let command =
        command.about(about.unwrap_or_default()).args_override_self(true).after_help(cli::EXIT_CODES);
    match long_about {
        Some(long_about) => command.long_about(long_about),
        None => command.long_about(None::<&str>),
    }
}

/// Why there are no options.
enum Parsing {
    Wrong(Failure),
    Shown(clap::Error),
}

fn parse(command: &Command, mut arguments: Vec<OsString>) -> Result<ArgMatches, Parsing> {
    if arguments.is_empty() {
        arguments.push(command.get_name().into());
    }
    let try_parse = |all: &[OsString]| command.clone().try_get_matches_from(all);
    let spliced = config_file::splice(arguments, 1, |alone| try_parse(alone).map(drop));
    try_parse(&spliced.map_err(Parsing::Wrong)?).map_err(|error| {
        if error.use_stderr() { Parsing::Wrong(usage::failure(&error)) } else { Parsing::Shown(error) }
    })
}

fn run<O, F, A>(
    matches: &ArgMatches,
    setup: impl FnOnce(O) -> Result<Setup<F>, String>,
) -> Result<(), Failure>
where
    O: Args,
    F: Fn(Core) -> A + Send + Sync + 'static,
    A: App,
{
    let wrong = |error: clap::Error| usage::failure(&error);
    let (network, serving) = (Network::from_arg_matches(matches), Serving::from_arg_matches(matches));
    let own = O::from_arg_matches(matches).map_err(wrong)?;
    let Setup { make_app, services } = setup(own).map_err(Failure::configuration)?;
    let options = Launch {
        network: network.map_err(wrong)?,
        serving: serving.map_err(wrong)?,
        services,
        clock: WallClock::default(),
        reload: None,
    };
    if options.serving.check {
        return serve::check(&options);
    }
    let stop = serve::stop_flag(&[libc::SIGTERM, libc::SIGINT])?;
    let end = Arc::new(End {
        stop: Arc::clone(&stop),
        stopped: AtomicBool::new(false),
        done: AtomicUsize::new(0),
        failed: Mutex::new(None),
    });
    let ports: Arc<[u16]> = options.services.iter().map(|&(_, port)| port).collect();
    let ending = Arc::clone(&end);
    let make_app = move |seat: serve::Seat| {
        let serve::Seat { place, count, waker } = seat;
        let (ports, end) = (Arc::clone(&ports), Arc::clone(&ending));
        make_app(Core { place, count, waker, ports, end, done: Arc::default() })
    };
    serve::run_app(&options, &stop, serve::say_ready, make_app)?;
    let failed = end.failed.lock().unwrap_or_else(PoisonError::into_inner).take();
    failed.map_or(Ok(()), |message| Err(Failure { code: Failure::PROGRAM, message }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Does nothing, for a test
    #[derive(Args, Debug)]
    struct Own {
        /// A word
        #[arg(long, default_value = "word")]
        word: String,
    }

    fn parsed(arguments: &str) -> Result<ArgMatches, String> {
        let arguments = format!("own {arguments}").split_whitespace().map(OsString::from).collect();
        parse(&command::<Own>("own"), arguments).map_err(|why| match why {
            Parsing::Wrong(failure) => failure.message,
            Parsing::Shown(shown) => shown.to_string(),
        })
    }

    #[test]
    fn own_options_stand_beside_the_networks() {
        let matches =
            parsed("--backend kernel --word other --max-connections 7 --word last").expect("parses");
        assert_eq!(Own::from_arg_matches(&matches).expect("own").word, "last");
        let serving = Serving::from_arg_matches(&matches).expect("serving");
        assert_eq!(serving.max_connections, 7);
        let help = parsed("--help").expect_err("shown");
        assert!(help.starts_with("Does nothing, for a test\n"), "{help}");
        let place = |option: &str| help.find(option).unwrap_or_else(|| panic!("{option} in {help}"));
        assert!(place("--backend") < place("--word") && place("--word") < place("--drain"), "{help}");
        assert!(help.contains("Exit codes:"), "{help}");
    }

    #[test]
    fn mistakes_are_said_as_byway_says_them() {
        assert_eq!(
            parsed("--backend kernel --wrod x").expect_err("typo"),
            "unexpected argument '--wrod' found; a similar argument exists: '--word'"
        );
        assert!(parsed("").expect_err("no interface").contains("--interface <IF>"));
    }

    #[test]
    fn the_last_core_ends_the_program_and_an_error_at_once() {
        let stop = Arc::new(AtomicBool::new(false));
        let end = Arc::new(End {
            stop: Arc::clone(&stop),
            stopped: AtomicBool::new(false),
            done: AtomicUsize::new(0),
            failed: Mutex::new(None),
        });
        let core = |place| Core {
            place,
            count: 2,
            waker: Waker::new().expect("eventfd"),
            ports: Arc::default(),
            end: Arc::clone(&end),
            done: Arc::default(),
        };
        let (first, second) = (core(0), core(1));
        first.end(Ok(()));
        first.clone().end(Ok(()));
        assert!(!stop.load(Ordering::Relaxed), "the other still works");
        second.end(Ok(()));
        assert!(stop.swap(false, Ordering::Relaxed));
        second.end(Err("too late to stop, not too late to say".to_owned()));
        assert!(!stop.load(Ordering::Relaxed), "a second signal would cut the drain short");
        assert!(end.failed.lock().expect("whole").is_some());
    }
}
