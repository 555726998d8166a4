//! What can go wrong on the way to the wire: each error says what, where, and what to do.

use std::io;
use std::net::{IpAddr, SocketAddr};

/// What sort of trouble an [`Error`] is; the program's exit code follows from it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// The device went away while we used it.
    DeviceGone,
    /// The system lacks something, or has it in use.
    SystemLacks,
    /// A privilege is missing.
    Permission,
    /// What we were told can't be done here.
    Configuration,
}

/// An error of the datapath.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No such interface.
    #[error("interface {0} doesn't exist in this network namespace: `ip link` lists those that do")]
    NoInterface(String),
    /// A question about an interface went unanswered.
    #[error("interface {interface}: {what} failed: {source}")]
    Link {
        /// The interface.
        interface: String,
        /// The request.
        what: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The interface isn't Ethernet.
    #[error("interface {0} isn't Ethernet: byway needs one with a MAC address (a NIC, a veth, a tap)")]
    NotEthernet(String),
    /// The interface is administratively down.
    #[error("interface {0} is down: `ip link set {0} up` first")]
    LinkDown(String),
    /// A queue the interface doesn't have.
    #[error(
        "{interface} has no RX queue {queue}: it has {count} (`ethtool -l {interface}` shows and `-L` changes that)"
    )]
    NoQueue {
        /// The interface.
        interface: String,
        /// The queue asked for.
        queue: u32,
        /// How many there are.
        count: u32,
    },
    /// A queue that only receives.
    #[error(
        "queue {queue} of {interface} only receives ({rx} receive, {tx} send), and byway answers where it was asked: `ethtool -L {interface}` with as many of both, or --queues below {tx} if flows are spread to those alone (`ethtool -X`)"
    )]
    QueueOnlyReceives {
        /// The interface.
        interface: String,
        /// The queue asked for.
        queue: u32,
        /// Receive queues.
        rx: u32,
        /// Transmit queues.
        tx: u32,
    },
    /// Fewer cores than queues.
    #[error(
        "{queues} queues need a core each, and only {cores} may be used: give fewer with --queues, or `ethtool -L {interface} combined {cores}`"
    )]
    TooFewCores {
        /// The interface.
        interface: String,
        /// Queues to serve.
        queues: usize,
        /// Cores there are.
        cores: usize,
    },
    /// A value that doesn't fit.
    #[error("{0}")]
    Config(String),
    /// xsk-rs isn't the one we know.
    #[error(
        "this build of xsk-rs lays its frame descriptors out in an unknown way: rebuild byway with the committed Cargo.lock (`cargo build --locked`)"
    )]
    DescriptorLayout,
    /// Locked memory is limited.
    #[error(
        "{bytes} octets of frames exceed the limit of locked memory: raise RLIMIT_MEMLOCK (`ulimit -l unlimited`, systemd `LimitMEMLOCK=infinity`) or grant CAP_IPC_LOCK"
    )]
    LockedMemory {
        /// Size of the UMEM.
        bytes: u64,
    },
    /// There is not enough memory for the UMEM.
    #[error("no memory for {bytes} octets of frames: {source}; free some, or use fewer queues")]
    Memory {
        /// Size of the UMEM.
        bytes: u64,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The kernel was built without AF_XDP.
    #[error("this kernel has no AF_XDP sockets: use one with CONFIG_XDP_SOCKETS=y (Linux 5.4 or later)")]
    NoAfXdp,
    /// A missing capability.
    #[error("{what} needs {capability}: run as root, or grant it (`setcap`, systemd `AmbientCapabilities=`)")]
    Permission {
        /// What was tried.
        what: &'static str,
        /// What it takes.
        capability: &'static str,
    },
    /// Another socket holds the queue.
    #[error(
        "queue {queue} of {interface} is in use by an AF_XDP socket of {holder}: stop it, or give byway other --queues"
    )]
    QueueBusy {
        /// The interface.
        interface: String,
        /// The queue.
        queue: u32,
        /// Who has it.
        holder: String,
    },
    /// Zero-copy was demanded and isn't to be had.
    #[error("zero-copy on queue {queue} of {interface}: {reason}; use --zero-copy auto or off")]
    ZeroCopy {
        /// The interface.
        interface: String,
        /// The queue.
        queue: u32,
        /// Why not.
        reason: String,
    },
    /// Any other failure of a socket call.
    #[error("AF_XDP socket on queue {queue} of {interface}: {what}: {source}")]
    Socket {
        /// The interface.
        interface: String,
        /// The queue.
        queue: u32,
        /// The call.
        what: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The interface disappeared under a bound socket.
    #[error("interface {interface} is gone: queue {queue} lost its device; start again when it is back")]
    DeviceGone {
        /// The interface.
        interface: String,
        /// The queue.
        queue: u32,
    },
    /// Somebody else listens there.
    #[error(
        "{0} is in use by another program: stop it (`ss -ltnp sport = :{port}` names it), or choose another port",
        port = .0.port()
    )]
    EndpointBusy(SocketAddr),
    /// The kernel doesn't have the address.
    #[error(
        "{0} is no address of this host, and kernel sockets can only listen on those: `ip addr` lists them and `ip addr add` adds one; without --address byway listens on all"
    )]
    NotOurAddress(IpAddr),
    /// A port that only the privileged may have.
    #[error(
        "listening on port {0} needs CAP_NET_BIND_SERVICE: choose a port above 1023 (--port 8080), run as root, or grant it (`setcap`, systemd `AmbientCapabilities=`)"
    )]
    PrivilegedPort(u16),
    /// A port of ours has a program of the host's.
    #[error("{endpoint} is in use by {holder}: stop it, or choose another port for byway")]
    PortHeld {
        /// Where.
        endpoint: SocketAddr,
        /// Who has it.
        holder: String,
    },
    /// Any other failure to reserve a port.
    #[error("reserving {endpoint}: {what}: {source}")]
    Reserve {
        /// Where.
        endpoint: SocketAddr,
        /// The call.
        what: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Any other failure to listen.
    #[error("listening on {endpoint}: {what}: {source}")]
    Listen {
        /// Where.
        endpoint: SocketAddr,
        /// The call.
        what: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The kernel's TCP doesn't give this congestion control.
    #[error(
        "the kernel gives no congestion control '{name}' ({source}): `sysctl net.ipv4.tcp_allowed_congestion_control` lists what everybody may choose, and takes more; `modprobe tcp_{name}` loads it"
    )]
    NoCongestion {
        /// Its name.
        name: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A thread isn't where it should be.
    #[error(
        "can't pin a thread to core {core}: {reason}; `taskset -cp $$` shows which cores this process may use"
    )]
    Pin {
        /// The core.
        core: usize,
        /// Why.
        reason: &'static str,
    },
    /// A file descriptor or thread couldn't be had.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A core's thread ended by a bug of ours.
    #[error("the loop on core {core} stopped by an internal error: please report it with the lines above")]
    CorePanicked {
        /// The core.
        core: usize,
    },
}

