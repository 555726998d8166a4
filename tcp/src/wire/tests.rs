//! Whole frames: built by the emitters, then cut, flipped and bent. L1-L10, S4.1, S4.5.
#![allow(clippy::type_complexity)] // Tables of cases.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::ethernet::{VlanTag, VlanTags};
use super::tcp::{Emit, Flags, Options, SackBlocks};
use super::*;
use crate::seq::SeqNumber;

mod control;
mod l3;
mod l4;

const OURS: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
const PEER: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);
const OUR_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const PEER_V4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
const OUR_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0xaa, 0x1234);
const PEER_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0xbb, 0x5678);

/// Peer and us, in both families.
const PAIRS: [(IpAddr, IpAddr); 2] =
    [(IpAddr::V4(PEER_V4), IpAddr::V4(OUR_V4)), (IpAddr::V6(PEER_V6), IpAddr::V6(OUR_V6))];

fn link(ip: IpAddr, vlan: VlanTags) -> ethernet::Header {
    let ethertype = if ip.is_ipv4() { ethernet::IPV4 } else { ethernet::IPV6 };
    ethernet::Header { dst: OURS, src: PEER, vlan, ethertype }
}

/// The Ethernet header without tags, and the IP header, around `body`.
fn around(src: IpAddr, dst: IpAddr, protocol: u8, body: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; 128];
    frame.extend(body);
    let end = frame.len();
    let at = ip::emit(&mut frame, 128, end, src, dst, protocol, 0);
    let at = link(src, VlanTags::NONE).emit(&mut frame, at);
    frame.split_off(at)
}

/// A segment from the peer to us.
fn tcp_frame(src: IpAddr, dst: IpAddr, vlan: VlanTags, options: &Options, data: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; 128];
    frame.extend(data);
    let end = frame.len();
    let segment = Emit {
        src_port: 40_000,
        dst_port: 80,
        seq: SeqNumber(0xffff_fff0),
        ack: SeqNumber(7),
        flags: Flags::ACK | Flags::PSH,
        window: 512,
        urgent: 0,
        options,
    };
    let at = segment.emit(&mut frame, 128..end, src, dst);
    let at = ip::emit(&mut frame, at, end, src, dst, ip::TCP, ip::ECN_ECT0);
    let at = link(src, vlan).emit(&mut frame, at);
    frame.split_off(at)
}

fn two_tags() -> VlanTags {
    let mut vlan = VlanTags::NONE;
    assert!(vlan.push(VlanTag { tpid: 0x88a8, tci: 100 }));
    assert!(vlan.push(VlanTag { tpid: 0x8100, tci: 0x6007 }));
    vlan
}

/// An echo request from the peer to us.
fn echo_frame(src: IpAddr, dst: IpAddr, data: &[u8]) -> Vec<u8> {
    let mut body = vec![if src.is_ipv4() { 8 } else { 128 }, 0, 0, 0, 0x12, 0x34, 0, 1];
    body.extend(data);
    let protocol = if src.is_ipv4() { ip::ICMP } else { ip::ICMPV6 };
    around(src, dst, protocol, &sealed(src, dst, body))
}

/// An ICMP or ICMPv6 message with its checksum.
fn sealed(src: IpAddr, dst: IpAddr, mut body: Vec<u8>) -> Vec<u8> {
    body[2..4].fill(0);
    let pseudo = match src {
        IpAddr::V4(_) => 0,
        IpAddr::V6(_) => checksum::pseudo_header(src, dst, ip::ICMPV6, body.len()),
    };
    let sum = checksum::finish(pseudo + checksum::sum(&body));
    body[2..4].copy_from_slice(&sum.to_be_bytes());
    body
}

fn solicitation_frame() -> Vec<u8> {
    let mut frame = vec![0; 100];
    let range =
        icmpv6::emit_neighbor_solicitation(&mut frame, 0, VlanTags::NONE, PEER, PEER_V6, OUR_V6, None);
    frame.truncate(range.end);
    frame
}

