//! `byway serve` as its operator meets it: refusals, exit codes, the ready line, the end, the control socket.

mod support;

use std::io::{Read, Write};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::process::{Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use byway_datapath::pin;
use byway_lab::{BYWAY_INTERFACE, KERNEL_INTERFACE, Lab};
use support::*;

/// Runs byway in byway's namespace until it ends by itself.
fn run(lab: &Lab, arguments: &str) -> Output {
    let arguments: Vec<&str> = arguments.split_whitespace().collect();
    let mut child = lab.byway.spawn(&mut byway(&arguments)).expect("byway starts");
    if wait(&mut child, PATIENCE).is_none() {
        child.kill().expect("kills");
        let output = child.wait_with_output().expect("ends");
        panic!("byway {arguments:?} goes on: {output:?}");
    }
    child.wait_with_output().expect("ends")
}

/// A refusal: the exit code, and one line on standard error that says `words`.
fn refuses(lab: &Lab, arguments: &str, code: i32, words: &[&str]) {
    let output = run(lab, arguments);
    let stderr = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(output.status.code(), Some(code), "byway {arguments}: {stderr}");
    assert!(output.stdout.is_empty(), "byway {arguments}");
    assert_eq!(stderr.lines().count(), 1, "one line: {stderr}");
    assert!(stderr.starts_with("byway: "), "{stderr}");
    for word in words {
        assert!(stderr.contains(word), "byway {arguments}: no {word:?} in {stderr}");
    }
}

fn assert_nothing_left(lab: &Lab) {
    let link = lab.byway.run(&format!("ip -details link show {BYWAY_INTERFACE}")).expect("ip");
    assert!(!link.contains("prog/xdp"), "a program is attached: {link}");
}

#[test]
fn mistakes_end_with_their_exit_code_and_leave_nothing() {
    let Some(lab) = lab(2) else { return };
    let scratch = Scratch::new();
    let control = scratch.0.join("byway.sock");
    let serve =
        |more: &str| format!("serve --control {} --interface {BYWAY_INTERFACE} {more}", control.display());
    let own = "--address 192.0.2.1/24";
    lab.byway.run("ip link add other0 type veth peer name other1").expect("veth");
    lab.byway.run("ip addr add 192.0.2.77/32 dev other0").expect("address");
    let cases: &[(String, i32, &[&str])] = &[
        (serve(""), 2, &["--address"]),
        (serve(&format!("{own} --atach native")), 2, &["--attach"]),
        (serve(&format!("{own} --zero-copy maybe")), 2, &["auto", "on", "off"]),
        (serve(&format!("{own} --drain 5")), 2, &["--drain", "a unit is missing"]),
        ("serve --interface= --address 192.0.2.1/24".into(), 2, &["--interface", "ip link"]),
        ("".into(), 2, &["serve, load, demo"]),
        ("serve --interface nosuch0 --address 192.0.2.1/24".into(), 78, &["nosuch0", "ip link"]),
        ("serve --interface lo --address 192.0.2.1/24".into(), 78, &["lo", "Ethernet"]),
        (serve("--address 192.0.2.77/24"), 78, &["192.0.2.77", "other0", "ip addr del"]),
        (serve(&format!("{own} --port 7 --echo-port 7")), 78, &["port 7", "http and echo"]),
        (serve(&format!("{own} --queues 2")), 78, &["queue 2", "it has 2"]),
        (serve(&format!("{own} --queues 0,1 --cores 0")), 78, &["2 queues", "1 may be used"]),
        (serve(&format!("{own} --cores 900,901")), 78, &["core 900"]),
        (serve(&format!("{own} --gateway 198.51.100.1")), 78, &["198.51.100.1"]),
        (serve(&format!("{own} --frames 100")), 78, &["100 frames", "at least"]),
        (serve(&format!("{own} --zero-copy on")), 71, &["zero-copy", "EOPNOTSUPP", "--zero-copy auto"]),
        ("conns --control /nonexistent/byway.sock".into(), 71, &["/nonexistent/byway.sock", "running?"]),
        ("stats --control /nonexistent/byway.sock".into(), 71, &["/nonexistent/byway.sock", "running?"]),
    ];
    for (arguments, code, words) in cases {
        refuses(&lab, arguments, *code, words);
        assert_nothing_left(&lab);
        assert!(!control.exists(), "{arguments}: the control socket stays behind");
    }
    lab.byway.run(&format!("ip link set {BYWAY_INTERFACE} mtu 9000")).expect("jumbo frames");
    refuses(&lab, &serve(&format!("{own} --zero-copy on")), 78, &["MTU 9000", "3818", "mtu 1500"]);
    lab.byway.run(&format!("ip link set {BYWAY_INTERFACE} down")).expect("down");
    refuses(&lab, &serve(own), 71, &["is down", "ip link set"]);
}

/// What was asked for goes to standard output, and is no error.
#[test]
fn help_and_version_are_shown_on_standard_output() {
    for (arguments, words) in [
        (&["--help"][..], "Exit codes:"),
        (&["serve", "--help"], "--interface <IF>"),
        (&["--version"], env!("CARGO_PKG_VERSION")),
    ] {
        let output = byway(arguments).output().expect("byway starts");
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stdout).contains(words), "{output:?}");
    }
}

