//! What stands between the hosts: a switch, or a router with an MTU of its own.
//!
//! ```text
//!   host 0 ──up──→ ┌────────┐ ──down─→ host 0        switch: one network, frames go where their MAC says
//!   host 1 ──up──→ │ middle │ ──down─→ host 1        router: a network each; the router is everybody's gateway,
//!      …           └────────┘    …                           answers ARP and NDP, counts TTLs down, and tells of
//! ```                                                        packets that are too big (RFC 1191, RFC 4443 §3.2)

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use byway_tcp::wire::MacAddr;

use crate::headers::{self, ETHERNET, be16, checksum, ethertype};

const ICMPV6: u8 = 58;
/// RFC 4861 §7.1: neighbour discovery comes from the link itself.
const HOP_LIMIT_OWN: u8 = 255;
const TTL: u8 = 64;

/// How the hosts are connected.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Topology {
    /// All on one network.
    Switch,
    /// Each on its own, behind a router.
    Router {
        /// Whether it says why it drops a packet that is too big.
        tells: bool,
    },
}

/// The MAC address of host `index`.
pub fn host_mac(index: usize) -> MacAddr {
    MacAddr([2, 0, 0, 0, 0, index as u8 + 1])
}

/// The address of host `index`.
pub fn host_ip(topology: Topology, index: usize, v6: bool) -> IpAddr {
    let host = index as u8 + 1;
    let subnet = if topology == Topology::Switch { 0 } else { host };
    if v6 {
        Ipv6Addr::new(0xfd00, 0, 0, subnet.into(), 0, 0, 0, host.into()).into()
    } else {
        Ipv4Addr::new(10, 0, subnet, host).into()
    }
}

/// The router's address towards host `index`.
pub fn gateway_ip(index: usize, v6: bool) -> IpAddr {
    let subnet = index as u8 + 1;
    if v6 {
        Ipv6Addr::new(0xfd00, 0, 0, subnet.into(), 0, 0, 0, 254).into()
    } else {
        Ipv4Addr::new(10, 0, subnet, 254).into()
    }
}

fn router_mac(index: usize) -> MacAddr {
    MacAddr([2, 0, 0, 0, 1, index as u8 + 1])
}

/// The switch or router, and what it has dropped.
#[derive(Debug)]
pub struct Middle {
    topology: Topology,
    hosts: usize,
    strips_sack: bool,
    /// Largest packet that a router forwards, octets.
    pub mtu: usize,
    /// No such host, no route, hop limit reached, not for a router.
    pub unroutable: u64,
    /// Packets larger than `mtu`.
    pub too_big: u64,
}

impl Middle {
    /// For so many hosts. `strips_sack`: SACK blocks are taken out on the way.
    pub fn new(topology: Topology, hosts: usize, strips_sack: bool) -> Self {
        Self { topology, hosts, strips_sack, mtu: usize::MAX, unroutable: 0, too_big: 0 }
    }

    /// A frame from host `from`: what goes out, and to which host.
    pub fn forward(&mut self, from: usize, mut frame: Vec<u8>, out: &mut Vec<(usize, Vec<u8>)>) {
        if self.strips_sack {
            headers::strip_sack(&mut frame);
        }
        let before = out.len();
        match self.topology {
            Topology::Switch => self.switch(from, frame, out),
            Topology::Router { tells } => self.route(from, frame, tells, out),
        }
        self.unroutable += u64::from(out.len() == before);
    }

    fn switch(&self, from: usize, frame: Vec<u8>, out: &mut Vec<(usize, Vec<u8>)>) {
        let group = frame[0] & 1 != 0;
        for to in (0..self.hosts).filter(|&to| to != from) {
            if group {
                out.push((to, frame.clone()));
            } else if frame[..6] == host_mac(to).0 {
                out.push((to, frame));
                return;
            }
        }
    }