impl Error {
    pub(crate) fn config(text: String) -> Self {
        Self::Config(text)
    }

    pub(crate) fn system(what: &'static str) -> Self {
        Self::System { what, source: io::Error::last_os_error() }
    }

    /// What sort of trouble it is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::DeviceGone { .. } => Kind::DeviceGone,
            Self::Permission { .. } | Self::PrivilegedPort(_) => Kind::Permission,
            Self::NoInterface(_)
            | Self::NotEthernet(_)
            | Self::NoQueue { .. }
            | Self::QueueOnlyReceives { .. }
            | Self::TooFewCores { .. }
            | Self::Config(_)
            | Self::NotOurAddress(_)
            | Self::Pin { .. } => Kind::Configuration,
            Self::Link { .. }
            | Self::LinkDown(_)
            | Self::DescriptorLayout
            | Self::LockedMemory { .. }
            | Self::Memory { .. }
            | Self::NoAfXdp
            | Self::QueueBusy { .. }
            | Self::ZeroCopy { .. }
            | Self::Socket { .. }
            | Self::EndpointBusy(_)
            | Self::PortHeld { .. }
            | Self::Reserve { .. }
            | Self::Listen { .. }
            | Self::NoCongestion { .. }
            | Self::System { .. }
            | Self::CorePanicked { .. } => Kind::SystemLacks,
        }
    }
}
