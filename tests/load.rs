//! `byway load` over a veth pair: against `byway serve`, against servers on the kernel's TCP, and against servers that
//! don't behave.

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use byway_lab::{
    BYWAY_INTERFACE, KERNEL_INTERFACE, KERNEL_IPV4, KERNEL_IPV6, Lab, LabOptions, VethOptions, is_root,
};
use serde_json::Value;
use support::*;
use tungstenite::Message;

/// Where `byway serve` is, beside the kernel's address on the same interface.
const SERVER_IPV4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 3);

fn lab() -> Option<Lab> {
    is_root().then(|| Lab::new(LabOptions::default()).expect("a lab"))
}

/// `byway load` on byway's side of the lab.
struct Run {
    child: Child,
    scratch: Scratch,
}

impl Run {
    fn start(lab: &Lab, arguments: &str) -> Self {
        let scratch = Scratch::new();
        let path = |name: &str| scratch.0.join(name).display().to_string();
        let (control, json, plot, hdr) = (path("control.sock"), path("json"), path("svg"), path("hdr"));
        let mut all = vec!["load", "--interface", BYWAY_INTERFACE, "--control", &control];
        all.extend(["--address", "192.0.2.1/24", "--address", "2001:db8::1/64"]);
        // Patience: the machine may be busy. The server, if it is a byway, takes the first core.
        all.extend(["--timeout", "20s", "--cores", "1", "--json", &json, "--plot", &plot, "--hdr", &hdr]);
        all.extend(arguments.split_whitespace());
        let child = lab.byway.spawn(&mut byway(&all)).expect("byway starts");
        Self { child, scratch }
    }

    fn finish(mut self) -> Done {
        if wait(&mut self.child, PATIENCE).is_none() {
            self.child.kill().expect("kills");
            panic!("byway load goes on: {:?}", self.child.wait_with_output());
        }
        let output = self.child.wait_with_output().expect("ends");
        let read = |name: &str| std::fs::read_to_string(self.scratch.0.join(name)).unwrap_or_default();
        let json = serde_json::from_str(&read("json")).unwrap_or(Value::Null);
        assert!(!self.scratch.0.join("control.sock").exists(), "the control socket goes with the process");
        Done { output, json, svg: read("svg"), hdr: read("hdr") }
    }
}

/// What it came to.
struct Done {
    output: Output,
    json: Value,
    svg: String,
    hdr: String,
}

impl Done {
    fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.output.stderr).into_owned()
    }

    fn number(&self, path: &str) -> u64 {
        self.json
            .pointer(path)
            .and_then(Value::as_u64)
            .unwrap_or_else(|| panic!("no {path} in {}", self.json))
    }

    /// All went well: answers, and nothing else.
    fn assert_clean(&self) {
        let (stderr, stdout) = (self.stderr(), String::from_utf8_lossy(&self.output.stdout));
        assert!(self.output.status.success(), "{stderr}{stdout}");
        assert_eq!(self.number("/errors"), 0, "{stdout}");
        assert!(self.number("/requests") > 0, "{stdout}");
        self.assert_whole();
    }

    /// The result is complete and agrees with itself, whatever it is.
    fn assert_whole(&self) {
        let schema = include_str!("../deploy/load.schema.json");
        conforms(&self.json, &serde_json::from_str(schema).expect("the schema is JSON"), "");
        let kinds = self.json["errors_by_kind"].as_object().expect("kinds");
        assert_eq!(kinds.values().filter_map(Value::as_u64).sum::<u64>(), self.number("/errors"));
        let latency =
            ["p50", "p90", "p99", "p999", "max"].map(|name| self.number(&format!("/latency_ns/{name}")));
        assert!(latency.is_sorted(), "{latency:?}");
        let requests = self.number("/requests");
        assert!(self.hdr.contains(&format!("Total count    = {requests:12}]")), "{}", self.hdr);
        assert!(self.svg.starts_with("<svg ") && self.svg.ends_with("</svg>\n"));
    }

    /// Not one request was answered: the exit code says so, a line why, and `kind` counts it.
    fn assert_failed(&self, kind: &str, word: &str) {
        let stderr = self.stderr();
        assert_eq!(self.output.status.code(), Some(71), "{stderr}");
        let last = stderr.lines().last().expect("a line");
        assert!(last.starts_with("byway: no request to ") && last.contains(word), "{stderr}");
        self.assert_whole();
        assert!(self.number(&format!("/errors_by_kind/{kind}")) > 0, "{}", self.json);
        assert_eq!(self.number("/requests"), 0);
    }
}

