//! `byway serve` in a lab, and clients on the kernel's TCP beside it.
#![allow(dead_code, unreachable_pub)] // Each test file uses its part.

pub mod inside;
pub mod shared;

use std::io::{BufRead, BufReader, Read};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use byway_lab::{BYWAY_INTERFACE, BYWAY_IPV4, BYWAY_IPV6, Lab, LabOptions, VethOptions, is_root};
use sha2::{Digest, Sha256};

pub const HTTP: u16 = 80;
pub const ECHO: u16 = 7;

/// How long a start, a stop or one answer may take on a loaded machine before the test gives up.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A lab whose interfaces have so many queues, and compute their checksums; `None` without root, and that is said.
pub fn lab(queues: u32) -> Option<Lab> {
    if !is_root() {
        eprintln!("skipped: needs root");
        return None;
    }
    let veth = VethOptions { queues, offloads: false, ..VethOptions::default() };
    Some(Lab::new(LabOptions { veth, impair: None }).expect("a lab"))
}

/// A folder of its own, gone with its handle.
#[derive(Debug)]
pub struct Scratch(pub PathBuf);

impl Scratch {
    pub fn new() -> Self {
        static SERIAL: AtomicU32 = AtomicU32::new(0);
        let name = format!("byway-test-{}-{}", std::process::id(), SERIAL.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).expect("a scratch folder");
        Self(path)
    }

    /// A file of `len` octets that no compressor or repetition could fake, and its SHA-256.
    pub fn random_file(&self, len: usize) -> (PathBuf, String) {
        let path = self.0.join(format!("random-{len}"));
        let octets = random_octets(len);
        std::fs::write(&path, &octets).expect("scratch file");
        (path, sha256(&octets))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub fn random_octets(len: usize) -> Vec<u8> {
    use rand::{RngCore, SeedableRng};
    let mut octets = vec![0; len];
    rand::rngs::SmallRng::seed_from_u64(len as u64).fill_bytes(&mut octets);
    octets
}

pub fn sha256(octets: &[u8]) -> String {
    Sha256::digest(octets).iter().map(|octet| format!("{octet:02x}")).collect()
}

/// A running `byway serve`. Killed when dropped, if it wasn't stopped.
#[derive(Debug)]
pub struct Server {
    child: Child,
    /// The line beginning `byway ready`.
    pub ready: String,
    pub control: PathBuf,
    _scratch: Scratch,
}

/// `byway` with these arguments, its output piped.
pub fn byway(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_byway"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

impl Server {
    /// Starts byway in the lab on both its addresses, HTTP on 80 and echo on 7, and waits until it is ready.
    pub fn start(lab: &Lab, more: &[&str]) -> Self {
        let (v4, v6) = (format!("{BYWAY_IPV4}/24"), format!("{BYWAY_IPV6}/64"));
        Self::start_at(lab, &["--address", &v4, "--address", &v6], more)
    }

    /// The same, where `place` says.
    pub fn start_at(lab: &Lab, place: &[&str], more: &[&str]) -> Self {
        let scratch = Scratch::new();
        let control = scratch.0.join("control.sock");
        let mut arguments = vec![
            "serve",
            "--interface",
            BYWAY_INTERFACE,
            "--echo-port",
            "7",
            "--discard-port",
            "9",
            "--chargen-port",
            "19",
            "--control",
        ];
        arguments.push(control.to_str().expect("UTF-8"));
        arguments.extend(place);
        arguments.extend(more);
        let mut command = byway(&arguments);
        command.stderr(Stdio::inherit());
        let mut child = lab.byway.spawn(&mut command).expect("byway starts");
        let mut ready = String::new();
        let stdout = child.stdout.take().expect("piped");
        BufReader::new(stdout).read_line(&mut ready).expect("reads");
        assert!(ready.starts_with("byway ready"), "not ready: {ready:?}, {:?}", child.wait());
        Self { child, ready, control, _scratch: scratch }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// `byway conns` or `byway stats`, as JSON.
    pub fn ask(&self, lab: &Lab, verb: &str) -> serde_json::Value {
        let arguments = [verb, "--json", "--control", self.control.to_str().expect("UTF-8")];
        let child = lab.byway.spawn(&mut byway(&arguments)).expect("byway starts");
        let output = child.wait_with_output().expect("ends");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "byway {verb}: {stderr}");
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    /// Payload octets copied in user space so far.
    pub fn payload_bytes_copied(&self, lab: &Lab) -> u64 {
        let stats = self.ask(lab, "stats");
        find_number(&stats, "BywayPayloadBytesCopied").unwrap_or_else(|| panic!("no counter in {stats}"))
    }

    /// SIGTERM, and the end in order.
    pub fn stop(mut self) {
        signal(self.child.id(), libc::SIGTERM);
        let status = wait(&mut self.child, PATIENCE).expect("ends after SIGTERM");
        assert!(status.success(), "{status}");
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The number under `key`, wherever it is.
pub fn find_number(value: &serde_json::Value, key: &str) -> Option<u64> {
    match value {
        serde_json::Value::Object(map) => map
            .get(key)
            .and_then(serde_json::Value::as_u64)
            .or_else(|| map.values().find_map(|value| find_number(value, key))),
        serde_json::Value::Array(values) => values.iter().find_map(|value| find_number(value, key)),
        _ => None,
    }
}

pub fn signal(pid: u32, signal: i32) {
    // SAFETY: kill touches no memory; the process is a child that hasn't been waited for.
    unsafe { libc::kill(pid as i32, signal) };
}

/// Waits for a child, but not for ever.
pub fn wait(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let end = now() + limit;
    while now() < end {
        if let Some(status) = child.try_wait().expect("our child") {
            return Some(status);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    None
}

#[expect(clippy::disallowed_methods, reason = "a test's patience, not the packet path")]
pub fn now() -> Instant {
    Instant::now()
}

/// Repeats `attempt` until it gives something, or patience ends.
pub fn eventually<T>(limit: Duration, mut attempt: impl FnMut() -> Option<T>) -> Option<T> {
    let end = now() + limit;
    loop {
        if let Some(value) = attempt() {
            return Some(value);
        }
        if now() > end {
            return None;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub fn v4(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(BYWAY_IPV4), port)
}

pub fn v6(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V6(BYWAY_IPV6), port)
}

/// A connection on the kernel's TCP; call it inside the kernel's namespace.
pub fn connect(remote: SocketAddr) -> TcpStream {
    try_connect(remote).expect("connects")
}

/// As [`connect`], where a reset just after the handshake may end the call to connect already.
pub fn try_connect(remote: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&remote, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Sends `octets` and reads as many back, both at once; the answer's SHA-256.
pub fn echo(remote: SocketAddr, octets: &[u8]) -> String {
    echo_over(&connect(remote), octets)
}

/// As [`echo`], over a connection that is open.
pub fn echo_over(mut stream: &TcpStream, octets: &[u8]) -> String {
    let mut back = Vec::with_capacity(octets.len());
    std::thread::scope(|scope| {
        let mut writer = stream.try_clone().expect("clones");
        scope.spawn(move || {
            use std::io::Write;
            writer.write_all(octets).expect("writes");
            writer.shutdown(std::net::Shutdown::Write).expect("shuts down");
        });
        stream.read_to_end(&mut back).expect("reads");
    });
    sha256(&back)
}
