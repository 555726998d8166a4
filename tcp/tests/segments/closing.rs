//! FIN-WAIT-1, FIN-WAIT-2, CLOSING, CLOSE-WAIT, LAST-ACK.

use byway_tcp::app::{Closed, Keepalive};
use byway_tcp::tcb::state::State;
use byway_tcp::time::Duration;

use crate::probe::*;

type Open = fn(&mut Probe) -> Peer;

fn millis(out: &[(Duration, Seg)]) -> Vec<u64> {
    out.iter().map(|(at, _)| at.as_millis()).collect()
}

#[test]
fn s2_1_active_close() {
    let mut p = Probe::new();
    let peer = p.time_wait();
    assert_eq!(p.app.end_of(peer.id), Some(Closed::Finished));
    assert_eq!((p.count(State::TimeWait), p.stack.connection_count()), (1, 0));
    p.wait(Duration::from_secs(61));
    assert_eq!(p.state(&peer), State::Listen);
    assert_eq!(p.count(State::TimeWait), 0);
    p.assert_idle();
}

/// S2.1: every move is counted once, also the one out of the compact table of TIME-WAIT.
#[test]
fn s2_1_moves_between_states_are_counted() {
    use State::*;
    let mut p = Probe::new();
    p.time_wait();
    let peer = p.accept();
    p.give(&peer, &peer.seg(RST));
    p.wait(Duration::from_secs(61));
    let ever = |from, to| p.stack.states().moved(from, to);
    assert_eq!((ever(Listen, SynReceived), ever(SynReceived, Established)), (2, 2));
    assert_eq!((ever(Established, FinWait1), ever(Established, Closed)), (1, 1));
    assert_eq!((ever(FinWait1, FinWait2), ever(FinWait2, TimeWait), ever(TimeWait, Closed)), (1, 1, 1));
    let all: u64 = State::ALL.iter().flat_map(|&from| State::ALL.map(|to| ever(from, to))).sum();
    assert_eq!(all, 9, "and no other");
    p.stack.states().assert_consistent();
    p.assert_idle();
}

/// What an application is told of its connection is what the operator is shown.
#[test]
fn metrics_are_what_is_shown() {
    let mut p = Probe::new();
    let peer = p.accept();
    p.send(&peer, &[7; 700]);
    let look = |p: &mut Probe| {
        let mut metrics = None;
        p.act(&peer, |_, conn| metrics = conn.metrics());
        metrics.expect("known")
    };
    let (told, shown) = (look(&mut p), p.info(peer.id).expect("shown"));
    assert_eq!((told.in_flight, told.cwnd, told.mss), (700, shown.cwnd, u32::from(shown.mss)));
    assert_eq!((told.srtt, told.rto, told.ssthresh), (shown.srtt, shown.rto, None));
    // Timed out: what was sent again is all that is in flight, and congestion control has set a threshold.
    p.wait(shown.rto + Duration::from_millis(1));
    let told = look(&mut p);
    assert!(told.ssthresh.is_some() && told.retransmits >= 1 && told.in_flight <= 700, "{told:?}");
}

#[test]
fn s2_1_passive_close() {
    let mut p = Probe::new();
    let peer = p.last_ack();
    p.tell(&peer, &peer.seg(ACK));
    assert_eq!((p.state(&peer), p.app.end_of(peer.id)), (State::Listen, Some(Closed::Finished)));
    p.assert_idle();
}

#[test]
fn s2_1_simultaneous_close() {
    let mut p = Probe::new();
    let peer = p.closing();
    p.tell(&peer, &peer.seg(ACK));
    assert_eq!((p.state(&peer), p.app.end_of(peer.id)), (State::TimeWait, Some(Closed::Finished)));
}

/// S2.1: FIN that acknowledges ours: three segments instead of four.
#[test]
fn s2_1_fin_and_ack_at_once() {
    let mut p = Probe::new();
    let peer = p.fin_wait_1();
    let ack = p.ask(&peer, &peer.seg(FIN_ACK).data(b"bye"));
    assert_eq!((ack.flags, ack.ack), (ACK, peer.seq + 4));
    assert_eq!((p.state(&peer), p.app.text(peer.id)), (State::TimeWait, &b"bye"[..]));
}

