//! `byway serve --backend kernel` on loopback: the same application over the kernel's TCP. Needs no root.

mod support;

use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use support::*;
use tungstenite::protocol::{Role, WebSocketConfig};
use tungstenite::{Message, WebSocket};

/// A running byway over kernel sockets. Killed when dropped, if it wasn't stopped.
struct Sockets {
    child: Child,
    ready: String,
    http: SocketAddr,
    echo: SocketAddr,
    discard: SocketAddr,
    chargen: SocketAddr,
    control: PathBuf,
    _scratch: Scratch,
}

/// Ports that nobody listens on at this moment.
fn free_ports<const N: usize>() -> [u16; N] {
    let held = [(); N].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port"));
    held.map(|listener| listener.local_addr().expect("bound").port())
}

impl Sockets {
    fn start(more: &[&str]) -> Self {
        Self::start_on(&["--address", "127.0.0.1/8"], more)
    }

    fn start_on(addresses: &[&str], more: &[&str]) -> Self {
        // Somebody may take a port before byway does: then with others.
        for _ in 0..20 {
            if let Some(server) = Self::try_start(addresses, more) {
                return server;
            }
        }
        panic!("no ports to be had");
    }

    fn try_start(addresses: &[&str], more: &[&str]) -> Option<Self> {
        let ports = free_ports::<4>();
        let [http, echo, discard, chargen] = ports.map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        let scratch = Scratch::new();
        let control = scratch.0.join("control.sock");
        let [port, echo_port, discard_port, chargen_port] = ports.map(|port| port.to_string());
        let mut command =
            byway(&["serve", "--backend", "kernel", "--port", &port, "--echo-port", &echo_port]);
        command.args(["--discard-port", &discard_port, "--chargen-port", &chargen_port, "--control"]);
        command.arg(&control);
        // What this host does anyway, which everybody may choose.
        let own = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control").unwrap_or_default();
        if ["cubic", "reno", "bbr"].contains(&own.trim()) {
            command.args(["--congestion", own.trim()]);
        }
        // However few files this shell may open, nothing is said of it.
        command.args(["--max-connections", "600"]).args(addresses).args(more);
        let mut child = command.spawn().expect("byway starts");
        let mut ready = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut ready).expect("reads");
        if !ready.starts_with("byway ready backend=kernel ") {
            let Output { status, stderr, .. } = child.wait_with_output().expect("ends");
            let stderr = String::from_utf8_lossy(&stderr);
            assert!(stderr.contains("is in use"), "not ready: {ready:?}, {status}, {stderr}");
            return None;
        }
        Some(Self { child, ready, http, echo, discard, chargen, control, _scratch: scratch })
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.http)
    }

    fn stats(&self) -> serde_json::Value {
        let control = self.control.to_str().expect("UTF-8");
        let output = byway(&["stats", "--json", "--control", control]).output().expect("byway starts");
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    fn stat(&self, group: &str, name: &str) -> u64 {
        let stats = self.stats();
        stats[group][name].as_u64().unwrap_or_else(|| panic!("no {group} {name} in {stats}"))
    }

    /// Every frame is free again, and nobody is connected.
    fn assert_idle(&self) {
        let idle = || {
            let stats = self.stats();
            let open =
                ["ESTAB", "CLOSE-WAIT", "FIN-WAIT-2"].map(|state| stats["connections"][state].as_u64());
            let frames = &stats["frames"];
            (open == [Some(0); 3] && frames["free"] == frames["total"]).then_some(())
        };
        assert!(eventually(PATIENCE, idle).is_some(), "{}", self.stats());
    }

    fn terminate(&self) {
        signal(self.child.id(), libc::SIGTERM);
    }

    /// Waits for the end in order; what was said on standard error.
    fn ended(mut self) -> String {
        let status = wait(&mut self.child, PATIENCE).expect("ends after SIGTERM");
        let mut said = String::new();
        self.child.stderr.take().expect("piped").read_to_string(&mut said).expect("UTF-8");
        assert!(status.success(), "{status}: {said}");
        assert!(!self.control.exists(), "the control socket goes with the process");
        said
    }

    fn stop(self) -> String {
        self.terminate();
        self.ended()
    }
}