/// Missing privileges are named, and so is the limit of locked memory.
#[test]
fn missing_privileges_are_named() {
    let Some(lab) = lab(1) else { return };
    let scratch = Scratch::new();
    let control = scratch.0.join("byway.sock");
    for (without, code, words) in [
        ("-net_raw", 77, "CAP_NET_RAW"),
        ("-bpf,-sys_admin", 77, "CAP_BPF"),
        ("-perfmon,-sys_admin", 77, "CAP_PERFMON"),
        // More than any shell may lock, unless it may lock everything.
        ("-ipc_lock", 71, "RLIMIT_MEMLOCK"),
    ] {
        let mut command = std::process::Command::new("setpriv");
        command.arg(format!("--bounding-set={without}")).arg(env!("CARGO_BIN_EXE_byway"));
        command.args(["serve", "--interface", BYWAY_INTERFACE, "--address", "192.0.2.1/24", "--control"]);
        command.arg(&control).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = lab.byway.spawn(&mut command).expect("setpriv (util-linux)");
        // With unlimited memory to lock it starts: then there is nothing to refuse.
        let Some(status) = wait(&mut child, Duration::from_secs(5)) else {
            eprintln!("skipped {without}: this shell may lock any memory");
            signal(child.id(), libc::SIGTERM);
            wait(&mut child, PATIENCE).expect("ends");
            continue;
        };
        let stderr = String::from_utf8(child.wait_with_output().expect("ends").stderr).expect("UTF-8");
        assert_eq!((status.code(), stderr.lines().count()), (Some(code), 1), "{without}: {stderr}");
        assert!(stderr.contains(words), "{stderr}");
        assert_nothing_left(&lab);
        assert!(!control.exists());
    }
}

/// Not root, and no more capabilities than the systemd unit gives; for its LimitMEMLOCK= stands CAP_IPC_LOCK.
#[test]
fn the_units_capabilities_are_enough() {
    let Some(lab) = lab(1) else { return };
    const NOBODY: u32 = 65_534;
    let unit = include_str!("../deploy/byway@.service");
    let line = unit.lines().find_map(|line| line.strip_prefix("AmbientCapabilities=")).expect("in the unit");
    let words =
        line.split_whitespace().map(|word| format!("+{}", word.trim_start_matches("CAP_").to_lowercase()));
    let granted = words.chain(["+ipc_lock".to_owned()]).collect::<Vec<_>>().join(",");
    // Where nobody may read and write, wherever this is built.
    let scratch = Scratch::new();
    let (program, control) = (scratch.0.join("byway"), scratch.0.join("byway.sock"));
    std::fs::copy(env!("CARGO_BIN_EXE_byway"), &program).expect("copied");
    std::os::unix::fs::chown(&scratch.0, Some(NOBODY), Some(NOBODY)).expect("chown");
    let mut command = std::process::Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs"]);
    command.arg(format!("--inh-caps={granted}")).arg(format!("--ambient-caps={granted}"));
    command.arg(format!("--bounding-set=-all,{granted}")).arg(&program);
    command.args(["serve", "--interface", BYWAY_INTERFACE, "--address", "192.0.2.1/24", "--control"]);
    command.arg(&control).stdout(Stdio::piped());
    let mut child = lab.byway.spawn(&mut command).expect("setpriv (util-linux)");
    let mut ready = String::new();
    let mut lines = std::io::BufReader::new(child.stdout.take().expect("piped"));
    std::io::BufRead::read_line(&mut lines, &mut ready).expect("a line");
    assert!(ready.starts_with("byway ready"), "{ready:?}");
    let hello = lab.kernel.run("curl -sSg --fail http://192.0.2.1/hello").expect("hello");
    assert_eq!(hello, "hello\n");
    signal(child.id(), libc::SIGTERM);
    assert!(wait(&mut child, PATIENCE).expect("ends").success());
}

