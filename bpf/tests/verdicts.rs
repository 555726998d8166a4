//! What the program decides, frame by frame, by BPF_PROG_TEST_RUN: no interface is touched.
//!
//! A run is judged by two things: the action the program returned, and which counter rose. Exactly one must.

mod frames;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use byway_bpf::{AddressKind, Error, Steering};
use frames::*;
use libbpf_rs::libbpf_sys;

const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;
const XDP_REDIRECT: u32 = 4;

/// Addresses in the documentation ranges: byway's own, one shared with the kernel, and somebody else's.
const OWN: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const HOST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const OTHER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 3);
const OWN6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0xab, 0xcdef);
const HOST6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);
const OTHER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 3);
/// The solicited-node group of OWN6 (RFC 4291 2.7.1), and all nodes.
const OWN6_GROUP: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xffab, 0xcdef);
const HOST6_GROUP: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 2);
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

const PORT: u16 = 80;

struct Bench {
    steering: Steering,
    // Closing it would take it out of the map.
    _socket: OwnedFd,
}

impl Bench {
    /// Own, host and port entries set and a socket registered for queue 0, which test runs come in on.
    fn new() -> Option<Self> {
        let bench = Self::empty()?;
        let steering = &bench.steering;
        steering.add_address(OWN.into()).unwrap();
        steering.add_address(OWN6.into()).unwrap();
        steering.add_address_as(HOST.into(), AddressKind::Host).unwrap();
        steering.add_address_as(HOST6.into(), AddressKind::Host).unwrap();
        steering.add_port(PORT).unwrap();
        Some(bench)
    }

    fn empty() -> Option<Self> {
        let steering = match Steering::load() {
            Err(error @ Error::Permission { .. }) => {
                eprintln!("skipped: {error}");
                return None;
            }
            loaded => loaded.unwrap(),
        };
        // SAFETY: socket takes three integers and touches no memory of ours.
        let fd = unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        assert!(fd >= 0, "AF_XDP socket: {}", std::io::Error::last_os_error());
        // SAFETY: the kernel has just made this descriptor, and nobody else knows it.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        // The map takes a socket that is not bound, and a test run only asks whether there is one.
        steering.register_socket(0, socket.as_fd()).unwrap();
        Some(Self { steering, _socket: socket })
    }

    /// Runs the program over a frame: its action, and the one counter that rose.
    fn run(&self, frame: &[u8]) -> (u32, &'static str) {
        let before = self.steering.counters().unwrap();
        let action = self.action(frame);
        let after = self.steering.counters().unwrap();
        let risen: Vec<_> = before.iter().zip(&after).filter(|(b, a)| b.1 != a.1).collect();
        let [(before, after)] = risen[..] else {
            panic!("{} counters rose for {frame:02x?}: {risen:?}", risen.len())
        };
        assert_eq!(after.1, before.1 + 1);
        (action, after.0)
    }

    /// The verdict, after a check that the action is the verdict's.
    fn verdict(&self, frame: &[u8]) -> &'static str {
        let (action, verdict) = self.run(frame);
        let expected = match verdict {
            "drop_no_socket" | "drop_fragment" => XDP_DROP,
            name if name.starts_with("redirect_") => XDP_REDIRECT,
            _ => XDP_PASS,
        };
        assert_eq!(action, expected, "action of {verdict}");
        verdict
    }

    fn action(&self, frame: &[u8]) -> u32 {
        let mut options = libbpf_sys::bpf_test_run_opts {
            sz: size_of::<libbpf_sys::bpf_test_run_opts>() as libbpf_sys::size_t,
            data_in: frame.as_ptr().cast(),
            data_size_in: frame.len() as u32,
            repeat: 1,
            ..Default::default()
        };
        // SAFETY: the structure states its size, and its only pointer is to `frame`, of the length given.
        let rc = unsafe {
            libbpf_sys::bpf_prog_test_run_opts(self.steering.as_fd().as_raw_fd(), &raw mut options)
        };
        assert_eq!(rc, 0, "test run of {} octets", frame.len());
        options.retval
    }

    fn totals(&self) -> BTreeMap<&'static str, u64> {
        self.steering.counters().unwrap().into_iter().collect()
    }
}

