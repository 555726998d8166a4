//! One AF_XDP socket and its four rings.
//!
//! ```text
//!            user space (this core)              │              kernel
//!                                                │
//!   pool.fill() ──refill──→ [ fill ring       ]──┼──→ NIC or softirq writes a frame
//!   Stack ←────rx_burst──── [ RX ring         ]←─┼─── steer.bpf.c: XSKMAP[queue]
//!                                                │
//!   Stack ─────tx_burst───→ [ TX ring         ]──┼──→ sendto (copy mode) or NIC (zero-copy)
//!   pool ←─────reclaim───── [ completion ring ]←─┼─── frame has left
//!                                                │
//!   kick: sendto / recvfrom, only where the rings' need-wakeup flags ask for it
//!   park: ppoll on POLLIN and the waker
//! ```
//!
//! An address in a ring counts octets from the start of the UMEM: frame index times frame size,
//! plus the offset in the frame (received: 256, the kernel's headroom; sent: where the headers begin).

use core::time::Duration;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use byway_tcp::frame::{FramePool, FrameSlice, Memory};
use byway_tcp::time::Instant;
use xsk_rs::config::{BindFlags, Interface, LibxdpFlags, QueueSize, SocketConfig};
use xsk_rs::{CompQueue, FillQueue, FrameDesc, RxQueue, Socket, TxQueue};

use crate::clock::Clock;
use crate::config::{BusyPoll, Config, Rings, ZeroCopy};
use crate::control::Waker;
use crate::error::Error;
use crate::frame::DescLayout;
use crate::port::{BATCH, Held, Port, PortCounters};
use crate::sock_diag;
use crate::sys;
use crate::umem::{Umem, os_error};

/// `XDP_MAX_TX_SKB_BUDGET` (linux/if_xdp.h): frames one `sendto` sends in copy mode, 32 without it.
const XDP_MAX_TX_SKB_BUDGET: i32 = 9;
/// `XDP_OPTIONS` (linux/if_xdp.h): what is in force, and its flag for zero-copy.
const XDP_OPTIONS: i32 = 8;
const XDP_OPTIONS_ZEROCOPY: u32 = 1;
/// `XDP_PKT_CONTD` (linux/if_xdp.h): the packet goes on in the next descriptor.
const XDP_PKT_CONTD: u32 = 1;
const SO_PREFER_BUSY_POLL: i32 = 69;
const SO_BUSY_POLL_BUDGET: i32 = 70;

/// The device and queue stay taken for a moment after their last socket was closed, because the
/// kernel releases them asynchronously (D8). How often and how long we try: that takes milliseconds, on a
/// loaded host tens of them. By the clock, since with other queues' attempts beside it one takes up to 100 ms.
const BUSY_RETRY_EVERY: Duration = Duration::from_millis(10);
const BUSY_RETRY_LIMIT: Duration = Duration::from_secs(2);

/// `sendto`s in a row while the kernel makes progress. Without [`XDP_MAX_TX_SKB_BUDGET`] each sends
/// 32 frames: a batch takes two, and a turn that sends four batches takes eight.
const SENDS_MAX: u32 = 8;

/// Zero-copy drivers reap sent frames when woken; with nothing else to send that can wait for so
/// many turns (some 10 µs of spinning).
const REAP_EVERY: u32 = 64;

/// Frames to receive into, used up, that make a refill worth its atomic store: half a batch, 1/128 of them.
const REFILL_MIN: u32 = BATCH as u32 / 2;

/// What the kernel granted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bound {
    /// Whether the NIC reads and writes our frames itself.
    pub zero_copy: bool,
    /// Why it doesn't, if zero-copy was wished for.
    pub copy_reason: Option<String>,
    /// Whether a packet may arrive in several frames.
    pub scattered: bool,
    /// Whether preferred busy polling is on.
    pub busy_poll: bool,
    /// Why it isn't, if it was wished for.
    pub busy_poll_reason: Option<String>,
    /// Whether one `sendto` may send the whole TX ring in copy mode.
    pub tx_budget: bool,
}

