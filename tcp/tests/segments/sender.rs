//! The sending side: windows, silly windows, Nagle, loss, timers.

use byway_tcp::app::Closed;
use byway_tcp::frame::Owner;
use byway_tcp::seq::SeqNumber;
use byway_tcp::tcb::state::State;
use byway_tcp::time::{Duration, Instant};
use byway_tcp::wire::tcp::{Options, SackBlocks};

use crate::probe::*;

const OPTIONS: Options = Options { mss: Some(1460), ..Options::NONE };
const SACK: Options = Options { mss: Some(1460), sack_permitted: true, ..Options::NONE };

fn acks(peer: &Peer, octets: usize) -> Seg {
    Seg::new(ACK, peer.seq, peer.ack.wrapping_add(octets as u32))
}

/// An ACK of `octets`, with what was received ahead of a hole, in whole segments.
fn sacks(peer: &Peer, octets: usize, blocks: &[(usize, usize)]) -> Seg {
    let mut sack = SackBlocks::default();
    for &(from, to) in blocks {
        let at = |n: usize| SeqNumber(peer.ack.wrapping_add((n * MSS) as u32));
        sack.push(at(from), at(to));
    }
    acks(peer, octets).options(Options { sack, ..Options::NONE })
}

/// Which segments these are, counted from the first.
fn numbers(peer: &Peer, segs: &[Seg]) -> Vec<usize> {
    segs.iter().map(|seg| seg.seq.wrapping_sub(peer.ack) as usize / MSS).collect()
}

fn millis(out: &[(Duration, Seg)]) -> Vec<u64> {
    out.iter().map(|(at, _)| at.as_millis()).collect()
}

/// S4.4: PSH on the last segment of what was written, on no other.
#[test]
fn s4_4_psh_on_the_last_segment() {
    let mut p = Probe::new();
    let peer = p.accept();
    let out = p.send(&peer, &[1; 3 * MSS + 10]);
    let flags: Vec<_> = out.iter().map(|seg| seg.flags).collect();
    assert_eq!(flags, [ACK, ACK, ACK, PSH_ACK]);
}

/// S5.1: no octet beyond SND.UNA + SND.WND; an ACK moves both edges.
#[test]
fn s5_1_the_send_window_slides() {
    let mut p = Probe::new();
    let peer = p.accept_with(OPTIONS, (2 * MSS) as u16);
    let window = (2 * MSS) as u16;
    assert_eq!(numbers(&peer, &p.send(&peer, &[1; 8 * MSS])), [0, 1]);
    assert_eq!(numbers(&peer, &p.give(&peer, &acks(&peer, MSS).window(window))), [2]);
    p.tell(&peer, &acks(&peer, MSS).window(MSS as u16));
    assert_eq!(numbers(&peer, &p.give(&peer, &acks(&peer, 3 * MSS).window(window))), [3, 4]);
    // A pure window update.
    assert_eq!(numbers(&peer, &p.give(&peer, &acks(&peer, 3 * MSS).window(2 * window))), [5, 6]);
}

/// S5.3: the window is closed from the beginning; probes at the RTO, doubling, and data once it opens.
#[test]
fn s5_3_a_window_of_zero_at_the_handshake() {
    let mut p = Probe::new();
    let mut peer = p.peer();
    let syn_ack = p.ask(&peer, &Seg::new(SYN, peer.seq, 0).window(0));
    peer.seq += 1;
    peer.ack = syn_ack.seq.wrapping_add(1);
    p.tell(&peer, &peer.seg(ACK).window(0));
    peer.id = p.app.opened[0];
    assert!(p.send(&peer, b"hello").is_empty());
    let mut at = Vec::new();
    while at.len() < 12 {
        for (_, probe) in p.wait_ms(100) {
            assert_eq!((probe.flags, probe.seq, probe.data.len()), (ACK, peer.ack.wrapping_sub(1), 0));
            at.push(p.now.as_millis() / 100);
            p.tell(&peer, &peer.seg(ACK).window(0));
        }
    }
    let gaps: Vec<_> = at.windows(2).map(|w| w[1] - w[0]).collect();
    for (n, gap) in gaps.iter().enumerate() {
        let expected = (4 << n).min(600);
        assert!(gap.abs_diff(expected) <= 1, "{gaps:?}");
    }
    let out = p.give(&peer, &peer.seg(ACK).window(100));
    assert_eq!(out[0].data, b"hello");
}

