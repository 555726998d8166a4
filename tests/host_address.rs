//! `--host-address`: byway at the addresses that its host's kernel has, and everything else of the kernel's beside it.

mod support;

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use byway_lab::{
    BYWAY_INTERFACE, BYWAY_IPV4, BYWAY_IPV6, KERNEL_INTERFACE, Lab, Namespace, VethEnd, VethOptions, Watch,
    veth_pair,
};
use support::shared::{KERNEL_TTL, Segment, shared_lab};
use support::*;

const SSH: u16 = 22;
const FAR: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);

fn serve(lab: &Lab, more: &[&str]) -> Server {
    Server::start_at(lab, &["--host-address"], more)
}

fn get(namespace: &Namespace, remote: SocketAddr) -> Result<String, String> {
    let command = format!("curl -sSg --fail --connect-timeout 2 --max-time 10 http://{remote}/hello");
    namespace.run(&command).map_err(|error| error.to_string())
}

fn serves(namespace: &Namespace, remote: SocketAddr) -> bool {
    eventually(PATIENCE, || get(namespace, remote).ok()).is_some_and(|hello| hello == "hello\n")
}

fn any(address: IpAddr) -> IpAddr {
    if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }
}

fn is_byways(address: IpAddr) -> bool {
    [IpAddr::from(BYWAY_IPV4), BYWAY_IPV6.into()].contains(&address)
}

/// The echo of a program on the kernel's sockets, one TCP connection and some datagrams.
fn kernel_services(lab: &Lab, address: IpAddr, stop: &AtomicBool) {
    let (listener, datagrams) = lab.byway.enter(|| {
        (TcpListener::bind((address, SSH)).expect("binds"), UdpSocket::bind((address, 7)).expect("binds"))
    });
    datagrams.set_read_timeout(Some(Duration::from_millis(50))).expect("timeout");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (mut stream, _) = listener.accept().expect("accepts");
            std::io::copy(&mut stream.try_clone().expect("clones"), &mut stream).expect("echoes");
        });
        let mut datagram = [0; 2048];
        while !stop.load(Ordering::Relaxed) {
            if let Ok((length, from)) = datagrams.recv_from(&mut datagram) {
                datagrams.send_to(&datagram[..length], from).expect("sends");
            }
        }
    });
}

/// ssh-like TCP, UDP and ping to the same address while byway serves it; nobody disturbs anybody.
#[test]
fn the_kernels_traffic_runs_beside_byways() {
    let Some(lab) = shared_lab() else { return };
    let server = serve(&lab, &[]);
    for own in ["192.0.2.1/24(host)", "2001:db8::1/64(host)"] {
        assert!(server.ready.contains(own), "{}", server.ready);
    }
    for address in [IpAddr::from(BYWAY_IPV4), BYWAY_IPV6.into()] {
        let stop = AtomicBool::new(false);
        let octets = random_octets(20_000_000);
        let remote = SocketAddr::new(address, SSH);
        std::thread::scope(|scope| {
            scope.spawn(|| kernel_services(&lab, address, &stop));
            // Once datagrams come back, the services are there.
            let there = eventually(PATIENCE, || {
                let probe = lab.kernel.enter(|| UdpSocket::bind((any(address), 0))).ok()?;
                probe.set_read_timeout(Some(Duration::from_millis(200))).ok()?;
                probe.send_to(b"there?", (address, 7)).ok()?;
                probe.recv(&mut [0; 16]).ok()
            });
            assert!(there.is_some(), "UDP to {address}");
            let at_ssh = scope.spawn(|| lab.kernel.enter(|| echo(remote, &octets)));
            for _ in 0..20 {
                assert_eq!(get(&lab.kernel, SocketAddr::new(address, HTTP)).as_deref(), Ok("hello\n"));
                let sum = lab.kernel.enter(|| echo(SocketAddr::new(address, ECHO), &octets[..500_000]));
                assert_eq!(sum, sha256(&octets[..500_000]), "byway's echo");
            }
            assert_eq!(at_ssh.join().expect("no panic"), sha256(&octets), "the kernel's TCP");
            let ping = format!("ping -c 20 -i 0.01 -W 2 {address}");
            let pinged = lab.kernel.run(&ping).expect("all answered");
            assert!(pinged.contains(" 0% packet loss"), "{pinged}");
            stop.store(true, Ordering::Relaxed);
        });
    }
    let stats = server.ask(&lab, "stats");
    for none in ["redirect_arp", "redirect_ndp", "redirect_icmp"] {
        assert_eq!(find_number(&stats, none), Some(0), "{none}");
    }
    server.stop();
}

