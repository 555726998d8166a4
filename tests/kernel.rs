//! byway and the kernel's TCP over a line that loses, duplicates and reorders: byway as the server, and byway as
//! the client, with each congestion control that the kernel has. What arrives is what was sent, and both
//! sides end in order.
//!
//! ```text
//!   byway ── veth ── near ◀ 1 % lost, 1 % twice, 1 % late ▶ far ── veth ── kernel: reno, cubic, bbr × IPv4, IPv6
//! ```

mod support;

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use byway_datapath::clock::Clock;
use byway_lab::{ImpairOptions, KERNEL_IPV4, KERNEL_IPV6, Lab, LabOptions, VethOptions, is_root};
use byway_tcp::app::{App, Closed, Conn, ConnId, Ready};
use byway_tcp::counters::Counters;
use support::inside::Inside;
use support::*;

/// What the kernel is set to, one connection each; its own default may be any of them.
const CONGESTION: [&str; 3] = ["reno", "cubic", "bbr"];
/// Octets each way and connection: 700 segments, of which about 20 meet something.
const OCTETS: usize = 1 << 20;

fn bad_line(seed: u64) -> Lab {
    let impair = ImpairOptions {
        seed,
        loss: 0.01,
        duplicate: 0.01,
        reorder: 0.01,
        delay: Duration::from_millis(2),
        jitter: Duration::from_micros(100),
        ..ImpairOptions::default()
    };
    Lab::new(LabOptions { veth: VethOptions::default(), impair: Some(impair) }).expect("a lab")
}

/// What the line did; the test has shown nothing if it did nothing.
fn assert_was_bad(lab: &mut Lab) {
    let report = lab.stop_impairing().expect("stops").expect("it impairs");
    for way in [report.a_to_b, report.b_to_a] {
        assert!(way.lost > 0 && way.duplicated > 0 && way.reordered > 0, "{report}");
        assert_eq!((way.missed, way.oversized, way.refused), (0, 0, 0), "{report}");
    }
}

/// Accepted connections inherit it.
fn set_congestion(socket: &impl AsRawFd, name: &str) {
    // SAFETY: the pointer is to as many octets as said, which outlive the call.
    let rc = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_CONGESTION,
            name.as_ptr().cast(),
            name.len() as libc::socklen_t,
        )
    };
    assert_eq!(rc, 0, "TCP_CONGESTION {name}: {}", std::io::Error::last_os_error());
}

/// What the kernel has counted of its connections (RFC 1213's names).
fn kernel_counter(lab: &Lab, name: &str) -> u64 {
    let text = lab.kernel.run("cat /proc/net/snmp").expect("snmp");
    let mut lines = text.lines().filter(|line| line.starts_with("Tcp:"));
    let (names, values) = (lines.next().expect("names"), lines.next().expect("values"));
    let counted: HashMap<_, _> = names.split(' ').zip(values.split(' ')).collect();
    counted[name].parse().expect("a number")
}

/// S1.1 S2.1 S5.1 S5.5 S5.6: the kernel opens, sends, half-closes and reads the echo.
#[test]
fn s5_5_byway_echoes_to_every_congestion_control_over_a_bad_line() {
    if !is_root() {
        return;
    }
    let mut lab = bad_line(21);
    let server = Server::start(&lab, &[]);
    lab.kernel.enter(|| {
        thread::scope(|scope| {
            for remote in [v4(ECHO), v6(ECHO)] {
                for (place, name) in CONGESTION.into_iter().enumerate() {
                    scope.spawn(move || {
                        let octets = random_octets(OCTETS + place);
                        let stream = connect(remote);
                        set_congestion(&stream, name);
                        assert_eq!(echo_over(&stream, &octets), sha256(&octets), "{remote} {name}");
                    });
                }
            }
        });
    });
    // Who closes first, and waits in TIME-WAIT, resets nothing. The other forgets the connection, and may have to
    // reset what comes late.
    assert_eq!((kernel_counter(&lab, "EstabResets"), kernel_counter(&lab, "OutRsts")), (0, 0));
    // The last ACK of each may be on its way, or lost.
    let open = || server.ask(&lab, "stats")["connections"].clone();
    let closed = eventually(PATIENCE, || (find_number(&open(), "LAST-ACK") == Some(0)).then_some(()));
    assert!(closed.is_some(), "{}", open());
    let stats = server.ask(&lab, "stats");
    assert_eq!(find_number(&stats, "TcpEstabResets"), Some(0), "{stats}");
    assert!(find_number(&stats, "TcpRetransSegs") > Some(0), "{stats}");
    server.stop();
    assert_was_bad(&mut lab);
}

