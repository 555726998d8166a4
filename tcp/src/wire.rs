//! Wire formats: views over received octets, and headers written in front of a payload.
//!
//! ```text
//!  received:  [ ethernet (+0..2 VLAN tags) | IPv4/IPv6 (+options) | TCP (+options) | payload | padding ]
//!                                                                                   └─ trimmed to the IP length
//!  parse() reads the headers once, from left to right, and gives offsets into the frame;
//!  emit() writes them from right to left: tcp::Emit::emit → ip::emit → ethernet::Header::emit.
//! ```
//!
//! Nothing here keeps state, copies payload or allocates. What a peer sends can't make any of it
//! panic: lengths are checked before octets are read, and every refusal is a [`DropReason`].
//! Asserted are only our own mistakes, such as too little headroom when emitting.
//!
//! Offsets count from the start of the slice given to [`parse`], where the Ethernet header begins.

pub mod arp;
pub mod checksum;
pub mod ethernet;
pub mod fragment;
pub mod icmp;
pub mod icmpv6;
pub mod ip;
mod ipv4;
mod ipv6;
pub(crate) mod merge;
mod options;
pub(crate) mod plain;
pub mod tcp;

#[cfg(test)]
mod tests;

use crate::counters::DropReason;

/// An Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// Every station of the link.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// Whether the I/G bit is set: multicast or broadcast (IEEE 802.3 §3.2.3). No station sends
    /// *from* such an address.
    #[inline]
    pub const fn is_group(self) -> bool {
        self.0[0] & 1 != 0
    }
}

impl core::fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// How strictly the TCP checksum of received segments is verified.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Checksums {
    /// Every segment's checksum must be right.
    #[default]
    Verify,
    /// Also accept the folded pseudo-header sum that a local kernel leaves for offload
    /// (veth, virtio with checksum offload on).
    AcceptPartial,
}

/// A received frame: whole, consistent, checksums right, addresses possible.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Packet {
    /// The Ethernet header, VLAN tags included.
    pub link: ethernet::Header,
    /// What the frame carries.
    pub body: Body,
}

/// What a frame carries, as far as byway speaks it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Body {
    /// Address resolution of IPv4 (RFC 826).
    Arp(arp::Packet),
    /// Part of a datagram: its protocol's checksum is still to be verified.
    Fragment(ip::Header, fragment::Fragment),
    /// A TCP segment (RFC 9293 §3.1).
    Tcp(ip::Header, tcp::Segment),
    /// ICMP (RFC 792) in IPv4, checksum verified: see [`icmp::parse`].
    Icmpv4(ip::Header),
    /// ICMPv6 (RFC 4443) in IPv6, checksum verified: see [`icmpv6::parse`].
    Icmpv6(ip::Header),
}

/// Reads a received frame, whose first octet is the Ethernet header's first.
///
/// The caller still has to compare MAC and IP destinations with its own addresses, and the IP
/// source with its own addresses and its links' broadcast addresses.
///
/// # Errors
/// The one [`DropReason`] to count.
#[inline]
pub fn parse(frame: &[u8], checksums: Checksums) -> Result<Packet, DropReason> {
    let link = ethernet::Header::parse(frame)?;
    // A reply would go to a group (L6).
    if link.src.is_group() {
        return Err(DropReason::Martian);
    }
    let (ip, fragment) = match link.ethertype {
        ethernet::IPV4 => ipv4::parse(frame, link.len(), frame.len())?,
        ethernet::IPV6 => ipv6::parse(frame, link.len(), frame.len())?,
        ethernet::ARP => {
            let body = Body::Arp(arp::Packet::parse(&frame[link.len()..])?);
            return Ok(Packet { link, body });
        }
        _ => return Err(DropReason::Unsupported),
    };
    if let Some(fragment) = fragment {
        ip::check_unicast(&link, &ip)?;
        fragment.check(&ip)?;
        return Ok(Packet { link, body: Body::Fragment(ip, fragment) });
    }
    let body = match (ip.protocol, link.ethertype) {
        (ip::TCP, _) => {
            ip::check_unicast(&link, &ip)?;
            Body::Tcp(ip, tcp::Segment::parse(frame, &ip, checksums)?)
        }
        (ip::ICMP, ethernet::IPV4) => {
            // RFC 1122 §3.2.2.6: an echo request to a group may be dropped; a group of answers
            // to one question is an amplifier.
            ip::check_unicast(&link, &ip)?;
            icmp::verify(frame, &ip)?;
            Body::Icmpv4(ip)
        }
        (ip::ICMPV6, ethernet::IPV6) => {
            icmpv6::verify(frame, &ip)?;
            Body::Icmpv6(ip)
        }
        _ => return Err(DropReason::Unsupported),
    };
    Ok(Packet { link, body })
}

/// Reads the headers of a packet that begins in `head` and goes on in other frames, for `beyond` octets in all. The
/// payload's offset counts in `head`, its length over all frames.
///
/// # Errors
/// As [`parse`]; `Scattered` if it is no IP packet, or part of one.
pub(crate) fn parse_scattered(
    head: &[u8],
    beyond: usize,
) -> Result<(ethernet::Header, ip::Header), DropReason> {
    let link = ethernet::Header::parse(head)?;
    if link.src.is_group() {
        return Err(DropReason::Martian);
    }
    let (ip, fragment) = match link.ethertype {
        ethernet::IPV4 => ipv4::parse(head, link.len(), head.len() + beyond)?,
        ethernet::IPV6 => ipv6::parse(head, link.len(), head.len() + beyond)?,
        _ => return Err(DropReason::Scattered),
    };
    if fragment.is_some() {
        return Err(DropReason::Scattered);
    }
    ip::check_unicast(&link, &ip)?;
    Ok((link, ip))
}

/// The `N` octets at `at`, or `Truncated`.
#[inline]
fn octets<const N: usize>(from: &[u8], at: usize) -> Result<&[u8; N], DropReason> {
    from.get(at..).and_then(|rest| rest.first_chunk()).ok_or(DropReason::Truncated)
}

/// The big-endian 16 bits at `at`, which the caller has checked to be there.
#[inline]
fn be16(from: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([from[at], from[at + 1]])
}

/// The big-endian 32 bits at `at`, which the caller has checked to be there.
#[inline]
fn be32(from: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([from[at], from[at + 1], from[at + 2], from[at + 3]])
}

/// The `N` octets in front of `end`, to be written.
#[inline]
fn in_front<const N: usize>(frame: &mut [u8], end: usize) -> &mut [u8; N] {
    frame[..end].last_chunk_mut().expect("headers have room in front of what they carry")
}

/// Writes a field at `at`.
#[inline]
fn put<const N: usize>(to: &mut [u8], at: usize, field: [u8; N]) {
    to[at..at + N].copy_from_slice(&field);
}
