//! Fragments of IP datagrams (RFC 791 §3.2, RFC 8200 §4.5). S6.2
//!
//! ```text
//!  datagram   [ header │ payload, 3008 octets                                       ]
//!  at 1500    [ header │ 0..1480 ]  [ header │ 1480..2960 ]  [ header │ 2960..3008 ]
//!                        more         more                     last
//! ```
//!
//! Only the payload is split, in units of eight octets; each piece has the datagram's addresses and
//! identification. IPv4 says so in the header's own fields, IPv6 in a header of its own behind it.

use core::net::IpAddr;
use core::ops::Range;

use super::{checksum, ip, ipv4, ipv6, put};
use crate::counters::DropReason;

/// Octets of IPv6's fragment header.
pub(super) const HEADER_LEN: usize = 8;
/// Offsets count in these.
pub const UNIT: usize = 8;
/// Payload octets a datagram can have at most: its length field has 16 bits, in IPv4 header included.
const PAYLOAD_MAX_V4: usize = 65_535 - ipv4::MIN_LEN;
const PAYLOAD_MAX_V6: usize = 65_535;
/// A TCP header without options.
const TCP_HEADER_LEN: usize = 20;

/// Which part of which datagram.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fragment {
    /// The datagram's, unique for its sender, receiver and (IPv4) protocol: 16 bits in IPv4.
    pub id: u32,
    /// Where it begins in the datagram's payload, octets: a multiple of eight.
    pub offset: usize,
    /// It isn't the last.
    pub more: bool,
}

impl Fragment {
    /// From the 16 bits that both families use alike but for where the flag stands.
    pub(super) fn from_offset(id: u32, offset: u16, more: bool) -> Self {
        Self { id, offset: usize::from(offset) * UNIT, more }
    }

    /// Refuses what no sender makes, before any memory is spent on it. L4
    pub(super) fn check(&self, ip: &ip::Header) -> Result<(), DropReason> {
        let len = ip.payload.1;
        let max = if ip.src.is_ipv4() { PAYLOAD_MAX_V4 } else { PAYLOAD_MAX_V6 };
        // Empty; not in units though others follow; or it would make the datagram too long ("ping of death").
        let impossible = len == 0 || (self.more && !len.is_multiple_of(UNIT)) || self.offset + len > max;
        // RFC 1858 §3, RFC 3128: a TCP header is never split.
        let tiny = ip.protocol == ip::TCP
            && ((self.offset == 0 && len < TCP_HEADER_LEN) || (1..TCP_HEADER_LEN).contains(&self.offset));
        if impossible || tiny { Err(DropReason::FragmentHeader) } else { Ok(()) }
    }

    /// Writes the headers of a fragment in front of `start`, for its payload `start..end`, and returns where
    /// they begin.
    ///
    /// # Panics
    /// If there is no room in front of `start`.
    pub fn emit(
        &self,
        frame: &mut [u8],
        start: usize,
        end: usize,
        src: IpAddr,
        dst: IpAddr,
        protocol: u8,
    ) -> usize {
        let (units, more) = ((self.offset / UNIT) as u16, u16::from(self.more));
        if src.is_ipv6() {
            let at = start - HEADER_LEN;
            put(frame, at, [protocol, 0]);
            put(frame, at + 2, (units << 3 | more).to_be_bytes());
            put(frame, at + 4, self.id.to_be_bytes());
            return ip::emit(frame, at, end, src, dst, ipv6::FRAGMENT, 0);
        }
        let at = ip::emit(frame, start, end, src, dst, protocol, 0);
        let header = &mut frame[at..start];
        put(header, ipv4::ID, (self.id as u16).to_be_bytes());
        put(header, ipv4::FRAGMENT, (more << 13 | units).to_be_bytes());
        put(header, ipv4::CHECKSUM, [0, 0]);
        let sum = checksum::finish(checksum::sum(header));
        put(header, ipv4::CHECKSUM, sum.to_be_bytes());
        at
    }
}

/// Cuts a payload of `len` octets into what packets of `mtu` octets to `dst` can carry: ranges of it, in order,
/// all but the last a multiple of eight long. One range if it fits as a whole.
///
/// # Panics
/// If `mtu` has no room for eight octets.
pub fn split(len: usize, mtu: usize, dst: IpAddr) -> impl Iterator<Item = Range<usize>> {
    let whole = mtu - ip::header_len(dst);
    let extra = if dst.is_ipv6() { HEADER_LEN } else { 0 };
    let step = if len <= whole { len.max(1) } else { (whole - extra) / UNIT * UNIT };
    (0..len.max(1)).step_by(step).map(move |at| at..(at + step).min(len))
}
