//! LISTEN (RFC 9293 §3.10.7.2): who gets a connection, who gets RST, and what the SYN's options say.

use byway_tcp::app::Closed;
use byway_tcp::counters::DropReason;
use byway_tcp::stack::{Cidr, Config, Listener, SynCookies};
use byway_tcp::tcb::state::State;
use byway_tcp::time::{Duration, Instant};
use byway_tcp::wire::tcp::{Flags, Options};

use crate::probe::*;

#[test]
fn s1_1_passive_open() {
    let mut p = Probe::new();
    let (mut peer, syn_ack) = p.half_open(Options { mss: Some(1460), ..Options::NONE });
    assert_eq!(p.state(&peer), State::SynReceived);
    assert!(p.app.opened.is_empty());
    assert_eq!(syn_ack.options.mss, Some(1460));
    p.tell(&peer, &peer.seg(ACK));
    assert_eq!(p.state(&peer), State::Established);
    peer.id = p.app.opened[0];
    assert_eq!(p.info(peer.id).expect("there").state, State::Established);
}

/// S1.1: options are offered only to who offered them (RFC 7323 §1.3, RFC 2018 §2).
#[test]
fn s1_1_a_syn_ack_has_only_the_options_of_the_syn() {
    let mut p = Probe::new();
    let plain = p.half_open(Options::NONE).1.options;
    assert_eq!(plain, Options { mss: Some(1460), ..Options::NONE });
    let all = Options {
        mss: Some(1460),
        window_scale: Some(3),
        sack_permitted: true,
        timestamps: Some((77, 0)),
        ..Options::NONE
    };
    let options = p.half_open(all).1.options;
    assert!(options.window_scale.is_some() && options.sack_permitted, "{options:?}");
    assert_eq!(options.timestamps.expect("timestamps").1, 77);
}

/// S1.5: RST with SEQ 0 and ACK = SEG.SEQ + SEG.LEN; with ACK, SEQ = SEG.ACK (RFC 9293 §3.10.7.1).
#[test]
fn s1_5_a_closed_port_resets() {
    let mut p = Probe::new();
    let peer = Peer { local_port: 81, ..p.peer() };
    let rst = p.ask(&peer, &peer.seg(SYN).data(b"abc"));
    assert_eq!((rst.flags, rst.seq, rst.ack), (RST_ACK, 0, peer.seq + 4));
    let rst = p.ask(&peer, &Seg::new(ACK, 5, 99));
    assert_eq!((rst.flags, rst.seq, rst.ack), (RST, 99, 0));
    let rst = p.ask(&peer, &Seg::new(FIN, 5, 0));
    assert_eq!((rst.flags, rst.seq, rst.ack), (RST_ACK, 0, 6));
    p.tell(&peer, &Seg::new(RST, 5, 0));
    p.tell(&peer, &Seg::new(RST_ACK, 5, 99));
    assert_eq!(p.stack.counters().dropped(DropReason::NoListener), 5);
}

#[test]
fn s1_5_an_ack_to_a_listener_is_reset() {
    let mut p = Probe::new();
    let peer = p.peer();
    for flags in [ACK, FIN_ACK, SYN_ACK, PSH_ACK] {
        let rst = p.ask(&peer, &Seg::new(flags, 5, 99));
        assert_eq!((rst.flags, rst.seq), (RST, 99), "{flags:?}");
    }
    p.tell(&peer, &Seg::new(RST, 5, 0));
    p.tell(&peer, &Seg::new(FIN, 5, 0));
    p.tell(&peer, &Seg::new(Flags::NONE, 5, 0).data(b"x"));
    p.tell(&peer, &Seg::new(SYN | FIN, 5, 0));
    assert_eq!(p.state(&peer), State::Listen);
}

/// S1.1: who listens on a port that has connections leaves them alone, and is called by others (RFC 9293 §3.9.1.1,
/// MUST-41, MUST-42).
#[test]
fn s1_1_a_passive_open_disturbs_no_connection() {
    let mut p = Probe::new();
    let (half_open, _) = p.half_open(Options::NONE);
    let (asking, _) = p.connect();
    for port in [half_open.local_port, asking.local_port] {
        p.stack.listen(Listener { port, backlog: 4 });
    }
    assert_eq!((p.state(&half_open), p.state(&asking)), (State::SynReceived, State::SynSent));
    for port in [half_open.local_port, asking.local_port] {
        let peer = Peer { local_port: port, ..p.peer() };
        assert_eq!(p.ask(&peer, &peer.seg(SYN)).flags, SYN_ACK);
        assert_eq!(p.state(&peer), State::SynReceived);
    }
    p.tell(&half_open, &half_open.seg(ACK));
    assert!(p.ask(&asking, &asking.seg(SYN_ACK)).is(ACK));
    assert_eq!((p.state(&half_open), p.state(&asking)), (State::Established, State::Established));
}

