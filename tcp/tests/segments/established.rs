//! ESTABLISHED, the receiving side (RFC 9293 §3.10.7.4): window, order, acknowledgement, impostors.

use byway_tcp::app::Closed;
use byway_tcp::counters::DropReason;
use byway_tcp::frame::Owner;
use byway_tcp::seq::SeqNumber;
use byway_tcp::stack::Config;
use byway_tcp::tcb::state::State;
use byway_tcp::time::{Duration, Instant};
use byway_tcp::wire::tcp::{Flags, Options, SackBlocks};

use crate::probe::*;

fn at(peer: &Peer, offset: i64, data: &[u8]) -> Seg {
    let seq = peer.seq.wrapping_add(offset as u32);
    Seg { seq, ..peer.seg(PSH_ACK).data(data) }
}

fn scaled() -> Options {
    Options { mss: Some(1460), window_scale: Some(0), sack_permitted: true, ..Options::NONE }
}

fn with_sack() -> Options {
    Options { mss: Some(1460), sack_permitted: true, ..Options::NONE }
}

/// S8.1: one small segment is acknowledged after 40 ms, the second full one at once (RFC 5681 §4.2).
#[test]
fn s8_1_acknowledgements_are_delayed() {
    let mut p = Probe::patient();
    let peer = p.accept();
    p.tell(&peer, &at(&peer, 0, b"a"));
    let out = p.wait_ms(100);
    assert_eq!(out.len(), 1, "{out:?}");
    assert!(out[0].1.is(ACK) && out[0].1.ack == peer.seq + 1);
    assert!((40..42).contains(&out[0].0.as_millis()), "{:?}", out[0].0);

    let full = [5; MSS];
    p.tell(&peer, &at(&peer, 1, &full));
    assert_eq!(p.ask(&peer, &at(&peer, 1 + MSS as i64, &full)).ack, peer.seq + 1 + 2 * MSS as u32);
    // One ACK for a batch (S5.1), however many segments.
    let from = 1 + 2 * MSS as i64;
    let batch: Vec<_> = (0..6).map(|n| at(&peer, from + n * MSS as i64, &full)).collect();
    let out = p.batch(&peer, &batch);
    assert_eq!(out.len(), 1, "{out:?}");
    assert_eq!(p.wait_ms(1000).len(), 0);
    assert_eq!(p.app.text(peer.id).len(), 1 + 8 * MSS);
}

/// S8.1: what the application answers carries the acknowledgement.
#[test]
fn s8_1_an_answer_carries_the_ack() {
    let mut p = Probe::patient();
    let peer = p.accept();
    p.tell(&peer, &at(&peer, 0, b"question"));
    let out = p.send(&peer, b"answer");
    assert_eq!((out.len(), out[0].ack), (1, peer.seq + 8));
    p.tell(&peer, &Seg::new(ACK, peer.seq + 8, peer.ack + 6));
    assert_eq!(p.wait_ms(1000).len(), 0);
}

/// S5.2: the window closes when nobody reads, opens by one update when somebody does, and never by a
/// silly bit (RFC 9293 §3.8.6.2.2).
#[test]
fn s5_2_the_window_closes_and_opens_again() {
    let mut p = Probe::new();
    p.app.reads = false;
    let mut peer = p.accept();
    let mut sent = 0;
    let mut window = 65_535;
    while window > 0 {
        let len = MSS.min(window);
        let out = p.give(&peer, &peer.seg(ACK).data(&vec![1; len]));
        peer.seq += len as u32;
        sent += len;
        let ack = match out.last() {
            Some(ack) => ack.clone(),
            None => p.wait_ms(50).pop().expect("delayed ACK").1,
        };
        assert_eq!(ack.ack, peer.seq);
        window = usize::from(ack.window);
    }
    assert!((40_000..=56 * MSS).contains(&sent), "an eighth of the free frames: {sent}");
    // S5.4: beyond the window nothing is taken, and the answer says where we stand.
    let ack = p.ask(&peer, &peer.seg(ACK).data(b"too much"));
    assert_eq!((ack.ack, ack.window), (peer.seq, 0));
    // One chunk taken: less than a segment of room is not worth a word; all taken: one update.
    let update = p.read(&peer);
    assert_eq!(update.len(), 1, "{update:?}");
    assert!(update[0].is(ACK) && usize::from(update[0].window) > 40_000);
    assert_eq!(p.app.text(peer.id).len(), sent);
}