/// One kind of frame: its verdict, and the length from which on that verdict is due. Shorter ones are
/// malformed.
struct Row {
    kind: &'static str,
    frame: Vec<u8>,
    decided_at: usize,
    verdict: &'static str,
}

fn row(kind: &'static str, frame: Vec<u8>, decided_at: usize, verdict: &'static str) -> Row {
    Row { kind, frame, decided_at, verdict }
}

/// Lengths of headers up to and with IPv4, IPv6, TCP, ICMP and the target of NS and NA.
const V4: usize = 14 + 20;
const V6: usize = 14 + 40;
const TCP: usize = 20;
const ICMP: usize = 8;
const ND: usize = 24;

#[rustfmt::skip]
fn rows() -> Vec<Row> {
    let ip4_tcp = |to, port| eth(0x0800, ipv4(to, 6, tcp(port)));
    let ip6_tcp = |to, port| eth(0x86dd, ipv6(to, 6, tcp(port)));
    let quoted4 = |from: Ipv4Addr, protocol, port| sent_by(from.into(), ipv4(OTHER, protocol, tcp(port)));
    let quoted6 = |from: Ipv6Addr, protocol, port| sent_by(from.into(), ipv6(OTHER6, protocol, tcp(port)));
    let chain = |to, headers: &[u8], last: u8, body: Vec<u8>| eth(0x86dd, ipv6_chain(to, headers, last, body));
    vec![
        // IPv4, own address: TCP whatever the port, ICMP, fragments; nothing else (S1.5, L4, L5).
        row("TCP to own address", ip4_tcp(OWN, PORT), V4 + TCP, "redirect_tcp"),
        row("TCP to own address, closed port", ip4_tcp(OWN, 81), V4 + TCP, "redirect_tcp"),
        row("TCP to own address behind IP options", eth(0x0800, ipv4_options(OWN, 40, 6, tcp(PORT))), V4 + 40 + TCP, "redirect_tcp"),
        row("echo request to own address", eth(0x0800, ipv4(OWN, 1, icmp(8))), V4 + ICMP, "redirect_icmp"),
        row("fragmentation needed to own address", eth(0x0800, ipv4(OWN, 1, icmp(3))), V4 + ICMP, "redirect_icmp"),
        row("UDP to own address", eth(0x0800, ipv4(OWN, 17, udp())), V4, "pass_own_other"),
        row("first fragment to own address", eth(0x0800, ipv4_fragment(OWN, 0x2000, 6, tcp(PORT))), V4, "redirect_fragment"),
        row("middle fragment to own address", eth(0x0800, ipv4_fragment(OWN, 0x2001, 6, vec![0; 8])), V4, "redirect_fragment"),
        row("last fragment to own address", eth(0x0800, ipv4_fragment(OWN, 0x1fff, 17, vec![0; 8])), V4, "redirect_fragment"),
        row("don't fragment is no fragment", eth(0x0800, ipv4_fragment(OWN, 0x4000, 6, tcp(PORT))), V4 + TCP, "redirect_tcp"),

        // IPv4, shared address: the listed ports only.
        row("TCP to host address, listed port", ip4_tcp(HOST, PORT), V4 + TCP, "redirect_tcp"),
        row("TCP to host address, other port", ip4_tcp(HOST, 22), V4 + TCP, "pass_not_ours"),
        row("echo request to host address", eth(0x0800, ipv4(HOST, 1, icmp(8))), V4 + ICMP, "pass_not_ours"),
        row("UDP to host address", eth(0x0800, ipv4(HOST, 17, udp())), V4, "pass_not_ours"),
        row("don't fragment to host address", eth(0x0800, ipv4_fragment(HOST, 0x4000, 6, tcp(PORT))), V4 + TCP, "redirect_tcp"),
        // D10: what the kernel would put together, and answer with RST, it never has whole.
        row("first fragment to host address, listed port", eth(0x0800, ipv4_fragment(HOST, 0x2000, 6, tcp(PORT))), V4 + 8, "drop_fragment"),
        row("first fragment to host address, other port", eth(0x0800, ipv4_fragment(HOST, 0x2000, 6, tcp(22))), V4 + 8, "pass_not_ours"),
        row("middle fragment to host address", eth(0x0800, ipv4_fragment(HOST, 0x2001, 6, tcp(PORT))), V4, "pass_not_ours"),
        row("last fragment to host address", eth(0x0800, ipv4_fragment(HOST, 0x0001, 6, tcp(PORT))), V4, "pass_not_ours"),
        row("first fragment of UDP to host address", eth(0x0800, ipv4_fragment(HOST, 0x2000, 17, tcp(PORT))), V4, "pass_not_ours"),
        // Path MTU: errors about byway's segments are byway's, all others the kernel's (RFC 1191).
        row("unreachable, about a listed port", eth(0x0800, ipv4(HOST, 1, icmp_error(3, quoted4(HOST, 6, PORT)))), V4 + ICMP + 28, "redirect_icmp"),
        row("time exceeded, about a listed port", eth(0x0800, ipv4(HOST, 1, icmp_error(11, quoted4(HOST, 6, PORT)))), V4 + ICMP + 28, "redirect_icmp"),
        row("parameter problem, about a listed port", eth(0x0800, ipv4(HOST, 1, icmp_error(12, quoted4(HOST, 6, PORT)))), V4 + ICMP + 28, "redirect_icmp"),
        row("unreachable, about another port", eth(0x0800, ipv4(HOST, 1, icmp_error(3, quoted4(HOST, 6, 22)))), V4 + ICMP + 28, "pass_not_ours"),
        row("unreachable, about UDP from a listed port", eth(0x0800, ipv4(HOST, 1, icmp_error(3, quoted4(HOST, 17, PORT)))), V4 + ICMP + 20, "pass_not_ours"),
        row("unreachable, about somebody else's segment", eth(0x0800, ipv4(HOST, 1, icmp_error(3, quoted4(OTHER, 6, PORT)))), V4 + ICMP + 20, "pass_not_ours"),
        row("redirect, about a listed port", eth(0x0800, ipv4(HOST, 1, icmp_error(5, quoted4(HOST, 6, PORT)))), V4 + ICMP, "pass_not_ours"),
        row("an error in fragments", eth(0x0800, ipv4_fragment(HOST, 0x2000, 1, icmp_error(3, quoted4(HOST, 6, PORT)))), V4, "pass_not_ours"),

        // IPv4, the rest (L2, L6).
        row("TCP to another address", ip4_tcp(OTHER, PORT), V4, "pass_not_ours"),
        row("TCP to broadcast", ip4_tcp(Ipv4Addr::BROADCAST, PORT), V4, "pass_not_ours"),
        row("TCP to multicast", ip4_tcp(Ipv4Addr::new(224, 0, 0, 1), PORT), V4, "pass_not_ours"),
        row("IP version 6 under ethertype IPv4", eth(0x0800, ipv6(OWN6, 6, tcp(PORT))), usize::MAX, "pass_malformed"),
        row("header length below 5", eth(0x0800, patch(ipv4(OWN, 6, tcp(PORT)), 0, 0x44)), usize::MAX, "pass_malformed"),
        row("header length beyond the frame", eth(0x0800, patch(ipv4(OWN, 6, tcp(PORT)), 0, 0x4f)), usize::MAX, "pass_malformed"),

        // Address resolution.
        row("ARP request for own address", eth(0x0806, arp(1, OWN)), 42, "redirect_arp"),
        row("ARP reply to own address", eth(0x0806, arp(2, OWN)), 42, "redirect_arp"),
        row("ARP request for host address", eth(0x0806, arp(1, HOST)), 42, "pass_not_ours"),
        row("ARP request for another address", eth(0x0806, arp(1, OTHER)), 42, "pass_not_ours"),
        row("RARP operation", eth(0x0806, arp(3, OWN)), 42, "pass_not_ours"),
        row("ARP for a protocol that is not IPv4", eth(0x0806, patch(arp(1, OWN), 2, 0x86)), 42, "pass_not_ours"),
        row("ARP with long hardware addresses", eth(0x0806, patch(arp(1, OWN), 4, 8)), 42, "pass_not_ours"),
        row("solicitation for own address to its group", eth(0x86dd, ipv6(OWN6_GROUP, 58, nd(135, OWN6))), V6 + ND, "redirect_ndp"),
        row("solicitation for own address to itself", eth(0x86dd, ipv6(OWN6, 58, nd(135, OWN6))), V6 + ND, "redirect_ndp"),
        row("solicitation for another address in the group", eth(0x86dd, ipv6(OWN6_GROUP, 58, nd(135, OTHER6))), V6 + ND, "pass_not_ours"),
        row("solicitation for host address", eth(0x86dd, ipv6(HOST6, 58, nd(135, HOST6))), V6 + ICMP, "pass_not_ours"),
        row("advertisement to host address", eth(0x86dd, ipv6(HOST6, 58, nd(136, OTHER6))), V6 + ICMP, "pass_not_ours"),
        row("solicitation for host address to its group", eth(0x86dd, ipv6(HOST6_GROUP, 58, nd(135, HOST6))), V6 + ND, "pass_not_ours"),
        row("advertisement to own address", eth(0x86dd, ipv6(OWN6, 58, nd(136, OTHER6))), V6 + ND, "redirect_ndp"),
        row("advertisement of own address to all", eth(0x86dd, ipv6(ALL_NODES, 58, nd(136, OWN6))), V6 + ND, "redirect_ndp"),
        row("advertisement of another address to all", eth(0x86dd, ipv6(ALL_NODES, 58, nd(136, OTHER6))), V6 + ND, "pass_not_ours"),
        row("router advertisement to all", eth(0x86dd, ipv6(ALL_NODES, 58, icmp(134))), V6 + ICMP, "pass_not_ours"),

        // IPv6.
        row("TCP to own IPv6 address", ip6_tcp(OWN6, PORT), V6 + TCP, "redirect_tcp"),
        row("TCP to own IPv6 address, closed port", ip6_tcp(OWN6, 81), V6 + TCP, "redirect_tcp"),
        row("TCP to host IPv6 address, listed port", ip6_tcp(HOST6, PORT), V6 + TCP, "redirect_tcp"),
        row("TCP to host IPv6 address, other port", ip6_tcp(HOST6, 22), V6 + TCP, "pass_not_ours"),
        row("TCP to another IPv6 address", ip6_tcp(OTHER6, PORT), V6, "pass_not_ours"),
        row("own IPv4 address, mapped into IPv6", ip6_tcp(OWN.to_ipv6_mapped(), PORT), V6, "pass_not_ours"),
        row("TCP to a group", ip6_tcp(ALL_NODES, PORT), V6, "pass_not_ours"),
        row("echo request to own IPv6 address", eth(0x86dd, ipv6(OWN6, 58, icmp(128))), V6 + ICMP, "redirect_icmp"),
        row("packet too big to own IPv6 address", eth(0x86dd, ipv6(OWN6, 58, icmp(2))), V6 + ICMP, "redirect_icmp"),
        row("UDP to own IPv6 address", eth(0x86dd, ipv6(OWN6, 17, udp())), V6, "pass_own_other"),
        row("no next header to own IPv6 address", eth(0x86dd, ipv6(OWN6, 59, vec![])), V6, "pass_own_other"),
        row("IP version 4 under ethertype IPv6", eth(0x86dd, patch(ipv6(OWN6, 6, tcp(PORT)), 0, 0x45)), usize::MAX, "pass_malformed"),
        row("fragment to own IPv6 address", chain(OWN6, &[44], 6, tcp(PORT)), V6, "redirect_fragment"),
        row("fragment behind options to own IPv6 address", chain(OWN6, &[0, 60, 44], 6, tcp(PORT)), V6 + 8 + 16, "redirect_fragment"),
        row("echo request to host IPv6 address", eth(0x86dd, ipv6(HOST6, 58, icmp(128))), V6 + ICMP, "pass_not_ours"),
        row("UDP to host IPv6 address", eth(0x86dd, ipv6(HOST6, 17, udp())), V6, "pass_not_ours"),
        row("first fragment to host IPv6 address, listed port", chain(HOST6, &[44], 6, tcp(PORT)), V6 + 8 + 8, "drop_fragment"),
        row("first fragment to host IPv6 address, other port", chain(HOST6, &[44], 6, tcp(22)), V6 + 8 + 8, "pass_not_ours"),
        row("last fragment to host IPv6 address", patch(chain(HOST6, &[44], 6, tcp(PORT)), V6 + 3, 8), V6 + 8, "pass_not_ours"),
        row("fragment of UDP to host IPv6 address", chain(HOST6, &[44], 17, tcp(PORT)), V6 + 8, "pass_not_ours"),
        row("TCP to host IPv6 address behind options", chain(HOST6, &[60], 6, tcp(PORT)), V6 + 8 + TCP, "redirect_tcp"),
        row("packet too big, about a listed port", eth(0x86dd, ipv6(HOST6, 58, icmp_error(2, quoted6(HOST6, 6, PORT)))), V6 + ICMP + 48, "redirect_icmp"),
        row("unreachable, about a listed port over IPv6", eth(0x86dd, ipv6(HOST6, 58, icmp_error(1, quoted6(HOST6, 6, PORT)))), V6 + ICMP + 48, "redirect_icmp"),
        row("packet too big, about another port", eth(0x86dd, ipv6(HOST6, 58, icmp_error(2, quoted6(HOST6, 6, 22)))), V6 + ICMP + 48, "pass_not_ours"),
        row("packet too big, about UDP", eth(0x86dd, ipv6(HOST6, 58, icmp_error(2, quoted6(HOST6, 17, PORT)))), V6 + ICMP + 40, "pass_not_ours"),
        row("packet too big, about somebody else's segment", eth(0x86dd, ipv6(HOST6, 58, icmp_error(2, quoted6(OTHER6, 6, PORT)))), V6 + ICMP + 40, "pass_not_ours"),
        row("fragmented solicitation (RFC 6980)", chain(OWN6_GROUP, &[44], 58, nd(135, OWN6)), V6, "pass_not_ours"),

        // Extension headers (L10). Lengths as ipv6_chain makes them: 8 for the first, 16 for the second, and
        // so on.
        row("TCP behind hop-by-hop options", chain(OWN6, &[0], 6, tcp(PORT)), V6 + 8 + TCP, "redirect_tcp"),
        row("TCP behind a routing header", chain(OWN6, &[43], 6, tcp(PORT)), V6 + 8 + TCP, "redirect_tcp"),
        row("TCP behind an authentication header", chain(OWN6, &[51], 6, tcp(PORT)), V6 + 8 + TCP, "redirect_tcp"),
        row("TCP behind every kind", chain(OWN6, &[0, 60, 43, 51, 60], 6, tcp(PORT)), V6 + 8 + 16 + 24 + 32 + 40 + TCP, "redirect_tcp"),
        row("TCP behind 8 headers", chain(OWN6, &[60; 8], 6, tcp(PORT)), V6 + 8 * 36 + TCP, "redirect_tcp"),
        row("TCP behind 9 headers", chain(OWN6, &[60; 9], 6, tcp(PORT)), V6 + 8 * 36, "pass_ext_headers"),
        row("9 headers to somebody else", chain(OTHER6, &[60; 9], 6, tcp(PORT)), V6, "pass_not_ours"),
        row("echo request behind options", chain(OWN6, &[0], 58, icmp(128)), V6 + 8 + ICMP, "redirect_icmp"),
        row("solicitation behind options", chain(OWN6_GROUP, &[0], 58, nd(135, OWN6)), V6 + 8 + ND, "redirect_ndp"),
        row("encrypted payload", chain(OWN6, &[], 50, vec![0; 16]), V6, "pass_own_other"),

        // Tags (L9).
        row("priority tag", tag(&[(0x8100, 0)], ip4_tcp(OWN, PORT)), 4 + V4 + TCP, "redirect_tcp"),
        row("one tag", tag(&[(0x8100, 5)], ip6_tcp(OWN6, PORT)), 4 + V6 + TCP, "redirect_tcp"),
        row("two tags", tag(&[(0x88a8, 7), (0x8100, 5)], ip4_tcp(OWN, PORT)), 8 + V4 + TCP, "redirect_tcp"),
        // A VLAN is another interface of the kernel's, with other addresses; a priority alone isn't one.
        row("one tag, host address", tag(&[(0x8100, 5)], ip4_tcp(HOST, PORT)), 4 + V4, "pass_not_ours"),
        row("one tag, host IPv6 address", tag(&[(0x8100, 5)], ip6_tcp(HOST6, PORT)), 4 + V6, "pass_not_ours"),
        row("priority tag, host address", tag(&[(0x8100, 0xe000)], ip4_tcp(HOST, PORT)), 4 + V4 + TCP, "redirect_tcp"),
        row("two tags, ARP", tag(&[(0x88a8, 7), (0x8100, 5)], eth(0x0806, arp(1, OWN))), 8 + 42, "redirect_arp"),
        row("three tags", tag(&[(0x88a8, 7), (0x8100, 5), (0x8100, 6)], ip4_tcp(OWN, PORT)), 14 + 8, "pass_vlan_depth"),
        row("three tags, second kind", tag(&[(0x88a8, 7), (0x88a8, 5), (0x88a8, 6)], ip4_tcp(OWN, PORT)), 14 + 8, "pass_vlan_depth"),

        // Neither IP nor ARP (L9).
        row("802.3 length field", eth(100, vec![0xaa; 100]), 14, "pass_not_ours"),
        row("LLDP", eth(0x88cc, vec![0; 46]), 14, "pass_not_ours"),
        row("no payload", eth(0x88cc, vec![]), 14, "pass_not_ours"),
    ]
}

