//! How long a connection waits for its peer (RFC 9293 §3.8.3, §3.8.4, RFC 5482): S3.2, T3, T4, T5.

use byway_tcp::app::{Closed, Keepalive};
use byway_tcp::stack::Config;
use byway_tcp::tcb::state::State;
use byway_tcp::time::{Duration, Instant};

use crate::probe::*;

const SECOND: Duration = Duration::from_secs(1);

/// The peer answers everything it is sent with `answer`; after how many seconds the connection is gone, and whether
/// by RST. `None`: it outlives `limit` seconds.
fn lives(p: &mut Probe, peer: &Peer, answer: &Seg, limit: u32) -> Option<(u32, bool)> {
    for second in 1..=limit {
        for (_, seg) in p.wait(SECOND) {
            if seg.flags.contains(RST) {
                assert!(p.app.end_of(peer.id).is_some());
                return Some((second, true));
            }
            p.give(peer, answer);
        }
        if p.app.end_of(peer.id).is_some() {
            return Some((second, false));
        }
    }
    None
}

/// S3.2 T3: a limit that the application sets counts although the peer answers every probe (RFC 5482); without one
/// the connection stays (MUST-37).
#[test]
fn s3_2_t3_the_user_timeout_counts_while_the_window_is_closed() {
    // Timers may be late by a tick: seen in the second after.
    for (limit, expected) in [(None, None), (Some(30), Some((31, true))), (Some(400), Some((401, true)))] {
        let mut p = Probe::new();
        let peer = p.accept();
        p.tell(&peer, &peer.seg(ACK).window(0));
        p.act(&peer, |_, conn| {
            conn.set_user_timeout(limit.map(Duration::from_secs));
            write(conn, b"hello");
        });
        assert_eq!(lives(&mut p, &peer, &peer.seg(ACK).window(0), 450), expected, "{limit:?}");
        if expected.is_some() {
            assert_eq!(p.app.end_of(peer.id), Some(Closed::TimedOut));
            assert_eq!(p.stack.counters().tcp_abort_on_timeout, 1);
            p.assert_idle();
        }
    }
    // A window that opens now and then and takes something is progress.
    let mut p = Probe::new();
    let peer = p.accept_with(byway_tcp::wire::tcp::Options::NONE, 0);
    p.act(&peer, |_, conn| {
        conn.set_user_timeout(Some(Duration::from_secs(30)));
        write(conn, &[1; 500]);
    });
    for taken in 0..10 {
        assert_eq!(lives(&mut p, &peer, &Seg::new(ACK, peer.seq, peer.ack + 50 * taken).window(0), 20), None);
        p.give(&peer, &Seg::new(ACK, peer.seq, peer.ack + 50 * taken).window(50));
        p.wait(SECOND);
        p.give(&peer, &Seg::new(ACK, peer.seq, peer.ack + 50 * (taken + 1)).window(0));
    }
}

/// S3.2: the limit is kept to the tick, however far the retransmission timer has backed off; a silent peer gets
/// no RST.
#[test]
fn s3_2_the_user_timeout_of_one_connection() {
    for limit in [1_000u64, 5_000, 250_000] {
        let mut p = Probe::new();
        let peer = p.accept();
        p.act(&peer, |_, conn| {
            conn.set_user_timeout(Some(Duration::from_millis(limit)));
            write(conn, b"hello");
        });
        assert!(p.wait_ms(limit - 1).iter().all(|(_, seg)| seg.data == b"hello"));
        assert_eq!(p.state(&peer), State::Established);
        assert!(p.wait_ms(2).is_empty());
        assert_eq!(p.app.end_of(peer.id), Some(Closed::TimedOut));
        p.assert_idle();
    }
    // Taken back, the stack's own counts.
    let mut p = Probe::new();
    let peer = p.accept();
    p.act(&peer, |_, conn| {
        conn.set_user_timeout(Some(SECOND));
        conn.set_user_timeout(None);
        write(conn, b"hello");
    });
    p.wait(100 * SECOND);
    assert_eq!(p.state(&peer), State::Established);
    p.wait(30 * SECOND);
    assert_eq!(p.app.end_of(peer.id), Some(Closed::TimedOut));
}

