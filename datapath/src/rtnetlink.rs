//! What the kernel knows of an interface beyond ioctls: addresses, routes and neighbours, and their changes.
//!
//! ```text
//!   Rtnetlink ──dump──→ addresses, routes          Watch ←── something changed: neighbours by name,
//!      └─────neighbor, use_neighbor──→ the kernel             of addresses and routes only that they did
//! ```
//!
//! Messages are read by hand: five kinds of them, of which a few attributes matter (rtnetlink(7)); netlink.rs has what
//! all netlink families share.

use core::net::IpAddr;
use core::time::Duration;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use byway_tcp::stack::{Cidr, Route};
use byway_tcp::wire::MacAddr;
use rustix::net::{RecvFlags, recv};

use crate::control::Waker;
use crate::error::Error;
use crate::netlink::{
    self, Asker, Attributes, Messages, NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, align, attribute, field,
};
use crate::sys::{self, PollFd};

// linux/rtnetlink.h
const RTM_GETADDR: u16 = 22;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_GETROUTE: u16 = 26;
const RTM_NEWNEIGH: u16 = 28;
const RTM_DELNEIGH: u16 = 29;
const RTM_GETNEIGH: u16 = 30;
/// RTMGRP_NEIGH, _IPV4_IFADDR, _IPV4_ROUTE, _IPV6_IFADDR, _IPV6_ROUTE.
const GROUPS: u32 = 0x4 | 0x10 | 0x40 | 0x100 | 0x400;
const RT_TABLE_MAIN: u32 = 254;
const RTN_UNICAST: u8 = 1;
const RTM_F_CLONED: u32 = 0x200;
const RTNH_F_DEAD: u8 = 1;
const RTNH_F_LINKDOWN: u8 = 16;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_PREFSRC: u16 = 7;
const RTA_MULTIPATH: u16 = 9;
const RTA_TABLE: u16 = 15;
const RTA_VIA: u16 = 18;

// linux/if_addr.h
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_FLAGS: u16 = 8;
const IFA_F_DADFAILED: u32 = 0x08;
const IFA_F_TENTATIVE: u32 = 0x40;
const IFA_F_OPTIMISTIC: u32 = 0x04;

// linux/neighbour.h
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const NTF_USE: u8 = 0x01;
/// NUD_REACHABLE, _STALE, _DELAY, _PROBE, _PERMANENT: the kernel would send there. Not NOARP, which is for groups.
const NUD_USABLE: u16 = 0x02 | 0x04 | 0x08 | 0x10 | 0x80;

/// Reads to one look at the events, so that a storm of them doesn't keep the reader from what they mean.
const READS_MAX: usize = 64;

/// One neighbour's news.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Neighbor {
    /// Who.
    pub ip: IpAddr,
    /// Where; `None`: the kernel doesn't know, or not any more.
    pub mac: Option<MacAddr>,
}

/// Asks the kernel about one interface.
#[derive(Debug)]
pub struct Rtnetlink {
    asker: Asker,
    index: u32,
}

impl Rtnetlink {
    /// For interface `index` of this thread's network namespace.
    ///
    /// # Errors
    /// No socket is to be had.
    pub fn new(index: u32) -> Result<Self, Error> {
        let asker = Asker::new(netlink::ROUTE).map_err(system("opening a netlink socket"))?;
        Ok(Self { asker, index })
    }

    /// The addresses that the kernel answers to on the interface: not those it still looks for a second owner of.
    ///
    /// # Errors
    /// The kernel doesn't answer.
    pub fn addresses(&mut self) -> Result<Vec<Cidr>, Error> {
        let mut found = Vec::new();
        let index = self.index;
        self.asker
            .exchange(RTM_GETADDR, NLM_F_DUMP, &[0; 8], |kind, body| {
                found.extend((kind == RTM_NEWADDR).then(|| address(body, index)).flatten());
            })
            .map_err(system("asking the kernel for addresses"))?;
        Ok(found)
    }