    fn route(&mut self, from: usize, mut frame: Vec<u8>, tells: bool, out: &mut Vec<(usize, Vec<u8>)>) {
        if headers::is_arp(&frame) {
            if let Some(answer) = arp_reply(from, &frame) {
                out.push((from, answer));
            }
            return;
        }
        let v6 = ethertype(&frame) == headers::IPV6;
        if frame.len() < ETHERNET + if v6 { 40 } else { 20 } {
            return;
        }
        if v6
            && frame[ETHERNET + 6] == ICMPV6
            && let Some(answer) = neighbor_advertisement(from, &frame)
        {
            out.push((from, answer));
            return;
        }
        if frame[..6] != router_mac(from).0 || !self.is_whole(&frame, v6) {
            return;
        }
        let dst = destination(&frame, v6);
        let Some(to) = (0..self.hosts).find(|&to| host_ip(self.topology, to, v6) == dst) else { return };
        if frame.len() - ETHERNET > self.mtu {
            self.too_big += 1;
            if tells {
                out.push((from, too_big(from, &frame, self.mtu)));
            }
            return;
        }
        let hops = ETHERNET + if v6 { 7 } else { 8 };
        if frame[hops] <= 1 {
            return;
        }
        frame[hops] -= 1;
        if !v6 {
            headers::seal_ipv4(&mut frame);
        }
        frame[..6].copy_from_slice(&host_mac(to).0);
        frame[6..12].copy_from_slice(&router_mac(to).0);
        out.push((to, frame));
    }

    /// RFC 1812 §5.2.2: a router drops what its header's checksum contradicts, instead of mending it.
    fn is_whole(&self, frame: &[u8], v6: bool) -> bool {
        let header = ETHERNET + usize::from(frame[ETHERNET] & 0xf) * 4;
        match frame[ETHERNET] >> 4 {
            4 => {
                !v6 && (ETHERNET + 20..=frame.len()).contains(&header)
                    && checksum(&frame[ETHERNET..header], 0) == 0
            }
            6 => v6,
            _ => false,
        }
    }
}

fn destination(frame: &[u8], v6: bool) -> IpAddr {
    if v6 { address_v6(frame, ETHERNET + 24).into() } else { address_v4(frame, ETHERNET + 16).into() }
}

fn address_v4(frame: &[u8], at: usize) -> Ipv4Addr {
    Ipv4Addr::new(frame[at], frame[at + 1], frame[at + 2], frame[at + 3])
}

fn address_v6(frame: &[u8], at: usize) -> Ipv6Addr {
    let mut octets = [0; 16];
    octets.copy_from_slice(&frame[at..at + 16]);
    octets.into()
}

/// RFC 826, for the gateway's address only.
fn arp_reply(from: usize, request: &[u8]) -> Option<Vec<u8>> {
    let for_us = request.len() >= ETHERNET + 28
        && be16(request, ETHERNET + 6) == 1
        && IpAddr::from(address_v4(request, ETHERNET + 24)) == gateway_ip(from, false);
    if !for_us {
        return None;
    }
    let mut reply = request[..ETHERNET + 28].to_vec();
    reply.copy_within(6..12, 0);
    reply[6..12].copy_from_slice(&router_mac(from).0);
    reply[ETHERNET + 7] = 2;
    reply.copy_within(ETHERNET + 8..ETHERNET + 18, ETHERNET + 18);
    reply[ETHERNET + 8..ETHERNET + 14].copy_from_slice(&router_mac(from).0);
    reply[ETHERNET + 14..ETHERNET + 18].copy_from_slice(&request[ETHERNET + 24..ETHERNET + 28]);
    Some(reply)
}