impl Drop for Sockets {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn curl(arguments: &[&str]) -> String {
    let output = Command::new("curl")
        .args(["--silent", "--show-error", "--fail", "--max-time", "120", "--globoff"])
        .args(arguments)
        .output()
        .expect("curl");
    assert!(output.status.success(), "curl {arguments:?}: {output:?}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[test]
fn curl_gets_hello_and_its_bodies_back() {
    let server = Sockets::start(&[]);
    assert_eq!(curl(&[&server.url("/hello")]), "hello\n");
    let scratch = Scratch::new();
    let back = scratch.0.join("back");
    for len in [1 << 20, 64 << 20] {
        let (sent, sum) = scratch.random_file(len);
        for header in ["Expect:", "Transfer-Encoding: chunked"] {
            let body = format!("@{}", sent.display());
            let out = back.to_str().expect("UTF-8");
            curl(&["-H", header, "--data-binary", &body, "-o", out, &server.url("/echo")]);
            let octets = std::fs::read(&back).expect("answer");
            assert_eq!((octets.len(), sha256(&octets)), (len, sum.clone()), "{header}");
        }
    }
    let out = back.to_str().expect("UTF-8");
    curl(&["-o", out, &server.url("/bytes/67108864")]);
    let octets = std::fs::read(&back).expect("answer");
    assert!(
        octets.len() == 64 << 20
            && octets.iter().zip(0u64..).all(|(&octet, at)| u64::from(octet) == at % 251)
    );
    server.assert_idle();
    server.stop();
}

#[test]
fn without_addresses_it_listens_on_all_of_both_families() {
    if TcpListener::bind("[::1]:0").is_err() {
        eprintln!("skipped: this host has no IPv6");
        return;
    }
    let server = Sockets::start_on(&[], &[]);
    assert!(server.ready.contains(" addresses=0.0.0.0,:: "), "{}", server.ready);
    assert_eq!(curl(&[&server.url("/hello")]), "hello\n");
    assert_eq!(curl(&[&format!("http://[::1]:{}/hello", server.http.port())]), "hello\n");
    server.stop();
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let server = Sockets::start(&[]);
    let mut stream = connect(server.http);
    let mut requests = Vec::new();
    for n in 0..1_000 {
        let body = format!("body {n}");
        write!(requests, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}", body.len())
            .expect("writes");
    }
    std::thread::scope(|scope| {
        let mut writer = stream.try_clone().expect("clones");
        scope.spawn(move || {
            writer.write_all(&requests).expect("writes");
            writer.shutdown(Shutdown::Write).expect("half-closes");
        });
        let mut answers = String::new();
        stream.read_to_string(&mut answers).expect("reads");
        let bodies: Vec<_> = answers.split("HTTP/1.1 200 OK").skip(1).collect();
        assert_eq!(bodies.len(), 1_000);
        for (n, answer) in bodies.iter().enumerate() {
            assert!(answer.ends_with(&format!("\r\n\r\nbody {n}")), "{answer}");
        }
    });
    server.assert_idle();
    server.stop();
}

fn websocket(remote: SocketAddr) -> WebSocket<TcpStream> {
    let config = WebSocketConfig::default().max_frame_size(None);
    let url = format!("ws://{remote}/any/path");
    tungstenite::client::client_with_config(url, connect(remote), Some(config)).expect("upgrades").0
}

#[test]
fn websocket_messages_come_back() {
    let server = Sockets::start(&[]);
    let mut socket = websocket(server.http);
    for len in [0, 1, 125, 126, 1460, 16_063, 16_064, 16_065, 65_535, 65_536, 1 << 20, 16 << 20] {
        for message in [Message::binary(random_octets(len)), Message::text("ü".repeat(len / 2))] {
            let stream = socket.get_ref().try_clone().expect("clones");
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    let mut writer = WebSocket::from_raw_socket(stream, Role::Client, None);
                    writer.send(message.clone()).expect("sends");
                });
                assert!(socket.read().expect("an echo") == message, "{len} octets differ");
            });
        }
    }
    // Written whole before anything is read.
    let message = Message::binary(random_octets(16 << 20));
    socket.send(message.clone()).expect("sends");
    assert!(socket.read().expect("an echo") == message);
    socket.close(None).expect("closes");
    assert!(matches!(socket.read(), Ok(Message::Close(_))));
    drop(socket);
    server.assert_idle();
    server.stop();
}