/// S1.1: an open that names one of our addresses is that address's alone (RFC 9293 §3.9.1.1, MUST-43).
#[test]
fn s1_1_opens_at_one_address() {
    let mut config = config();
    config.addresses.push(Cidr { address: v4(9), prefix: 24 });
    let mut p = Probe::with(config, 512, Instant::from_millis(1000));
    p.stack.listen_at(v6(1), Listener { port: 81, backlog: 4 });
    let (four, six) =
        (Peer { local_port: 81, ..p.peer() }, Peer { local_port: 81, remote: v6(2), ..p.peer() });
    assert_eq!(p.ask(&four, &four.seg(SYN)).flags, RST_ACK);
    assert_eq!(p.ask(&six, &six.seg(SYN)).flags, SYN_ACK);
    // Another address is another listener; all addresses would be two for one.
    p.stack.listen(Listener { port: 81, backlog: 4 });
    assert_eq!(p.ask(&four, &four.seg(SYN)).flags, RST_ACK);
    p.stack.listen_at(v4(1), Listener { port: 81, backlog: 4 });
    assert_eq!(p.ask(&four, &four.seg(SYN)).flags, SYN_ACK);
    // Each gives its own place back.
    p.tell(&six, &Seg::new(RST, six.seq + 1, 0));
    p.tell(&four, &Seg::new(RST, four.seq + 1, 0));
    assert_eq!(p.count(State::SynReceived), 0);

    let remote = std::net::SocketAddr::new(v4(2), 9);
    for (local, works) in [(v4(9), true), (v4(1), true), (v4(77), false), (v6(1), false)] {
        let id = p.stack.connect_from(local, remote, p.now);
        assert_eq!(id.map(|id| p.info(id).expect("there").local.ip()).ok(), works.then_some(local));
    }
    let id = p.stack.connect(remote, p.now).expect("connect");
    assert_eq!(p.info(id).expect("there").local.ip(), v4(1), "the first that fits");
}

/// S1.3: two connections' numbers don't follow from each other, and time moves them on (RFC 6528).
#[test]
fn s1_3_initial_sequence_numbers_differ() {
    let mut p = Probe::new();
    let (a, first) = p.half_open(Options::NONE);
    let (_, second) = p.half_open(Options::NONE);
    assert!(first.seq.abs_diff(second.seq) > 1000);
    p.tell(&a, &Seg::new(RST, a.seq, 0));
    p.wait_ms(4);
    let again = p.ask(&a, &Seg::new(SYN, 9_000, 0));
    assert!((1000..1100).contains(&again.seq.wrapping_sub(first.seq)), "4 ms are 1000 ticks of 4 µs");
}

/// S6.1 T11: MSS of the peer, its default when absent, and a floor.
#[test]
fn s6_1_t11_segments_keep_to_the_peers_mss() {
    let text = vec![7; 12_000];
    let longest = |p: &mut Probe, options, remote| {
        let mut peer = p.peer();
        peer.remote = remote;
        let syn_ack = p.ask(&peer, &peer.seg(SYN).options(options));
        peer.seq += 1;
        peer.ack = syn_ack.seq.wrapping_add(1);
        let stamps = options.timestamps.map(|(value, _)| (value, syn_ack.options.timestamps.expect("ts").0));
        p.give(&peer, &peer.seg(ACK).options(Options { timestamps: stamps, ..Options::NONE }));
        peer.id = *p.app.opened.last().expect("open");
        let out = p.act(&peer, |_, conn| {
            write(conn, &text[..conn.mss() * 8]);
        });
        assert!(!out.is_empty());
        out.iter().map(|seg| seg.data.len()).max().expect("data")
    };
    let mss = |mss| Options { mss: Some(mss), ..Options::NONE };
    let mut p = Probe::new();
    for (options, remote, expected) in [
        (Options::NONE, v4(2), 536),
        (Options::NONE, v6(2), 1220),
        (mss(1000), v4(2), 1000),
        (mss(9000), v4(2), 1460),
        (mss(9000), v6(2), 1440),
        (mss(1), v4(2), 48),
        (mss(48), v6(2), 48),
        (mss(0), v4(2), 536),
        (Options { timestamps: Some((1, 0)), ..mss(1460) }, v4(2), 1448),
        (Options { timestamps: Some((1, 0)), ..mss(1) }, v4(2), 36),
    ] {
        assert_eq!(longest(&mut p, options, remote), expected, "{options:?} {remote}");
    }
}

