//! Whole connections between two stacks, on good and on bad links.

mod support;

use byway_tcp::app::Closed;
use byway_tcp::frame::Owner;
use byway_tcp::tcb::state::State;
use byway_tcp::time::Duration;
use support::*;

fn echo(pair: &mut Pair, remote: std::net::SocketAddr, plan: Plan, limit: Duration) {
    let total = plan.send;
    let id = pair.a.connect(remote, plan, pair.now);
    pair.run_until(limit, |pair| pair.a.app.clients[&id].closed.is_some());
    let client = &pair.a.app.clients[&id];
    assert_eq!(client.closed, Some(Closed::Finished), "{client:?}");
    assert!(!client.corrupt && client.received == total, "{client:?}");
}

/// S1.1 S2.1 S5.1: open, echo, close in order; nothing is copied, nothing left.
#[test]
fn s1_1_s2_1_an_echo_over_both_families_leaves_only_time_wait() {
    for remote in [v4(2, ECHO), v6(2, ECHO)] {
        let mut pair = Pair::new(1, Link::clean(Duration::from_micros(50)));
        echo(&mut pair, remote, Plan::bulk(100_000), Duration::from_secs(5));
        pair.run_for(Duration::from_millis(100));
        assert_eq!(pair.a.in_state(State::TimeWait), 1);
        assert_eq!(pair.b.stack.connection_count(), 0);
        assert_eq!(pair.b.stack.counters().payload_bytes_copied, 0, "echo copies nothing");
        assert_eq!(pair.a.stack.counters().tcp_retrans_segs, 0);
        pair.run_for(Duration::from_secs(61));
        assert_eq!(pair.a.in_state(State::TimeWait), 0);
        pair.a.assert_idle();
        pair.b.assert_idle();
    }
}

/// S5.5 S5.6 S4.5: every octet arrives in order whatever the link does, and nothing is leaked.
#[test]
fn s5_5_s5_6_streams_survive_bad_links() {
    for seed in 0..300 {
        let share = [0.01, 0.03, 0.05][seed as usize % 3];
        let mut pair = Pair::new(seed, Link::bad(share));
        let mut plan = Plan::bulk(120_000);
        plan.write = 1 + (seed as usize * 211) % 1800;
        plan.send = plan.send.min(plan.write * 1000);
        plan.nodelay = seed % 2 == 0;
        echo(
            &mut pair,
            if seed % 2 == 0 { v4(2, ECHO) } else { v6(2, ECHO) },
            plan,
            Duration::from_secs(600),
        );
        pair.link = Link::clean(Duration::from_micros(50));
        pair.run_for(Duration::from_secs(400));
        pair.a.assert_idle();
        pair.b.assert_idle();
        assert_eq!(pair.b.stack.connection_count(), 0, "seed {seed}");
    }
}

/// S5.6: the last data segment and the FIN behind it are lost together, with a window of one segment left.
#[test]
fn s5_6_data_before_a_fin_is_sent_again_after_a_timeout() {
    let mut pair = Pair::new(13, Link::clean(Duration::from_micros(50)));
    let id = pair.a.connect(v4(2, DISCARD), Plan { half_close: true, ..Plan::bulk(1_448) }, pair.now);
    pair.run_until(Duration::from_secs(1), |pair| pair.a.app.clients[&id].opened);
    // The first transmission, and the first three of the timer's, are lost.
    pair.link.loss = 1.0;
    pair.run_for(Duration::from_secs(2));
    pair.link.loss = 0.0;
    pair.run_until(Duration::from_secs(10), |pair| pair.a.app.clients[&id].closed.is_some());
    assert_eq!(pair.a.app.clients[&id].closed, Some(Closed::Finished));
}

/// S2.2: the server goes on sending after the client's FIN.
#[test]
fn s2_2_half_close_still_receives_everything() {
    let mut pair = Pair::new(3, Link::clean(Duration::from_millis(1)));
    let plan = Plan { half_close: true, ..Plan::bulk(500_000) };
    echo(&mut pair, v4(2, ECHO), plan, Duration::from_secs(30));
}