/// What the kernel tells of its connection is on the feed as what byway's own TCP tells is.
#[test]
fn the_feed_tells_what_the_kernel_knows_of_its_connection() {
    let server = Sockets::start(&[]);
    let (mut socket, _) =
        tungstenite::client::client(format!("ws://{0}/feed", server.http), connect(server.http))
            .expect("upgrades");
    let message = socket.read().expect("a message").into_text().expect("text");
    let feed: serde_json::Value = serde_json::from_str(&message).expect("JSON");
    let own = &feed["own"];
    assert_eq!(own["peer"], socket.get_ref().local_addr().expect("bound").to_string());
    for name in ["cwnd", "mss", "srtt_us", "rto_us"] {
        assert!(own[name].as_u64() > Some(0), "{name} in {own}");
    }
    assert_eq!(feed["connections"]["ESTAB"], 1);
    assert_eq!(feed["transitions"]["SYN-RECV"]["ESTAB"], 1);
    drop(socket);
    server.assert_idle();
    server.stop();
}

/// Half-close, too: the client closes its side, and reads what is still to come.
#[test]
fn raw_echo_of_100_mb() {
    let server = Sockets::start(&[]);
    let octets = random_octets(100_000_000);
    assert_eq!(echo(server.echo, &octets), sha256(&octets));
    server.assert_idle();
    assert_eq!(server.stat("sockets", "octets_in"), 100_000_000);
    assert_eq!(server.stat("counters", "BywayPayloadBytesCopied"), 0);
    server.stop();
}

#[test]
fn discard_and_chargen_speak_as_over_xdp() {
    let server = Sockets::start(&[]);
    assert_eq!(echo(server.discard, &[7; 1_000_000]), sha256(&[]));
    let mut stream = connect(server.chargen);
    let mut text = vec![0; 1 << 20];
    stream.read_exact(&mut text).expect("reads");
    assert!(text.starts_with(b" !\"#$%&'()*+,-./0123456789"));
    assert!(text.chunks_exact(74).all(|line| line.ends_with(b"\r\n")));
    // Much is under way: the close becomes a reset.
    drop(stream);
    server.assert_idle();
    server.stop();
}

#[test]
fn five_hundred_connections_at_once() {
    let server = Sockets::start(&[]);
    let mut streams: Vec<_> = (0..500).map(|_| connect(server.echo)).collect();
    for round in 0..3u8 {
        for (n, stream) in streams.iter_mut().enumerate() {
            stream.write_all(&[round ^ n as u8; 1000]).expect("writes");
        }
        for (n, stream) in streams.iter_mut().enumerate() {
            let mut back = [0; 1000];
            stream.read_exact(&mut back).expect("reads");
            assert_eq!(back, [round ^ n as u8; 1000]);
        }
    }
    assert_eq!(server.stat("connections", "ESTAB"), 500);
    let over_http: serde_json::Value = serde_json::from_str(&curl(&[&server.url("/stats")])).expect("JSON");
    assert!(find_number(&over_http, "ESTAB") >= Some(1), "{over_http}");
    drop(streams);
    server.assert_idle();
    server.stop();
}

