//! Explicit congestion notification (RFC 3168): S4.2, T24.

use byway_tcp::stack::{Config, Ecn, SynCookies};
use byway_tcp::tcb::congestion::Algorithm;
use byway_tcp::tcb::state::State;
use byway_tcp::time::{Duration, Instant};
use byway_tcp::wire::ip::{ECN_CE, ECN_ECT0};
use byway_tcp::wire::tcp::{Flags, Options};

use crate::probe::*;

const ECE: Flags = Flags::ECE;
const CWR: Flags = Flags::CWR;
const ASK: Flags = Flags(0xc2);

fn with(ecn: Ecn) -> Probe {
    Probe::with(Config { ecn, ..config() }, 512, Instant::from_millis(1000))
}

/// A connection whose SYN asked for ECN, and our SYN-ACK.
fn asked(p: &mut Probe, syn: Flags, ecn: u8, options: Options) -> (Peer, Seg) {
    let mut peer = p.peer();
    let syn_ack = p.ask(&peer, &Seg { ecn, ..peer.seg(syn).options(options) });
    peer.seq += 1;
    peer.ack = syn_ack.seq.wrapping_add(1);
    let echo = syn_ack.options.timestamps.map(|(value, _)| (1, value));
    p.give(&peer, &peer.seg(ACK).options(Options { timestamps: echo, ..Options::NONE }));
    peer.id = *p.app.opened.last().expect("open");
    (peer, syn_ack)
}

fn plain() -> Options {
    Options { mss: Some(MSS as u16), ..Options::NONE }
}

fn ecn_conn(p: &mut Probe) -> Peer {
    let (peer, syn_ack) = asked(p, ASK, 0, plain());
    assert_eq!((syn_ack.flags, syn_ack.ecn), (SYN_ACK | ECE, 0));
    peer
}

/// S4.2: a SYN that asks is told yes, unless ECN is off, and unless something on the way marks what mustn't be marked;
/// then text isn't marked, and marks aren't echoed.
#[test]
fn s4_2_negotiation_as_server() {
    for (mode, syn, bits, on) in [
        (Ecn::Answer, ASK, 0, true),
        (Ecn::Ask, ASK, 0, true),
        (Ecn::Off, ASK, 0, false),
        (Ecn::Answer, ASK, ECN_ECT0, false),
        (Ecn::Answer, ASK, ECN_CE, false),
        (Ecn::Answer, SYN | ECE, 0, false),
        (Ecn::Answer, SYN | CWR, 0, false),
        (Ecn::Answer, SYN, 0, false),
    ] {
        let mut p = with(mode);
        let (peer, syn_ack) = asked(&mut p, syn, bits, plain());
        assert_eq!(syn_ack.flags, if on { SYN_ACK | ECE } else { SYN_ACK }, "{mode:?} {syn:?} {bits}");
        let out = p.send(&peer, b"text");
        assert_eq!(out[0].ecn, if on { ECN_ECT0 } else { 0 });
        p.give(&peer, &Seg { ecn: ECN_CE, ..peer.seg(PSH_ACK).data(b"x") });
        let ack = p.ask(&peer, &Seg { seq: peer.seq + 5, ..peer.seg(PSH_ACK).data(b"x") });
        assert_eq!(ack.flags, if on { ACK | ECE } else { ACK });
        assert_eq!(p.stack.counters().ip_in_ce_pkts, u64::from(on));
    }
    // RFC 3168 §6.1.1.1: the SYN comes again without asking.
    let mut p = with(Ecn::Answer);
    let peer = p.peer();
    assert!(p.ask(&peer, &peer.seg(ASK)).is(SYN_ACK | ECE));
    p.wait_ms(600);
    assert!(p.ask(&peer, &peer.seg(SYN)).is(SYN_ACK));
}