fn arp_frame() -> Vec<u8> {
    let mut frame = vec![0; 100];
    let range = arp::emit_request(&mut frame, 0, VlanTags::NONE, PEER, PEER_V4, OUR_V4, None);
    frame.truncate(range.end);
    frame
}

fn every_option() -> Options {
    let mut sack = SackBlocks::NONE;
    assert!(sack.push(SeqNumber(10), SeqNumber(20)));
    assert!(sack.push(SeqNumber(0xffff_fff0), SeqNumber(5)));
    Options { timestamps: Some((1, 2)), sack, ..Options::NONE }
}

/// One valid frame of each kind that byway reads.
fn one_of_each() -> Vec<(&'static str, Vec<u8>)> {
    let [(a4, b4), (a6, b6)] = PAIRS;
    let timestamps = Options { timestamps: Some((3, 4)), ..Options::NONE };
    let syn = Options { mss: Some(1460), window_scale: Some(7), sack_permitted: true, ..timestamps };
    vec![
        ("tcp4", tcp_frame(a4, b4, VlanTags::NONE, &timestamps, b"hello, world")),
        ("tcp6", tcp_frame(a6, b6, VlanTags::NONE, &every_option(), b"hello, world!")),
        ("tcp4 empty, tagged twice", tcp_frame(a4, b4, two_tags(), &Options::NONE, b"")),
        ("tcp6 syn options", tcp_frame(a6, b6, VlanTags::NONE, &syn, b"")),
        ("echo4", echo_frame(a4, b4, b"abcdefghi")),
        ("echo6", echo_frame(a6, b6, b"abcdefghi")),
        ("arp", arp_frame()),
        ("solicitation", solicitation_frame()),
    ]
}

/// Reads a frame to its last field, as the stack does.
fn parse_whole(frame: &[u8]) -> Result<Packet, DropReason> {
    let packet = parse(frame, Checksums::Verify)?;
    match &packet.body {
        Body::Icmpv4(ip) => drop(icmp::parse(frame, ip)?),
        Body::Icmpv6(ip) => drop(icmpv6::parse(frame, &packet.link, ip)?),
        Body::Arp(_) | Body::Tcp(..) | Body::Fragment(..) => {}
    }
    Ok(packet)
}

#[test]
fn one_of_each_is_valid() {
    for (kind, frame) in one_of_each() {
        assert!(parse_whole(&frame).is_ok(), "{kind}: {:?}", parse_whole(&frame));
    }
}

/// The frames of `one_of_each` as tshark 4 dissected them, every field as meant and every checksum
/// good: emitter and parser can't both be wrong in the same way.
#[test]
fn s4_1_octets_that_wireshark_agreed_with() {
    let golden = [
        "0200000000010200000000020800450200400000400040064e7fc6336402c00002019c400050fffffff0000000\
         0780180200ab9600000101080a000000030000000468656c6c6f2c20776f726c64",
        "02000000000102000000000286dd602000000041064020010db8000000000000000000bb567820010db8000000\
         000000000000aa12349c400050fffffff000000007d01802005b1200000101080a000000010000000201010512\
         0000000a00000014fffffff00000000568656c6c6f2c20776f726c6421",
        "02000000000102000000000288a80064810060070800450200280000400040064e97c6336402c00002019c4000\
         50fffffff00000000750180200250d0000",
        "02000000000102000000000286dd602000000028064020010db8000000000000000000bb567820010db8000000\
         000000000000aa12349c400050fffffff000000007a0180200e3d70000020405b40402080a0000000300000004\
         01030307",
        "0200000000010200000000020800450000250000400040014ea1c6336402c00002010800eb3412340001616263\
         646566676869",
        "02000000000102000000000286dd6000000000113a4020010db8000000000000000000bb567820010db8000000\
         000000000000aa12348000ad6512340001616263646566676869",
        "ffffffffffff02000000000208060001080006040001020000000002c6336402000000000000c0000201",
        "3333ffaa123402000000000286dd6000000000203aff20010db8000000000000000000bb5678ff020000000000\
         0000000001ffaa123487009f3b0000000020010db8000000000000000000aa12340101020000000002",
    ];
    for ((kind, frame), golden) in one_of_each().into_iter().zip(golden) {
        let hex: String = frame.iter().map(|octet| format!("{octet:02x}")).collect();
        assert_eq!(hex, golden, "{kind}");
    }
}

