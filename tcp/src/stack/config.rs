//! What a stack is told at start.

use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use core::ops::Range;
use std::sync::Arc;

use crate::app::Keepalive;
use crate::flow_table::FourTuple;
use crate::rss::Rss;
use crate::tcb::congestion::Algorithm;
use crate::time::Duration;
use crate::wire::{Checksums, MacAddr, ip};

/// One of our own addresses with its on-link prefix.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cidr {
    /// The address itself.
    pub address: IpAddr,
    /// Leading bits shared by all hosts on the link: at most 32 (IPv4) or 128 (IPv6).
    pub prefix: u8,
}

impl Cidr {
    /// Whether `ip` is on this link.
    pub fn contains(&self, ip: IpAddr) -> bool {
        match (self.address, ip) {
            (IpAddr::V4(own), IpAddr::V4(ip)) => {
                let host_bits = 32 - u32::from(self.prefix.min(32));
                let differing = own.to_bits() ^ ip.to_bits();
                differing.checked_shr(host_bits).unwrap_or(0) == 0
            }
            (IpAddr::V6(own), IpAddr::V6(ip)) => {
                let host_bits = 128 - u32::from(self.prefix.min(128));
                let differing = own.to_bits() ^ ip.to_bits();
                differing.checked_shr(host_bits).unwrap_or(0) == 0
            }
            _ => false,
        }
    }

    /// Whether `ip` is this link's IPv4 broadcast address (RFC 919).
    pub fn is_broadcast(&self, ip: IpAddr) -> bool {
        match (self.address, ip) {
            (IpAddr::V4(own), IpAddr::V4(ip)) if self.prefix < 31 => {
                let host = u32::MAX.checked_shr(u32::from(self.prefix)).unwrap_or(0);
                ip.to_bits() == own.to_bits() | host
            }
            _ => false,
        }
    }
}

/// A way that the host's kernel knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Route {
    /// Where it leads; any address of the network.
    pub to: Cidr,
    /// The neighbour that goes on from here; `None`: the network is on the link.
    pub gateway: Option<IpAddr>,
}

/// Per-listener settings.
#[derive(Clone, Copy, Debug)]
pub struct Listener {
    /// Local port, on every own address.
    pub port: u16,
    /// Half-open connections at once. There is no accept queue: the application hears of a connection
    /// (`App::opened`) in the batch that completes its handshake, so this is all that `listen`'s backlog bounds.
    pub backlog: u32,
}

/// When a SYN is answered by a cookie (RFC 4987 §3.6) instead of an entry in the backlog.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum SynCookies {
    /// Never: a SYN for a full backlog is dropped.
    Off,
    /// When the backlog is full.
    #[default]
    OnOverflow,
    /// For every SYN: to test peers and middleboxes.
    Always,
}

/// Explicit congestion notification (RFC 3168), as Linux's tcp_ecn. S4.2
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Ecn {
    /// Never (0).
    Off,
    /// When the peer asks (2), as Linux has it by default: whoever asks has a path that lets it through.
    #[default]
    Answer,
    /// Active opens ask, too (1).
    Ask,
}

