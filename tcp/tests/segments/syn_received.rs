//! SYN-RECEIVED (RFC 9293 §3.10.7.4).

use byway_tcp::app::Closed;
use byway_tcp::tcb::state::State;
use byway_tcp::time::Duration;
use byway_tcp::wire::tcp::{Flags, Options};

use crate::probe::*;

/// S1.2: the peer's RST for our SYN-ACK drops the half-open entry; the application never hears of it.
#[test]
fn s1_2_an_old_duplicate_syn_is_dropped_on_rst() {
    let mut p = Probe::new();
    let (peer, _) = p.half_open(Options::NONE);
    p.tell(&peer, &Seg::new(RST, peer.seq, 0));
    assert_eq!(p.state(&peer), State::Listen);
    assert!(p.app.opened.is_empty() && p.app.closed.is_empty());
    p.assert_idle();
    // The real SYN, of another sequence number, is welcome, again and again: the backlog is free.
    for n in 0..3 * BACKLOG {
        let syn_ack = p.ask(&peer, &Seg::new(SYN, 50_000 + n, 0));
        assert!(syn_ack.is(SYN_ACK));
        p.tell(&peer, &Seg::new(RST, 50_001 + n, 0));
    }
}

/// S1.4: SYN-ACK is repeated, at most six transmissions in all (T26), and then the entry is gone.
#[test]
fn s1_4_t26_syn_ack_is_sent_at_most_six_times() {
    let mut p = Probe::new();
    let (peer, _) = p.half_open(Options::NONE);
    let out = p.wait(Duration::from_secs(200));
    let at: Vec<_> = out.iter().map(|(at, _)| (at.as_millis() + 500) / 1000).collect();
    assert_eq!(at, [1, 3, 7, 15, 31]);
    assert!(out.iter().all(|(_, seg)| seg.is(SYN_ACK)));
    assert_eq!(p.state(&peer), State::Listen);
    assert!(p.app.closed.is_empty());
    p.assert_idle();
}

/// S1.4: a repeated SYN gets SYN-ACK again, but can't keep the entry alive for ever (T1, T5).
#[test]
fn s1_4_t5_repeated_syns_are_answered_and_dont_prolong() {
    let mut p = Probe::new();
    let (peer, first) = p.half_open(Options::NONE);
    p.wait_ms(600);
    let again = p.ask(&peer, &Seg::new(SYN, peer.seq - 1, 0));
    assert_eq!(again, first);
    let mut answers = 0;
    for _ in 0..400 {
        p.wait_ms(250);
        if p.state(&peer) == State::Listen {
            break;
        }
        answers += p.give(&peer, &Seg::new(SYN, peer.seq - 1, 0)).len();
    }
    assert_eq!(p.state(&peer), State::Listen, "the first SYN's time is over");
    assert!((50..=200).contains(&answers), "{answers} answers in a minute");
}

/// T5 T26: whoever sent a spoofed SYN knows its number; segments without ACK don't keep the entry alive, either.
#[test]
fn t5_segments_without_ack_dont_prolong() {
    let mut p = Probe::new();
    let (peer, _) = p.half_open(Options::NONE);
    for _ in 0..8 {
        p.wait_ms(9_000);
        p.give(&peer, &Seg::new(PSH, peer.seq, 0).data(b"x"));
    }
    assert_eq!(p.state(&peer), State::Listen, "the SYN's time is over");
}

/// T1: with the backlog more than half full an entry's time is short: a burst of spoofed SYNs shuts nobody out for long.
#[test]
fn t1_a_crowded_backlog_is_impatient() {
    let mut p = Probe::new();
    let peers: Vec<_> = (0..BACKLOG).map(|_| p.half_open(Options::NONE).0).collect();
    p.wait(Duration::from_secs(8));
    assert_eq!(p.state(&peers[0]), State::Listen);
    assert!(p.count(State::SynReceived) <= BACKLOG / 2, "{} half open", p.count(State::SynReceived));
    p.accept();
}