/// S5.3: a connection that was silent for long isn't given up at the first probe.
#[test]
fn s5_3_a_write_into_a_closed_window_after_a_long_silence() {
    let mut p = Probe::new();
    let peer = p.accept();
    p.tell(&peer, &peer.seg(ACK).window(0));
    p.wait(Duration::from_secs(1000));
    p.send(&peer, b"hello");
    let out = p.wait_ms(500);
    assert_eq!(out.len(), 1, "a probe: {out:?}");
    assert_eq!(p.state(&peer), State::Established);
    assert_eq!(p.give(&peer, &peer.seg(ACK).window(100))[0].data, b"hello");
}

/// S3.2 T3: a closed window whose owner is silent ends by the user timeout.
#[test]
fn s3_2_t3_a_closed_window_and_silence() {
    let mut p = Probe::new();
    let peer = p.accept();
    p.send(&peer, b"hello");
    p.tell(&peer, &acks(&peer, 5).window(0));
    p.send(&peer, b"more");
    p.wait(Duration::from_secs(100));
    assert_eq!(p.state(&peer), State::Established);
    p.wait(Duration::from_secs(100));
    assert_eq!(p.app.end_of(peer.id), Some(Closed::TimedOut));
    p.assert_idle();
}

/// S5.4: the window shrinks below what is out: what is out is still sent again, nothing new is (RFC 9293
/// §3.8.6, MUST-34, SHLD-15, 16); as long as the peer answers it isn't given up (SHLD-17, MUST-37).
#[test]
fn s5_4_a_window_that_shrank_to_nothing() {
    let mut p = Probe::new();
    let peer = p.accept();
    p.send(&peer, &[1; 6 * MSS]);
    p.tell(&peer, &acks(&peer, 2 * MSS).window(0));
    p.send(&peer, &[2; MSS]);
    for _ in 0..300 {
        for (_, seg) in p.wait(Duration::from_secs(1)) {
            assert!((seg.seq.wrapping_sub(peer.ack) as usize) < 6 * MSS, "nothing new: {seg:?}");
            p.give(&peer, &acks(&peer, 2 * MSS).window(0));
        }
        assert_eq!(p.state(&peer), State::Established, "at {:?}", p.now);
    }
    let mut have = 2;
    for _ in 0..200 {
        let out = p.give(&peer, &acks(&peer, have * MSS));
        let late: Vec<Seg> =
            if out.is_empty() { p.wait_ms(400).into_iter().map(|(_, s)| s).collect() } else { out };
        for n in numbers(&peer, &late) {
            have = have.max(if n == have { n + 1 } else { have });
        }
        if have == 7 {
            break;
        }
    }
    assert_eq!(have, 7);
}

/// S5.2: a silly window isn't used at once (RFC 9293 §3.8.6.2.1), but in the end, however small it stays.
#[test]
fn s5_2_a_small_window_is_used_after_a_while() {
    let mut p = Probe::new();
    let peer = p.accept();
    p.tell(&peer, &peer.seg(ACK).window(100));
    assert!(p.send(&peer, &[7; 450]).is_empty());
    let mut got = 0;
    let mut rounds = 0;
    while got < 450 {
        let out = p.wait_ms(1100);
        assert!(!out.is_empty(), "after {got}");
        for (_, seg) in out.iter().filter(|(_, seg)| !seg.data.is_empty()) {
            assert!(seg.data.len() <= 100);
            got = got.max(seg.end().wrapping_sub(peer.ack) as usize);
        }
        p.give(&peer, &acks(&peer, got).window(100));
        rounds += 1;
        assert!(rounds < 20);
    }
}