/// What a [`Stack`](super::Stack) is told at start.
#[derive(Clone)]
pub struct Config {
    /// Our Ethernet address.
    pub mac: MacAddr,
    /// Largest IP packet that a frame holds and the link takes, in octets: what is sent from one.
    pub mtu: u16,
    /// Largest that may arrive, in several frames, if that is more: what peers are told.
    pub receive_mtu: u16,
    /// Frames that a packet may lie in that is sent: 1, or more if it may be as large as `receive_mtu`.
    pub frames_sent: u8,
    /// Routers that a segment may pass: TTL, hop limit (RFC 9293 §3.9.2, MUST-49).
    pub hop_limit: u8,
    /// Our own addresses.
    pub addresses: Vec<Cidr>,
    /// Next hops for what is not on-link; the first of the right family is used.
    pub gateways: Vec<IpAddr>,
    /// The kernel's routes, longest prefix first, if the addresses are shared with it: then they alone say who is on-link
    /// and behind which gateway, and neighbours are the kernel's, too. What isn't known is asked of the kernel by
    /// [`News::Wanted`](super::News::Wanted), never of the link.
    pub host_routes: Option<Arc<[Route]>>,
    /// Local ports of active opens.
    pub client_ports: Range<u16>,
    /// Connections at once, TIME-WAIT not counted.
    pub max_connections: u32,
    /// TIME-WAIT entries at once; beyond them a pair is closed without the wait.
    pub max_time_wait: u32,
    /// Verification of received checksums.
    pub checksums: Checksums,
    /// Random, secret, per start: keys the connection table and the initial sequence numbers.
    pub secret: [u8; 32],
    /// 2 MSL (RFC 9293 §3.6.1).
    pub time_wait: Duration,
    /// FIN-WAIT-2 limit (S2.6).
    pub fin_timeout: Duration,
    /// Segments with text that are acknowledged without delay at a connection's start, after a pause and after a hole,
    /// when the sender's window is small and grows with each ACK; 0: every ACK may be delayed.
    pub quick_acks: u8,
    /// Whether connections use ECN.
    pub ecn: Ecn,
    /// What happens to SYNs that the backlog has no room for (T1).
    pub syncookies: SynCookies,
    /// Idle time before the first keepalive probe; `None` switches keepalive off (S3.2). A connection's own:
    /// `Conn::set_keepalive`.
    pub keepalive: Option<Duration>,
    /// Time between keepalive probes.
    pub keepalive_interval: Duration,
    /// Keepalive probes in a row without an answer that end the connection.
    pub keepalive_probes: u8,
    /// Unacknowledged data or an unanswered probe for so long ends the connection (RFC 5482). A connection's own,
    /// which also counts when the peer answers with a closed window: `Conn::set_user_timeout`.
    pub user_timeout: Duration,
    /// After the application has closed: a peer that answers and takes nothing for so long, its window closed, is
    /// reset (T5).
    pub orphan_timeout: Duration,
    /// Upper bound of the receive window, in octets.
    pub receive_buffer: u32,
    /// Upper bound of queued and unacknowledged octets a connection.
    pub send_buffer: u32,
    /// Congestion control of new connections.
    pub congestion: Algorithm,
    /// How the NIC spreads flows over its queues, as far as it tells: then active opens choose ports whose
    /// answers reach this stack. With several queues and `None`, an answer may reach another core, which
    /// resets it: such a connect succeeds in one of as many tries as there are queues.
    pub rss: Option<Rss>,
    /// Header prediction: most segments take a shorter way to the same end. Off only to show that it is the same.
    pub prediction: bool,
}

impl Config {
    /// Defaults of a server on an Ethernet link, each argued beside its value.
    pub fn new(mac: MacAddr, secret: [u8; 32]) -> Self {
        Self {
            mac,
            mtu: 1500,
            receive_mtu: 0,
            frames_sent: 1,
            hop_limit: ip::HOP_LIMIT,
            addresses: Vec::new(),
            gateways: Vec::new(),
            host_routes: None,
            // RFC 6056 §3.2 recommends 1024 to 65535; IANA's dynamic range and Linux's default begin here.
            client_ports: 32_768..61_000,
            max_connections: 65_536,
            max_time_wait: 262_144,
            checksums: Checksums::Verify,
            secret,
            // Linux's TCP_TIMEWAIT_LEN: 2 MSL with the 30 s that implementations agreed on.
            time_wait: Duration::from_secs(60),
            // Linux's tcp_fin_timeout.
            fin_timeout: Duration::from_secs(60),
            // Linux's TCP_MAX_QUICKACKS: more than an initial window.
            quick_acks: 16,
            ecn: Ecn::Answer,
            syncookies: SynCookies::OnOverflow,
            // RFC 9293 §3.8.4 (MUST-25): off, unless the application wants it.
            keepalive: None,
            keepalive_interval: Keepalive::default().interval,
            keepalive_probes: Keepalive::default().probes,
            // RFC 9293 §3.8.3 (SHLD-11): R2 at least 100 s; Linux's 15 retries are about 924 s, which keeps
            // a vanished peer's frames for a quarter of an hour. 120 s honours R2.
            user_timeout: Duration::from_secs(120),
            // RFC 9293 §3.8.3: R2 is 100 s at least; Linux's tcp_orphan_retries, 8, make as much.
            orphan_timeout: Duration::from_secs(100),
            // Both are upper bounds: the share of free frames decides (`FramePool::fair_share`). With
            // memory to spare, a client that writes a message of 16 MiB before it reads the echo gets
            // through, although neither side holds the message as a whole.
            receive_buffer: 16 << 20,
            send_buffer: 8 << 20,
            congestion: Algorithm::default(),
            rss: None,
            prediction: true,
        }
    }

    /// Whether `ip` is an address of ours.
    #[inline]
    pub fn is_own(&self, ip: IpAddr) -> bool {
        self.addresses.iter().any(|own| own.address == ip)
    }

    /// The neighbour through which `ip` is reached: itself on-link, else the gateway of its family, or as the kernel
    /// routes.
    pub fn next_hop(&self, ip: IpAddr) -> Option<IpAddr> {
        if let Some(routes) = &self.host_routes {
            let route = routes.iter().find(|route| route.to.contains(ip))?;
            return Some(route.gateway.unwrap_or(ip));
        }
        if self.addresses.iter().any(|own| own.contains(ip)) || is_link_local(ip) {
            return Some(ip);
        }
        self.gateways.iter().copied().find(|gateway| gateway.is_ipv4() == ip.is_ipv4())
    }