/// S5.2 P2: with a scaled window the right edge doesn't creep to the right by rounding; a peer can't put more
/// into a connection than the window it was first offered.
#[test]
fn s5_2_p2_rounding_never_opens_the_window() {
    let mut p = Probe::with(config(), 2048, Instant::from_millis(1));
    p.app.reads = false;
    let (mut peer, syn_ack) = p.half_open(scaled());
    let shift = syn_ack.options.window_scale.expect("scaled");
    assert!(shift >= 6);
    p.give(&peer, &peer.seg(ACK));
    peer.id = p.app.opened[0];
    // Find the edge with full segments, then go on with single octets as long as any window is offered.
    let mut edge = peer.seq + 65_535;
    let start = peer.seq;
    for n in 0..20_000 {
        let room = edge.wrapping_sub(peer.seq) as usize;
        if room == 0 {
            break;
        }
        let len = if room > 2 * MSS { MSS } else { 1 + n % 3 };
        let mut out = p.give(&peer, &peer.seg(ACK).data(&vec![1; len.min(room)]));
        peer.seq += len.min(room) as u32;
        let Some(ack) = out.pop().or_else(|| p.wait_ms(50).pop().map(|(_, seg)| seg)) else { continue };
        let seen = ack.ack.wrapping_add(u32::from(ack.window) << shift);
        assert!(edge.wrapping_sub(seen) < 1 << shift || edge.wrapping_sub(seen) > 1 << 31, "the edge stays");
        edge = seen;
    }
    let held = peer.seq.wrapping_sub(start);
    let queued = p.info(peer.id).expect("there").recv_queue;
    assert!(held <= 330_000, "{held} octets; an eighth of the free frames are 224 of 1460");
    assert_eq!(queued, held);
    for _ in 0..5_000 {
        p.give(&peer, &peer.seg(ACK).data(b"xyz"));
        peer.seq += 3;
    }
    let queued = p.info(peer.id).expect("there").recv_queue;
    assert!(queued - held < 1 << shift, "{queued} {held}");
}

/// S5.2 T3: 64 KiB are offered, more to who fills a path, and 64 KiB again after a pause; the edge never moves left.
#[test]
fn s5_2_t3_the_window_grows_with_what_arrives() {
    const RTT: u64 = 50;
    for stamped in [true, false] {
        let mut p = Probe::with(config(), 16_384, Instant::from_millis(1000));
        let clock = |p: &Probe| p.now.as_millis() as u32;
        let mut options = Options { timestamps: stamped.then_some((clock(&p), 0)), ..scaled() };
        let (mut peer, syn_ack) = p.half_open(options);
        let shift = syn_ack.options.window_scale.expect("scaled");
        // So long did the SYN-ACK and its ACK take.
        p.wait_ms(RTT);
        options = Options {
            timestamps: syn_ack.options.timestamps.map(|(ours, _)| (clock(&p), ours)),
            ..Options::NONE
        };
        p.tell(&peer, &peer.seg(ACK).options(options));
        peer.id = p.app.opened[0];
        let mut edge = peer.seq + 65_535;
        let mut flight = 10;
        let mut windows = Vec::new();
        for round in 0..9 {
            // What the window lets through at once; its ACKs arrive a round trip later.
            let room = edge.wrapping_sub(peer.seq) as usize / MSS;
            let mut acks = Vec::new();
            for _ in 0..flight.min(room) {
                acks.extend(p.give(&peer, &peer.seg(ACK).options(options).data(&[1; MSS - 12])));
                peer.seq += MSS as u32 - 12;
            }
            p.wait_ms(RTT);
            for ack in acks {
                let seen = ack.ack.wrapping_add(u32::from(ack.window) << shift);
                assert!(edge.wrapping_sub(seen) as i32 <= 1 << shift, "the edge never moves left: {round}");
                edge = seen;
                let stamps = ack.options.timestamps.map(|(ours, _)| (clock(&p), ours));
                options = Options { timestamps: stamps, ..Options::NONE };
                windows.push((u32::from(ack.window) << shift) as usize);
            }
            assert!(flight <= room || flight > 512, "round {round}: {flight} segments don't fit {room}");
            flight *= 2;
        }
        assert!(windows[0] <= 65_536 && windows[windows.len() - 1] > 700_000, "{stamped} {windows:?}");
        p.wait(Duration::from_secs(11));
        options.timestamps = options.timestamps.map(|(_, ours)| (clock(&p), ours));
        let mut last = 0;
        for _ in 0..4_000 {
            for ack in p.give(&peer, &peer.seg(ACK).options(options).data(&[1; 1000])) {
                let seen = ack.ack.wrapping_add(u32::from(ack.window) << shift);
                assert!(edge.wrapping_sub(seen) as i32 <= 1 << shift);
                edge = seen;
                last = u32::from(ack.window) << shift;
            }
            peer.seq += 1000;
            p.wait_ms(20);
        }
        assert!(last <= 65_536, "{stamped} {last}: 50 KB/s need no more");
    }
}

