//! AF_XDP sockets and the run-to-completion loop on pinned cores.
//!
//! The only crate of byway with system calls, threads and a clock on the packet path:
//!
//! ```text
//!   caller ── Plan ──→ runtime.rs ─── one thread per queue, pinned (pin.rs) ───────────────┐
//!     │                   │ control.rs: commands and news                                   │
//!     │ sockets           ▼                                                                 ▼
//!     └──→ steering   core_loop.rs ── turns ──→ port.rs: Port ──→ xsk.rs: Xsk (kernel) or MemPort (tests)
//!                         │                          │
//!                         ▼                          ▼
//!                  byway_tcp::Stack over FramePool over umem.rs: Umem
//! ```
//!
//! capture.rs copies frames on their way through the loop, while somebody watches.
//!
//! kernel.rs is the other way: the same applications over the kernel's own TCP, on sockets and epoll, without a stack.
//!
//! `unsafe` lives where the kernel is spoken to: umem.rs, xsk.rs, frame.rs, link.rs, multicast.rs, nic.rs, sys.rs,
//! huge.rs, and
//! single calls in clock.rs, control.rs, pin.rs and runtime.rs.
#![warn(missing_docs)]

pub mod capture;
pub mod clock;
pub mod config;
pub mod control;
pub mod core_loop;
pub mod error;
mod frame;
pub mod huge;
pub mod kernel;
pub mod link;
pub mod multicast;
pub mod netdev;
mod netlink;
pub mod nic;
pub mod pin;
pub mod port;
pub mod reservation;
pub mod rtnetlink;
pub mod runtime;
pub mod sock_diag;
mod sys;
pub mod umem;
pub mod xsk;

pub use error::Error;
