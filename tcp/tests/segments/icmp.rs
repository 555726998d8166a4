//! ICMP errors about segments of ours (RFC 1122 §4.2.3.9, RFC 5927), and the path MTU they tell
//! (RFC 1191, RFC 8201). L8, S6.2.

use std::net::IpAddr;

use byway_tcp::app::{Closed, Trouble};
use byway_tcp::counters::DropReason;
use byway_tcp::stack::News;
use byway_tcp::tcb::state::State;
use byway_tcp::time::Duration;
use byway_tcp::wire::tcp::Options;
use byway_tcp::wire::{checksum, ethernet, ip};

use crate::probe::*;

/// Which error, in ICMP's and in ICMPv6's numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum What {
    TooBig(u16),
    Port,
    Prohibited,
    Host,
    Net,
    Time,
    Parameter,
}

impl What {
    fn head(self, v4: bool) -> [u8; 8] {
        let (kind, code, mtu) = match (self, v4) {
            (Self::TooBig(mtu), true) => (3, 4, mtu),
            (Self::TooBig(mtu), false) => (2, 0, mtu),
            (Self::Port, true) => (3, 3, 0),
            (Self::Port, false) => (1, 4, 0),
            (Self::Prohibited, true) => (3, 13, 0),
            (Self::Prohibited, false) => (1, 1, 0),
            (Self::Host, true) => (3, 1, 0),
            (Self::Host, false) => (1, 3, 0),
            (Self::Net, true) => (3, 0, 0),
            (Self::Net, false) => (1, 0, 0),
            (Self::Time, true) => (11, 0, 0),
            (Self::Time, false) => (3, 0, 0),
            (Self::Parameter, true) => (12, 0, 0),
            (Self::Parameter, false) => (4, 0, 0),
        };
        let [high, low] = u16::to_be_bytes(mtu);
        [kind, code, 0, 0, 0, 0, high, low]
    }
}

/// What a router on the way says of the segment of ours with sequence number `seq`.
fn error(peer: &Peer, seq: u32, what: What) -> Vec<u8> {
    let v4 = peer.remote.is_ipv4();
    let (own, router) = if v4 { (super::probe::v4(1), super::probe::v4(99)) } else { (v6(1), v6(99)) };
    let mut quote = vec![0; 128 + 8];
    quote[128..130].copy_from_slice(&peer.local_port.to_be_bytes());
    quote[130..132].copy_from_slice(&peer.remote_port.to_be_bytes());
    quote[132..136].copy_from_slice(&seq.to_be_bytes());
    let at = ip::emit(&mut quote, 128, 136, own, peer.remote, ip::TCP, 0);
    let mut message = what.head(v4).to_vec();
    message.extend(&quote[at..]);
    let pseudo = if v4 { 0 } else { checksum::pseudo_header(router, own, ip::ICMPV6, message.len()) };
    let sum = checksum::finish(pseudo + checksum::sum(&message));
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut frame = vec![0; 128];
    frame.extend(message);
    let end = frame.len();
    let at = ip::emit(&mut frame, 128, end, router, own, if v4 { ip::ICMP } else { ip::ICMPV6 }, 0);
    let ethertype = if v4 { ethernet::IPV4 } else { ethernet::IPV6 };
    let link = ethernet::Header { dst: MAC, src: PEER_MAC, vlan: ethernet::VlanTags::NONE, ethertype };
    let at = link.emit(&mut frame, at);
    frame.split_off(at)
}

/// Gives an error; what is sent at once.
fn tell(p: &mut Probe, peer: &Peer, seq: u32, what: What) -> Vec<Seg> {
    let frame = error(peer, seq, what);
    p.give_frames(&[frame]).into_iter().map(|(_, seg)| seg).collect()
}

fn dropped(p: &Probe, reason: DropReason) -> u64 {
    p.stack.counters().dropped(reason)
}

fn remotes() -> [IpAddr; 2] {
    [v4(2), v6(2)]
}

fn accept_from(p: &mut Probe, remote: IpAddr) -> Peer {
    let peer = Peer { remote, ..p.peer() };
    let peer = p.open_as(peer, if remote.is_ipv4() { 1460 } else { 1440 });
    assert_eq!(p.state(&peer), State::Established);
    peer
}

