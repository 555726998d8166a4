//! `byway load --host-address`: connections that byway opens from the address that its host's kernel has, beside the
//! kernel's own from there.

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::ops::RangeInclusive;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use byway_lab::{
    BYWAY_INTERFACE, BYWAY_IPV4, BYWAY_IPV6, KERNEL_INTERFACE, KERNEL_IPV4, KERNEL_IPV6, Lab, Watch,
};
use support::shared::{Segment, shared_lab};
use support::*;

/// The ports that byway takes unless told otherwise.
const CLIENT_PORTS: RangeInclusive<u16> = 61_000..=65_534;

/// Has the threads beside a test end, also when it fails.
struct End<'a>(&'a Lab, &'a AtomicBool, SocketAddr);

impl Drop for End<'_> {
    fn drop(&mut self) {
        let Self(lab, stop, remote) = self;
        stop.store(true, Ordering::Relaxed);
        let _ = lab.kernel.enter(|| TcpStream::connect(*remote));
    }
}

/// An echo on the kernel's sockets of the peer, of any number of connections, until told to stop.
fn echo_service(lab: &Lab, ip: IpAddr, stop: &AtomicBool, bound: std::sync::mpsc::Sender<SocketAddr>) {
    let listener = lab.kernel.enter(|| TcpListener::bind((ip, 0)).expect("binds"));
    bound.send(listener.local_addr().expect("bound")).expect("somebody waits");
    std::thread::scope(|scope| {
        // Who has connected by then is served, too: closed over them, the listener would reset them.
        for stream in listener.incoming() {
            if stop.load(Ordering::Relaxed) {
                listener.set_nonblocking(true).expect("nonblocking");
            }
            let mut stream = match stream {
                Err(none) if none.kind() == ErrorKind::WouldBlock => return,
                stream => stream.expect("accepts"),
            };
            scope.spawn(move || {
                stream.set_nodelay(true).expect("nodelay");
                stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
                let mut octets = [0; 65_536];
                // Until the client has closed, or byway's end has reset it.
                while let Ok(count @ 1..) = stream.read(&mut octets) {
                    if stream.write_all(&octets[..count]).is_err() {
                        return;
                    }
                }
            });
        }
    });
}

fn load(lab: &Lab, scratch: &Path, arguments: &str) -> Child {
    let path = |name: &str| scratch.join(name).display().to_string();
    let (control, json) = (path("control.sock"), path("json"));
    let mut all = vec!["load", "--interface", BYWAY_INTERFACE, "--host-address", "--control", &control];
    all.extend(["--zero-copy", "off", "--timeout", "20s", "--cores", "1", "--json", &json]);
    all.extend(arguments.split_whitespace());
    lab.byway.spawn(&mut byway(&all)).expect("byway starts")
}

/// Requests answered, errors, and what was said on standard error.
fn outcome(mut child: Child, scratch: &Path) -> (u64, u64, String) {
    assert!(wait(&mut child, PATIENCE).is_some(), "byway load goes on");
    let output = child.wait_with_output().expect("ends");
    let stderr = String::from_utf8(output.stderr).expect("UTF-8");
    assert!(output.status.success(), "{stderr}");
    let json = std::fs::read_to_string(scratch.join("json")).expect("a result");
    let json = serde_json::from_str(&json).expect("JSON");
    let number = |key: &str| find_number(&json, key).unwrap_or_else(|| panic!("no {key} in {json}"));
    (number("requests"), number("errors"), stderr)
}

/// D10: run after run, while the kernel's own TCP from the same address goes on, and the peer knocks at byway's ports,
/// nothing from there is the kernel's: no RST, nor anything else. And those ports are nobody else's meanwhile.
#[test]
fn d10_byways_connections_run_beside_the_kernels_from_the_same_address() {
    let Some(lab) = shared_lab() else { return };
    let pairs: [(IpAddr, IpAddr); 2] =
        [(BYWAY_IPV4.into(), KERNEL_IPV4.into()), (BYWAY_IPV6.into(), KERNEL_IPV6.into())];
    for (ours, theirs) in pairs {
        let watch = Watch::start(&lab.kernel, KERNEL_INTERFACE).expect("captures");
        let kernels = runs_beside(&lab, ours, theirs);
        assert!(kernels > 0, "the kernel's connections go on");
        let frames = watch.stop();
        let segments: Vec<Segment> = frames
            .iter()
            .filter_map(|frame| Segment::of(frame))
            .filter(|segment| segment.source == ours)
            .collect();
        let from = |ports: RangeInclusive<u16>| {
            let (kernels, byways): (Vec<&Segment>, Vec<&Segment>) = segments
                .iter()
                .filter(|segment| ports.contains(&segment.port))
                .partition(|segment| segment.is_the_kernels());
            assert!(
                kernels.is_empty(),
                "{} from {ports:?} are the kernel's: {:?}",
                kernels.len(),
                kernels[0]
            );
            byways.len()
        };
        assert!(from(CLIENT_PORTS) > 1000 && from(7000..=7099) > 100, "byway's segments are seen");
        assert!(segments.iter().any(|segment| segment.is_the_kernels()), "and so are the kernel's");
    }
    // Two seconds after the end they are anybody's.
    let free = eventually(PATIENCE, || lab.byway.enter(|| TcpListener::bind((BYWAY_IPV4, 62_000))).ok());
    assert!(free.is_some());
}

