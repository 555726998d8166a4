//! The programs of `examples/`, run as users run them: over kernel sockets on loopback, and as root over a veth pair.

mod support;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};

use byway_lab::{BYWAY_INTERFACE, BYWAY_IPV4, Lab, LabOptions, VethOptions, is_root};
use support::*;

/// An example's program. `cargo test` has built it; `cargo test --test examples` by itself wouldn't.
fn program(name: &str) -> Command {
    let test = std::env::current_exe().expect("a test has a program");
    let path = test.ancestors().nth(2).expect("target/debug").join("examples").join(name);
    assert!(path.exists(), "{} isn't there: cargo build --examples", path.display());
    let mut command = Command::new(path);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A running example. Killed when dropped, if it wasn't stopped.
struct Example {
    child: Child,
    ready: String,
    remote: SocketAddr,
    control: PathBuf,
    _scratch: Scratch,
}

impl Example {
    /// Over kernel sockets, on a free port.
    fn on_loopback(name: &str, more: &[&str]) -> Self {
        // Somebody may take the port before the example does: then with another.
        for _ in 0..20 {
            let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
            let remote = free.local_addr().expect("bound");
            drop(free);
            let scratch = Scratch::new();
            let control = scratch.0.join("control.sock");
            let mut command = program(name);
            command.args(["--backend", "kernel", "--address", "127.0.0.1/8", "--max-connections", "600"]);
            command.args(["--port", &remote.port().to_string(), "--control"]).arg(&control).args(more);
            let mut child = command.spawn().expect("starts");
            let mut ready = String::new();
            BufReader::new(child.stdout.take().expect("piped")).read_line(&mut ready).expect("reads");
            if ready.starts_with("byway ready backend=kernel ") {
                return Self { child, ready, remote, control, _scratch: scratch };
            }
            let output = child.wait_with_output().expect("ends");
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(said.contains("is in use"), "{name} isn't ready: {ready:?}, {said}");
        }
        panic!("no port to be had");
    }

    /// On byway's own TCP, on port 80 of byway's address.
    fn on_veth(lab: &Lab, name: &str, more: &[&str]) -> Self {
        let scratch = Scratch::new();
        let control = scratch.0.join("control.sock");
        let mut command = program(name);
        command.args([
            "--interface",
            BYWAY_INTERFACE,
            "--address",
            &format!("{BYWAY_IPV4}/24"),
            "--port",
            "80",
        ]);
        command.arg("--control").arg(&control).args(more);
        let mut child = lab.byway.spawn(&mut command).expect("starts");
        let mut ready = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut ready).expect("reads");
        assert!(ready.starts_with("byway ready backend=xdp "), "{name} isn't ready: {ready:?}");
        Self { child, ready, remote: v4(80), control, _scratch: scratch }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.remote)
    }

    /// `byway stats` or `byway conns`, which ask it by its control socket.
    fn ask(&self, verb: &str) -> serde_json::Value {
        let control = self.control.to_str().expect("UTF-8");
        let output = byway(&[verb, "--json", "--control", control]).output().expect("byway starts");
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    /// Every frame is free again, and nobody is connected.
    fn assert_idle(&self) {
        let idle = || {
            let stats = self.ask("stats");
            let open =
                ["ESTAB", "CLOSE-WAIT", "FIN-WAIT-2"].map(|state| stats["connections"][state].as_u64());
            let frames = &stats["frames"];
            let held = ["app", "send_queue"].map(|owner| frames[owner].as_u64());
            (open == [Some(0); 3] && held == [Some(0); 2]).then_some(())
        };
        assert!(eventually(PATIENCE, idle).is_some(), "{}", self.ask("stats"));
    }

    /// SIGTERM, and the end in order; what it said on standard error.
    fn stop(mut self) -> String {
        signal(self.child.id(), libc::SIGTERM);
        let (status, said) = self.wait();
        assert!(status.success(), "{status}: {said}");
        assert!(!self.control.exists(), "the control socket goes with the process");
        said
    }

    fn wait(&mut self) -> (ExitStatus, String) {
        let status = wait(&mut self.child, PATIENCE).expect("ends");
        let mut said = String::new();
        self.child.stderr.take().expect("piped").read_to_string(&mut said).expect("UTF-8");
        (status, said)
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A veth pair, for root.
#[test]
fn echo_sends_frames_back_on_loopback() {
    let example = Example::on_loopback("echo", &[]);
    assert!(example.ready.contains(&format!("ports={}(echo)", example.remote.port())), "{}", example.ready);
    let octets = random_octets(10_000_000);
    assert_eq!(echo(example.remote, &octets), sha256(&octets));
    example.assert_idle();
    assert_eq!(find_number(&example.ask("stats"), "BywayPayloadBytesCopied"), Some(0));
    assert_eq!(example.stop(), "");
}

#[test]
fn echo_sends_frames_back_on_a_veth_pair() {
    let Some(lab) = lab(1) else { return };
    let example = Example::on_veth(&lab, "echo", &[]);
    let octets = random_octets(10_000_000);
    let kept = lab.kernel.enter(|| {
        assert_eq!(echo(example.remote, &octets), sha256(&octets));
        let mut kept = connect(example.remote);
        kept.write_all(b"here").expect("writes");
        kept.read_exact(&mut [0; 4]).expect("reads");
        kept
    });
    let conns = example.ask("conns");
    let shown = conns.as_array().expect("a list").iter().filter(|conn| conn["state"] == "ESTAB").count();
    assert_eq!(shown, 1, "{conns}");
    drop(kept);
    assert_eq!(find_number(&example.ask("stats"), "BywayPayloadBytesCopied"), Some(0));
    example.stop();
}

#[test]
fn a_launched_program_says_what_is_wrong_as_byway_does() {
    for (arguments, code, said) in [
        (&["--prot", "7"][..], 2, "unexpected argument '--prot' found; a similar argument exists: '--port'"),
        (&["--backend", "kernel", "--address", "224.0.0.1/4"], 78, "multicast"),
        (&["--config", "/nonexistent"], 78, "/nonexistent"),
        (&["--interface", "nonexistent", "--address", "192.0.2.7/24"], 78, "nonexistent"),
    ] {
        let output = program("echo").args(arguments).output().expect("starts");
        let stderr = String::from_utf8(output.stderr).expect("UTF-8");
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {stderr}");
        assert!(stderr.starts_with("echo: ") && stderr.contains(said), "{arguments:?}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
    }
    let help = program("echo").arg("--help").output().expect("starts");
    let help = String::from_utf8(help.stdout).expect("UTF-8");
    assert!(
        help.starts_with("Sends back what arrives (RFC 862)\n") && help.contains("--interface"),
        "{help}"
    );
}

/// curl in this namespace; what it got.
fn curl(arguments: &[&str]) -> String {
    let output = Command::new("curl")
        .args(["--silent", "--show-error", "--fail", "--max-time", "60", "--globoff"])
        .args(arguments)
        .output()
        .expect("curl");
    assert!(output.status.success(), "curl {arguments:?}: {output:?}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// Several requests on a connection, kept alive; and one that is under way when the program is told to end.
fn hyper_answers(example: &Example) {
    let url = example.url("/any/path");
    assert_eq!(curl(&[&url, &url, &url]), "hello\nhello\nhello\n");
    let mut stream = connect(example.remote);
    for _ in 1..1000 {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").expect("writes");
    }
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("writes");
    let mut answers = String::new();
    stream.read_to_string(&mut answers).expect("reads");
    assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 1000);
}

#[test]
fn hyper_hello_answers_on_loopback() {
    let example = Example::on_loopback("hyper_hello", &[]);
    hyper_answers(&example);
    example.assert_idle();
    // Idle ones are closed by a drain, which doesn't wait for them.
    let mut idle = connect(example.remote);
    idle.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").expect("writes");
    let mut answer = [0; 1024];
    let some = idle.read(&mut answer).expect("reads");
    assert!(answer[..some].ends_with(b"hello\n"));
    let waiting = std::thread::spawn(move || idle.read(&mut answer).expect("closed in order"));
    assert_eq!(example.stop(), "");
    assert_eq!(waiting.join().expect("ends"), 0);
}

#[test]
fn hyper_hello_answers_on_a_veth_pair() {
    let Some(lab) = lab(1) else { return };
    let example = Example::on_veth(&lab, "hyper_hello", &[]);
    lab.kernel.enter(|| hyper_answers(&example));
    example.assert_idle();
    example.stop();
}

fn axum_answers(example: &Example) {
    assert_eq!(curl(&[&example.url("/hello")]), "hello\n");
    assert_eq!(curl(&[&example.url("/greet/byway")]), "hello, byway\n");
    let json =
        ["-H", "Content-Type: application/json", "-d", r#"{"numbers":[1,2,39]}"#, &example.url("/sum")];
    assert_eq!(curl(&json), r#"{"count":3,"total":42}"#);
    let missing = Command::new("curl")
        .args(["-so", "/dev/null", "-w", "%{http_code}", &example.url("/nowhere")])
        .output()
        .expect("curl");
    assert_eq!(missing.stdout, b"404");
    let url = format!("ws://{}/ws", example.remote);
    let mut socket = tungstenite::client(url, connect(example.remote)).expect("upgrades").0;
    for len in [0, 1, 125, 126, 1_000, 65_536, 1 << 20] {
        let message = tungstenite::Message::binary(random_octets(len));
        socket.send(message.clone()).expect("sends");
        assert!(socket.read().expect("an echo") == message, "{len} octets differ");
    }
    socket.send(tungstenite::Message::text("grüße")).expect("sends");
    assert_eq!(socket.read().expect("an echo").to_text().expect("text"), "grüße");
    socket.close(None).expect("closes");
    assert!(matches!(socket.read(), Ok(tungstenite::Message::Close(_))));
}

#[test]
fn an_axum_application_runs_on_loopback() {
    let example = Example::on_loopback("axum_app", &[]);
    axum_answers(&example);
    example.assert_idle();
    assert_eq!(example.stop(), "");
}

#[test]
fn an_axum_application_runs_on_a_veth_pair() {
    let Some(lab) = lab(1) else { return };
    let example = Example::on_veth(&lab, "axum_app", &[]);
    lab.kernel.enter(|| axum_answers(&example));
    example.assert_idle();
    example.stop();
}

/// A member of a room.
fn chatter(example: &Example, room: &str) -> tungstenite::WebSocket<std::net::TcpStream> {
    let url = format!("ws://{}/{room}", example.remote);
    tungstenite::client(url, connect(example.remote)).expect("upgrades").0
}

/// Everybody in a room hears everything that is said there, on whichever core; others hear nothing.
fn rooms_hear_their_own(example: &Example) {
    let mut here: Vec<_> = (0..8).map(|_| chatter(example, "here")).collect();
    let mut there = chatter(example, "there");
    // A member is in once it hears itself.
    for (at, member) in here.iter_mut().enumerate() {
        let hello = format!("{at} is here");
        member.send(tungstenite::Message::text(hello.clone())).expect("sends");
        while member.read().expect("hears").to_text().expect("text") != hello {}
    }
    there.send(tungstenite::Message::text("alone")).expect("sends");
    for n in 0..100 {
        here[n % 8].send(tungstenite::Message::text(format!("line {n}"))).expect("sends");
        for member in &mut here {
            let line = std::iter::repeat_with(|| member.read().expect("hears"))
                .find(|message| message.to_text().is_ok_and(|text| text.starts_with("line")));
            assert_eq!(line.expect("heard").to_text().expect("text"), format!("line {n}"));
        }
    }
    assert_eq!(there.read().expect("hears").to_text().expect("text"), "alone");
    there.send(tungstenite::Message::text("still alone")).expect("sends");
    assert_eq!(there.read().expect("hears").to_text().expect("text"), "still alone");
}

#[test]
fn chat_rooms_span_cores_on_loopback() {
    let example = Example::on_loopback("chat", &[]);
    rooms_hear_their_own(&example);
    example.assert_idle();
    // A member is told of the end.
    let mut member = chatter(&example, "last");
    member.send(tungstenite::Message::text("here")).expect("sends");
    member.read().expect("hears");
    let waiting = std::thread::spawn(move || member.read());
    assert_eq!(example.stop(), "");
    assert!(matches!(waiting.join().expect("ends"), Ok(tungstenite::Message::Close(_))));
}

#[test]
fn chat_rooms_span_cores_on_a_veth_pair() {
    if !is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    let veth = VethOptions { queues: 2, offloads: false, ..VethOptions::default() };
    let lab = Lab::new(LabOptions { veth, impair: None }).expect("a lab");
    let example = Example::on_veth(&lab, "chat", &[]);
    lab.kernel.enter(|| rooms_hear_their_own(&example));
    example.assert_idle();
    example.stop();
}

#[test]
fn a_client_opens_a_connection_and_ends_on_loopback() {
    let server = Example::on_loopback("echo", &[]);
    let to = server.remote.to_string();
    let scratch = Scratch::new();
    let run = |to: &str| {
        let mut command = program("client");
        command.args(["--backend", "kernel", "--max-connections", "100", "--to", to, "--control"]);
        command.arg(scratch.0.join("client.sock")).output().expect("starts")
    };
    let output = run(&to);
    let said = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("1000000 octets there and back"), "{said}");
    server.stop();
    // And when nobody is there it says so, and that it failed.
    let output = run(&to);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "client: connection refused\n");
}

/// byway at both ends: a client of its own TCP, whose connection `byway conns` shows.
#[test]
fn a_client_opens_a_connection_on_a_veth_pair() {
    let Some(lab) = lab(1) else { return };
    let service = lab.kernel.enter(|| TcpListener::bind((byway_lab::KERNEL_IPV4, 7)).expect("free"));
    let server = std::thread::spawn(move || {
        let (mut stream, _) = service.accept().expect("accepts");
        let mut writer = stream.try_clone().expect("clones");
        std::io::copy(&mut stream, &mut writer).expect("echoes");
    });
    let scratch = Scratch::new();
    let mut command = program("client");
    command.args(["--interface", BYWAY_INTERFACE, "--address", &format!("{BYWAY_IPV4}/24")]);
    command.args(["--to", &format!("{}:7", byway_lab::KERNEL_IPV4), "--control"]);
    let child = lab.byway.spawn(command.arg(scratch.0.join("client.sock"))).expect("starts");
    let output = child.wait_with_output().expect("ends");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("1000000 octets there and back"), "{said}");
    server.join().expect("echoes");
}

/// Virtual time: the same, whenever and wherever it runs.
#[test]
fn two_stacks_in_memory_talk() {
    let runs = [(); 2].map(|()| program("sim_two_stacks").output().expect("starts"));
    let said = String::from_utf8(runs[0].stdout.clone()).expect("UTF-8");
    assert!(said.contains("the client hears: hello from the other stack\n"), "{said}");
    assert_eq!(runs[0].stdout, runs[1].stdout);
}