/// S1.1 S2.1 S5.1 S5.5 S5.6: byway opens, sends, half-closes and reads the kernel's echo.
#[test]
fn s1_1_byway_is_the_client_of_every_congestion_control_over_a_bad_line() {
    if !is_root() {
        return;
    }
    let mut lab = bad_line(22);
    let listeners: Vec<TcpListener> = lab.kernel.enter(|| {
        let both = [IpAddr::from(KERNEL_IPV4), IpAddr::from(KERNEL_IPV6)];
        let each = both.into_iter().flat_map(|ip| CONGESTION.into_iter().map(move |name| (ip, name)));
        each.map(|(ip, name)| {
            let listener = TcpListener::bind((ip, 0)).expect("binds");
            set_congestion(&listener, name);
            listener
        })
        .collect()
    });
    let plans: Vec<_> = (0..)
        .zip(&listeners)
        .map(|(place, listener)| (listener.local_addr().expect("bound"), random_octets(OCTETS + 10 + place)))
        .collect();
    thread::scope(|scope| {
        for listener in &listeners {
            scope.spawn(|| serve_echo(&listener.accept().expect("accepts").0));
        }
        let (counters, exchanges) = lab.byway.enter(|| Client::run(&plans));
        assert_eq!((counters.tcp_estab_resets, counters.tcp_out_rsts), (0, 0));
        assert!(counters.tcp_retrans_segs > 0);
        for (Exchange { received, closed, .. }, (remote, sent)) in exchanges.iter().zip(&plans) {
            assert_eq!(*closed, Some(Closed::Finished), "{remote}");
            assert_eq!((received.len(), sha256(received)), (sent.len(), sha256(sent)), "{remote}");
        }
    });
    assert_eq!(kernel_counter(&lab, "EstabResets"), 0);
    assert_was_bad(&mut lab);
}

/// Sends back what arrives until the peer has closed.
fn serve_echo(mut stream: &TcpStream) {
    stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
    let mut buffer = vec![0; 1 << 16];
    loop {
        match stream.read(&mut buffer).expect("reads") {
            0 => break,
            read => stream.write_all(&buffer[..read]).expect("writes"),
        }
    }
    stream.shutdown(Shutdown::Write).expect("closes");
}

/// What a connection of [`Client`] has to do, and has done.
#[derive(Clone, Debug)]
struct Exchange {
    octets: Arc<[u8]>,
    sent: usize,
    received: Vec<u8>,
    closed: Option<Closed>,
}

/// An application that sends, closes, and keeps what comes back.
#[derive(Debug, Default)]
struct Client {
    exchanges: HashMap<ConnId, Exchange>,
}

impl Client {
    /// Opens a connection for each plan; call it inside byway's namespace. What was counted, and what each has
    /// received, in the order of the plans.
    fn run(plans: &[(SocketAddr, Vec<u8>)]) -> (Counters, Vec<Exchange>) {
        let mut ids = Vec::new();
        let mut inside = Inside::start(|stack| {
            let mut client = Self::default();
            for (remote, octets) in plans {
                let id = stack.connect(*remote, Clock.now()).expect("opens");
                let octets = Arc::from(octets.as_slice());
                let exchange = Exchange { octets, sent: 0, received: Vec::new(), closed: None };
                client.exchanges.insert(id, exchange);
                ids.push(id);
            }
            client
        });
        let patience = now() + PATIENCE;
        let mut linger = None;
        inside.turn_until(|core| {
            if linger.is_none() && core.app().exchanges.values().all(|exchange| exchange.closed.is_some()) {
                // What TIME-WAIT owes the peers whose ACKs were lost.
                linger = Some(now() + Duration::from_millis(500));
            }
            linger.unwrap_or(patience) <= now()
        });
        let exchanges = ids.iter().map(|id| inside.core.app().exchanges[id].clone());
        (inside.core.stack().counters(), exchanges.collect())
    }
}

impl App for Client {
    fn opened<C: Conn>(&mut self, conn: &mut C) {
        self.send(conn);
    }

    fn ready<C: Conn>(&mut self, conn: &mut C, _ready: Ready) {
        while let Some(chunk) = conn.recv() {
            let exchange = self.exchanges.get_mut(&conn.id()).expect("ours");
            exchange.received.extend_from_slice(conn.bytes(&chunk));
            conn.release(chunk);
        }
        self.send(conn);
    }

    fn closed<C: Conn>(&mut self, conn: &mut C, reason: Closed) {
        self.exchanges.get_mut(&conn.id()).expect("ours").closed = Some(reason);
    }
}

impl Client {
    fn send<C: Conn>(&mut self, conn: &mut C) {
        let exchange = self.exchanges.get_mut(&conn.id()).expect("ours");
        while exchange.sent < exchange.octets.len() && conn.send_room() > 0 {
            let Some(mut chunk) = conn.alloc() else { return };
            let left = &exchange.octets[exchange.sent..];
            let take = left.len().min(conn.mss());
            conn.append(&mut chunk, &left[..take]);
            if let Err(refused) = conn.send(chunk) {
                return conn.release(refused);
            }
            exchange.sent += take;
        }
        if exchange.sent == exchange.octets.len() {
            conn.shutdown();
        }
    }
}