#[test]
fn what_is_stopped_before_there_is_a_carrier_was_never_ready() {
    let Some(lab) = lab(1) else { return };
    lab.kernel.run(&format!("ip link set {KERNEL_INTERFACE} down")).expect("down");
    // The kernel takes up to a second to say so.
    let shown = || lab.byway.run(&format!("ip link show {BYWAY_INTERFACE}")).expect("ip");
    eventually(PATIENCE, || shown().contains("NO-CARRIER").then_some(())).expect("no carrier");
    let scratch = Scratch::new();
    let mut command =
        byway(&["serve", "--interface", BYWAY_INTERFACE, "--address", "192.0.2.1/24", "--control"]);
    command.arg(scratch.0.join("byway.sock"));
    let mut child = lab.byway.spawn(&mut command).expect("byway starts");
    let mut said = std::io::BufReader::new(child.stderr.take().expect("piped"));
    let mut line = String::new();
    while !line.contains("waiting for") {
        line.clear();
        assert!(std::io::BufRead::read_line(&mut said, &mut line).expect("a line") > 0, "no word of waiting");
    }
    signal(child.id(), libc::SIGTERM);
    assert!(wait(&mut child, PATIENCE).expect("ends").success());
    let mut ready = String::new();
    child.stdout.take().expect("piped").read_to_string(&mut ready).expect("reads");
    assert_eq!(ready, "");
    assert_nothing_left(&lab);
}

/// The watchdog is patted while the cores answer.
#[test]
fn systemd_hears_that_it_lives() {
    let Some(lab) = lab(1) else { return };
    let scratch = Scratch::new();
    let socket = scratch.0.join("notify");
    let notified = UnixDatagram::bind(&socket).expect("bind");
    notified.set_read_timeout(Some(PATIENCE)).expect("timeout");
    let mut command =
        byway(&["serve", "--interface", BYWAY_INTERFACE, "--address", "192.0.2.1/24", "--control"]);
    command.arg(scratch.0.join("byway.sock")).env("NOTIFY_SOCKET", &socket).env("WATCHDOG_USEC", "400000");
    let mut child = lab.byway.spawn(&mut command).expect("byway starts");
    let mut heard = Vec::new();
    while heard.len() < 3 {
        let mut buffer = [0; 64];
        // A signal to another test of this process may interrupt the wait.
        let length = eventually(PATIENCE, || notified.recv(&mut buffer).ok()).expect("news");
        heard.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
    }
    assert_eq!(heard, ["READY=1", "WATCHDOG=1", "WATCHDOG=1"]);
    signal(child.id(), libc::SIGTERM);
    assert!(wait(&mut child, PATIENCE).expect("ends").success());
}

/// D7, D8: what somebody else has is named and left alone.
#[test]
fn what_is_taken_is_named_and_left_alone() {
    let Some(lab) = lab(2) else { return };
    let server = Server::start(&lab, &[]);
    let scratch = Scratch::new();
    let elsewhere = scratch.0.join("other.sock");
    let base = format!("serve --interface {BYWAY_INTERFACE} --address 192.0.2.9/24 --control");
    // The same control socket: another byway is alive there.
    lab.byway.run("ip link add other0 type veth peer name other1").expect("veth");
    lab.byway.run("ip link set other0 up").expect("up");
    let base_of_other = base.replace(BYWAY_INTERFACE, "other0");
    let control = server.control.display();
    refuses(&lab, &format!("{base_of_other} {control}"), 71, &["another byway"]);
    // The same interface: at once, although its queues are taken, too, and by whom.
    let before = now();
    let holder = format!("stop pid {} (byway)", server.pid());
    refuses(&lab, &format!("{base} {}", elsewhere.display()), 71, &["already on byway0", &holder]);
    refuses(&lab, &format!("{base} {control}"), 71, &[&holder]);
    assert!(now() - before < Duration::from_secs(2), "{:?}", now() - before);
    assert!(!elsewhere.exists());
    assert_eq!(lab.kernel.enter(|| echo(v4(ECHO), &[7; 100_000])), sha256(&[7; 100_000]), "undisturbed");
    server.stop();
    assert_nothing_left(&lab);
}

