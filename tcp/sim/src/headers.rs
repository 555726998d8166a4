//! What the network reads of a frame: as a switch, a router or Wireshark would, not as byway does.
//!
//! Written apart from `byway_tcp::wire` on purpose: an error there would otherwise be mirrored here.

use crate::fault::Fault;

/// Octets of an Ethernet header without VLAN tag.
pub const ETHERNET: usize = 14;

pub(crate) const ARP: u16 = 0x0806;
pub(crate) const IPV4: u16 = 0x0800;
pub(crate) const IPV6: u16 = 0x86dd;
const TCP: u8 = 6;

pub(crate) fn ethertype(frame: &[u8]) -> u16 {
    if frame.len() < ETHERNET { 0 } else { u16::from_be_bytes([frame[12], frame[13]]) }
}

pub(crate) fn is_arp(frame: &[u8]) -> bool {
    ethertype(frame) == ARP
}

pub(crate) fn be16(from: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([from[at], from[at + 1]])
}

pub(crate) fn be32(from: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([from[at], from[at + 1], from[at + 2], from[at + 3]])
}

/// RFC 1071 over `octets`, on top of `sum`.
pub(crate) fn checksum(octets: &[u8], sum: u32) -> u16 {
    let mut sum = u64::from(sum);
    for pair in octets.chunks(2) {
        sum += u64::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// Writes the checksum of the IPv4 header behind Ethernet's.
pub(crate) fn seal_ipv4(frame: &mut [u8]) {
    let end = ETHERNET + usize::from(frame[ETHERNET] & 0xf) * 4;
    frame[ETHERNET + 10..ETHERNET + 12].fill(0);
    let sum = checksum(&frame[ETHERNET..end], 0);
    frame[ETHERNET + 10..ETHERNET + 12].copy_from_slice(&sum.to_be_bytes());
}

/// Sets Congestion Experienced where the transport can hear it (RFC 3168 §5). False where it can't.
pub(crate) fn mark_ce(frame: &mut [u8]) -> bool {
    match ethertype(frame) {
        IPV4 if frame.len() >= ETHERNET + 20 && frame[ETHERNET + 1] & 3 != 0 => {
            frame[ETHERNET + 1] |= 3;
            seal_ipv4(frame);
            true
        }
        IPV6 if frame.len() >= ETHERNET + 40 && frame[ETHERNET + 1] & 0x30 != 0 => {
            frame[ETHERNET + 1] |= 0x30;
            true
        }
        _ => false,
    }
}

/// Makes a segment say what it mustn't. Its checksum stays, so that nobody believes it.
pub(crate) fn spoil(frame: &mut [u8], fault: Fault) {
    let Some(segment) = Segment::of(frame) else { return };
    let at = if ethertype(frame) == IPV4 { ETHERNET + 20 } else { ETHERNET + 40 };
    let (seq, ack) = (at + 4, at + 8);
    let (field, value) = match fault {
        Fault::AckUnseen if segment.is_pure_ack() => (ack, segment.ack.wrapping_add(1)),
        Fault::Overrun if segment.len > 0 => (seq, segment.seq.wrapping_add(1 << 26)),
        Fault::ShrinkWindow if segment.is_pure_ack() => (at + 12, be32(frame, at + 12) & 0xffff_0000),
        _ => return,
    };
    frame[field..field + 4].copy_from_slice(&value.to_be_bytes());
}

/// A TCP segment, as far as the simulator looks at it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segment {
    /// Source and destination port.
    pub ports: (u16, u16),
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// CWR ECE URG ACK PSH RST SYN FIN.
    pub flags: u8,
    /// Payload octets.
    pub len: u32,
}

pub(crate) const FIN: u8 = 1;
pub(crate) const SYN: u8 = 2;
pub(crate) const RST: u8 = 4;
pub(crate) const ACK: u8 = 16;

impl Segment {
    /// The segment in `frame`; `None` for anything else.
    pub fn of(frame: &[u8]) -> Option<Self> {
        let (at, end) = match ethertype(frame) {
            IPV4 if frame.len() >= ETHERNET + 20 && frame[ETHERNET + 9] == TCP => (
                ETHERNET + usize::from(frame[ETHERNET] & 0xf) * 4,
                ETHERNET + usize::from(be16(frame, ETHERNET + 2)),
            ),
            IPV6 if frame.len() >= ETHERNET + 40 && frame[ETHERNET + 6] == TCP => {
                (ETHERNET + 40, ETHERNET + 40 + usize::from(be16(frame, ETHERNET + 4)))
            }
            _ => return None,
        };
        let header = frame.get(at..end)?;
        if header.len() < 20 {
            return None;
        }
        let data = usize::from(header[12] >> 4) * 4;
        Some(Self {
            ports: (be16(header, 0), be16(header, 2)),
            seq: be32(header, 4),
            ack: be32(header, 8),
            flags: header[13],
            len: header.len().checked_sub(data)? as u32,
        })
    }

    /// Nothing but an acknowledgement.
    pub fn is_pure_ack(&self) -> bool {
        self.len == 0 && self.flags & (SYN | FIN | RST | ACK) == ACK
    }
}
