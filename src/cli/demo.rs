//! `byway demo`: the main job, shown between two namespaces of this process's own.
//!
//! ```text
//!   ┌ namespace ──────────┐               ┌ namespace ─────────────┐
//!   │ byway serve  byway0 │── veth pair ──│ peer0   curl, WebSocket │
//!   │ 192.0.2.1           │               │ 192.0.2.2   (the kernel)│
//!   └─────────────────────┘               └─────────────────────────┘
//! ```
//!
//! The namespaces have no name and the server is a thread, so that nothing can stay behind: when this process
//! ends, however it ends, the kernel takes everything back.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use byway_lab::{
    BYWAY_INTERFACE, BYWAY_IPV4, BYWAY_IPV6, KERNEL_INTERFACE, KERNEL_IPV4, Lab, LabOptions, Watch,
};
use byway_tcp::wire::tcp::{Flags, Segment};
use byway_tcp::wire::{self, Body, Checksums};
use clap::Parser as _;
use hdrhistogram::Histogram;
use tungstenite::Message;

use super::failure::Failure;
use super::{Cli, Verb, conns, serve, usage};

/// A line on standard output. Nobody may be reading (`| head`); the demo ends in order all the same.
macro_rules! say {
    ($($words:tt)*) => {{
        let _ = writeln!(std::io::stdout().lock(), $($words)*);
    }};
}

const HTTP: u16 = 80;
const ECHO: u16 = 7;
/// Requests for the histogram: a few seconds at the most.
const REQUESTS: usize = 20_000;
/// Octets of the body that curl sends and gets back.
const BODY: usize = 16 << 20;
/// No step takes nearly as long on a working host.
const PATIENCE: Duration = Duration::from_secs(10);

/// Shows everything, or says why it can't.
pub(crate) fn run() -> Result<(), Failure> {
    if !byway_lab::is_root() {
        let text = "demo needs root: it makes network namespaces and loads an XDP program (CAP_SYS_ADMIN): sudo byway demo";
        return Err(Failure { code: Failure::PERMISSION, message: text.to_owned() });
    }
    // Two flags for the same signals: the server takes note of its own and clears it.
    let ends = [libc::SIGTERM, libc::SIGINT, libc::SIGHUP];
    let (interrupted, stop) = (serve::stop_flag(&ends)?, serve::stop_flag(&ends)?);
    let lab = Lab::new(LabOptions::default()).map_err(|error| {
        Failure::system(format!("the demo's network: {error:#}: try deploy/install-deps.sh"))
    })?;
    let scratch =
        Scratch::new().map_err(|error| Failure::system(format!("a folder for the demo: {error}")))?;
    let control = scratch.0.join("control.sock");
    say!(
        "Two namespaces joined by a veth pair: byway ({BYWAY_IPV4}) here, the kernel's TCP ({KERNEL_IPV4}) there."
    );

    let server_stop = Arc::clone(&stop);
    let options = server_options(&control)?;
    let (tell_ready, ready) = mpsc::channel();
    std::thread::scope(|scope| {
        let ending = Ending(&stop);
        let byway = lab.byway.clone();
        let server = scope.spawn(move || {
            byway.join().map_err(|error| Failure::system(format!("entering the namespace: {error}")))?;
            serve::run_until(&options, &server_stop, |line| {
                let _ = tell_ready.send(line.to_owned());
            })
        });
        let shown = match ready.recv() {
            Ok(line) => {
                say!("{line}");
                show(&lab, &scratch.0, &control, &interrupted)
            }
            // The server says why.
            Err(_) => Ok(()),
        };
        drop(ending);
        server.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        if interrupted.load(Ordering::Relaxed) {
            say!("\nInterrupted; nothing is left behind.");
            return Ok(());
        }
        shown.map_err(|error| Failure::system(format!("the demo failed: {error:#}")))?;
        let left = lab.byway.run(&format!("ip -details link show {BYWAY_INTERFACE}")).unwrap_or_default();
        let program = if left.contains("prog/xdp") {
            "an XDP program is STILL attached"
        } else {
            "no program is attached"
        };
        say!("\nStopped: {program}, and the namespaces go with this process.");
        Ok(())
    })
}