    /// The main table's routes over the interface, longest prefix first and the preferred one of the same.
    ///
    /// # Errors
    /// The kernel doesn't answer.
    pub fn routes(&mut self) -> Result<Vec<Route>, Error> {
        let mut found = Vec::new();
        let index = self.index;
        self.asker
            .exchange(RTM_GETROUTE, NLM_F_DUMP, &[0; 12], |kind, body| {
                found.extend((kind == RTM_NEWROUTE).then(|| route(body, index)).flatten());
            })
            .map_err(system("asking the kernel for routes"))?;
        // Stable: of the same prefix and priority the kernel's order stays.
        found.sort_by_key(|&(priority, route): &(u32, Route)| (u8::MAX - route.to.prefix, priority));
        Ok(found.into_iter().map(|(_, route)| route).collect())
    }

    /// The address from which the kernel would open a connection to `remote`, if that went over the interface: not if
    /// it has no route, a better one over another interface, or `remote` itself.
    pub fn source(&mut self, remote: IpAddr) -> Option<IpAddr> {
        let destination = octets(remote);
        let mut body = vec![0; 12];
        body[..2].copy_from_slice(&[family(remote), (destination.len() * 8) as u8]);
        body.extend(attribute(RTA_DST, &destination));
        let (mut source, mut out) = (None, None);
        // An error says that it is unreachable.
        let _ = self.asker.exchange(RTM_GETROUTE, 0, &body, |_, body| {
            for (kind, value) in Attributes(body.get(12..).unwrap_or_default()) {
                match kind {
                    RTA_PREFSRC => source = ip(value),
                    RTA_OIF => out = field(value, 0).map(u32::from_ne_bytes),
                    _ => {}
                }
            }
        });
        source.filter(|_| out == Some(self.index))
    }

    /// The neighbours that the kernel would send to.
    ///
    /// # Errors
    /// The kernel doesn't answer.
    pub fn neighbors(&mut self) -> Result<Vec<Neighbor>, Error> {
        let mut found = Vec::new();
        let index = self.index;
        self.asker
            .exchange(RTM_GETNEIGH, NLM_F_DUMP, &[0; 12], |kind, body| {
                found.extend((kind == RTM_NEWNEIGH).then(|| neighbor(body, index)).flatten());
            })
            .map_err(system("asking the kernel for neighbours"))?;
        found.retain(|neighbor| neighbor.mac.is_some());
        Ok(found)
    }

    /// Where the kernel would send what is for neighbour `ip`, if it knows.
    pub fn neighbor(&mut self, ip: IpAddr) -> Option<MacAddr> {
        let mut mac = None;
        let index = self.index;
        let body = neighbor_message(ip, index, 0);
        // An error says that there is none.
        let _ = self.asker.exchange(RTM_GETNEIGH, 0, &body, |kind, body| {
            if kind == RTM_NEWNEIGH {
                mac = neighbor(body, index).and_then(|neighbor| neighbor.mac);
            }
        });
        mac
    }

    /// Has the kernel do what it does when it has a packet for `ip`: ask for it if it isn't known, probe it if it is
    /// stale (NTF_USE). So only the kernel ever asks on the link, under its own limits.
    ///
    /// # Errors
    /// The kernel's table is full, or the interface down.
    pub fn use_neighbor(&mut self, ip: IpAddr) -> io::Result<()> {
        let body = neighbor_message(ip, self.index, NTF_USE);
        self.asker.exchange(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_ACK, &body, |_, _| {})
    }
}

/// What has changed.
#[derive(Debug, Default)]
pub struct Changes {
    /// Addresses or routes, of any interface: they are to be asked for.
    pub layout: bool,
    /// Neighbours of ours, in order.
    pub neighbors: Vec<Neighbor>,
    /// Changes were lost: everything is to be asked for.
    pub lost: bool,
}

/// Hears of changes.
#[derive(Debug)]
pub struct Watch {
    socket: OwnedFd,
    index: u32,
    buffer: Box<[u8]>,
}

impl Watch {
    /// From now on, for interface `index` of this thread's network namespace.
    ///
    /// # Errors
    /// No socket is to be had.
    pub fn new(index: u32) -> Result<Self, Error> {
        let socket = netlink::open(netlink::ROUTE, GROUPS)
            .map_err(system("listening to the kernel's news (netlink)"))?;
        Ok(Self { socket, index, buffer: netlink::buffer() })
    }