/// L8: nothing that an ICMP error says ends an established connection, nor changes what it sends.
#[test]
fn l8_an_established_connection_survives_every_error() {
    for remote in remotes() {
        let mut p = Probe::new();
        let peer = accept_from(&mut p, remote);
        let sent = p.send(&peer, &[1; 100]);
        assert_eq!(sent.len(), 1);
        for what in [What::Port, What::Prohibited, What::Host, What::Net, What::Time, What::Parameter] {
            assert_eq!(tell(&mut p, &peer, peer.ack, what), [], "{what:?}");
            assert_eq!(p.state(&peer), State::Established, "{what:?}");
        }
        let whole = Peer { ack: sent[0].end(), ..peer };
        p.tell(&whole, &whole.seg(ACK));
        let counters = p.stack.counters();
        if remote.is_ipv4() {
            assert_eq!((counters.icmp_in_dest_unreachs, counters.icmp_in_time_excds), (4, 1));
            assert_eq!(counters.icmp_in_parm_probs, 1);
        } else {
            assert_eq!((counters.icmp6_in_dest_unreachs, counters.icmp6_in_time_excds), (4, 1));
            assert_eq!(counters.icmp6_in_parm_problems, 1);
        }
    }
}

/// RFC 9293 §3.9.2.2 (MUST-56): remembered, a soft error names the reason when the connection times out; but
/// not if the peer was heard of since.
#[test]
fn l8_the_last_word_names_the_reason_of_a_time_out() {
    for (heard_since, reason) in [(false, Closed::Unreachable), (true, Closed::TimedOut)] {
        let mut p = Probe::new();
        let peer = p.accept();
        let first = p.send(&peer, &[1; 100]);
        tell(&mut p, &peer, peer.ack, What::Host);
        p.wait_ms(1);
        let trouble = |p: &mut Probe| {
            let mut trouble = None;
            p.act(&peer, |_, conn| trouble = conn.trouble());
            trouble
        };
        assert_eq!(trouble(&mut p), Some(Trouble::Unreachable));
        if heard_since {
            let peer = Peer { ack: first[0].end(), ..peer };
            p.tell(&peer, &peer.seg(ACK));
            assert_eq!(trouble(&mut p), None);
            p.send(&peer, &[2; 100]);
        }
        p.wait(Duration::from_secs(300));
        assert_eq!(p.app.end_of(peer.id), Some(reason));
    }
}

/// In SYN-SENT a hard error ends the attempt, as Linux does; a soft one names the reason in the end.
#[test]
fn s1_5_hard_errors_end_an_active_open_and_soft_ones_do_not() {
    for (what, ends) in [
        (What::Port, true),
        (What::Prohibited, true),
        (What::Host, false),
        (What::Net, false),
        (What::Time, false),
        (What::Parameter, false),
    ] {
        let mut p = Probe::new();
        let (peer, syn) = p.connect();
        // Not of this SYN: a guess.
        tell(&mut p, &peer, syn.seq.wrapping_add(1), what);
        tell(&mut p, &peer, syn.seq.wrapping_sub(1), what);
        assert_eq!(dropped(&p, DropReason::IcmpOutOfWindow), 2);
        assert_eq!(p.state(&peer), State::SynSent, "{what:?}");
        tell(&mut p, &peer, syn.seq, what);
        assert_eq!(p.app.end_of(peer.id), ends.then_some(Closed::Unreachable), "{what:?}");
        p.wait(Duration::from_secs(200));
        assert_eq!(p.app.end_of(peer.id), Some(Closed::Unreachable), "{what:?}");
        p.assert_idle();
    }
}

/// T1: a SYN's claimed sender that answers "nobody here" frees the half-open entry.
#[test]
fn t1_a_hard_error_frees_a_half_open_connection() {
    let mut p = Probe::new();
    let (peer, syn_ack) = p.half_open(Options::NONE);
    tell(&mut p, &peer, syn_ack.seq.wrapping_add(7), What::Port);
    assert_eq!(p.count(State::SynReceived), 1);
    tell(&mut p, &peer, syn_ack.seq, What::Port);
    assert_eq!(p.count(State::SynReceived), 0);
    p.stack.assert_consistent();
    p.assert_idle();
}