/// S5.2: ACKs that come all the time don't put the use of a small window off for ever.
#[test]
fn s5_2_a_small_window_is_used_although_the_peer_chats() {
    let mut p = Probe::new();
    let mut peer = p.accept();
    p.tell(&peer, &peer.seg(ACK).window(100));
    p.send(&peer, &[7; 450]);
    let mut data = 0;
    for _ in 0..40 {
        data += p.wait_ms(50).iter().map(|(_, seg)| seg.data.len()).sum::<usize>();
        let out = p.give(&peer, &peer.seg(PSH_ACK).data(b"chat").window(100));
        peer.seq += 4;
        data += out.iter().map(|seg| seg.data.len()).sum::<usize>();
    }
    assert!(data >= 100, "{data} octets in 2 s");
}

/// S5.2 S5.6: the part that a small window let out is lost: once more after the timeout, with nothing copied.
#[test]
fn s5_6_a_part_that_was_lost_is_sent_again() {
    let mut p = Probe::new();
    let peer = p.accept();
    p.tell(&peer, &peer.seg(ACK).window(100));
    p.send(&peer, &[7; 450]);
    let parts = p.wait_ms(4000);
    assert!(parts.len() >= 3, "{parts:?}");
    assert!(parts.iter().all(|(_, seg)| seg.seq == peer.ack && seg.data.len() == 100), "{parts:?}");
    // The window opens while the part is out: the rest comes with it.
    let out = p.give(&peer, &acks(&peer, 0).window(4000));
    assert_eq!((out.len(), out[0].seq, out[0].data.len()), (1, peer.ack, 450));
    p.give(&peer, &acks(&peer, 450));
    assert_eq!(p.stack.counters().payload_bytes_copied, 0);
}

/// S5.3: the window closes while a part is out, and the peer has the part: it is heard when it says so.
#[test]
fn s5_3_the_window_closes_behind_a_part() {
    let mut p = Probe::new();
    let peer = p.accept();
    p.tell(&peer, &peer.seg(ACK).window(100));
    p.send(&peer, &[7; 450]);
    assert!(!p.wait_ms(1100).is_empty());
    // An old ACK closes the window; the part's own ACK was lost.
    p.give(&peer, &acks(&peer, 0).window(0));
    let probes = p.wait_ms(3000);
    assert!(!probes.is_empty() && probes.iter().all(|(_, seg)| seg.data.is_empty()), "{probes:?}");
    p.give(&peer, &acks(&peer, 100).window(0));
    let out = p.give(&peer, &acks(&peer, 100).window(4000));
    assert_eq!((out.len(), out[0].seq, out[0].data.len()), (1, peer.ack.wrapping_add(100), 350));
}

/// S5.2: half of the largest window is worth using at once.
#[test]
fn s5_2_half_the_largest_window_is_used_at_once() {
    let mut p = Probe::new();
    let mut peer = p.peer();
    let syn_ack = p.ask(&peer, &Seg::new(SYN, peer.seq, 0).mss(1460).window(400));
    peer.seq += 1;
    peer.ack = syn_ack.seq.wrapping_add(1);
    p.tell(&peer, &peer.seg(ACK).window(400));
    peer.id = p.app.opened[0];
    let out = p.send(&peer, &[7; 1000]);
    assert_eq!((out.len(), out[0].data.len()), (1, 400));
    let out = p.give(&peer, &acks(&peer, 400).window(200));
    assert_eq!((out.len(), out[0].data.len()), (1, 200));
    p.tell(&peer, &acks(&peer, 600).window(199));
}

