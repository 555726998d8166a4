//! SIGHUP: what may change while byway serves is read anew, and the cores take it between two turns.
//!
//! ```text
//!   SIGHUP → file and command line as at the start → is it valid, and is all else as it was? ──yes──→ every core
//!                                                                  └──no──→ a line says why; what ran goes on (P8)
//! ```
//!
//! Connections live on, those over TLS with the keys they have; the handshakes that begin from then on are made with
//! the new certificate.

use std::ffi::OsString;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use byway_datapath::control::Message;
use byway_datapath::runtime::Runtime;
use clap::{ArgMatches, CommandFactory as _, FromArgMatches as _};

use super::failure::Failure;
use super::options::Serve;
use super::serve::{stop_flag, tell_systemd};
use super::{Cli, config_file, serve, usage, warn};

/// What may change. All else would take a new socket, a new program or other memory: that is a restart.
const MAY_CHANGE: [&str; 3] = ["tls-cert", "tls-key", "origin"];

/// The same for people.
pub(super) const HELP: &str = "SIGHUP (systemctl reload) reads --tls-cert, --tls-key and --origin anew, from --config \
    and from the files they name: for what connects from then on. What is wrong, or would change anything else, \
    changes nothing, and a line says why.";

/// How a program reads its configuration anew, and whether it was asked to.
#[derive(Clone)]
pub(crate) struct Reload {
    asked: Arc<AtomicBool>,
    read: Arc<dyn Fn() -> Result<Message, Failure> + Send + Sync>,
}

impl fmt::Debug for Reload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reload").field("asked", &self.asked).finish_non_exhaustive()
    }
}

impl Reload {
    /// For `byway serve`, which was started with `arguments`, from now on: until here SIGHUP ends the process.
    pub(crate) fn on_hangup(arguments: Vec<OsString>) -> Result<Self, Failure> {
        let first = parse(&arguments)?;
        let read = move || {
            let now = parse(&arguments)?;
            if let Some(name) = changed(&first, &now) {
                return Err(Failure::configuration(format!(
                    "--{name} can't change while byway runs: restart it for that, or take the change back"
                )));
            }
            let options = Serve::from_arg_matches(&now).map_err(|error| usage::failure(&error))?;
            options.launch().check()?;
            Ok(Arc::new(serve::renewal(&options)?) as Message)
        };
        Ok(Self { asked: stop_flag(&[libc::SIGHUP])?, read: Arc::new(read) })
    }

    /// Does it, if asked to.
    pub(super) fn look(&self, runtime: &Runtime) {
        if !self.asked.swap(false, Ordering::Relaxed) {
            return;
        }
        // For Type=notify-reload it says since when (sd_notify(3)); CLOCK_MONOTONIC, in microseconds.
        let now = byway_datapath::clock::Clock.now().since(byway_tcp::time::Instant::ZERO);
        tell_systemd(&format!("RELOADING=1\nMONOTONIC_USEC={}", now.as_micros()));
        warn(&match (self.read)() {
            Ok(message) if runtime.tell_apps(&message) => "reloaded".to_owned(),
            Ok(_) => {
                "not reloaded everywhere: a core doesn't hear of it, it has ended or stands still".to_owned()
            }
            Err(failure) => format!("not reloaded, all is as it was: {}", failure.message),
        });
        tell_systemd("READY=1");
    }
}

/// What the command line and the file say together.
fn parse(arguments: &[OsString]) -> Result<ArgMatches, Failure> {
    let all = config_file::splice_for_serve(arguments.to_vec())?;
    let mut matches = Cli::command().try_get_matches_from(all).map_err(|error| usage::failure(&error))?;
    match matches.remove_subcommand() {
        Some((_, serve)) => Ok(serve),
        None => Err(Failure::configuration("no verb")),
    }
}

/// The first option that may not change and has.
fn changed(first: &ArgMatches, now: &ArgMatches) -> Option<String> {
    let command = Cli::command();
    let serve = command.find_subcommand("serve")?;
    let fixed = |arg: &&clap::Arg| arg.get_long().is_some_and(|name| !MAY_CHANGE.contains(&name));
    let raw = |matches: &ArgMatches, id: &clap::Id| -> Vec<OsString> {
        matches.get_raw(id.as_str()).into_iter().flatten().map(OsString::from).collect()
    };
    let arg =
        serve.get_arguments().filter(fixed).find(|arg| raw(first, arg.get_id()) != raw(now, arg.get_id()))?;
    arg.get_long().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p8_only_what_may_change_may_change() {
        let file = std::env::temp_dir().join(format!("byway-reload-{}.toml", std::process::id()));
        let arguments = ["byway", "serve", "--interface", "eth0", "--config", file.to_str().expect("UTF-8")];
        let arguments: Vec<OsString> = arguments.map(OsString::from).into();
        let of = |text: &str| {
            std::fs::write(&file, text).expect("writes");
            parse(&arguments).map_err(|failure| failure.message)
        };
        let address = "address = [\"192.0.2.7/24\"]\n";
        let first = of(address).expect("parses");
        for (text, name) in [
            ("origin = [\"https://example.org\"]", None),
            ("tls-port = 443\ntls-cert = \"a\"\ntls-key = \"b\"", Some("tls-port")),
            ("port = 80", None),
            ("port = 81", Some("port")),
            ("host-address = false", None),
            ("accept-partial-checksums = true", Some("accept-partial-checksums")),
            ("drain = \"1s\"", Some("drain")),
            ("max-connections-per-peer = 5", Some("max-connections-per-peer")),
        ] {
            let now = of(&format!("{address}{text}\n")).expect(text);
            assert_eq!(changed(&first, &now).as_deref(), name, "{text}");
        }
        let now = of("address = [\"192.0.2.7/24\", \"192.0.2.8/24\"]\n").expect("parses");
        assert_eq!(changed(&first, &now).as_deref(), Some("address"));
        assert!(of("porrt = 80").expect_err("no such option").contains("--port"));
        std::fs::remove_file(&file).expect("removes");
        assert!(parse(&arguments).expect_err("no file").message.contains("byway-reload"));
    }
}