/// Ends the server, also when the show panics (nobody reads our output any more): the scope waits for it.
struct Ending<'a>(&'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The options of a server as a user would type them.
fn server_options(control: &Path) -> Result<super::options::Serve, Failure> {
    let (v4, v6) = (format!("{BYWAY_IPV4}/24"), format!("{BYWAY_IPV6}/64"));
    let arguments = ["byway", "serve", "--interface", BYWAY_INTERFACE, "--address", &v4, "--address", &v6];
    let more = ["--echo-port", "7", "--drain", "1s", "--control"];
    say!("$ {} {}", arguments.join(" "), more[..4].join(" "));
    let all = arguments.into_iter().chain(more).map(std::ffi::OsString::from);
    match Cli::try_parse_from(all.chain([control.into()])).map_err(|error| usage::failure(&error))?.verb {
        Verb::Serve(options) => Ok(options),
        _ => unreachable!("serve was asked for"),
    }
}

/// Steps, ended early by an interrupt.
fn show(lab: &Lab, scratch: &Path, control: &Path, interrupted: &AtomicBool) -> Result<()> {
    type Step<'a> = Box<dyn Fn() -> Result<()> + 'a>;
    let held = lab.kernel.enter(|| -> Result<_> {
        let mut echo = TcpStream::connect_timeout(&byway(ECHO), PATIENCE)?;
        echo.write_all(b"hello")?;
        Ok((echo, websocket()?))
    })?;
    let steps: [Step<'_>; 5] = [
        Box::new(|| show_exchange(lab)),
        Box::new(|| show_body(lab, scratch)),
        Box::new(|| lab.kernel.enter(show_websocket)),
        Box::new(|| show_connections(control)),
        Box::new(|| lab.kernel.enter(|| show_latency(interrupted))),
    ];
    for step in steps {
        if interrupted.load(Ordering::Relaxed) {
            return Ok(());
        }
        step()?;
    }
    drop(held);
    Ok(())
}

fn byway(port: u16) -> SocketAddr {
    SocketAddr::new(BYWAY_IPV4.into(), port)
}

/// S4.7: a whole exchange as it passes the wire.
fn show_exchange(lab: &Lab) -> Result<()> {
    say!(
        "\n$ curl http://{BYWAY_IPV4}/hello                  (as tcpdump would show it on {KERNEL_INTERFACE})"
    );
    let watch = Watch::start(&lab.kernel, KERNEL_INTERFACE)?;
    let answer =
        lab.kernel.run(&format!("curl --silent --show-error --fail --max-time 5 http://{BYWAY_IPV4}/hello"));
    let frames = watch.stop();
    let mut first = [None, None];
    for frame in &frames {
        let Ok(packet) = wire::parse(frame, Checksums::AcceptPartial) else { continue };
        let Body::Tcp(_, segment) = packet.body else { continue };
        // Only this exchange; the connections held open are silent.
        if segment.src_port != HTTP && segment.dst_port != HTTP {
            continue;
        }
        let ours = segment.src_port == HTTP;
        let seq_from = *first[usize::from(ours)].get_or_insert(segment.seq);
        let ack_from = first[usize::from(!ours)].unwrap_or_default();
        let (from, to) = if ours { ("byway ", "kernel") } else { ("kernel", "byway ") };
        let (at, len) = segment.payload;
        let text = String::from_utf8_lossy(&frame[at..at + len]);
        let line = text.lines().next().unwrap_or_default();
        say!(
            "  {from} → {to}  {:<12} seq {:<4} ack {:<4} len {len:<4} {line}",
            flags(&segment),
            segment.seq.since(seq_from),
            if segment.flags.contains(Flags::ACK) { segment.ack.since(ack_from) } else { 0 },
        );
    }
    let answer = answer?;
    ensure!(answer == "hello\n", "curl got {answer:?}");
    Ok(())
}

fn flags(segment: &Segment) -> String {
    let names = [
        (Flags::SYN, "SYN"),
        (Flags::FIN, "FIN"),
        (Flags::RST, "RST"),
        (Flags::PSH, "PSH"),
        (Flags::ACK, "ACK"),
    ];
    let set: Vec<_> =
        names.iter().filter(|(flag, _)| segment.flags.contains(*flag)).map(|(_, name)| *name).collect();
    set.join(",")
}

/// A body by curl, there and back.
fn show_body(lab: &Lab, scratch: &Path) -> Result<()> {
    let (sent, back) = (scratch.join("sent"), scratch.join("back"));
    let octets: Vec<u8> =
        (0..BODY as u64).map(|at| at.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()[0]).collect();
    std::fs::write(&sent, &octets)?;
    say!("\n$ curl --data-binary @{}-MiB-file http://{BYWAY_IPV4}/echo", BODY >> 20);
    let begin = now();
    lab.kernel.run(&format!(
        "curl --silent --show-error --fail --max-time 10 --data-binary @{} -o {} http://{BYWAY_IPV4}/echo",
        sent.display(),
        back.display(),
    ))?;
    let took = begin.elapsed();
    ensure!(std::fs::read(&back)? == octets, "the body came back changed");
    let rate = BODY as f64 / took.as_secs_f64() / 1e6;
    say!(
        "  came back unchanged: {} octets each way in {} ms ({rate:.0} MB/s, curl's start included)",
        BODY,
        took.as_millis()
    );
    Ok(())
}