/// S5.5: out of order, duplicated, overlapping: every octet once, in order, SACK for what is ahead.
#[test]
fn s5_5_t13_order_duplicates_and_overlaps() {
    let mut p = Probe::new();
    let peer = p.accept_with(with_sack(), 65_535);
    let ack = p.ask(&peer, &at(&peer, 3, b"def"));
    assert_eq!(ack.ack, peer.seq);
    let blocks: Vec<_> = ack.options.sack.iter().collect();
    assert_eq!(blocks, [(SeqNumber(peer.seq + 3), SeqNumber(peer.seq + 6))]);
    // T13: what came first stays, and of what reaches over it both ends are kept.
    p.ask(&peer, &at(&peer, 2, b"CXXXXg"));
    let ack = p.ask(&peer, &at(&peer, 0, b"ab"));
    assert_eq!(ack.ack, peer.seq + 8);
    p.give(&peer, &at(&peer, 6, b"gh"));
    p.ask(&peer, &at(&peer, 0, b"abCdefgh"));
    p.give(&peer, &at(&peer, 4, b"??ghij"));
    let out = p.wait_ms(50);
    assert!(out.iter().all(|(_, seg)| seg.ack == peer.seq + 10), "{out:?}");
    assert_eq!(p.app.text(peer.id), b"abCdefXgij");
    p.assert_idle();
}

/// T12: one octet with a gap, again and again: bounded frames, and the hole closes in the end.
#[test]
fn t12_single_octets_ahead_of_holes_pin_few_frames() {
    let mut p = Probe::new();
    let peer = p.accept();
    for n in 0..2_000 {
        p.give(&peer, &at(&peer, 1 + 2 * n, b"x"));
    }
    assert!(p.stack.pool().count(Owner::Rx) <= 64, "{:?}", p.stack.pool());
    for n in 0..2_000 {
        p.give(&peer, &at(&peer, 2 + 2 * n, b"y"));
    }
    assert!(p.stack.pool().count(Owner::Rx) <= 128, "{:?}", p.stack.pool());
    for n in 0..200 {
        p.give(&peer, &at(&peer, n, b"z"));
    }
    assert_eq!(p.app.text(peer.id).len(), 200);
    p.assert_idle();
    assert!(p.stack.counters().dropped(DropReason::OutOfOrderLimit) > 0);
}

/// S2.1 S5.5: FIN ahead of its data waits for it; text behind FIN is never taken.
#[test]
fn s5_5_fin_out_of_order() {
    let mut p = Probe::new();
    p.app.closes = false;
    let peer = p.accept();
    let fin = Seg { flags: FIN_ACK, ..at(&peer, 3, b"def") };
    assert_eq!(p.ask(&peer, &fin).ack, peer.seq);
    assert_eq!(p.state(&peer), State::Established);
    p.ask(&peer, &at(&peer, 5, b"XYZ"));
    assert_eq!(p.ask(&peer, &at(&peer, 0, b"abc")).ack, peer.seq + 7);
    assert_eq!((p.state(&peer), p.app.text(peer.id)), (State::CloseWait, &b"abcdef"[..]));
    assert_eq!(p.app.finished, [peer.id]);
}