/// D8: a queue whose socket has no program is waited for, but not for long.
#[test]
fn a_queue_that_stays_taken_is_named() {
    use byway_datapath::{config::Config, umem::Umem, xsk::Xsk};
    let Some(lab) = lab(2) else { return };
    let config = Config::default();
    let other = lab.byway.enter(|| {
        // SAFETY: it goes to one socket; no frame of it is used.
        let umem = unsafe { Umem::new(&config) }.expect("UMEM");
        // SAFETY: it is given no frames.
        let socket = unsafe { Xsk::open(&umem, &config, BYWAY_INTERFACE, 1) };
        (socket.expect("bound"), umem)
    });
    let scratch = Scratch::new();
    let control = scratch.0.join("byway.sock");
    let base = format!("serve --interface {BYWAY_INTERFACE} --address 192.0.2.1/24");
    let before = now();
    refuses(&lab, &format!("{base} --control {}", control.display()), 71, &["queue 1", "in use"]);
    assert!(now() - before < Duration::from_secs(5), "{:?}", now() - before);
    assert_nothing_left(&lab);
    drop(other);
}

/// D6, D7: a program of somebody else's stays.
#[test]
fn a_foreign_program_is_not_replaced() {
    let Some(lab) = lab(1) else { return };
    let mut foreign = byway_bpf::Steering::load().expect("a program");
    let index = lab.byway.ifindex(BYWAY_INTERFACE).expect("index") as i32;
    let mut foreign = lab.byway.enter(move || {
        foreign.attach(index, byway_bpf::AttachMode::Native).expect("attaches");
        foreign
    });
    let scratch = Scratch::new();
    let control = scratch.0.join("byway.sock");
    let base = format!("serve --interface {BYWAY_INTERFACE} --address 192.0.2.1/24");
    let arguments = format!("{base} --control {}", control.display());
    refuses(&lab, &arguments, 71, &["already on byway0"]);
    assert!(!control.exists());
    let link = lab.byway.run(&format!("ip -details link show {BYWAY_INTERFACE}")).expect("ip");
    assert!(link.contains("prog/xdp"), "the other's program is still there");
    foreign.detach();
}

/// The ready line says what was really got, and systemd hears of it.
#[test]
fn readiness_is_told_in_a_line_and_to_systemd() {
    let Some(lab) = lab(1) else { return };
    let scratch = Scratch::new();
    let (control, notify) = (scratch.0.join("byway.sock"), scratch.0.join("notify"));
    let systemd = UnixDatagram::bind(&notify).expect("bind");
    systemd.set_read_timeout(Some(PATIENCE)).expect("timeout");
    let arguments = [
        "serve",
        "--interface",
        BYWAY_INTERFACE,
        "--address",
        "192.0.2.1/24",
        "--address",
        "2001:db8::1/64",
        "--attach",
        "generic",
        "--port",
        "8080",
        "--control",
        control.to_str().expect("UTF-8"),
    ];
    let mut command = byway(&arguments);
    let mut child = lab.byway.spawn(command.env("NOTIFY_SOCKET", &notify)).expect("starts");
    let heard = || {
        let mut message = [0; 64];
        let length = eventually(PATIENCE, || systemd.recv(&mut message).ok()).expect("systemd hears");
        String::from_utf8_lossy(&message[..length]).into_owned()
    };
    assert_eq!(heard(), "READY=1");
    signal(child.id(), libc::SIGINT);
    assert_eq!(heard(), "STOPPING=1");
    let status = wait(&mut child, PATIENCE).expect("ends");
    let output = child.wait_with_output().expect("ends");
    assert!(status.success(), "{output:?}");
    let stdout = String::from_utf8(output.stdout).expect("UTF-8");
    assert_eq!(stdout.lines().count(), 1, "{stdout}");
    for word in [
        "byway ready ",
        "interface=byway0",
        "driver=veth",
        "attach=generic",
        "mode=copy",
        "need-wakeup=on",
        "busy-poll=off",
        "idle=adaptive",
        "queues=0",
        "cores=0",
        "checksums=verified",
        "mtu=1500",
        "addresses=192.0.2.1/24,2001:db8::1/64",
        "ports=8080(http)",
    ] {
        assert!(stdout.contains(word), "no {word:?} in {stdout}");
    }
    assert!(!control.exists(), "the control socket goes with the process");
    assert_nothing_left(&lab);
}

