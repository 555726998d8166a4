//! What comes from nowhere: no amplifier, no answer to what can't be answered, bounded memory.

use std::net::IpAddr;

use byway_tcp::app::Closed;
use byway_tcp::counters::DropReason;
use byway_tcp::seq::SeqNumber;
use byway_tcp::stack::{Config, SynCookies};
use byway_tcp::tcb::state::State;
use byway_tcp::time::{Duration, Instant};
use byway_tcp::wire::tcp::{Emit, Flags, Options};
use byway_tcp::wire::{MacAddr, arp, ethernet, ip};

use crate::probe::*;

fn raw(src: IpAddr, dst: IpAddr, link_src: MacAddr, link_dst: MacAddr, flags: Flags) -> Vec<u8> {
    let mut frame = vec![0; 256];
    let header = Emit {
        src_port: 7777,
        dst_port: PORT,
        seq: SeqNumber(5),
        ack: SeqNumber(9),
        flags,
        window: 1000,
        urgent: 0,
        options: &Options::NONE,
    };
    let at = header.emit(&mut frame, 200..200, src, dst);
    let at = ip::emit(&mut frame, at, 200, src, dst, ip::TCP, 0);
    let ethertype = if src.is_ipv4() { ethernet::IPV4 } else { ethernet::IPV6 };
    let link = ethernet::Header { dst: link_dst, src: link_src, vlan: ethernet::VlanTags::NONE, ethertype };
    let at = link.emit(&mut frame, at);
    frame[at..200].to_vec()
}

/// L6: LAND, groups, broadcasts, loopback, our own addresses: nothing comes back.
#[test]
fn l6_what_cannot_be_answered_is_not() {
    let mut p = Probe::new();
    let addr = |text: &str| text.parse::<IpAddr>().expect("address");
    let group = MacAddr([1, 0, 0x5e, 0, 0, 1]);
    for flags in [SYN, ACK, FIN, RST] {
        for (src, dst, from, to) in [
            (v4(1), v4(1), PEER_MAC, MAC),
            (addr("255.255.255.255"), v4(1), PEER_MAC, MAC),
            (addr("10.0.0.255"), v4(1), PEER_MAC, MAC),
            (addr("224.0.0.5"), v4(1), PEER_MAC, MAC),
            (addr("0.0.0.0"), v4(1), PEER_MAC, MAC),
            (addr("127.0.0.1"), v4(1), PEER_MAC, MAC),
            (v4(2), addr("10.0.0.255"), PEER_MAC, MAC),
            (v4(2), addr("224.0.0.1"), PEER_MAC, MAC),
            (v4(2), v4(3), PEER_MAC, MAC),
            (v4(2), v4(1), PEER_MAC, MacAddr::BROADCAST),
            (v4(2), v4(1), PEER_MAC, group),
            (v4(2), v4(1), PEER_MAC, MacAddr([2, 9, 9, 9, 9, 9])),
            (v4(2), v4(1), group, MAC),
            (v6(1), v6(1), PEER_MAC, MAC),
            (addr("::1"), v6(1), PEER_MAC, MAC),
            (addr("::"), v6(1), PEER_MAC, MAC),
            (addr("ff02::1"), v6(1), PEER_MAC, MAC),
            (addr("::ffff:10.0.0.2"), v6(1), PEER_MAC, MAC),
            (v6(2), addr("ff02::1"), PEER_MAC, MAC),
            (v6(2), v6(3), PEER_MAC, MAC),
        ] {
            let before = p.stack.counters().dropped_total();
            let out = p.give_frames(&[raw(src, dst, from, to, flags)]);
            assert!(out.is_empty() && p.others.is_empty(), "{src} {dst} {from:?} {to:?} {flags:?}: {out:?}");
            assert_eq!(p.stack.counters().dropped_total(), before + 1, "{src} {dst}");
        }
    }
    assert_eq!(p.stack.connection_count(), 0);
    p.assert_idle();
}