/// T7 (RFC 5961 §3): RST ends the connection at exactly RCV.NXT, is answered in the window, ignored outside.
#[test]
fn s3_1_t7_blind_resets() {
    let mut p = Probe::new();
    let peer = p.accept();
    for offset in [1u32, 1000, 65_000] {
        p.wait_ms(500);
        let ack = p.ask(&peer, &Seg::new(RST, peer.seq.wrapping_add(offset), 0));
        assert_eq!((ack.flags, ack.seq, ack.ack), (ACK, peer.ack, peer.seq));
    }
    for offset in [u32::MAX, 70_000, 1 << 31, 3 << 30] {
        p.tell(&peer, &Seg::new(RST, peer.seq.wrapping_add(offset), 0));
    }
    let mut seq = 12_345u32;
    for _ in 0..1 << 16 {
        seq = seq.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        if seq != peer.seq {
            p.give(&peer, &Seg::new(RST, seq, 0));
        }
    }
    assert_eq!(p.state(&peer), State::Established);
    p.tell(&peer, &Seg::new(RST, peer.seq, 0));
    assert_eq!((p.state(&peer), p.app.end_of(peer.id)), (State::Listen, Some(Closed::Reset)));
    p.assert_idle();
}

/// T7 (RFC 5961 §4): a SYN never resets nor opens anything here.
#[test]
fn t7_blind_syns() {
    let mut p = Probe::new();
    let peer = p.accept();
    for offset in [0u32, 1, 1000, 70_000, 1 << 31, u32::MAX] {
        p.wait_ms(500);
        for flags in [SYN, SYN_ACK] {
            p.wait_ms(500);
            let ack = p.ask(&peer, &Seg::new(flags, peer.seq.wrapping_add(offset), peer.ack));
            assert_eq!((ack.flags, ack.seq, ack.ack), (ACK, peer.ack, peer.seq));
        }
    }
    assert_eq!(p.state(&peer), State::Established);
}

/// T7 T23 (RFC 5961 §5): the acknowledgement must lie in SND.UNA − MAX.SND.WND ..= SND.NXT, or its text isn't taken.
#[test]
fn t7_t23_blind_data() {
    let mut p = Probe::patient();
    let peer = p.accept();
    p.send(&peer, b"0123456789");
    for ack in [peer.ack.wrapping_add(11), peer.ack.wrapping_sub(65_536), peer.ack ^ (1 << 31)] {
        let out = p.ask(&peer, &Seg { ack, ..at(&peer, 0, b"evil") });
        assert_eq!((out.flags, out.ack), (ACK, peer.seq));
    }
    assert!(p.app.text(peer.id).is_empty());
    p.tell(&peer, &Seg { ack: peer.ack.wrapping_sub(65_535), ..at(&peer, 0, b"late") });
    assert_eq!(p.app.text(peer.id), b"late");
    // Nothing was freed by an ACK of what wasn't sent.
    assert_eq!(p.info(peer.id).expect("there").send_queue, 10);
}

/// T7: an ACK in a segment from long ago, or from nowhere, acknowledges nothing.
#[test]
fn t7_an_ack_outside_the_sequence_space_acknowledges_nothing() {
    let mut p = Probe::new();
    let peer = p.accept();
    p.send(&peer, b"0123456789");
    for offset in [1u32 << 31, (1 << 31) + 5, 3 << 30, 1 << 20] {
        p.give(&peer, &Seg::new(ACK, peer.seq.wrapping_add(offset), peer.ack + 10));
        assert_eq!(p.info(peer.id).expect("there").send_queue, 10, "{offset}");
    }
    p.give(&peer, &Seg::new(ACK, peer.seq, peer.ack + 10));
    assert_eq!(p.info(peer.id).expect("there").send_queue, 0);
    // Half the space away a number is both before and behind another.
    let half = (peer.ack + 10) ^ (1 << 31);
    p.give(&peer, &Seg::new(ACK, peer.seq - 1, half));
    p.give(&peer, &Seg::new(ACK, peer.seq, half));
    assert_eq!(p.send(&peer, b"next")[0].seq, peer.ack + 10);
    assert_eq!(p.wait_ms(500)[0].1.data, b"next", "it isn't taken for acknowledged");
}

/// T9: segments out of place are answered at most twice a second, text always.
#[test]
fn t9_pure_acks_out_of_place_are_answered_twice_a_second() {
    let mut p = Probe::new();
    let peer = p.accept();
    let mut answers = 0;
    for _ in 0..1000 {
        p.wait_ms(10);
        answers += p.give(&peer, &Seg::new(ACK, peer.seq.wrapping_add(1 << 20), peer.ack)).len();
    }
    assert!((15..=21).contains(&answers), "{answers} in 10 s");
    for _ in 0..10 {
        p.ask(&peer, &at(&peer, -5, b"old"));
        p.ask(&peer, &at(&peer, 1 << 20, b"far"));
    }
}

