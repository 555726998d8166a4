//! Datagrams in fragments, to the stack and from it. S6.2, L4.

use std::net::IpAddr;

use byway_tcp::counters::DropReason;
use byway_tcp::wire::fragment::{self, Fragment};
use byway_tcp::wire::tcp::Options;
use byway_tcp::wire::{Body, Checksums, checksum, ethernet, icmpv6, ip, parse};

use crate::probe::*;

/// The IP payload of a frame in fragments for packets of `mtu` octets.
fn fragments(frame: &[u8], id: u32, mtu: usize) -> Vec<Vec<u8>> {
    let (src, dst, protocol, at) = if frame[12..14] == [0x86, 0xdd] {
        let ip = |at: usize| IpAddr::from(<[u8; 16]>::try_from(&frame[at..at + 16]).expect("16"));
        (ip(22), ip(38), frame[20], 54)
    } else {
        let ip = |at: usize| IpAddr::from(<[u8; 4]>::try_from(&frame[at..at + 4]).expect("4"));
        (ip(26), ip(30), frame[23], 34)
    };
    split(src, dst, protocol, &frame[at..], id, mtu)
}

pub fn split(src: IpAddr, dst: IpAddr, protocol: u8, payload: &[u8], id: u32, mtu: usize) -> Vec<Vec<u8>> {
    let ethertype = if src.is_ipv4() { ethernet::IPV4 } else { ethernet::IPV6 };
    let link = ethernet::Header { dst: MAC, src: PEER_MAC, vlan: ethernet::VlanTags::NONE, ethertype };
    fragment::split(payload.len(), mtu, dst)
        .map(|range| {
            let mut frame = vec![0; 128];
            frame.extend(&payload[range.clone()]);
            let part = Fragment { id, offset: range.start, more: range.end < payload.len() };
            let end = frame.len();
            let at = part.emit(&mut frame, 128, end, src, dst, protocol);
            let at = link.emit(&mut frame, at);
            frame.split_off(at)
        })
        .collect()
}

fn accept_from(p: &mut Probe, remote: IpAddr) -> Peer {
    let peer = Peer { remote, ..p.peer() };
    p.open_as(peer, 1400)
}

/// S6.2: a peer behind a tunnel of 1480 octets whose full segments come in two pieces, in any order.
#[test]
fn s6_2_a_segment_in_fragments_is_a_segment() {
    for (remote, full) in [(v4(2), 1460), (v6(2), 1440)] {
        for turned in [false, true] {
            let mut p = Probe::new();
            let mut peer = accept_from(&mut p, remote);
            let text: Vec<u8> = (0..full).map(|n| (n % 251) as u8).collect();
            for id in 0..20 {
                let frame = p.frame(&peer, &peer.seg(PSH_ACK).data(&text));
                assert_eq!(frame.len(), 1514);
                let mut parts = fragments(&frame, id, 1480);
                assert_eq!(parts.len(), 2);
                if turned {
                    parts.reverse();
                }
                p.give_frames(&parts);
                peer.seq += full as u32;
            }
            assert!(p.app.text(peer.id) == text.repeat(20), "{remote}");
            let counters = p.stack.counters();
            assert_eq!((counters.ip_reasm_reqds, counters.ip_reasm_oks), (40, 20));
            assert_eq!(counters.dropped_total(), 0);
            p.stack.pool().assert_conserved();
        }
    }
}

/// An echo request with `len` octets of data.
pub fn echo(src: IpAddr, dst: IpAddr, len: usize) -> (u8, Vec<u8>) {
    let v4 = src.is_ipv4();
    let mut message = vec![if v4 { 8 } else { 128 }, 0, 0, 0, 0x12, 0x34, 0, 1];
    message.extend((0..len).map(|n| (n % 241) as u8));
    let pseudo = if v4 { 0 } else { checksum::pseudo_header(src, dst, ip::ICMPV6, message.len()) };
    let sum = checksum::finish(pseudo + checksum::sum(&message));
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    (if v4 { ip::ICMP } else { ip::ICMPV6 }, message)
}