#[test]
fn every_kind_of_frame_has_its_verdict() {
    let Some(bench) = Bench::new() else { return };
    for row in rows() {
        assert_eq!(bench.verdict(&row.frame), row.verdict, "{}", row.kind);
    }
}

/// L1: a cut frame is malformed until the header that decides is whole, and from there on what it is uncut.
#[test]
fn a_frame_cut_anywhere_is_never_taken_for_another_kind() {
    let Some(bench) = Bench::new() else { return };
    for row in rows() {
        for length in 14..row.frame.len() {
            let expected = if length < row.decided_at { "pass_malformed" } else { row.verdict };
            assert_eq!(bench.verdict(&row.frame[..length]), expected, "{} cut at {length}", row.kind);
        }
    }
}

#[test]
fn every_port_of_a_host_address_is_the_kernels_unless_listed() {
    let Some(bench) = Bench::new() else { return };
    // Nothing but port 80, then every third, then nothing.
    for (change, listed) in [
        (Box::new(|_| ()) as Box<dyn Fn(u16)>, Box::new(|port| port == PORT) as Box<dyn Fn(u16) -> bool>),
        (
            Box::new(|port| {
                if port % 3 == 0 {
                    bench.steering.add_port(port).unwrap()
                }
            }),
            Box::new(|port| port == PORT || port % 3 == 0),
        ),
        (Box::new(|port| bench.steering.remove_port(port).unwrap()), Box::new(|_| false)),
    ] {
        (0..=u16::MAX).for_each(change);
        for port in 0..=u16::MAX {
            let action = bench.action(&eth(0x0800, ipv4(HOST, 6, tcp(port))));
            assert_eq!(action, if listed(port) { XDP_REDIRECT } else { XDP_PASS }, "port {port}");
        }
    }
    let totals = bench.totals();
    let redirected = 1 + 65536 / 3 + 2;
    assert_eq!((totals["redirect_tcp"], totals["pass_not_ours"]), (redirected, 3 * 65536 - redirected));
}

