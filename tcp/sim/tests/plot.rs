//! The picture shows what happened.

use byway_sim::plot::{Band, Probe, draw};
use byway_sim::{Options, one};

/// The first seed whose busiest sender goes through slow start, avoidance and fast recovery, as watched.
fn eventful() -> (u64, Probe) {
    let phases = [Band::SlowStart, Band::Avoidance, Band::FastRecovery];
    for seed in 0..2_000 {
        let Ok(summary) = one(seed, &Options::default(), &mut ()) else { continue };
        let (flow, client) = summary.busiest;
        let mut probe = Probe::new(flow, client);
        one(seed, &Options::default(), &mut probe).expect("as before");
        let shown = |band| probe.samples.iter().any(|sample| sample.band == band);
        if phases.into_iter().all(shown) {
            return (seed, probe);
        }
    }
    panic!("no seed has all phases");
}

/// S7.3: cwnd, ssthresh, flight, RTT and phase over time, in a picture that any XML parser reads.
#[test]
fn s7_3_cwnd_ssthresh_and_phase_are_drawn() {
    let (seed, probe) = eventful();
    let svg = draw(&probe, "a < b & c");
    let document = roxmltree::Document::parse(&svg).expect("well-formed XML");
    let with_class = |class: &str| {
        let nodes = document.descendants().filter(|node| node.attribute("class") == Some(class));
        nodes.collect::<Vec<_>>()
    };
    for class in ["cwnd", "ssthresh", "flight", "rtt"] {
        // The legend's, and the data.
        let lines = with_class(class);
        assert_eq!(lines.len(), 2, "{class}, seed {seed}");
        let points = lines[1].attribute("points").expect("points").split(' ').map(|point| {
            let (x, y) = point.split_once(',').expect("a point");
            (x.parse::<f64>().expect("x"), y.parse::<f64>().expect("y"))
        });
        let points: Vec<_> = points.collect();
        assert!(points.len() > 3, "{class}, seed {seed}: {points:?}");
        assert!(points.iter().all(|&(x, y)| (89.0..=1171.0).contains(&x) && (100.0..=700.0).contains(&y)));
        assert!(points.windows(2).all(|pair| pair[0].0 <= pair[1].0), "{class} goes back in time");
    }
    let colours: Vec<_> = with_class("band").iter().filter_map(|node| node.attribute("fill")).collect();
    for (band, _, colour) in Band::ALL {
        let shown = probe.samples.iter().any(|sample| sample.band == band);
        assert_eq!(colours.contains(&colour), shown, "{band:?}, seed {seed}");
    }
    // The legend's, and at least one more for what was sent again.
    assert!(with_class("retransmission").len() >= 2 && !probe.retransmissions.is_empty(), "seed {seed}");
    assert!(svg.contains("a &lt; b &amp; c") && svg.contains("RTT, ms") && svg.contains("seconds"));
}
