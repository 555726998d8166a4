//! `--metrics`: Prometheus's text format, read strictly, and clients that misbehave.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::Child;
use std::time::Duration;

use byway_lab::{Lab, LabOptions, Namespace, VethOptions, is_root};
use support::*;

/// A port of loopback that is free, in the namespace of the caller.
fn free() -> SocketAddr {
    let any: SocketAddr = "127.0.0.1:0".parse().expect("an address");
    TcpListener::bind(any).and_then(|listener| listener.local_addr()).expect("a port")
}

/// What the server says, after whatever was asked; empty if it closes without a word.
fn say(address: SocketAddr, question: &[u8]) -> String {
    let mut stream = connect(address);
    let _ = stream.write_all(question);
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    answer
}

fn scrape(address: SocketAddr) -> BTreeMap<String, f64> {
    let answer = say(address, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.contains("Content-Type: text/plain; version=0.0.4; charset=utf-8"), "{head}");
    assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{head}");
    parse(body)
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

/// Families in one piece, each with HELP, TYPE and samples in that order; names, labels and values well-formed; nothing twice.
fn parse(body: &str) -> BTreeMap<String, f64> {
    assert!(body.ends_with('\n'));
    let (mut families, mut samples) = (BTreeSet::new(), BTreeMap::new());
    let mut lines = body.lines().peekable();
    while let Some(help) = lines.next() {
        let (name, help) = help.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')).expect("HELP");
        assert!(is_name(name) && !help.is_empty(), "{name}");
        assert!(families.insert(name.to_owned()), "{name} twice");
        let kind = lines.next().and_then(|line| line.strip_prefix(&format!("# TYPE {name} "))).expect("TYPE");
        assert!(["counter", "gauge"].contains(&kind), "{kind}");
        assert_eq!(name.ends_with("_total"), kind == "counter", "{name}");
        let mut count = 0;
        while let Some(line) = lines.next_if(|line| !line.starts_with('#')) {
            let (sample, value) = line.rsplit_once(' ').expect("a value");
            let labels = sample.strip_prefix(name).expect("of this family");
            if !labels.is_empty() {
                let labels =
                    labels.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).expect("braces");
                for label in labels.split(',') {
                    let (name, value) = label.split_once('=').expect("a label");
                    let value =
                        value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).expect("quotes");
                    assert!(is_name(name) && !value.contains(['"', '\\']), "{label}");
                }
            }
            let value: f64 = value.parse().expect("a number");
            assert!(value >= 0.0 && value.is_finite(), "{line}");
            assert!(samples.insert(sample.to_owned(), value).is_none(), "{sample} twice");
            count += 1;
        }
        assert!(count > 0, "{name} without samples");
    }
    samples
}

/// byway over kernel sockets, its metrics at an address of loopback.
fn serve_on_kernel(scratch: &Scratch, metrics: &str) -> Child {
    let (control, port) = (scratch.0.join("control.sock"), free().port().to_string());
    let control = control.to_str().expect("UTF-8");
    let serve = ["serve", "--backend", "kernel", "--address", "127.0.0.1/8", "--port", &port];
    byway(&[&serve[..], &["--control", control, "--metrics", metrics]].concat())
        .spawn()
        .expect("byway starts")
}

fn await_ready(child: &mut Child) {
    let mut ready = String::new();
    BufReader::new(child.stdout.take().expect("piped")).read_line(&mut ready).expect("reads");
    assert!(ready.starts_with("byway ready"), "{ready}");
}

fn stop(mut child: Child) {
    signal(child.id(), libc::SIGTERM);
    assert!(wait(&mut child, PATIENCE).expect("ends").success());
}

#[test]
fn metrics_are_those_of_stats() {
    if !is_root() {
        return;
    }
    let veth = VethOptions { queues: 2, offloads: false, ..VethOptions::default() };
    let lab = Lab::new(LabOptions { veth, impair: None }).expect("a lab");
    let address = lab.byway.enter(free);
    let server = Server::start(&lab, &["--metrics", &address.to_string()]);
    lab.kernel.run("curl -sS http://192.0.2.1/hello").expect("curl");
    // Its own are a moment old.
    std::thread::sleep(Duration::from_millis(150));
    let metrics = lab.byway.enter(|| scrape(address));
    let stats = server.ask(&lab, "stats");
    for (name, sample) in [
        ("TcpPassiveOpens", "byway_stack_total{counter=\"TcpPassiveOpens\"}"),
        ("BywayAnswered", "byway_stack_total{counter=\"BywayAnswered\"}"),
        ("TcpInCsumErrors", "byway_discarded_total{reason=\"TcpInCsumErrors\"}"),
        ("LISTEN", "byway_connections{state=\"LISTEN\"}"),
        ("redirect_tcp", "byway_steering_total{verdict=\"redirect_tcp\"}"),
    ] {
        let expected = find_number(&stats, name).unwrap_or_else(|| panic!("{name} in {stats}"));
        assert_eq!(metrics[sample], expected as f64, "{sample}");
    }
    assert!(metrics["byway_stack_total{counter=\"BywayAnswered\"}"] >= 1.0);
    for core in 0..2 {
        let turns = format!("byway_loop_turns_total{{core=\"{core}\",queue=\"{core}\"}}");
        assert!(metrics[&turns] > 0.0);
        let mine = format!("byway_frames{{core=\"{core}\"");
        let frames: f64 =
            metrics.iter().filter(|(name, _)| name.starts_with(&mine)).map(|(_, count)| count).sum();
        assert_eq!(frames, 65_536.0, "every frame has an owner");
    }
    server.stop();
}

