//! The limit: AF_XDP sockets with nothing behind them.
//!
//! ```text
//!   client's core                              server's core
//!   ┌ blaster ───────────────────┐             ┌ reflector ──────────────────┐
//!   │ sends a window of frames,  │ ── veth ──▶ │ swaps MAC addresses, IP     │
//!   │ then each one that is back │ ◀────────── │ addresses and ports; sends  │
//!   └────────────────────────────┘             └─────────────────────────────┘
//! ```
//!
//! Both ends do the same with a frame, in byway's own port and frame pool, behind byway's own XDP program: what a round
//! trip costs here, byway can't save; what it takes more is the stack's and the application's.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use byway_bpf::{AttachMode, Steering};
use byway_datapath::clock::Clock;
use byway_datapath::config::{Config, ZeroCopy};
use byway_datapath::link::Link;
use byway_datapath::port::Port as _;
use byway_datapath::umem::Umem;
use byway_datapath::xsk::Xsk;
use byway_tcp::frame::{FramePool, FrameSlice, MAX_HEADERS, Owner};
use byway_tcp::time::Instant;
use byway_tcp::wire::MacAddr;
use hdrhistogram::Histogram;

use crate::bed::{BYPASS, Bed, CLIENT, CLIENT_INTERFACE, End, SERVER_INTERFACE};

/// Round trips before those that count.
const WARM_UP: Duration = Duration::from_millis(200);
/// How long what is under way at the end may take to come back.
const SETTLE: Duration = Duration::from_millis(50);
/// Longest round trip that is told from a longer one.
const LATENCY_MAX_NS: u64 = 1_000_000_000;

/// What the sockets alone did.
#[derive(Debug)]
pub(crate) struct Limit {
    /// Round trips a second.
    pub(crate) rate: f64,
    /// From one frame's return to the next's, in ns: with one frame under way a round trip's time.
    pub(crate) p50_ns: u64,
}

/// Sends frames of `octets` round, `window` of them at once.
pub(crate) fn measure(bed: &Bed, octets: usize, window: usize, time: Duration) -> Result<Limit> {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let (ready, reflects) = mpsc::channel();
        let reflector = scope.spawn(|| reflect(&bed.server, ready, &stop));
        // If it fails, the reason is the reflector's to say.
        let blasted = reflects.recv().map(|mac| {
            let blaster = scope.spawn(move || blast(&bed.client, mac, octets, window, time));
            blaster.join().map_err(|_| anyhow!("the blaster panicked"))?
        });
        stop.store(true, Ordering::Relaxed);
        reflector.join().map_err(|_| anyhow!("the reflector panicked"))??;
        blasted?
    })
}

/// Takes the sender by value: dropped with a failure, it says so.
fn reflect(end: &End, ready: mpsc::Sender<MacAddr>, stop: &AtomicBool) -> Result<()> {
    end.join()?;
    let mut bare = Bare::open(SERVER_INTERFACE, BYPASS)?;
    ready.send(bare.mac)?;
    while !stop.load(Ordering::Relaxed) {
        bare.turn()?;
    }
    Ok(())
}

fn blast(end: &End, to: MacAddr, octets: usize, window: usize, time: Duration) -> Result<Limit> {
    end.join()?;
    let mut bare = Bare::open(CLIENT_INTERFACE, CLIENT)?;
    let frame = frame(octets, bare.mac, to);
    for _ in 0..window {
        bare.inject(&frame)?;
    }
    let mut latency = Histogram::<u64>::new_with_max(LATENCY_MAX_NS, 3)?;
    bare.bounce_until(Clock.now() + WARM_UP, &mut latency)?;
    latency.reset();
    let start = Clock.now();
    let count = bare.bounce_until(start + time, &mut latency)?;
    let took = Clock.now().since(start);
    let back = bare.collect_until(Clock.now() + SETTLE)?;
    ensure!(back == window, "{} of {window} frames got lost on the way", window - back);
    Ok(Limit { rate: count as f64 / took.as_secs_f64(), p50_ns: latency.value_at_quantile(0.5) })
}