/// S1.4: the last ACK is lost; data completes the handshake and is delivered, FIN as well.
#[test]
fn s1_4_data_completes_the_handshake() {
    let mut p = Probe::new();
    let (mut peer, _) = p.half_open(Options::NONE);
    p.give(&peer, &peer.seg(PSH_ACK).data(b"GET"));
    peer.id = p.app.opened[0];
    assert_eq!((p.state(&peer), p.app.text(peer.id)), (State::Established, &b"GET"[..]));

    p.app.closes = false;
    let (mut peer, _) = p.half_open(Options::NONE);
    let ack = p.ask(&peer, &peer.seg(PSH_ACK | FIN).data(b"GET"));
    assert_eq!(ack.ack, peer.seq + 4);
    peer.id = p.app.opened[1];
    assert_eq!((p.state(&peer), p.app.text(peer.id)), (State::CloseWait, &b"GET"[..]));
}

/// (a) The application answers at once: text goes out with the ACK for the data that opened.
#[test]
fn s1_4_an_answer_to_the_opening_data_carries_its_ack() {
    let mut p = Probe::new();
    p.app.greets = b"220 hello".to_vec();
    let (peer, _) = p.half_open(Options::NONE);
    let out = p.ask(&peer, &peer.seg(PSH_ACK).data(b"x"));
    assert_eq!((out.data.as_slice(), out.ack), (&b"220 hello"[..], peer.seq + 1));
}

/// RFC 9293 §3.10.7.4, fifth step: an ACK of something else is reset, and the entry stays.
#[test]
fn t7_a_wrong_ack_is_reset_and_opens_nothing() {
    let mut p = Probe::new();
    let (peer, _) = p.half_open(Options::NONE);
    for ack in [peer.ack.wrapping_sub(1), peer.ack.wrapping_add(1), peer.ack ^ 0x8000_0000] {
        let rst = p.ask(&peer, &Seg::new(ACK, peer.seq, ack));
        assert_eq!((rst.flags, rst.seq), (RST, ack));
    }
    assert_eq!(p.state(&peer), State::SynReceived);
    p.tell(&peer, &Seg::new(Flags::NONE, peer.seq, 0).data(b"no ack"));
    p.tell(&peer, &peer.seg(ACK));
    assert_eq!(p.state(&peer), State::Established);
}

/// First step: what lies outside the window is answered with ACK, here as in any other state.
#[test]
fn t7_out_of_window_is_answered_and_opens_nothing() {
    let mut p = Probe::new();
    let (peer, _) = p.half_open(Options::NONE);
    let far = Seg { seq: peer.seq.wrapping_add(1 << 20), ..peer.seg(ACK).data(b"far") };
    let ack = p.ask(&peer, &far);
    assert_eq!((ack.flags, ack.seq, ack.ack), (ACK, peer.ack, peer.seq));
    // RST and SYN within the window, but not exactly there.
    p.wait_ms(600);
    assert!(p.ask(&peer, &Seg::new(RST, peer.seq + 10, 0)).is(ACK));
    p.wait_ms(300);
    assert_eq!(p.state(&peer), State::SynReceived);
}

/// S5.6: the RTO of a connection whose SYN-ACK was sent twice starts over, unmeasured (Karn).
#[test]
fn s5_6_a_repeated_syn_ack_measures_nothing() {
    let mut p = Probe::new();
    let (mut peer, _) = p.half_open(Options::NONE);
    p.wait_ms(700);
    p.ask(&peer, &Seg::new(SYN, peer.seq - 1, 0));
    p.wait_ms(1);
    p.tell(&peer, &peer.seg(ACK));
    peer.id = p.app.opened[0];
    assert_eq!(p.info(peer.id).expect("there").srtt, None);
    assert_eq!(p.app.end_of(peer.id), None::<Closed>);
}
