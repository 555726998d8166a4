//! What the benches share: a client that writes segments, and a server around a `Stack`.
//!
//! ```text
//!              not measured                        measured (`Server::turn`)
//!  Client ─ segments ─→ Server::deliver ─→ completed · refill · receive · advance · poll_transmit
//!     ▲                (as the NIC does)                        │
//!     └────────────── Server::sent (where answers are read) ←───┘
//! ```
//!
//! Both live in memory and in virtual time: no kernel, no NIC, no clock on the packet path. A server's
//! client shares its core only in a bench, so the client's work stays outside the measured time: a bench
//! takes turns between a client that writes the segments of up to [`RING`] frames into the fill ring's
//! frames and a server that is measured while it takes them, some microseconds at a time, so that
//! reading the clock twice costs it a nanosecond a segment at most.

pub mod bulk;
pub mod client;
pub mod connections;
pub mod exchange;
pub mod server;

use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;

/// Frames in the fill ring: as many as a client can deliver before the server's next turn.
pub const RING: usize = 1024;
/// Octets of payload of a small request and of its answer.
pub const PAYLOAD: usize = 64;

/// The real time that `work` takes. Not inlined: by its name valgrind knows what to count (`make bench-check`).
#[inline(never)]
#[allow(clippy::disallowed_methods)] // What a bench is for; nothing on the packet path sees it.
pub fn timed(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

/// `0..count` over and over, in an order that no prefetcher guesses, the same in every run.
#[derive(Debug)]
pub struct Shuffled {
    order: Vec<u32>,
    next: usize,
}

impl Shuffled {
    /// # Panics
    /// If `count` is 0.
    pub fn new(count: u32) -> Self {
        Self::some(count, count)
    }

    /// Only so many of them, whichever.
    ///
    /// # Panics
    /// If that is none, or more than there are.
    pub fn some(count: u32, of: u32) -> Self {
        assert!(0 < count && count <= of, "{count} of {of} to shuffle");
        let mut order: Vec<u32> = (0..of).collect();
        order.shuffle(&mut SmallRng::seed_from_u64(0x0062_7977_6179));
        order.truncate(count as usize);
        Self { order, next: 0 }
    }

    /// The next number. Not an `Iterator`: `cycle` would allocate at every turn.
    #[inline]
    pub fn draw(&mut self) -> u32 {
        let number = self.order[self.next];
        self.next += 1;
        if self.next == self.order.len() {
            self.next = 0;
        }
        number
    }
}

/// `total` for `done` operations, for `asked` of them: criterion asks for any number, but a bench works
/// in whole batches.
pub fn scaled(total: Duration, done: u64, asked: u64) -> Duration {
    total.mul_f64(asked as f64 / done as f64)
}