/// S1.5: a closed port answers with RST at once.
#[test]
fn s1_5_connection_refused() {
    for remote in [v4(2, 999), v6(2, 999)] {
        let mut pair = Pair::new(4, Link::clean(Duration::from_micros(50)));
        let id = pair.a.connect(remote, Plan::bulk(1), pair.now);
        pair.run_until(Duration::from_millis(10), |pair| pair.a.app.clients[&id].closed.is_some());
        assert_eq!(pair.a.app.clients[&id].closed, Some(Closed::Reset));
        assert_eq!(pair.a.stack.connection_count(), 0);
    }
}

/// S5.2 S5.3: a reader that doesn't read closes the window; the sender probes, and goes on for ever.
#[test]
fn s5_3_a_zero_window_is_probed_and_survived() {
    let mut pair = Pair::new(5, Link::clean(Duration::from_micros(50)));
    let id = pair.a.connect(v4(2, DEAF), Plan::bulk(20_000_000), pair.now);
    pair.run_for(Duration::from_secs(600));
    let client = &pair.a.app.clients[&id];
    assert_eq!(client.closed, None, "the peer answers, so the connection stays");
    assert!(pair.a.stack.counters().tcp_win_probes > 5);
    let held = pair.b.stack.pool().count(Owner::Rx);
    assert!(held > 50 && held < FRAMES / 4, "{held} frames held for a deaf application");
}

/// S1.4: the handshake's last ACK is lost; the first data segment completes it.
#[test]
fn s1_4_data_completes_the_handshake() {
    let mut pair = Pair::new(6, Link::clean(Duration::from_micros(50)));
    let id = pair.a.connect(v4(2, ECHO), Plan { send: 0, ..Plan::bulk(0) }, pair.now);
    // ARP both ways, SYN, SYN-ACK.
    pair.run_until(Duration::from_secs(1), |pair| pair.a.app.clients[&id].opened);
    pair.link.loss = 1.0;
    pair.step();
    pair.link.loss = 0.0;
    assert_eq!(pair.b.in_state(State::SynReceived), 1);
    // The SYN-ACK is sent again, answered, and the connection is there.
    pair.run_until(Duration::from_secs(3), |pair| pair.b.in_state(State::SynReceived) == 0);
}

/// S3.2: a peer that vanished ends by the user timeout, and all its frames are free again.
#[test]
fn s3_2_a_vanished_peer_times_out() {
    let mut pair = Pair::new(7, Link::clean(Duration::from_micros(50)));
    let id = pair.a.connect(v4(2, ECHO), Plan::bulk(3_000_000), pair.now);
    pair.run_until(Duration::from_secs(5), |pair| pair.a.app.clients[&id].received > 100_000);
    pair.link.loss = 1.0;
    pair.run_for(Duration::from_secs(300));
    assert_eq!(pair.a.app.clients[&id].closed, Some(Closed::TimedOut));
    pair.a.assert_idle();
    pair.b.assert_idle();
}

/// S3.2: keepalive finds a silent peer that is gone, and leaves a silent one that lives.
#[test]
fn s3_2_keepalive() {
    let mut with = config(1);
    with.keepalive = Some(Duration::from_secs(60));
    let mut pair = Pair::of(Host::new(with), Host::new(config(2)), 8, Link::clean(Duration::from_millis(1)));
    let id = pair.a.connect(v4(2, DISCARD), Plan { send: 0, half_close: false, ..Plan::bulk(1) }, pair.now);
    pair.a.app.clients.get_mut(&id).expect("client").plan = None;
    pair.run_for(Duration::from_secs(3600));
    assert_eq!(pair.a.app.clients[&id].closed, None);
    assert!(pair.a.stack.counters().tcp_keepalives > 30);
    pair.link.loss = 1.0;
    pair.run_for(Duration::from_secs(3600));
    assert_eq!(pair.a.app.clients[&id].closed, Some(Closed::TimedOut));
}

