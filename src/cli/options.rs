//! What `byway serve` and `byway load` are told of the interface, `byway serve`'s own options, and what of them can be
//! judged without looking at the host.

mod values;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::app::{Limits, WallClock};
use byway_tcp::stack::Cidr;
use byway_tcp::tcb::congestion::Algorithm;
use clap::{ArgGroup, Args};

use super::failure::Failure;
use super::reload::Reload;
pub(super) use values::duration;
pub(crate) use values::{Attach, Backend, Cores, Idle, Ports, Queues, Switch, ZeroCopy, interface};
use values::{algorithm, cidr, origin, port};

/// The interface, and byway's place on it: what every verb that takes frames is told.
#[derive(Args, Clone, Debug)]
pub(crate) struct Nic {
    /// Interface whose frames to take
    #[arg(long, value_name = "IF", required = true, value_parser = interface)]
    pub(crate) interface: Option<String>,

    /// Own address with its prefix; the kernel must not have it. Repeat for more
    #[arg(long = "address", value_name = "CIDR", required_unless_present = "host_address", value_parser = cidr)]
    pub(crate) addresses: Vec<Cidr>,

    /// Share the interface's own addresses with the kernel: byway takes its ports there, the kernel keeps everything else,
    /// and its routes and neighbours are used. Clients on this host itself are refused: they come over loopback
    #[arg(long, conflicts_with_all = ["addresses", "gateways"])]
    pub(crate) host_address: bool,

    /// Ports of connections that byway opens from shared addresses, which nobody else then has
    #[arg(long, value_name = "FIRST-LAST", requires = "host_address")]
    pub(crate) client_ports: Option<Ports>,

    /// Next hop for what isn't on-link, one per address family
    #[arg(long = "gateway", value_name = "IP")]
    pub(crate) gateways: Vec<IpAddr>,

    /// Receive queues to serve, one core each
    #[arg(long, value_name = "all|0,1,…", default_value = "all")]
    pub(crate) queues: Queues,

    /// Cores, in the order of the queues
    #[arg(long, value_name = "auto|1,2,…", default_value = "auto")]
    pub(crate) cores: Cores,

    /// Where the XDP program hooks in
    #[arg(long, value_enum, default_value_t = Attach::Auto)]
    pub(crate) attach: Attach,

    /// Whether the NIC reads and writes byway's memory itself
    #[arg(long, value_enum, default_value_t = ZeroCopy::Auto)]
    pub(crate) zero_copy: ZeroCopy,

    /// Preferred busy polling: the core drives the NIC, interrupts stay off
    #[arg(long, value_enum, default_value_t = Switch::Off)]
    pub(crate) busy_poll: Switch,

    /// What a core does when nothing comes: spin for ever, or for as long as that lately paid and then sleep
    #[arg(long, value_enum, default_value_t = Idle::Adaptive)]
    pub(crate) idle: Idle,

    /// Accept segments whose checksum a virtual interface left half done
    #[arg(long)]
    pub(crate) accept_partial_checksums: bool,

    /// Frames of memory for each queue: 2 KiB each, 4 KiB if the MTU is above 1770
    #[arg(long, value_name = "N", default_value_t = 65_536)]
    pub(crate) frames: u32,

    /// Control socket [default: /run/byway/IF.sock]
    #[arg(long, value_name = "SOCKET")]
    pub(crate) control: Option<PathBuf>,

    /// Congestion control of new connections
    #[arg(long, value_name = "NAME", default_value_t = Algorithm::default(), value_parser = algorithm())]
    pub(crate) congestion: Algorithm,
}

/// The interface, and what stands in for it where it can't be had: what every program that serves is told.
#[derive(Args, Clone, Debug)]
// Kernel sockets need neither; XDP does, and is the default. clap counts only what was typed as given.
#[command(mut_args(unless_on_kernel), group = ArgGroup::new("place").args(["addresses", "host_address"]).multiple(true))]
pub(crate) struct Network {
    #[command(flatten)]
    pub(crate) nic: Nic,

    /// Whose TCP: byway's own past the kernel, or the kernel's, on any host
    #[arg(long, value_enum, default_value_t = Backend::Xdp, requires_if("xdp", "place"))]
    pub(crate) backend: Backend,
}

