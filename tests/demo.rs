//! `byway demo`, as a user sees it, and what it leaves behind.

mod support;

use std::io::{BufRead, BufReader, Read};
use std::time::Duration;

use byway_lab::is_root;
use support::*;

/// Network namespaces and interfaces of this host, as a stranger would look for leftovers.
fn traces() -> String {
    let run = |arguments: &[&str]| {
        let output = std::process::Command::new("ip").args(arguments).output().expect("ip");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let links = run(&["-brief", "link"]);
    let names = links.lines().filter_map(|line| line.split_whitespace().next()).collect::<Vec<_>>();
    format!("{}{names:?}", run(&["netns", "list"]))
}

fn scratch_of(pid: u32) -> std::path::PathBuf {
    std::env::temp_dir().join(format!("byway-demo-{pid}"))
}

#[test]
fn s4_7_the_demo_shows_the_main_job_and_leaves_nothing() {
    if !is_root() {
        return;
    }
    let before = traces();
    let child = byway(&["demo"]).spawn().expect("starts");
    let pid = child.id();
    let output = child.wait_with_output().expect("ends");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    for shown in [
        "byway ready",
        "SYN,ACK",
        "came back unchanged",
        "echoed",
        "ESTAB",
        "p99.9",
        "no program is attached",
    ] {
        assert!(text.contains(shown), "no {shown:?} in {text}");
    }
    assert_eq!(traces(), before);
    assert!(!scratch_of(pid).exists());
}

#[test]
fn an_interrupted_demo_leaves_nothing() {
    if !is_root() {
        return;
    }
    for (number, name) in [
        (libc::SIGINT, "SIGINT"),
        (libc::SIGTERM, "SIGTERM"),
        (libc::SIGHUP, "SIGHUP"),
        (libc::SIGKILL, "SIGKILL"),
    ] {
        let before = traces();
        let mut child = byway(&["demo"]).spawn().expect("starts");
        let pid = child.id();
        let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
        let mut line = String::new();
        while !line.starts_with("byway ready") {
            line.clear();
            assert!(stdout.read_line(&mut line).expect("reads") > 0, "{name}: ended before it was ready");
        }
        signal(pid, number);
        let status = wait(&mut child, Duration::from_secs(10)).expect("ends");
        let mut rest = String::new();
        let _ = stdout.read_to_string(&mut rest);
        if number != libc::SIGKILL {
            assert!(status.success() && rest.contains("nothing is left behind"), "{name}: {status} {rest}");
            assert!(!scratch_of(pid).exists(), "{name}");
        }
        assert_eq!(traces(), before, "{name}");
        let _ = std::fs::remove_dir_all(scratch_of(pid));
    }
}