/// S8.1: Nagle: a small last segment waits for what is out, a full one or FIN doesn't.
#[test]
fn s8_1_nagle() {
    let mut p = Probe::new();
    let peer = p.accept();
    p.act(&peer, |_, conn| conn.set_nodelay(false));
    assert_eq!(p.send(&peer, b"a")[0].data, b"a");
    assert!(p.send(&peer, b"b").is_empty());
    assert!(p.send(&peer, b"c").is_empty());
    let out = p.give(&peer, &acks(&peer, 1));
    assert_eq!((out.len(), out[0].data.as_slice()), (1, &b"bc"[..]));
    assert!(p.send(&peer, b"d").is_empty());
    let out = p.send(&peer, &[7; MSS - 1]);
    assert_eq!(out[0].data.len(), MSS);
    assert!(p.send(&peer, b"e").is_empty());
    let out = p.shutdown(&peer);
    assert!(out.last().expect("FIN").flags.contains(FIN), "{out:?}");
}

/// S8.1: Nagle against delayed ACK: the small rest goes after the peer's 40 ms at the latest, no deadlock.
#[test]
fn s8_1_nagle_and_a_delayed_ack() {
    let mut p = Probe::new();
    let peer = p.accept();
    p.act(&peer, |_, conn| conn.set_nodelay(false));
    let out = p.send(&peer, &[7; MSS + 10]);
    assert_eq!(numbers(&peer, &out), [0]);
    p.wait_ms(40);
    assert_eq!(p.give(&peer, &acks(&peer, MSS))[0].data.len(), 10);
}

/// S5.6: the timeout doubles at each retransmission (RFC 6298 §5.5), up to the user timeout (S3.2).
#[test]
fn s5_6_s3_2_rto_doubles_until_the_user_timeout() {
    let mut p = Probe::new();
    let peer = p.accept();
    p.wait_ms(10);
    p.send(&peer, b"hello");
    let out = p.wait(Duration::from_secs(300));
    assert!(out.iter().all(|(_, seg)| seg.data == b"hello"));
    let at = millis(&out);
    for (n, at) in at.iter().enumerate().take(8) {
        let expected = 200 * ((2 << n) - 1);
        assert!(at.abs_diff(expected) < 5, "{n}: {at} {expected}");
    }
    assert_eq!(p.app.end_of(peer.id), Some(Closed::TimedOut));
    assert!(at.last().expect("some") < &180_000);
    p.assert_idle();
}

/// S5.6: Karn's rule: the ACK of what was sent twice measures nothing, and the back-off stays until something does.
#[test]
fn s5_6_karn() {
    let mut p = Probe::new();
    let peer = p.accept();
    let before = p.info(peer.id).expect("there").srtt;
    p.send(&peer, b"hello");
    p.wait_ms(1500);
    p.tell(&peer, &acks(&peer, 5));
    let info = p.info(peer.id).expect("there");
    assert_eq!((info.srtt, info.rto), (before, 8 * Duration::from_micros(200_001)));
    p.send(&peer, b"hello");
    p.tell(&peer, &acks(&peer, 10));
    assert_eq!(p.info(peer.id).expect("there").rto, Duration::from_micros(200_001));
}

/// S5.7: without SACK: the third duplicate sends the first segment again, partial ACKs the next (RFC 6582).
#[test]
fn s5_7_fast_retransmit_without_sack() {
    let mut p = Probe::new();
    let peer = p.accept();
    assert_eq!(p.send(&peer, &[1; 20 * MSS]).len(), 10, "RFC 6928");
    // 0 and 4 are lost. Limited transmit (RFC 3042): each of the first two duplicates sends a new one.
    assert_eq!(numbers(&peer, &p.give(&peer, &acks(&peer, 0))), [10]);
    assert_eq!(numbers(&peer, &p.give(&peer, &acks(&peer, 0))), [11]);
    let third = numbers(&peer, &p.give(&peer, &acks(&peer, 0)));
    assert_eq!(third.first(), Some(&0), "{third:?}");
    assert_eq!(p.stack.counters().tcp_fast_retrans, 1);
    for _ in 0..7 {
        let more = numbers(&peer, &p.give(&peer, &acks(&peer, 0)));
        assert!(!more.contains(&0), "{more:?}");
    }
    let partial = numbers(&peer, &p.give(&peer, &acks(&peer, 4 * MSS)));
    assert_eq!(partial.first(), Some(&4), "{partial:?}");
    assert_eq!(p.stack.counters().tcp_timeouts, 0);
    p.give(&peer, &acks(&peer, 10 * MSS));
}