/// L8, RFC 5927 §4.1: an error about what isn't in flight, or about no connection, changes nothing.
#[test]
fn l8_a_guess_changes_nothing() {
    for remote in remotes() {
        let mut p = Probe::new();
        let peer = accept_from(&mut p, remote);
        let sent = p.send(&peer, &[1; 1400]);
        let (una, nxt) = (sent[0].seq, sent[0].end());
        for seq in [una.wrapping_sub(1), nxt, nxt.wrapping_add(1 << 31), una.wrapping_add(1 << 31)] {
            assert_eq!(tell(&mut p, &peer, seq, What::TooBig(1280)), []);
        }
        assert_eq!(dropped(&p, DropReason::IcmpOutOfWindow), 4);
        let nobody = Peer { remote_port: 9, ..peer };
        assert_eq!(tell(&mut p, &nobody, una, What::TooBig(1280)), []);
        assert_eq!(dropped(&p, DropReason::IcmpNoConnection), 1);
        assert_eq!(p.stack.counters().tcp_mtu_reductions, 0);
    }
}

/// S6.2, RFC 1191 §6.4, RFC 8201 §4: what was too large goes out again at once in smaller segments, the rest
/// follows at that size, in order, and the congestion window stays, in segments (RFC 5681 §3.1).
#[test]
fn s6_2_a_smaller_path_is_used_at_once_and_is_not_congestion() {
    for (remote, mtu, mss) in [(v4(2), 1400, 1360), (v4(2), 600, 560), (v6(2), 1300, 1240)] {
        let mut p = Probe::new();
        let mut peer = accept_from(&mut p, remote);
        let full = if remote.is_ipv4() { 1460 } else { 1440 };
        let text: Vec<u8> = (0..4 * full).map(|n| (n % 251) as u8).collect();
        let sent = p.send(&peer, &text);
        let cwnd = p.info(peer.id).expect("there").cwnd;
        assert_eq!(sent.len(), 4);
        let mut got = vec![0; text.len()];
        // The second segment's quote: the first's is still on its way.
        let mut again = tell(&mut p, &peer, sent[1].seq, What::TooBig(mtu));
        assert!(!again.is_empty(), "at once");
        let info = p.info(peer.id).expect("there");
        let segments = cwnd as usize * mss / full;
        assert_eq!((usize::from(info.mss), info.cwnd as usize), (mss, segments), "as many of them");
        // The rest of the flight says the same.
        for seg in &sent[2..] {
            assert_eq!(tell(&mut p, &peer, seg.seq, What::TooBig(mtu)), []);
        }
        assert_eq!(p.stack.counters().tcp_mtu_reductions, 1);
        let start = peer.ack;
        while !again.is_empty() {
            for seg in core::mem::take(&mut again) {
                assert!(seg.data.len() <= mss, "{}", seg.data.len());
                assert_eq!(seg.seq, peer.ack, "in order");
                let at = seg.seq.wrapping_sub(start) as usize;
                got[at..at + seg.data.len()].copy_from_slice(&seg.data);
                peer.ack = seg.end();
                again.extend(p.give(&peer, &peer.seg(ACK)));
            }
        }
        assert!(got == text, "{remote} {mtu}: the text arrives whole");
        assert_eq!(p.stack.counters().tcp_timeouts, 0);
        // What the application writes later is cut to the new size.
        let more = p.send(&peer, &[3; 3000]);
        assert!(more.iter().all(|seg| seg.data.len() <= mss), "{more:?}");
        p.stack.pool().assert_conserved();
    }
}

/// L8: floors of 552 (Linux's min_pmtu) and 1280 (RFC 8200 §5), whatever is claimed, also 0 and 68.
#[test]
fn l8_no_path_is_smaller_than_the_floor() {
    for (remote, mtu, mss) in [
        (v4(2), 68, Some(512)),
        (v4(2), 551, Some(512)),
        (v4(2), 1, Some(512)),
        (v6(2), 1279, None),
        (v6(2), 68, None),
        (v6(2), 0, None),
        (v6(2), 1280, Some(1220)),
        (v4(2), 1500, None),
        (v4(2), 9000, None),
    ] {
        let mut p = Probe::new();
        let peer = accept_from(&mut p, remote);
        p.send(&peer, &[1; 4000]);
        let before = p.info(peer.id).expect("there").mss;
        tell(&mut p, &peer, peer.ack, What::TooBig(mtu));
        let expected = mss.unwrap_or(before);
        assert_eq!(p.info(peer.id).expect("there").mss, expected, "{remote} {mtu}");
        assert_eq!(dropped(&p, DropReason::IcmpMtu), u64::from(mss.is_none()), "{remote} {mtu}");
    }
}