/// T8: another connection's answers don't depend on the probes at the first.
#[test]
fn t8_challenges_are_limited_per_connection() {
    let mut p = Probe::new();
    let (a, b) = (p.accept(), p.accept());
    for _ in 0..500 {
        p.give(&a, &Seg::new(RST, a.seq + 10, 0));
    }
    assert!(p.ask(&b, &Seg::new(RST, b.seq + 10, 0)).is(ACK));
}

/// S3.2: keepalive and window probes of other systems, with and without an octet, are answered.
#[test]
fn s3_2_probes_are_answered() {
    let mut p = Probe::new();
    let peer = p.accept();
    for probe in [Seg { seq: peer.seq - 1, ..peer.seg(ACK) }, at(&peer, -1, b"?")] {
        p.wait_ms(1000);
        let ack = p.ask(&peer, &probe);
        assert_eq!((ack.flags, ack.seq, ack.ack), (ACK, peer.ack, peer.seq));
    }
    assert!(p.app.text(peer.id).is_empty());
}

/// S4.3 T18: urgent data stays in line, whatever the pointer says.
#[test]
fn s4_3_t18_urgent_data_is_in_line() {
    let mut p = Probe::new();
    let peer = p.accept();
    for (n, urgent) in [0u16, 1, 2, 3, 0xffff].into_iter().enumerate() {
        p.give(&peer, &Seg { urgent, flags: PSH_ACK | URG, ..at(&peer, 2 * n as i64, b"ab") });
    }
    p.give(&peer, &Seg { urgent: 9, flags: ACK | URG, ..at(&peer, 10, b"") });
    assert_eq!(p.app.text(peer.id), b"ababababab");
    let fin = Seg { urgent: 0xffff, flags: FIN_ACK | URG, ..at(&peer, 10, b"") };
    p.give(&peer, &fin);
    assert_eq!(p.state(&peer), State::LastAck);
}

/// S4.5 L3: any flipped bit of the segment is dropped and counted, and changes nothing.
#[test]
fn s4_5_l3_every_flipped_bit_is_dropped() {
    let mut p = Probe::new();
    let peer = p.accept();
    let whole = p.frame(&peer, &at(&peer, 0, b"data!"));
    for bit in 14 * 8..whole.len() * 8 {
        let mut frame = whole.clone();
        frame[bit / 8] ^= 1 << (bit % 8);
        let before = p.stack.counters().dropped_total();
        assert!(p.give_frames(&[frame]).is_empty(), "bit {bit}");
        // An IPv4 checksum doesn't see that 4 became 4 with other octets in the TOS or TTL.
        assert_eq!(p.stack.counters().dropped_total(), before + 1, "bit {bit}");
    }
    assert!(p.stack.counters().dropped(DropReason::TcpChecksum) > 100);
    assert!(p.app.text(peer.id).is_empty());
    p.give_frames(&[whole]);
    assert_eq!(p.app.text(peer.id), b"data!");
}

/// L1: every prefix of a segment is dropped with one reason and no answer.
#[test]
fn l1_every_prefix_is_dropped() {
    let mut p = Probe::new();
    let peer = p.accept();
    let whole = p.frame(&peer, &at(&peer, 0, b"data!"));
    for len in 0..whole.len() {
        let before = p.stack.counters().dropped_total();
        assert!(p.give_frames(&[whole[..len].to_vec()]).is_empty());
        assert_eq!(p.stack.counters().dropped_total(), before + 1, "{len}");
    }
    assert!(p.app.text(peer.id).is_empty());
}

/// T17: odd options never stop a segment; S4.1: nor do reserved bits.
#[test]
fn t17_s4_1_odd_options_and_reserved_bits() {
    let mut p = Probe::new();
    let mut peer = p.accept();
    let stamps = Options { timestamps: Some((1, 2)), ..Options::NONE };
    let mut state = 7u32;
    for n in 0..2000u32 {
        let seg = peer.seg(PSH_ACK).options(stamps).data(&[n as u8]);
        let mut frame = p.frame(&peer, &seg);
        for octet in &mut frame[54..66] {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *octet = if state >> 31 == 0 { (state >> 24) as u8 } else { (state >> 24) as u8 % 9 };
        }
        frame[46] |= (n % 16) as u8;
        fix_checksum(&mut frame);
        p.give_frames(&[frame]);
        peer.seq += 1;
    }
    let expected: Vec<u8> = (0..2000u32).map(|n| n as u8).collect();
    assert!(p.app.text(peer.id) == expected);
    // Data offset below 5, or beyond the segment.
    for offset in [0u8, 4, 15] {
        let mut frame = p.frame(&peer, &peer.seg(ACK));
        frame[46] = offset << 4;
        fix_checksum(&mut frame);
        assert!(p.give_frames(&[frame]).is_empty());
    }
    assert_eq!(p.stack.counters().dropped(DropReason::TcpHeader), 3);
}