/// How much is served, and how it ends: every program that serves is told this, too.
#[derive(Args, Clone, Debug)]
pub(crate) struct Serving {
    /// Connections at once on each core
    #[arg(long, value_name = "N", default_value_t = 65_536, value_parser = clap::value_parser!(u32).range(1..=4_000_000))]
    pub(crate) max_connections: u32,

    /// How long connections may take to finish when byway is told to stop
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = duration)]
    pub(crate) drain: Duration,

    /// Loopback address and port at which Prometheus reads what `byway stats` says (/metrics), off unless given
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) metrics: Option<SocketAddr>,

    /// TOML file with these options by their long names; the command line goes before it
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// Look whether byway could serve so, say it, and end
    #[arg(long)]
    pub(crate) check: bool,
}

/// Options of `byway serve`.
#[derive(Args, Debug)]
#[command(args_override_self = true, after_help = super::reload::HELP)]
pub(crate) struct Serve {
    #[command(flatten)]
    pub(crate) network: Network,

    /// Port of HTTP/1.1 and WebSocket
    #[arg(long, value_name = "PORT", default_value_t = 80, value_parser = port())]
    pub(crate) port: u16,

    /// Port of the same over TLS (https, wss), off unless given
    #[arg(long, value_name = "PORT", value_parser = port(), requires_all = ["tls_cert", "tls_key"])]
    pub(crate) tls_port: Option<u16>,

    /// Certificate of --tls-port, its issuers' behind it: a PEM file
    #[arg(long, value_name = "FILE", requires = "tls_port")]
    pub(crate) tls_cert: Option<PathBuf>,

    /// Its private key, not encrypted: a PEM file
    #[arg(long, value_name = "FILE", requires = "tls_port")]
    pub(crate) tls_key: Option<PathBuf>,

    /// Port of the echo service (RFC 862), off unless given
    #[arg(long, value_name = "PORT", value_parser = port())]
    pub(crate) echo_port: Option<u16>,

    /// Port of the discard service (RFC 863), off unless given
    #[arg(long, value_name = "PORT", value_parser = port())]
    pub(crate) discard_port: Option<u16>,

    /// Port of the character generator (RFC 864), off unless given
    #[arg(long, value_name = "PORT", value_parser = port())]
    pub(crate) chargen_port: Option<u16>,

    /// Page that may open WebSockets, as browsers name it: `https://example.org`. Repeat for more [default: all]
    #[arg(long = "origin", value_name = "ORIGIN", value_parser = origin)]
    pub(crate) origins: Vec<String>,

    /// WebSockets on each core that may compress their messages (permessage-deflate), 440 KiB each; 0: none
    #[arg(long, value_name = "N", default_value_t = Limits::default().deflaters)]
    pub(crate) deflaters: usize,

    /// Connections at once of one IPv4 address or IPv6 /64 on each core; no limit unless given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) max_connections_per_peer: Option<u32>,

    #[command(flatten)]
    pub(crate) serving: Serving,

    /// Print these options as a file for --config, each with its help, and end
    #[arg(long)]
    pub(crate) print_config: bool,
}

/// What is to be served, and where: what any program has made of its options.
#[derive(Clone, Debug)]
pub(crate) struct Launch {
    pub(crate) network: Network,
    pub(crate) serving: Serving,
    /// Each port with what is spoken on it.
    pub(crate) services: Vec<(String, u16)>,
    /// The time of day, kept right as long as the applications run.
    pub(crate) clock: WallClock,
    /// If it can.
    pub(crate) reload: Option<Reload>,
}

fn unless_on_kernel(arg: clap::Arg) -> clap::Arg {
    let help = match arg.get_id().as_str() {
        "interface" => "Interface whose frames to take; kernel sockets need none",
        "addresses" => {
            "Own address with its prefix; the kernel must not have it, but for kernel sockets, which without listen on \
             all there are. Repeat for more"
        }
        _ => return arg,
    };
    let arg = arg.help(help).required(false);
    if arg.get_id() == "addresses" {
        // What --backend xdp asks for is either.
        arg.required_unless_present_any(["backend", "host_address"])
    } else {
        arg.required_unless_present("backend").required_if_eq("backend", "xdp")
    }
}

impl Nic {
    /// The interface; clap has seen to it that there is one wherever it is asked for.
    pub(crate) fn interface(&self) -> &str {
        self.interface.as_deref().unwrap_or_default()
    }

