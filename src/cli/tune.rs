//! `byway tune`: the settings that a NIC should have under byway, as commands; applies them and takes them back.
//!
//! ```text
//!   Nic, Host ─→ steps.rs: what differs ─→ printed as shell commands
//!                                     └──→ --apply: each undoing into a note, then done ─→ --undo
//! ```
//!
//! Notes lie in a folder that nobody but root may write to: what they say is done with root's privileges, and
//! /run/byway belongs to whoever byway runs as.

mod irqs;
mod steps;

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use byway_datapath::nic::Nic;
use clap::Args;
use serde::{Deserialize, Serialize};

use super::doctor::{Host, Sysfs, is_served};
use super::failure::Failure;
use super::{counted, options, running, say, warn};

/// Where notes lie: until the next boot, as the settings do.
const NOTES: &str = "/run/byway-tune";

/// Options of `byway tune`.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Interface to tune
    #[arg(long, value_name = "IF", value_parser = options::interface)]
    interface: String,

    /// How many queues byway is to serve [default: as many as there are, at most one for each core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    queues: Option<u32>,

    /// Cores, in the order of the queues, as byway serve is told
    #[arg(long, value_name = "auto|1,2,…", default_value = "auto")]
    cores: options::Cores,

    /// For `byway serve --busy-poll on`: interrupts are deferred while byway polls
    #[arg(long)]
    busy_poll: bool,

    /// Whether to reserve huge pages for byway's frames
    #[arg(long, value_enum, default_value_t = options::Switch::On)]
    huge_pages: options::Switch,

    /// Make the changes, and note how to take them back
    #[arg(long, conflicts_with = "undo")]
    apply: bool,

    /// Take back what --apply changed
    #[arg(long)]
    undo: bool,
}

/// One change.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Action {
    /// `ethtool` with these arguments.
    Ethtool(Vec<String>),
    /// A value into a file of /proc or /sys.
    Write { path: String, value: String },
}

impl Action {
    /// As a shell would be told.
    fn shell(&self) -> String {
        match self {
            Self::Ethtool(arguments) => format!("ethtool {}", arguments.join(" ")),
            Self::Write { path, value } => format!("echo {value} > {path}"),
        }
    }

    fn run(&self) -> Result<(), String> {
        match self {
            Self::Write { path, value } => fs::write(path, value).map_err(|error| error.to_string()),
            Self::Ethtool(arguments) => {
                let output = Command::new("ethtool").args(arguments).stdin(Stdio::null()).output();
                let output = output.map_err(|error| match error.kind() {
                    io::ErrorKind::NotFound => "ethtool isn't there: apt install ethtool".to_owned(),
                    _ => error.to_string(),
                })?;
                if output.status.success() {
                    return Ok(());
                }
                let said = String::from_utf8_lossy(&output.stderr).trim().replace('\n', " ");
                Err(if said.is_empty() { output.status.to_string() } else { said })
            }
        }
    }
}

/// A change, why, and its opposite.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Step {
    change: Action,
    back: Action,
    why: String,
}

/// What `--undo` does, last first.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Undo {
    back: Vec<Action>,
}

impl Undo {
    /// What an earlier `--apply` noted; nothing if there was none.
    fn load(path: &Path) -> Result<Self, Failure> {
        match fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(Failure::system(format!("{}: {error}", path.display()))),
            Ok(text) => serde_json::from_slice(&text).map_err(|error| {
                Failure::configuration(format!("{} isn't byway's: {error}", path.display()))
            }),
        }
    }

    fn store(&self, path: &Path) -> Result<(), Failure> {
        let failed = |error: io::Error| Failure::system(format!("{}: {error}", path.display()));
        if self.back.is_empty() {
            return fs::remove_file(path)
                .or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
                .map_err(failed);
        }
        if let Some(directory) = path.parent() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
        }
        let text = serde_json::to_vec_pretty(self).map_err(io::Error::from).map_err(failed)?;
        // Whole or not at all: this is the only note of how things were.
        let new = path.with_extension("new");
        fs::write(&new, text).and_then(|()| fs::rename(&new, path)).map_err(failed)
    }
}

/// `/run/byway-tune/IF@NAMESPACE.json`: an interface of that name in another network namespace is another one.
fn note_of(interface: &str) -> PathBuf {
    let namespace = fs::metadata("/proc/self/ns/net").map_or(0, |namespace| namespace.ino());
    Path::new(NOTES).join(format!("{interface}@{namespace}.json"))
}