/// As much of JSON Schema as deploy/load.schema.json uses; nothing may be there that it doesn't name.
fn conforms(value: &Value, schema: &Value, at: &str) {
    let types: Vec<&str> = match &schema["type"] {
        Value::Array(types) => types.iter().filter_map(Value::as_str).collect(),
        one => one.as_str().into_iter().collect(),
    };
    let fits = |name: &&str| match *name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_u64(),
        "number" => value.is_number(),
        other => panic!("the schema says {other}"),
    };
    assert!(types.iter().any(fits), "{at}: {value} isn't {types:?}");
    let Some(properties) = schema["properties"].as_object() else { return };
    for required in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        assert!(!value[required].is_null(), "{at}/{required} is missing");
    }
    for (name, value) in value.as_object().into_iter().flatten() {
        let schema = properties.get(name).unwrap_or_else(|| panic!("{at}/{name} isn't in the schema"));
        conforms(value, schema, &format!("{at}/{name}"));
    }
}

/// `byway serve` on the kernel's side. Killed when dropped.
struct Serve {
    child: Child,
    _scratch: Scratch,
}

impl Serve {
    fn start(lab: &Lab) -> Self {
        let scratch = Scratch::new();
        let control = scratch.0.join("serve.sock").display().to_string();
        let address = format!("{SERVER_IPV4}/24");
        let mut all = vec!["serve", "--interface", KERNEL_INTERFACE, "--address", &address];
        all.extend(["--address", "2001:db8::3/64", "--echo-port", "7", "--control", &control]);
        let mut child = lab.kernel.spawn(byway(&all).stderr(Stdio::inherit())).expect("starts");
        let mut ready = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut ready).expect("reads");
        assert!(ready.starts_with("byway ready"), "{ready:?}");
        Self { child, _scratch: scratch }
    }
}

impl Drop for Serve {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A server on the kernel's TCP: `talk` has each connection, on a thread of its own, until the handle goes.
struct Kernel {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Kernel {
    fn start(lab: &Lab, ip: IpAddr, talk: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        let listener = lab.kernel.enter(|| TcpListener::bind((ip, 0)).expect("binds"));
        let address = listener.local_addr().expect("bound");
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, talk, namespace) = (Arc::clone(&stop), Arc::new(talk), lab.kernel.clone());
        let thread = thread::spawn(move || {
            namespace.join().expect("the namespace is open");
            for stream in listener.incoming() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let (stream, talk) = (stream.expect("accepts"), Arc::clone(&talk));
                stream.set_nodelay(true).expect("nodelay");
                stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
                thread::spawn(move || talk(stream));
            }
        });
        Self { address, stop, thread: Some(thread) }
    }

    fn url(&self, scheme: &str) -> String {
        format!("{scheme}://{}", self.address)
    }

    fn stop(mut self, lab: &Lab) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = lab.kernel.enter(|| TcpStream::connect(self.address));
        self.thread.take().expect("runs").join().expect("no panic");
    }
}

