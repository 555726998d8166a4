mod support;
use byway_tcp::time::Duration;
use byway_tcp::wire::{self, Body, Checksums};
use support::*;
fn show(pair: &Pair, n: usize) {
    for (from_a, f) in pair.trace.iter().rev().take(n).collect::<Vec<_>>().into_iter().rev() {
        if let Ok(p) = wire::parse(f, Checksums::Verify) {
            if let Body::Tcp(_, s) = p.body {
                println!(
                    "{} {:?} seq={} ack={} len={} win={} sack={:?} ts={:?}",
                    if *from_a { "A>" } else { "<B" },
                    s.flags,
                    s.seq.0,
                    s.ack.0,
                    s.payload.1,
                    s.window,
                    s.options.sack.iter().collect::<Vec<_>>(),
                    s.options.timestamps
                );
            }
        }
    }
}
#[test]
fn fw2() {
    let mut pair = Pair::new(9, Link::clean(Duration::from_micros(50)));
    let id = pair.a.connect(v4(2, DEAF), Plan { half_close: true, ..Plan::bulk(10) }, pair.now);
    pair.run_for(Duration::from_secs(30));
    println!("{:?} {:?}", pair.a.stack.connections_by_state(), pair.b.stack.connections_by_state());
    println!("{:?}", pair.a.app.clients[&id]);
    show(&pair, 30);
}
#[test]
fn bad() {
    for seed in [11u64, 14, 17, 20, 23, 26, 29, 32] {
        let mut pair = Pair::new(seed, Link::bad(0.15));
        let mut plan = Plan::bulk(120_000);
        plan.write = 1 + (seed as usize * 211) % 1800;
        let id = pair.a.connect(v4(2, ECHO), plan, pair.now);
        let end = pair.now + Duration::from_secs(600);
        while pair.now < end && pair.a.app.clients[&id].closed.is_none() {
            if !pair.step() {
                break;
            }
        }
        println!("seed {seed} {:?} now {:?}", pair.a.app.clients[&id], pair.now);
        for h in [&pair.a, &pair.b] {
            for (n, v) in h.stack.counters().iter() {
                if v > 0 {
                    print!("{n}={v} ");
                }
            }
            println!();
            h.stack.connections(0, 1000, pair.now, &mut |c| println!("{c:?}"));
        }
        if pair.a.app.clients[&id].closed != Some(byway_tcp::app::Closed::Finished) {
            show(&pair, 40);
            break;
        }
    }
}