/// A port of nobody's is refused by the kernel; byway's ports are nobody else's; who is on the same host is refused.
#[test]
fn ports_belong_to_one_of_both() {
    let Some(lab) = shared_lab() else { return };
    let server = serve(&lab, &[]);
    let watch = Watch::start(&lab.kernel, KERNEL_INTERFACE).expect("captures");
    let refused = |namespace: &Namespace, remote: SocketAddr| {
        let error =
            namespace.enter(|| TcpStream::connect_timeout(&remote, PATIENCE)).expect_err("nobody listens");
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused, "{remote}");
    };
    for remote in [v4(81), v6(81)] {
        refused(&lab.kernel, remote);
    }
    let frames = watch.stop();
    let resets: Vec<_> =
        frames.iter().filter_map(|frame| Segment::of(frame)).filter(|segment| segment.is_reset).collect();
    let kernels = [v4(81), v6(81)].map(|remote| Segment {
        source: remote.ip(),
        port: 81,
        ttl: KERNEL_TTL,
        is_reset: true,
    });
    assert_eq!(resets, kernels, "the kernel's resets, known by their TTL");
    for own in [v4(HTTP), v6(HTTP), v4(ECHO)] {
        refused(&lab.byway, own);
        for taken in
            [own, (Ipv4Addr::UNSPECIFIED, own.port()).into(), (Ipv6Addr::UNSPECIFIED, own.port()).into()]
        {
            let error = lab.byway.enter(|| TcpListener::bind(taken)).expect_err("byway's");
            assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse, "{taken}");
        }
    }
    server.stop();
}

#[test]
fn a_port_in_use_is_refused_with_who_has_it() {
    let Some(lab) = shared_lab() else { return };
    let other = lab.byway.enter(|| TcpListener::bind("0.0.0.0:80")).expect("binds");
    let scratch = Scratch::new();
    let control = scratch.0.join("control.sock");
    let arguments = ["serve", "--interface", BYWAY_INTERFACE, "--host-address", "--control"];
    let start = |more: &str| {
        let all: Vec<_> =
            arguments.into_iter().chain(control.to_str()).chain(more.split_whitespace()).collect();
        let output =
            lab.byway.spawn(&mut byway(&all)).expect("starts").wait_with_output().expect("ends by itself");
        (output.status.code(), String::from_utf8(output.stderr).expect("UTF-8"))
    };
    for more in ["", "--check"] {
        let (code, said) = start(more);
        let holder = format!("192.0.2.1:80 is in use by pid {} (", std::process::id());
        assert_eq!((code, said.lines().count()), (Some(71), 1), "{said}");
        assert!(said.contains(&holder) && said.contains("another port"), "{said}");
    }
    drop(other);
    lab.byway.run(&format!("ip addr flush dev {BYWAY_INTERFACE}")).expect("flushes");
    let (code, said) = start("");
    assert_eq!((code, said.lines().count()), (Some(78), 1), "{said}");
    assert!(said.contains("ip addr add") && said.contains("--address"), "{said}");
    assert!(!lab.byway.run("ip -details link").expect("ip").contains("prog/xdp"));
}