/// Reads requests with bodies, calls `answer` for each; false ends the connection.
fn http(stream: TcpStream, answer: impl Fn(&mut TcpStream, &[u8]) -> bool) {
    let mut reader = BufReader::new(stream.try_clone().expect("clones"));
    let mut stream = stream;
    loop {
        let (mut length, mut line) = (0, String::new());
        loop {
            line.clear();
            if !matches!(reader.read_line(&mut line), Ok(1..)) {
                return;
            }
            if let Some(value) = line.strip_prefix("Content-Length: ") {
                length = value.trim().parse().expect("a number");
            }
            if line == "\r\n" {
                break;
            }
        }
        let mut body = vec![0; length];
        if reader.read_exact(&mut body).is_err() || !answer(&mut stream, &body) {
            return;
        }
    }
}

fn echo_body(stream: &mut TcpStream, body: &[u8]) -> bool {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).is_ok() && stream.write_all(body).is_ok()
}

#[test]
fn byway_drives_byway_by_every_protocol_and_mode() {
    let Some(lab) = lab() else { return };
    let _server = Serve::start(&lab);
    for arguments in [
        "http://192.0.2.3/hello --connections 100",
        "http://[2001:db8::3]/echo --payload 5000",
        "http://192.0.2.3/bytes/100000 --connections 3",
        "http://192.0.2.3/hello --rate 2000",
        "http://192.0.2.3/hello --new-connection-per-request --connections 20",
        "http://192.0.2.3/hello --new-connection-per-request --rate 500",
        "ws://192.0.2.3/chat --connections 50",
        "ws://[2001:db8::3]/ticker --payload 70000 --connections 2 --rate 50",
        "ws://192.0.2.3/ --payload 0 --new-connection-per-request --rate 200",
        "tcp://192.0.2.3:7",
        "tcp://[2001:db8::3]:7 --payload 200000 --connections 2",
        "tcp://192.0.2.3:7 --new-connection-per-request --connections 8 --rate 500",
        "http://192.0.2.3/hello --attach generic --congestion bbr",
    ] {
        let done = Run::start(&lab, &format!("--duration 1s {arguments}")).finish();
        eprintln!("{arguments}\n{}", String::from_utf8_lossy(&done.output.stdout));
        done.assert_clean();
        let requests = done.number("/requests");
        if arguments.contains("--new-connection") {
            assert!(done.number("/connections_opened") >= requests, "{}", done.json);
        } else {
            assert_eq!(done.number("/connections_opened"), done.number("/connections"));
        }
        if let Some(rate) = arguments.split("--rate ").nth(1) {
            // An open loop makes its requests whatever it meets; each second's are all there.
            assert_eq!(requests, rate.trim().parse::<u64>().expect("a rate"));
        }
    }
}

/// Run after run meets what the one before left in TIME-WAIT at the server, on the very same ports.
#[test]
fn s2_4_runs_follow_each_other_at_once() {
    let Some(lab) = lab() else { return };
    let _server = Serve::start(&lab);
    for _ in 0..4 {
        let arguments = "--duration 500ms --new-connection-per-request http://192.0.2.3/hello";
        Run::start(&lab, arguments).finish().assert_clean();
    }
}

#[test]
fn two_thousand_connections() {
    let Some(lab) = lab() else { return };
    let _server = Serve::start(&lab);
    let done = Run::start(&lab, "--duration 1s --connections 2000 http://192.0.2.3/hello").finish();
    done.assert_clean();
    assert_eq!(done.number("/connections_opened"), 2000);
}

#[test]
fn byway_drives_a_server_on_the_kernels_tcp() {
    let Some(lab) = lab() else { return };
    for ip in [IpAddr::V4(KERNEL_IPV4), IpAddr::V6(KERNEL_IPV6)] {
        let server = Kernel::start(&lab, ip, |stream| http(stream, echo_body));
        for more in ["", "--payload 3000", "--new-connection-per-request", "--rate 300"] {
            Run::start(&lab, &format!("--duration 500ms --connections 4 {more} {}", server.url("http")))
                .finish()
                .assert_clean();
        }
        server.stop(&lab);
    }
}

