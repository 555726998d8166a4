//! Which frames are byway's: the XDP program and its loader.
//!
//! ```text
//!   NIC queue q ──▶ steer (steer.bpf.c) ──redirect──▶ sockets[q] ──▶ the AF_XDP socket of core q
//!                     │        ▲
//!                     │        └── own_ipv4, own_ipv6, own_ports: written here, while frames flow
//!                     └──pass──▶ the kernel
//! ```
//!
//! [`Steering`] owns all of it. The program is attached by a `bpf_link`, and nothing is pinned: when the
//! process ends, however it ends, the kernel detaches the program and the interface is the kernel's again.
#![warn(missing_docs)]

mod attach;
mod capabilities;
mod error;
mod interface;
mod skel;

use std::mem::MaybeUninit;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use libbpf_rs::{ErrorKind, MapCore, MapFlags, MapHandle};

pub use attach::{AttachMode, Attached, Mode, occupant};
pub use capabilities::{Capabilities, Capability};
pub use error::{Error, Occupant, Removal};

/// The result of an operation on the steering.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// `enum verdict` of `steer.h`, in its order.
const VERDICTS: [&str; 12] = [
    "pass_not_ours",
    "pass_malformed",
    "pass_vlan_depth",
    "pass_ext_headers",
    "pass_own_other",
    "redirect_tcp",
    "redirect_arp",
    "redirect_ndp",
    "redirect_icmp",
    "redirect_fragment",
    "drop_no_socket",
    "drop_fragment",
];

/// `enum address_kind` of `steer.h`: who has the address, and so which of its frames are byway's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AddressKind {
    /// The kernel does not have it: its TCP, ICMP, fragments and address resolution are byway's.
    Own = 1,
    /// The kernel has it: only TCP to the ports of [`Steering::add_port`] is byway's, and ICMP errors about that.
    Host = 2,
}

/// The loaded program, its maps, and its place on an interface.
///
/// Order of calls: [`load`](Self::load), then addresses and sockets, then [`attach`](Self::attach), so that
/// the first frame already finds its socket; at the end [`detach`](Self::detach) before the sockets are
/// closed.
#[derive(Debug)]
pub struct Steering {
    // First, so that it is also dropped first: no frame is redirected by a half-closed Steering.
    link: Option<attach::Link>,
    program: OwnedFd,
    sockets: MapHandle,
    own_ipv4: MapHandle,
    own_ipv6: MapHandle,
    own_ports: MapHandle,
    verdicts: MapHandle,
}

impl Steering {
    /// Loads the program: no address is ours yet, and it is on no interface.
    pub fn load() -> Result<Self> {
        // libbpf prints to standard error by itself; what it has to say comes back in the error.
        let print = libbpf_rs::set_print(None);
        let loaded = Self::load_object();
        libbpf_rs::set_print(print);
        loaded.map_err(|source| match source.kind() {
            ErrorKind::PermissionDenied => error::denied(),
            ErrorKind::OutOfMemory => Error::Memlock,
            _ => Error::Bpf { doing: "load the XDP program", source },
        })
    }

    /// The skeleton borrows the object it opens. The kernel does not need libbpf's object once the program is
    /// loaded, so this keeps duplicates of the descriptors and lets the object go.
    fn load_object() -> libbpf_rs::Result<Self> {
        let mut object = MaybeUninit::uninit();
        let steer = skel::SteerSkelBuilder::default().open(&mut object)?.load()?;
        Ok(Self {
            link: None,
            program: steer.progs.steer.as_fd().try_clone_to_owned()?,
            sockets: MapHandle::try_from(&steer.maps.sockets)?,
            own_ipv4: MapHandle::try_from(&steer.maps.own_ipv4)?,
            own_ipv6: MapHandle::try_from(&steer.maps.own_ipv6)?,
            own_ports: MapHandle::try_from(&steer.maps.own_ports)?,
            verdicts: MapHandle::try_from(&steer.maps.verdicts)?,
        })
    }

    /// Whether [`attach`](Self::attach) would find a program of somebody else: asked before any socket is
    /// bound, whose queue that somebody most likely holds, too.
    pub fn check_vacant(&self, ifindex: i32) -> Result<()> {
        attach::check_vacant(ifindex)
    }

    /// Attaches the program to an interface. It stays until [`detach`](Self::detach), or until `self` or the
    /// process is gone. A program of somebody else is never replaced.
    pub fn attach(&mut self, ifindex: i32, mode: AttachMode) -> Result<Attached> {
        self.detach();
        let (link, attached) = attach::attach(self.program.as_fd(), ifindex, mode)?;
        self.link = Some(link);
        Ok(attached)
    }

    /// Takes the program off the interface. From here on every frame is the kernel's.
    pub fn detach(&mut self) {
        self.link = None;
    }

    /// Redirects what queue `queue` receives for byway to the AF_XDP socket `socket`. The kernel takes the
    /// entry out by itself when the socket is closed.
    pub fn register_socket(&self, queue: u32, socket: BorrowedFd<'_>) -> Result<()> {
        if queue >= self.sockets.max_entries() {
            return Err(Error::NoSuchQueue { queue, limit: self.sockets.max_entries() });
        }
        self.sockets
            .update(&queue.to_ne_bytes(), &socket.as_raw_fd().to_ne_bytes(), MapFlags::ANY)
            .map_err(|source| Error::Bpf { doing: "register the socket of a queue", source })
    }