/// S3.2: keepalive as one connection wants it; a peer that answers stays.
#[test]
fn s3_2_keepalive_of_one_connection() {
    let watch = Keepalive { idle: 10 * SECOND, interval: 2 * SECOND, probes: 3 };
    let mut p = Probe::new();
    let peer = p.accept();
    p.wait(4 * SECOND);
    p.act(&peer, |_, conn| conn.set_keepalive(Some(watch)));
    let at: Vec<_> = p.wait(15 * SECOND).iter().map(|(at, _)| (at.as_millis() + 500) / 1000).collect();
    assert_eq!(at, [6, 8, 10], "10 s after the peer's last word, then every 2 s");
    assert_eq!(p.app.end_of(peer.id), Some(Closed::TimedOut));

    let mut p = Probe::new();
    let peer = p.accept();
    p.act(&peer, |_, conn| conn.set_keepalive(Some(watch)));
    assert_eq!(lives(&mut p, &peer, &peer.seg(ACK), 600), None);
    assert!((50..=60).contains(&p.stack.counters().tcp_keepalives), "every 10 s");
    // The user timeout stands in for the number of probes.
    p.act(&peer, |_, conn| conn.set_user_timeout(Some(30 * SECOND)));
    let probes = p.wait(40 * SECOND).len();
    assert!((10..=12).contains(&probes), "{probes} until 30 s after the last word");
    assert_eq!(p.app.end_of(peer.id), Some(Closed::TimedOut));

    let mut p = Probe::new();
    let peer = p.accept();
    p.act(&peer, |_, conn| conn.set_keepalive(None));
    assert!(p.wait(Duration::from_secs(100_000)).is_empty());
    assert_eq!(p.state(&peer), State::Established);
    // As configured.
    let mut p = Probe::with(
        Config { keepalive: Some(20 * SECOND), keepalive_interval: SECOND, keepalive_probes: 5, ..config() },
        512,
        Instant::from_millis(1000),
    );
    let peer = p.accept();
    assert_eq!(p.wait(30 * SECOND).len(), 5);
    assert_eq!(p.app.end_of(peer.id), Some(Closed::TimedOut));
}

/// T5: after the application has closed, a peer that answers and takes nothing is reset after a while: with data
/// queued, with only FIN, and with FIN out and its window shut.
#[test]
fn t5_what_the_application_has_closed_ends() {
    for text in [&b"last words"[..], b""] {
        let mut p = Probe::new();
        p.app.closes = false;
        let (first, second) = (p.accept(), p.accept());
        p.tell(&second, &second.seg(ACK).window(0));
        p.give(&second, &second.seg(FIN_ACK).window(0));
        let second = Peer { seq: second.seq + 1, ..second };
        for peer in [&first, &second] {
            p.tell(peer, &peer.seg(ACK).window(0));
            p.act(peer, |_, conn| {
                write(conn, text);
                conn.shutdown();
            });
        }
        assert_eq!((p.state(&first), p.state(&second)), (State::FinWait1, State::LastAck));
        p.give(&first, &Seg::new(RST, first.seq, 0));
        let (after, reset) = lives(&mut p, &second, &second.seg(ACK).window(0), 200).expect("LAST-ACK ends");
        assert!((100..=101).contains(&after) && reset, "{after} s");
        assert_eq!(p.app.end_of(second.id), Some(Closed::TimedOut));

        let third = p.accept();
        p.tell(&third, &third.seg(ACK).window(0));
        p.act(&third, |_, conn| {
            write(conn, text);
            conn.shutdown();
        });
        let (after, reset) = lives(&mut p, &third, &third.seg(ACK).window(0), 200).expect("FIN-WAIT-1 ends");
        assert!((100..=101).contains(&after) && reset, "{after} s");
        p.assert_idle();
    }
    // CLOSING: the window shut behind our FIN, which is never acknowledged.
    let mut p = Probe::new();
    let peer = p.closing();
    let answer = Seg::new(ACK, peer.seq, peer.ack - 1).window(0);
    let (after, reset) = lives(&mut p, &peer, &answer, 200).expect("CLOSING ends");
    assert!((100..=101).contains(&after) && reset, "{after} s");
}

/// T5 S2.2: a half-closed connection over which octets still come isn't given up.
#[test]
fn t5_s2_2_a_half_closed_connection_stays_while_octets_come() {
    let mut p = Probe::new();
    let mut peer = p.accept();
    p.tell(&peer, &peer.seg(ACK).window(0));
    p.act(&peer, |_, conn| {
        write(conn, b"request");
        conn.shutdown();
    });
    for _ in 0..10 {
        assert_eq!(lives(&mut p, &peer, &peer.seg(ACK).window(0), 50), None);
        p.give(&peer, &peer.seg(PSH_ACK).data(b"answer").window(0));
        peer.seq += 6;
    }
    assert_eq!((p.state(&peer), p.app.text(peer.id).len()), (State::FinWait1, 60));
}

