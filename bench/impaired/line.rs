//! The line, the hosts at its ends, and what one run over it gives.

use std::fmt;
use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use byway_lab::{
    BYWAY_INTERFACE, BYWAY_IPV4, Directions, Impair, ImpairOptions, KERNEL_IPV4, Namespace, Report, VethEnd,
    VethOptions, veth_pair,
};

use crate::Scenario;

/// The kernel that sends.
const SENDER_IPV4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 3);
/// Sends without end to whoever connects (RFC 864).
const CHARGEN: u16 = 19;
const RATE_BITS: u64 = 100_000_000;
const ONE_WAY: Duration = Duration::from_millis(20);
/// 100 Mbit/s for 40 ms.
const QUEUE_OCTETS: usize = 500_000;
/// A queue that marks keeps half of a Reno flow's window out of the queue if it marks at a quarter of it.
const MARK_OCTETS: usize = QUEUE_OCTETS / 4;
/// No step takes nearly as long on a working host.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Sender {
    Byway,
    Kernel,
}

impl Sender {
    fn address(self) -> SocketAddr {
        let ip = if self == Self::Byway { BYWAY_IPV4 } else { SENDER_IPV4 };
        SocketAddr::new(IpAddr::V4(ip), CHARGEN)
    }
}

impl fmt::Display for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Self::Byway { "byway" } else { "kernel" })
    }
}

/// What one flow did alone.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    octets: u64,
    took: Duration,
    retransmitted: u64,
    report: Report,
    lab_lost: u64,
}

impl Outcome {
    /// Octets that reached the application, the handshake's time included.
    pub(crate) fn mbits(&self) -> f64 {
        self.octets as f64 * 8e-6 / self.took.as_secs_f64()
    }

    /// The share of retransmissions in what the sender put on the line.
    pub(crate) fn resent(&self) -> f64 {
        self.retransmitted as f64 / self.report.a_to_b.received.max(1) as f64
    }

    /// The share of retransmissions of what had not been lost.
    pub(crate) fn resent_needlessly(&self) -> f64 {
        let way = self.report.a_to_b;
        let needless = self.retransmitted.saturating_sub(way.lost + way.overflowed);
        needless as f64 / way.received.max(1) as f64
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { retransmitted, lab_lost, report, .. } = self;
        let mbits = self.mbits();
        write!(
            f,
            "{mbits:.1} Mbit/s, {retransmitted} retransmitted, the lab itself lost {lab_lost}; {}",
            report.a_to_b
        )
    }
}

/// What each of two flows at once had, in Mbit/s.
#[derive(Clone, Debug)]
pub(crate) struct Shares(pub(crate) [f64; 2]);

impl fmt::Display for Shares {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} and {:.1} Mbit/s", self.0[0], self.0[1])
    }
}

/// The namespaces and what joins them.
#[derive(Debug)]
pub(crate) struct Line {
    byway: Namespace,
    sender: Namespace,
    wire: Namespace,
    receiver: Namespace,
}

impl Line {
    pub(crate) fn new() -> Result<Self> {
        let [byway, sender, wire, receiver] =
            [Namespace::new()?, Namespace::new()?, Namespace::new()?, Namespace::new()?];
        let pair = |namespace, name, far| {
            let ends = [VethEnd { namespace, name }, VethEnd { namespace: &wire, name: far }];
            veth_pair(ends[0], ends[1], VethOptions::default())
        };
        pair(&byway, BYWAY_INTERFACE, "near0")?;
        pair(&sender, "peer0", "near1")?;
        pair(&receiver, "peer0", "far")?;
        sender.run(&format!("ip addr add {SENDER_IPV4}/24 dev peer0"))?;
        receiver.run(&format!("ip addr add {KERNEL_IPV4}/24 dev peer0"))?;
        // A run shall not begin with what the one before it has learned of the path.
        sender.run("sysctl -q net.ipv4.tcp_no_metrics_save=1")?;
        // What both ask for and grant; only a line that marks makes a difference.
        for namespace in [&sender, &receiver] {
            namespace.run("sysctl -q net.ipv4.tcp_ecn=1")?;
        }
        eprintln!("the line is in {}: nsenter --net=… tcpdump -i near0", wire.path());
        Ok(Self { byway, sender, wire, receiver })
    }

    /// Starts `byway serve`.
    pub(crate) fn serve(&self, congestion: &str) -> Result<Byway> {
        Byway::start(&self.byway, congestion)
    }