#[test]
fn l1_every_prefix_of_every_kind_is_refused() {
    for (kind, frame) in one_of_each() {
        for len in 0..frame.len() {
            assert!(parse_whole(&frame[..len]).is_err(), "{kind} cut to {len}");
        }
    }
}

#[test]
fn l2_padding_is_trimmed_and_never_payload() {
    for (kind, mut frame) in one_of_each() {
        let packet = parse_whole(&frame).expect("valid");
        frame.resize(frame.len() + 60, 0xa5);
        assert_eq!(parse_whole(&frame), Ok(packet), "{kind}");
    }
}

/// An IPv6 header has no checksum: a flip in traffic class, flow label or hop limit changes nothing
/// that TCP relies on, so those bits are left out.
#[test]
fn l3_s4_5_every_single_bit_flip_is_refused() {
    for (kind, frame) in one_of_each() {
        let packet = parse_whole(&frame).expect("valid");
        let start = packet.link.len();
        if packet.link.ethertype == ethernet::ARP {
            continue; // No checksum at all; what it may say is neighbor.rs's business.
        }
        for bit in start * 8..frame.len() * 8 {
            let (octet, mask) = (bit / 8, 0x80 >> (bit % 8));
            let in_header = octet - start;
            let v6 = packet.link.ethertype == ethernet::IPV6;
            if v6 && ((1..4).contains(&in_header) || in_header == 7 || (in_header == 0 && mask < 0x10)) {
                continue;
            }
            let mut flipped = frame.clone();
            flipped[octet] ^= mask;
            assert!(parse_whole(&flipped).is_err(), "{kind}: octet {octet} of {} mask {mask:x}", frame.len());
        }
    }
}

#[test]
fn l9_unknown_ethertypes_are_unsupported() {
    for (_, frame) in one_of_each() {
        let at = parse(&frame, Checksums::Verify).expect("valid").link.len() - 2;
        for ethertype in 0..=u16::MAX {
            if matches!(ethertype, 0x0800 | 0x0806 | 0x86dd | 0x8100 | 0x88a8) {
                continue;
            }
            let mut other = frame.clone();
            other[at..at + 2].copy_from_slice(&ethertype.to_be_bytes());
            assert_eq!(parse(&other, Checksums::Verify), Err(DropReason::Unsupported), "{ethertype:x}");
        }
    }
}

#[test]
fn l6_a_group_never_sends() {
    for (kind, mut frame) in one_of_each() {
        frame[6] |= 1;
        assert_eq!(parse(&frame, Checksums::Verify), Err(DropReason::Martian), "{kind}");
    }
}

proptest! {
    #[test]
    fn p1_random_octets_never_panic(frame in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse_whole(&frame);
    }

    /// Random bodies behind valid lower layers reach deeper.
    #[test]
    fn p1_random_bodies_never_panic(
        body in prop::collection::vec(any::<u8>(), 0..120), v6: bool, protocol in 0_u8..60, fix: bool,
    ) {
        let (src, dst) = PAIRS[usize::from(v6)];
        let mut body = body;
        if fix && body.len() >= 4 && matches!(protocol, ip::ICMP | ip::ICMPV6) {
            body = sealed(src, dst, body);
        }
        let _ = parse_whole(&around(src, dst, protocol, &body));
    }

    /// Valid frames with a few octets overwritten, so that checksums are the last thing to fail.
    #[test]
    fn p1_bent_frames_never_panic(
        kind in 0_usize..8, bends in prop::collection::vec((0_usize..120, any::<u8>()), 0..6), cut in 0_usize..120,
    ) {
        let (_, mut frame) = one_of_each().swap_remove(kind);
        for (at, octet) in bends {
            let len = frame.len();
            frame[at % len] = octet;
        }
        frame.truncate(cut.max(14));
        let _ = parse(&frame, Checksums::AcceptPartial);
        let _ = parse_whole(&frame);
    }
}