/// D12: who takes the core away shows, as something else than byway's own doing; and byway's other threads don't.
#[test]
fn d12_a_core_that_is_shared_is_told_from_one_that_is_slow() {
    let Some(lab) = lab(1) else { return };
    let cores = pin::allowed();
    let server = Server::start(&lab, &["--idle", "spin", "--cores", &cores[0].to_string()]);
    let preempted = || find_number(&server.ask(&lab, "stats"), "preempted").expect("told");
    let (before, stop) = (preempted(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            pin::pin(cores[0]).expect("allowed");
            while !stop.load(Ordering::Relaxed) {
                std::hint::spin_loop();
            }
        });
        // Both are never done: each is put off for the other.
        let shared = eventually(PATIENCE, || (preempted() >= before + 10).then_some(()));
        stop.store(true, Ordering::Relaxed);
        assert!(shared.is_some(), "{} before, {} now", before, preempted());
    });
    for task in std::fs::read_dir(format!("/proc/{}/task", server.pid())).expect("threads").flatten() {
        let of = |file| std::fs::read_to_string(task.path().join(file)).unwrap_or_default();
        let status = of("status");
        let list =
            status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap_or("?").trim();
        match of("comm").trim() {
            "byway-q0" => assert_eq!(list, cores[0].to_string()),
            "byway-control" if cores.len() == 2 => assert_eq!(list, cores[1].to_string()),
            _ => {}
        }
    }
    server.stop();
}

/// A queue that only receives couldn't answer: it is refused by name, and served without it; one that only sends is
/// left out.
#[test]
fn receive_and_transmit_queues_that_differ_are_refused_or_served() {
    let Some(lab) = lab(2) else { return };
    lab.byway.run(&format!("ethtool -L {BYWAY_INTERFACE} tx 1")).expect("fewer");
    let arguments = ["serve", "--interface", BYWAY_INTERFACE, "--address", "192.0.2.1/24"];
    let output = lab.byway.spawn(&mut byway(&arguments)).expect("starts").wait_with_output().expect("ends");
    let said = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!((output.status.code(), said.lines().count()), (Some(78), 1), "{said}");
    assert!(said.contains("queue 1 of byway0 only receives (2 receive, 1 send)"), "{said}");
    let answers = |more: &[&str]| {
        let server = Server::start(&lab, more);
        let sum = lab.kernel.enter(|| echo(v4(ECHO), b"hello"));
        assert_eq!(sum, sha256(b"hello"), "{more:?}");
        server.stop();
    };
    lab.kernel.run(&format!("ethtool -L {KERNEL_INTERFACE} tx 1")).expect("fewer");
    answers(&["--queues", "0"]);
    lab.byway.run(&format!("ethtool -L {BYWAY_INTERFACE} rx 1 tx 2")).expect("otherwise");
    answers(&[]);
}

/// A fallback is said loudly.
#[test]
fn fallbacks_are_told_on_standard_error() {
    let Some(lab) = lab(2) else { return };
    let scratch = Scratch::new();
    let control = scratch.0.join("byway.sock");
    let arguments = [
        "serve",
        "--interface",
        BYWAY_INTERFACE,
        "--address",
        "192.0.2.1/24",
        "--queues",
        "0",
        "--control",
        control.to_str().expect("UTF-8"),
    ];
    let mut child = lab.byway.spawn(byway(&arguments).stdout(Stdio::piped())).expect("starts");
    let mut first = [0; 11];
    child.stdout.as_mut().expect("piped").read_exact(&mut first).expect("a line");
    assert_eq!(&first, b"byway ready");
    signal(child.id(), libc::SIGTERM);
    wait(&mut child, PATIENCE).expect("ends");
    let stderr = String::from_utf8(child.wait_with_output().expect("ends").stderr).expect("UTF-8");
    assert!(stderr.contains("copy mode on queue 0 of byway0 instead of zero-copy"), "{stderr}");
    assert!(stderr.contains("1 of 2 queues"), "{stderr}");
}