/// S2.6: FIN-WAIT-2 ends by itself when the peer never closes.
#[test]
fn s2_6_fin_wait_2_is_bounded() {
    let mut pair = Pair::new(9, Link::clean(Duration::from_micros(50)));
    // DEAF never closes.
    let id = pair.a.connect(v4(2, DEAF), Plan { half_close: true, ..Plan::bulk(10) }, pair.now);
    pair.run_for(Duration::from_secs(30));
    assert_eq!(pair.a.in_state(State::FinWait2), 1);
    pair.run_for(Duration::from_secs(40));
    assert_eq!(pair.a.app.clients[&id].closed, Some(Closed::TimedOut));
    // S2.3: the other side's CLOSE-WAIT is visible with its age.
    assert_eq!(pair.b.in_state(State::CloseWait), 1);
    let mut age = Duration::ZERO;
    pair.b.stack.connections(0, 100, pair.now, &mut |info| {
        if info.state == State::CloseWait {
            age = info.in_state;
        }
    });
    assert!(age > Duration::from_secs(60), "{age:?}");
}

/// S8.1: with Nagle small writes are gathered while something is unacknowledged; without, they go at once.
#[test]
fn s8_1_nagle_gathers_small_writes() {
    let segments = |nodelay: bool| {
        let mut pair = Pair::new(10, Link::clean(Duration::from_millis(5)));
        let plan = Plan { send: 2_000, write: 10, half_close: true, nodelay, deaf: false };
        echo(&mut pair, v4(2, ECHO), plan, Duration::from_secs(30));
        pair.a.stack.counters().tcp_out_segs
    };
    assert!(segments(false) * 10 < segments(true), "{} {}", segments(false), segments(true));
}

/// P3: many connections at once in a small pool: all finish, none is starved for ever.
#[test]
fn p3_many_connections_share_a_small_pool() {
    let mut pair = Pair::of(
        Host::with_frames(config(1), 1024),
        Host::with_frames(config(2), 1024),
        11,
        Link::clean(Duration::from_micros(50)),
    );
    let ids: Vec<_> = (0..100).map(|_| pair.a.connect(v4(2, ECHO), Plan::bulk(50_000), pair.now)).collect();
    pair.run_until(Duration::from_secs(300), |pair| {
        ids.iter().all(|id| pair.a.app.clients[id].closed.is_some())
    });
    for id in ids {
        let client = &pair.a.app.clients[&id];
        assert!(client.received == 50_000 && !client.corrupt, "{client:?}");
    }
}

/// T3 D2: clients that never read hold all the memory there is, for a while; then they make room.
#[test]
fn t3_clients_that_never_read_give_way_to_one_that_does() {
    let link = Link::clean(Duration::from_micros(50));
    let mut pair =
        Pair::of(Host::with_frames(config(1), 16_384), Host::with_frames(config(2), 1_024), 14, link);
    for _ in 0..150 {
        pair.a.connect(v4(2, ECHO), Plan { deaf: true, ..Plan::bulk(10_000_000) }, pair.now);
    }
    pair.run_for(Duration::from_secs(3));
    assert!(pair.b.stack.pool().free_count() < 1_024 / 4, "{:?}", pair.b.stack.pool());
    for _ in 0..5 {
        echo(&mut pair, v4(2, ECHO), Plan::bulk(200_000), Duration::from_secs(30));
    }
    let aborted = pair.b.stack.counters().tcp_abort_on_memory;
    assert!(aborted > 0, "{aborted}");
}

/// S5.2: the receive window keeps up with a long path, from 64 KiB on: with those alone this would take 3.2 s.
#[test]
fn s5_2_a_long_path_is_filled() {
    let link = Link::clean(Duration::from_millis(20));
    let mut pair =
        Pair::of(Host::with_frames(config(1), 24_576), Host::with_frames(config(2), 24_576), 15, link);
    let id = pair.a.connect(v4(2, DISCARD), Plan { half_close: true, ..Plan::bulk(5_000_000) }, pair.now);
    let start = pair.now;
    pair.run_until(Duration::from_secs(10), |pair| pair.a.app.clients[&id].closed.is_some());
    assert_eq!(pair.b.app.served, 5_000_000);
    let took = pair.now.since(start);
    assert!(took < Duration::from_millis(800), "{took:?}");
}

/// P7: the same seed gives the same octets.
#[test]
fn p7_same_seed_same_capture() {
    let run = || {
        let mut pair = Pair::new(12, Link::bad(0.1));
        echo(&mut pair, v4(2, ECHO), Plan::bulk(60_000), Duration::from_secs(600));
        pair.trace
    };
    assert!(run() == run());
}
