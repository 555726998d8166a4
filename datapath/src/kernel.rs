//! The same applications over the kernel's TCP: sockets and epoll, on any host.
//!
//! ```text
//!   one thread per core, pinned
//!   ┌────────────────────────────────────────────────────────────────────────────────────────────┐
//!   │ listener.rs: SO_REUSEPORT ── accepting.rs ─┬→ a slot: connection.rs                        │
//!   │ App::turn: connect ───────── opening.rs ───┘      │                                        │
//!   │                                                   │ recv, into a frame    ▲ send, sendmsg  │
//!   │ event_loop.rs: epoll_wait ── serving.rs: ready ───┴→ conn.rs ───→ App ────┘                │
//!   │ core.rs: between two turns, what the control side asks                                     │
//!   └────────────────────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! A connection is registered with epoll once, edge-triggered. What epoll has told is remembered, and a read that
//! found less than there was room for is not repeated: a request costs a read, a write, and its share of an
//! `epoll_wait`. Frames are those of the other backend, on the heap: an application can't tell where it runs.
//!
//! Everything is bounded. A connection queues its share of the frames at most, and reads only what the application
//! takes; what it doesn't take stays in the socket, whose window closes.

mod accepting;
mod conn;
mod connection;
pub(crate) mod core;
mod event_loop;
mod listener;
mod opening;
mod options;
mod patience;
mod serving;
mod shared;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;

use byway_tcp::app::Keepalive;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

pub use listener::{check_congestion, check_vacant, own_congestion};

/// Octets per frame. What nginx reads at once: large bodies cost a system call for so much, small requests find the
/// same frame in the cache again and again.
pub const FRAME_SIZE: usize = 16 << 10;

/// Chunks that an application may send in one callback, and one `sendmsg` hands over: 256 KiB, which stay in the cache
/// between being made, or read, and being written.
pub(crate) const SEND_CHUNKS: usize = 16;

/// What the cores are told.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Cores, with a thread and a listener for each endpoint on each.
    pub cores: Vec<usize>,
    /// Where to listen.
    pub endpoints: Vec<SocketAddr>,
    /// Connections that wait to be accepted, for each core and endpoint.
    pub backlog: u32,
    /// Connections at once on each core.
    pub max_connections: u32,
    /// Frames of [`FRAME_SIZE`] for each core. They cost memory once they have been used.
    pub frame_count: u32,
    /// Congestion control, by the kernel's name for it; `None`: the kernel's own choice.
    pub congestion: Option<&'static str>,
    /// When a silent peer is asked whether it is still there; `None`: never.
    pub keepalive: Option<Keepalive>,
}

/// System calls and what they moved, since the start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SocketCounters {
    /// Connections accepted.
    pub accepted: u64,
    /// Times that no connection could be accepted for want of descriptors or memory.
    pub accept_failed: u64,
    /// Times that accepting paused because `max_connections` were open.
    pub accept_full: u64,
    /// Reads that brought something, or the peer's FIN.
    pub reads: u64,
    /// Reads that found nothing.
    pub reads_empty: u64,
    /// Writes that took something.
    pub writes: u64,
    /// Writes that couldn't take all: the socket's buffer is full.
    pub writes_full: u64,
    /// Octets read.
    pub octets_in: u64,
    /// Octets written.
    pub octets_out: u64,
    /// Waits for events.
    pub waits: u64,
    /// Events they brought.
    pub events: u64,
}

/// Whether this kernel has IPv6 sockets (`ipv6.disable=1` takes them away).
pub fn speaks_ipv6() -> bool {
    socket_with(AddressFamily::INET6, SocketType::STREAM, SocketFlags::CLOEXEC, None).is_ok()
}

/// Raises this process's limit of open files as far as it may; what it is then.
pub fn raise_file_limit() -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    match (current, maximum) {
        (Some(current), Some(most)) if current < most => {
            match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
                Ok(()) => most,
                Err(_) => current,
            }
        }
        (Some(current), _) => current,
        (None, _) => u64::MAX,
    }
}