/// S4.2: an active open asks if it is told to, once; a SYN-ACK that reflects both bits is broken (RFC 3168 §6.1.1).
#[test]
fn s4_2_negotiation_as_client() {
    for (mode, syn_ack, on) in [
        (Ecn::Ask, SYN_ACK | ECE, true),
        (Ecn::Ask, SYN_ACK | ECE | CWR, false),
        (Ecn::Ask, SYN_ACK | CWR, false),
        (Ecn::Ask, SYN_ACK, false),
        (Ecn::Answer, SYN_ACK | ECE, false),
        (Ecn::Off, SYN_ACK | ECE, false),
    ] {
        let mut p = with(mode);
        let id = p.stack.connect((v4(2), 9).into(), p.now).expect("connect");
        let (_, syn) = p.collect().remove(0);
        assert_eq!((syn.flags, syn.ecn), (if mode == Ecn::Ask { ASK } else { SYN }, 0));
        let local_port = p.info(id).expect("there").local.port();
        let mut peer =
            Peer { remote: v4(2), remote_port: 9, local_port, seq: 5000, ack: syn.seq.wrapping_add(1), id };
        assert!(p.ask(&peer, &peer.seg(syn_ack).mss(1460)).is(ACK));
        peer.seq += 1;
        assert_eq!(p.send(&peer, b"text")[0].ecn, if on { ECN_ECT0 } else { 0 }, "{mode:?} {syn_ack:?}");
    }
    let mut p = with(Ecn::Ask);
    let id = p.stack.connect((v4(2), 9).into(), p.now).expect("connect");
    let first = p.collect().remove(0).1;
    let again = p.wait_ms(1100).remove(0).1;
    assert_eq!((first.flags, again.flags), (ASK, SYN), "something may drop SYNs that ask");
    let local_port = p.info(id).expect("there").local.port();
    let peer =
        Peer { remote: v4(2), remote_port: 9, local_port, seq: 5000, ack: first.seq.wrapping_add(1), id };
    p.ask(&peer, &peer.seg(SYN_ACK | ECE).mss(1460));
    assert_eq!(p.send(&Peer { seq: 5001, ..peer }, b"text")[0].ecn, 0, "we have sent a SYN that didn't ask");
}

/// S4.2: new text is marked; SYN-ACK, ACK, probes, FIN and what is sent again aren't (RFC 3168 §6.1.4, §6.1.5, §6.1.6).
#[test]
fn s4_2_only_new_text_is_marked() {
    let mut p = with(Ecn::Answer);
    let peer = ecn_conn(&mut p);
    let out = p.send(&peer, &[1; 3 * MSS]);
    assert!(out.len() == 3 && out.iter().all(|seg| seg.ecn == ECN_ECT0), "{out:?}");
    let ack = p.ask(&peer, &Seg { seq: peer.seq + 9, ..peer.seg(PSH_ACK).data(b"ahead") });
    assert_eq!((ack.flags, ack.ecn), (ACK, 0));
    for (_, again) in p.wait(Duration::from_secs(2)) {
        assert!(!again.data.is_empty() && again.ecn == 0, "{again:?}");
    }
    p.give(&peer, &peer.seg(PSH_ACK).data(b"the hole."));
    let peer = Peer { seq: peer.seq + 14, ack: peer.ack.wrapping_add(3 * MSS as u32), ..peer };
    p.give(&peer, &peer.seg(ACK).window(0));
    let probe =
        p.send(&peer, b"x").into_iter().chain(p.wait(Duration::from_secs(2)).into_iter().map(|(_, s)| s));
    assert!(probe.map(|seg| seg.ecn).all(|ecn| ecn == 0));
    p.give(&peer, &peer.seg(ACK));
    let fin = p.shutdown(&peer);
    assert!(fin.iter().all(|seg| seg.ecn == 0 || !seg.data.is_empty()), "{fin:?}");
}

/// S4.2: a mark is echoed at once and in everything until CWR (RFC 3168 §6.1.3); outside the window it says nothing.
#[test]
fn s4_2_marks_are_echoed_until_cwr() {
    let mut p = with(Ecn::Answer);
    let mut peer = ecn_conn(&mut p);
    let ce = |peer: &Peer, flags| Seg { ecn: ECN_CE, ..peer.seg(PSH_ACK | flags).data(b"x") };
    p.give(&peer, &Seg { seq: peer.seq.wrapping_add(1 << 20), ..ce(&peer, Flags::NONE) });
    p.give(&peer, &Seg { ecn: ECN_CE, ..peer.seg(ACK) });
    assert_eq!(p.stack.counters().ip_in_ce_pkts, 0);
    assert!(p.ask(&peer, &ce(&peer, Flags::NONE)).is(ACK | ECE), "not delayed");
    peer.seq += 1;
    assert_eq!(p.send(&peer, b"answer")[0].flags, PSH_ACK | ECE);
    peer.ack = peer.ack.wrapping_add(6);
    p.give(&peer, &peer.seg(PSH_ACK).data(b"x"));
    peer.seq += 1;
    assert!(p.wait_ms(50).iter().all(|(_, seg)| seg.is(ACK | ECE)));
    // CWR, itself marked: reduced, and again too much.
    p.give(&peer, &ce(&peer, CWR));
    peer.seq += 1;
    assert!(p.wait_ms(50).iter().all(|(_, seg)| seg.is(ACK | ECE)));
    p.give(&peer, &peer.seg(PSH_ACK | CWR).data(b"x"));
    peer.seq += 1;
    assert!(p.wait_ms(50).iter().all(|(_, seg)| seg.is(ACK)));
    assert_eq!(p.send(&peer, b"answer")[0].flags, PSH_ACK);
}

