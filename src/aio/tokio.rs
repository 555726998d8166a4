//! tokio beside the tasks of a core: a runtime on the same thread, for what asks for one by name.
//!
//! axum spawns a WebSocket's task by `tokio::spawn`; other libraries sleep on tokio's clock or send through its channels.
//! Such things need a tokio runtime on the thread where they run. With the feature `tokio` each core has one, of the
//! single-threaded kind, which runs until it is idle whenever this module's own tasks have run. Connections stay
//! byway's: they are read and written through [`TcpStream`](super::TcpStream), from either kind of task.
//!
//! What byway brings wakes tokio's tasks at once. Of what comes from elsewhere (another thread's message, tokio's own
//! timers) byway isn't told: a core with a tokio runtime looks every millisecond, and doesn't sleep longer. Waking and
//! spawning tokio's tasks from byway's side takes a lock of tokio's, which another thread has only while it wakes one.

use std::cell::Cell;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::Poll;

use byway_tcp::time::{Duration, Instant};
use tokio::runtime::{Builder, EnterGuard, Runtime};

use super::executor::current;

/// How often tokio's tasks are asked whether another thread or a timer has woken them: it is what tokio's timers
/// resolve, and a short run of its loop each time.
const LOOK_EVERY: Duration = Duration::from_millis(1);
/// Times that the runtime's queue is gone through, of up to 61 polls each, in a run: one that never comes to rest goes
/// on in the next turn.
const SHARES: u32 = 2;
/// The runtime has found nothing to poll so often in a row: once before it looks at its timers, once after.
const PARKS: u32 = 2;

/// Gives this core a tokio runtime. Again: no effect.
///
/// # Errors
/// The system doesn't give what tokio needs, or no core is here.
pub fn start() -> io::Result<()> {
    let core =
        current().ok_or_else(|| io::Error::other("no core is here: call it in a task of byway::aio"))?;
    if core.tokio.get().is_none() {
        let _ = core.tokio.set(Beside::new()?);
    }
    Ok(())
}

/// A core's tokio runtime.
pub(super) struct Beside {
    runtime: Runtime,
    /// Times that the runtime had nothing to poll.
    parks: Arc<AtomicU32>,
    looked_at: Cell<Instant>,
    /// The last run ended before that.
    busy: Cell<bool>,
}

impl fmt::Debug for Beside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Beside").finish_non_exhaustive()
    }
}

impl Beside {
    fn new() -> io::Result<Self> {
        let parks = Arc::new(AtomicU32::new(0));
        let parking = Arc::clone(&parks);
        let count = move || {
            parking.fetch_add(1, Ordering::Relaxed);
        };
        let runtime = Builder::new_current_thread().enable_time().on_thread_park(count).build()?;
        Ok(Self { runtime, parks, looked_at: Cell::new(Instant::ZERO), busy: Cell::new(false) })
    }

    /// What tasks ask for by `tokio::spawn` is this runtime, as long as the guard lives.
    pub(super) fn enter(&self) -> EnterGuard<'_> {
        self.runtime.enter()
    }

    /// Runs tokio's tasks until they rest, or have had their share.
    pub(super) fn run(&self, now: Instant) {
        if self.runtime.metrics().num_alive_tasks() == 0 && now < self.looked_at.get() + LOOK_EVERY {
            return;
        }
        self.looked_at.set(now);
        self.parks.store(0, Ordering::Relaxed);
        let mut polls = 0;
        let rested = self.runtime.block_on(poll_fn(|cx| {
            // Polled first, after each share, and when the runtime would sleep, which this wake keeps it from.
            if self.parks.load(Ordering::Relaxed) >= PARKS {
                return Poll::Ready(true);
            }
            if polls == PARKS + SHARES {
                return Poll::Ready(false);
            }
            polls += 1;
            cx.waker().wake_by_ref();
            Poll::Pending
        }));
        self.busy.set(!rested);
    }

    /// When to run again at the latest.
    pub(super) fn deadline(&self) -> Instant {
        if self.busy.get() { Instant::ZERO } else { self.looked_at.get() + LOOK_EVERY }
    }
}