/// S2.2: after our FIN the peer's data still arrives; after its FIN ours still goes.
#[test]
fn s2_2_half_close() {
    let mut p = Probe::new();
    let mut peer = p.fin_wait_2();
    for _ in 0..10 {
        p.give(&peer, &peer.seg(PSH_ACK).data(b"more "));
        peer.seq += 5;
    }
    assert_eq!(p.app.text(peer.id).len(), 50);

    let mut peer = p.close_wait();
    for _ in 0..10 {
        let out = p.send(&peer, b"more ");
        assert_eq!(out[0].data, b"more ");
        peer.ack += 5;
        p.tell(&peer, &peer.seg(ACK));
    }
    assert_eq!(p.state(&peer), State::CloseWait);
    // Text after FIN doesn't exist.
    p.ask(&peer, &peer.seg(PSH_ACK).data(b"after"));
    assert!(p.app.text(peer.id).is_empty());
}

/// S2.2: FIN isn't merged into the ACK of the peer's FIN unless the application is done.
#[test]
fn s2_2_fin_rides_on_the_ack_only_of_who_is_done() {
    let mut p = Probe::new();
    let peer = p.accept();
    let out = p.ask(&peer, &peer.seg(FIN_ACK));
    assert_eq!((out.flags, out.ack), (FIN_ACK, peer.seq + 1));
    assert_eq!(p.state(&peer), State::LastAck);
    p.close_wait();
}

/// (e) FIN is lost: sent again, in every state that waits for its ACK, until the user timeout.
#[test]
fn s2_1_s5_6_a_lost_fin_is_sent_again() {
    let open: [Open; 3] = [Probe::fin_wait_1, Probe::closing, Probe::last_ack];
    for open in open {
        let mut p = Probe::new();
        let peer = open(&mut p);
        let out = p.wait(Duration::from_secs(2));
        assert_eq!(millis(&out).len(), 3, "{out:?}");
        assert!(out.iter().all(|(_, seg)| seg.is(FIN_ACK) && seg.end() == peer.ack), "{out:?}");
        p.tell(&peer, &peer.seg(ACK));
        assert!(p.wait(Duration::from_secs(5)).is_empty());

        let mut p = Probe::new();
        let peer = open(&mut p);
        p.wait(Duration::from_secs(300));
        assert_eq!(p.app.end_of(peer.id), Some(Closed::TimedOut));
        p.assert_idle();
    }
}

/// (e) Data and FIN are lost together: both again, in order, FIN on the last of them.
#[test]
fn s2_1_s5_6_data_and_fin_are_sent_again() {
    let mut p = Probe::new();
    let peer = p.close_wait();
    p.act(&peer, |_, conn| {
        write(conn, &[1; 3 * MSS]);
        conn.shutdown();
    });
    let mut have = 0;
    for _ in 0..20 {
        let now = Seg::new(ACK, peer.seq, peer.ack.wrapping_add(have as u32));
        let mut out = p.give(&peer, &now);
        out.extend(p.wait_ms(3000).into_iter().map(|(_, seg)| seg));
        for seg in out {
            if seg.seq.wrapping_sub(peer.ack) as usize == have {
                have += (seg.end().wrapping_sub(seg.seq)) as usize;
            }
        }
        if have == 3 * MSS + 1 {
            break;
        }
    }
    assert_eq!(have, 3 * MSS + 1);
    p.tell(&peer, &Seg::new(ACK, peer.seq, peer.ack.wrapping_add(have as u32)));
    assert_eq!(p.app.end_of(peer.id), Some(Closed::Finished));
    p.assert_idle();
}

/// (e) The peer's FIN again: the ACK again, and nothing else changes.
#[test]
fn s2_1_a_repeated_fin_is_acknowledged_again() {
    let open: [Open; 4] = [Probe::close_wait, Probe::closing, Probe::last_ack, Probe::time_wait];
    for open in open {
        let mut p = Probe::new();
        let peer = open(&mut p);
        let state = p.state(&peer);
        for _ in 0..5 {
            let fin = Seg { seq: peer.seq - 1, ..peer.seg(FIN_ACK) };
            let early = Seg { ack: peer.ack.wrapping_sub(1), ..fin.clone() };
            let out = p.ask(&peer, if state == State::TimeWait { &fin } else { &early });
            assert_eq!((out.flags, out.ack), (ACK, peer.seq), "{state:?}");
            assert_eq!(p.state(&peer), state);
        }
    }
}

/// S2.6 T5: FIN-WAIT-2 ends by itself; text the peer goes on sending keeps it, old text doesn't.
#[test]
fn s2_6_t5_fin_wait_2_is_bounded() {
    let mut p = Probe::new();
    let mut peer = p.fin_wait_2();
    for _ in 0..5 {
        p.wait(Duration::from_secs(50));
        p.give(&peer, &peer.seg(PSH_ACK).data(b"alive"));
        peer.seq += 5;
    }
    assert_eq!(p.state(&peer), State::FinWait2);
    for _ in 0..4 {
        p.wait(Duration::from_secs(16));
        p.give(&peer, &Seg { seq: peer.seq - 5, ..peer.seg(PSH_ACK).data(b"alive") });
    }
    assert_eq!((p.state(&peer), p.app.end_of(peer.id)), (State::Listen, Some(Closed::TimedOut)));
    p.assert_idle();
}