/// D9: SIGTERM under load, again and again: exit 0, within the drain, nothing left, nothing lost by the ledger.
#[test]
fn d9_stopping_under_load_is_orderly() {
    let Some(lab) = lab(1) else { return };
    for round in 0..10 {
        let server = Server::start(&lab, &["--drain", "200ms"]);
        std::thread::scope(|scope| {
            let kernel = &lab.kernel;
            let (connected, begun) = std::sync::mpsc::channel();
            let load = scope.spawn(move || {
                kernel.enter(|| {
                    let mut streams: Vec<_> = (0..8).map(|_| connect(v4(ECHO))).collect();
                    connected.send(()).expect("somebody waits");
                    let mut octets = vec![1; 32_768];
                    let mut turn = |stream: &mut std::net::TcpStream| {
                        stream.write_all(&octets).is_ok() && stream.read(&mut octets).is_ok_and(|n| n > 0)
                    };
                    // Until byway closes or resets them.
                    while streams.iter_mut().all(&mut turn) {}
                });
            });
            begun.recv().expect("connected");
            std::thread::sleep(Duration::from_millis(20 * round));
            let before = now();
            server.stop();
            assert!(now() - before < Duration::from_secs(2), "within the drain and a little");
            load.join().expect("the peers hear of the end");
        });
        assert_nothing_left(&lab);
    }
}

/// A connection that is idle doesn't hold up the end longer than --drain, and hears of it.
#[test]
fn what_does_not_finish_within_the_drain_is_ended() {
    let Some(lab) = lab(1) else { return };
    let server = Server::start(&lab, &["--drain", "500ms"]);
    let mut idle = lab.kernel.enter(|| {
        let mut stream = connect(v4(ECHO));
        stream.write_all(b"hello").expect("writes");
        let mut back = [0; 5];
        stream.read_exact(&mut back).expect("reads");
        stream
    });
    let before = now();
    server.stop();
    assert!(now() - before < Duration::from_secs(3));
    let mut rest = Vec::new();
    match idle.read_to_end(&mut rest) {
        Ok(0) => {}
        Ok(more) => panic!("{more} octets after the end"),
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
    }
}

/// D5: the device goes, byway says so and ends with 69.
#[test]
fn d5_a_removed_device_ends_byway_with_69() {
    let Some(lab) = lab(1) else { return };
    let scratch = Scratch::new();
    let control = scratch.0.join("byway.sock");
    let arguments = [
        "serve",
        "--interface",
        BYWAY_INTERFACE,
        "--address",
        "192.0.2.1/24",
        "--control",
        control.to_str().expect("UTF-8"),
    ];
    let mut child = lab.byway.spawn(&mut byway(&arguments)).expect("starts");
    let mut first = [0; 11];
    child.stdout.as_mut().expect("piped").read_exact(&mut first).expect("a line");
    lab.byway.run(&format!("ip link del {BYWAY_INTERFACE}")).expect("deletes");
    let status = wait(&mut child, Duration::from_secs(5)).expect("notices");
    let stderr = String::from_utf8(child.wait_with_output().expect("ends").stderr).expect("UTF-8");
    assert_eq!(status.code(), Some(69), "{stderr}");
    assert!(stderr.contains("byway0 is gone"), "{stderr}");
    assert!(!control.exists());
}

/// D5: connections survive a link that flaps.
#[test]
fn d5_connections_survive_a_flapping_link() {
    let Some(lab) = lab(1) else { return };
    let server = Server::start(&lab, &[]);
    lab.kernel.enter(|| {
        let mut stream = connect(v4(ECHO));
        for flap in 0..10u8 {
            lab.byway.run(&format!("ip link set {BYWAY_INTERFACE} down")).expect("down");
            stream.write_all(&[flap; 3000]).expect("writes");
            std::thread::sleep(Duration::from_millis(50));
            lab.byway.run(&format!("ip link set {BYWAY_INTERFACE} up")).expect("up");
            let mut back = [0; 3000];
            stream.read_exact(&mut back).expect("reads");
            assert_eq!(back, [flap; 3000]);
        }
    });
    server.stop();
}