/// S1.5: a SYN to a closed port of an own address must find byway, which answers with RST.
#[test]
fn every_port_of_an_own_address_is_byways() {
    let Some(bench) = Bench::new() else { return };
    for port in 0..=u16::MAX {
        assert_eq!(bench.action(&eth(0x0800, ipv4(OWN, 6, tcp(port)))), XDP_REDIRECT, "port {port}");
    }
    assert_eq!(bench.totals()["redirect_tcp"], 65536);
}

/// L9: of all ethertypes only four are looked into, two of which are tags.
#[test]
fn every_other_ethertype_is_the_kernels() {
    let Some(bench) = Bench::new() else { return };
    let payload = ipv4(OWN, 6, tcp(PORT));
    for ethertype in 0..=u16::MAX {
        let action = bench.action(&eth(ethertype, payload.clone()));
        assert_eq!(action, if ethertype == 0x0800 { XDP_REDIRECT } else { XDP_PASS }, "{ethertype:#06x}");
    }
    let totals = bench.totals();
    // IPv6 finds version 4. The tags find 0x0028 (the total length), ARP finds hardware type 0x4500.
    assert_eq!(totals["pass_malformed"], 1);
    assert_eq!(totals["redirect_tcp"], 1);
    assert_eq!(totals["pass_not_ours"], 65536 - 2);
}

