//! Between the control side and the cores: questions, orders, news; never frames.
//!
//! ```text
//!   control thread ──Command (bounded)──→ Mailbox ─ core 0      a core answers between two turns
//!        ↑  │                                                    and never waits for the control side
//!        │  └──────Command──────────────→ Mailbox ─ core 1
//!        └─────────Event (bounded)──────────┘
//! ```

use core::time::Duration;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::Arc;

use byway_tcp::counters::Totals;
use byway_tcp::frame::Owner;
use byway_tcp::stack::{ConnInfo, News};
use crossbeam::channel::{Receiver, Sender, TryRecvError};

use crate::capture::Tap;
use crate::core_loop::LoopCounters;
use crate::error::Error;
use crate::kernel::SocketCounters;
use crate::port::{Held, PortCounters};

/// Commands that may wait for a core. The control side sends one at a time; a few more allow for
/// what the other cores say.
pub(crate) const COMMANDS_MAX: usize = 64;

/// Events that may wait for the control side.
pub(crate) const EVENTS_MAX: usize = 1024;

/// As many of them may be for other cores; past that a core drops those: neighbours are asked for again, and what
/// routers say is said again. The rest of the room is for the two events a core has that must arrive: drained and failed.
const NEWS_MAX: usize = EVENTS_MAX / 2;

/// Slots of the connection table that one [`Command::Connections`] looks at, at most. Among many connections each is
/// some cache misses away, 200 ns: 50 µs of a core's turn.
pub const PAGE_MAX: u32 = 256;

/// Something for an application that only it and who sends it know: [`App::told`](byway_tcp::app::App::told).
pub type Message = Arc<dyn core::any::Any + Send + Sync>;

/// An order or a question to a core.
#[derive(Debug)]
pub enum Command {
    /// Start serving: the steering is in place.
    Go,
    /// What do your counters say?
    Snapshot(Sender<Snapshot>),
    /// Which connections are there, from slot `from` on?
    Connections {
        /// First slot.
        from: u32,
        /// Where they are put: room for [`PAGE_MAX`], so that the core allocates nothing.
        page: Page,
        /// Where the answer goes.
        reply: Sender<Page>,
    },
    /// What the other cores have counted and hold.
    LearnTotals(Box<Totals>),
    /// What another core says.
    Hear(Vec<News>),
    /// What the program tells its applications.
    TellApp(Message),
    /// Accept no more connections; reset those still open after `limit`, then report
    /// [`Event::Drained`].
    Drain {
        /// How long connections may take to finish.
        limit: Duration,
    },
    /// Show your frames to this tap, too.
    Tap(Tap),
    /// No longer; it comes back to be freed.
    Untap {
        /// Which.
        id: u64,
        /// Where it goes.
        reply: Sender<Option<Tap>>,
    },
    /// End the loop and close the socket.
    Stop,
}

/// News from a core.
#[derive(Debug)]
pub enum Event {
    /// `core` has this for the others.
    News {
        /// Which core.
        core: usize,
        /// What it says.
        news: Vec<News>,
    },
    /// `core` has no connection left; it still owns its socket.
    Drained {
        /// Which core.
        core: usize,
        /// Connections that had to be reset.
        reset: u32,
    },
    /// The loop of `core` ended by itself.
    Failed {
        /// Which core.
        core: usize,
        /// Why.
        error: Error,
    },
}

/// A page of connections.
#[derive(Debug, Default)]
pub struct Page {
    /// The connections.
    pub connections: Vec<ConnInfo>,
    /// Slot to go on with; `None` at the end.
    pub next: Option<u32>,
    /// How long the core was busy with it, if it has other things to do: its turn before had work.
    pub cost: Option<Duration>,
}

/// Frames by owner, and what the port says it holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Ledger {
    /// All frames.
    pub total: u32,
    /// In the free list.
    pub free: u32,
    /// The kernel's, to receive into.
    pub fill: u32,
    /// Received, held by the stack.
    pub rx: u32,
    /// Held by the application.
    pub app: u32,
    /// In send queues.
    pub send_queue: u32,
    /// Being built.
    pub control: u32,
    /// The kernel's, to send.
    pub tx: u32,
    /// The port's own count of `fill` and `tx`.
    pub port: Held,
}

impl Ledger {
    pub(crate) fn new<M: byway_tcp::frame::Memory>(
        pool: &byway_tcp::frame::FramePool<M>,
        port: Held,
    ) -> Self {
        Self {
            total: pool.total(),
            free: pool.count(Owner::Free),
            fill: pool.count(Owner::Fill),
            rx: pool.count(Owner::Rx),
            app: pool.count(Owner::App),
            send_queue: pool.count(Owner::SendQueue),
            control: pool.count(Owner::Control),
            tx: pool.count(Owner::TxRing),
            port,
        }
    }
}

/// A core at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The core.
    pub core: usize,
    /// Its queue.
    pub queue: u32,
    /// What its stack counted and holds.
    pub totals: Totals,
    /// Frames by owner.
    pub ledger: Ledger,
    /// The port's counters.
    pub port: PortCounters,
    /// The loop's counters.
    pub turns: LoopCounters,
    /// What its sockets counted, if it is one of [`kernel`](crate::kernel)'s.
    pub sockets: SocketCounters,
}

/// Wakes a core that sleeps; cheap to share.
#[derive(Clone, Debug)]
pub struct Waker {
    event: Arc<OwnedFd>,
}