/// Of an IPv4 frame without options.
fn fix_checksum(frame: &mut [u8]) {
    frame[50..52].fill(0);
    let mut sum = 6 + (frame.len() - 34) as u32;
    for pair in frame[26..].chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    frame[50..52].copy_from_slice(&(!(sum as u16)).to_be_bytes());
}

/// T14: both sides' numbers cross the wrap, with text, holes, FIN.
#[test]
fn t14_numbers_wrap() {
    // The clock of the initial sequence number moves by one in 4 µs: choose the moment.
    let iss = {
        let mut p = Probe::new();
        let peer = p.peer();
        p.ask(&peer, &peer.seg(SYN)).seq
    };
    for (before, irs) in [
        (0u32, 0u32),
        (1, u32::MAX),
        (2, u32::MAX - 1),
        (5, 0x7fff_ffff),
        (8, 0x8000_0000),
        (1 << 31, u32::MAX - 4),
    ] {
        let start = Instant::from_millis(1000);
        let ticks = 0u32.wrapping_sub(before).wrapping_sub(iss);
        let mut p = Probe::with(config(), 512, start + Duration::from_micros(4) * ticks);
        let mut peer = p.peer();
        peer.seq = irs;
        let syn_ack = p.ask(&peer, &peer.seg(SYN));
        assert_eq!(syn_ack.seq, 0u32.wrapping_sub(before));
        peer.seq = peer.seq.wrapping_add(1);
        peer.ack = syn_ack.seq.wrapping_add(1);
        p.tell(&peer, &peer.seg(ACK));
        peer.id = p.app.opened[0];
        let out = p.send(&peer, b"0123456789");
        assert_eq!((out.len(), out[0].seq), (1, peer.ack));
        p.ask(&peer, &at(&peer, 4, b"efgh"));
        p.give(&peer, &Seg { ack: peer.ack.wrapping_add(4), ..at(&peer, 0, b"abcd") });
        assert_eq!(p.info(peer.id).expect("there").send_queue, 6);
        assert_eq!(p.app.text(peer.id), b"abcdefgh");
        p.give(&peer, &Seg { ack: peer.ack.wrapping_add(10), ..at(&peer, 8, b"") });
        assert_eq!(p.info(peer.id).expect("there").send_queue, 0);
        peer.ack = peer.ack.wrapping_add(10);
        peer.seq = peer.seq.wrapping_add(8);
        let fin = p.ask(&peer, &peer.seg(FIN_ACK));
        assert_eq!((fin.flags, fin.seq, fin.ack), (FIN_ACK, peer.ack, peer.seq.wrapping_add(1)));
        p.tell(&peer, &Seg::new(ACK, peer.seq.wrapping_add(1), peer.ack.wrapping_add(1)));
        assert_eq!(p.app.end_of(peer.id), Some(Closed::Finished));
        p.assert_idle();
    }
}

/// T15 (RFC 7323 §5): an old timestamp is refused and answered; none at all is tolerated.
#[test]
fn t15_timestamps() {
    let mut p = Probe::patient();
    let stamp = |value| Options { timestamps: Some((value, 0)), ..Options::NONE };
    let (mut peer, _) = p.half_open(Options { mss: Some(1460), ..stamp(1000) });
    p.tell(&peer, &peer.seg(ACK).options(stamp(1000)));
    peer.id = p.app.opened[0];
    p.give(&peer, &at(&peer, 0, b"a").options(stamp(1010)));
    let ack = p.ask(&peer, &at(&peer, 1, b"?").options(stamp(1009)));
    assert_eq!((ack.ack, ack.options.timestamps.expect("ts").1), (peer.seq + 1, 1010));
    assert_eq!(p.stack.counters().dropped(DropReason::Paws), 1);
    p.give(&peer, &at(&peer, 1, b"b"));
    assert_eq!(p.app.text(peer.id), b"ab");
    // RFC 7323 §4.3: the echo is of the segment that the last ACK asked for, not of the later one.
    p.wait_ms(100);
    p.tell(&peer, &at(&peer, 2, b"c").options(stamp(1020)));
    p.tell(&peer, &at(&peer, 3, b"d").options(stamp(1030)));
    let ack = p.wait_ms(50).pop().expect("delayed").1;
    assert_eq!(ack.options.timestamps.expect("ts").1, 1020);
}