#[test]
fn every_protocol_of_an_own_address_has_its_verdict() {
    let Some(bench) = Bench::new() else { return };
    for protocol in 0..=u8::MAX {
        let expected = match protocol {
            1 => "redirect_icmp",
            6 => "redirect_tcp",
            _ => "pass_own_other",
        };
        assert_eq!(bench.verdict(&eth(0x0800, ipv4(OWN, protocol, vec![0; 64]))), expected, "{protocol}");
        let expected = match protocol {
            6 => "redirect_tcp",
            58 => "redirect_icmp",
            44 => "redirect_fragment",
            // 64 octets of zero are hop-by-hop headers of 8 octets each, one after the other.
            0 | 43 | 51 | 60 => "pass_ext_headers",
            _ => "pass_own_other",
        };
        let verdict = bench.verdict(&eth(0x86dd, ipv6(OWN6, protocol, vec![0; 72])));
        assert_eq!(verdict, expected, "IPv6 {protocol}");
    }
}

/// L10: a chain of any length costs a bounded walk, and what lies behind it is not guessed at.
#[test]
fn a_chain_of_extension_headers_is_walked_eight_deep() {
    let Some(bench) = Bench::new() else { return };
    for depth in 0..=100 {
        let mut packet = Vec::new();
        for at in 0..depth {
            packet.extend([if at + 1 == depth { 6 } else { 60 }, 0, 1, 4, 0, 0, 0, 0]);
        }
        packet.extend(tcp(PORT));
        let frame = eth(0x86dd, ipv6(OWN6, if depth == 0 { 6 } else { 60 }, packet));
        let expected = if depth <= 8 { "redirect_tcp" } else { "pass_ext_headers" };
        assert_eq!(bench.verdict(&frame), expected, "{depth} headers");
    }
}

