//! Asynchronous tasks on byway: an [`App`] that runs futures on each core, between what arrives and what is sent.
//!
//! ```text
//!   a turn of the loop:  App::turn ── timers, wakes of other threads ──→ run ──→ Opener::connect, wake
//!                        App::ready ─ received octets into buffers ────→ run ──→ written octets into segments
//! ```
//!
//! ```no_run
//! use byway::aio::{TcpListener, spawn, tasks};
//! use byway::launch::{Setup, launch};
//! use futures_util::io::{AsyncReadExt, copy};
//!
//! #[derive(clap::Args)]
//! struct Options {
//!     #[arg(long, default_value_t = 7)]
//!     port: u16,
//! }
//!
//! async fn serve(port: u16) -> std::io::Result<()> {
//!     let mut listener = TcpListener::bind(port)?;
//!     loop {
//!         let (stream, _) = listener.accept().await?;
//!         let (reader, mut writer) = stream.split();
//!         // Refused, the connection is closed.
//!         let _ = spawn(async move { copy(reader, &mut writer).await });
//!     }
//! }
//!
//! fn main() -> std::process::ExitCode {
//!     launch(|options: Options| {
//!         let port = options.port;
//!         Ok(Setup::new(move |core| tasks(core, serve(port))).listen("echo", port))
//!     })
//! }
//! ```
//!
//! There is one executor per core and nothing is shared between them: tasks needn't be `Send`, and a connection's
//! tasks run on the core whose queue brings its segments. Everything is bounded: tasks and timers by number,
//! connections by 64 KiB each way while octets wait, a turn of the loop by 256 polls.
//!
//! What it costs beside the [`App`] interface: each octet is copied twice each way (counted in
//! `BywayPayloadBytesCopied`), and a task, a connection and a sleep take up to three allocations once; segments take
//! none. Callbacks in [`App`] have neither.
//!
//! With the feature `hyper`, [`TcpStream`] is a hyper connection, `HyperTimer` its timer and `HyperExecutor` its
//! executor. With `tokio`, what calls `tokio::spawn` or sleeps on tokio's timers works in tasks, too: see the
//! module `tokio` there.

mod buffer;
mod executor;
#[cfg(feature = "hyper")]
mod hyper;
mod sockets;
mod stream;
#[cfg(test)]
mod tests;
mod time;
#[cfg(feature = "tokio")]
pub mod tokio;

use std::fmt;
use std::future::Future;
use std::io;
use std::rc::Rc;
use std::task::Waker;

use byway_tcp::app::{App, Closed, Conn, Opener, Ready};
use byway_tcp::time::{Duration, Instant};

use executor::{Core, Future0, wake_all};

pub use executor::{Draining, Full, JoinHandle, Panicked, TASKS_MAX, draining, spawn, yield_now};
#[cfg(feature = "hyper")]
pub use hyper::{HyperExecutor, HyperTimer};
pub use stream::{TcpListener, TcpStream};
pub use time::{Elapsed, Sleep, now, sleep, sleep_until, timeout};

/// Callbacks in which a connection may give more and take more before it is the others' turn: 512 KiB.
const ROUNDS: u32 = 8;
/// While the program drains there are no turns of the loop's for applications: each connection looks so often after
/// what timers and other threads have brought.
const DRAIN_LOOK: Duration = Duration::from_millis(10);

/// An application that runs tasks.
pub struct Tasks {
    core: Rc<Core>,
    /// The first task, until the first turn.
    main: Option<Future0>,
    /// Filled and emptied in each callback.
    wakers: Vec<Waker>,
}

impl fmt::Debug for Tasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tasks").field("core", &self.core).finish_non_exhaustive()
    }
}

/// The application for a [`launch`](crate::launch): `main` is its first task on this core. When it ends, so does the
/// core's part of the program ([`launch::Core::end`](crate::launch::Core::end)): a server's goes on until it is told to
/// drain.
pub fn tasks(core: crate::launch::Core, main: impl Future<Output = io::Result<()>> + 'static) -> Tasks {
    let ports = core.ports().to_vec();
    let waker = core.clone();
    let main = async move { core.end(main.await.map_err(|error| error.to_string())) };
    Tasks::new(ports, move || waker.wake(), main)
}