/// A request costs a read and a write, and at most a wait: no reads that find nothing, no epoll_ctl.
#[test]
fn a_request_costs_one_read_and_one_write() {
    let server = Sockets::start(&[]);
    let mut stream = connect(server.http);
    let mut answer = [0; 1024];
    let mut ask = || {
        stream.write_all(b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n").expect("writes");
        let mut len = 0;
        while !answer[..len].ends_with(b"hello\n") {
            len += stream.read(&mut answer[len..]).expect("reads");
        }
    };
    ask();
    let before = server.stats();
    (0..1_000).for_each(|_| ask());
    let after = server.stats();
    let grown = |name: &str| {
        let count = |stats: &serde_json::Value| stats["sockets"][name].as_u64().expect("counter");
        count(&after) - count(&before)
    };
    assert_eq!(
        ["reads", "reads_empty", "writes", "writes_full", "accepted"].map(grown),
        [1_000, 0, 1_000, 0, 0]
    );
    server.stop();
}

/// Back-pressure: what a peer doesn't read stays out there, not in byway.
#[test]
fn a_client_that_writes_without_reading_is_held_back() {
    let server = Sockets::start(&[]);
    let mut stream = connect(server.echo);
    stream.set_nonblocking(true).expect("nonblocking");
    let octets = random_octets(1 << 20);
    // Until nothing has moved for a while: client's buffers, the server's share, and the server's buffers are full.
    let (mut written, mut quiet) = (0usize, 0);
    while quiet < 20 {
        match stream.write(&octets[written % octets.len()..]) {
            Ok(some) => (written, quiet) = (written + some, 0),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                std::thread::sleep(Duration::from_millis(10));
                quiet += 1;
            }
            Err(error) => panic!("{error}"),
        }
        assert!(written < 1 << 30, "nobody holds it back");
    }
    let stats = server.stats();
    let frames = |owner: &str| stats["frames"][owner].as_u64().expect("frames");
    let (held, total) = (frames("send_queue") + frames("app"), frames("total"));
    assert!((1..=total / 8 + 32).contains(&held), "{stats}");
    // Others don't notice.
    assert_eq!(curl(&[&server.url("/hello")]), "hello\n");
    assert_eq!(echo(server.echo, &octets), sha256(&octets));
    // And nothing is lost.
    stream.set_nonblocking(false).expect("blocking");
    stream.shutdown(Shutdown::Write).expect("half-closes");
    let mut back = Vec::with_capacity(written);
    stream.read_to_end(&mut back).expect("reads");
    let sent: Vec<u8> = octets.iter().copied().cycle().take(written).collect();
    assert!(back == sent, "{} of {written} octets came back, or others", back.len());
    server.assert_idle();
    server.stop();
}

/// 64 frames for 50 connections that want 32 each.
#[test]
fn with_little_memory_everybody_is_served_in_turn() {
    let server = Sockets::start(&["--frames", "512", "--cores", "0"]);
    let octets = random_octets(3_000_000);
    let sum = sha256(&octets);
    std::thread::scope(|scope| {
        for n in 0..50 {
            let (octets, sum, echo_port, http) = (&octets, &sum, server.echo, server.http);
            scope.spawn(move || {
                if n % 2 == 0 {
                    assert_eq!(&echo(echo_port, octets), sum);
                } else {
                    let mut stream = connect(http);
                    stream.write_all(b"GET /bytes/3000000 HTTP/1.0\r\n\r\n").expect("writes");
                    let mut answer = Vec::new();
                    stream.read_to_end(&mut answer).expect("reads");
                    assert!(answer.len() > 3_000_000);
                }
            });
        }
    });
    server.assert_idle();
    server.stop();
}

#[test]
fn a_reset_in_mid_transfer_leaves_nothing() {
    let server = Sockets::start(&[]);
    for remote in [server.chargen, server.http, server.echo] {
        let mut stream = connect(remote);
        if remote == server.http {
            stream.write_all(b"GET /bytes/1000000000 HTTP/1.1\r\nHost: x\r\n\r\n").expect("writes");
        } else {
            stream.write_all(&[9; 100_000]).expect("writes");
        }
        stream.read_exact(&mut [0; 10_000]).expect("reads");
        let reset = libc::linger { l_onoff: 1, l_linger: 0 };
        // SAFETY: the option's value is a linger that outlives the call.
        let result = unsafe {
            libc::setsockopt(
                stream.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_LINGER,
                (&raw const reset).cast(),
                size_of::<libc::linger>() as libc::socklen_t,
            )
        };
        assert_eq!(result, 0);
        drop(stream);
    }
    server.assert_idle();
    assert_eq!(server.stat("counters", "TcpEstabResets"), 3);
    assert_eq!(curl(&[&server.url("/hello")]), "hello\n");
    server.stop();
}