/// S5.7: with SACK: exactly the holes are sent again (RFC 6675).
#[test]
fn s5_7_fast_retransmit_with_sack() {
    let mut p = Probe::new();
    let peer = p.accept_with(SACK, 65_535);
    assert_eq!(p.send(&peer, &[1; 10 * MSS]).len(), 10);
    p.wait_ms(10);
    // 1, 4 and 5 are lost.
    p.tell(&peer, &acks(&peer, MSS));
    p.tell(&peer, &sacks(&peer, MSS, &[(2, 3)]));
    p.tell(&peer, &sacks(&peer, MSS, &[(2, 4)]));
    let mut again = numbers(&peer, &p.give(&peer, &sacks(&peer, MSS, &[(6, 7), (2, 4)])));
    again.extend(numbers(&peer, &p.give(&peer, &sacks(&peer, MSS, &[(6, 8), (2, 4)]))));
    again.extend(numbers(&peer, &p.give(&peer, &sacks(&peer, MSS, &[(6, 9), (2, 4)]))));
    again.extend(numbers(&peer, &p.give(&peer, &sacks(&peer, MSS, &[(6, 10), (2, 4)]))));
    assert_eq!(again, [1, 4, 5]);
    assert!(p.give(&peer, &acks(&peer, 10 * MSS)).is_empty());
    assert_eq!(p.stack.counters().tcp_timeouts, 0);
    assert_eq!(p.info(peer.id).expect("there").send_queue, 0);
}

/// (g) A timeout while the frames still wait in the TX ring: nothing is sent twice, and all goes on later.
#[test]
fn s5_6_a_timeout_while_the_nic_still_has_the_frame() {
    let mut p = Probe::new();
    let peer = p.accept();
    p.slow_nic = true;
    assert_eq!(p.send(&peer, &[1; 3 * MSS]).len(), 3);
    assert_eq!(p.wait_ms(1500).len(), 0, "they haven't left yet");
    p.complete();
    let mut have = 0;
    for _ in 0..100 {
        let out = p.wait_ms(500);
        p.complete();
        for (_, seg) in out {
            if numbers(&peer, &[seg])[0] == have {
                have += 1;
            }
        }
        p.give(&peer, &acks(&peer, have * MSS));
        p.complete();
        if have == 3 {
            break;
        }
    }
    assert_eq!(have, 3);
}

/// (g) Completions that come after the connection is gone.
#[test]
fn p3_completions_after_the_end() {
    let mut p = Probe::new();
    let peer = p.accept();
    p.slow_nic = true;
    p.send(&peer, &[1; 5 * MSS]);
    p.tell(&peer, &acks(&peer, MSS + 3));
    p.tell(&peer, &Seg::new(RST, peer.seq, 0));
    assert_eq!(p.app.end_of(peer.id), Some(Closed::Reset));
    assert_eq!(p.stack.pool().count(Owner::TxRing), 5);
    p.complete();
    p.assert_idle();
}

/// (g) A segment acknowledged in part is sent again from there.
#[test]
fn s5_1_a_partly_acknowledged_segment() {
    let mut p = Probe::new();
    let peer = p.accept();
    p.send(&peer, b"0123456789");
    p.tell(&peer, &acks(&peer, 4));
    let out = p.wait_ms(500);
    assert_eq!(out[0].1.data, b"456789");
    assert_eq!(out[0].1.seq, peer.ack.wrapping_add(4));
    p.tell(&peer, &acks(&peer, 10));
    p.assert_idle();
}