    /// One flow for so many seconds.
    pub(crate) fn measure(
        &self,
        byway: &Byway,
        congestion: &str,
        scenario: Scenario,
        round: u64,
        sender: Sender,
        seconds: u64,
    ) -> Result<Outcome> {
        let data = ImpairOptions {
            loss: scenario.loss,
            reorder: scenario.reorder,
            mark_octets: scenario.ecn.then_some(MARK_OCTETS),
            ..bottleneck(round)
        };
        let (retransmitted, dropped, impair, (octets, took)) =
            self.while_kernel_serves(congestion, || {
                // Hosts find each other's Ethernet address over this line, too, and keep it.
                let clean = self.impair(bottleneck(round))?;
                self.receive(sender, Duration::ZERO, ONE_WAY)?;
                settle();
                clean.stop()?;
                let impair = self.impair(data)?;
                let (retransmitted, dropped) = (self.retransmitted(byway, sender)?, dropped_by_host()?);
                let received = self.receive(sender, Duration::ZERO, Duration::from_secs(seconds))?;
                Ok((retransmitted, dropped, impair, received))
            })?;
        settle();
        let retransmitted = self.retransmitted(byway, sender)? - retransmitted;
        let report = impair.stop()?;
        let lost = [report.a_to_b, report.b_to_a].map(|way| way.missed + way.refused + way.oversized);
        let lab_lost = dropped_by_host()? - dropped + lost[0] + lost[1];
        Ok(Outcome { octets, took, retransmitted, report, lab_lost })
    }

    /// Two flows at once, of which the first quarter of the time doesn't count.
    pub(crate) fn share(
        &self,
        byway: &Byway,
        congestion: &str,
        round: u64,
        pair: [Sender; 2],
        total: Duration,
    ) -> Result<Shares> {
        ensure!(byway.congestion == congestion, "byway uses {}", byway.congestion);
        let impair = self.impair(bottleneck(round))?;
        let received = self.while_kernel_serves(congestion, || {
            thread::scope(|scope| {
                let flows = pair.map(|sender| scope.spawn(move || self.receive(sender, total / 4, total)));
                let [one, other] = flows.map(|flow| flow.join().expect("nothing in it panics"));
                Ok([one?, other?])
            })
        })?;
        impair.stop()?;
        Ok(Shares(received.map(|(octets, took)| octets as f64 * 8e-6 / took.as_secs_f64())))
    }

    fn impair(&self, data: ImpairOptions) -> Result<Impair> {
        let back = bottleneck(data.seed);
        let directions = Directions { a_to_b: data, b_to_a: back };
        Impair::start_shared(&self.wire, &["near0", "near1"], "far", directions)
    }

    /// Reads for so long: the octets after `skip`, and the time they took.
    fn receive(&self, sender: Sender, skip: Duration, total: Duration) -> Result<(u64, Duration)> {
        self.receiver.enter(|| {
            let began = now();
            let mut stream = TcpStream::connect_timeout(&sender.address(), PATIENCE)
                .with_context(|| format!("connecting to {sender}"))?;
            stream.set_read_timeout(Some(Duration::from_millis(100)))?;
            // What is still on its way at the end is of no interest.
            set_linger_zero(&stream)?;
            let mut buffer = vec![0; 1 << 18];
            let (mut octets, mut from) = (0, began);
            while now() - began < total {
                match stream.read(&mut buffer) {
                    Ok(0) => anyhow::bail!("{sender} has ended the connection"),
                    Ok(read) => octets += read as u64,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error).context("reading"),
                }
                if from == began && now() - began >= skip && !skip.is_zero() {
                    (octets, from) = (0, now());
                }
            }
            Ok((octets, now() - from))
        })
    }

    /// The kernel's character generator, while `body` runs.
    fn while_kernel_serves<T>(&self, congestion: &str, body: impl FnOnce() -> Result<T>) -> Result<T> {
        let listener = self.sender.enter(|| TcpListener::bind(Sender::Kernel.address()))?;
        set_congestion(&listener, congestion)?;
        listener.set_nonblocking(true)?;
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    if let Ok((stream, _)) = listener.accept() {
                        scope.spawn(move || write_without_end(&stream));
                    }
                    thread::sleep(Duration::from_millis(1));
                }
            });
            let result = body();
            stop.store(true, Ordering::Relaxed);
            result
        })
    }

    fn retransmitted(&self, byway: &Byway, sender: Sender) -> Result<u64> {
        match sender {
            Sender::Byway => byway.counter("TcpRetransSegs"),
            Sender::Kernel => {
                let text = self.sender.run("cat /proc/net/snmp")?;
                let mut lines = text.lines().filter(|line| line.starts_with("Tcp:"));
                let (names, values) = (lines.next().context("no names")?, lines.next().context("no values")?);
                let mut both = names.split(' ').zip(values.split(' '));
                let (_, value) = both.find(|(name, _)| *name == "RetransSegs").context("no RetransSegs")?;
                Ok(value.parse()?)
            }
        }
    }
}

