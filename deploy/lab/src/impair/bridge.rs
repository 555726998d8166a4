//! The bridge at work: one thread, two sockets, two lanes.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::{Counts, ImpairOptions, Lane};
use crate::namespace::Namespace;
use crate::socket::{self, PacketSocket, Received};

/// How soon a request to stop is seen. Frames never wait for it.
const STOP_WITHIN: Duration = Duration::from_millis(20);

/// What the bridge did, per direction.
#[derive(Clone, Debug)]
pub struct Report {
    /// The first interface.
    pub a: String,
    /// The second interface.
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
    pub fn start(namespace: &Namespace, a: &str, b: &str, options: ImpairOptions) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let (ready, is_ready) = mpsc::channel();
        let thread = thread::Builder::new().name("impair".into()).spawn({
            let (namespace, stop) = (namespace.clone(), Arc::clone(&stop));
            let (a, b) = (a.to_owned(), b.to_owned());
            move || {
                namespace.join().context("cannot enter the namespace")?;
                Self::run(&a, &b, &options, || ready.send(()).expect("start waits for it"), &stop)
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

    /// Bridges two interfaces of the caller's namespace on the calling thread until `stop` is set. `ready` is
    /// called once frames pass.
    pub fn run(
        a: &str,
        b: &str,
        options: &ImpairOptions,
        ready: impl FnOnce(),
        stop: &AtomicBool,
    ) -> Result<Report> {
        let mut sockets = [PacketSocket::open(a, false)?, PacketSocket::open(b, false)?];
        let mut lanes = [Lane::new(options, 0), Lane::new(options, 1)];
        let mut out = Vec::new();
        let started = now();
        ready();
        while !stop.load(Ordering::Relaxed) {
            let elapsed = now() - started;
            let next = lanes.iter().filter_map(Lane::next).min();
            let timeout = next.map_or(STOP_WITHIN, |next| next.saturating_sub(elapsed).min(STOP_WITHIN));
            socket::wait([&sockets[0], &sockets[1]], timeout).context("poll")?;

            for (from, lane) in lanes.iter_mut().enumerate() {
                let elapsed = now() - started;
                let frame_max = sockets[1 - from].frame_max;
                // An interface that goes down or away says so here; nothing passes then, until it is back.
                let _ = sockets[from].receive(|received| match received {
                    Received::Frame(frame) if frame.len() <= frame_max => lane.accept(frame, elapsed),
                    Received::Frame(frame) => oversized(lane, if from == 0 { a } else { b }, frame.len()),
                    Received::Oversized(length) => oversized(lane, if from == 0 { a } else { b }, length),
                });
                lane.release(elapsed, &mut out);
                for batch in out.chunks_mut(socket::BATCH) {
                    let sent = sockets[1 - from].send(batch);
                    lane.counts.sent += sent as u64;
                    lane.counts.refused += (batch.len() - sent) as u64;
                }
                out.clear();
            }
        }
        let [a_to_b, b_to_a] = lanes.map(|lane| lane.counts);
        Ok(Report { a: a.to_owned(), b: b.to_owned(), a_to_b, b_to_a })
    }
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