    /// Undoes [`register_socket`](Self::register_socket): byway's frames on this queue are dropped and
    /// counted.
    pub fn unregister_socket(&self, queue: u32) -> Result<()> {
        remove(&self.sockets, &queue.to_ne_bytes(), "unregister the socket of a queue")
    }

    /// Makes `address` byway's own: the kernel must not have it.
    pub fn add_address(&self, address: IpAddr) -> Result<()> {
        self.add_address_as(address, AddressKind::Own)
    }

    /// Makes `address` known as `kind`; an address that is known already changes its kind.
    pub fn add_address_as(&self, address: IpAddr, kind: AddressKind) -> Result<()> {
        let (map, key) = self.address_entry(address);
        insert(map, &key, &(kind as u32).to_ne_bytes(), "addresses")
    }

    /// Leaves `address` to the kernel from now on.
    pub fn remove_address(&self, address: IpAddr) -> Result<()> {
        let (map, key) = self.address_entry(address);
        remove(map, &key, "remove an address")
    }

    /// Takes TCP port `port` of every [`AddressKind::Host`] address. Own addresses need no ports: all are
    /// byway's.
    pub fn add_port(&self, port: u16) -> Result<()> {
        insert(&self.own_ports, &port.to_be_bytes(), &[1], "ports")
    }

    /// Leaves TCP port `port` of the [`AddressKind::Host`] addresses to the kernel.
    pub fn remove_port(&self, port: u16) -> Result<()> {
        remove(&self.own_ports, &port.to_be_bytes(), "remove a port")
    }

    /// How many frames ended in each verdict, summed over the CPUs: every frame is in exactly one.
    pub fn counters(&self) -> Result<Vec<(&'static str, u64)>> {
        let sum = |verdict: usize| -> libbpf_rs::Result<u64> {
            let key = (verdict as u32).to_ne_bytes();
            let per_cpu = self.verdicts.lookup_percpu(&key, MapFlags::ANY)?.unwrap_or_default();
            Ok(per_cpu.iter().filter_map(|value| Some(u64::from_ne_bytes(*value.first_chunk()?))).sum())
        };
        VERDICTS
            .iter()
            .enumerate()
            .map(|(verdict, name)| Ok((*name, sum(verdict)?)))
            .collect::<libbpf_rs::Result<_>>()
            .map_err(|source| Error::Bpf { doing: "read the XDP program's counters", source })
    }

    fn address_entry(&self, address: IpAddr) -> (&MapHandle, Vec<u8>) {
        match address {
            IpAddr::V4(ipv4) => (&self.own_ipv4, ipv4.octets().to_vec()),
            IpAddr::V6(ipv6) => (&self.own_ipv6, ipv6.octets().to_vec()),
        }
    }
}

/// The loaded program, for BPF_PROG_TEST_RUN and diagnosis.
impl AsFd for Steering {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.program.as_fd()
    }
}

fn insert(map: &MapHandle, key: &[u8], value: &[u8], what: &'static str) -> Result<()> {
    map.update(key, value, MapFlags::ANY).map_err(|source| {
        // A full hash map is E2BIG, which libbpf-rs's kinds do not name: whoever is known was found.
        match map.keys().count() as u32 >= map.max_entries() {
            true => Error::Full { what, limit: map.max_entries() },
            false => Error::Bpf { doing: "write a map of the XDP program", source },
        }
    })
}

/// An entry that is not there is as good as removed.
fn remove(map: &MapHandle, key: &[u8], doing: &'static str) -> Result<()> {
    match map.delete(key) {
        Err(source) if source.kind() != ErrorKind::NotFound => Err(Error::Bpf { doing, source }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The words of an enum in `steer.h`, comments and values taken away.
    fn c_enum(name: &str) -> Vec<String> {
        let header = include_str!("steer.h");
        let body = header.split(&format!("enum {name} {{")).nth(1).expect("the enum is in steer.h");
        let mut body = body.split("};").next().expect("it ends").to_owned();
        while let Some(start) = body.find("/*") {
            let end = start + body[start..].find("*/").expect("the comment ends") + 2;
            body.replace_range(start..end, "");
        }
        body.split(',').map(|word| word.trim().to_lowercase()).filter(|word| !word.is_empty()).collect()
    }

    #[test]
    fn counter_names_are_the_verdicts_of_the_program_in_order() {
        let mut verdicts = c_enum("verdict");
        assert_eq!(verdicts.pop().as_deref(), Some("verdict_count"));
        assert_eq!(verdicts, VERDICTS);
    }

    #[test]
    fn address_kinds_are_those_of_the_program() {
        let own = format!("address_own = {}", AddressKind::Own as u32);
        let host = format!("address_host = {}", AddressKind::Host as u32);
        assert_eq!(c_enum("address_kind"), ["address_none = 0".to_owned(), own, host]);
    }
}