/// T1: the backlog bounds half-open connections; they go, and others come. (With cookies: cookies.rs.)
#[test]
fn t1_half_open_connections_are_bounded() {
    let config = Config { syncookies: SynCookies::Off, ..config() };
    let mut p = Probe::with(config, 512, Instant::from_millis(1000));
    for _ in 0..BACKLOG {
        p.half_open(Options::NONE);
    }
    for _ in 0..10 {
        let peer = p.peer();
        p.tell(&peer, &peer.seg(SYN));
    }
    assert_eq!(p.count(State::SynReceived), BACKLOG);
    assert_eq!(p.stack.counters().dropped(DropReason::ListenOverflow), 10);
    p.wait(Duration::from_secs(130));
    assert_eq!(p.count(State::SynReceived), 0);
    assert!(p.app.opened.is_empty() && p.app.closed.is_empty(), "nobody hears of what never was");
    p.accept();
}

/// P2: a full connection table turns SYNs away, counts stay right, and connect says so.
#[test]
fn a_full_table_admits_nobody() {
    let mut p = Probe::with(Config { max_connections: 2, ..config() }, 512, Instant::from_millis(1));
    let a = p.accept();
    p.accept();
    let peer = p.peer();
    p.tell(&peer, &peer.seg(SYN));
    assert_eq!(p.stack.counters().dropped(DropReason::TableFull), 1);
    let remote = std::net::SocketAddr::new(v4(2), 9);
    assert!(p.stack.connect(remote, p.now).is_err());
    assert_eq!(p.count(State::SynSent) + p.count(State::SynReceived), 0);
    p.give(&a, &a.seg(RST));
    assert_eq!(p.app.end_of(a.id), Some(Closed::Reset));
    p.accept();
}

/// RFC 9293 §3.10.1 (MUST-46): an open to what can't be one peer is refused at once.
#[test]
fn connect_refuses_impossible_remotes() {
    let mut p = Probe::new();
    for (ip, port) in [
        ("255.255.255.255", 9),
        ("224.0.0.1", 9),
        ("10.0.0.255", 9),
        ("0.0.0.0", 9),
        ("ff02::1", 9),
        ("10.0.0.2", 0),
        ("10.0.0.1", 80),
    ] {
        let remote = std::net::SocketAddr::new(ip.parse().expect("ip"), port);
        assert!(p.stack.connect(remote, p.now).is_err(), "{remote}");
    }
    assert_eq!(p.count(State::SynSent), 0);
}

/// T1: SYNs are remembered, not their data; RFC 9293 §3.10.7.2 lets it be sent again.
#[test]
fn a_syn_with_data_opens_and_its_data_comes_again() {
    let mut p = Probe::new();
    let mut peer = p.peer();
    let syn_ack = p.ask(&peer, &peer.seg(SYN).data(b"early"));
    assert_eq!(syn_ack.ack, peer.seq + 1);
    peer.seq += 1;
    peer.ack = syn_ack.seq.wrapping_add(1);
    p.give(&peer, &peer.seg(ACK).data(b"early"));
    assert_eq!(p.app.text(p.app.opened[0]), b"early");
}

/// (l) While draining, nobody new comes in, and who was half open is asked to end at once.
#[test]
fn draining_turns_strangers_away_and_ends_who_comes_late() {
    let mut p = Probe::new();
    let open = p.accept();
    let (late, _) = p.half_open(Options::NONE);
    p.stack.drain(&mut p.app, p.now);
    let out = p.collect();
    assert!(out.len() == 1 && out[0].1.is(FIN_ACK), "{out:?}");
    assert_eq!(p.state(&open), State::FinWait1);
    let peer = p.peer();
    assert!(p.ask(&peer, &peer.seg(SYN)).is(RST_ACK));
    let fin = p.ask(&late, &late.seg(ACK));
    assert!(fin.is(FIN_ACK), "{fin:?}");
    assert_eq!(p.app.drained, 2);
}

/// (l) Everybody hears of the end, half-open peers too (RFC 9293 §3.10.5), and every frame is free.
#[test]
fn abort_all_tells_every_peer() {
    let mut p = Probe::new();
    let peer = p.accept();
    p.accept();
    p.half_open(Options::NONE);
    p.connect();
    p.fin_wait_1();
    p.send(&peer, &[1; 5000]);
    p.stack.abort_all(&mut p.app, p.now);
    let out = p.collect();
    assert!(out.iter().all(|(_, seg)| seg.flags.contains(RST)), "{out:?}");
    assert_eq!(out.len(), 4, "all but SYN-SENT");
    assert_eq!(p.stack.connection_count(), 0);
    assert!(p.app.closed.iter().all(|(_, reason)| *reason == Closed::Aborted));
    p.assert_idle();
}