/// Addresses that come are served, those that go aren't, and their connections end; the others' go on.
#[test]
fn addresses_are_followed() {
    let Some(lab) = shared_lab() else { return };
    let server = serve(&lab, &[]);
    let talk = |mut stream: &TcpStream| {
        stream.write_all(b"hello").and_then(|()| {
            let mut back = [0; 5];
            stream.read_exact(&mut back)
        })
    };
    let stays = lab.kernel.enter(|| connect(v4(ECHO)));
    for (address, prefix) in [("192.0.2.9", 24), ("2001:db8::9", 64)] {
        let ip: IpAddr = address.parse().expect("address");
        let remote = SocketAddr::new(ip, HTTP);
        lab.byway.run(&format!("ip addr add {address}/{prefix} dev {BYWAY_INTERFACE} nodad")).expect("adds");
        assert!(serves(&lab.kernel, remote), "{address} was added");
        let goes = lab.kernel.enter(|| connect(SocketAddr::new(ip, ECHO)));
        talk(&goes).expect("an echo");
        lab.byway.run(&format!("ip addr del {address}/{prefix} dev {BYWAY_INTERFACE}")).expect("removes");
        let end = (&goes).read(&mut [0; 8]).expect_err("ends");
        assert_eq!(end.kind(), std::io::ErrorKind::ConnectionReset, "{address} was removed");
        talk(&stays).expect("undisturbed");
        let other = format!("serving, and {remote} isn't");
        assert!(get(&lab.kernel, v4(HTTP)).is_ok(), "{other}");
        assert!(get(&lab.kernel, remote).is_err(), "{other}");
        let free =
            eventually(PATIENCE, || lab.byway.enter(|| TcpListener::bind((Ipv4Addr::LOCALHOST, HTTP))).ok());
        assert!(free.is_some(), "other addresses are others'");
    }
    server.stop();
}

/// The kernel's routes lead the way, as they change; and errors from that way reach byway (RFC 1191, RFC 8201).
#[test]
fn routes_are_followed_to_a_host_behind_a_router() {
    let Some(lab) = shared_lab() else { return };
    let far = Namespace::new().expect("a namespace");
    let router = VethEnd { namespace: &lab.kernel, name: "inner" };
    veth_pair(router, VethEnd { namespace: &far, name: "outer" }, VethOptions::default()).expect("a pair");
    for (namespace, command) in [
        (&lab.kernel, "ip addr add 198.51.100.1/24 dev inner".to_owned()),
        (&lab.kernel, "ip addr add 2001:db8:f::1/64 dev inner nodad".to_owned()),
        // In its name a router asks for whom it forwards to, and every router has one (RFC 4861 §6.1.2).
        (&lab.kernel, format!("ip addr add fe80::2/64 dev {KERNEL_INTERFACE} nodad")),
        (&lab.kernel, "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1".to_owned()),
        (&far, format!("ip addr add {FAR}/24 dev outer")),
        (&far, "ip addr add 2001:db8:f::2/64 dev outer nodad".to_owned()),
        (&far, "ip route add default via 198.51.100.1".to_owned()),
        (&far, "ip -6 route add default via 2001:db8:f::1".to_owned()),
        // There is nobody.
        (&lab.byway, "ip route add default via 192.0.2.99".to_owned()),
        (&lab.byway, "ip -6 route add default via 2001:db8::99".to_owned()),
    ] {
        namespace.run(&command).expect(&command);
    }
    let server = serve(&lab, &[]);
    for remote in [v4(HTTP), v6(HTTP)] {
        assert!(get(&far, remote).is_err(), "the gateway isn't there, {remote}");
        assert!(get(&lab.kernel, remote).is_ok(), "{remote}");
    }
    lab.byway.run("ip route replace default via 192.0.2.2").expect("replaces");
    lab.byway.run("ip -6 route replace default via 2001:db8::2").expect("replaces");
    for remote in [v4(HTTP), v6(HTTP)] {
        assert!(serves(&far, remote), "{remote}");
    }
    // A special route goes before the default.
    lab.byway.run("ip route add 198.51.100.0/24 via 192.0.2.99").expect("adds");
    let cut_off = eventually(PATIENCE, || get(&far, v4(HTTP)).err());
    assert!(cut_off.is_some(), "nobody is on that way");
    lab.byway.run("ip route del 198.51.100.0/24").expect("removes");
    assert!(serves(&far, v4(HTTP)));

    lab.kernel.run("ip link set inner mtu 1300").expect("mtu");
    for remote in [v4(HTTP), v6(HTTP)] {
        let download = format!(
            "curl -sSg --fail --max-time 60 -o /dev/null -w %{{size_download}} http://{remote}/bytes/3000000"
        );
        assert_eq!(far.run(&download).expect("curl"), "3000000", "{remote}");
    }
    let stats = server.ask(&lab, "stats");
    assert_eq!(find_number(&stats, "BywayTcpMtuReductions"), Some(2), "one for each family");
    assert_eq!(find_number(&stats, "BywayTcpMtuBlackHoles"), Some(0));
    server.stop();
}