/// RFC 1191 §5: a router that names no MTU gets the next smaller one that links have.
#[test]
fn s6_2_an_old_router_leads_down_the_plateaus() {
    let mut p = Probe::new();
    let peer = accept_from(&mut p, v4(2));
    p.send(&peer, &[1; 4000]);
    for mss in [1452, 966, 512, 512] {
        tell(&mut p, &peer, peer.ack, What::TooBig(0));
        assert_eq!(p.info(peer.id).expect("there").mss, mss);
    }
}

/// RFC 1191 §6.3: the next connection to that host starts with what the last one learned; after ten minutes it
/// doesn't. Other hosts' never do.
#[test]
fn s6_2_the_next_connection_starts_right() {
    let mut p = Probe::new();
    let peer = accept_from(&mut p, v4(2));
    p.send(&peer, &[1; 4000]);
    tell(&mut p, &peer, peer.ack, What::TooBig(1300));
    let second = accept_from(&mut p, v4(2));
    let other = accept_from(&mut p, v6(2));
    let active = p.connected();
    let mss = |p: &Probe, peer: &Peer| p.info(peer.id).expect("there").mss;
    assert_eq!((mss(&p, &second), mss(&p, &other), mss(&p, &active)), (1260, 1440, 1260));
    p.wait(Duration::from_secs(601));
    let late = accept_from(&mut p, v4(2));
    assert_eq!(mss(&p, &late), 1460);
}

/// S6.2: without a frame for the cut nothing is sent, nothing is lost, and it goes on once there is one.
#[test]
fn s6_2_d2_a_smaller_path_under_memory_pressure() {
    let mut p = Probe::with(config(), 64, byway_tcp::time::Instant::from_millis(1000));
    let mut peer = accept_from(&mut p, v4(2));
    let sent = p.send(&peer, &[7; 4000]);
    let frame = error(&peer, sent[0].seq, What::TooBig(1000));
    // Everything else is taken.
    let mut hoard = Vec::new();
    let slot = p.stack.pool_mut().fill().expect("for the error");
    while let Some(chunk) = p.stack.pool_mut().alloc(byway_tcp::frame::Owner::Control) {
        hoard.push(chunk);
    }
    let slice = p.stack.pool_mut().write_as_nic(slot, 256, &frame);
    let now = p.now;
    p.stack.receive(&mut p.app, &[slice], now);
    // The error's own frame makes room for one cut: two parts. Then none is left.
    let out = p.collect();
    assert_eq!(out.len(), 2);
    for chunk in hoard {
        p.stack.pool_mut().release(chunk);
    }
    let mut seen: Vec<Seg> = out.into_iter().map(|(_, seg)| seg).collect();
    seen.extend(p.wait_ms(250).into_iter().map(|(_, seg)| seg));
    let mut octets = 0;
    while octets < 4000 {
        assert!(!seen.is_empty(), "stuck at {octets}");
        for seg in core::mem::take(&mut seen) {
            assert!(seg.data.len() <= 960, "{}", seg.data.len());
            if seg.seq == peer.ack {
                octets += seg.data.len();
                peer.ack = seg.end();
                seen.extend(p.give(&peer, &peer.seg(ACK)));
            }
        }
    }
    assert_eq!(p.stack.counters().payload_bytes_copied, 500 + 500 + 120);
    p.assert_idle();
}