/// Headers whose length field points beyond the frame, for each length it can state.
#[test]
fn an_extension_header_longer_than_the_frame_is_malformed() {
    let Some(bench) = Bench::new() else { return };
    for length in 0..=u8::MAX {
        for (kind, octets) in [(60, (usize::from(length) + 1) * 8), (51, (usize::from(length) + 2) * 4)] {
            let mut packet = vec![6, length, 0, 0, 0, 0, 0, 0];
            packet.resize(512, 0);
            let expected = if octets + TCP <= 512 { "redirect_tcp" } else { "pass_malformed" };
            let verdict = bench.verdict(&eth(0x86dd, ipv6(OWN6, kind, packet)));
            assert_eq!(verdict, expected, "header {kind}, length field {length}");
        }
    }
}

#[test]
fn addresses_change_while_the_program_is_loaded() {
    let Some(bench) = Bench::empty() else { return };
    for (address, frame) in [
        (IpAddr::from(OWN), eth(0x0800, ipv4(OWN, 6, tcp(22)))),
        (IpAddr::from(OWN6), eth(0x86dd, ipv6(OWN6, 6, tcp(22)))),
    ] {
        assert_eq!(bench.verdict(&frame), "pass_not_ours");
        bench.steering.add_address(address).unwrap();
        assert_eq!(bench.verdict(&frame), "redirect_tcp");
        bench.steering.add_address_as(address, AddressKind::Host).unwrap();
        assert_eq!(bench.verdict(&frame), "pass_not_ours", "no port is listed");
        bench.steering.add_port(22).unwrap();
        assert_eq!(bench.verdict(&frame), "redirect_tcp");
        bench.steering.remove_address(address).unwrap();
        assert_eq!(bench.verdict(&frame), "pass_not_ours");
        bench.steering.remove_port(22).unwrap();
    }
    // What is not there is as good as removed.
    bench.steering.remove_address(OWN.into()).unwrap();
    bench.steering.remove_port(22).unwrap();
    bench.steering.unregister_socket(7).unwrap();
}

