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
        command.args(["--interface", BYWAY_INTERFACE, "--address", &format!("{BYWAY_IPV4}/24"), "--port", "80"]);
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
fn lab() -> Option<Lab> {
    if !is_root() {
        eprintln!("skipped: needs root");
        return None;
    }
    let veth = VethOptions { queues: 1, offloads: false, ..VethOptions::default() };
    Some(Lab::new(LabOptions { veth, impair: None }).expect("a lab"))
}

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
    let Some(lab) = lab() else { return };
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
    assert!(help.starts_with("Sends back what arrives (RFC 862)\n") && help.contains("--interface"), "{help}");
}
