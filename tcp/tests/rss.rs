//! Several cores behind one NIC that spreads flows by RSS: active opens reach the core that asked.

mod support;

use byway_tcp::app::ConnId;
use byway_tcp::flow_table::FourTuple;
use byway_tcp::rss::Rss;
use byway_tcp::stack::ConnectError;
use byway_tcp::time::{Duration, Instant};
use byway_tcp::wire::{Body, Checksums, parse};
use support::*;

const QUEUES: u32 = 4;

fn rss(queue: u32) -> Rss {
    let key: Vec<u8> = (0..40).map(|at| pattern(at + 1)).collect();
    let table: Vec<u32> = (0..128).map(|place| place % QUEUES).collect();
    Rss::new(&key, &table, queue).expect("usable")
}

/// The NIC: TCP by its hash, anything else to everybody, as cores tell each other what they learn.
fn dispatch(frames: Vec<Vec<u8>>, cores: &mut [Host], now: Instant) {
    for frame in frames {
        let tuple = match parse(&frame, Checksums::Verify).expect("valid").body {
            Body::Tcp(ip, seg) => Some(FourTuple {
                local_ip: ip.dst,
                remote_ip: ip.src,
                local_port: seg.dst_port,
                remote_port: seg.src_port,
            }),
            _ => None,
        };
        for (queue, core) in (0..).zip(cores.iter_mut()) {
            if tuple.is_none_or(|tuple| rss(0).queue_of(&tuple) == queue) {
                core.deliver(std::slice::from_ref(&frame), now);
            }
        }
    }
}

/// S1.1: with four queues every connect succeeds, IPv4 and IPv6, however many there are.
#[test]
fn s1_1_answers_to_an_active_open_reach_the_core_that_asked() {
    let mut now = Instant::from_millis(1);
    let mut server = Host::new(config(1));
    let mut cores: Vec<Host> = (0..QUEUES)
        .map(|queue| {
            let mut config = config(2);
            config.rss = Some(rss(queue));
            config.secret = [queue as u8; 32];
            Host::with_frames(config, FRAMES)
        })
        .collect();
    let mut opened: Vec<(usize, ConnId)> = Vec::new();
    for (place, core) in cores.iter_mut().enumerate() {
        for n in 0..50 {
            let remote = if n % 2 == 0 { v4(1, ECHO) } else { v6(1, ECHO) };
            opened.push((place, core.connect(remote, Plan::bulk(100), now)));
        }
    }
    // Nine and more connections to a neighbour still asked for wait for their retransmission timers.
    for _ in 0..1000 {
        now = now + Duration::from_millis(5);
        for core in &mut cores {
            for frame in core.transmit(now) {
                server.deliver(&[frame], now);
            }
        }
        dispatch(server.transmit(now), &mut cores, now);
        server.advance(now);
        for core in &mut cores {
            core.advance(now);
        }
    }
    for (place, id) in opened {
        let client = &cores[place].app.clients[&id];
        assert_eq!((client.opened, client.received, client.corrupt), (true, 100, false), "core {place}");
    }
    assert_eq!(cores.iter().map(|core| core.stack.counters().tcp_out_rsts).sum::<u64>(), 0);
}

/// A NIC that sends nothing to our queue: said at once, not after a time-out.
#[test]
fn a_queue_that_gets_no_flows_has_no_port() {
    let mut config = config(2);
    config.rss = Some(rss(QUEUES));
    let mut host = Host::new(config);
    let refused = host.stack.connect(v4(1, ECHO), Instant::from_millis(1));
    assert_eq!(refused, Err(ConnectError::NoPort));
}
