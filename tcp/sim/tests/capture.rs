//! The capture is one that others read.

use std::path::Path;
use std::process::{Command, Stdio};

use byway_sim::capture::Capture;
use byway_sim::scenario::{Choices, Scenario};
use byway_sim::world::Observer;
use byway_sim::{Digest, Options, one};

/// A run without a flipped bit, over both families: whatever tshark complains of is ours.
fn clean_seed() -> u64 {
    let fits = |scenario: &Scenario| {
        let both = scenario.flows.iter().any(|flow| flow.v6) && scenario.flows.iter().any(|flow| !flow.v6);
        let flips = ["corruption", "a bit of everything"].iter().any(|kind| scenario.weather.contains(kind));
        both && !flips && scenario.weather.contains(&"loss")
    };
    (0..).find(|&seed| fits(&Scenario::draw(seed, Choices::default()))).expect("some seed")
}

fn tshark(file: &Path, arguments: &[&str]) -> String {
    let checks = ["-o", "ip.check_checksum:TRUE", "-o", "tcp.check_checksum:TRUE"];
    let output = Command::new("tshark").arg("-r").arg(file).args(checks).args(arguments).output();
    let output = output.expect("tshark runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// S4.6: tshark reads every frame, with its interface, its direction and its nanosecond, and finds no fault with any.
#[test]
fn s4_6_tshark_reads_every_frame() {
    let there = Command::new("tshark").arg("--version").stdout(Stdio::null()).status();
    if !there.is_ok_and(|status| status.success()) {
        println!("skipped: tshark isn't installed (deploy/install-deps.sh test)");
        return;
    }
    let seed = clean_seed();
    let hosts = Scenario::draw(seed, Choices::default()).hosts.len();
    let (mut capture, mut digest) = (Capture::new(Vec::new(), hosts).expect("memory"), Digest::default());
    let mut observers: Vec<&mut dyn Observer> = vec![&mut capture, &mut digest];
    one(seed, &Options::default(), &mut observers).expect("a good run");
    let file = std::env::temp_dir().join(format!("byway-sim-{}.pcapng", std::process::id()));
    std::fs::write(&file, capture.finish().expect("a Vec takes everything")).expect("a file");

    let fields =
        ["frame.interface_name", "frame.packet_flags_direction", "frame.time_epoch", "frame.protocols"];
    let mut arguments = vec!["-T", "fields"];
    fields.iter().for_each(|field| arguments.extend(["-e", *field]));
    let frames = tshark(&file, &arguments);
    let bad =
        "_ws.malformed || ip.checksum.status == 0 || tcp.checksum.status == 0 || icmpv6.checksum.status == 0";
    let bad = tshark(&file, &["-Y", bad]);
    std::fs::remove_file(&file).expect("it was there");

    assert_eq!(frames.lines().count() as u64, digest.frames, "seed {seed}");
    let (mut ways, mut before) = (std::collections::BTreeSet::new(), String::new());
    for line in frames.lines() {
        let [interface, direction, time, protocols] = line.split('\t').collect::<Vec<_>>()[..] else {
            panic!("{line}");
        };
        ways.insert((interface.to_string(), direction.to_string()));
        let known = ["arp", "tcp", "icmpv6"].iter().any(|protocol| protocols.contains(protocol));
        assert!(known, "{line}");
        assert!(time >= before.as_str() || time.len() > before.len(), "{before} then {time}");
        before = time.to_string();
    }
    assert!(before.split('.').next_back().is_some_and(|nanos| nanos.len() == 9), "{before}");
    assert!(ways.len() >= 4, "{ways:?}");
    assert_eq!(bad, "", "seed {seed}");
}
