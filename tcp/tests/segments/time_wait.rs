//! TIME-WAIT, in its table (S2.4, S2.5, T6).

use byway_tcp::stack::Config;
use byway_tcp::tcb::state::State;
use byway_tcp::time::{Duration, Instant};
use byway_tcp::wire::tcp::Options;

use crate::probe::*;

/// S2.4: FIN again is acknowledged again, and the wait starts over (RFC 9293 §3.10.7.4).
#[test]
fn s2_4_fin_again() {
    let mut p = Probe::new();
    let peer = p.time_wait();
    let fin = Seg { seq: peer.seq - 1, ..peer.seg(FIN_ACK) };
    for _ in 0..5 {
        p.wait(Duration::from_secs(40));
        let ack = p.ask(&peer, &fin);
        assert_eq!((ack.flags, ack.seq, ack.ack), (ACK, peer.ack, peer.seq));
    }
    assert_eq!(p.state(&peer), State::TimeWait);
    p.wait(Duration::from_secs(61));
    assert_eq!((p.state(&peer), p.count(State::TimeWait)), (State::Listen, 0));
}

/// S2.4 T6 (RFC 1337): RST of any number doesn't end the wait.
#[test]
fn s2_4_t6_rst_is_ignored() {
    let mut p = Probe::new();
    let peer = p.time_wait();
    for seq in [peer.seq, peer.seq - 1, peer.seq + 1, 0] {
        p.tell(&peer, &Seg::new(RST, seq, 0));
        p.tell(&peer, &Seg::new(RST_ACK, seq, peer.ack));
    }
    assert_eq!(p.state(&peer), State::TimeWait);
}

/// S2.4: old data is answered, not taken; the exact ACK isn't answered.
#[test]
fn s2_4_old_duplicates() {
    let mut p = Probe::new();
    let peer = p.time_wait();
    p.tell(&peer, &peer.seg(ACK));
    let ack = p.ask(&peer, &Seg { seq: peer.seq - 100, ..peer.seg(PSH_ACK).data(b"old") });
    assert_eq!((ack.flags, ack.seq, ack.ack), (ACK, peer.ack, peer.seq));
    p.ask(&peer, &Seg { seq: peer.seq + 100, ..peer.seg(PSH_ACK).data(b"new") });
    assert_eq!(p.state(&peer), State::TimeWait);
}

/// T9: the other side's confusion doesn't become a storm here either.
#[test]
fn t9_pure_acks_are_answered_twice_a_second() {
    let mut p = Probe::new();
    let peer = p.time_wait();
    let mut answers = 0;
    for _ in 0..500 {
        p.wait_ms(10);
        answers += p.give(&peer, &Seg { seq: peer.seq + 100, ..peer.seg(ACK) }).len();
    }
    assert!((5..=11).contains(&answers), "{answers} in 5 s");
}

/// S2.4: a newer SYN opens the pair anew (RFC 9293 §3.6.1), with numbers beyond the old ones; an old one is answered.
#[test]
fn s2_4_t6_reuse_without_timestamps() {
    let mut p = Probe::new();
    let peer = p.time_wait();
    let ack = p.ask(&peer, &Seg::new(SYN, peer.seq - 500, 0));
    assert_eq!((ack.flags, ack.ack), (ACK, peer.seq));
    assert_eq!(p.state(&peer), State::TimeWait);
    let syn_ack = p.ask(&peer, &Seg::new(SYN, peer.seq + 1, 0));
    assert_eq!((syn_ack.flags, syn_ack.ack), (SYN_ACK, peer.seq + 2));
    assert!(syn_ack.seq.wrapping_sub(peer.ack) < 1 << 31, "RFC 9293 §3.6.1: larger than the last used");
    assert_eq!((p.state(&peer), p.count(State::TimeWait)), (State::SynReceived, 0));
}