/// S6.2: an echo request of 3008 octets arrives in three fragments, and is answered in three: 1480 + 1480 + 48.
#[test]
fn s6_2_a_large_echo_is_answered_in_fragments() {
    for (src, dst, lens) in [(v4(2), v4(1), [1480, 1480, 48]), (v6(2), v6(1), [1448, 1448, 112])] {
        let mut p = Probe::new();
        let (protocol, request) = echo(src, dst, 3000);
        p.give_frames(&split(src, dst, protocol, &request, 5, 1500));
        let mut got = Vec::new();
        let mut ids = Vec::new();
        for (frame, len) in p.others.iter().zip(lens) {
            let packet = parse(frame, Checksums::Verify).expect("valid");
            let Body::Fragment(ip, part) = packet.body else { panic!("{packet:?}") };
            assert_eq!((ip.src, ip.dst, packet.link.dst), (dst, src, PEER_MAC));
            assert_eq!((part.offset, ip.payload.1), (got.len(), len));
            assert_eq!(part.more, got.len() + len < 3008);
            got.extend(ip.payload_of(frame));
            ids.push(part.id);
        }
        assert_eq!((p.others.len(), got.len()), (3, 3008));
        assert!(ids.windows(2).all(|two| two[0] == two[1]));
        assert_eq!(got[0], if src.is_ipv4() { 0 } else { 129 });
        let pseudo = if src.is_ipv4() { 0 } else { checksum::pseudo_header(dst, src, ip::ICMPV6, got.len()) };
        assert!(checksum::is_valid(pseudo + checksum::sum(&got)));
        assert!(got[4..] == request[4..], "the data come back");
        // The next one has another identification.
        let before = p.others.len();
        p.give_frames(&split(src, dst, protocol, &request, 6, 1500));
        let packet = parse(&p.others[before], Checksums::Verify).expect("valid");
        let Body::Fragment(_, part) = packet.body else { panic!("{packet:?}") };
        assert_ne!(part.id, ids[0]);
        assert_eq!(p.stack.counters().ip_frag_creates, 6);
        p.assert_idle();
    }
}

/// The largest echo there is, and one that is a little larger than our packets though it came in smaller ones.
#[test]
fn s6_2_echoes_of_every_size_come_back() {
    for (src, dst) in [(v4(2), v4(1)), (v6(2), v6(1))] {
        for len in [1, 1440, 1453, 1473, 1700, 9000, 65_507] {
            let mut p = Probe::new();
            let (protocol, request) = echo(src, dst, len);
            p.give_frames(&split(src, dst, protocol, &request, 5, 1300));
            let mut octets = 0;
            for frame in &p.others {
                assert!(frame.len() <= 1514);
                octets += match parse(frame, Checksums::Verify).expect("valid").body {
                    Body::Fragment(ip, _) | Body::Icmpv4(ip) | Body::Icmpv6(ip) => ip.payload.1,
                    other => panic!("{other:?}"),
                };
            }
            assert_eq!(octets, request.len(), "{src} {len}");
            p.assert_idle();
        }
    }
}

/// RFC 6980: neighbour discovery doesn't come in fragments. T25: nor is a reset owed for a segment in fragments
/// that may be another core's.
#[test]
fn l4_what_has_no_business_in_fragments_is_dropped() {
    let mut p = Probe::new();
    let mut frame = vec![0; 256];
    let (IpAddr::V6(peer), IpAddr::V6(own)) = (v6(7), v6(1)) else { unreachable!() };
    let vlan = ethernet::VlanTags::NONE;
    let range = icmpv6::emit_neighbor_solicitation(&mut frame, 0, vlan, PEER_MAC, peer, own, Some(MAC));
    // For our address itself, as fragments to groups never reach us.
    frame[38..54].copy_from_slice(&own.octets());
    p.give_frames(&fragments(&frame[range], 3, 80));
    assert_eq!((p.others.len(), p.stack.counters().ndp_in), (0, 1), "introduced by one, not by this");

    let stranger = Peer { local_port: 81, ..p.peer() };
    for flags in [SYN, ACK, PSH_ACK] {
        let frame = p.frame(&stranger, &stranger.seg(flags).data(&[1; 1000]));
        assert_eq!(p.give_frames(&fragments(&frame, 4 + u32::from(flags.0), 600)), []);
    }
    assert_eq!(p.stack.counters().dropped(DropReason::NoListener), 3);
    p.assert_idle();
}