/// An AF_XDP socket bound to one queue of one interface.
#[derive(Debug)]
pub struct Xsk {
    rx: RxQueue,
    tx: TxQueue,
    fill: FillQueue,
    completion: CompQueue,
    layout: DescLayout,
    scratch: [FrameDesc; BATCH],
    /// Taken from the RX ring, of a packet whose last frame hasn't been.
    begun: Vec<FrameSlice>,
    frame_shift: u32,
    frame_count: u32,
    rings: Rings,
    held: Held,
    fd: RawFd,
    bound: Bound,
    /// Kicks since the last one that let the driver reap sent frames.
    unreaped: u32,
    counters: PortCounters,
    refusal: Refusal,
    interface: String,
    ifindex: u32,
    queue: u32,
}

impl Xsk {
    /// Opens a socket over the frames of `umem` and binds it. No frame arrives before the socket
    /// is in the steering program's map; fill the fill ring before that.
    ///
    /// # Safety
    /// The port is given only frames of the `FramePool` over this very `umem`: `refill` and
    /// `reclaim` get that pool, `tx_burst` what its stack's `poll_transmit` returned.
    ///
    /// # Errors
    /// The queue is busy, zero-copy was demanded and isn't there, a privilege is missing …
    pub unsafe fn open(umem: &Umem, config: &Config, interface: &str, queue: u32) -> Result<Self, Error> {
        let (rings, bound) = bind_best(umem, config, interface, queue)?;
        let (tx, rx, Some((fill, completion))) = rings else {
            let source = io::Error::other("its UMEM already has a socket");
            return Err(socket_error(interface, queue, "bind", source));
        };
        let fd = rx.fd().as_raw_fd();
        let mut xsk = Self {
            rx,
            tx,
            fill,
            completion,
            layout: umem.layout(),
            scratch: [FrameDesc::default(); BATCH],
            begun: Vec::with_capacity(BATCH),
            frame_shift: config.frame_size.trailing_zeros(),
            frame_count: config.frame_count,
            rings: config.rings,
            held: Held::default(),
            fd,
            bound,
            unreaped: 0,
            counters: PortCounters::default(),
            refusal: Refusal::default(),
            interface: interface.to_owned(),
            ifindex: sys::interface_index(interface)
                .ok_or_else(|| Error::NoInterface(interface.to_owned()))?,
            queue,
        };
        xsk.check_zero_copy()?;
        xsk.set_options(config);
        Ok(xsk)
    }

    /// That the bind succeeded is no proof: the kernel is asked what is in force.
    fn check_zero_copy(&self) -> Result<(), Error> {
        let options = sys::option(self.fd, libc::SOL_XDP, XDP_OPTIONS)
            .map_err(|error| socket_error(&self.interface, self.queue, "asking for XDP_OPTIONS", error))?;
        if (options & XDP_OPTIONS_ZEROCOPY != 0) == self.bound.zero_copy {
            return Ok(());
        }
        let reason = format!("it was granted by the bind, but the kernel's XDP_OPTIONS are {options:#x}");
        Err(Error::ZeroCopy { interface: self.interface.clone(), queue: self.queue, reason })
    }

    /// What the kernel granted.
    pub fn bound(&self) -> &Bound {
        &self.bound
    }

