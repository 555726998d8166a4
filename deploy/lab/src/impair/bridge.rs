//! The bridge at work: one thread, a socket for each interface, two lanes.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::{Counts, Directions, Frame, Lane};
use crate::namespace::Namespace;
use crate::socket::{self, PacketSocket, Received};

/// How soon a request to stop is seen. Frames never wait for it.
const STOP_WITHIN: Duration = Duration::from_millis(20);

/// What the bridge did, per direction.
#[derive(Clone, Debug)]
pub struct Report {
    /// The interfaces of the first end.
    pub a: String,
    /// The interface of the second end.
    pub b: String,
    /// From the first to the second.
    pub a_to_b: Counts,
    /// From the second to the first.
    pub b_to_a: Counts,
}

impl Report {
    /// Whether an end hands over frames larger than the MTU, which cannot be bridged: every result is void
    /// then.
    pub fn oversized(&self) -> bool {
        self.a_to_b.oversized + self.b_to_a.oversized > 0
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { a, b, a_to_b, b_to_a } = self;
        write!(f, "{a} -> {b}: {a_to_b}\n{b} -> {a}: {b_to_a}")
    }
}

/// A running bridge. Dropping it stops it.
#[derive(Debug)]
pub struct Impair {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<Report>>>,
}

impl Impair {
    /// Bridges two interfaces of a namespace, on a thread of its own. When this returns, frames pass.
    pub fn start(namespace: &Namespace, a: &str, b: &str, options: impl Into<Directions>) -> Result<Self> {
        Self::start_shared(namespace, &[a], b, options)
    }

    /// As [`start`](Self::start), with any number of interfaces at the first end. They share the line, and hear
    /// nothing of each other.
    pub fn start_shared(
        namespace: &Namespace,
        a: &[&str],
        b: &str,
        options: impl Into<Directions>,
    ) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let (ready, is_ready) = mpsc::channel();
        let thread = thread::Builder::new().name("impair".into()).spawn({
            let (namespace, stop) = (namespace.clone(), Arc::clone(&stop));
            let a: Vec<String> = a.iter().map(|&name| name.to_owned()).collect();
            let (b, options) = (b.to_owned(), options.into());
            move || {
                namespace.join().context("cannot enter the namespace")?;
                socket::go_first();
                Self::run(&a, &b, options, || ready.send(()).expect("start waits for it"), &stop)
            }
        })?;
        let impair = Self { stop, thread: Some(thread) };
        if is_ready.recv().is_err() {
            impair.stop()?;
            anyhow::bail!("the bridge ended before it was ready");
        }
        Ok(impair)
    }

    /// Stops it: what it did.
    pub fn stop(mut self) -> Result<Report> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("it runs until it is stopped")?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Bridges interfaces of the caller's namespace on the calling thread until `stop` is set. `ready` is
    /// called once frames pass.
    pub fn run(
        a: &[String],
        b: &str,
        options: impl Into<Directions>,
        ready: impl FnOnce(),
        stop: &AtomicBool,
    ) -> Result<Report> {
        let Directions { a_to_b, b_to_a } = options.into();
        let mut near = End::open(a.iter().map(String::as_str))?;
        let mut far = End::open([b])?;
        let mut lanes = [Lane::new(&a_to_b, 0), Lane::new(&b_to_a, 1)];
        let started = now();
        ready();
        while !stop.load(Ordering::Relaxed) {
            let elapsed = now() - started;
            let next = lanes.iter().filter_map(Lane::next).min();
            let timeout = next.map_or(STOP_WITHIN, |next| next.saturating_sub(elapsed).min(STOP_WITHIN));
            socket::wait(near.ports.iter().chain(&far.ports), timeout).context("poll")?;

            near.pass(&mut lanes[0], &far, now() - started);
            far.pass(&mut lanes[1], &near, now() - started);
        }
        lanes[0].counts.missed = near.missed();
        lanes[1].counts.missed = far.missed();
        let [a_to_b, b_to_a] = lanes.map(|lane| lane.counts);
        Ok(Report { a: a.join("+"), b: b.to_owned(), a_to_b, b_to_a })
    }
}

/// The interfaces at one end of the bridge.
struct End {
    ports: Vec<PacketSocket>,
    names: Vec<String>,
    /// Behind which of several interfaces a station is: from whom something has come.
    stations: HashMap<[u8; 6], usize>,
}

impl End {
    fn open<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Self> {
        let names: Vec<String> = names.into_iter().map(str::to_owned).collect();
        let ports = names.iter().map(|name| PacketSocket::open(name, false)).collect::<Result<_>>()?;
        Ok(Self { ports, names, stations: HashMap::new() })
    }

    /// Takes what has come in here into the lane, and sends what is due at its other end.
    fn pass(&mut self, lane: &mut Lane, to: &Self, elapsed: Duration) {
        let frame_max = to.ports.iter().map(|port| port.frame_max).min().unwrap_or(0);
        let several = self.ports.len() > 1;
        for (at, (port, name)) in self.ports.iter_mut().zip(&self.names).enumerate() {
            // An interface that goes down or away says so here; nothing passes then, until it is back.
            let _ = port.receive(|received| match received {
                Received::Frame(frame) if frame.len() <= frame_max => {
                    if several && let Some(source) = station(&frame, 6) {
                        self.stations.insert(source, at);
                    }
                    lane.accept(frame, elapsed);
                }
                Received::Frame(frame) => oversized(lane, name, frame.len()),
                Received::Oversized(length) => oversized(lane, name, length),
            });
        }
        let mut out = Vec::new();
        lane.release(elapsed, &mut out);
        to.send(out, &mut lane.counts);
    }

    /// Sends each frame to the interface behind which its receiver is, or to all if that isn't known.
    fn send(&self, mut frames: Vec<Frame>, counts: &mut Counts) {
        let mut send = |port: &PacketSocket, frames: &mut [Frame]| {
            for batch in frames.chunks_mut(socket::BATCH) {
                let sent = port.send(batch);
                counts.sent += sent as u64;
                counts.refused += (batch.len() - sent) as u64;
            }
        };
        if let [only] = &self.ports[..] {
            return send(only, &mut frames);
        }
        for (at, port) in self.ports.iter().enumerate() {
            let is_for = |frame: &Frame| {
                let known = station(frame, 0).and_then(|to| self.stations.get(&to));
                known.is_none_or(|behind| *behind == at)
            };
            let mut own: Vec<Frame> = frames.iter().filter(|frame| is_for(frame)).cloned().collect();
            send(port, &mut own);
        }
    }

    fn missed(&self) -> u64 {
        self.ports.iter().map(PacketSocket::missed).sum()
    }
}

/// The Ethernet address at an offset of a frame.
fn station(frame: &[u8], at: usize) -> Option<[u8; 6]> {
    frame.get(at..)?.first_chunk().copied()
}

impl Drop for Impair {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A test that does not ask for the report does not ask for the error either.
            let _ = thread.join();
        }
    }
}

fn oversized(lane: &mut Lane, interface: &str, length: usize) {
    if lane.counts.oversized == 0 {
        eprintln!(
            "impair: {interface} hands over a frame of {length} octets, more than the MTU: it is lost. \
             Switch offload off at the sending end: `ethtool -K IF tx off tso off gso off gro off`"
        );
    }
    lane.counts.oversized += 1;
}

/// The bridge's clock. It stands outside the stack, for which time is an argument.
#[expect(clippy::disallowed_methods, reason = "the lab is the network, not the stack")]
fn now() -> Instant {
    Instant::now()
}