/// L6: a connection's addresses aren't looked at again, its frames' stations are.
#[test]
fn l6_a_connections_frames_are_to_us_and_not_from_us() {
    let mut p = Probe::new();
    let peer = p.accept();
    let good = p.frame(&peer, &peer.seg(RST_ACK));
    let other = MacAddr([2, 9, 9, 9, 9, 9]);
    for (to, from, reason) in [
        (other, PEER_MAC, DropReason::WrongMac),
        (MacAddr::BROADCAST, PEER_MAC, DropReason::Martian),
        (MAC, MAC, DropReason::Martian),
    ] {
        let (mut frame, segments) = (good.clone(), p.stack.counters().tcp_in_segs);
        frame[..6].copy_from_slice(&to.0);
        frame[6..12].copy_from_slice(&from.0);
        let before = p.stack.counters().dropped(reason);
        assert!(p.give_frames(&[frame]).is_empty());
        assert_eq!(p.stack.counters().dropped(reason), before + 1, "{to:?} {from:?}");
        assert_eq!(p.stack.counters().tcp_in_segs, segments);
    }
    assert_eq!(p.state(&peer), State::Established);
}

/// T25: to strangers no more octets go out than come in; RSTs are limited in all.
#[test]
fn t25_resets_are_no_amplifier() {
    let mut p = Probe::new();
    for n in 0..5_000u32 {
        let peer = Peer { local_port: 81, ..p.peer() };
        let flags = [SYN, ACK, FIN_ACK, PSH_ACK, FIN | URG, Flags::NONE][n as usize % 6];
        p.give(&peer, &Seg::new(flags, n, n));
        assert!(p.octets.1 <= p.octets.0, "{:?}", p.octets);
    }
    assert!(p.stack.counters().tcp_out_rsts <= 1_001, "{}", p.stack.counters().tcp_out_rsts);
    assert!(p.stack.counters().dropped(DropReason::RateLimited) > 3_000);
}

/// T1 T26: a flood of SYNs from addresses that don't answer, without cookies: bounded half-open entries and answers.
#[test]
fn t1_t26_a_syn_flood_is_bounded() {
    let config = Config { syncookies: SynCookies::Off, ..config() };
    let mut p = Probe::with(config, 512, Instant::from_millis(1000));
    let mut answers = 0;
    for n in 0..2_000u32 {
        let mut peer = p.peer();
        peer.seq = n;
        answers += p.give(&peer, &peer.seg(SYN)).len();
    }
    assert_eq!(answers as u32, BACKLOG);
    let again = p.wait(Duration::from_secs(130)).len() as u32;
    // Six transmissions each at most; two for those that leave while more than half are waiting.
    assert!((BACKLOG..BACKLOG * 5).contains(&again), "{again}");
    assert_eq!(p.stack.connection_count(), 0);
    p.assert_idle();
    p.accept();
}

fn arp_frame(sender: IpAddr, mac: MacAddr, target: IpAddr, reply: bool) -> Vec<u8> {
    let mut frame = vec![0; 128];
    let (IpAddr::V4(sender), IpAddr::V4(target)) = (sender, target) else { unreachable!() };
    let range = arp::emit_request(&mut frame, 0, ethernet::VlanTags::NONE, mac, sender, target, None);
    if reply {
        frame[21] = 2;
        frame[..6].copy_from_slice(&MAC.0);
    }
    frame[range].to_vec()
}

/// L7 (n): ARP for others isn't answered; claims that nobody asked for move no live connection.
#[test]
fn l7_arp() {
    let mut p = Probe::new();
    let liar = MacAddr([2, 6, 6, 6, 6, 6]);
    p.give_frames(&[arp_frame(v4(2), PEER_MAC, v4(9), false)]);
    assert!(p.others.is_empty(), "not ours");
    let peer = p.accept();
    for reply in [false, true] {
        p.give_frames(&[arp_frame(v4(2), liar, v4(1), reply)]);
        p.give_frames(&[arp_frame(v4(2), liar, v4(2), reply)]);
        // Our own address, claimed by another.
        p.give_frames(&[arp_frame(v4(1), liar, v4(1), reply)]);
    }
    p.send(&peer, b"x");
    // Not acknowledged, so nothing confirms the claim; the neighbour is asked, and answers.
    p.wait(Duration::from_secs(20));
    assert_eq!(p.last_dst, PEER_MAC, "the one who answers, not the one who claims");
    assert_eq!(p.state(&peer), State::Established);
}

