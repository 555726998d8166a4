//! VLAN tags stay with neighbours and connections. L9.

use std::net::{IpAddr, SocketAddr};

use byway_tcp::time::Duration;
use byway_tcp::wire::ethernet::{VlanTag, VlanTags};
use byway_tcp::wire::{Body, Checksums, MacAddr, arp, icmpv6, parse};

use crate::probe::*;

const STRANGER: MacAddr = MacAddr([2, 0, 0, 0, 0, 0x50]);

fn tags(tci: u16) -> VlanTags {
    let mut vlan = VlanTags::NONE;
    assert!(vlan.push(VlanTag { tpid: 0x88a8, tci: 100 }) && vlan.push(VlanTag { tpid: 0x8100, tci }));
    vlan
}

/// Puts tags into a frame without any, from another station.
fn tagged(mut frame: Vec<u8>, tci: u16) -> Vec<u8> {
    frame[6..12].copy_from_slice(&STRANGER.0);
    let [high, low] = tci.to_be_bytes();
    frame.splice(12..12, [0x88, 0xa8, 0, 100, 0x81, 0, high, low]);
    frame
}

/// Everything that is sent now, as it is.
fn sent(p: &mut Probe) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    while p.stack.poll_transmit(64 - out.len(), p.now, &mut out) && out.len() < 64 {}
    let frames = out.iter().map(|&slice| p.stack.pool().transmitted(slice).to_vec()).collect();
    for slice in out {
        p.stack.pool_mut().completed(slice.index);
    }
    frames
}

fn give(p: &mut Probe, frame: &[u8]) -> Vec<Vec<u8>> {
    let index = p.stack.pool_mut().fill().expect("a frame");
    let slice = p.stack.pool_mut().write_as_nic(index, 256, frame);
    p.stack.receive(&mut p.app, &[slice], p.now);
    sent(p)
}

fn vlan_of(frame: &[u8]) -> VlanTags {
    parse(frame, Checksums::Verify).expect("valid").link.vlan
}

/// Who calls from a VLAN is asked for there, also the second time, and answered there, priority and all.
#[test]
fn l9_a_caller_in_a_vlan_is_asked_for_and_answered_there() {
    let mut p = Probe::new();
    let peer = Peer { remote: v4(50), ..p.peer() };
    let syn = p.frame(&peer, &peer.seg(SYN));
    let asked = give(&mut p, &tagged(syn, 0x6007));
    p.now = p.now + Duration::from_secs(1);
    p.stack.advance(&mut p.app, p.now);
    let again = sent(&mut p);
    for frames in [&asked, &again] {
        assert_eq!(frames.len(), 1);
        let packet = parse(&frames[0], Checksums::Verify).expect("valid");
        assert!(matches!(packet.body, Body::Arp(arp) if arp.operation == arp::Operation::Request));
        assert_eq!(packet.link.vlan, tags(7));
    }
    let mut reply = asked[0].clone();
    let packet = parse(&reply, Checksums::Verify).expect("valid");
    let Body::Arp(request) = packet.body else { unreachable!() };
    let range = arp::reply_in_place(&mut reply, &packet.link, &request, STRANGER);
    let answered = give(&mut p, &reply[range]);
    assert_eq!(answered.len(), 1);
    let packet = parse(&answered[0], Checksums::Verify).expect("valid");
    assert!(matches!(packet.body, Body::Tcp(..)));
    assert_eq!((packet.link.vlan, packet.link.dst), (tags(0x6007), STRANGER));
}

/// A neighbour that has asked for us from a VLAN is called there; questions for its presence go there, too.
#[test]
fn l9_an_active_open_goes_into_the_neighbors_vlan() {
    for v6_too in [false, true] {
        let mut p = Probe::new();
        let mut frame = vec![0; 256];
        let (remote, range) = match (v4(50), v6(50), v4(1), v6(1)) {
            (IpAddr::V4(peer), _, IpAddr::V4(own), _) if !v6_too => {
                (v4(50), arp::emit_request(&mut frame, 0, tags(0xa009), STRANGER, peer, own, None))
            }
            (_, IpAddr::V6(peer), _, IpAddr::V6(own)) => (
                v6(50),
                icmpv6::emit_neighbor_solicitation(&mut frame, 0, tags(0xa009), STRANGER, peer, own, None),
            ),
            _ => unreachable!(),
        };
        let answer = give(&mut p, &frame[range]);
        assert_eq!(vlan_of(&answer[0]), tags(0xa009), "answers keep the priority, too");
        p.stack.connect(SocketAddr::new(remote, 9), p.now).expect("connects");
        let syn = sent(&mut p);
        let packet = parse(&syn[0], Checksums::Verify).expect("valid");
        assert!(matches!(packet.body, Body::Tcp(..)), "nobody is asked: {packet:?}");
        assert_eq!((packet.link.vlan, packet.link.dst), (tags(9), STRANGER));
        // It was only a claim: after the delay it is probed.
        let mut probes = Vec::new();
        for _ in 0..60 {
            p.now = p.now + Duration::from_millis(100);
            p.stack.advance(&mut p.app, p.now);
            probes.extend(sent(&mut p).into_iter().filter(|frame| {
                !matches!(parse(frame, Checksums::Verify).expect("valid").body, Body::Tcp(..))
            }));
        }
        assert!(!probes.is_empty());
        for probe in probes {
            let packet = parse(&probe, Checksums::Verify).expect("valid");
            assert_eq!((packet.link.vlan, packet.link.dst), (tags(9), STRANGER));
        }
    }
}