    /// Sleeps until something has changed, `waker` wakes, or `timeout` has passed.
    ///
    /// # Errors
    /// The wait itself fails.
    pub fn wait(&self, waker: &Waker, timeout: Duration) -> Result<(), Error> {
        let mut fds = [PollFd::readable(self.socket.as_fd()), PollFd::readable(waker.as_fd())];
        sys::poll(&mut fds, timeout)?;
        if fds[1].is_ready() {
            waker.clear();
        }
        Ok(())
    }

    /// What has changed since the last call, without waiting.
    pub fn changes(&mut self) -> Changes {
        let mut changes = Changes::default();
        for _ in 0..READS_MAX {
            let length = match recv(&self.socket, &mut self.buffer[..], RecvFlags::DONTWAIT) {
                Ok((length, _)) => length,
                Err(rustix::io::Errno::NOBUFS) => {
                    changes.lost = true;
                    continue;
                }
                Err(_) => break,
            };
            for (header, body) in Messages(&self.buffer[..length]) {
                match header.kind {
                    RTM_NEWADDR | RTM_DELADDR | RTM_NEWROUTE | RTM_DELROUTE => changes.layout = true,
                    RTM_NEWNEIGH => changes.neighbors.extend(neighbor(body, self.index)),
                    RTM_DELNEIGH => {
                        let gone = neighbor(body, self.index);
                        changes.neighbors.extend(gone.map(|gone| Neighbor { mac: None, ..gone }));
                    }
                    _ => {}
                }
            }
        }
        changes
    }
}

fn system(what: &'static str) -> impl Fn(io::Error) -> Error {
    move |source| Error::System { what, source }
}

/// `struct ndmsg` with the address.
fn neighbor_message(ip: IpAddr, index: u32, flags: u8) -> Vec<u8> {
    let mut body = vec![family(ip), 0, 0, 0];
    body.extend(index.to_ne_bytes());
    body.extend([0, 0, flags, 0]);
    body.extend(attribute(NDA_DST, &octets(ip)));
    body
}

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

fn family(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { libc::AF_INET as u8 } else { libc::AF_INET6 as u8 }
}

/// `struct ifaddrmsg`.
fn address(body: &[u8], index: u32) -> Option<Cidr> {
    let [_, prefix, flags, _] = field(body, 0)?;
    if u32::from_ne_bytes(field(body, 4)?) != index {
        return None;
    }
    let (mut local, mut address, mut flags) = (None, None, u32::from(flags));
    for (kind, value) in Attributes(body.get(8..)?) {
        match kind {
            IFA_LOCAL => local = ip(value),
            IFA_ADDRESS => address = ip(value),
            IFA_FLAGS => flags = u32::from_ne_bytes(field(value, 0)?),
            _ => {}
        }
    }
    let unsettled =
        flags & IFA_F_DADFAILED != 0 || flags & (IFA_F_TENTATIVE | IFA_F_OPTIMISTIC) == IFA_F_TENTATIVE;
    // On a point-to-point link the other is the peer's.
    let address = local.or(address).filter(|_| !unsettled)?;
    Some(Cidr { address, prefix })
}

/// `struct rtmsg`: priority and route, if it is one that a packet over the interface may take.
fn route(body: &[u8], index: u32) -> Option<(u32, Route)> {
    let [family, prefix, ..] = field::<4>(body, 0)?;
    let [table, _, _, kind] = field(body, 4)?;
    let flags = u32::from_ne_bytes(field(body, 8)?);
    let (mut to, mut out, mut gateway) = (None, None, None);
    let (mut priority, mut table) = (0, u32::from(table));
    for (kind, value) in Attributes(body.get(12..)?) {
        match kind {
            RTA_DST => to = ip(value),
            RTA_OIF => out = Some(u32::from_ne_bytes(field(value, 0)?)),
            RTA_GATEWAY => gateway = ip(value),
            RTA_VIA => gateway = ip(value.get(2..)?),
            RTA_PRIORITY => priority = u32::from_ne_bytes(field(value, 0)?),
            RTA_TABLE => table = u32::from_ne_bytes(field(value, 0)?),
            RTA_MULTIPATH => {
                let hop = next_hop(value, index);
                (out, gateway) = (hop.map(|_| index), hop.flatten());
            }
            _ => {}
        }
    }
    let dead = RTNH_F_DEAD | RTNH_F_LINKDOWN;
    if kind != RTN_UNICAST
        || table != RT_TABLE_MAIN
        || flags & (RTM_F_CLONED | u32::from(dead)) != 0
        || out != Some(index)
    {
        return None;
    }
    let nowhere = if i32::from(family) == libc::AF_INET { [0; 4].into() } else { [0; 16].into() };
    Some((priority, Route { to: Cidr { address: to.unwrap_or(nowhere), prefix }, gateway }))
}