/// Somebody else's WebSocket, with pings and text in between; and a plain echo.
#[test]
fn byway_drives_a_websocket_and_an_echo_of_others() {
    let Some(lab) = lab() else { return };
    let server = Kernel::start(&lab, KERNEL_IPV4.into(), |stream| {
        let Ok(mut socket) = tungstenite::accept(stream) else { return };
        let mut count = 0;
        while let Ok(message) = socket.read() {
            count += 1;
            if count % 3 == 0 {
                let _ = socket.send(Message::Ping(vec![7; 125].into()));
                let _ = socket.send(Message::text("by the way"));
            }
            if message.is_binary() && socket.send(message).is_err() {
                return;
            }
        }
    });
    for more in ["", "--payload 0", "--payload 100000", "--new-connection-per-request --rate 100"] {
        let arguments = format!("--duration 500ms --connections 4 {more} {}", server.url("ws"));
        Run::start(&lab, &arguments).finish().assert_clean();
    }
    server.stop(&lab);
    let server = Kernel::start(&lab, KERNEL_IPV4.into(), |mut stream| {
        let mut octets = [0; 4096];
        while let Ok(length @ 1..) = stream.read(&mut octets) {
            if stream.write_all(&octets[..length]).is_err() {
                return;
            }
        }
    });
    for more in ["", "--payload 1", "--payload 100000", "--new-connection-per-request"] {
        let arguments = format!("--duration 500ms --connections 4 {more} {}", server.url("tcp"));
        Run::start(&lab, &arguments).finish().assert_clean();
    }
    server.stop(&lab);
}

/// S4.5: a peer on the same host with its offloads on: nothing without the switch, everything with it.
#[test]
fn s4_5_partial_checksums_need_the_switch() {
    if !is_root() {
        return;
    }
    let veth = VethOptions { offloads: true, ..VethOptions::default() };
    let lab = Lab::new(LabOptions { veth, impair: None }).expect("a lab");
    let server = Kernel::start(&lab, KERNEL_IPV4.into(), |stream| http(stream, echo_body));
    let arguments = format!("--duration 500ms --connections 4 --payload 100 {}", server.url("http"));
    let done = Run::start(&lab, &format!("{arguments} --timeout 500ms")).finish();
    done.assert_failed("timeout", "--timeout");
    let done = Run::start(&lab, &format!("{arguments} --accept-partial-checksums")).finish();
    done.assert_clean();
    assert_eq!(done.json["environment"]["checksums"], "verified-or-partial");
    server.stop(&lab);
}

/// The end of a keep-alive is no error: another connection takes its place.
#[test]
fn a_server_that_closes_in_order_gets_a_new_connection() {
    let Some(lab) = lab() else { return };
    let said = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok";
    let announced = Kernel::start(&lab, KERNEL_IPV4.into(), move |stream| {
        http(stream, |stream, _| stream.write_all(said.as_bytes()).is_err());
    });
    let done = Run::start(&lab, &format!("--duration 500ms {}", announced.url("http"))).finish();
    done.assert_clean();
    assert!(done.number("/connections_opened") >= done.number("/requests"));
    announced.stop(&lab);
}