/// Linger of zero: RST in place of FIN, nothing waits (as SO_LINGER with zero).
#[test]
fn linger_of_zero_resets() {
    let open: [fn(&mut Probe) -> Peer; 2] = [Probe::accept, Probe::close_wait];
    for open in open {
        let mut p = Probe::new();
        let peer = open(&mut p);
        p.send(&peer, b"never acknowledged");
        let out = p.act(&peer, |_, conn| {
            conn.set_linger(Some(Duration::ZERO));
            conn.shutdown();
        });
        assert!(out.len() == 1 && out[0].is(RST_ACK), "{out:?}");
        assert_eq!(p.app.end_of(peer.id), Some(Closed::Aborted));
        p.assert_idle();
    }
}

/// Linger of some seconds: all acknowledged in time, FIN included, is an orderly end; otherwise RST.
#[test]
fn linger_bounds_the_wait_for_acknowledgement() {
    let close = |p: &mut Probe, peer: &Peer, early: bool| {
        p.act(peer, |_, conn| {
            conn.set_linger(early.then_some(5 * SECOND));
            write(conn, b"bye");
            conn.shutdown();
            conn.set_linger(Some(5 * SECOND));
        })
    };
    for early in [true, false] {
        let mut p = Probe::new();
        let mut peer = p.accept();
        let out = close(&mut p, &peer, early);
        assert!(out[0].flags.contains(FIN) && out[0].data == b"bye", "{out:?}");
        p.wait(4 * SECOND);
        peer.ack = out[0].end();
        p.give(&peer, &peer.seg(ACK));
        assert_eq!(p.state(&peer), State::FinWait2);
        p.wait(20 * SECOND);
        p.give(&peer, &peer.seg(FIN_ACK));
        assert_eq!(p.app.end_of(peer.id), Some(Closed::Finished));

        let mut p = Probe::new();
        let peer = p.accept();
        close(&mut p, &peer, early);
        // Text acknowledged, FIN not; the peer chats.
        let (after, reset) = lives(&mut p, &peer, &Seg::new(ACK, peer.seq, peer.ack + 3), 60).expect("ends");
        assert!((5..=6).contains(&after) && reset, "{after} s");
        assert_eq!(p.app.end_of(peer.id), Some(Closed::TimedOut));
        assert_eq!(p.stack.counters().tcp_abort_on_linger, 1);
        p.assert_idle();
    }
    // LAST-ACK.
    let mut p = Probe::new();
    let peer = p.close_wait();
    close(&mut p, &peer, true);
    p.wait(6 * SECOND);
    assert_eq!(p.app.end_of(peer.id), Some(Closed::TimedOut));
}

/// T4: while memory is short, peers that acknowledge an octet now and then give way; one that takes what it is sent
/// stays, and so do the drips as long as there is memory.
#[test]
fn t4_who_drips_gives_way_under_pressure() {
    for (drips, pressed) in [(4, false), (56, true)] {
        let mut p = Probe::new();
        p.app.lenient = true;
        let peers: Vec<_> = (0..drips).map(|_| p.accept()).collect();
        let mut honest = p.accept();
        let fill = |p: &mut Probe, peer: &Peer| {
            p.act(peer, |_, conn| while conn.send_room() > 0 && write(conn, &[7; MSS]) == MSS {})
        };
        for peer in &peers {
            fill(&mut p, peer);
        }
        for second in 1..=30 {
            for peer in &peers {
                if p.app.end_of(peer.id).is_none() {
                    p.give(peer, &Seg::new(ACK, peer.seq, peer.ack + second));
                }
            }
            // 3 KiB a second: slow, and half a minute for its share at most.
            fill(&mut p, &honest);
            p.give(&honest, &honest.seg(ACK));
            honest.ack = honest.ack.wrapping_add(2 * MSS as u32);
            p.give(&honest, &honest.seg(ACK));
            p.wait(SECOND);
        }
        let gone = p.app.closed.len();
        if pressed {
            assert!((8..drips).contains(&gone), "{gone}: as many as it takes, {:?}", p.stack.pool());
            assert_eq!(p.stack.counters().tcp_abort_on_memory, gone as u64);
        } else {
            assert_eq!(gone, 0);
        }
        assert_eq!(p.state(&honest), State::Established);
    }
}