impl Tasks {
    /// The application for a stack of one's own, which listens on `ports`. `notify` is called on other threads when a
    /// task here was woken there: it has to end the loop's sleep.
    pub fn new(
        ports: Vec<u16>,
        notify: impl Fn() + Send + Sync + 'static,
        main: impl Future<Output = ()> + 'static,
    ) -> Self {
        let core = Core::new(Box::new(notify), ports);
        Self { core, main: Some(Box::pin(main)), wakers: Vec::new() }
    }

    /// What has to happen before tasks run, in a turn or while there are none.
    fn begin(&mut self) {
        self.core.begin_turn();
        while let Some(orphan) = self.core.remote.orphans.pop() {
            let wakers = self.core.sockets.borrow_mut().drop_handle(orphan);
            drop(wakers);
        }
        self.core.timers.borrow_mut().expire(self.core.now.get(), &mut self.wakers);
        self.wake();
    }

    /// Nothing is borrowed: wakers may be anybody's code.
    fn wake(&mut self) {
        wake_all(self.wakers.drain(..));
    }

    /// What has arrived goes in, tasks run, what they wrote goes out; again while there is more.
    fn serve<C: Conn>(&mut self, conn: &mut C) {
        if self.core.draining.get() {
            self.begin();
            conn.set_timer(Some(conn.now() + DRAIN_LOOK));
        }
        for _ in 0..ROUNDS {
            self.core.sockets.borrow_mut().pull(conn, &mut self.wakers);
            self.wake();
            self.core.run();
            self.core.sockets.borrow_mut().flush(conn, &mut self.wakers);
            let woken = !self.wakers.is_empty();
            self.wake();
            if !woken && !self.core.sockets.borrow_mut().could_go_on(conn.id()) {
                return;
            }
        }
        self.core.sockets.borrow_mut().go_on_later(conn.id());
    }
}

impl App for Tasks {
    fn opened<C: Conn>(&mut self, conn: &mut C) {
        let _entered = self.core.enter(conn.now());
        let wanted = self.core.sockets.borrow_mut().opened(conn, &mut self.wakers);
        self.wake();
        if wanted {
            // Data may have come with the handshake's last segment.
            self.serve(conn);
        } else {
            conn.abort();
        }
    }

    fn ready<C: Conn>(&mut self, conn: &mut C, _: Ready) {
        let _entered = self.core.enter(conn.now());
        self.serve(conn);
    }

    fn closed<C: Conn>(&mut self, conn: &mut C, reason: Closed) {
        let _entered = self.core.enter(conn.now());
        let core = Rc::clone(&self.core);
        // What the application is told last may come with the last octets.
        core.sockets.borrow_mut().pull(conn, &mut self.wakers);
        core.sockets.borrow_mut().closed(conn.id(), reason, &mut self.wakers);
        self.wake();
        core.run();
    }

    fn draining<C: Conn>(&mut self, conn: &mut C) {
        let _entered = self.core.enter(conn.now());
        if !self.core.draining.replace(true) {
            self.core.sockets.borrow_mut().draining = true;
            let waiting = self.core.on_drain.borrow_mut().take();
            wake_all(waiting);
        }
        self.serve(conn);
    }

    fn turn<O: Opener>(&mut self, opener: &mut O) {
        let _entered = self.core.enter(opener.now());
        self.begin();
        if let Some(main) = self.main.take()
            && self.core.spawn(main).is_err()
        {
            unreachable!("the first task finds room");
        }
        self.core.run();
        self.core.sockets.borrow_mut().turn(opener, &mut self.wakers);
        self.wake();
    }

    fn deadline(&self) -> Instant {
        if self.main.is_some() || self.core.is_busy() || self.core.sockets.borrow().is_waiting() {
            return Instant::ZERO;
        }
        let timers = self.core.timers.borrow().next_deadline();
        #[cfg(feature = "tokio")]
        if let Some(tokio) = self.core.tokio.get() {
            return timers.min(tokio.deadline());
        }
        timers
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        let _entered = self.core.enter(self.core.now.get());
        drop(self.main.take());
        self.core.clear();
    }
}