/// S4.2 T24: echoes reduce the window once for each window of data; the next new segment says CWR; whoever always
/// echoes doesn't bring it below two segments.
#[test]
fn s4_2_t24_one_reduction_a_window() {
    let config = Config { congestion: Algorithm::Reno, ..config() };
    let mut p = Probe::with(config, 512, Instant::from_millis(1000));
    let mut peer = ecn_conn(&mut p);
    let text = vec![1; 10 * MSS];
    let cwnd = |p: &Probe, peer: &Peer| p.info(peer.id).expect("there").cwnd as usize;
    assert_eq!(p.send(&peer, &text).len(), 10);
    let before = cwnd(&p, &peer);
    // The first echo halves it, those that follow don't, nor does the one that acknowledges all of that window.
    let mut out = Vec::new();
    for acked in 1..=10 {
        peer.ack = peer.ack.wrapping_add(MSS as u32);
        out.extend(p.give(&peer, &peer.seg(ACK | ECE)));
        assert!(acked > 0 && cwnd(&p, &peer) <= before * 6 / 10, "{} of {before}", cwnd(&p, &peer));
    }
    assert!(out.is_empty());
    assert_eq!(p.stack.counters().ecn_reductions, 1);
    let out = p.send(&peer, &text);
    assert!(out[0].flags.contains(CWR) && out[1..].iter().all(|seg| !seg.flags.contains(CWR)), "{out:?}");
    assert!(out.iter().all(|seg| seg.ecn == ECN_ECT0));
    // For ever: a reduction each window, and never less than two segments.
    for _ in 0..200 {
        let sent = p.send(&peer, &text[..MSS]).len() + p.wait_ms(1).len();
        let queued = p.info(peer.id).expect("there").send_queue;
        if queued == 0 {
            break;
        }
        peer.ack = peer.ack.wrapping_add(queued.min((sent.max(1) * MSS) as u32).min(MSS as u32));
        p.give(&peer, &peer.seg(ACK | ECE));
        assert!(cwnd(&p, &peer) >= 2 * MSS);
    }
    assert!(p.stack.counters().ecn_reductions > 5);
    assert_eq!(p.state(&peer), State::Established);
    // Without ECN, ECE says nothing.
    let peer = p.accept();
    p.send(&peer, &text);
    let before = cwnd(&p, &peer);
    p.give(&peer, &Seg::new(ACK | ECE, peer.seq, peer.ack.wrapping_add(MSS as u32)));
    assert!(cwnd(&p, &peer) >= before);
}

/// S4.2: a loss is a reduction, too: the next new segment says CWR (RFC 3168 §6.1.2).
#[test]
fn s4_2_cwr_after_a_loss() {
    let mut p = with(Ecn::Answer);
    let mut peer = ecn_conn(&mut p);
    p.send(&peer, &[1; 4 * MSS]);
    let again = p.wait_ms(1500);
    assert!(again.iter().all(|(_, seg)| !seg.flags.contains(CWR) && seg.ecn == 0), "{again:?}");
    peer.ack = peer.ack.wrapping_add(4 * MSS as u32);
    p.give(&peer, &peer.seg(ACK));
    let new = p.send(&peer, b"new");
    assert_eq!((new[0].flags, new[0].ecn), (PSH_ACK | CWR, ECN_ECT0));
}

/// S4.2 T1: a cookie remembers ECN in the timestamp, and does without if there is none.
#[test]
fn s4_2_t1_ecn_survives_a_cookie() {
    for (timestamps, on) in [(Some((7, 0)), true), (None, false)] {
        let config = Config { syncookies: SynCookies::Always, ..config() };
        let mut p = Probe::with(config, 512, Instant::from_millis(1000));
        let (peer, syn_ack) = asked(&mut p, ASK, 0, Options { timestamps, ..plain() });
        assert_eq!(syn_ack.flags, if on { SYN_ACK | ECE } else { SYN_ACK });
        assert_eq!(p.send(&peer, b"text")[0].ecn, if on { ECN_ECT0 } else { 0 });
    }
}