/// Run after run from `ours` to an echo service at `theirs`; how many connections the kernel had beside them.
fn runs_beside(lab: &Lab, ours: IpAddr, theirs: IpAddr) -> u32 {
    let (stop, octets) = (&AtomicBool::new(false), &random_octets(300_000));
    std::thread::scope(|scope| {
        let (bound, remote) = std::sync::mpsc::channel();
        scope.spawn(move || echo_service(lab, theirs, stop, bound));
        let remote = remote.recv().expect("bound");
        let end = End(lab, stop, remote);
        let beside = scope.spawn(move || {
            let mut count = 0;
            loop {
                let stream = lab.byway.enter(|| try_connect(remote));
                if stop.load(Ordering::Relaxed) {
                    return count;
                }
                let stream = stream.expect("the kernel connects");
                assert_eq!(stream.local_addr().expect("bound").ip(), ours);
                assert_eq!(echo_over(&stream, octets), sha256(octets), "the kernel's TCP");
                count += 1;
            }
        });
        // Until the first is there the ports are nobody's, and refused.
        for (arguments, port, knocks) in [
            ("--client-ports 7000-7099", 7050, false),
            ("", 62_000, true),
            ("--new-connection-per-request --rate 2000", 62_000, false),
            ("--connections 500", 62_000, false),
            ("--payload 50000", 62_000, false),
        ] {
            let scratch = Scratch::new();
            let child = load(lab, &scratch.0, &format!("--duration 700ms {arguments} tcp://{remote}"));
            assert!(is_connected(lab, &scratch.0), "{arguments}");
            if knocks {
                scope.spawn(move || knock(lab, SocketAddr::new(ours, port), stop));
            }
            let taken = lab.byway.enter(|| TcpListener::bind((ours, port))).expect_err("byway's");
            assert_eq!(taken.kind(), ErrorKind::AddrInUse);
            let (requests, errors, said) = outcome(child, &scratch.0);
            assert!(requests > 0 && errors == 0, "{arguments}: {requests} requests, {errors} errors: {said}");
            assert_eq!(said, "", "{arguments}");
        }
        drop(end);
        beside.join().expect("no panic")
    })
}

/// SYNs from the peer at a port that connections are opened from. byway refuses them, or nobody answers.
fn knock(lab: &Lab, at: SocketAddr, stop: &AtomicBool) {
    lab.kernel.enter(|| {
        while !stop.load(Ordering::Relaxed) {
            TcpStream::connect_timeout(&at, Duration::from_millis(30)).expect_err("nobody listens");
            std::thread::sleep(Duration::from_millis(2));
        }
    });
}

/// Once `byway conns` shows a connection, ports are held and frames flow.
fn is_connected(lab: &Lab, scratch: &Path) -> bool {
    let control = scratch.join("control.sock");
    let ask = || {
        let arguments = ["conns", "--json", "--control", control.to_str()?];
        let asked = lab.byway.spawn(&mut byway(&arguments)).ok()?.wait_with_output().ok()?;
        String::from_utf8(asked.stdout).ok()?.contains("ESTAB").then_some(())
    };
    eventually(PATIENCE, ask).is_some()
}