/// Of several next hops the first over the interface (`struct rtnexthop`), and its gateway if it has one.
fn next_hop(mut rest: &[u8], index: u32) -> Option<Option<IpAddr>> {
    while let Some(length) = field(rest, 0).map(|length| usize::from(u16::from_ne_bytes(length))) {
        let hop = rest.get(8..length)?;
        let flags = *rest.get(2)?;
        if u32::from_ne_bytes(field(rest, 4)?) == index && flags & (RTNH_F_DEAD | RTNH_F_LINKDOWN) == 0 {
            let gateway = Attributes(hop).find_map(|(kind, value)| match kind {
                RTA_GATEWAY => ip(value),
                RTA_VIA => ip(value.get(2..)?),
                _ => None,
            });
            return Some(gateway);
        }
        rest = rest.get(align(length)..)?;
    }
    None
}

/// `struct ndmsg`.
fn neighbor(body: &[u8], index: u32) -> Option<Neighbor> {
    if u32::from_ne_bytes(field(body, 4)?) != index {
        return None;
    }
    let state = u16::from_ne_bytes(field(body, 8)?);
    let (mut who, mut mac) = (None, None);
    for (kind, value) in Attributes(body.get(12..)?) {
        match kind {
            NDA_DST => who = ip(value),
            NDA_LLADDR => mac = field(value, 0).map(MacAddr),
            _ => {}
        }
    }
    // A bridge's entries have no IP address.
    Some(Neighbor { ip: who?, mac: mac.filter(|_| state & NUD_USABLE != 0) })
}

fn ip(octets: &[u8]) -> Option<IpAddr> {
    match octets.len() {
        4 => field::<4>(octets, 0).map(IpAddr::from),
        16 => field::<16>(octets, 0).map(IpAddr::from),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use byway_lab::{KERNEL_INTERFACE, Lab, LabOptions, is_root};

    #[test]
    fn the_kernel_says_from_where_it_would_go() {
        if !is_root() {
            return;
        }
        let lab = Lab::new(LabOptions::default()).expect("a lab");
        let kernel = &lab.kernel;
        let on_interface = |what: &str| format!("{what} dev {KERNEL_INTERFACE}");
        for command in [
            on_interface("ip addr add 10.9.8.7/24"),
            "ip route add 198.51.100.0/24 via 10.9.8.1".to_owned(),
            on_interface("ip route add 203.0.113.0/24 src 10.9.8.7"),
            "ip route add unreachable 198.51.100.128/25".to_owned(),
        ] {
            kernel.run(&command).expect(&command);
        }
        let index = kernel.ifindex(KERNEL_INTERFACE).expect("an index");
        let mut asked = kernel.enter(|| Rtnetlink::new(index).expect("a socket"));
        let mut from = |to: &str| asked.source(to.parse().expect("an address")).map(|ip| ip.to_string());
        assert_eq!(from("192.0.2.9").as_deref(), Some("192.0.2.2"));
        assert_eq!(from("198.51.100.1").as_deref(), Some("10.9.8.7"), "by the gateway's link");
        assert_eq!(from("203.0.113.1").as_deref(), Some("10.9.8.7"), "by the route's word");
        assert_eq!(from("2001:db8::9").as_deref(), Some("2001:db8::2"));
        assert_eq!(from("198.51.100.129"), None, "unreachable");
        assert_eq!(from("192.0.2.2"), None, "its own");
        assert_eq!(from("127.0.0.1"), None);
        assert_eq!(from("2001:db8:9::9"), None, "no route");
    }
}
