//! SYN cookies (RFC 4987 §3.6), T1 T2 T26: a full backlog keeps nobody out, and nothing is kept for anybody.

use byway_tcp::counters::DropReason;
use byway_tcp::stack::{Config, SynCookies};
use byway_tcp::tcb::state::State;
use byway_tcp::time::{Duration, Instant};
use byway_tcp::wire::tcp::Options;

use crate::probe::*;

fn always() -> Probe {
    Probe::with(Config { syncookies: SynCookies::Always, ..config() }, 512, Instant::from_millis(1000))
}

/// Fills the backlog with peers that never answer.
fn crowded() -> Probe {
    let mut p = Probe::new();
    for _ in 0..BACKLOG {
        p.half_open(Options::NONE);
    }
    p
}

fn stamped(value: u32, echo: u32) -> Options {
    Options { timestamps: Some((value, echo)), ..Options::NONE }
}

/// T1 S1.1: the ACK brings everything back; the backlog stays as full as it was.
#[test]
fn t1_s1_1_a_full_backlog_keeps_nobody_out() {
    let mut p = crowded();
    let (mut peer, _) = p.half_open(Options { mss: Some(1400), ..Options::NONE });
    assert_eq!((p.state(&peer), p.count(State::SynReceived)), (State::Listen, BACKLOG));
    p.tell(&peer, &peer.seg(ACK));
    peer.id = p.app.opened[0];
    assert_eq!((p.state(&peer), p.count(State::SynReceived)), (State::Established, BACKLOG));
    let info = p.info(peer.id).expect("there");
    assert_eq!((info.mss, info.srtt), (1400, None));
    let counters = p.stack.counters();
    assert_eq!((counters.syncookies_sent, counters.syncookies_recv, counters.syncookies_failed), (1, 1, 0));
    assert_eq!(counters.tcp_passive_opens, u64::from(BACKLOG) + 1);
    // The backlog has room again: entries, not cookies.
    p.wait(Duration::from_secs(130));
    p.half_open(Options::NONE);
    assert_eq!((p.count(State::SynReceived), p.stack.counters().syncookies_sent), (1, 1));
}

/// T1: without timestamps nothing is offered but the MSS; with them all of the SYN's options.
#[test]
fn t1_a_cookie_offers_what_it_can_remember() {
    let all = Options { mss: Some(1460), window_scale: Some(9), sack_permitted: true, ..Options::NONE };
    let mut p = crowded();
    assert_eq!(p.half_open(all).1.options, Options { mss: Some(1460), ..Options::NONE });
    let (mut peer, syn_ack) = p.half_open(Options { timestamps: Some((77, 0)), ..all });
    let shift = syn_ack.options.window_scale.expect("scaled");
    let (stamp, echo) = syn_ack.options.timestamps.expect("timestamps");
    assert!(syn_ack.options.sack_permitted && echo == 77);
    p.tell(&peer, &peer.seg(ACK).options(stamped(78, stamp)).window(2));
    peer.id = p.app.opened[0];
    assert_eq!(p.info(peer.id).expect("there").mss, 1448);
    // The peer's window counts in 512s: 2 of them.
    let out = p.send(&peer, &[7; 3000]);
    let sent: usize = out.iter().map(|seg| seg.data.len()).sum();
    assert!(sent <= 1024, "{out:?}");
    // Our timestamps go on from the one in the SYN-ACK, and our window is scaled.
    let ahead = Seg { seq: peer.seq + 5, ..peer.seg(ACK).options(stamped(79, stamp)).data(b"ahead") };
    let ack = p.give(&peer, &ahead.window(2)).remove(0);
    assert!(ack.options.timestamps.expect("timestamps").0.wrapping_sub(stamp) < 64 + 8);
    assert_eq!(ack.options.sack.len(), 1);
    assert!((40_000..100_000).contains(&(u32::from(ack.window) << shift)), "{ack:?}");
}

/// S1.4: text and FIN with the ACK that brings the cookie.
#[test]
fn s1_4_text_with_the_cookie_is_taken() {
    for (flags, state) in [(PSH_ACK, State::Established), (PSH_ACK | FIN, State::CloseWait)] {
        let mut p = always();
        p.app.closes = false;
        let (mut peer, _) = p.half_open(Options::NONE);
        p.give(&peer, &peer.seg(flags).data(b"GET /"));
        peer.id = p.app.opened[0];
        assert_eq!((p.state(&peer), p.app.text(peer.id)), (state, &b"GET /"[..]));
        let out = p.send(&peer, b"200");
        assert_eq!((out[0].seq, out[0].data.as_slice()), (peer.ack, &b"200"[..]));
    }
    // The handshake's ACK and text in one batch, as a server under load sees them.
    let mut p = always();
    let (peer, _) = p.half_open(Options::NONE);
    p.batch(&peer, &[peer.seg(ACK), peer.seg(PSH_ACK).data(b"GET /")]);
    assert_eq!(p.app.text(p.app.opened[0]), b"GET /");
    // A window full at once: all that was offered is taken.
    let mut p = always();
    let (mut peer, syn_ack) = p.half_open(Options { mss: Some(1460), ..Options::NONE });
    for _ in 0..usize::from(syn_ack.window) / MSS {
        p.give(&peer, &peer.seg(ACK).data(&[1; MSS]));
        peer.seq += MSS as u32;
    }
    assert_eq!(p.app.text(p.app.opened[0]).len(), usize::from(syn_ack.window) / MSS * MSS);
}

