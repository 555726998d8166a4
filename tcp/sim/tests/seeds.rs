//! Scenarios from seeds, as `make test` runs them: `byway-sim --seeds 10000` is the long form.

use byway_sim::scenario::{Choices, Scenario};
use byway_sim::{Digest, Failure, Options, many, one};

/// S1.1 S2.1 S5.1 S5.5 S5.6 P1 P2 P3 T27: whatever the network does, every connection comes to its end, every octet
/// arrives, and nothing is left.
#[test]
fn s5_5_p3_five_hundred_seeds_end_well() {
    let mut failures: Vec<Failure> = Vec::new();
    let mut ended = 0;
    many(0..500, &Options::default(), |_, outcome| match outcome {
        Ok(summary) => ended += summary.ends.values().sum::<u32>(),
        Err(failure) => failures.push(failure),
    });
    failures.sort_by_key(|failure| failure.seed);
    assert!(failures.is_empty(), "replay with `byway-sim --seed N`: {failures:#?}");
    assert!(ended > 2_000, "{ended} ends");
}

/// P7: the same seed gives the same octets at the same nanosecond; another seed others.
#[test]
fn p7_same_seed_same_octets() {
    let digest = |seed| {
        let mut digest = Digest::default();
        one(seed, &Options::default(), &mut digest).expect("a good run");
        (digest.value(), digest.frames)
    };
    for seed in 0..25 {
        let (first, again) = (digest(seed), digest(seed));
        assert!(first.1 > 10, "{first:?}");
        assert_eq!(first, again, "seed {seed}");
        assert_ne!(first, digest(seed + 1), "seed {seed}");
    }
}

/// Header prediction is a shorter way to the same octets, at the same nanosecond.
#[test]
fn p7_prediction_changes_nothing_but_the_work() {
    let digest = |seed, unpredicted| {
        let choices = Choices { unpredicted, ..Choices::default() };
        let mut digest = Digest::default();
        one(seed, &Options { choices, ..Options::default() }, &mut digest).expect("a good run");
        (digest.value(), digest.frames)
    };
    for seed in 0..150 {
        assert_eq!(digest(seed, false), digest(seed, true), "seed {seed}");
    }
}

/// What the simulator is for has to happen in it: each kind of weather and of connection, on both topologies.
#[test]
fn the_first_five_hundred_seeds_contain_everything() {
    let (mut weathers, mut kinds, mut topologies) = (Vec::new(), Vec::new(), Vec::new());
    let (mut v6, mut crowded) = (0, 0);
    for seed in 0..500 {
        let scenario = Scenario::draw(seed, Choices::default());
        kinds.extend(scenario.flows.iter().map(|flow| flow.kind));
        weathers.extend(&scenario.weather);
        topologies.push(format!("{:?}", scenario.topology));
        v6 += scenario.flows.iter().filter(|flow| flow.v6).count();
        crowded += usize::from(scenario.flows.len() > 20);
    }
    for list in [&mut weathers, &mut kinds] {
        list.sort_unstable();
        list.dedup();
    }
    topologies.sort_unstable();
    topologies.dedup();
    let expected = [
        "MTU changes",
        "a bit of everything",
        "a host that stalls",
        "a long outage",
        "burst loss",
        "clear",
        "corruption",
        "duplication",
        "loss",
        "outages",
        "reordering",
    ];
    assert_eq!(weathers, expected);
    assert_eq!((kinds.len(), topologies.len()), (13, 3), "{kinds:?} {topologies:?}");
    assert!(v6 > 300 && crowded > 3, "{v6} {crowded}");
}
