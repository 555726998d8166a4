//! The way between byway and its peers, on real routers (the kernel's): smaller MTUs, fragments, silence. S6.2
//!
//! ```text
//!   byway ── 1500 ── kernel (router) ── as the test wants ── far
//! ```

mod support;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use byway_lab::{
    KERNEL_INTERFACE, KERNEL_IPV4, KERNEL_IPV6, Lab, LabOptions, Namespace, VethEnd, VethOptions, is_root,
    veth_pair,
};
use support::*;

const FAR_IPV4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
const FAR_IPV6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xf, 0, 0, 0, 0, 2);

/// The lab's kernel routes to a host behind it.
struct Way {
    lab: Lab,
    far: Namespace,
}

impl Way {
    fn new() -> Option<Self> {
        if !is_root() {
            return None;
        }
        let lab = Lab::new(LabOptions::default()).expect("a lab");
        let far = Namespace::new().expect("a namespace");
        let ends = ["inner", "outer"];
        let router = VethEnd { namespace: &lab.kernel, name: ends[0] };
        veth_pair(router, VethEnd { namespace: &far, name: ends[1] }, VethOptions::default())
            .expect("a pair");
        let run = |namespace: &Namespace, command: &str| {
            namespace.run(command).expect(command);
        };
        run(&lab.kernel, "ip addr add 198.51.100.1/24 dev inner");
        run(&lab.kernel, "ip addr add 2001:db8:f::1/64 dev inner nodad");
        run(&lab.kernel, "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
        run(&far, &format!("ip addr add {FAR_IPV4}/24 dev outer"));
        run(&far, &format!("ip addr add {FAR_IPV6}/64 dev outer nodad"));
        run(&far, "ip route add default via 198.51.100.1");
        run(&far, "ip -6 route add default via 2001:db8:f::1");
        Some(Self { lab, far })
    }

    fn serve(&self) -> Server {
        let (v4, v6) = (KERNEL_IPV4.to_string(), KERNEL_IPV6.to_string());
        Server::start(&self.lab, &["--gateway", &v4, "--gateway", &v6])
    }

    fn download(&self, remote: SocketAddr, octets: usize) {
        let command = format!(
            "curl -sSg --fail --max-time 60 -o /dev/null -w %{{size_download}} http://{remote}/bytes/{octets}"
        );
        assert_eq!(self.far.run(&command).expect("curl"), octets.to_string(), "{remote}");
    }

    fn counter(&self, server: &Server, name: &str) -> u64 {
        find_number(&server.ask(&self.lab, "stats"), name).unwrap_or_else(|| panic!("no {name}"))
    }
}

/// RFC 1191, RFC 8201: a router's word is heard, what it refused comes again at once, and nobody waits for a timer.
#[test]
fn s6_2_a_smaller_hop_behind_a_router() {
    let Some(way) = Way::new() else { return };
    // Only on the router's side: the far host still announces what fits 1500.
    way.lab.kernel.run("ip link set inner mtu 1300").expect("mtu");
    let server = way.serve();
    for remote in [v4(HTTP), v6(HTTP)] {
        way.download(remote, 3_000_000);
    }
    assert_eq!(way.counter(&server, "BywayTcpMtuReductions"), 2, "one for each family");
    assert_eq!(way.counter(&server, "BywayTcpMtuBlackHoles"), 0);
    // The next connections know.
    for remote in [v4(HTTP), v6(HTTP)] {
        way.download(remote, 3_000_000);
    }
    assert_eq!(way.counter(&server, "BywayTcpMtuReductions"), 2);
    assert!(way.counter(&server, "IcmpInDestUnreachs") > 0);
    assert!(way.counter(&server, "Icmp6InPktTooBigs") > 0);
    server.stop();
}

/// RFC 4821 §7.7: the same router, which says nothing.
#[test]
fn s6_2_a_router_that_swallows_what_is_too_large() {
    let Some(way) = Way::new() else { return };
    way.lab.kernel.run("ip link set inner mtu 1300").expect("mtu");
    // What the router itself sends to byway, but for its neighbour discovery: its ICMP errors.
    way.lab.kernel.run("ip rule add iif lo to 192.0.2.1 blackhole").expect("rule");
    let server = way.serve();
    way.download(v4(HTTP), 1_000_000);
    assert_eq!(way.counter(&server, "IcmpInDestUnreachs"), 0, "it says nothing");
    assert_eq!(way.counter(&server, "BywayTcpMtuBlackHoles"), 1);
    server.stop();
}

/// A host that lets routers split its segments: they arrive in fragments, and what it posts comes back whole.
#[test]
fn s6_2_segments_that_a_router_had_to_split() {
    let Some(way) = Way::new() else { return };
    way.lab.kernel.run(&format!("ip link set {KERNEL_INTERFACE} mtu 1400")).expect("mtu");
    way.far.run("sysctl -qw net.ipv4.ip_no_pmtu_disc=1").expect("sysctl");
    let server = way.serve();
    let scratch = Scratch::new();
    let (sent, sum) = scratch.random_file(1_000_000);
    let back = scratch.0.join("back");
    let command = format!(
        "curl -sS --fail --max-time 60 --data-binary @{} -o {} http://{}/echo",
        sent.display(),
        back.display(),
        v4(HTTP)
    );
    way.far.run(&command).expect("curl");
    assert_eq!(sha256(&std::fs::read(&back).expect("answer")), sum);
    assert!(way.counter(&server, "IpReasmOKs") >= 600, "full segments came in two pieces");
    assert_eq!(way.counter(&server, "IpReasmFails"), 0);
    server.stop();
}

/// Echo requests that don't fit a packet, of both families, up to the largest there is.
#[test]
fn s6_2_ping_with_more_than_a_packet() {
    let Some(way) = Way::new() else { return };
    let server = way.serve();
    for size in [56, 1472, 1473, 3000, 20_000, 65_000] {
        for remote in [v4(0), v6(0)] {
            // Until three have come back, or ten seconds: a busy host may need longer for one than ping waits by itself.
            let ping = format!("ping -c 3 -i 0.05 -w 10 -s {size} {}", remote.ip());
            let said = way.lab.kernel.run(&ping).expect(&ping);
            assert!(said.contains(" 3 received"), "{said}");
        }
    }
    assert!(way.counter(&server, "IpFragCreates") > 0);
    server.stop();
}