/// D2 T3: deaf connections hold all the memory they can get: others still open, are answered, and get through.
#[test]
fn d2_t3_memory_pressure() {
    let mut p = Probe::with(config(), 256, Instant::from_millis(1000));
    p.app.reads = false;
    let mut deaf = Vec::new();
    for _ in 0..30 {
        let mut peer = p.accept();
        for _ in 0..40 {
            p.give(&peer, &peer.seg(PSH_ACK).data(&[1; MSS]));
            if let Some(info) = p.info(peer.id) {
                peer.seq = 1001 + info.recv_queue;
            }
        }
        deaf.push(peer);
    }
    assert!(p.stack.pool().free_count() >= 4, "{:?}", p.stack.pool());
    // RST for a stranger, an ACK, and a new connection that reads.
    let stranger = Peer { local_port: 81, ..p.peer() };
    assert!(p.ask(&stranger, &stranger.seg(SYN)).is(RST_ACK));
    p.app.reads = true;
    let mut peer = p.accept();
    for n in 0..50u8 {
        for _ in 0..10 {
            p.give(&peer, &peer.seg(PSH_ACK).data(&[n; 100]));
            if p.app.text(peer.id).len() >= 100 * (usize::from(n) + 1) {
                break;
            }
            p.wait_ms(50);
        }
        peer.seq += 100;
    }
    let got = p.app.text(peer.id).len();
    for peer in &deaf {
        p.give(peer, &Seg { seq: peer.seq, ..peer.seg(RST) });
    }
    assert_eq!(got, 5_000, "with {:?}", p.stack.pool());
}

/// (i) An application that was refused a frame hears of it when there are frames again.
#[test]
fn d2_a_starved_application_is_woken() {
    let mut p = Probe::with(config(), 128, Instant::from_millis(1000));
    let (greedy, modest) = (p.accept(), p.accept());
    let mut queued = 0;
    p.act(&greedy, |_, conn| {
        while let Some(mut chunk) = conn.alloc() {
            conn.append(&mut chunk, &[1; 1000]);
            if let Err(chunk) = conn.send(chunk) {
                conn.release(chunk);
                break;
            }
            queued += 1000;
        }
    });
    p.act(&modest, |_, conn| assert!(conn.alloc().is_none()));
    let before = p.app.woken.len();
    // Half of the frames come back: less than the comfort of an idle pool.
    p.give(&greedy, &Seg::new(ACK, greedy.seq, greedy.ack.wrapping_add(10_000)));
    let sent: usize = 50_000.min(queued);
    for octets in (10_000..=sent).step_by(5_000) {
        p.give(&greedy, &Seg::new(ACK, greedy.seq, greedy.ack.wrapping_add(octets as u32)));
    }
    p.wait_ms(1);
    assert!(p.app.woken[before..].contains(&modest.id), "{:?}", p.stack.pool());
}

/// T27 S3.1: a peer that rebooted and connects anew from the same port (RFC 9293 figure 10).
#[test]
fn s3_1_a_rebooted_peer() {
    let mut p = Probe::new();
    let peer = p.accept();
    // Its SYN is answered with an ACK that it can't understand; it resets, and comes again.
    let ack = p.ask(&peer, &Seg::new(SYN, 900_000, 0));
    assert_eq!((ack.flags, ack.ack), (ACK, peer.seq));
    p.tell(&peer, &Seg::new(RST, ack.ack, 0));
    assert_eq!(p.app.end_of(peer.id), Some(Closed::Reset));
    assert!(p.ask(&peer, &Seg::new(SYN, 900_000, 0)).is(SYN_ACK));
    assert_eq!(p.state(&peer), State::SynReceived);
}

/// (j) A slot's next tenant isn't confused with the last one.
#[test]
fn slots_are_reused_under_a_new_name() {
    let mut p = Probe::new();
    let mut names = std::collections::BTreeSet::new();
    for n in 0..200u32 {
        let peer = p.accept();
        assert!(names.insert(peer.id), "{:?} twice", peer.id);
        p.stack.with_conn(&mut p.app, peer.id, p.now, |_, conn| write(conn, b"x"));
        // Buried while it is on the list of those that have something to send.
        let frame = p.frame(&peer, &Seg::new(RST, peer.seq, 0));
        p.give_frames(&[frame]);
        assert!(p.stack.with_conn(&mut p.app, peer.id, p.now, |_, _| ()).is_none(), "{n}");
    }
    assert!(names.iter().all(|id| id.index < 2), "slots are used again");
    p.assert_idle();
}