/// (e) FIN waits for a closed window like any octet, and the connection isn't given up at once (in the end: T5,
/// limits.rs).
#[test]
fn s5_3_s2_1_fin_and_a_closed_window() {
    let mut p = Probe::new();
    let peer = p.accept();
    p.tell(&peer, &peer.seg(ACK).window(0));
    let out = p.shutdown(&peer);
    assert!(out.is_empty(), "{out:?}");
    for _ in 0..90 {
        for (_, probe) in p.wait(Duration::from_secs(1)) {
            assert!(probe.is(ACK), "{probe:?}");
            p.tell(&peer, &peer.seg(ACK).window(0));
        }
    }
    assert_eq!(p.state(&peer), State::FinWait1);
    let fin = p.ask(&peer, &peer.seg(ACK).window(1000));
    assert_eq!((fin.flags, fin.seq), (FIN_ACK, peer.ack));
}

/// (e) FIN with the last data fits the window exactly: no octet of sequence space goes beyond it.
#[test]
fn s5_1_fin_counts_against_the_window() {
    let mut p = Probe::new();
    let peer = p.accept_with(OPTIONS, MSS as u16);
    p.act(&peer, |_, conn| {
        write(conn, &[1; MSS]);
        conn.shutdown();
    });
    let (mut peer, fin) = (peer, p.ask(&peer, &acks(&peer, MSS).window(MSS as u16)));
    assert_eq!((fin.flags, fin.seq), (FIN_ACK, peer.ack.wrapping_add(MSS as u32)));
    peer.ack = fin.end();
    p.tell(&peer, &peer.seg(ACK));
    assert_eq!(p.state(&peer), State::FinWait2);
}

/// (m) The next hop of a live connection is gone: what waits to be sent doesn't wait for ever.
#[test]
fn s3_2_the_neighbour_of_a_live_connection_vanishes() {
    let mut p = Probe::new();
    let peer = p.accept();
    // Long enough for the neighbour to be doubted, probed and found dead.
    p.answers_arp = false;
    p.send(&peer, b"x");
    p.wait(Duration::from_secs(80));
    p.give(&peer, &acks(&peer, 1));
    p.wait(Duration::from_secs(5));
    assert!(p.send(&peer, b"y").is_empty(), "nobody to send it to");
    p.wait(Duration::from_secs(10));
    assert_eq!(p.state(&peer), State::Established, "not at once");
    p.wait(Duration::from_secs(400));
    assert_eq!(p.app.end_of(peer.id), Some(Closed::TimedOut));
    p.assert_idle();
}

/// P2: a batch never goes beyond the room it is given, whatever is owed (ACK with SACK, probe, data, FIN).
#[test]
fn output_keeps_to_its_room() {
    let mut p = Probe::new();
    let peer = p.accept_with(SACK, 65_535);
    let ahead = Seg { seq: peer.seq + 10, ..peer.seg(PSH_ACK).data(b"ahead") };
    let frame = p.frame(&peer, &ahead);
    let index = p.stack.pool_mut().fill().expect("free");
    let slice = p.stack.pool_mut().write_as_nic(index, 256, &frame);
    p.stack.receive(&mut p.app, &[slice], p.now);
    p.stack.with_conn(&mut p.app, peer.id, p.now, |_, conn| {
        write(conn, &[1; 3 * MSS]);
        conn.shutdown();
    });
    let mut sent = 0;
    loop {
        let mut out = Vec::new();
        let more = p.stack.poll_transmit(1, p.now, &mut out);
        assert!(out.len() <= 1);
        for slice in &out {
            sent += 1;
            p.stack.pool_mut().completed(slice.index);
        }
        if !more {
            break;
        }
        assert!(sent < 20);
    }
    assert_eq!(sent, 4, "the ACK for the hole, three segments, FIN with the last");
}