/// RFC 4821 §7.7: nobody says that segments are too large, they just vanish. Then larger is tried again with one
/// segment: if it is lost, nothing else is; if it arrives, all are.
#[test]
fn s6_2_a_black_hole_is_found_and_left_again() {
    for heals in [true, false] {
        let mut p = Probe::new();
        let mut peer = accept_from(&mut p, v4(2));
        let start = peer.ack;
        let text: Vec<u8> = (0..500_000).map(|n| (n % 253) as u8).collect();
        let (mut written, mut got, mut limit) = (0, Vec::<u8>::new(), 1200);
        let mut flying: Vec<Seg> = Vec::new();
        let mut vanished = Vec::new();
        for step in 0..800 {
            if step == 100 {
                assert!(got.len() >= 12_000, "the black hole is left within 5 s: {}", got.len());
                assert_eq!(p.info(peer.id).expect("there").mss, 1024);
                assert_eq!(p.stack.counters().tcp_mtu_black_holes, 1);
                vanished.clear();
                limit = if heals { 1460 } else { 1200 };
            }
            if written < text.len() && step % 20 == 0 {
                let len = if step == 0 { 12_000 } else { 3_000 };
                let part = &text[written..(written + len).min(text.len())];
                flying.extend(p.send(&peer, part));
                written += part.len();
            }
            while !flying.is_empty() {
                for seg in core::mem::take(&mut flying) {
                    if seg.data.len() > limit {
                        vanished.push(seg.data.len());
                    } else if seg.seq == peer.ack {
                        got.extend(&seg.data);
                        peer.ack = seg.end();
                        flying.extend(p.give(&peer, &peer.seg(ACK)));
                    }
                }
            }
            flying.extend(p.wait_ms(50).into_iter().map(|(_, seg)| seg));
        }
        assert_eq!(peer.ack.wrapping_sub(start) as usize, written);
        assert!(got == text[..written]);
        let counters = p.stack.counters();
        if heals {
            assert_eq!((counters.tcp_mtup_success, counters.tcp_mtup_fail), (1, 0));
            assert_eq!(p.info(peer.id).expect("there").mss, 1460);
        } else {
            assert_eq!((counters.tcp_mtup_success, counters.tcp_mtup_fail), (0, 1));
            assert_eq!(vanished, [1460], "one segment tried");
            assert_eq!(p.info(peer.id).expect("there").mss, 1024);
        }
    }
}

/// A NIC spreads ICMP by addresses alone: the core that got an error tells the one whose connection it is about.
#[test]
fn s6_2_an_error_that_reached_another_core_is_passed_on() {
    let (mut here, mut there) = (Probe::new(), Probe::new());
    let peer = accept_from(&mut here, v4(2));
    let sent = here.send(&peer, &[1; 2920]);
    let frame = error(&peer, sent[0].seq, What::TooBig(1000));
    assert_eq!(there.give_frames(&[frame]), []);
    let mut news = Vec::new();
    there.stack.take_news(&mut news);
    let told = news.iter().filter(|news| matches!(news, News::Error(_))).count();
    assert_eq!((told, dropped(&there, DropReason::IcmpNoConnection)), (1, 1));
    for news in &news {
        here.stack.hear(news, here.now);
    }
    here.stack.advance(&mut here.app, here.now);
    let again = here.collect();
    assert_eq!(again.len(), 4);
    assert!(again.iter().all(|(_, seg)| seg.data.len() <= 960));
    // Nobody's: told once, and not round and round.
    let mut back = Vec::new();
    let nobody = error(&Peer { remote_port: 5, ..peer }, sent[0].seq, What::TooBig(1000));
    there.give_frames(&[nobody]);
    there.stack.take_news(&mut back);
    assert_eq!(back.len(), 1);
    back.drain(..).for_each(|news| here.stack.hear(&news, here.now));
    here.stack.take_news(&mut back);
    assert!(back.iter().all(|news| matches!(news, News::Neighbor(..))), "{back:?}");
}

/// RFC 4821 §7.7: what vanishes is smaller than SND.MSS, because the application writes little at a time, and still too
/// large for the path. (byway-sim found the step down chosen from SND.MSS, and nothing of this size suspected.)
#[test]
fn s6_2_a_black_hole_for_less_than_full_segments_is_found() {
    let mut p = Probe::new();
    let mut peer = accept_from(&mut p, v4(2));
    let text: Vec<u8> = (0..900).map(|n| (n % 253) as u8).collect();
    let mut flying = p.send(&peer, &text);
    let mut got = Vec::<u8>::new();
    for _ in 0..200 {
        for seg in core::mem::take(&mut flying) {
            if seg.data.len() <= 600 && seg.seq == peer.ack {
                got.extend(&seg.data);
                peer.ack = seg.end();
                flying.extend(p.give(&peer, &peer.seg(ACK)));
            }
        }
        flying.extend(p.wait_ms(50).into_iter().map(|(_, seg)| seg));
    }
    assert!(got == text, "{} octets after 10 s", got.len());
    assert_eq!(p.stack.counters().tcp_mtu_black_holes, 1);
}
