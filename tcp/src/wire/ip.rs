//! What TCP needs of IPv4 (RFC 791) and IPv6 (RFC 8200), in one shape.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{ethernet, ipv4, ipv6};
use crate::counters::DropReason;

/// Protocol number of ICMP.
pub const ICMP: u8 = 1;
/// Protocol number of TCP.
pub const TCP: u8 = 6;
/// Protocol number of ICMPv6.
pub const ICMPV6: u8 = 58;

/// The two ECN bits "congestion experienced" (RFC 3168 §5). S4.2
pub const ECN_CE: u8 = 0b11;
/// ECN-capable transport, the code point to send (RFC 3168 §5: ECT(0)).
pub const ECN_ECT0: u8 = 0b10;

/// Hops a packet of ours may make: the recommended default (RFC 1700, RFC 4861 §6.3.2's usual value).
pub const HOP_LIMIT: u8 = 64;

/// A received IP header of either family.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// Sender.
    pub src: IpAddr,
    /// Receiver, of the same family.
    pub dst: IpAddr,
    /// What the payload is, after IPv6 extension headers.
    pub protocol: u8,
    /// The two ECN bits (RFC 3168 §5).
    pub ecn: u8,
    /// TTL or hop limit as it arrived.
    pub hop_limit: u8,
    /// Offset in the frame and length, in octets; Ethernet padding is not part of it.
    pub payload: (usize, usize),
}

impl Header {
    /// The payload's octets.
    ///
    /// # Panics
    /// If `frame` isn't the one the header was read from.
    #[inline]
    pub fn payload_of<'a>(&self, frame: &'a [u8]) -> &'a [u8] {
        let (at, len) = self.payload;
        &frame[at..at + len]
    }
}

/// Octets of the header that [`emit`] writes for this address's family: 20 or 40.
#[inline]
pub const fn header_len(ip: IpAddr) -> usize {
    match ip {
        IpAddr::V4(_) => ipv4::MIN_LEN,
        IpAddr::V6(_) => ipv6::FIXED_LEN,
    }
}

/// Writes an IP header directly in front of `start`, for the payload `start..end`, and returns
/// where the header begins. IPv4 with DF and identification 0 (RFC 6864 §4.1: an atomic datagram
/// needs none) and header checksum; both with a hop limit of 64.
///
/// # Panics
/// If there is no room in front of `start`, or the payload is longer than 65,515 octets.
#[inline]
pub fn emit(
    frame: &mut [u8],
    start: usize,
    end: usize,
    src: IpAddr,
    dst: IpAddr,
    protocol: u8,
    ecn: u8,
) -> usize {
    emit_hops(frame, start, end, src, dst, protocol, ecn & 0b11, HOP_LIMIT)
}

/// [`emit`] with a hop limit of the caller's choice (NDP wants 255), and the whole traffic class: DSCP and ECN (RFC
/// 2474 §3), as the caller says it (RFC 9293 §3.9.1.9, SHLD-22).
#[inline]
#[allow(clippy::too_many_arguments)] // One per header field.
pub(crate) fn emit_hops(
    frame: &mut [u8],
    start: usize,
    end: usize,
    src: IpAddr,
    dst: IpAddr,
    protocol: u8,
    traffic_class: u8,
    hop_limit: u8,
) -> usize {
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            ipv4::emit(frame, start, end, src, dst, protocol, traffic_class, hop_limit)
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            ipv6::emit(frame, start, end, src, dst, protocol, traffic_class, hop_limit)
        }
        _ => {
            debug_assert!(false, "mixed address families");
            start
        }
    }
}

/// For protocols of which each packet has one sender and one receiver, TCP above all: refuses what
/// was sent to a group, and senders that can't exist (L6; RFC 9293 MUST-57, MUST-63, RFC 1122 §3.2.1.3).
#[inline]
pub(super) fn check_unicast(link: &ethernet::Header, ip: &Header) -> Result<(), DropReason> {
    let impossible = match (ip.src, ip.dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => no_source_v4(src) || no_destination_v4(dst),
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            src.is_unspecified() || no_source_v6(src) || no_destination_v6(dst)
        }
        _ => true,
    };
    // LAND: an answer to oneself. And a group MAC around a unicast packet makes many receivers
    // answer for one (RFC 1122 §3.3.6).
    if impossible || ip.src == ip.dst || link.dst.is_group() {
        return Err(DropReason::Martian);
    }
    Ok(())
}

/// "This network", loopback, multicast, limited broadcast (RFC 1122 §3.2.1.3).
fn no_source_v4(ip: Ipv4Addr) -> bool {
    let first = ip.octets()[0];
    matches!(first, 0 | 127) || ip.is_multicast() || ip.is_broadcast()
}

fn no_destination_v4(ip: Ipv4Addr) -> bool {
    no_source_v4(ip)
}

/// Loopback and multicast (RFC 4291 §2.5.3, §2.7); an IPv4-mapped address on the wire would be
/// taken for an IPv4 peer by anything that unmaps it (RFC 4942 §2.2), so it isn't let in.
pub(super) fn no_source_v6(ip: Ipv6Addr) -> bool {
    ip.is_loopback() || ip.is_multicast() || ip.to_ipv4_mapped().is_some()
}

fn no_destination_v6(ip: Ipv6Addr) -> bool {
    ip.is_unspecified() || no_source_v6(ip)
}