/// S2.4: the new numbers lie beyond the old ones although those ran faster than the clock.
#[test]
fn s2_4_reuse_after_much_data() {
    let mut p = Probe::new();
    let mut peer = p.accept();
    // Two megabytes in no time: 500,000 ticks of the clock are two seconds.
    for _ in 0..100 {
        let mut sent = 0;
        p.act(&peer, |_, conn| sent = write(conn, &[1; 14 * MSS]));
        let mut have = 0;
        while have < sent {
            have += 4 * MSS.min(sent - have);
            p.give(&peer, &Seg::new(ACK, peer.seq, peer.ack.wrapping_add(have.min(sent) as u32)));
        }
        peer.ack = peer.ack.wrapping_add(sent as u32);
    }
    p.shutdown(&peer);
    peer.ack = peer.ack.wrapping_add(1);
    p.give(&peer, &peer.seg(ACK));
    p.ask(&peer, &peer.seg(FIN_ACK));
    assert_eq!(p.state(&peer), State::TimeWait);
    let syn_ack = p.ask(&peer, &Seg::new(SYN, peer.seq + 10, 0));
    let ahead = syn_ack.seq.wrapping_sub(peer.ack);
    assert!(syn_ack.is(SYN_ACK) && ahead < 1 << 31, "{ahead}");
}

/// S2.4 (RFC 6191 §2): with timestamps the newer stamp decides, and of equal ones the number.
#[test]
fn s2_4_t6_reuse_with_timestamps() {
    let stamp = |value| Options { timestamps: Some((value, 0)), ..Options::NONE };
    let wait = |p: &mut Probe| {
        let (mut peer, _) = p.half_open(stamp(100));
        p.give(&peer, &peer.seg(ACK).options(stamp(100)));
        peer.id = *p.app.opened.last().expect("open");
        p.shutdown(&peer);
        peer.ack = peer.ack.wrapping_add(1);
        p.ask(&peer, &peer.seg(FIN_ACK).options(stamp(200)));
        peer.seq += 1;
        assert_eq!(p.state(&peer), State::TimeWait);
        peer
    };
    for (value, seq, reopens) in
        [(201, -1000, true), (201, 1000, true), (199, 1000, false), (200, 1000, true), (200, -1000, false)]
    {
        let mut p = Probe::new();
        let peer = wait(&mut p);
        let seq = peer.seq.wrapping_add(seq as u32);
        let out = p.ask(&peer, &Seg::new(SYN, seq, 0).options(stamp(value)));
        assert_eq!(out.flags, if reopens { SYN_ACK } else { ACK }, "{value} {seq}");
    }
}

/// S2.4: a SYN can't end the wait where nobody would take it: no listener there, backlog full, draining.
#[test]
fn s2_4_a_syn_for_nobody_is_answered_and_the_pair_waits() {
    let mut p = Probe::new();
    let mut peer = p.connected();
    p.shutdown(&peer);
    peer.ack = peer.ack.wrapping_add(1);
    p.ask(&peer, &peer.seg(FIN_ACK));
    peer.seq += 1;
    assert_eq!(p.count(State::TimeWait), 1);
    assert!(p.ask(&peer, &Seg::new(SYN, peer.seq + 99, 0)).is(ACK));
    assert_eq!(p.count(State::TimeWait), 1);

    let mut p = Probe::new();
    let peer = p.time_wait();
    for _ in 0..BACKLOG {
        p.half_open(Options::NONE);
    }
    p.give(&peer, &Seg::new(SYN, peer.seq + 99, 0));
    assert_eq!(p.state(&peer), State::TimeWait);
}

/// S2.5 (k): a full table closes without the wait, and the counts come back to nothing in any order.
#[test]
fn s2_5_a_full_table() {
    let mut p = Probe::with(Config { max_time_wait: 3, ..config() }, 512, Instant::from_millis(1));
    let peers: Vec<_> = (0..6).map(|_| p.time_wait_or_closed()).collect();
    assert_eq!(p.count(State::TimeWait), 3);
    let waiting: Vec<_> = peers.iter().filter(|peer| p.state(peer) == State::TimeWait).copied().collect();
    p.ask(&waiting[1], &Seg::new(SYN, waiting[1].seq + 50, 0));
    assert_eq!(p.count(State::TimeWait), 2);
    p.time_wait();
    p.wait(Duration::from_secs(200));
    assert_eq!(p.stack.connections_by_state().iter().sum::<u32>(), 1, "the listener");
    p.assert_idle();
}

/// T20: an active open avoids pairs that wait.
#[test]
fn t20_connect_avoids_waiting_pairs() {
    let mut p = Probe::new();
    let mut ports = Vec::new();
    for _ in 0..20 {
        let mut peer = p.connected();
        assert!(!ports.contains(&peer.local_port));
        ports.push(peer.local_port);
        p.shutdown(&peer);
        peer.ack = peer.ack.wrapping_add(1);
        p.ask(&peer, &peer.seg(FIN_ACK));
    }
    assert_eq!(p.count(State::TimeWait), 20);
}