    /// The socket, for the steering program's map.
    pub fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the socket stays open as long as `self` has its rings.
        unsafe { BorrowedFd::borrow_raw(self.fd) }
    }

    fn set_options(&mut self, config: &Config) {
        let budget = config.rings.tx;
        // Linux before 6.17 answers ENOPROTOOPT: 32 frames a call, and `wake_tx` loops.
        self.bound.tx_budget = sys::set_option(self.fd, libc::SOL_XDP, XDP_MAX_TX_SKB_BUDGET, budget).is_ok();
        // Copy mode charges every frame under way to the socket's send buffer, by default some
        // 90 of them. Room for the whole TX ring (a page and some more each); without privilege
        // the default stays, and the kernel says "try again" more often.
        let room = config.rings.tx * (config.frame_size.max(4096) + 1024);
        let _ = sys::set_option(self.fd, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, room);
        if let Some(busy_poll) = config.busy_poll {
            match self.set_busy_poll(busy_poll) {
                Ok(()) => self.bound.busy_poll = true,
                Err(error) => self.bound.busy_poll_reason = Some(error.to_string()),
            }
        }
    }

    fn set_busy_poll(&self, BusyPoll { usecs, budget }: BusyPoll) -> io::Result<()> {
        sys::set_option(self.fd, libc::SOL_SOCKET, SO_PREFER_BUSY_POLL, 1)?;
        sys::set_option(self.fd, libc::SOL_SOCKET, libc::SO_BUSY_POLL, usecs)?;
        sys::set_option(self.fd, libc::SOL_SOCKET, SO_BUSY_POLL_BUDGET, budget)
    }

    /// Frames in the TX ring that the kernel hasn't looked at.
    #[inline]
    fn unsent(&mut self) -> u32 {
        self.rings.tx - self.tx.nb_free_exact()
    }

    fn wake_tx(&mut self) -> Result<(), Error> {
        let mut unsent = self.unsent();
        if unsent == 0 {
            self.unreaped += 1;
            if !self.bound.zero_copy || self.unreaped < REAP_EVERY {
                return Ok(());
            }
        }
        self.unreaped = 0;
        for _ in 0..SENDS_MAX {
            self.counters.tx_wakeups += 1;
            let Err(error) = sys::send_nothing(self.fd) else {
                self.refusal.end();
                return Ok(());
            };
            match error.raw_os_error() {
                // The batch limit or the send buffer is used up, memory is short, or the qdisc
                // dropped a frame: go on while it gets us further, otherwise next turn.
                Some(libc::EAGAIN | libc::EBUSY | libc::ENOBUFS) => {
                    self.counters.tx_wakeups_again += 1;
                    let left = self.unsent();
                    if left == 0 || left >= unsent {
                        return Ok(());
                    }
                    unsent = left;
                }
                _ => return self.check(error, "sendto"),
            }
        }
        Ok(())
    }

    fn wake_rx(&mut self) -> Result<(), Error> {
        self.counters.rx_wakeups += 1;
        match sys::receive_nothing(self.fd) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => self.check(error, "recvfrom"),
            _ => {
                self.refusal.end();
                Ok(())
            }
        }
    }

    /// Sorts out what a wake-up's failure means.
    fn check(&mut self, error: io::Error, what: &'static str) -> Result<(), Error> {
        match error.raw_os_error() {
            // The socket was unbound because its device was unregistered; or the driver, which sets itself up anew
            // (ixgbe, i40e, mlx5; igb says EINVAL), has no such queue at the moment.
            Some(libc::ENXIO | libc::ENODEV | libc::EINVAL) => {
                let there = sys::interface_exists(self.ifindex);
                match self.refusal.hear(there, Clock.now()) {
                    Refused::ForNow => {
                        self.counters.link_down += 1;
                        Ok(())
                    }
                    Refused::Gone => {
                        Err(Error::DeviceGone { interface: self.interface.clone(), queue: self.queue })
                    }
                    Refused::ForGood => Err(socket_error(&self.interface, self.queue, what, error)),
                }
            }
            // `ip link set down`: frames wait in the rings until it is up again (D5).
            Some(libc::ENETDOWN) => {
                self.counters.link_down += 1;
                Ok(())
            }
            Some(libc::EINTR | libc::EAGAIN | libc::EBUSY | libc::ENOBUFS) => Ok(()),
            _ => Err(socket_error(&self.interface, self.queue, what, error)),
        }
    }
}

impl Port for Xsk {
    #[inline]
    fn rx_burst(&mut self, out: &mut Vec<FrameSlice>) -> usize {
        // SAFETY: the RX ring's frames are of the UMEM this socket was opened over.
        let count = unsafe { self.rx.consume(&mut self.scratch) };
        let mask = (1usize << self.frame_shift) - 1;
        let first = out.len();
        out.append(&mut self.begun);
        out.extend(self.scratch[..count].iter().map(|desc| FrameSlice {
            index: (desc.addr() >> self.frame_shift) as u32,
            offset: (desc.addr() & mask) as u16,
            len: desc.lengths().data() as u16,
            more: desc.has_more_frames(),
        }));
        if out.last().is_some_and(|slice| slice.more) {
            let whole =
                out[first..].iter().rposition(|slice| !slice.more).map_or(first, |last| first + last + 1);
            self.begun.extend(out.drain(whole..));
        }
        self.held.fill -= (out.len() - first) as u32;
        out.len() - first
    }