    /// The control socket.
    pub(crate) fn control_path(&self) -> PathBuf {
        self.control.clone().unwrap_or_else(|| super::control::default_path(self.interface()))
    }

    /// Options that were set and mean nothing to kernel sockets.
    pub(crate) fn of_no_use_to_sockets(&self) -> Vec<&'static str> {
        [
            ("--gateway", !self.gateways.is_empty()),
            ("--host-address", self.host_address),
            ("--queues", self.queues != Queues::All),
            ("--attach", self.attach != Attach::Auto),
            ("--zero-copy", self.zero_copy != ZeroCopy::Auto),
            ("--busy-poll", self.busy_poll != Switch::Off),
            ("--idle", self.idle != Idle::Adaptive),
            ("--accept-partial-checksums", self.accept_partial_checksums),
        ]
        .into_iter()
        .filter_map(|(name, set)| set.then_some(name))
        .collect()
    }

    /// What contradicts itself, whatever the host.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        self.check_addresses(false)?;
        self.check_gateways()
    }

    /// The addresses alone, which may be loopback ones and "all" for kernel sockets.
    fn check_addresses(&self, on_kernel: bool) -> Result<(), Failure> {
        for (place, own) in self.addresses.iter().enumerate() {
            let address = own.address;
            if self.addresses[..place].iter().any(|other| other.address == address) {
                return Err(Failure::configuration(format!("address {address} is given twice")));
            }
            if let Some(kind) = unfit(own).filter(|kind| !(on_kernel && KERNEL_TAKES.contains(kind))) {
                let text = format!("address {address} is {kind}: give one a single host can have");
                return Err(Failure::configuration(text));
            }
        }
        Ok(())
    }

    fn check_gateways(&self) -> Result<(), Failure> {
        for &gateway in &self.gateways {
            let text = if self.addresses.iter().any(|own| own.address == gateway) {
                format!("gateway {gateway} is byway's own address")
            } else if link_local(gateway) || self.addresses.iter().any(|own| on_link(own, gateway)) {
                continue;
            } else {
                format!("gateway {gateway} isn't within any --address's prefix: it couldn't be reached")
            };
            return Err(Failure::configuration(text));
        }
        Ok(())
    }
}

impl Serve {
    /// What is served on which port.
    pub(crate) fn launch(&self) -> Launch {
        let services = [
            ("http", Some(self.port)),
            ("https", self.tls_port),
            ("echo", self.echo_port),
            ("discard", self.discard_port),
            ("chargen", self.chargen_port),
        ];
        Launch {
            network: self.network.clone(),
            serving: self.serving.clone(),
            clock: WallClock::default(),
            reload: None,
            services: services
                .into_iter()
                .filter_map(|(name, port)| Some((name.to_owned(), port?)))
                .collect(),
        }
    }
}

impl Launch {
    /// What contradicts itself, whatever the host.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        let services = &self.services;
        for (place, (name, port)) in services.iter().enumerate() {
            if let Some((other, _)) = services[..place].iter().find(|(_, taken)| taken == port) {
                let text = format!("port {port} is given to both {other} and {name}: choose another for one");
                return Err(Failure::configuration(text));
            }
        }
        if let Some(address) = self.serving.metrics {
            super::metrics::check(address)?;
        }
        let nic = &self.network.nic;
        if let Some(Ports(client)) = &nic.client_ports
            && let Some((name, port)) = services.iter().find(|(_, port)| client.contains(port))
        {
            let text =
                format!("port {port} is given to {name} and within --client-ports: choose others for one");
            return Err(Failure::configuration(text));
        }
        match self.network.backend {
            Backend::Xdp => nic.check(),
            Backend::Auto => {
                // What only XDP minds is a reason to fall back.
                nic.check_addresses(true)
            }
            Backend::Kernel => {
                if let [first, ..] = nic.of_no_use_to_sockets()[..] {
                    let message = format!(
                        "{first} means nothing with --backend kernel, where packets are the kernel's: leave it out, \
                         or choose --backend xdp"
                    );
                    return Err(Failure { code: Failure::USAGE, message });
                }
                nic.check_addresses(true)
            }
        }
    }
}

const UNSPECIFIED: &str = "unspecified";
const LOOPBACK: &str = "a loopback address";
/// Addresses that no host has on a link, and yet a socket can listen on.
const KERNEL_TAKES: [&str; 2] = [UNSPECIFIED, LOOPBACK];