/// L4: tiny, overlapping, too long, endless: memory stays, honest connections too.
#[test]
fn l4_attacks_with_fragments_harm_nobody() {
    let mut p = Probe::new();
    let (mut peer, free) =
        (p.accept_with(Options { mss: Some(1460), ..Options::NONE }, 65_535), p.stack.pool().free_count());
    let fragment = |src: u8, id: u32, offset: usize, more: bool, len: usize| {
        let mut frame = vec![0; 128 + len];
        let part = Fragment { id, offset, more };
        let at = part.emit(&mut frame, 128, 128 + len, v4(src), v4(1), ip::ICMP);
        let ethertype = ethernet::IPV4;
        let link = ethernet::Header { dst: MAC, src: PEER_MAC, vlan: ethernet::VlanTags::NONE, ethertype };
        let at = link.emit(&mut frame, at);
        frame.split_off(at)
    };
    for n in 0..10_000_u32 {
        let src = 3 + (n % 200) as u8;
        p.give_frames(&[
            fragment(src, n, 0, true, 64),
            fragment(src, n, 32, true, 64),
            fragment(src, n, 65_528, false, 100),
            fragment(src, n + 1, 0, true, 1480),
        ]);
    }
    assert_eq!(p.stack.pool().free_count(), free, "fragments hold no frames");
    assert!(p.others.is_empty());
    let counters = p.stack.counters();
    assert!(counters.dropped(DropReason::FragmentOverlap) >= 10_000, "{counters:?}");
    assert_eq!(counters.dropped(DropReason::FragmentHeader), 10_000);
    p.give(&peer, &peer.seg(PSH_ACK).data(b"still here"));
    peer.seq += 10;
    assert_eq!(p.app.text(peer.id), b"still here");
}

/// A NIC spreads fragments by addresses alone: the core that put a segment together gives it to the one whose
/// connection it is for; nobody resets anybody.
#[test]
fn s6_2_a_segment_in_fragments_that_reached_another_core_is_passed_on() {
    let (mut here, mut there) = (Probe::new(), Probe::new());
    let mut peer = accept_from(&mut here, v4(2));
    for id in 0..40 {
        let frame = here.frame(&peer, &peer.seg(PSH_ACK).data(&[id as u8; 1400]));
        assert_eq!(there.give_frames(&fragments(&frame, id, 1000)), []);
        peer.seq += 1400;
    }
    let mut news = Vec::new();
    there.stack.take_news(&mut news);
    for news in &news {
        here.stack.hear(news, here.now);
    }
    here.stack.advance(&mut here.app, here.now);
    assert!(!here.collect().is_empty(), "acknowledged");
    assert_eq!(here.app.text(peer.id).len(), 40 * 1400);
    // A flood of what is nobody's is not told without bound.
    for id in 100..1100 {
        let stranger = Peer { remote_port: 9, ..peer };
        let frame = here.frame(&stranger, &stranger.seg(PSH_ACK).data(&[1; 600]));
        there.give_frames(&fragments(&frame, id, 500));
    }
    news.clear();
    there.stack.take_news(&mut news);
    assert!((1..200).contains(&news.len()), "{}", news.len());
    for news in &news {
        here.stack.hear(news, here.now);
    }
    assert!(here.collect().is_empty(), "no resets");
    here.stack.pool().assert_conserved();
    there.assert_idle();
}
