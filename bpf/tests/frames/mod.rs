//! Frames as the tests want them: the fields the program reads are right, everything else is zero.

use std::net::{Ipv4Addr, Ipv6Addr};

const SOURCE: [u8; 4] = [198, 51, 100, 9];

pub(crate) fn eth(ethertype: u16, payload: Vec<u8>) -> Vec<u8> {
    let mut frame = vec![0x02, 0, 0, 0, 0, 1, 0x02, 0, 0, 0, 0, 2];
    frame.extend(ethertype.to_be_bytes());
    frame.extend(payload);
    frame
}

/// Puts tags (ethertype, VLAN) between the addresses and the ethertype of a frame, outermost first.
pub(crate) fn tag(tags: &[(u16, u16)], frame: Vec<u8>) -> Vec<u8> {
    let (addresses, rest) = frame.split_at(12);
    let mut tagged = addresses.to_vec();
    for (ethertype, vlan) in tags {
        tagged.extend(ethertype.to_be_bytes());
        tagged.extend(vlan.to_be_bytes());
    }
    tagged.extend(rest);
    tagged
}

pub(crate) fn ipv4(to: Ipv4Addr, protocol: u8, payload: Vec<u8>) -> Vec<u8> {
    ipv4_options(to, 0, protocol, payload)
}

/// With `options` octets of "no operation".
pub(crate) fn ipv4_options(to: Ipv4Addr, options: usize, protocol: u8, payload: Vec<u8>) -> Vec<u8> {
    let header = 20 + options;
    let mut packet = vec![0x40 | (header / 4) as u8, 0];
    packet.extend(((header + payload.len()) as u16).to_be_bytes());
    packet.extend([0, 0, 0, 0, 64, protocol, 0, 0]);
    packet.extend(SOURCE);
    packet.extend(to.octets());
    packet.resize(header, 1);
    packet.extend(payload);
    packet
}

/// With the flags and offset field as given.
pub(crate) fn ipv4_fragment(to: Ipv4Addr, flags_and_offset: u16, protocol: u8, payload: Vec<u8>) -> Vec<u8> {
    let mut packet = ipv4(to, protocol, payload);
    packet[6..8].copy_from_slice(&flags_and_offset.to_be_bytes());
    packet
}

pub(crate) fn ipv6(to: Ipv6Addr, next_header: u8, payload: Vec<u8>) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend((payload.len() as u16).to_be_bytes());
    packet.extend([next_header, 64]);
    packet.extend([0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9]);
    packet.extend(to.octets());
    packet.extend(payload);
    packet
}

/// Extension headers of the given kinds, the first 8 octets long, the second 16 and so on; the fragment
/// header is always 8. Behind them `last` with its `body`.
pub(crate) fn ipv6_chain(to: Ipv6Addr, kinds: &[u8], last: u8, body: Vec<u8>) -> Vec<u8> {
    let mut payload = Vec::new();
    for (at, kind) in kinds.iter().enumerate() {
        let next = kinds.get(at + 1).copied().unwrap_or(last);
        let octets = if *kind == 44 { 8 } else { (at + 1) * 8 };
        // RFC 4302 2.2: AH in words less two; RFC 8200 4.3: the others in units of 8 octets, the first not
        // counted.
        let length = if *kind == 51 { octets / 4 - 2 } else { octets / 8 - 1 };
        payload.extend([next, length as u8]);
        payload.resize(payload.len() + octets - 2, 0);
    }
    payload.extend(body);
    ipv6(to, kinds.first().copied().unwrap_or(last), payload)
}

pub(crate) fn tcp(port: u16) -> Vec<u8> {
    let mut segment = 40000u16.to_be_bytes().to_vec();
    segment.extend(port.to_be_bytes());
    segment.extend([0; 8]);
    segment.extend([0x50, 0x02, 0xff, 0xff, 0, 0, 0, 0]);
    segment
}

pub(crate) fn udp() -> Vec<u8> {
    vec![0x9c, 0x40, 0, 80, 0, 8, 0, 0]
}

pub(crate) fn icmp(kind: u8) -> Vec<u8> {
    let mut message = vec![kind];
    message.resize(16, 0);
    message
}

/// An error that quotes `packet`.
pub(crate) fn icmp_error(kind: u8, packet: Vec<u8>) -> Vec<u8> {
    let mut message = vec![kind, 0, 0, 0, 0, 0, 0, 0];
    message.extend(packet);
    message
}

/// The packet as if it came from `from`, with the ports of a segment the other way round.
pub(crate) fn sent_by(from: std::net::IpAddr, mut packet: Vec<u8>) -> Vec<u8> {
    let header = match from {
        std::net::IpAddr::V4(from) => {
            packet[12..16].copy_from_slice(&from.octets());
            20
        }
        std::net::IpAddr::V6(from) => {
            packet[8..24].copy_from_slice(&from.octets());
            40
        }
    };
    packet[header..header + 4].rotate_left(2);
    packet
}

/// A neighbour solicitation (135) or advertisement (136), with a link-layer address option.
pub(crate) fn nd(kind: u8, target: Ipv6Addr) -> Vec<u8> {
    let mut message = vec![kind, 0, 0, 0, 0, 0, 0, 0];
    message.extend(target.octets());
    message.extend([1, 1, 0x02, 0, 0, 0, 0, 2]);
    message
}

pub(crate) fn arp(operation: u16, target: Ipv4Addr) -> Vec<u8> {
    let mut message = vec![0, 1, 0x08, 0, 6, 4];
    message.extend(operation.to_be_bytes());
    message.extend([0x02, 0, 0, 0, 0, 2]);
    message.extend(SOURCE);
    message.extend([0; 6]);
    message.extend(target.octets());
    message
}

/// The octets with one of them replaced.
pub(crate) fn patch(mut octets: Vec<u8>, at: usize, value: u8) -> Vec<u8> {
    octets[at] = value;
    octets
}