impl Waker {
    /// A waker nobody has woken yet.
    ///
    /// # Errors
    /// When no file descriptor can be had.
    pub fn new() -> Result<Self, Error> {
        // SAFETY: no pointers are passed.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(Error::system("creating an eventfd"));
        }
        // SAFETY: the kernel just gave us this descriptor, and nobody else has it.
        let event = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self { event: Arc::new(event) })
    }

    /// Ends the current sleep, or the next one if there is none.
    pub fn wake(&self) {
        let one = 1u64.to_ne_bytes();
        // SAFETY: eight readable octets, as an eventfd takes them. It fails only when the counter
        // is about to overflow, that is when a wake-up is pending anyway.
        let _ = unsafe { libc::write(self.event.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }

    /// Forgets wake-ups so far.
    pub(crate) fn clear(&self) {
        let mut count = [0u8; 8];
        // SAFETY: eight writable octets, as an eventfd gives them. It fails only when there is
        // nothing to forget.
        let _ = unsafe { libc::read(self.event.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) };
    }

    /// Sleeps until woken or `timeout` has passed.
    pub(crate) fn sleep(&self, timeout: Duration) -> Result<(), Error> {
        let mut fds = [crate::sys::PollFd::readable(self.as_fd())];
        crate::sys::poll(&mut fds, timeout)?;
        if fds[0].is_ready() {
            self.clear();
        }
        Ok(())
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

/// A core's end of the channels.
#[derive(Debug)]
pub struct Mailbox {
    commands: Receiver<Command>,
    events: Sender<Event>,
    waker: Waker,
}

impl Mailbox {
    /// The next command, if one is waiting. A control side that is gone says stop.
    #[inline]
    pub(crate) fn next(&self) -> Option<Command> {
        match self.commands.try_recv() {
            Ok(command) => Some(command),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(Command::Stop),
        }
    }

    /// Tells the control side; drops news for other cores if it doesn't listen.
    pub(crate) fn tell(&self, event: Event) {
        if matches!(event, Event::News { .. }) && self.events.len() >= NEWS_MAX {
            return;
        }
        let _ = self.events.try_send(event);
    }

    pub(crate) fn waker(&self) -> &Waker {
        &self.waker
    }
}

/// The control side's end of one core's channel.
#[derive(Clone, Debug)]
pub struct Handle {
    commands: Sender<Command>,
    waker: Waker,
}

impl Handle {
    /// Sends a command and wakes the core. False if the core has ended or doesn't keep up.
    pub fn send(&self, command: Command) -> bool {
        let sent = self.commands.try_send(command).is_ok();
        self.waker.wake();
        sent
    }

    /// Asks, and waits for the answer; `None` if the core has ended or takes longer than `timeout`.
    pub fn ask<T>(&self, timeout: Duration, command: impl FnOnce(Sender<T>) -> Command) -> Option<T> {
        let (reply, answer) = crossbeam::channel::bounded(1);
        if !self.send(command(reply)) {
            return None;
        }
        answer.recv_timeout(timeout).ok()
    }
}

/// Both ends for one core.
///
/// # Errors
/// When no file descriptor can be had.
pub fn mailbox(events: Sender<Event>) -> Result<(Handle, Mailbox), Error> {
    let (sender, commands) = crossbeam::channel::bounded(COMMANDS_MAX);
    let waker = Waker::new()?;
    Ok((Handle { commands: sender, waker: waker.clone() }, Mailbox { commands, events, waker }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    #[test]
    fn a_wake_up_before_the_sleep_is_not_lost() {
        let waker = Waker::new().expect("eventfd");
        waker.wake();
        let before = Clock.now();
        waker.sleep(Duration::from_secs(5)).expect("sleep");
        assert!(Clock.now().since(before) < Duration::from_secs(1).into());
        let before = Clock.now();
        waker.sleep(Duration::from_millis(20)).expect("sleep");
        assert!(Clock.now().since(before) >= Duration::from_millis(19).into(), "one wake-up ends one sleep");
    }

    #[test]
    fn a_core_without_control_side_stops() {
        let (events, _news) = crossbeam::channel::bounded(1);
        let (handle, mailbox) = mailbox(events).expect("eventfd");
        assert!(mailbox.next().is_none());
        drop(handle);
        assert!(matches!(mailbox.next(), Some(Command::Stop)));
    }

    /// A control side that was away for long still hears that a core has ended.
    #[test]
    fn news_for_others_leave_room_for_a_failure() {
        let (events, news) = crossbeam::channel::bounded(EVENTS_MAX);
        let (_handle, mailbox) = mailbox(events).expect("eventfd");
        for _ in 0..2 * EVENTS_MAX {
            mailbox.tell(Event::News { core: 0, news: Vec::new() });
        }
        mailbox.tell(Event::Failed { core: 0, error: Error::CorePanicked { core: 0 } });
        assert!(matches!(news.try_iter().last(), Some(Event::Failed { .. })));
    }

    /// D13: a control side that asks without end can't pile up work on a core.
    #[test]
    fn the_mailbox_is_bounded() {
        let (events, _news) = crossbeam::channel::bounded(1);
        let (handle, mailbox) = mailbox(events).expect("eventfd");
        let taken = (0..1000).filter(|_| handle.send(Command::Go)).count();
        assert_eq!(taken, COMMANDS_MAX);
        for _ in 0..10 {
            mailbox.tell(Event::Drained { core: 0, reset: 0 });
        }
        assert!(handle.ask::<Snapshot>(Duration::from_millis(1), Command::Snapshot).is_none());
    }
}