type Socket = tungstenite::WebSocket<TcpStream>;

fn websocket() -> Result<Socket> {
    let stream = TcpStream::connect_timeout(&byway(HTTP), PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    let (socket, _) = tungstenite::client(format!("ws://{BYWAY_IPV4}/"), stream)
        .map_err(|error| anyhow::anyhow!("WebSocket upgrade: {error}"))?;
    Ok(socket)
}

fn show_websocket() -> Result<()> {
    say!("\nWebSocket to ws://{BYWAY_IPV4}/ (tungstenite on the kernel's TCP)");
    let mut socket = websocket()?;
    let text = Message::text("Grüße, 世界");
    let binary = Message::binary(vec![0xb5; 100_000]);
    for (what, message) in [("text \"Grüße, 世界\"", text), ("binary, 100,000 octets", binary)] {
        socket.send(message.clone())?;
        ensure!(socket.read()? == message, "the echo of {what} differs");
        say!("  {what}: echoed");
    }
    socket.send(Message::Ping(b"byway".to_vec().into()))?;
    ensure!(matches!(socket.read()?, Message::Pong(_)), "no pong");
    say!("  ping: pong");
    socket.close(None)?;
    while socket.read().is_ok() {}
    say!("  closed in order");
    Ok(())
}

fn show_connections(control: &Path) -> Result<()> {
    say!("\n$ byway conns");
    conns::run(&conns::Options::of(PathBuf::from(control)))
        .map_err(|failure| anyhow::anyhow!(failure.message))
}

/// Requests one after another on one connection: what a client waits for an answer.
fn show_latency(interrupted: &AtomicBool) -> Result<()> {
    say!("\nGET /hello, {REQUESTS} times, one after another on one connection (veth, copy mode)");
    let mut stream = TcpStream::connect_timeout(&byway(HTTP), PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    // 1 ns to 10 s, two digits.
    let mut histogram = Histogram::<u64>::new_with_bounds(1, 10_000_000_000, 2).context("histogram")?;
    let request = format!("GET /hello HTTP/1.1\r\nHost: {BYWAY_IPV4}\r\n\r\n");
    let mut answer = [0; 1024];
    for _ in 0..REQUESTS {
        if interrupted.load(Ordering::Relaxed) {
            return Ok(());
        }
        let begin = now();
        stream.write_all(request.as_bytes())?;
        let mut got = 0;
        while !answer[..got].ends_with(b"hello\n") {
            match stream.read(&mut answer[got..])? {
                0 => bail!("byway closed the connection"),
                more => got += more,
            }
        }
        histogram.saturating_record(begin.elapsed().as_nanos() as u64);
    }
    let most =
        histogram.iter_log(1_000, 2.0).map(|step| step.count_since_last_iteration()).max().unwrap_or(1);
    let mut from = 0;
    for step in histogram.iter_log(1_000, 2.0) {
        let (to, count) = (step.value_iterated_to(), step.count_since_last_iteration());
        if count > 0 {
            let bar = "█".repeat((count * 40).div_ceil(most) as usize);
            say!("  {:>8} … {:>8} {count:>6} {bar}", micros(from), micros(to));
        }
        from = to;
    }
    let at = |share| micros(histogram.value_at_quantile(share));
    say!(
        "  p50 {}   p90 {}   p99 {}   p99.9 {}   max {}",
        at(0.5),
        at(0.9),
        at(0.99),
        at(0.999),
        micros(histogram.max())
    );
    Ok(())
}

fn micros(nanos: u64) -> String {
    format!("{:.1} µs", nanos as f64 / 1e3)
}

#[expect(clippy::disallowed_methods, reason = "the client's stopwatch; the packet path is the server's")]
fn now() -> Instant {
    Instant::now()
}

/// A folder of its own, gone with its handle. (A kill leaves it to the system's cleaning of /tmp.)
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> std::io::Result<Self> {
        let path = std::env::temp_dir().join(format!("byway-demo-{}", std::process::id()));
        std::fs::create_dir_all(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