/// A TCP segment in the eyes of the XDP program; nobody else looks at it.
fn frame(octets: usize, from: MacAddr, to: MacAddr) -> Vec<u8> {
    let mut frame = vec![0; octets];
    frame[0..6].copy_from_slice(&to.0);
    frame[6..12].copy_from_slice(&from.0);
    frame[12..14].copy_from_slice(&[0x08, 0x00]);
    frame[14] = 0x45;
    frame[16..18].copy_from_slice(&(octets as u16 - 14).to_be_bytes());
    frame[22] = 64;
    frame[23] = 6;
    frame[26..30].copy_from_slice(&CLIENT.octets());
    frame[30..34].copy_from_slice(&BYPASS.octets());
    frame[34..38].copy_from_slice(&[0x27, 0x10, 0, 7]);
    frame[46] = 5 << 4;
    frame
}

/// Sends a frame back where it came from. No checksum changes by that.
fn turn_round(frame: &mut [u8]) {
    for (one, other, len) in [(0, 6, 6), (26, 30, 4), (34, 36, 2)] {
        let (head, tail) = frame.split_at_mut(other);
        head[one..one + len].swap_with_slice(&mut tail[..len]);
    }
}

/// A socket, its frames, and the program that steers to it.
struct Bare {
    // First, so that it is off the interface before the socket is closed.
    _steering: Steering,
    port: Xsk,
    pool: FramePool<Umem>,
    rx: Vec<FrameSlice>,
    tx: Vec<FrameSlice>,
    mac: MacAddr,
}

impl Bare {
    fn open(interface: &str, own: Ipv4Addr) -> Result<Self> {
        let config = Config { frame_count: 32_768, zero_copy: ZeroCopy::Off, ..Config::default() };
        // SAFETY: it goes into one pool, which alone uses it.
        let umem = unsafe { Umem::new(&config) }?;
        // SAFETY: the port gets the frames of the pool over this UMEM only.
        let mut port = unsafe { Xsk::open(&umem, &config, interface, 0) }?;
        let mut pool = FramePool::new(umem);
        port.refill(&mut pool);
        let link = Link::query(interface)?;
        let mut steering = Steering::load()?;
        steering.add_address(own.into())?;
        steering.register_socket(0, port.fd())?;
        steering.attach(link.index as i32, AttachMode::Native)?;
        Ok(Self { _steering: steering, port, pool, rx: Vec::new(), tx: Vec::new(), mac: link.mac })
    }

    /// Sends a new frame with the next turn.
    fn inject(&mut self, octets: &[u8]) -> Result<()> {
        let mut chunk = self.pool.alloc(Owner::Control).context("no frame is free")?;
        self.pool.append(&mut chunk, octets);
        let offset = (chunk.headroom() + MAX_HEADERS) as u16;
        self.tx.push(FrameSlice { index: chunk.index(), offset, len: chunk.len() as u16, more: false });
        self.pool.hand_to(&chunk, Owner::TxRing);
        self.pool.release(chunk);
        Ok(())
    }

    /// Sends back what has come: how many frames.
    fn turn(&mut self) -> Result<usize> {
        self.port.reclaim(&mut self.pool);
        self.port.refill(&mut self.pool);
        self.rx.clear();
        let received = self.port.rx_burst(&mut self.rx);
        for slice in self.rx.drain(..) {
            let mut chunk = self.pool.received(slice);
            turn_round(self.pool.bytes_mut(&mut chunk));
            self.pool.hand_to(&chunk, Owner::TxRing);
            // The ring's until it has left, then free.
            self.pool.release(chunk);
            self.tx.push(slice);
        }
        let sent = self.port.tx_burst(&self.tx);
        self.tx.drain(..sent);
        self.port.kick()?;
        Ok(received)
    }

    /// Turns, noting the times from frame to frame: how many came.
    fn bounce_until(&mut self, end: Instant, latency: &mut Histogram<u64>) -> Result<u64> {
        let (mut count, mut last) = (0, Clock.now());
        loop {
            let received = self.turn()?;
            let now = Clock.now();
            if received > 0 {
                latency.saturating_record(now.since(last).as_nanos());
                last = now;
                count += received as u64;
            }
            if now >= end {
                return Ok(count);
            }
        }
    }

    /// Takes what comes, and sends nothing any more: how many frames.
    fn collect_until(&mut self, end: Instant) -> Result<usize> {
        let mut count = 0;
        while Clock.now() < end {
            self.rx.clear();
            count += self.port.rx_burst(&mut self.rx);
            for slice in self.rx.drain(..) {
                let chunk = self.pool.received(slice);
                self.pool.release(chunk);
            }
            self.port.kick()?;
        }
        Ok(count)
    }
}
