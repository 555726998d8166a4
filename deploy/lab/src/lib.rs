//! A network on one host to try byway in.
//!
//! ```text
//!   ┌ byway ────────┐                ┌ wire ────────────┐                ┌ kernel ───────┐
//!   │        byway0 │─── veth pair ──│ near ◀impair▶ far│── veth pair ───│ peer0         │
//!   │ 192.0.2.1     │                │  (only if asked) │                │ 192.0.2.2     │
//!   │ 2001:db8::1   │                └──────────────────┘                │ 2001:db8::2   │
//!   └───────────────┘                                                    └───────────────┘
//! ```
//!
//! byway's addresses are byway's own: the kernel in its namespace does not have them. [`Lab::new`] builds the
//! whole; [`Namespace`], [`veth_pair`], [`Impair`], [`Watch`] and [`Station`] are the parts. Namespaces have no name, so nothing is
//! left behind, whether a test ends, panics or is killed.

mod identity;
mod impair;
mod namespace;
mod socket;
mod station;
mod topology;
mod watch;

pub use identity::{ECDSA, Identity};
pub use impair::{Counts, Directions, Impair, ImpairOptions, Report};
pub use namespace::{Namespace, is_root};
pub use station::Station;
pub use topology::{
    BYWAY_INTERFACE, BYWAY_IPV4, BYWAY_IPV6, KERNEL_INTERFACE, KERNEL_IPV4, KERNEL_IPV6, Lab, LabOptions,
    VethEnd, VethOptions, veth_pair,
};
pub use watch::Watch;
