//! The bridge between two kernels: what the kernel's TCP repairs arrives whole, and the counts say what was
//! repaired.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use byway_lab::{
    BYWAY_INTERFACE, BYWAY_IPV4, BYWAY_IPV6, Directions, Impair, ImpairOptions, KERNEL_IPV4, KERNEL_IPV6,
    Lab, LabOptions, Namespace, Report, VethEnd, VethOptions, is_root, veth_pair,
};

/// A lab with a kernel on both sides.
fn two_kernels(options: LabOptions) -> Lab {
    let lab = Lab::new(options).unwrap();
    lab.byway.run(&format!("ip addr add {BYWAY_IPV4}/24 dev {BYWAY_INTERFACE}")).unwrap();
    lab.byway.run(&format!("ip addr add {BYWAY_IPV6}/64 dev {BYWAY_INTERFACE} nodad")).unwrap();
    lab
}

fn impaired(impair: ImpairOptions) -> Lab {
    two_kernels(LabOptions { impair: Some(impair), ..LabOptions::default() })
}

/// Octets whose order and number a mistake would not leave alone.
fn pattern(octets: usize) -> Vec<u8> {
    (0..octets as u32).flat_map(|at| at.wrapping_mul(2_654_435_761).to_be_bytes()).take(octets).collect()
}

/// Sends the pattern to an echo on the other side and reads it back.
fn echo(lab: &Lab, address: IpAddr, octets: usize) {
    let address = SocketAddr::from((address, 7));
    let listener = lab.kernel.enter(|| TcpListener::bind(address).unwrap());
    let sent = pattern(octets);
    let mut stream = lab.byway.enter(|| {
        thread::scope(|scope| {
            scope.spawn(|| {
                let (mut peer, _) = listener.accept().unwrap();
                let mut all = Vec::new();
                peer.read_to_end(&mut all).unwrap();
                peer.write_all(&all).unwrap();
            });
            let mut stream = TcpStream::connect(address).unwrap();
            stream.write_all(&sent).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            let mut received = Vec::new();
            stream.read_to_end(&mut received).unwrap();
            assert!(
                received == sent,
                "{} octets sent, {} came back, or not the same",
                sent.len(),
                received.len()
            );
            stream
        })
    });
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
}

fn report(mut lab: Lab) -> Report {
    let report = lab.stop_impairing().unwrap().expect("the lab impairs");
    assert!(!report.oversized(), "{report}");
    report
}

#[test]
fn without_impairment_nothing_is_lost() {
    if !is_root() {
        return;
    }
    let lab = impaired(ImpairOptions::default());
    echo(&lab, KERNEL_IPV4.into(), 4 << 20);
    echo(&lab, KERNEL_IPV6.into(), 4 << 20);
    let Report { a_to_b, b_to_a, .. } = report(lab);
    for counts in [a_to_b, b_to_a] {
        assert!(counts.received > 1000, "{counts}");
        assert_eq!(counts.sent, counts.received, "{counts}");
    }
}

#[test]
fn tcp_repairs_one_percent_of_everything() {
    if !is_root() {
        return;
    }
    let lab = impaired(ImpairOptions {
        loss: 0.01,
        duplicate: 0.01,
        reorder: 0.01,
        corrupt: 0.01,
        delay: Duration::from_millis(1),
        jitter: Duration::from_micros(200),
        ..ImpairOptions::default()
    });
    echo(&lab, KERNEL_IPV4.into(), 4 << 20);
    let Report { a_to_b, b_to_a, .. } = report(lab);
    for counts in [a_to_b, b_to_a] {
        for count in [counts.lost, counts.duplicated, counts.reordered, counts.corrupted] {
            assert!(count > 0, "{counts}");
        }
    }
}

#[test]
fn tcp_repairs_five_percent_of_everything() {
    if !is_root() {
        return;
    }
    let lab = impaired(ImpairOptions {
        seed: 5,
        loss: 0.05,
        duplicate: 0.05,
        reorder: 0.05,
        corrupt: 0.05,
        ..ImpairOptions::default()
    });
    echo(&lab, KERNEL_IPV4.into(), 512 << 10);
    let Report { a_to_b, b_to_a, .. } = report(lab);
    assert!(a_to_b.lost > 0 && b_to_a.lost > 0, "{a_to_b}\n{b_to_a}");
}

