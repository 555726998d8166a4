//! ARP for IPv4 over Ethernet (RFC 826), with the probes of RFC 5227.
//!
//! ```text
//!  0      2      4    5    6   8          14         18         24         28
//!  ┌──────┬──────┬────┬────┬───┬──────────┬──────────┬──────────┬──────────┐
//!  │htype │ptype │hlen│plen│op │sender mac│sender ip │target mac│target ip │
//!  └──────┴──────┴────┴────┴───┴──────────┴──────────┴──────────┴──────────┘
//! ```

use core::net::Ipv4Addr;
use core::ops::Range;

use super::ethernet::{self, VlanTags};
use super::{MacAddr, be16, be32, octets, put};
use crate::counters::DropReason;

/// Octets of an ARP packet for IPv4 over Ethernet.
pub const LEN: usize = 28;
/// Hardware type Ethernet, protocol type IPv4, their address lengths.
const ETHERNET_IPV4: [u8; 6] = [0, 1, 0x08, 0x00, 6, 4];

const OPERATION: usize = 6;
const SENDER_MAC: usize = 8;
const SENDER_IP: usize = 14;
const TARGET_MAC: usize = 18;
const TARGET_IP: usize = 24;

/// Question or answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operation {
    /// "Who has `target_ip`? Tell `sender_ip`."
    Request = 1,
    /// "`sender_ip` is at `sender_mac`."
    Reply = 2,
}

/// An ARP packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Packet {
    /// Question or answer.
    pub operation: Operation,
    /// Who sent it.
    pub sender_mac: MacAddr,
    /// Who sent it; 0.0.0.0 in an address probe (RFC 5227 §2.1.1), of which nothing is to be learned.
    pub sender_ip: Ipv4Addr,
    /// Meaningless in a request.
    pub target_mac: MacAddr,
    /// Who is asked for, or answered.
    pub target_ip: Ipv4Addr,
}

impl Packet {
    /// Reads an ARP packet; what follows it is Ethernet padding.
    ///
    /// # Errors
    /// `Truncated`; `ControlBody` if it isn't a request or reply for IPv4 over Ethernet;
    /// `Martian` if the sender has a group address, or an IP no station can have.
    pub fn parse(body: &[u8]) -> Result<Self, DropReason> {
        let body: &[u8; LEN] = octets(body, 0)?;
        if !body.starts_with(&ETHERNET_IPV4) {
            return Err(DropReason::ControlBody);
        }
        let operation = match be16(body, OPERATION) {
            1 => Operation::Request,
            2 => Operation::Reply,
            _ => return Err(DropReason::ControlBody),
        };
        let packet = Self {
            operation,
            sender_mac: MacAddr(*octets(body, SENDER_MAC)?),
            sender_ip: Ipv4Addr::from_bits(be32(body, SENDER_IP)),
            target_mac: MacAddr(*octets(body, TARGET_MAC)?),
            target_ip: Ipv4Addr::from_bits(be32(body, TARGET_IP)),
        };
        let ip = packet.sender_ip;
        if packet.sender_mac.is_group() || ip.is_multicast() || ip.is_broadcast() || ip.is_loopback() {
            return Err(DropReason::Martian);
        }
        Ok(packet)
    }

    /// Writes the packet at `start` and returns where it ends.
    fn emit(&self, frame: &mut [u8], start: usize) -> usize {
        let body = &mut frame[start..start + LEN];
        put(body, 0, ETHERNET_IPV4);
        put(body, OPERATION, (self.operation as u16).to_be_bytes());
        put(body, SENDER_MAC, self.sender_mac.0);
        put(body, SENDER_IP, self.sender_ip.octets());
        put(body, TARGET_MAC, self.target_mac.0);
        put(body, TARGET_IP, self.target_ip.octets());
        start + LEN
    }
}

/// Turns a received request into its reply in the same frame (RFC 826, "Packet Reception"): the
/// caller has seen that `arp.target_ip` is its own. Returns where the reply lies.
///
/// # Panics
/// If `frame` is shorter than the request was.
pub fn reply_in_place(
    frame: &mut [u8],
    link: &ethernet::Header,
    arp: &Packet,
    our_mac: MacAddr,
) -> Range<usize> {
    let reply = Packet {
        operation: Operation::Reply,
        sender_mac: our_mac,
        sender_ip: arp.target_ip,
        target_mac: arp.sender_mac,
        target_ip: arp.sender_ip,
    };
    let end = reply.emit(frame, link.len());
    // "Send the packet to the (new) target hardware address."
    let start = ethernet::Header { dst: arp.sender_mac, ..link.answer(our_mac) }.emit(frame, link.len());
    start..end
}

/// Writes a request for `target` at `start`: to everybody, or to `probe` alone when only a known
/// neighbour's presence is asked (RFC 1122 §2.3.2.1 (2)). Returns where it lies.
///
/// # Panics
/// If `frame` has no 50 octets from `start` on.
pub fn emit_request(
    frame: &mut [u8],
    start: usize,
    vlan: VlanTags,
    our_mac: MacAddr,
    our_ip: Ipv4Addr,
    target: Ipv4Addr,
    probe: Option<MacAddr>,
) -> Range<usize> {
    let dst = probe.unwrap_or(MacAddr::BROADCAST);
    let link = ethernet::Header { dst, src: our_mac, vlan, ethertype: ethernet::ARP };
    let request = Packet {
        operation: Operation::Request,
        sender_mac: our_mac,
        sender_ip: our_ip,
        target_mac: MacAddr::default(),
        target_ip: target,
    };
    let end = request.emit(frame, start + link.len());
    link.emit(frame, start + link.len())..end
}