/// D13: silly, silent and slow clients get an error or the end, and the next one its answer.
#[test]
fn d13_metrics_take_abuse() {
    let (scratch, address) = (Scratch::new(), free());
    let mut server = serve_on_kernel(&scratch, &address.to_string());
    await_ready(&mut server);
    assert!(say(address, b"GET / HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 404 "));
    assert!(say(address, b"POST /metrics HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 405 "));
    assert!(say(address, b"\x16\x03\x01\r\n\r\n").starts_with("HTTP/1.1 405 "));
    let head = say(address, b"HEAD /metrics HTTP/1.1\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 200 ") && head.ends_with("\r\n\r\n"), "{head}");
    assert_eq!(say(address, &[b'x'; 100_000]), "");
    let silent: Vec<TcpStream> = (0..3).map(|_| connect(address)).collect();
    let mut slow = connect(address);
    slow.write_all(b"GET").expect("writes");
    assert!(scrape(address).contains_key("byway_connections{state=\"ESTAB\"}"));
    drop((silent, slow));
    for _ in 0..100 {
        scrape(address);
    }
    stop(server);
}

/// D13: who is slow holds nobody up: a scrape is answered while another's request isn't even whole.
#[test]
fn d13_a_slow_scraper_holds_nobody_out() {
    let (scratch, address) = (Scratch::new(), free());
    let mut server = serve_on_kernel(&scratch, &address.to_string());
    await_ready(&mut server);
    // It has a second, which a busy machine may take for itself.
    let overtaken = || {
        let mut slow = connect(address);
        slow.write_all(b"GET /metrics HTTP/1.1\r\n").ok()?;
        scrape(address);
        slow.write_all(b"\r\n").ok()?;
        let mut answer = String::new();
        slow.read_to_string(&mut answer).ok()?;
        answer.starts_with("HTTP/1.1 200 ").then_some(())
    };
    assert!(eventually(PATIENCE, overtaken).is_some());
    stop(server);
}

/// D13: who asks by the octet is cut off, however long it would go on.
#[test]
fn d13_a_question_that_drips_ends() {
    let scratch = Scratch::new();
    let mut server = serve_on_kernel(&scratch, &free().to_string());
    await_ready(&mut server);
    let mut slow = UnixStream::connect(scratch.0.join("control.sock")).expect("connects");
    let drip = || {
        std::thread::sleep(Duration::from_millis(50));
        slow.write_all(b"s").err()
    };
    let error = eventually(PATIENCE, drip).expect("an end");
    assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe);
    stop(server);
}

/// Where lo has no IPv6 address, what is wrong isn't the port.
#[test]
fn an_address_that_loopback_does_not_have_is_told_so() {
    if !is_root() {
        return;
    }
    let namespace = Namespace::new().expect("a namespace");
    namespace.run("sysctl -qw net.ipv6.conf.all.disable_ipv6=1").expect("sysctl");
    let scratch = Scratch::new();
    let mut child = namespace.enter(|| serve_on_kernel(&scratch, "[::1]:9100"));
    let status = wait(&mut child, PATIENCE).expect("ends by itself");
    let mut said = String::new();
    child.stderr.take().expect("piped").read_to_string(&mut said).expect("reads");
    assert_eq!((status.code(), said.lines().count()), (Some(71), 1), "{said}");
    assert!(said.contains("no such address") && said.contains("ip addr show dev lo"), "{said}");
    assert!(!said.contains("another port"), "{said}");
}

#[test]
fn an_address_that_cannot_be_had_is_one_line() {
    let scratch = Scratch::new();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let at = taken.local_addr().expect("an address").to_string();
    for (metrics, code, words) in
        [("0.0.0.0:9100", 78, "127.0.0.1:9100"), (&at, 71, "give another port"), ("9100", 2, "--metrics")]
    {
        let mut child = serve_on_kernel(&scratch, metrics);
        let status = wait(&mut child, PATIENCE).expect("ends by itself");
        let mut said = String::new();
        child.stderr.take().expect("piped").read_to_string(&mut said).expect("reads");
        assert_eq!((status.code(), said.lines().count()), (Some(code), 1), "{metrics}: {said}");
        assert!(said.contains(words), "{said}");
    }
}