#[test]
fn a_delay_is_in_both_directions() {
    if !is_root() {
        return;
    }
    let lab = impaired(ImpairOptions { delay: Duration::from_millis(30), ..ImpairOptions::default() });
    let listener = lab.kernel.enter(|| TcpListener::bind((KERNEL_IPV4, 9)).unwrap());
    let connect = || {
        let started = now();
        lab.byway.enter(|| TcpStream::connect(listener.local_addr().unwrap())).unwrap();
        started.elapsed()
    };
    // The first resolves the address, too.
    connect();
    // A busy host makes it longer, nothing makes it shorter: that it is no longer, `impair/tests.rs` shows without a
    // clock.
    let took = connect();
    assert!(took >= Duration::from_millis(60), "{took:?}");
}

#[test]
fn frames_above_the_mtu_are_said_not_passed() {
    if !is_root() {
        return;
    }
    let (sender, wire, receiver) =
        (Namespace::new().unwrap(), Namespace::new().unwrap(), Namespace::new().unwrap());
    let join = |one: (&Namespace, &str), other: (&Namespace, &str), mtu| {
        let end = |(namespace, name)| VethEnd { namespace, name };
        veth_pair(end(one), end(other), VethOptions { mtu, ..VethOptions::default() }).unwrap();
    };
    join((&sender, "bwb0"), (&wire, "near"), 1500);
    join((&wire, "far"), (&receiver, "bwb0"), 1300);
    sender.run("ip addr add 192.0.2.1/24 dev bwb0").unwrap();
    sender.run("ip neighbor add 192.0.2.2 lladdr 02:00:00:00:00:02 dev bwb0").unwrap();
    let impair = Impair::start(&wire, "near", "far", ImpairOptions::default()).unwrap();
    let socket = sender.enter(|| UdpSocket::bind("192.0.2.1:0").unwrap());
    for octets in [900, 1400] {
        socket.send_to(&vec![0; octets], "192.0.2.2:9").unwrap();
    }
    thread::sleep(Duration::from_millis(100));
    let report = impair.stop().unwrap();
    assert!(report.oversized());
    assert_eq!((report.a_to_b.oversized, report.a_to_b.sent), (1, 1), "{report}");
}

/// Two stations on one line: each hears what is for it, and nothing that is for the other.
#[test]
fn stations_of_one_end_share_the_line() {
    if !is_root() {
        return;
    }
    let (wire, far) = (Namespace::new().unwrap(), Namespace::new().unwrap());
    let end = |namespace, name| VethEnd { namespace, name };
    let stations = ["192.0.2.11", "192.0.2.12"].map(|address| (Namespace::new().unwrap(), address));
    for ((station, address), near) in stations.iter().zip(["near0", "near1"]) {
        veth_pair(end(station, "bwb0"), end(&wire, near), VethOptions::default()).unwrap();
        station.run(&format!("ip addr add {address}/24 dev bwb0")).unwrap();
    }
    veth_pair(end(&wire, "far"), end(&far, "bwb0"), VethOptions::default()).unwrap();
    far.run("ip addr add 192.0.2.2/24 dev bwb0").unwrap();
    let slow = ImpairOptions { delay: Duration::from_millis(30), ..ImpairOptions::default() };
    let directions = Directions { a_to_b: slow, b_to_a: ImpairOptions::default() };
    let impair = Impair::start_shared(&wire, &["near0", "near1"], "far", directions).unwrap();

    let listener = far.enter(|| TcpListener::bind("192.0.2.2:9").unwrap());
    let received = |namespace: &Namespace| -> u64 {
        let text = namespace.run("ip -s link show bwb0").unwrap();
        let line = text.lines().skip_while(|line| !line.contains("RX:")).nth(1).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    for (station, _) in &stations {
        station.enter(|| TcpStream::connect("192.0.2.2:9")).unwrap();
    }
    let before = received(&stations[1].0);
    let (mut stream, mut peer) =
        (stations[0].0.enter(|| TcpStream::connect("192.0.2.2:9").unwrap()), None::<TcpStream>);
    let address = stream.local_addr().unwrap();
    while peer.as_ref().is_none_or(|peer| peer.peer_addr().ok() != Some(address)) {
        peer = Some(listener.accept().unwrap().0);
    }
    let sent = pattern(1 << 20);
    let mut back = vec![0; sent.len()];
    thread::scope(|scope| {
        scope.spawn(|| peer.as_ref().unwrap().write_all(&sent).unwrap());
        stream.read_exact(&mut back).unwrap();
    });
    assert!(back == sent);
    assert!(received(&stations[1].0) - before < 10, "what is for one station doesn't go to the other");
    // It would be refused, if it were heard.
    let other = SocketAddr::from(([192, 0, 2, 12], 9));
    let error = stations[0].0.enter(|| TcpStream::connect_timeout(&other, Duration::from_millis(300)));
    assert_eq!(error.unwrap_err().kind(), std::io::ErrorKind::TimedOut);
    let report = impair.stop().unwrap();
    assert!(report.a_to_b.sent > 100 && report.b_to_a.sent > 700, "{report}");
    assert_eq!(report.a, "near0+near1");
}

#[test]
fn an_interface_that_is_not_there_is_an_error_at_once() {
    if !is_root() {
        return;
    }
    let namespace = Namespace::new().unwrap();
    let error = Impair::start(&namespace, "lo", "bwb-none", ImpairOptions::default()).unwrap_err();
    assert!(format!("{error:#}").starts_with("cannot listen on bwb-none: No such device"), "{error:#}");
}

/// The bridge must not be what limits a test. 50 thousand frames a second is the least; this prints what it
/// is here.
#[test]
fn fifty_thousand_small_frames_a_second_pass() {
    if !is_root() {
        return;
    }
    const FRAMES: u64 = 100_000;
    let lab = impaired(ImpairOptions::default());
    // Resolves the address, so that the first frames are not lost while that is under way.
    let listener = lab.kernel.enter(|| TcpListener::bind((KERNEL_IPV4, 9)).unwrap());
    lab.byway.enter(|| TcpStream::connect(listener.local_addr().unwrap())).unwrap();
    let (sender, receiver) = (
        lab.byway.enter(|| UdpSocket::bind((BYWAY_IPV4, 0)).unwrap()),
        lab.kernel.enter(|| UdpSocket::bind((KERNEL_IPV4, 9)).unwrap()),
    );
    receiver.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let took = thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut last = now();
            let mut received = 0;
            while receiver.recv(&mut [0; 64]).is_ok() {
                received += 1;
                last = now();
            }
            (received, last)
        });
        let started = now();
        for _ in 0..FRAMES {
            sender.send_to(&[0; 18], (KERNEL_IPV4, 9)).unwrap();
        }
        let (received, last) = reader.join().unwrap();
        println!("{received} of {FRAMES} reached the application");
        last - started
    });
    let counts = report(lab).a_to_b;
    let rate = counts.sent as f64 / took.as_secs_f64();
    println!("{counts}; {rate:.0} frames a second");
    assert!(rate >= 50_000.0, "{rate:.0} frames a second");
}