    fn refill<M: Memory>(&mut self, pool: &mut FramePool<M>) -> usize {
        let full = self.rings.received_into(self.bound.zero_copy);
        let wanted = full - self.held.fill;
        // A full ring needn't be topped up frame by frame.
        if wanted < REFILL_MIN && wanted < full / 2 {
            return 0;
        }
        // The kernel may say a moment after it has handed a frame over that its place is free.
        let room = self.fill.nb_free(wanted);
        let mut quota = wanted.min(room) as usize;
        let mut filled = 0;
        while quota > 0 {
            let mut count = 0;
            while count < quota.min(BATCH) {
                let Some(index) = pool.fill() else { break };
                self.scratch[count] = self.layout.desc((index as usize) << self.frame_shift, 0);
                count += 1;
            }
            if count == 0 {
                break;
            }
            // SAFETY: the pool just marked these frames as the fill ring's; by `open`'s contract
            // they are of this UMEM.
            let produced = unsafe { self.fill.produce(&self.scratch[..count]) };
            assert_eq!(produced, count, "the fill ring had room for {room}");
            filled += count;
            quota -= count;
        }
        self.held.fill += filled as u32;
        filled
    }

    #[inline]
    fn tx_burst(&mut self, frames: &[FrameSlice]) -> usize {
        let room = self.tx.nb_free(frames.len() as u32) as usize;
        // Whole packets: the kernel would wait for the rest of one.
        let count =
            frames[..frames.len().min(room)].iter().rposition(|slice| !slice.more).map_or(0, |last| last + 1);
        let fitting = &frames[..count];
        self.counters.tx_ring_full += u64::from(fitting.len() < frames.len());
        for burst in fitting.chunks(BATCH) {
            for (desc, slice) in self.scratch.iter_mut().zip(burst) {
                let end = usize::from(slice.offset) + usize::from(slice.len);
                assert!(slice.index < self.frame_count && end <= 1 << self.frame_shift, "{slice:?}");
                let addr = ((slice.index as usize) << self.frame_shift) + usize::from(slice.offset);
                *desc = self.layout.desc(addr, usize::from(slice.len));
                desc.set_options(if slice.more { XDP_PKT_CONTD } else { 0 });
            }
            // SAFETY: the stack handed these frames to the kernel (`Owner::TxRing`); by `open`'s
            // contract they are of this UMEM, and they lie inside it (asserted above).
            let produced = unsafe { self.tx.produce(&self.scratch[..burst.len()]) };
            assert_eq!(produced, burst.len(), "the TX ring had room for {room}");
        }
        self.held.tx += fitting.len() as u32;
        fitting.len()
    }

    #[inline]
    fn reclaim<M: Memory>(&mut self, pool: &mut FramePool<M>) -> usize {
        let mut reclaimed = 0;
        loop {
            // SAFETY: the completion ring's frames are of the UMEM this socket was opened over.
            let count = unsafe { self.completion.consume(&mut self.scratch) };
            for desc in &self.scratch[..count] {
                pool.completed((desc.addr() >> self.frame_shift) as u32);
            }
            reclaimed += count;
            self.held.tx -= count as u32;
            // Ends: the kernel completes only what we sent, and we send nothing here.
            if count < BATCH {
                return reclaimed;
            }
        }
    }

    #[inline]
    fn kick(&mut self) -> Result<(), Error> {
        if self.held.tx > 0 && self.tx.needs_wakeup() {
            self.wake_tx()?;
        }
        if self.bound.busy_poll || self.fill.needs_wakeup() {
            self.wake_rx()?;
        }
        Ok(())
    }

    fn park(&mut self, timeout: Duration, waker: &Waker) -> Result<(), Error> {
        use std::os::fd::AsFd as _;
        self.counters.sleeps += 1;
        let mut fds = [sys::PollFd::readable(self.fd()), sys::PollFd::readable(waker.as_fd())];
        sys::poll(&mut fds, timeout)?;
        let [socket, woken] = fds;
        if woken.is_ready() {
            waker.clear();
        }
        // Nothing came, or not only that: ask whether the device is still there, which an idle
        // socket isn't told otherwise.
        if !socket.is_readable_only() { self.wake_rx() } else { Ok(()) }
    }

    fn held(&self) -> Held {
        self.held
    }

    fn rx_ring_size(&self) -> u32 {
        self.rings.rx
    }

    fn counters(&self) -> PortCounters {
        let mut counters = self.counters;
        if let Ok(kernel) = self.rx.fd().xdp_statistics() {
            counters.rx_ring_full = kernel.rx_ring_full();
            counters.fill_ring_empty = kernel.rx_fill_ring_empty_descs();
            counters.rx_dropped = kernel.rx_dropped();
            counters.invalid_descriptors = kernel.rx_invalid_descs() + kernel.tx_invalid_descs();
        }
        counters
    }
}