/// D6: a killed byway's control socket gives way to the next one's.
#[test]
fn d6_a_stale_control_socket_gives_way() {
    let Some(lab) = lab(1) else { return };
    let scratch = Scratch::new();
    let control = scratch.0.join("byway.sock");
    let arguments = [
        "serve",
        "--interface",
        BYWAY_INTERFACE,
        "--address",
        "192.0.2.1/24",
        "--control",
        control.to_str().expect("UTF-8"),
    ];
    for _ in 0..2 {
        let mut child = lab.byway.spawn(&mut byway(&arguments)).expect("starts");
        let mut first = [0; 11];
        child.stdout.as_mut().expect("piped").read_exact(&mut first).expect("ready");
        child.kill().expect("kills");
        child.wait().expect("ends");
        assert!(control.exists(), "left behind");
        assert_nothing_left(&lab);
    }
}

/// `--check` and `--config`: what would be served is said, nothing is touched.
#[test]
fn check_says_whether_it_could_serve_and_touches_nothing() {
    let Some(lab) = lab(1) else { return };
    let scratch = Scratch::new();
    let file = scratch.0.join("byway.toml");
    std::fs::write(&file, format!("interface = \"{BYWAY_INTERFACE}\"\naddress = \"192.0.2.1/24\"\n"))
        .expect("file");
    let config = format!("serve --check --congestion reno --config {}", file.display());
    let child = lab.byway.spawn(&mut byway(&config.split(' ').collect::<Vec<_>>())).expect("starts");
    let output = child.wait_with_output().expect("ends");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("could serve on byway0"), "{said}");
    assert_nothing_left(&lab);
    std::fs::write(&file, "interface = \"nowhere0\"\naddress = \"192.0.2.1/24\"\n").expect("file");
    refuses(&lab, &config, 78, &["nowhere0"]);
    std::fs::write(&file, "adress = \"192.0.2.1/24\"\n").expect("file");
    refuses(&lab, &config, 78, &["byway.toml", "--address"]);
}

/// D13: silly, silent and many clients of the control socket cost the data path nothing.
#[test]
fn d13_the_control_socket_takes_abuse() {
    let Some(lab) = lab(1) else { return };
    let server = Server::start(&lab, &[]);
    let ask = |question: &[u8]| {
        let mut stream = UnixStream::connect(&server.control).expect("connects");
        stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
        // Too long a question is cut off before it is all said.
        let _ = stream.write_all(question);
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer
    };
    assert!(ask(b"nonsense\n").contains("error"));
    assert!(ask(&[b'x'; 100_000]).contains("error") || ask(b"\n").contains("error"));
    let silent: Vec<_> = (0..3).map(|_| UnixStream::connect(&server.control).expect("connects")).collect();
    assert_eq!(lab.kernel.enter(|| echo(v4(ECHO), &[7; 1_000_000])), sha256(&[7; 1_000_000]));
    assert!(ask(b"stats\n").contains("TcpInSegs"), "answered after the silent ones were cut off");
    drop(silent);
    for _ in 0..200 {
        assert!(ask(b"conns\n").contains("LISTEN"));
    }
    server.stop();
}

/// P3 from outside: with the connections gone, frames are free or the kernel's to receive into.
#[test]
fn p3_the_ledger_balances_after_the_load() {
    let Some(lab) = lab(1) else { return };
    let server = Server::start(&lab, &[]);
    for _ in 0..3 {
        assert_eq!(lab.kernel.enter(|| echo(v4(ECHO), &[9; 5_000_000])), sha256(&[9; 5_000_000]));
    }
    let balanced = eventually(Duration::from_secs(5), || {
        let stats = server.ask(&lab, "stats");
        let frames = &stats["frames"];
        let count = |owner: &str| frames[owner].as_u64().expect("a count");
        (count("free") + count("fill") == count("total")).then_some(())
    });
    assert!(balanced.is_some(), "{}", server.ask(&lab, "stats")["frames"]);
    let stats = server.ask(&lab, "stats");
    assert_eq!(stats["xsk"]["invalid_descriptors"], 0);
    assert!(stats["steering"]["redirect_tcp"].as_u64().expect("a count") > 1000);
    server.stop();
}