/// Who comes too many waits, and is served once there is a place.
#[test]
fn connections_beyond_the_limit_wait() {
    let server = Sockets::start(&["--max-connections", "4", "--cores", "0"]);
    let mut streams: Vec<_> = (0..4).map(|_| connect(server.echo)).collect();
    for stream in &mut streams {
        stream.write_all(b"here").expect("writes");
        stream.read_exact(&mut [0; 4]).expect("reads");
    }
    let mut late = connect(server.echo);
    late.write_all(b"late").expect("writes");
    let full = || (server.stat("sockets", "accept_full") == 1).then_some(());
    assert!(eventually(PATIENCE, full).is_some());
    assert_eq!(server.stat("sockets", "accepted"), 4);
    streams.pop();
    late.read_exact(&mut [0; 4]).expect("reads");
    assert_eq!(server.stat("connections", "ESTAB"), 4);
    server.stop();
}

/// H1: who has as many connections as one may have is reset, and others are served.
#[test]
fn connections_beyond_a_peers_limit_are_reset() {
    let server = Sockets::start(&["--max-connections-per-peer", "2", "--cores", "0"]);
    let ask = |mut stream: &TcpStream| {
        stream.write_all(b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n")?;
        stream.read_exact(&mut [0; 15])
    };
    // The kernel has accepted before byway can refuse: the reset may come before, between or after.
    let connect_and_ask = || try_connect(server.http).and_then(|stream| ask(&stream));
    let connect_and_read = || try_connect(server.echo).and_then(|mut stream| stream.read(&mut [0; 1]));
    let streams = [connect(server.http), connect(server.http)];
    assert!(streams.iter().all(|stream| ask(stream).is_ok()));
    assert!(matches!(
        connect_and_ask().expect_err("a third").kind(),
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
    ));
    assert_eq!(connect_and_read().expect_err("all ports together").kind(), ErrorKind::ConnectionReset);
    let other = curl(&["--interface", "127.0.0.2", &server.url("/hello")]);
    assert_eq!(other, "hello\n");
    drop(streams);
    assert!(eventually(PATIENCE, || connect_and_ask().ok()).is_some());
    server.stop();
}

/// SIGTERM: idle connections are closed at once, a request under way is finished, nobody else is let in.
#[test]
fn sigterm_drains() {
    let server = Sockets::start(&["--drain", "1m"]);
    let mut idle = connect(server.http);
    let mut busy = connect(server.http);
    busy.write_all(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n12345").expect("writes");
    let mut raw = connect(server.echo);
    raw.write_all(b"raw").expect("writes");
    raw.read_exact(&mut [0; 3]).expect("reads");
    let half_read = || (server.stat("sockets", "reads") >= 2).then_some(());
    assert!(eventually(PATIENCE, half_read).is_some());
    server.terminate();
    for closed in [&mut idle, &mut raw] {
        assert_eq!(closed.read(&mut [0; 16]).expect("closed in order"), 0);
    }
    let refused = || TcpStream::connect(server.http).is_err().then_some(());
    assert!(eventually(PATIENCE, refused).is_some());
    busy.write_all(b"67890").expect("writes");
    let mut answer = String::new();
    busy.read_to_string(&mut answer).expect("reads");
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("1234567890"), "{answer}");
    drop((idle, raw, busy));
    assert_eq!(server.ended(), "");
}

#[test]
fn what_does_not_finish_within_the_drain_is_reset() {
    let server = Sockets::start(&["--drain", "100ms"]);
    let mut busy = connect(server.http);
    busy.write_all(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n12345").expect("writes");
    let half_read = || (server.stat("sockets", "reads") >= 1).then_some(());
    assert!(eventually(PATIENCE, half_read).is_some());
    let said = server.stop();
    assert_eq!(said, "byway: 1 connection reset for not finishing within --drain\n");
    let mut answer = Vec::new();
    assert_eq!(busy.read_to_end(&mut answer).expect_err("a reset").kind(), ErrorKind::ConnectionReset);
}

#[test]
fn the_control_socket_tells_what_there_is() {
    let server = Sockets::start(&["--cores", "0"]);
    curl(&[&server.url("/hello")]);
    let stats = server.stats();
    assert_eq!((&stats["backend"], &stats["cores"][0]["core"]), (&"kernel".into(), &0.into()), "{stats}");
    assert_eq!(stats["counters"]["TcpPassiveOpens"], 1, "{stats}");
    let control = server.control.to_str().expect("UTF-8");
    let conns = byway(&["conns", "--control", control]).output().expect("byway starts");
    let said = String::from_utf8(conns.stderr).expect("UTF-8");
    assert_eq!((conns.status.code(), said.lines().count()), (Some(71), 1), "{said}");
    assert!(said.contains("`ss -tan`"), "{said}");
    server.stop();
}

/// Runs byway until it ends by itself: exit code and what it said on standard error.
fn refused(arguments: &[&str]) -> (Option<i32>, String) {
    let mut child = byway(arguments).spawn().expect("byway starts");
    if wait(&mut child, PATIENCE).is_none() {
        child.kill().expect("kills");
        panic!("byway {arguments:?} goes on: {:?}", child.wait_with_output());
    }
    let output = child.wait_with_output().expect("ends");
    assert!(output.stdout.is_empty(), "{output:?}");
    (output.status.code(), String::from_utf8(output.stderr).expect("UTF-8"))
}

#[test]
fn mistakes_are_told_in_a_line() {
    let server = Sockets::start(&[]);
    let taken = server.http.port().to_string();
    let base = ["serve", "--backend=kernel", "--max-connections=9", "--control", "/nonexistent/byway.sock"];
    let local = ["--address", "127.0.0.1/8"];
    let scratch = Scratch::new();
    let control = scratch.0.join("control.sock");
    let control = ["--control", control.to_str().expect("UTF-8")];
    for (more, code, words) in [
        ([&local[..], &["--port", "8080"]].concat(), 71, "/nonexistent/byway.sock"),
        ([&local[..], &control, &["--port", &taken]].concat(), 71, "is in use by another program"),
        ([&control[..], &["--port", &taken]].concat(), 71, "ss -ltnp sport"),
        ([&["--address", "203.0.113.77/24"], &control[..]].concat(), 78, "no address of this host"),
        ([&local[..], &["--gateway", "127.0.0.2"]].concat(), 2, "--gateway means nothing"),
        ([&local[..], &["--queues", "0"]].concat(), 2, "--queues means nothing"),
        ([&local[..], &["--cores", "900"]].concat(), 78, "core 900"),
        ([&local[..], &["--frames", "100"]].concat(), 78, "512 at least"),
    ] {
        let (status, said) = refused(&[&base, &more[..]].concat());
        assert_eq!((status, said.lines().count()), (Some(code), 1), "{more:?}: {said}");
        assert!(said.starts_with("byway: ") && said.contains(words), "{more:?}: {said}");
    }
    server.stop();
}

/// `--backend auto` without what XDP takes: said loudly, and served.
#[test]
fn auto_falls_back_and_says_so() {
    let scratch = Scratch::new();
    let control = scratch.0.join("control.sock");
    for _ in 0..20 {
        let [port] = free_ports();
        let remote = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let port = port.to_string();
        let mut command = byway(&["serve", "--backend", "auto", "--interface", "nosuch0", "--port", &port]);
        command.args(["--address", "127.0.0.1/8", "--zero-copy", "off", "--control"]).arg(&control);
        let mut child = command.stderr(Stdio::piped()).spawn().expect("byway starts");
        let mut ready = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut ready).expect("reads");
        if ready.is_empty() {
            assert!(
                String::from_utf8_lossy(&child.wait_with_output().expect("ends").stderr)
                    .contains("is in use")
            );
            continue;
        }
        assert!(ready.starts_with("byway ready backend=kernel "), "{ready}");
        assert_eq!(curl(&[&format!("http://{remote}/hello")]), "hello\n");
        signal(child.id(), libc::SIGTERM);
        let status = wait(&mut child, PATIENCE).expect("ends");
        let said = String::from_utf8(child.wait_with_output().expect("ends").stderr).expect("UTF-8");
        assert!(status.success(), "{said}");
        assert!(said.starts_with("byway: KERNEL SOCKETS instead of XDP"), "{said}");
        assert!(said.contains("loopback") || said.contains("nosuch0"), "{said}");
        assert!(said.contains("of no effect: --zero-copy"), "{said}");
        return;
    }
    panic!("no ports to be had");
}