/// Prints, applies or undoes.
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let note = note_of(&options.interface);
    if options.undo {
        return undo(&options.interface, &note);
    }
    let nic = Nic::query(&options.interface)?;
    let host = Host::look();
    let cores = running::allowed_cores(&options.cores)?;
    let sysfs = Sysfs::of(&nic);
    if sysfs.is_none() {
        warn(
            "/sys is another network namespace's: interrupts and NAPI are left out; enter it by `ip netns exec`",
        );
    }
    let wanted = steps::Wanted {
        queues: options.queues,
        cores: &cores,
        busy_poll: options.busy_poll,
        huge_pages: options.huge_pages == options::Switch::On,
        served: is_served(&nic),
    };
    let steps = steps::plan(&nic, &host, sysfs.as_ref(), &wanted)?;
    let name = &options.interface;
    match (steps.len(), options.apply) {
        (0, _) => say(&format!("{name} is as byway would have it")),
        (count, false) => {
            let (changes, them) = (counted(count, "change"), if count == 1 { "it" } else { "them" });
            say(&format!("# {changes} for {name}; --apply makes {them}, and --undo takes {them} back"));
            print(&steps);
        }
        (_, true) => apply(name, &steps, &note)?,
    }
    if let Some(pid) = host.irqbalance {
        say(&format!(
            "# irqbalance (pid {pid}) will move interrupts again: systemctl disable --now irqbalance"
        ));
    }
    Ok(())
}

fn print(steps: &[Step]) {
    for step in steps {
        say(&format!("{:<60} # {}", step.change.shell(), step.why));
    }
}

/// Makes every change that can be made. What couldn't be is said, and is a failure at the end.
fn apply(name: &str, steps: &[Step], note: &Path) -> Result<(), Failure> {
    let mut undo = Undo::load(note)?;
    let mut failed = 0;
    for step in steps {
        // Noted before it is done: who is interrupted between can still take it back.
        undo.back.push(step.back.clone());
        undo.store(note)?;
        match step.change.run() {
            Ok(()) => say(&format!("{:<60} # {}", step.change.shell(), step.why)),
            Err(why) => {
                undo.back.pop();
                failed += 1;
                warn(&format!("{}: {why}", step.change.shell()));
            }
        }
    }
    undo.store(note)?;
    if failed > 0 {
        let text = format!(
            "{failed} of {} to {name} could not be made; --undo takes what was made back",
            counted(steps.len(), "change")
        );
        return Err(Failure::system(text));
    }
    Ok(())
}

fn undo(name: &str, note: &Path) -> Result<(), Failure> {
    let mut undo = Undo::load(note)?;
    if undo.back.is_empty() {
        say(&format!("nothing to undo: {} isn't there", note.display()));
        return Ok(());
    }
    let mut left = Vec::new();
    while let Some(back) = undo.back.pop() {
        match back.run() {
            Ok(()) => say(&back.shell()),
            Err(why) => {
                warn(&format!("{}: {why}", back.shell()));
                left.insert(0, back);
            }
        }
    }
    let failed = left.len();
    Undo { back: left }.store(note)?;
    if failed > 0 {
        return Err(Failure::system(format!(
            "{} to {name} could not be taken back, and stays noted in {}",
            counted(failed, "change"),
            note.display()
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn note(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("byway-tune-{name}-{}", std::process::id())).join("eth1.tune")
    }

    fn write(path: &Path, value: &str) -> Action {
        Action::Write { path: path.display().to_string(), value: value.into() }
    }

    /// The first state comes back, also after two applications and with a change that can't be made among them.
    #[test]
    fn what_was_applied_is_taken_back_last_first() {
        let note = note("back");
        let directory = note.parent().expect("a folder").to_owned();
        fs::create_dir_all(&directory).expect("folder");
        let setting = directory.join("setting");
        fs::write(&setting, "a").expect("write");
        let step = |from: &str, to: &str| Step {
            change: write(&setting, to),
            back: write(&setting, from),
            why: String::new(),
        };
        let broken = Step {
            change: write(&directory.join("no/such"), "1"),
            back: write(&directory.join("no/such"), "0"),
            why: String::new(),
        };
        let failure = apply("eth1", &[step("a", "b"), broken], &note).expect_err("one can't be made");
        assert!(failure.message.contains("1 of 2"), "{}", failure.message);
        apply("eth1", &[step("b", "c")], &note).expect("made");
        assert_eq!(fs::read_to_string(&setting).expect("read"), "c");
        undo("eth1", &note).expect("taken back");
        assert_eq!(fs::read_to_string(&setting).expect("read"), "a");
        assert!(!note.exists(), "nothing is left to undo");
        undo("eth1", &note).expect("nothing to do is no failure");
        fs::remove_dir_all(directory).expect("clean");
    }

    #[test]
    fn a_note_that_is_not_byways_is_left_alone() {
        let note = note("foreign");
        fs::create_dir_all(note.parent().expect("a folder")).expect("folder");
        fs::write(&note, "precious").expect("write");
        assert_eq!(undo("eth1", &note).expect_err("not ours").code, Failure::CONFIGURATION);
        assert_eq!(fs::read_to_string(&note).expect("read"), "precious");
        fs::remove_dir_all(note.parent().expect("a folder")).expect("clean");
    }

    #[test]
    fn what_ethtool_says_is_told() {
        let why = Action::Ethtool(vec!["-L".into(), "nosuchif0".into(), "combined".into(), "1".into()]).run();
        let why = why.expect_err("no such interface");
        assert!(!why.is_empty() && !why.contains('\n'), "{why}");
    }
}
