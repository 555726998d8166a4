//! `byway doctor` and `byway tune` on a veth pair: what they say is so, and what they advise mends it.

mod support;

use std::os::unix::fs::MetadataExt as _;
use std::process::{Command, Output};

use byway_datapath::config::Config;
use byway_datapath::umem::Umem;
use byway_datapath::xsk::Xsk;
use byway_lab::{BYWAY_INTERFACE, KERNEL_INTERFACE, Lab, LabOptions, VethOptions, is_root};
use serde_json::Value;
use support::*;

fn run(lab: &Lab, command: &mut Command) -> Output {
    let mut child = lab.byway.spawn(command).expect("starts");
    assert!(wait(&mut child, PATIENCE).is_some(), "{command:?} goes on");
    child.wait_with_output().expect("ends")
}

/// What `byway doctor` says of the interface, and its exit code.
fn doctor(lab: &Lab, command: &mut Command) -> (Value, i32) {
    let output = run(lab, command);
    let json = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    (json, output.status.code().expect("no signal"))
}

fn on_interface(lab: &Lab, more: &[&str]) -> (Value, i32) {
    let mut arguments = vec!["doctor", "--json", "--interface", BYWAY_INTERFACE];
    arguments.extend(more);
    doctor(lab, &mut byway(&arguments))
}

fn finding<'a>(report: &'a Value, check: &str) -> &'a Value {
    let all = report["findings"].as_array().expect("an array");
    all.iter().find(|finding| finding["check"] == check).unwrap_or_else(|| panic!("no {check}: {report}"))
}

#[test]
fn what_fails_is_mended_by_the_command_that_is_given() {
    let Some(lab) = lab(1) else { return };
    lab.byway.run(&format!("ip link set {BYWAY_INTERFACE} down")).expect("down");
    let (report, code) = on_interface(&lab, &[]);
    let link = finding(&report, "link");
    assert_eq!((code, link["verdict"].as_str()), (71, Some("FAIL")), "{report}");
    lab.byway.run(link["mend"].as_str().expect("a command")).expect("the command works");
    let (report, code) = on_interface(&lab, &[]);
    assert_ne!(finding(&report, "link")["verdict"], "FAIL");
    assert_eq!(code, 0, "{report}");
}

/// S6.1: what the kernel tells of packets in several buffers, and what follows for a large MTU.
#[test]
fn a_jumbo_mtu_is_judged_by_what_the_driver_says() {
    if !is_root() {
        return;
    }
    let veth = VethOptions { mtu: 9000, ..VethOptions::default() };
    let lab = Lab::new(LabOptions { veth, impair: None }).expect("a lab");
    let (report, _) = on_interface(&lab, &[]);
    let mtu = finding(&report, "mtu");
    assert_eq!(mtu["verdict"], "PASS", "{report}");
    assert!(
        mtu["reason"].as_str().is_some_and(|reason| reason.contains("in several frames of 4096")),
        "{mtu}"
    );
    let several = finding(&report, "multi-buffer");
    assert!(several["reason"].as_str().is_some_and(|reason| reason.contains("taken by XDP")), "{several}");
}

/// Where all queues but one are to be left out, in the words of a driver whose queues only send or only receive.
#[test]
fn queues_nobody_serves_are_given_up_by_the_command_that_is_given() {
    let Some(lab) = lab(2) else { return };
    let (report, _) = on_interface(&lab, &["--queues", "0"]);
    let queues = finding(&report, "queues");
    assert_eq!(queues["verdict"], "WARN", "{report}");
    // The peer's first, or native XDP would be refused.
    let commands = queues["mend"].as_str().expect("commands");
    let (there, here) = commands.split_once("; then here: ").expect("two");
    let there = there.strip_prefix("on the peer: ").expect("the peer's").replace("PEER", KERNEL_INTERFACE);
    lab.kernel.run(&there).expect("the command works");
    lab.byway.run(here).expect("the command works");
    let (report, _) = on_interface(&lab, &["--queues", "0"]);
    assert_eq!(finding(&report, "queues")["verdict"], "PASS", "{report}");
    Server::start(&lab, &["--queues", "0", "--attach", "native"]).stop();
}