#[expect(clippy::disallowed_methods, reason = "a test of the lab measures the lab")]
fn now() -> Instant {
    Instant::now()
}

/// The program's whole life: it says when frames pass, passes them, and says on SIGTERM or a closed input
/// what it did.
#[test]
fn the_program_reports_when_it_is_ended() {
    if !is_root() {
        return;
    }
    for by_signal in [true, false] {
        let wire = Namespace::new().unwrap();
        let end = |name| VethEnd { namespace: &wire, name };
        veth_pair(end("near"), end("bwb0"), VethOptions::default()).unwrap();
        veth_pair(end("far"), end("bwb1"), VethOptions::default()).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_byway-impair"));
        command.args(["--a", "near", "--b", "far", "--seed", "7", "--loss", "5%", "--until-stdin-closes"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut program = wire.spawn(&mut command).unwrap();
        let mut lines = BufReader::new(program.stdout.take().unwrap()).lines().map(Result::unwrap);
        assert_eq!(lines.next().unwrap(), "byway-impair ready: near <-> far, seed 7");

        if by_signal {
            // SAFETY: kill takes two integers; the process is our child and not waited for yet, so the id is
            // its own.
            assert_eq!(unsafe { libc::kill(program.id() as i32, libc::SIGTERM) }, 0);
        } else {
            drop(program.stdin.take());
        }
        assert!(lines.next().unwrap().starts_with("near -> far: received "));
        assert!(lines.next().unwrap().starts_with("far -> near: received "));
        assert!(program.wait().unwrap().success());
    }
}

#[test]
fn the_program_refuses_what_is_no_chance_and_names_what_is_not_there() {
    let run = |arguments: &str| {
        let output =
            Command::new(env!("CARGO_BIN_EXE_byway-impair")).args(arguments.split(' ')).output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, said) = run("--a lo --b lo --loss 5");
    assert!(code == 2 && said.contains("a chance lies between 0 and 1"), "{code} {said}");
    let (code, said) = run("--a bwb-none --b lo");
    assert!(
        code == 71 && said.starts_with("byway-impair: cannot listen on bwb-none: No such device"),
        "{code} {said}"
    );
}