/// S3.1: RST in each of these states ends the connection at once; whether it was in order depends on what
/// was still to be said.
#[test]
fn s3_1_rst_while_closing() {
    let open: [(Open, Closed); 5] = [
        (Probe::fin_wait_1, Closed::Reset),
        (Probe::fin_wait_2, Closed::Reset),
        (Probe::close_wait, Closed::Reset),
        (Probe::closing, Closed::Finished),
        (Probe::last_ack, Closed::Finished),
    ];
    for (open, reason) in open {
        let mut p = Probe::new();
        let peer = open(&mut p);
        p.tell(&peer, &Seg::new(RST, peer.seq, 0));
        assert_eq!((p.state(&peer), p.app.end_of(peer.id)), (State::Listen, Some(reason)));
        p.assert_idle();
    }
    // Something is lost with this one.
    let mut p = Probe::new();
    let peer = p.close_wait();
    p.act(&peer, |_, conn| {
        write(conn, b"last words");
        conn.shutdown();
    });
    p.tell(&peer, &Seg::new(RST, peer.seq, 0));
    assert_eq!(p.app.end_of(peer.id), Some(Closed::Reset));
}

/// T7: a SYN or an RST that only hits the window ends none of these.
#[test]
fn t7_blind_segments_while_closing() {
    let open: [Open; 5] =
        [Probe::fin_wait_1, Probe::fin_wait_2, Probe::close_wait, Probe::closing, Probe::last_ack];
    for open in open {
        let mut p = Probe::new();
        let peer = open(&mut p);
        let state = p.state(&peer);
        for flags in [SYN, RST, RST_ACK, SYN_ACK] {
            p.give(&peer, &Seg { seq: peer.seq + 7, flags, ..peer.seg(ACK) });
            assert_eq!(p.state(&peer), state);
        }
    }
}

/// S2.3: CLOSE-WAIT stays as long as the application doesn't close, and keepalive finds out if the peer is gone.
#[test]
fn s2_3_close_wait_is_counted_and_watched() {
    let mut p = Probe::new();
    let peer = p.close_wait();
    p.act(&peer, |_, conn| conn.set_keepalive(Some(Keepalive::default())));
    p.wait(Duration::from_secs(600));
    assert_eq!(p.count(State::CloseWait), 1);
    assert!(p.info(peer.id).expect("there").in_state >= Duration::from_secs(600));
    p.wait(Duration::from_secs(3 * 3600));
    assert_eq!(p.app.end_of(peer.id), Some(Closed::TimedOut));
}

/// (l) What the application never took doesn't outlive its abort, in any state.
#[test]
fn abort_frees_unread_octets() {
    for late in [false, true] {
        let mut p = Probe::new();
        p.app.reads = false;
        let peer = p.fin_wait_2();
        p.give(&peer, &peer.seg(FIN_ACK).data(b"unread"));
        assert_eq!((p.state(&peer), p.app.end_of(peer.id)), (State::TimeWait, None));
        if late {
            p.wait(Duration::from_secs(61));
        } else {
            assert!(p.act(&peer, |_, conn| conn.abort()).is_empty(), "both have closed: no RST");
        }
        assert_eq!(p.app.closed.len(), 1);
        assert_eq!(p.count(State::TimeWait), 1, "the pair still waits");
        p.assert_idle();
        p.wait(Duration::from_secs(61));
        assert_eq!(p.count(State::TimeWait), 0);
    }
}

/// S2.1: abort sends RST where something was still open, and only there (RFC 9293 §3.10.5).
#[test]
fn s3_1_abort_resets_the_peer() {
    let open: [Open; 4] = [Probe::accept, Probe::fin_wait_1, Probe::fin_wait_2, Probe::close_wait];
    for open in open {
        let mut p = Probe::new();
        let peer = open(&mut p);
        let out = p.act(&peer, |_, conn| {
            conn.abort();
            conn.abort();
            conn.shutdown();
        });
        assert_eq!(out.len(), 1);
        assert_eq!((out[0].flags, out[0].seq, out[0].ack), (RST_ACK, peer.ack, peer.seq));
        assert_eq!(p.app.end_of(peer.id), Some(Closed::Aborted));
        p.assert_idle();
    }
}