/// How long a driver may refuse a queue that it once gave: a reset with its link's training (ixgbe: 30 s), and as much
/// again.
const REFUSAL_LIMIT: Duration = Duration::from_secs(60);

/// What a wake-up's refusal means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Refused {
    /// The device is being set up anew; frames wait.
    ForNow,
    /// There is no such device any more.
    Gone,
    /// The device is there, and has refused for [`REFUSAL_LIMIT`].
    ForGood,
}

/// A driver's refusals in a row.
#[derive(Debug, Default)]
struct Refusal {
    since: Option<Instant>,
}

impl Refusal {
    fn hear(&mut self, there: bool, now: Instant) -> Refused {
        let since = *self.since.get_or_insert(now);
        match there {
            false => Refused::Gone,
            true if now.since(since) > REFUSAL_LIMIT.into() => Refused::ForGood,
            true => Refused::ForNow,
        }
    }

    #[inline]
    fn end(&mut self) {
        self.since = None;
    }
}

type Opened = (TxQueue, RxQueue, Option<(FillQueue, CompQueue)>);

/// Binds zero-copy if wished and possible, otherwise in copy mode.
fn bind_best(umem: &Umem, config: &Config, interface: &str, queue: u32) -> Result<(Opened, Bound), Error> {
    let mut bound = Bound {
        zero_copy: false,
        copy_reason: None,
        scattered: false,
        busy_poll: false,
        busy_poll_reason: None,
        tx_budget: false,
    };
    let until = Clock.now() + BUSY_RETRY_LIMIT;
    let bind = |mode| bind_patiently(until, || bind(umem, config, interface, queue, mode));
    if config.zero_copy != ZeroCopy::Off {
        // Asked in vain, the kernel would remember it for this UMEM: only where the driver says that it can.
        let scattered = config.zero_copy_segments > 1;
        let several = if scattered { BindFlags::XDP_USE_SG } else { BindFlags::empty() };
        match bind(BindFlags::XDP_ZEROCOPY | several) {
            Ok(opened) => {
                (bound.zero_copy, bound.scattered) = (true, scattered);
                return Ok((opened, bound));
            }
            Err(error) => {
                // Trouble that copy mode would have, too.
                if matches!(
                    error.raw_os_error(),
                    Some(libc::EBUSY | libc::EPERM | libc::ENODEV | libc::ENETDOWN)
                ) {
                    return Err(explain(error, interface, queue));
                }
                let reason = zero_copy_reason(&error);
                if config.zero_copy == ZeroCopy::On {
                    return Err(Error::ZeroCopy { interface: interface.to_owned(), queue, reason });
                }
                bound.copy_reason = Some(reason);
            }
        }
    }
    let opened = match bind(BindFlags::XDP_COPY | BindFlags::XDP_USE_SG) {
        Ok(opened) => {
            bound.scattered = true;
            Ok(opened)
        }
        // Linux before 6.6 doesn't know the flag.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => bind(BindFlags::XDP_COPY),
        Err(error) => Err(error),
    };
    Ok((opened.map_err(|error| explain(error, interface, queue))?, bound))
}

fn zero_copy_reason(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EOPNOTSUPP) => "the driver doesn't support it (EOPNOTSUPP)".to_owned(),
        Some(libc::EINVAL) => "the driver refuses this queue or set-up (EINVAL)".to_owned(),
        _ => format!("the driver refuses: {error}"),
    }
}

/// Binds, and tries again while the queue is still being released (D8), at the longest `until`.
fn bind_patiently<T>(until: Instant, mut bind: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match bind() {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) && Clock.now() < until => {
                std::thread::sleep(BUSY_RETRY_EVERY);
            }
            result => return result,
        }
    }
}