/// Over the kernel's routes, from the address it would take there; the same by an interrupted run, that is reset.
#[test]
fn where_the_kernel_would_go_byway_goes() {
    let Some(lab) = shared_lab() else { return };
    for (namespace, command) in [
        (&lab.kernel, "ip addr add 198.51.100.1/32 dev lo".to_owned()),
        (&lab.kernel, format!("ip addr add 10.9.8.1/24 dev {KERNEL_INTERFACE}")),
        (&lab.byway, format!("ip addr add 10.9.8.7/24 dev {BYWAY_INTERFACE}")),
        (&lab.byway, "ip route add 198.51.100.0/24 via 10.9.8.1".to_owned()),
    ] {
        namespace.run(&command).expect(&command);
    }
    let watch = Watch::start(&lab.kernel, KERNEL_INTERFACE).expect("captures");
    let stop = &AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (lab, (bound, remote)) = (&lab, std::sync::mpsc::channel());
        scope.spawn(move || echo_service(lab, Ipv4Addr::new(198, 51, 100, 1).into(), stop, bound));
        let remote = remote.recv().expect("bound");
        let _end = End(lab, stop, remote);
        let scratch = Scratch::new();
        let child = load(lab, &scratch.0, &format!("--duration 1m tcp://{remote}"));
        assert!(is_connected(lab, &scratch.0));
        // An address more is of no concern; the one that is used goes, and so do the connections.
        lab.byway.run(&format!("ip addr add 192.0.2.9/24 dev {BYWAY_INTERFACE}")).expect("adds");
        lab.byway.enter(|| TcpListener::bind("192.0.2.9:62000")).expect("not byway's");
        lab.byway.run(&format!("ip addr del 10.9.8.7/24 dev {BYWAY_INTERFACE}")).expect("removes");
        std::thread::sleep(Duration::from_millis(300));
        signal(child.id(), libc::SIGINT);
        let (requests, _, said) = outcome(child, &scratch.0);
        assert!(requests > 0);
        assert_eq!(said, "byway: no longer at 10.9.8.7: the kernel has it no more\n");
    });
    let frames = watch.stop();
    let mut byways = frames
        .iter()
        .filter_map(|frame| Segment::of(frame))
        .filter(|segment| CLIENT_PORTS.contains(&segment.port) && !segment.is_the_kernels());
    assert!(byways.all(|segment| segment.source == IpAddr::from([10, 9, 8, 7])));
}

#[test]
fn what_the_kernel_would_not_do_is_refused_in_a_line() {
    let Some(lab) = shared_lab() else { return };
    for command in [
        "ip addr add 10.11.12.13/32 dev lo".to_owned(),
        format!("ip route add 203.0.113.0/24 dev {BYWAY_INTERFACE} src 10.11.12.13"),
        format!("ip route add 10.1.0.0/16 dev {BYWAY_INTERFACE} table 99"),
        "ip rule add to 10.1.0.0/16 lookup 99".to_owned(),
    ] {
        lab.byway.run(&command).expect(&command);
    }
    let other = lab.byway.enter(|| TcpListener::bind((BYWAY_IPV4, 62_000))).expect("binds");
    let holder = format!("192.0.2.1:62000 is in use by pid {} (", std::process::id());
    for (limit, arguments, code, word) in [
        (
            "2000",
            "http://192.0.2.2/",
            71,
            "4535 ports at 1 address take an open file each, and 2000 may be open",
        ),
        ("20000", "http://192.0.2.2/", 71, holder.as_str()),
        ("20000", "--connections 5000 http://192.0.2.2/", 78, "4535 have ports; give more --client-ports"),
        ("20000", "http://10.11.12.13/", 78, "`ip route get 10.11.12.13`"),
        ("20000", "http://192.0.2.1/", 78, "`ip route get 192.0.2.1`"),
        ("20000", "http://198.51.100.1/", 78, "`ip route get 198.51.100.1`"),
        ("20000", "http://203.0.113.1/", 78, "from 10.11.12.13, which isn't byway0's"),
        ("20000", "http://10.1.0.1/", 78, "no route of the main table"),
    ] {
        let mut command = std::process::Command::new("prlimit");
        command.arg(format!("--nofile={limit}:{limit}")).arg(env!("CARGO_BIN_EXE_byway"));
        command.args(["load", "--interface", BYWAY_INTERFACE, "--host-address"]);
        command.args(arguments.split_whitespace()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let output = lab.byway.spawn(&mut command).expect("starts").wait_with_output().expect("ends");
        let said = String::from_utf8(output.stderr).expect("UTF-8");
        assert_eq!((output.status.code(), said.lines().count()), (Some(code), 1), "{arguments}: {said}");
        assert!(said.contains(word), "{arguments}: {said}");
    }
    drop(other);
}