/// Who moves to another MAC address is found there as soon as the kernel knows; and byway never asks by itself.
#[test]
fn neighbours_are_the_kernels() {
    let Some(lab) = shared_lab() else { return };
    let server = serve(&lab, &[]);
    assert!(serves(&lab.kernel, v4(HTTP)) && serves(&lab.kernel, v6(HTTP)));
    lab.kernel.run(&format!("ip link set {KERNEL_INTERFACE} address 02:00:00:00:00:77")).expect("moves");
    for address in [IpAddr::from(BYWAY_IPV4), BYWAY_IPV6.into()] {
        // By what the peer asks the kernel learns.
        lab.kernel.run(&format!("ip neigh flush dev {KERNEL_INTERFACE}")).expect("flushes");
        let _ = lab.kernel.output(&format!("ping -c 1 -W 2 {address}"));
        assert!(serves(&lab.kernel, SocketAddr::new(address, HTTP)), "{address}");
    }
    // Forgotten: the kernel asks, for byway.
    lab.byway.run(&format!("ip neigh flush dev {BYWAY_INTERFACE}")).expect("flushes");
    assert!(serves(&lab.kernel, v4(HTTP)) && serves(&lab.kernel, v6(HTTP)));
    let stats = server.ask(&lab, "stats");
    for none in ["BywayArpOut", "BywayNdpOut"] {
        assert_eq!(find_number(&stats, none), Some(0), "{none} in {stats}");
    }
    server.stop();
}

/// D10: through starts and stops, while a peer keeps sending SYNs, nothing from byway's ports is the kernel's: no RST,
/// nor anything else. `BYWAY_STARTS=100` for as many; 20 take some ten seconds.
#[test]
fn d10_the_kernel_answers_nothing_at_byways_ports_through_starts_and_stops() {
    let Some(lab) = shared_lab() else { return };
    let rounds = std::env::var("BYWAY_STARTS").ok().and_then(|text| text.parse().ok()).unwrap_or(20);
    let start = || serve(&lab, &["--drain", "100ms", "--frames", "20480"]);
    let mut server = start();
    let watch = Watch::start(&lab.kernel, KERNEL_INTERFACE).expect("captures");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for remote in [v4(HTTP), v6(HTTP), v4(ECHO)] {
            let (lab, stop) = (&lab, &stop);
            scope.spawn(move || {
                lab.kernel.enter(|| {
                    while !stop.load(Ordering::Relaxed) {
                        match TcpStream::connect_timeout(&remote, Duration::from_millis(30)) {
                            Ok(stream) => drop(stream),
                            Err(error) => assert_ne!(
                                error.kind(),
                                std::io::ErrorKind::ConnectionRefused,
                                "{remote}: {error}"
                            ),
                        }
                        std::thread::sleep(Duration::from_millis(2));
                    }
                });
            });
        }
        for round in 0..rounds {
            assert_eq!(get(&lab.kernel, v4(HTTP)).as_deref(), Ok("hello\n"), "round {round}");
            server.stop();
            assert!(
                !lab.byway.run("ip -details link").expect("ip").contains("prog/xdp"),
                "nothing is attached"
            );
            server = start();
        }
        server.stop();
        // Within what lingers.
        std::thread::sleep(Duration::from_millis(200));
        stop.store(true, Ordering::Relaxed);
    });
    let frames = watch.stop();
    let from_ports: Vec<_> = frames
        .iter()
        .filter_map(|frame| Segment::of(frame))
        .filter(|segment| is_byways(segment.source) && [HTTP, ECHO].contains(&segment.port))
        .collect();
    let resets = from_ports.iter().filter(|segment| segment.is_reset).count();
    println!("{rounds} starts: {} segments from byway's ports, {resets} resets", from_ports.len());
    assert!(from_ports.len() > rounds, "byway's answers are seen");
    let kernels: Vec<_> = from_ports.iter().filter(|segment| segment.is_the_kernels()).collect();
    assert!(kernels.is_empty(), "the kernel's: {kernels:?}");
    // In the end the ports are the kernel's, and free.
    let refused = eventually(PATIENCE, || {
        let error =
            lab.kernel.enter(|| TcpStream::connect_timeout(&v4(HTTP), Duration::from_millis(100)).err());
        error.filter(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
    });
    assert!(refused.is_some());
    lab.byway.enter(|| TcpListener::bind("0.0.0.0:80")).expect("free");
}