    /// Whether `remote` can be one other host's end of a connection (RFC 9293 §3.10.1, MUST-46).
    pub(crate) fn can_connect(&self, remote: SocketAddr) -> bool {
        let ip = remote.ip();
        let impossible = ip.is_unspecified()
            || ip.is_multicast()
            || ip.is_loopback()
            || ip == IpAddr::V4(Ipv4Addr::BROADCAST)
            || self.is_own(ip)
            || self.addresses.iter().any(|own| own.is_broadcast(ip));
        remote.port() != 0 && !impossible
    }

    /// The MSS announced on a connection: MTU less the fixed IP and TCP headers (RFC 9293 §3.7.1, MUST-67, RFC 6691).
    /// S6.1
    pub fn mss(&self, tuple: &FourTuple) -> u16 {
        self.receive_mtu.max(self.mtu) - fixed_headers(tuple)
    }

    /// The most that is sent in a segment, the fixed headers taken off likewise.
    pub(crate) fn send_mss(&self, tuple: &FourTuple) -> u16 {
        self.mtu - fixed_headers(tuple)
    }
}

fn fixed_headers(tuple: &FourTuple) -> u16 {
    if tuple.remote_ip.is_ipv4() { 40 } else { 60 }
}

fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

impl core::fmt::Debug for Config {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        // Everything but the secret.
        f.debug_struct("Config")
            .field("mac", &self.mac)
            .field("mtu", &self.mtu)
            .field("addresses", &self.addresses)
            .field("gateways", &self.gateways)
            .field("max_connections", &self.max_connections)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cidr(address: &str, prefix: u8) -> Cidr {
        Cidr { address: address.parse().expect("address"), prefix }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("address")
    }

    #[test]
    fn prefixes_of_every_length() {
        assert!(cidr("10.1.2.3", 24).contains(ip("10.1.2.250")));
        assert!(!cidr("10.1.2.3", 24).contains(ip("10.1.3.3")));
        assert!(cidr("10.1.2.3", 0).contains(ip("192.0.2.1")));
        assert!(!cidr("10.1.2.3", 32).contains(ip("10.1.2.2")));
        assert!(cidr("fd00::1", 64).contains(ip("fd00::ffff:1")));
        assert!(!cidr("fd00::1", 64).contains(ip("fd00:0:0:1::1")));
        assert!(!cidr("fd00::1", 64).contains(ip("10.0.0.1")));
        assert!(cidr("10.1.2.3", 24).is_broadcast(ip("10.1.2.255")));
        assert!(!cidr("10.1.2.3", 32).is_broadcast(ip("10.1.2.3")));
    }

    #[test]
    fn what_is_not_on_link_goes_to_the_gateway_of_its_family() {
        let mut config = Config::new(MacAddr([2, 0, 0, 0, 0, 1]), [0; 32]);
        config.addresses = vec![cidr("10.1.2.3", 24), cidr("fd00::1", 64)];
        assert_eq!(config.next_hop(ip("10.1.2.9")), Some(ip("10.1.2.9")));
        assert_eq!(config.next_hop(ip("8.8.8.8")), None);
        config.gateways = vec![ip("fd00::fe"), ip("10.1.2.254")];
        assert_eq!(config.next_hop(ip("8.8.8.8")), Some(ip("10.1.2.254")));
        assert_eq!(config.next_hop(ip("2001:db8::1")), Some(ip("fd00::fe")));
        assert_eq!(config.next_hop(ip("fe80::7")), Some(ip("fe80::7")));
    }

    #[test]
    fn the_kernels_routes_alone_say_where_to_go() {
        let mut config = Config::new(MacAddr([2, 0, 0, 0, 0, 1]), [0; 32]);
        config.addresses = vec![cidr("10.1.2.3", 24)];
        let route =
            |to, prefix, gateway: Option<&str>| Route { to: cidr(to, prefix), gateway: gateway.map(ip) };
        config.host_routes = Some(
            [
                route("10.1.2.128", 25, Some("10.1.2.9")),
                route("10.1.2.0", 24, None),
                route("0.0.0.0", 0, Some("10.1.2.254")),
            ]
            .into(),
        );
        assert_eq!(config.next_hop(ip("10.1.2.200")), Some(ip("10.1.2.9")), "more special than on-link");
        assert_eq!(config.next_hop(ip("10.1.2.7")), Some(ip("10.1.2.7")));
        assert_eq!(config.next_hop(ip("8.8.8.8")), Some(ip("10.1.2.254")));
        assert_eq!(config.next_hop(ip("2001:db8::1")), None);
    }
}