/// What doctor says mends it, and so does what serve says.
#[test]
fn a_veth_whose_peer_sends_on_more_queues_than_it_receives_on_is_told() {
    let Some(lab) = lab(2) else { return };
    lab.byway.run(&format!("ethtool -L {BYWAY_INTERFACE} rx 1")).expect("fewer");
    let (report, _) = on_interface(&lab, &[]);
    let native = finding(&report, "native-xdp");
    assert_eq!(native["verdict"], "WARN", "{report}");
    assert!(native["reason"].as_str().expect("text").contains("peer sends on more queues"), "{report}");
    let arguments = ["--interface", BYWAY_INTERFACE, "--address", "192.0.2.1/24", "--attach", "native"];
    let output = run(&lab, byway(&["serve"]).args(arguments));
    let said = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(output.status.code(), Some(71), "{said}");
    assert!(said.contains("`ethtool -L PEER tx N`"), "{said}");
    let (there, _) = native["mend"].as_str().expect("commands").split_once("; ").expect("two");
    let there = there.strip_prefix("on the peer: ").expect("the peer's").replace("PEER", KERNEL_INTERFACE);
    lab.kernel.run(&there).expect("the command works");
    let (report, _) = on_interface(&lab, &[]);
    assert_eq!(finding(&report, "native-xdp")["verdict"], "PASS", "{report}");
    Server::start(&lab, &["--attach", "native"]).stop();
}

/// Somebody else's AF_XDP socket on a queue, without an XDP program: who it is, and that byway can't have the queue; or
/// who it might be, of a kernel that doesn't tell.
#[test]
fn a_foreign_socket_on_a_queue_is_named_with_its_owner() {
    let Some(lab) = lab(2) else { return };
    let index = lab.byway.ifindex(BYWAY_INTERFACE).expect("an index");
    let told = lab.byway.enter(|| byway_datapath::sock_diag::xdp_sockets(index)).is_some();
    let config = Config { frame_count: 20_480, ..Config::default() };
    let open = || {
        // SAFETY: it goes to the one socket, and no further.
        let umem = unsafe { Umem::new(&config) }.expect("UMEM");
        // SAFETY: it isn't used any further.
        let socket = unsafe { Xsk::open(&umem, &config, BYWAY_INTERFACE, 1) }.expect("free");
        (socket, umem)
    };
    let socket = lab.byway.enter(open);
    let me = format!("pid {} (", std::process::id());
    let (report, code) = on_interface(&lab, &[]);
    let found = finding(&report, "queue-sockets");
    let (expected, verdict) = if told { (71, "FAIL") } else { (0, "WARN") };
    assert_eq!((code, found["verdict"].as_str()), (expected, Some(verdict)), "{report}");
    let reason = found["reason"].as_str().expect("text");
    assert!(reason.contains(&me) && reason.starts_with("queue 1 has ") == told, "{reason}");
    assert_eq!(finding(&report, "xdp-hook")["verdict"], "PASS");
    if told {
        // It is in nobody's way who doesn't want the queue.
        let (report, _) = on_interface(&lab, &["--queues", "0"]);
        assert_eq!(finding(&report, "queue-sockets")["verdict"], "PASS", "{report}");
    }
    let output =
        run(&lab, &mut byway(&["serve", "--interface", BYWAY_INTERFACE, "--address", "192.0.2.1/24"]));
    let said = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!((output.status.code(), said.lines().count()), (Some(71), 1), "{said}");
    assert!(
        said.contains("queue 1 of byway0 is in use by an AF_XDP socket of ") && said.contains(&me),
        "{said}"
    );
    drop(socket);
    let (report, _) = on_interface(&lab, &[]);
    assert!(!finding(&report, "queue-sockets")["reason"].as_str().expect("text").contains(&me), "{report}");
}

/// A program that somebody else attached, in either mode, is gone after the command.
#[test]
fn a_foreign_program_is_taken_off_by_the_command_that_is_given() {
    let Some(lab) = lab(1) else { return };
    let object = std::env::temp_dir().join(format!("byway-doctor-{}.o", std::process::id()));
    let source = object.with_extension("c");
    // The second has the very name of byway's.
    for (mode, name) in [("xdpdrv", "pass"), ("xdpgeneric", "steer")] {
        let program =
            format!("__attribute__((section(\"xdp\"), used)) int {name}(void *c) {{ return 2; }}\n");
        std::fs::write(&source, program).expect("C");
        let mut clang = Command::new("clang");
        clang.args(["-O2", "-target", "bpf", "-c"]).arg(&source).arg("-o").arg(&object);
        assert!(clang.status().expect("clang, as for byway itself").success());
        let attach = format!("ip link set dev {BYWAY_INTERFACE} {mode} obj {} sec xdp", object.display());
        lab.byway.run(&attach).expect("attached");
        let (report, code) = on_interface(&lab, &[]);
        let hook = finding(&report, "xdp-hook");
        assert_eq!((code, hook["verdict"].as_str()), (71, Some("FAIL")), "{report}");
        lab.byway.run(hook["mend"].as_str().expect("a command")).expect("the command works");
        let (report, code) = on_interface(&lab, &[]);
        assert_eq!((code, finding(&report, "xdp-hook")["verdict"].as_str()), (0, Some("PASS")), "{report}");
    }
    for file in [source, object] {
        std::fs::remove_file(file).expect("clean");
    }
}