/// T10: SACK blocks of any kind are taken or ignored.
#[test]
fn t10_odd_sack_blocks() {
    let mut p = Probe::new();
    let peer = p.accept_with(with_sack(), 65_535);
    p.send(&peer, &[1; 5 * MSS]);
    for (from, to) in [
        (0i64, 1i64),
        (5, 5),
        (9, 3),
        (-10, 20),
        (0, 100_000),
        (7300, 7301),
        (1, 1459),
        (2920, 2919),
        (-5, -1),
        (1 << 31, 1),
    ] {
        let mut sack = SackBlocks::default();
        sack.push(SeqNumber(peer.ack) + from as u32, SeqNumber(peer.ack) + to as u32);
        p.give(&peer, &peer.seg(ACK).options(Options { sack, ..Options::NONE }));
    }
    assert_eq!(p.stack.counters().tcp_retrans_segs, 0);
    p.give(&peer, &Seg::new(ACK, peer.seq, peer.ack + 5 * MSS as u32));
    assert_eq!(p.info(peer.id).expect("there").send_queue, 0);
}

/// (f) The end is seen after the last octet was taken, not before.
#[test]
fn s2_2_recv_finished_comes_after_the_last_octet() {
    let mut p = Probe::new();
    p.app.reads = false;
    let peer = p.accept();
    p.give(&peer, &Seg { flags: FIN_ACK, ..at(&peer, 0, b"abc") });
    p.act(&peer, |_, conn| assert!(!conn.recv_finished()));
    p.act(&peer, |_, conn| {
        let chunk = conn.recv().expect("three octets");
        assert!(conn.recv_finished());
        conn.release(chunk);
    });
    assert_eq!(p.state(&peer), State::CloseWait);
    // S2.2: still sending.
    assert_eq!(p.send(&peer, b"more")[0].data, b"more");
}

/// A segment of no flags, or without ACK, changes nothing (RFC 9293 §3.10.7.4, fifth step).
#[test]
fn without_ack_nothing_is_taken() {
    let mut p = Probe::new();
    let peer = p.accept();
    for flags in [Flags::NONE, PSH, URG, FIN, FIN | PSH | URG] {
        p.tell(&peer, &Seg { flags, ..at(&peer, 0, b"x") });
    }
    assert_eq!(p.state(&peer), State::Established);
    assert!(p.app.text(peer.id).is_empty());
}

/// RFC 9293 §3.9.1.9 (MUST-48, SHLD-21, SHLD-22), §3.9.2 (MUST-49): routers are told what the application and the
/// configuration say.
#[test]
fn the_application_says_how_segments_are_served() {
    let config = Config { hop_limit: 3, ..config() };
    let mut p = Probe::with(config, 512, Instant::from_millis(1000));
    for remote in [v4(2), v6(2)] {
        let peer = Peer { remote, ..p.peer() };
        let syn_ack = p.ask(&peer, &peer.seg(SYN).mss(1000));
        assert_eq!(p.last_service, (0, 3));
        let mut peer = Peer { seq: peer.seq + 1, ack: syn_ack.end(), ..peer };
        p.tell(&peer, &peer.seg(ACK));
        peer.id = p.app.opened.pop().expect("opened");
        for dscp in [46, 0, 63] {
            p.act(&peer, |_, conn| conn.set_dscp(dscp));
            peer.ack = p.send(&peer, b"text")[0].end();
            assert_eq!(p.last_service, (dscp << 2, 3), "text");
            p.tell(&peer, &peer.seg(ACK));
            p.give(&peer, &peer.seg(ACK).data(b"?"));
            peer.seq += 1;
            p.wait_ms(100);
            assert_eq!(p.last_service, (dscp << 2, 3), "an acknowledgement");
        }
    }
    // Answers to strangers, too.
    let stranger = Peer { local_port: 81, ..p.peer() };
    p.ask(&stranger, &stranger.seg(SYN));
    assert_eq!(p.last_service, (0, 3));
}