/// Waits for the reset on its way, and for what is on the line behind it.
fn settle() {
    thread::sleep(4 * ONE_WAY);
}

/// Both ways alike.
fn bottleneck(seed: u64) -> ImpairOptions {
    ImpairOptions {
        seed,
        delay: ONE_WAY,
        rate_bits: Some(RATE_BITS),
        queue_packets: usize::MAX,
        queue_octets: Some(QUEUE_OCTETS),
        ..ImpairOptions::default()
    }
}

/// Frames that the kernel dropped between two interfaces because a core was too slow, on the whole host.
fn dropped_by_host() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/net/softnet_stat")?;
    let dropped = text.lines().filter_map(|line| line.split(' ').nth(1));
    Ok(dropped.filter_map(|field| u64::from_str_radix(field, 16).ok()).sum())
}

/// Until the peer has had enough.
fn write_without_end(mut stream: &TcpStream) {
    let buffer = vec![b'b'; 1 << 16];
    let blocking = stream.set_nonblocking(false);
    while blocking.is_ok() && stream.write_all(&buffer).is_ok() {}
}

fn set_congestion(listener: &TcpListener, name: &str) -> Result<()> {
    // SAFETY: the pointer is to as many octets as said, which outlive the call. What is accepted inherits it.
    let rc = unsafe {
        libc::setsockopt(
            listener.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_CONGESTION,
            name.as_ptr().cast(),
            name.len() as libc::socklen_t,
        )
    };
    let error = std::io::Error::last_os_error();
    ensure!(rc == 0, "this kernel has no congestion control '{name}': {error}");
    Ok(())
}

fn set_linger_zero(stream: &TcpStream) -> Result<()> {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    // SAFETY: the pointer is to a linger, which outlives the call, of the length given.
    let rc = unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const linger).cast(),
            size_of::<libc::linger>() as libc::socklen_t,
        )
    };
    ensure!(rc == 0, "SO_LINGER: {}", std::io::Error::last_os_error());
    Ok(())
}

/// A running `byway serve`, killed with its handle.
#[derive(Debug)]
pub(crate) struct Byway {
    child: Child,
    control: PathBuf,
    namespace: Namespace,
    congestion: String,
}

impl Byway {
    fn start(namespace: &Namespace, congestion: &str) -> Result<Self> {
        let control = std::env::temp_dir().join(format!("byway-bench-{}.sock", std::process::id()));
        let mut command = Command::new(env!("CARGO_BIN_EXE_byway"));
        command.args(["serve", "--interface", BYWAY_INTERFACE, "--congestion", congestion]);
        command.args(["--address", &format!("{BYWAY_IPV4}/24"), "--chargen-port", &CHARGEN.to_string()]);
        command.arg("--control").arg(&control).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = namespace.spawn(&mut command)?;
        let mut ready = String::new();
        BufReader::new(child.stdout.take().context("piped")?).read_line(&mut ready)?;
        let byway = Self { child, control, namespace: namespace.clone(), congestion: congestion.to_owned() };
        ensure!(ready.starts_with("byway ready"), "byway serve isn't ready: {ready:?}");
        Ok(byway)
    }

    fn counter(&self, name: &str) -> Result<u64> {
        let program = env!("CARGO_BIN_EXE_byway");
        let text =
            self.namespace.run(&format!("{program} stats --json --control {}", self.control.display()))?;
        let stats: serde_json::Value = serde_json::from_str(&text)?;
        stats["counters"][name].as_u64().with_context(|| format!("byway has no counter {name}"))
    }
}

impl Drop for Byway {
    fn drop(&mut self) {
        // Nothing of a byway that is killed stays, but its socket.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.control);
    }
}

#[expect(clippy::disallowed_methods, reason = "what a bench is for; nothing on the packet path sees it")]
fn now() -> Instant {
    Instant::now()
}