#[test]
fn there_is_a_limit_to_addresses_and_queues_and_it_is_named() {
    let Some(bench) = Bench::empty() else { return };
    for last in 0..1024u32 {
        bench.steering.add_address(Ipv4Addr::from(0x0a00_0000 + last).into()).unwrap();
    }
    let error = bench.steering.add_address(OWN.into()).unwrap_err();
    assert_eq!(error.to_string(), "no more than 1024 addresses");
    // One that is there already still changes.
    bench.steering.add_address_as(Ipv4Addr::new(10, 0, 0, 0).into(), AddressKind::Host).unwrap();

    let error = bench.steering.register_socket(1024, bench._socket.as_fd()).unwrap_err();
    assert_eq!(error.to_string(), "queue 1024 is beyond the 1024 queues that the XDP program serves");
}

/// D10: a frame of ours that finds no socket is dropped. Passed on, a kernel that has the address would
/// answer RST.
#[test]
fn a_frame_of_ours_without_a_socket_is_dropped_and_counted() {
    let Some(bench) = Bench::new() else { return };
    bench.steering.unregister_socket(0).unwrap();
    for row in rows() {
        let expected = if row.verdict.starts_with("redirect_") { "drop_no_socket" } else { row.verdict };
        assert_eq!(bench.verdict(&row.frame), expected, "{}", row.kind);
    }
    bench.steering.register_socket(0, bench._socket.as_fd()).unwrap();
    assert_eq!(bench.verdict(&eth(0x0800, ipv4(OWN, 6, tcp(PORT)))), "redirect_tcp");
}
