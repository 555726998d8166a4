//! What can go wrong, each as one line that says what to do about it.

use std::fmt;
use std::io;

use crate::attach::Mode;
use crate::capabilities::{Capabilities, Capability};

/// Why the frames could not be steered.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The process may not load or attach XDP programs.
    #[error(
        "no permission to load and attach an XDP program: this process lacks {missing}; \
         run it as root, or grant CAP_NET_ADMIN, CAP_BPF and CAP_PERFMON (systemd: AmbientCapabilities=)"
    )]
    Permission {
        /// The capabilities that are not there.
        missing: String,
    },
    /// No interface has this index.
    #[error("no interface with index {ifindex}: it is gone, or in another network namespace (see `ip link`)")]
    NoInterface {
        /// The index asked for.
        ifindex: i32,
    },
    /// Somebody else's program is on the interface.
    #[error("an XDP program is already on {interface}: {occupant}")]
    Occupied {
        /// The interface's name.
        interface: String,
        /// Who is there.
        occupant: Occupant,
    },
    /// The driver has no XDP of its own.
    #[error("{interface}'s driver has no native XDP ({source}): use --attach auto or generic")]
    NativeUnsupported {
        /// The interface's name.
        interface: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// Large receive offload merges segments before XDP could see them.
    #[error(
        "{interface} has large-receive-offload on, which excludes native XDP: `ethtool -K {interface} lro off`"
    )]
    LroOn {
        /// The interface's name.
        interface: String,
    },
    /// Frames of this interface (or of its peer) do not fit the driver's XDP buffers.
    #[error(
        "{interface}'s MTU {mtu}, or its peer's, is too large for native XDP: `ip link set dev {interface} mtu 1500`"
    )]
    MtuTooLarge {
        /// The interface's name.
        interface: String,
        /// Its MTU now.
        mtu: u32,
    },
    /// The driver wants more queues for XDP than there are.
    #[error(
        "{interface} has too few queues for native XDP ({source}): see `ethtool -l {interface}`; a veth needs as many to \
         receive as its peer has to send: there, `ethtool -L PEER tx N`"
    )]
    TooFewQueues {
        /// The interface's name.
        interface: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel did not give the memory.
    #[error(
        "the kernel refused memory for the XDP program's maps: raise the limit of locked memory \
         (`ulimit -l unlimited`, systemd: LimitMEMLOCK=infinity)"
    )]
    Memlock,
    /// The queue's number is beyond what the socket map holds.
    #[error("queue {queue} is beyond the {limit} queues that the XDP program serves")]
    NoSuchQueue {
        /// The queue asked for.
        queue: u32,
        /// How many there can be.
        limit: u32,
    },
    /// A map is full.
    #[error("no more than {limit} {what}")]
    Full {
        /// What there are too many of.
        what: &'static str,
        /// How many there can be.
        limit: u32,
    },
    /// The interface refused the program for a reason without a remedy of its own here.
    #[error("cannot attach the XDP program to {interface} in {mode} mode: {source}")]
    Attach {
        /// The interface's name.
        interface: String,
        /// The mode tried.
        mode: Mode,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel refused something that it should not refuse.
    #[error("cannot {doing}: {source}")]
    Bpf {
        /// What was tried.
        doing: &'static str,
        /// What the kernel said.
        source: libbpf_rs::Error,
    },
}

/// A program that is on the interface already, and how to take it off.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Occupant {
    /// The kernel's id of the program, as `bpftool prog` and `ip link` show it.
    pub program_id: u32,
    /// Its name, if it may be read.
    pub name: Option<String>,
    /// Where it hooks in, if the kernel says one mode.
    pub mode: Option<Mode>,
    /// The link that holds it, if one does, and then the process that holds the link, if it can be seen.
    pub link: Option<(u32, Option<String>)>,
    pub(crate) is_ours: bool,
    pub(crate) interface: String,
}

impl Occupant {
    /// Whether it is a program of this crate, of whatever version, as far as that may be seen.
    pub fn is_ours(&self) -> bool {
        self.is_ours
    }

    /// The process that holds it, as `pid N (name)`, if it can be seen.
    pub fn holder(&self) -> Option<&str> {
        self.link.as_ref().and_then(|(_, holder)| holder.as_deref())
    }

    /// What it is: its id, its name and where it hooks in, as far as they may be seen.
    pub fn what(&self) -> String {
        let name = self.name.as_ref().map(|name| format!(", \"{name}\"")).unwrap_or_default();
        let mode = self.mode.map(|mode| format!(", {mode}")).unwrap_or_default();
        format!("id {}{name}{mode}", self.program_id)
    }

    /// The command that takes it off, or what to do where none does because a link holds it.
    ///
    /// `ip link set … xdp off` can't remove what a link holds (EBUSY), and plain `xdp off` only looks at one mode.
    pub fn removal(&self) -> Removal {
        let hook = match (&self.link, self.mode) {
            (Some((_, Some(holder))), _) => return Removal::Advice(format!("stop {holder}, which holds it")),
            (Some((id, None)), _) => {
                let detach = format!("stop the process that holds it, or `bpftool link detach id {id}`");
                return Removal::Advice(detach);
            }
            (None, Some(Mode::Native)) => "xdpdrv",
            (None, Some(Mode::Generic)) => "xdpgeneric",
            (None, None) => "xdp",
        };
        Removal::Command(format!("ip link set dev {} {hook} off", self.interface))
    }
}

/// How an [`Occupant`] is got rid of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Removal {
    /// As a shell takes it.
    Command(String),
    /// In words.
    Advice(String),
}

impl fmt::Display for Occupant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; byway does not replace it: ", self.what())?;
        match self.removal() {
            Removal::Command(command) => write!(f, "`{command}`"),
            Removal::Advice(advice) => f.write_str(&advice),
        }
    }
}

/// EPERM: either the process lacks a capability, or (before Linux 5.11) the maps do not fit RLIMIT_MEMLOCK.
pub(crate) fn denied() -> Error {
    match Capabilities::effective().missing(&Capability::STEERING).as_slice() {
        [] => Error::Memlock,
        missing => Error::Permission { missing: missing.join(" and ") },
    }
}