/// RFC 4861 §7.2.4, for the gateway's address only.
fn neighbor_advertisement(from: usize, solicitation: &[u8]) -> Option<Vec<u8>> {
    const ICMP: usize = ETHERNET + 40;
    let gateway = gateway_ip(from, true);
    let for_us = solicitation.len() >= ICMP + 24
        && solicitation[ICMP] == 135
        && checksum(&solicitation[ICMP..], pseudo_v6(solicitation)) == 0
        && IpAddr::from(address_v6(solicitation, ICMP + 8)) == gateway;
    if !for_us {
        return None;
    }
    let mut body = vec![136, 0, 0, 0, 0xe0, 0, 0, 0]; // Router, solicited, override.
    body.extend_from_slice(&solicitation[ICMP + 8..ICMP + 24]);
    body.extend_from_slice(&[2, 1]);
    body.extend_from_slice(&router_mac(from).0);
    let asker = address_v6(solicitation, ETHERNET + 8);
    Some(packet(from, gateway, asker.into(), body))
}

/// RFC 792 with RFC 1191 §4, and RFC 4443 §3.2: the packet's beginning comes back with the MTU.
fn too_big(from: usize, frame: &[u8], mtu: usize) -> Vec<u8> {
    let v6 = ethertype(frame) == headers::IPV6;
    let mut body = if v6 { vec![2, 0, 0, 0, 0, 0, 0, 0] } else { vec![3, 4, 0, 0, 0, 0, 0, 0] };
    body[6..8].copy_from_slice(&(mtu as u16).to_be_bytes());
    // RFC 1812 §4.3.2.3: no longer than 576 octets in all; RFC 4443 §3.2: than 1280.
    let quoted = if v6 { 1280 - 48 } else { 576 - 28 };
    body.extend_from_slice(&frame[ETHERNET..frame.len().min(ETHERNET + quoted)]);
    let sender =
        if v6 { address_v6(frame, ETHERNET + 8).into() } else { address_v4(frame, ETHERNET + 12).into() };
    packet(from, gateway_ip(from, v6), sender, body)
}

/// An ICMP message of the router's own, its checksum filled in, to host `to`.
fn packet(to: usize, src: IpAddr, dst: IpAddr, mut body: Vec<u8>) -> Vec<u8> {
    let mut frame = Vec::with_capacity(ETHERNET + 40 + body.len());
    frame.extend_from_slice(&host_mac(to).0);
    frame.extend_from_slice(&router_mac(to).0);
    match (src, dst) {
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            frame.extend_from_slice(&headers::IPV6.to_be_bytes());
            frame.extend_from_slice(&[0x60, 0, 0, 0]);
            frame.extend_from_slice(&(body.len() as u16).to_be_bytes());
            frame.extend_from_slice(&[ICMPV6, HOP_LIMIT_OWN]);
            frame.extend_from_slice(&src.octets());
            frame.extend_from_slice(&dst.octets());
            let sum = checksum(&body, pseudo_v6(&frame));
            body[2..4].copy_from_slice(&sum.to_be_bytes());
        }
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            frame.extend_from_slice(&headers::IPV4.to_be_bytes());
            frame.extend_from_slice(&[0x45, 0]);
            frame.extend_from_slice(&(20 + body.len() as u16).to_be_bytes());
            frame.extend_from_slice(&[0, 0, 0x40, 0, TTL, 1, 0, 0]);
            frame.extend_from_slice(&src.octets());
            frame.extend_from_slice(&dst.octets());
            headers::seal_ipv4(&mut frame);
            let sum = checksum(&body, 0);
            body[2..4].copy_from_slice(&sum.to_be_bytes());
        }
        _ => unreachable!("the router answers in the family it was asked in"),
    }
    frame.extend_from_slice(&body);
    frame
}

/// The pseudo-header's sum of the ICMPv6 packet behind Ethernet's header (RFC 8200 §8.1).
fn pseudo_v6(frame: &[u8]) -> u32 {
    let addresses = frame[ETHERNET + 8..ETHERNET + 40].chunks(2);
    let sum: u32 = addresses.map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    sum + u32::from(be16(frame, ETHERNET + 4)) + u32::from(ICMPV6)
}