/// T2: what isn't a cookie is reset and counted; when none was sent of late nobody even looks.
#[test]
fn t2_forged_and_old_cookies_are_reset() {
    let mut p = Probe::new();
    let peer = p.peer();
    assert!(p.ask(&peer, &Seg::new(ACK, 5, 99)).is(RST));
    assert_eq!(p.stack.counters().syncookies_failed, 0);

    let mut p = always();
    let (peer, _) = p.half_open(Options::NONE);
    for seg in [
        Seg { ack: peer.ack.wrapping_add(1 << 8), ..peer.seg(ACK) },
        Seg { seq: peer.seq + 1, ..peer.seg(ACK) },
        peer.seg(ACK).options(stamped(1, 2)),
    ] {
        let rst = p.ask(&peer, &seg);
        assert_eq!((rst.flags, rst.seq), (RST, seg.ack));
    }
    assert!(p.ask(&Peer { remote_port: 9, ..peer }, &peer.seg(ACK)).is(RST));
    assert_eq!(p.stack.counters().syncookies_failed, 4);
    assert_eq!(p.stack.counters().dropped(DropReason::NoListener), 4);
    // Beside a flood, a cookie of long ago.
    p.wait(Duration::from_secs(100));
    p.half_open(Options::NONE);
    p.wait(Duration::from_secs(29));
    assert!(p.ask(&peer, &peer.seg(ACK)).is(RST));
    assert_eq!((p.stack.connection_count(), p.stack.counters().syncookies_failed), (0, 5));
    // After it.
    p.wait(Duration::from_secs(130));
    assert!(p.ask(&peer, &peer.seg(ACK)).is(RST));
    assert_eq!(p.stack.counters().syncookies_failed, 5);
    p.assert_idle();
}

/// P2: cookies need no slot, connections do: a full table answers nobody, and a cookie's ACK comes again.
#[test]
fn p2_a_full_table_sends_no_cookies_and_loses_none() {
    let config = Config { max_connections: 1, syncookies: SynCookies::Always, ..config() };
    let mut p = Probe::with(config, 512, Instant::from_millis(1));
    let (late, _) = p.half_open(Options::NONE);
    let first = p.accept();
    let peer = p.peer();
    p.tell(&peer, &peer.seg(SYN));
    p.tell(&late, &late.seg(PSH_ACK).data(b"hello"));
    assert_eq!(p.stack.counters().dropped(DropReason::TableFull), 2);
    p.give(&first, &first.seg(RST));
    p.give(&late, &late.seg(PSH_ACK).data(b"hello"));
    assert_eq!(p.app.text(p.app.opened[1]), b"hello");
}

/// T1 P5: a hundred thousand SYNs that lead nowhere: every honest connection opens at its first attempt, with no
/// time passing; nothing grows; no more goes out than comes in (T26; a frame has 60 octets on the wire at least).
#[test]
fn t1_t26_a_hundred_thousand_syns_delay_nobody() {
    let config = Config { max_connections: 512, ..config() };
    let mut p = Probe::with(config, 512, Instant::from_millis(1000));
    for _ in 0..BACKLOG {
        p.half_open(Options::NONE);
    }
    let options = [
        Options { mss: Some(1460), ..Options::NONE },
        Options {
            mss: Some(1460),
            window_scale: Some(7),
            sack_permitted: true,
            timestamps: Some((1, 0)),
            ..Options::NONE
        },
    ];
    let somebody = p.peer();
    let (mut answers, mut honest) = (0, 0);
    for n in 0..1_000u32 {
        let frames: Vec<_> = (0..100u32)
            .map(|m| {
                let spoofed = Peer {
                    remote: std::net::IpAddr::from([10, 0, (n >> 4) as u8, 3 + (m % 200) as u8]),
                    remote_port: (n * 100 + m) as u16,
                    seq: n ^ m << 16,
                    local_port: PORT,
                    ..somebody
                };
                p.frame(&spoofed, &spoofed.seg(SYN).options(options[m as usize % 2]))
            })
            .collect();
        let out = p.give_frames(&frames);
        assert!(out.iter().all(|(_, seg)| seg.is(SYN_ACK)), "{out:?}");
        answers += out.len();
        if n % 5 == 0 {
            let peer = p.accept();
            p.give(&peer, &peer.seg(PSH_ACK).data(b"ping"));
            assert_eq!(p.app.text(peer.id), b"ping");
            honest += 1;
        }
    }
    assert_eq!((answers, honest), (100_000, 200));
    assert_eq!(p.stack.connection_count(), honest + BACKLOG);
    assert_eq!(p.stack.counters().syncookies_recv, u64::from(honest));
    // Nothing is sent again for a cookie: only to the backlog's entries, and the pings' ACKs.
    assert!(p.wait(Duration::from_secs(60)).len() as u32 <= 6 * BACKLOG + honest);
}