fn unfit(own: &Cidr) -> Option<&'static str> {
    let address = own.address;
    let broadcast = match address {
        IpAddr::V4(v4) => {
            let host_bits = 32 - u32::from(own.prefix.min(32));
            v4.is_broadcast() || host_bits > 1 && v4.to_bits().trailing_ones() >= host_bits
        }
        IpAddr::V6(_) => false,
    };
    if address.is_unspecified() {
        Some(UNSPECIFIED)
    } else if address.is_loopback() {
        Some(LOOPBACK)
    } else if address.is_multicast() {
        Some("a multicast address")
    } else if broadcast {
        Some("a broadcast address")
    } else {
        None
    }
}

pub(super) fn link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

pub(super) fn on_link(own: &Cidr, address: IpAddr) -> bool {
    match (own.address, address) {
        (IpAddr::V4(own4), IpAddr::V4(v4)) => {
            (own4.to_bits() ^ v4.to_bits()).checked_shr(32 - u32::from(own.prefix)).unwrap_or(0) == 0
        }
        (IpAddr::V6(own6), IpAddr::V6(v6)) => {
            (own6.to_bits() ^ v6.to_bits()).checked_shr(128 - u32::from(own.prefix)).unwrap_or(0) == 0
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    fn serve(arguments: &str) -> Result<Serve, String> {
        let all = format!("byway serve --interface eth0 {arguments}");
        match crate::cli::Cli::try_parse_from(all.split_whitespace()) {
            Ok(crate::cli::Cli { verb: crate::cli::Verb::Serve(serve) }) => Ok(serve),
            Ok(_) => unreachable!("serve was asked for"),
            Err(error) => Err(error.to_string()),
        }
    }

    fn refused(arguments: &str) -> String {
        let failure = serve(arguments).expect("parses").launch().check().expect_err("must be refused");
        assert_eq!(failure.code, Failure::CONFIGURATION);
        failure.message
    }

    #[test]
    fn the_documented_command_line_parses() {
        let options = serve(
            "--address 192.0.2.7/24 --address 2001:db8::7/64 --gateway 192.0.2.1 --port 8080 --echo-port 7 \
             --queues 0,1 --cores 2,3 --attach native --zero-copy off --busy-poll on --idle spin \
             --accept-partial-checksums --origin https://a.example --origin http://[::1]:80 --deflaters 7 \
             --max-connections 1000 --control /tmp/x.sock --drain 100ms",
        )
        .expect("parses");
        options.launch().check().expect("fits");
        assert_eq!(options.network.nic.queues, Queues::These(vec![0, 1]));
        assert_eq!(options.network.nic.cores, Cores::These(vec![2, 3]));
        assert_eq!(options.launch().services, [("http".to_owned(), 8080), ("echo".to_owned(), 7)]);
        assert_eq!(options.serving.drain, Duration::from_millis(100));
        assert_eq!(options.origins, ["https://a.example", "http://[::1]:80"]);
        assert_eq!(options.deflaters, 7);
        assert_eq!(options.network.nic.idle, Idle::Spin);
        let defaults = serve("--address 192.0.2.7/24").expect("parses");
        assert_eq!(defaults.network.nic.control_path(), PathBuf::from("/run/byway/eth0.sock"));
        assert_eq!((defaults.port, defaults.serving.drain), (80, Duration::from_secs(5)));
        assert_eq!(defaults.network.nic.congestion, Algorithm::Cubic);
    }

    #[test]
    fn s7_1_every_congestion_control_is_chosen_by_name() {
        for algorithm in Algorithm::ALL {
            let options = serve(&format!("--address 192.0.2.7/24 --congestion {algorithm}")).expect("parses");
            assert_eq!(options.network.nic.congestion, *algorithm);
        }
        assert!(serve("--address 192.0.2.7/24 --congestion cubik").expect_err("typo").contains("cubic"));
    }

    #[test]
    fn mistakes_are_refused_with_the_nearest_valid_word() {
        assert!(serve("").expect_err("no address").contains("--address"));
        assert!(serve("--adress 192.0.2.7/24").expect_err("typo").contains("--address"));
        assert!(serve("--address 192.0.2.7/24 --attach natve").expect_err("typo").contains("native"));
        assert!(serve("--address 192.0.2.7").expect_err("no prefix").contains("/24"));
        assert!(serve("--address 192.0.2.7/33").expect_err("prefix").contains("0 to 32"));
        assert!(serve("--address 192.0.2.7/24 --port 0").is_err());
        for (origin, why) in [
            ("example.org", "scheme is missing"),
            ("https://", "no host"),
            ("https://example.org/", "no host"),
            ("https://*.example.org", "no host"),
            ("ht_tps://a", "no scheme"),
        ] {
            let said = serve(&format!("--address 192.0.2.7/24 --origin {origin}")).expect_err(origin);
            assert!(said.contains(why) && said.contains("https://example.org"), "{said}");
        }
        assert!(serve("--address 192.0.2.7/24 --port 65536").is_err());
        assert!(serve("--address 192.0.2.7/24 --queues 0,0").expect_err("twice").contains("twice"));
        assert!(serve("--address 192.0.2.7/24 --queues one").expect_err("word").contains("'all'"));
        assert!(serve("--address 192.0.2.7/24 --drain 5").expect_err("no unit").contains("unit is missing"));
        assert!(serve("--address 192.0.2.7/24 --drain 5h").expect_err("hours").contains("ms, s or m"));
        assert!(serve("--address 192.0.2.7/24 --drain 9999999m").expect_err("long").contains("day"));
    }

    fn without_nic(arguments: &str) -> Result<Serve, clap::Error> {
        let all = format!("byway serve {arguments}");
        match crate::cli::Cli::try_parse_from(all.split_whitespace())?.verb {
            crate::cli::Verb::Serve(serve) => Ok(serve),
            _ => unreachable!("serve was asked for"),
        }
    }

    #[test]
    fn only_kernel_sockets_do_without_interface_and_address() {
        use clap::error::ErrorKind::MissingRequiredArgument;
        for arguments in ["", "--backend xdp", "--port 8080", "--backend xdp --interface eth0"] {
            assert_eq!(
                without_nic(arguments).expect_err(arguments).kind(),
                MissingRequiredArgument,
                "{arguments}"
            );
        }
        for arguments in ["--backend kernel", "--backend auto", "--backend kernel --interface eth0"] {
            without_nic(arguments).expect(arguments).launch().check().expect(arguments);
        }
        assert!(without_nic("--backend kernal").expect_err("typo").to_string().contains("'kernel'"));
    }

    #[test]
    fn kernel_sockets_refuse_what_means_nothing_to_them() {
        let said =
            |arguments: &str| without_nic(arguments).expect("parses").launch().check().expect_err(arguments);
        for option in
            ["--gateway 192.0.2.1", "--queues 0", "--attach native", "--zero-copy off", "--busy-poll on"]
        {
            let failure = said(&format!("--backend kernel {option}"));
            let name = option.split(' ').next().expect("a name");
            assert_eq!(failure.code, Failure::USAGE, "{option}");
            assert!(failure.message.starts_with(name), "{}", failure.message);
        }
        without_nic("--backend kernel --address 127.0.0.1/8 --address ::/0")
            .expect("parses")
            .launch()
            .check()
            .expect("fits");
        assert!(said("--backend kernel --address 224.0.0.1/24").message.contains("multicast"));
        assert!(said("--backend auto --port 7 --echo-port 7").message.contains("port 7"));
    }

    #[test]
    fn contradictions_are_named() {
        let twice = refused("--address 192.0.2.7/24 --port 7 --echo-port 7");
        assert!(twice.contains("port 7 is given to both http and echo"), "{twice}");
        assert!(refused("--address 192.0.2.7/24 --address 192.0.2.7/16").contains("given twice"));
        assert!(refused("--address 224.0.0.1/24").contains("multicast"));
        assert!(refused("--address 127.0.0.1/8").contains("loopback"));
        assert!(refused("--address 0.0.0.0/0").contains("unspecified"));
        assert!(refused("--address 192.0.2.255/24").contains("broadcast"));
        assert!(refused("--address 192.0.2.7/24 --gateway 198.51.100.1").contains("isn't within"));
        assert!(refused("--address 192.0.2.7/24 --gateway 192.0.2.7").contains("own address"));
        serve("--address 2001:db8::7/64 --gateway fe80::1")
            .expect("parses")
            .launch()
            .check()
            .expect("link-local");
        serve("--address 192.0.2.7/32 --address 192.0.2.9/31")
            .expect("parses")
            .launch()
            .check()
            .expect("fits");
    }
}
