//! SYN-SENT (RFC 9293 §3.10.7.3).

use byway_tcp::app::Closed;
use byway_tcp::tcb::state::State;
use byway_tcp::time::Duration;

use crate::probe::*;

#[test]
fn s1_1_active_open() {
    let mut p = Probe::new();
    let (peer, syn) = p.connect();
    assert_eq!(p.state(&peer), State::SynSent);
    assert_eq!(syn.options.mss, Some(1460));
    assert!(
        syn.options.sack_permitted && syn.options.timestamps.is_some() && syn.options.window_scale.is_some()
    );
    let ack = p.ask(&peer, &peer.seg(SYN_ACK));
    assert_eq!((ack.flags, ack.seq, ack.ack), (ACK, peer.ack, peer.seq + 1));
    assert_eq!((p.state(&peer), p.app.opened.as_slice()), (State::Established, &[peer.id][..]));
}

/// S1.5: RST with our SYN's acknowledgement refuses; any other RST is nothing.
#[test]
fn s1_5_t7_only_an_rst_that_acknowledges_our_syn_refuses() {
    let mut p = Probe::new();
    let (peer, _) = p.connect();
    p.tell(&peer, &peer.seg(RST));
    p.tell(&peer, &Seg::new(RST_ACK, 0, peer.ack.wrapping_add(1)));
    p.tell(&peer, &Seg::new(RST_ACK, 0, peer.ack.wrapping_sub(1)));
    assert_eq!(p.state(&peer), State::SynSent);
    p.tell(&peer, &Seg::new(RST_ACK, 0, peer.ack));
    assert_eq!((p.state(&peer), p.app.end_of(peer.id)), (State::Closed, Some(Closed::Reset)));
    p.assert_idle();
}

/// S1.2: the answer to an old SYN of ours is reset, and we stay (RFC 9293 figure 9).
#[test]
fn s1_2_an_unexpected_syn_ack_is_reset() {
    let mut p = Probe::new();
    let (peer, _) = p.connect();
    for ack in [peer.ack.wrapping_sub(1), peer.ack.wrapping_add(1), peer.ack ^ 0x8000_0000] {
        for flags in [SYN_ACK, ACK, FIN_ACK] {
            let rst = p.ask(&peer, &Seg::new(flags, 77, ack));
            assert_eq!((rst.flags, rst.seq), (RST, ack));
        }
    }
    p.tell(&peer, &Seg::new(ACK, 77, peer.ack));
    assert_eq!(p.state(&peer), State::SynSent);
    p.ask(&peer, &peer.seg(SYN_ACK));
    assert_eq!(p.state(&peer), State::Established);
}

/// Text that comes with the SYN-ACK, within the window that our SYN offered, is taken.
#[test]
fn text_and_fin_with_the_syn_ack() {
    let mut p = Probe::new();
    let (peer, _) = p.connect();
    let ack = p.ask(&peer, &peer.seg(SYN_ACK).data(b"hello"));
    assert_eq!(ack.ack, peer.seq + 6);
    assert_eq!(p.app.text(peer.id), b"hello");

    p.app.closes = false;
    let (peer, _) = p.connect();
    let ack = p.ask(&peer, &peer.seg(SYN_ACK | FIN).data(b"hello"));
    assert_eq!(ack.ack, peer.seq + 7);
    assert_eq!(p.state(&peer), State::CloseWait);
}

/// S1.6: RFC 9293 figure 7, line by line: the SYN-ACKs cross.
#[test]
fn s1_6_simultaneous_open_completed_by_the_peers_syn_ack() {
    let mut p = Probe::new();
    let (mut peer, syn) = p.connect();
    let syn_ack = p.ask(&peer, &peer.seg(SYN));
    assert_eq!((syn_ack.flags, syn_ack.seq, syn_ack.ack), (SYN_ACK, syn.seq, peer.seq + 1));
    assert_eq!(p.state(&peer), State::SynReceived);
    let out = p.give(&peer, &peer.seg(SYN_ACK));
    assert!(out.iter().all(|seg| seg.is(ACK)) && out.len() <= 1, "{out:?}");
    assert_eq!(p.state(&peer), State::Established);
    peer.seq += 1;
    p.give(&peer, &peer.seg(PSH_ACK).data(b"hi"));
    assert_eq!(p.app.text(peer.id), b"hi");
}

#[test]
fn s1_6_simultaneous_open_completed_by_an_ack() {
    let mut p = Probe::new();
    let (mut peer, _) = p.connect();
    p.ask(&peer, &peer.seg(SYN));
    peer.seq += 1;
    p.tell(&peer, &peer.seg(ACK));
    assert_eq!(p.state(&peer), State::Established);
    assert_eq!(p.app.opened, [peer.id]);
}

/// S1.6: SYN and SYN-ACK in one batch, before ours is out.
#[test]
fn s1_6_simultaneous_open_in_one_batch() {
    let mut p = Probe::new();
    let (peer, _) = p.connect();
    p.batch(&peer, &[peer.seg(SYN), peer.seg(SYN_ACK)]);
    assert_eq!(p.state(&peer), State::Established);
}

/// S5.6: SYN is repeated after 1, 2, 4 … s, and the open fails after three minutes (RFC 9293 §3.8.3, MUST-23).
#[test]
fn s5_6_s3_2_syn_backs_off_and_gives_up() {
    let mut p = Probe::new();
    let (peer, _) = p.connect();
    let out = p.wait(Duration::from_secs(200));
    let at: Vec<_> = out.iter().map(|(at, _)| (at.as_millis() + 500) / 1000).collect();
    assert_eq!(at, [1, 3, 7, 15, 31, 63, 123]);
    assert!(out.iter().all(|(_, seg)| seg.is(SYN) && seg.end() == peer.ack));
    assert_eq!(p.app.end_of(peer.id), Some(Closed::TimedOut));
    assert_eq!(p.count(State::SynSent), 0);
    p.assert_idle();
}

/// (m) A neighbour that doesn't answer ARP: the open fails in bounded time, and leaves nothing.
#[test]
fn connecting_to_nobody_times_out() {
    let mut p = Probe::new();
    p.answers_arp = false;
    let id = p.stack.connect(std::net::SocketAddr::new(v4(99), 9), p.now).expect("connect");
    let out = p.wait(Duration::from_secs(200));
    assert!(out.is_empty(), "{out:?}");
    assert_eq!(p.app.end_of(id), Some(Closed::TimedOut));
    assert!(p.others.len() > 3 && p.others.len() < 250, "{} questions", p.others.len());
    p.assert_idle();
}
