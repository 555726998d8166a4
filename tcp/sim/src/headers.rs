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
/// The option's kind (RFC 2018 §3).
const SACK: u8 = 5;

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

/// Puts NOPs in place of SACK blocks, as some firewalls do that rewrite sequence numbers and forget the blocks. A wrong
/// checksum stays wrong (RFC 1624).
pub(crate) fn strip_sack(frame: &mut [u8]) {
    let Some((at, _)) = Segment::place(frame) else { return };
    let end = at + usize::from(frame[at + 12] >> 4) * 4;
    if frame.len() < end {
        return;
    }
    let before = !checksum(&frame[at..end], 0);
    let mut option = at + 20;
    while option + 1 < end {
        let len = match frame[option] {
            0 => break,
            1 => 1,
            _ => usize::from(frame[option + 1]).max(2),
        };
        if frame[option] == SACK && option + len <= end {
            frame[option..option + len].fill(1);
        }
        option += len;
    }
    let change = u32::from(!before) + u32::from(!checksum(&frame[at..end], 0));
    let sum = !checksum(&(!be16(frame, at + 16)).to_be_bytes(), change);
    frame[at + 16..at + 18].copy_from_slice(&(!sum).to_be_bytes());
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
    /// Where in `frame` a segment begins and ends, if there is one with a whole header.
    fn place(frame: &[u8]) -> Option<(usize, usize)> {
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
        (at + 20 <= end && end <= frame.len()).then_some((at, end))
    }

    /// The segment in `frame`; `None` for anything else.
    pub fn of(frame: &[u8]) -> Option<Self> {
        let (at, end) = Self::place(frame)?;
        let header = &frame[at..end];
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A segment over IPv4 with `options`, its checksum right but for `off`.
    fn segment(options: &[u8], off: u16) -> Vec<u8> {
        let tcp = 20 + options.len();
        let mut frame = vec![0; ETHERNET + 20 + tcp];
        frame[12..14].copy_from_slice(&IPV4.to_be_bytes());
        frame[ETHERNET] = 0x45;
        frame[ETHERNET + 2..ETHERNET + 4].copy_from_slice(&(20 + tcp as u16).to_be_bytes());
        frame[ETHERNET + 9] = TCP;
        let at = ETHERNET + 20;
        frame[at..at + 12].copy_from_slice(b"portsnumbers");
        frame[at + 12] = (tcp as u8 / 4) << 4;
        frame[at + 20..].copy_from_slice(options);
        let sum = checksum(&frame[at..], 0).wrapping_add(off);
        frame[at + 16..at + 18].copy_from_slice(&sum.to_be_bytes());
        frame
    }

    #[test]
    fn sack_blocks_are_stripped_and_nothing_else() {
        let block = [5, 10, 0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde, 0xf1];
        let stamps = [8, 10, 1, 2, 3, 4, 5, 6, 7, 8];
        for off in [0, 7] {
            let mut frame = segment(&[&stamps[..], &[1], &block, &[1, 1, 1]].concat(), off);
            strip_sack(&mut frame);
            let mut expected = segment(&[&stamps[..], &[1; 14]].concat(), 0);
            assert_eq!(checksum(&frame[ETHERNET + 20..], 0) == 0, off == 0, "a wrong checksum stays wrong");
            for one in [&mut frame, &mut expected] {
                one[ETHERNET + 20 + 16..ETHERNET + 20 + 18].fill(0);
            }
            assert_eq!(frame, expected);
        }
        let untouched = segment(&stamps[..8], 0);
        let mut frame = untouched.clone();
        strip_sack(&mut frame);
        assert_eq!(frame, untouched);
    }
}