/// Of the privileges that byway needs, each missing one is named; too little memory to lock is, too.
#[test]
fn missing_privileges_are_named() {
    let Some(lab) = lab(1) else { return };
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set=-bpf,-sys_admin,-net_raw,-ipc_lock", "--inh-caps=-all"]);
    command.args(["prlimit", "--memlock=8388608:8388608", env!("CARGO_BIN_EXE_byway")]);
    command.args(["doctor", "--json", "--interface", BYWAY_INTERFACE]);
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let (report, code) = doctor(&lab, &mut command);
    assert_eq!(code, 71);
    let capabilities = finding(&report, "capabilities");
    let reason = capabilities["reason"].as_str().expect("text");
    assert!(reason.contains("CAP_NET_RAW") && reason.contains("CAP_BPF"), "{reason}");
    assert!(!reason.contains("CAP_NET_ADMIN"), "{reason}");
    assert_eq!(finding(&report, "memory-lock")["verdict"], "FAIL");
    assert_eq!(finding(&report, "xdp-program")["verdict"], "WARN");
}

/// Beside a running byway: it is recognised, and its counters are read.
#[test]
fn a_running_byway_is_seen() {
    let Some(lab) = lab(1) else { return };
    let server = Server::start(&lab, &[]);
    let (report, code) = on_interface(&lab, &["--control", server.control.to_str().expect("UTF-8")]);
    assert_eq!(code, 0, "{report}");
    let hook = finding(&report, "xdp-hook")["reason"].as_str().expect("text");
    assert!(hook.contains("byway's own") && hook.contains(&server.pid().to_string()), "{hook}");
    let sockets = finding(&report, "queue-sockets");
    let reason = sockets["reason"].as_str().expect("text");
    // Or, of a kernel that doesn't tell on which queues they are, other tests' byways.
    let own =
        sockets["verdict"] == "PASS" && reason.contains(&format!("byway's own, pid {} (", server.pid()));
    assert!(own || reason.contains("doesn't tell"), "{sockets}");
    assert!(
        finding(&report, "running")["reason"].as_str().expect("text").contains("serves here"),
        "{report}"
    );
    server.stop();
}

#[test]
fn an_interface_that_is_not_there_is_a_users_mistake() {
    let Some(lab) = lab(1) else { return };
    let output = run(&lab, &mut byway(&["doctor", "--interface", "nosuchif0"]));
    assert_eq!(output.status.code(), Some(78));
    let said = String::from_utf8(output.stderr).expect("UTF-8");
    assert!(said.contains("nosuchif0 doesn't exist") && said.lines().count() == 1, "{said}");
}

/// D11's kind of promise: what was is noted before it is changed, and comes back.
#[test]
fn tune_changes_queues_and_takes_it_back() {
    let Some(lab) = lab(4) else { return };
    let queues = || lab.byway.run(&format!("ethtool -l {BYWAY_INTERFACE}")).expect("ethtool");
    let tune = |more: &[&str]| {
        let mut arguments = vec!["tune", "--interface", BYWAY_INTERFACE];
        arguments.extend(more);
        let output = run(&lab, &mut byway(&arguments));
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    let few = ["--queues", "1", "--huge-pages", "off"];
    let before = queues();
    let printed = tune(&few);
    assert!(printed.contains(&format!("ethtool -L {BYWAY_INTERFACE} rx 1 tx 1")), "{printed}");
    assert_eq!(queues(), before, "printing changes nothing");
    let mut apply = few.to_vec();
    apply.push("--apply");
    tune(&apply);
    assert_ne!(queues(), before);
    assert!(tune(&few).contains("as byway would have it"));
    // The folder of notes is root's alone, also where byway runs as somebody else: what they say is done as root.
    let folder = std::fs::metadata("/run/byway-tune").expect("the notes' folder");
    assert_eq!((folder.uid(), folder.mode() & 0o777), (0, 0o700));
    // An interface of the same name in another namespace is none of theirs.
    let mut elsewhere = byway(&["tune", "--undo", "--interface", BYWAY_INTERFACE]);
    let elsewhere = lab.kernel.spawn(&mut elsewhere).expect("starts").wait_with_output().expect("ends");
    assert!(String::from_utf8_lossy(&elsewhere.stdout).contains("nothing to undo"), "{elsewhere:?}");
    assert_ne!(queues(), before);
    tune(&["--undo"]);
    assert_eq!(queues(), before);
    assert!(tune(&["--undo"]).contains("nothing to undo"));
}