fn bind(umem: &Umem, config: &Config, interface: &str, queue: u32, mode: BindFlags) -> io::Result<Opened> {
    let checked = "Config::check has passed";
    let name = interface.parse::<Interface>().map_err(io::Error::other)?;
    let socket_config = SocketConfig::builder()
        .rx_queue_size(QueueSize::new(config.rings.rx).expect(checked))
        .tx_queue_size(QueueSize::new(config.rings.tx).expect(checked))
        // The XDP program is byway-bpf's business; libxdp's dispatcher would fight it.
        .libxdp_flags(LibxdpFlags::XSK_LIBXDP_FLAGS_INHIBIT_PROG_LOAD)
        .bind_flags(mode | BindFlags::XDP_USE_NEED_WAKEUP)
        .build();
    // SAFETY: INHIBIT_PROG_LOAD is set, which is what the contract asks for; nor is the UMEM
    // shared, since `Umem` goes to one socket only.
    let opened = unsafe { Socket::new(socket_config, umem.handle(), &name, queue) };
    opened.map_err(|error| os_error(&error))
}

fn explain(error: io::Error, interface: &str, queue: u32) -> Error {
    let owned = || interface.to_owned();
    match error.raw_os_error() {
        Some(libc::EBUSY) => {
            Error::QueueBusy { interface: owned(), queue, holder: sock_diag::holder_of(interface, queue) }
        }
        Some(libc::EPERM) => {
            Error::Permission { what: "binding an AF_XDP socket", capability: "CAP_NET_RAW" }
        }
        Some(libc::ENODEV | libc::ENXIO) => Error::NoInterface(owned()),
        Some(libc::ENETDOWN) => Error::LinkDown(owned()),
        _ => socket_error(interface, queue, "bind", error),
    }
}

fn socket_error(interface: &str, queue: u32, what: &'static str, source: io::Error) -> Error {
    Error::Socket { interface: interface.to_owned(), queue, what, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn bind_errors_are_translated() {
        let said = |errno| explain(io::Error::from_raw_os_error(errno), "eth7", 3);
        assert!(said(libc::EBUSY).to_string().contains("queue 3 of eth7 is in use"));
        assert_eq!(said(libc::EBUSY).kind(), Kind::SystemLacks);
        assert_eq!(said(libc::ENODEV).kind(), Kind::Configuration);
        assert!(said(libc::ENETDOWN).to_string().contains("ip link set eth7 up"));
        assert_eq!(said(libc::EPERM).kind(), Kind::Permission);
        assert!(zero_copy_reason(&io::Error::from_raw_os_error(libc::EOPNOTSUPP)).contains("driver"));
    }

    /// D5: a driver that sets itself up anew refuses its queues for a while, and byway outlives that.
    #[test]
    fn d5_a_refusal_ends_byway_only_when_the_device_is_gone_or_it_lasts() {
        let mut refusal = Refusal::default();
        let at = |secs: u64| Instant::from_nanos(secs * 1_000_000_000);
        assert_eq!(refusal.hear(true, at(100)), Refused::ForNow);
        assert_eq!(refusal.hear(true, at(159)), Refused::ForNow);
        refusal.end();
        assert_eq!(refusal.hear(true, at(170)), Refused::ForNow);
        assert_eq!(refusal.hear(true, at(230)), Refused::ForNow);
        assert_eq!(refusal.hear(true, at(231)), Refused::ForGood);
        assert_eq!(refusal.hear(false, at(171)), Refused::Gone);
        assert_eq!(Refusal::default().hear(false, at(1)), Refused::Gone);
    }

    /// D8: by the clock, however long a try takes; and only for what passes.
    #[test]
    fn a_busy_queue_is_tried_until_it_is_free_or_patience_ends() {
        let busy = || io::Error::from_raw_os_error(libc::EBUSY);
        let mut tries = 0;
        let mut free_at_last = || {
            tries += 1;
            if tries < 5 { Err(busy()) } else { Ok(tries) }
        };
        let soon = Clock.now() + Duration::from_secs(60);
        assert_eq!(bind_patiently(soon, &mut free_at_last).expect("free"), 5);

        let begin = Clock.now();
        let slow = || {
            std::thread::sleep(Duration::from_millis(80));
            Err::<(), _>(busy())
        };
        let limit = Duration::from_millis(200);
        let error = bind_patiently(begin + limit, slow).expect_err("never free");
        assert_eq!(error.raw_os_error(), Some(libc::EBUSY));
        let took = Clock.now().since(begin);
        assert!(took >= limit.into(), "{took:?}");

        let mut tries = 0;
        let refused = || {
            tries += 1;
            Err::<(), _>(io::Error::from_raw_os_error(libc::EOPNOTSUPP))
        };
        bind_patiently(soon, refused).expect_err("for good");
        assert_eq!(tries, 1);
    }
}