/// H8: whatever a server does, it is counted by kind, and the run ends.
#[test]
fn h8_servers_that_misbehave_are_errors_by_kind() {
    let Some(lab) = lab() else { return };
    type Answer = fn(&mut TcpStream, &[u8]) -> bool;
    let cases: &[(&str, &str, &str, Answer)] = &[
        ("http", "protocol", "isn't HTTP", |s, _| s.write_all(b"SSH-2.0-OpenSSH_9.2\r\n\r\n").is_ok()),
        ("http", "protocol", "interim", |s, _| {
            s.write_all(&b"HTTP/1.1 100 Continue\r\n\r\n".repeat(1000)).is_ok()
        }),
        ("http", "protocol", "neither its length", |s, _| {
            s.write_all(b"HTTP/1.1 200 OK\r\n\r\nhello").is_ok()
        }),
        ("http", "protocol", "repeated", |s, _| {
            s.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nhi").is_ok()
        }),
        ("http", "timeout", "--timeout", |s, _| {
            let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
            let endless = [b"10000\r\n".as_slice(), &[b'x'; 65_536], b"\r\n"].concat();
            s.write_all(head).is_ok() && (0..).all(|_| s.write_all(&endless).is_ok())
        }),
        ("http", "timeout", "--timeout", |s, _| s.read_exact(&mut [0]).is_ok()),
        ("http", "closed", "without an answer", |_, _| false),
        ("http", "closed", "without an answer", |s, _| {
            s.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello").is_err()
        }),
        ("http", "status", "error status", |s, _| {
            s.write_all(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n").is_ok()
        }),
        ("ws", "status", "error status", |s, _| {
            s.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n").is_ok()
        }),
        ("ws", "protocol", "opening", |s, _| {
            let head = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
            s.write_all(head).is_ok()
        }),
        ("ws", "protocol", "opening", |s, _| {
            s.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").is_ok()
        }),
    ];
    for &(scheme, kind, word, answer) in cases {
        let server = Kernel::start(&lab, KERNEL_IPV4.into(), move |stream| http(stream, answer));
        let arguments = format!("--duration 400ms --timeout 300ms --connections 3 {}", server.url(scheme));
        Run::start(&lab, &arguments).finish().assert_failed(kind, word);
        server.stop(&lab);
    }
}

/// A server that resets; one that answers something else than what was sent; a port that nobody listens on; a host
/// that isn't there.
#[test]
fn s1_5_servers_that_reset_refuse_or_are_not_there() {
    let Some(lab) = lab() else { return };
    let reset = Kernel::start(&lab, KERNEL_IPV4.into(), |mut stream| {
        // Closing with something unread resets.
        let _ = stream.read_exact(&mut [0]);
    });
    Run::start(&lab, &format!("--duration 300ms {}", reset.url("tcp")))
        .finish()
        .assert_failed("reset", "reset");
    let refused = reset.url("http");
    reset.stop(&lab);
    Run::start(&lab, &format!("--duration 300ms {refused}")).finish().assert_failed("refused", "refused");
    let liar = Kernel::start(&lab, KERNEL_IPV4.into(), |mut stream| {
        let mut octets = [0; 64];
        while stream.read_exact(&mut octets).is_ok() {
            octets[63] ^= 1;
            let _ = stream.write_all(&octets);
        }
    });
    Run::start(&lab, &format!("--duration 300ms {}", liar.url("tcp")))
        .finish()
        .assert_failed("protocol", "isn't what was sent");
    liar.stop(&lab);
    Run::start(&lab, "--duration 300ms --timeout 300ms http://192.0.2.99/")
        .finish()
        .assert_failed("timeout", "--timeout");
}

/// Open loop: what a stall holds up has the stall in its latency, those included that weren't even sent meanwhile.
#[test]
fn a_stall_of_the_server_is_not_hidden() {
    let Some(lab) = lab() else { return };
    let stalled = AtomicBool::new(false);
    let server = Kernel::start(&lab, KERNEL_IPV4.into(), move |stream| {
        http(stream, |stream, body| {
            if !stalled.swap(true, Ordering::Relaxed) {
                thread::sleep(Duration::from_millis(500));
            }
            echo_body(stream, body)
        });
    });
    let url = server.url("http");
    let done = Run::start(&lab, &format!("--duration 1s --connections 1 --rate 1000 {url}")).finish();
    done.assert_clean();
    assert_eq!(done.number("/requests"), 1000);
    // One request met the stall; the five hundred after it waited. A tenth of them waited 400 ms and more.
    assert!(done.number("/latency_ns/max") >= 500_000_000, "{}", done.json);
    assert!(done.number("/latency_ns/p90") >= 300_000_000, "{}", done.json);
    server.stop(&lab);
}

/// A signal ends the run early, in order, with what there is; conns and stats are told meanwhile.
#[test]
fn a_signal_ends_it_and_the_control_socket_answers_meanwhile() {
    let Some(lab) = lab() else { return };
    let server = Kernel::start(&lab, KERNEL_IPV4.into(), |stream| http(stream, echo_body));
    for signal_number in [libc::SIGINT, libc::SIGTERM] {
        let run = Run::start(&lab, &format!("--duration 5m --connections 7 {}", server.url("http")));
        let control = run.scratch.0.join("control.sock").display().to_string();
        let ask = |verb: &str| {
            let asked =
                lab.byway.spawn(&mut byway(&[verb, "--json", "--control", &control])).expect("starts");
            asked.wait_with_output().expect("ends")
        };
        let established = eventually(PATIENCE, || {
            let output = ask("conns");
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            (text.matches("ESTAB").count() == 7).then_some(text)
        });
        assert!(established.is_some(), "conns shows the load's connections");
        let stats: Value = serde_json::from_slice(&ask("stats").stdout).expect("JSON");
        assert_eq!(find_number(&stats, "TcpActiveOpens"), Some(7), "{stats}");
        signal(run.child.id(), signal_number);
        let done = run.finish();
        done.assert_clean();
        assert_eq!(done.json["interrupted"], true);
        let link = lab.byway.run(&format!("ip -details link show {BYWAY_INTERFACE}")).expect("ip");
        assert!(!link.contains("prog/xdp"), "a program is attached: {link}");
    }
    server.stop(&lab);
}

/// Mistakes are one line and an exit code, and nothing is left behind.
#[test]
fn mistakes_end_with_their_exit_code() {
    let Some(lab) = lab() else { return };
    let own = "--address 192.0.2.1/24";
    let on = |more: &str| format!("load --interface {BYWAY_INTERFACE} {more}");
    for (arguments, code, word) in [
        (on("http://192.0.2.2/"), 2, "--address"),
        (on("--host-address http://192.0.2.2/"), 78, "no address that --host-address could share"),
        (on(own), 2, "<URL>"),
        (on(&format!("{own} 192.0.2.2")), 2, "http://192.0.2.1/hello"),
        (on(&format!("{own} https://192.0.2.2/")), 2, "TLS"),
        (on(&format!("{own} --rate often http://192.0.2.2/")), 2, "'max'"),
        (on(&format!("{own} --conections 1 http://192.0.2.2/")), 2, "--connections"),
        (on(&format!("{own} http://192.0.2.1/")), 78, "byway's own address"),
        (on(&format!("{own} --connections 100000 http://192.0.2.2/")), 78, "give 3 more --address"),
        (on(&format!("{own} http://198.51.100.1/")), 78, "--gateway"),
        (on(&format!("{own} http://[2001:db8::2]/")), 78, "IPv6 --address"),
        (on(&format!("{own} --json /nonexistent/x http://192.0.2.2/")), 78, "/nonexistent/x"),
        (on(&format!("{own} http://nosuchname.invalid/")), 71, "nosuchname.invalid"),
        (format!("load --interface nosuch0 {own} http://192.0.2.2/"), 78, "nosuch0"),
    ] {
        let arguments: Vec<&str> = arguments.split_whitespace().collect();
        let child = lab.byway.spawn(&mut byway(&arguments)).expect("starts");
        let output = child.wait_with_output().expect("ends");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {stderr}");
        assert_eq!((stderr.lines().count(), output.stdout.len()), (1, 0), "{arguments:?}: {stderr}");
        assert!(stderr.starts_with("byway: ") && stderr.contains(word), "{stderr}");
    }
    // Answers would land on any of its queues.
    let veth = VethOptions { queues: 2, ..VethOptions::default() };
    let lab = Lab::new(LabOptions { veth, impair: None }).expect("a lab");
    let done = Run::start(&lab, "http://192.0.2.2/").finish();
    assert_eq!(done.output.status.code(), Some(78));
    assert!(done.stderr().contains("ethtool -L byway0"), "{}", done.stderr());
}