/// T23: duplicate ACKs from nowhere don't empty the pipe.
#[test]
fn t23_many_duplicates_send_no_more_than_was_out() {
    let mut p = Probe::new();
    let peer = p.accept();
    let mut sent = p.send(&peer, &[1; 40 * MSS]).len();
    for _ in 0..200 {
        sent += p.give(&peer, &acks(&peer, 0)).len();
    }
    assert!(sent <= 24, "{sent} of an initial window of ten");
}

/// S5.7 T10: a hole of many segments is found although the walk over it is long; hostile blocks that jump to
/// and fro cost a bounded walk, and the connection goes on.
#[test]
fn s5_7_t10_a_long_hole_and_jumping_blocks() {
    let mut p = Probe::with(config(), 16_384, Instant::from_millis(1));
    let peer = p.accept_with(Options { window_scale: Some(10), ..SACK }, 65_535);
    let have = p_grow(&mut p, &peer);
    let sent = p_send(&mut p, &peer, 1_000).len();
    assert!(sent > 400, "{sent}");
    // All but the last fifty are lost.
    let hole = have + sent - 50;
    for n in 1..=3 {
        p.give(&peer, &sacks(&peer, have * MSS, &[(hole, hole + n)]));
    }
    assert_eq!(p.stack.counters().tcp_fast_retrans, 1);
    for n in 0..20_000 {
        let at = have + (n * 7919) % (sent - 10);
        p.give(&peer, &sacks(&peer, have * MSS, &[(at + 1, at + 2), (at + 5, at + 6)]));
    }
    let mut end = have + sent;
    loop {
        let more = p.give(&peer, &acks(&peer, end * MSS));
        if more.is_empty() {
            break;
        }
        end += more.len();
    }
    assert_eq!(p.info(peer.id).expect("there").send_queue, 0);
    p.assert_idle();
}

/// S5.6: after an RTO with a big window, recovery costs about one look at each frame.
#[test]
fn p4_recovery_from_a_timeout_with_a_big_window() {
    let mut p = Probe::with(config(), 16_384, Instant::from_millis(1));
    let peer = p.accept_with(Options { window_scale: Some(10), ..SACK }, 65_535);
    let have = p_grow(&mut p, &peer);
    let sent = p_send(&mut p, &peer, 1_000).len();
    assert!(sent > 400, "{sent}");
    // All are lost. Each ACK of one lets two go, so all are there again after as many rounds as doublings.
    let probe: Vec<Seg> = p.wait_ms(100).into_iter().map(|(_, seg)| seg).collect();
    assert_eq!((probe.len(), p.stack.counters().tcp_loss_probes), (1, 1), "RFC 8985 §7.3");
    let mut out: Vec<Seg> = p.wait_ms(150).into_iter().map(|(_, seg)| seg).collect();
    let (mut end, mut rounds) = (have, 0);
    while !out.is_empty() {
        assert_eq!(numbers(&peer, &out[..1])[0], end);
        end += out.len();
        out = p.give(&peer, &acks(&peer, end * MSS));
        rounds += 1;
    }
    assert!(end >= have + sent && rounds < 40, "{end} {rounds}");
    assert_eq!(p.stack.counters().tcp_timeouts, 1);
    p.assert_idle();
}

/// Slow start until a window of some hundred segments; how many were sent.
fn p_grow(p: &mut Probe, peer: &Peer) -> usize {
    let mut have = 0;
    while have < 3_000 {
        let mut out = p_send(p, peer, 1_000);
        while !out.is_empty() {
            have += out.len();
            out = p.give(peer, &acks(peer, have * MSS));
        }
    }
    have
}

fn p_send(p: &mut Probe, peer: &Peer, segments: usize) -> Vec<Seg> {
    p.act(peer, |_, conn| {
        write(conn, &vec![1; segments * MSS]);
    })
}
