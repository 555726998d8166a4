//! `byway capture`, as tshark reads it: exchanges with clients on the kernel's TCP, and what the stack discards.

mod support;

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use byway_lab::{BYWAY_INTERFACE, BYWAY_IPV4, KERNEL_INTERFACE, KERNEL_IPV4, Lab, Station};
use byway_tcp::wire::checksum;
use support::*;
use tungstenite::Message;

fn lab(queues: u32) -> Option<Lab> {
    let there = Command::new("tshark").arg("--version").stdout(Stdio::null()).status();
    if !there.is_ok_and(|status| status.success()) {
        println!("skipped: tshark isn't installed (deploy/install-deps.sh test)");
        return None;
    }
    support::lab(queues)
}

/// A running `byway capture -w FILE`.
struct Capture {
    child: Child,
}

impl Capture {
    fn start(lab: &Lab, server: &Server, file: &Path, more: &[&str]) -> Self {
        let mut arguments = vec!["capture", "--control", server.control.to_str().expect("UTF-8"), "-w"];
        arguments.push(file.to_str().expect("UTF-8"));
        arguments.extend(more);
        let child = lab.byway.spawn(&mut byway(&arguments)).expect("byway starts");
        let capture = Self { child };
        let begun = || file.metadata().is_ok_and(|file| file.len() > 0).then_some(());
        eventually(PATIENCE, begun).expect("the file is begun");
        capture
    }

    /// SIGINT, and the end: what it says of itself.
    fn stop(mut self) -> String {
        signal(self.child.id(), libc::SIGINT);
        assert!(wait(&mut self.child, PATIENCE).expect("ends after SIGINT").success());
        let mut said = String::new();
        self.child.stderr.take().expect("piped").read_to_string(&mut said).expect("reads");
        said
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn tshark(file: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new("tshark");
    command.args(["-n", "-r"]).arg(file).args(["-o", "ip.check_checksum:TRUE"]);
    let output = command.args(["-o", "tcp.check_checksum:TRUE"]).args(arguments).output().expect("tshark");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// These fields of the frames that `filter` takes.
fn fields(file: &Path, filter: &str, names: &[&str]) -> Vec<Vec<String>> {
    let mut arguments = vec!["-Y", filter, "-T", "fields"];
    names.iter().for_each(|name| arguments.extend(["-e", *name]));
    let text = tshark(file, &arguments);
    text.lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect()
}

/// curl and tungstenite: a response of many segments, an echo of as many, and a WebSocket session.
fn exchanges(lab: &Lab) {
    let bytes =
        lab.kernel.run("curl -sS --fail -o /dev/null -w %{size_download} http://192.0.2.1/bytes/100000");
    assert_eq!(bytes.expect("curl"), "100000");
    let scratch = Scratch::new();
    let (sent, sum) = scratch.random_file(100_000);
    let (sent, back) = (sent.display().to_string(), scratch.0.join("back"));
    let post = format!("curl -sS --fail --data-binary @{sent} -o {} http://192.0.2.1/echo", back.display());
    lab.kernel.run(&post).expect("curl");
    assert_eq!(sha256(&std::fs::read(back).expect("an echo")), sum);
    lab.kernel.enter(|| {
        let stream = connect(v4(HTTP));
        let (mut socket, _) = tungstenite::client("ws://192.0.2.1/chat", stream).expect("upgrades");
        for message in [Message::text("hello"), Message::binary(random_octets(20_000))] {
            socket.send(message.clone()).expect("sends");
            assert_eq!(socket.read().expect("an echo"), message);
        }
        socket.send(Message::Ping("p".into())).expect("sends");
        assert_eq!(socket.read().expect("an answer"), Message::Pong("p".into()));
        socket.close(None).expect("closes");
        while socket.read().is_ok() {}
    });
}

/// Retransmissions that the kernel in the client's namespace owns up to.
fn kernels_retransmissions(lab: &Lab) -> usize {
    let text = lab.kernel.run("cat /proc/net/snmp").expect("counters");
    let mut lines = text.lines().filter(|line| line.starts_with("Tcp:")).map(str::split_whitespace);
    let (names, values) = (lines.next().expect("names"), lines.next().expect("values"));
    let found = names.zip(values).find(|(name, _)| *name == "RetransSegs").expect("in it");
    found.1.parse().expect("a number")
}

/// S4.6, S4.7: what an HTTP exchange and a WebSocket session looked like, told by others' tools.
#[test]
fn s4_6_tshark_finds_no_fault_with_exchanges() {
    let Some(lab) = lab(1) else { return };
    let scratch = Scratch::new();
    let file = scratch.0.join("exchanges.pcapng");
    let server = Server::start(&lab, &[]);
    let capture = Capture::start(&lab, &server, &file, &[]);
    exchanges(&lab);
    let at_rest = || {
        let conns = server.ask(&lab, "conns");
        let states = conns.as_array().expect("an array").iter().map(|conn| conn["state"].as_str());
        states.flatten().all(|state| ["LISTEN", "TIME-WAIT"].contains(&state)).then_some(())
    };
    eventually(PATIENCE, at_rest).expect("all closed");
    let said = capture.stop();
    assert!(said.contains(" frames captured, ") && said.contains(" 0 left out"), "{said}");

    assert_eq!(tshark(&file, &["-Y", "_ws.malformed"]), "");
    let unverified = "tcp and not (ip.checksum.status == 1 and tcp.checksum.status == 1)";
    assert_eq!(tshark(&file, &["-Y", unverified]), "");
    // Ones that a host that stood still explains are counted by those who sent them.
    let again = |way: &str| {
        let filter = format!("tcp.analysis.retransmission and frame.packet_flags_direction == {way}");
        fields(&file, &filter, &["frame.number"]).len()
    };
    let stats = server.ask(&lab, "stats");
    let ours = find_number(&stats, "TcpRetransSegs").expect("a counter") as usize;
    let kernels = kernels_retransmissions(&lab);
    assert!(again("2") <= ours && again("1") <= kernels, "{ours} and {kernels} are explained");
    if ours + kernels == 0 {
        // 0x600000: warnings.
        let frowned = tshark(&file, &["-Y", "_ws.expert.severity >= 0x600000"]);
        assert_eq!(frowned, "");
    }
    assert_story(&file);
    assert_layers_above(&file);
    server.stop();
}

/// A segment: whether outbound, flags, sequence number, acknowledgement, length.
type Step = (bool, u8, u64, u64, u64);

/// S4.7: the first connection, from SYN to the last ACK.
fn assert_story(file: &Path) {
    let names = [
        "frame.packet_flags_direction",
        "tcp.flags",
        "tcp.seq",
        "tcp.ack",
        "tcp.len",
        "frame.interface_name",
        "frame.time_epoch",
    ];
    let frames = fields(file, "tcp.stream == 0", &names);
    let number = |text: &str| text.parse::<u64>().expect("a number");
    let flags = |text: &str| u8::from_str_radix(&text[text.len() - 2..], 16).expect("hexadecimal");
    let (fin, syn, ack) = (1, 2, 16);
    let mut times = Vec::new();
    let story: Vec<Step> = frames
        .iter()
        .map(|fields| {
            assert_eq!(fields[5], format!("{BYWAY_INTERFACE} queue 0"));
            assert_eq!(fields[6].split('.').next_back().map(str::len), Some(9), "ns: {}", fields[6]);
            times.push(fields[6].clone());
            let outbound = fields[0].ends_with('2');
            (outbound, flags(&fields[1]), number(&fields[2]), number(&fields[3]), number(&fields[4]))
        })
        .collect();
    assert!(times.is_sorted(), "epochs of as many digits");
    assert_eq!((story[0].0, story[0].1 & (syn | ack)), (false, syn), "SYN");
    assert_eq!((story[1].0, story[1].1 & (syn | ack)), (true, syn | ack), "SYN, ACK");
    assert_eq!((story[2].0, story[2].1 & (syn | ack)), (false, ack), "ACK");
    let first = |from: usize, wanted: &dyn Fn(&Step) -> bool| {
        story.iter().enumerate().skip(from).find(|(_, frame)| wanted(frame)).map(|(place, _)| place)
    };
    let request = first(2, &|frame| !frame.0 && frame.4 > 0).expect("a request");
    let response = first(request, &|frame| frame.0 && frame.4 > 0).expect("a response");
    let segments = story.iter().skip(response).filter(|frame| frame.0 && frame.4 > 0).count();
    assert!(segments > 100_000 / 1460, "{segments}");
    let theirs = first(response, &|frame| !frame.0 && frame.1 & fin != 0).expect("the client's FIN");
    let acked = story[theirs].2 + story[theirs].4 + 1;
    first(theirs, &|frame| frame.0 && frame.3 == acked).expect("its ACK");
    let ours = first(theirs, &|frame| frame.0 && frame.1 & fin != 0).expect("byway's FIN");
    let acked = story[ours].2 + story[ours].4 + 1;
    first(ours, &|frame| !frame.0 && frame.3 == acked).expect("the last ACK");
}

fn assert_layers_above(file: &Path) {
    let requests = fields(file, "http.request", &["http.request.method", "http.request.uri"]);
    assert_eq!(requests, [["GET", "/bytes/100000"], ["POST", "/echo"], ["GET", "/chat"]]);
    let responses = fields(file, "http.response", &["http.response.code", "frame.packet_flags_direction"]);
    let codes: Vec<&str> = responses.iter().map(|fields| fields[0].as_str()).collect();
    // 100 Continue comes if curl asks for it.
    let codes: Vec<&str> = codes.into_iter().filter(|code| *code != "100").collect();
    assert_eq!(codes, ["200", "200", "101"]);
    let opcodes = fields(file, "websocket", &["websocket.opcode"]).concat();
    let ended: Vec<&str> = opcodes.iter().map(|opcode| opcode.trim()).collect();
    assert_eq!(
        ended,
        ["1", "1", "2", "2", "9", "10", "8", "8"],
        "text, binary, ping, pong, close, both ways"
    );
}

/// A SYN from the kernel's address to byway's, from the link's octets on.
fn syn(lab: &Lab, port: u16, tcp_checksum_off_by: u16) -> Vec<u8> {
    let mac = |namespace: &byway_lab::Namespace, interface: &str| -> Vec<u8> {
        let link = namespace.run(&format!("ip -o link show {interface}")).expect("ip");
        let mac = link.split("link/ether ").nth(1).and_then(|rest| rest.split(' ').next()).expect("a MAC");
        mac.split(':').map(|octet| u8::from_str_radix(octet, 16).expect("hexadecimal")).collect()
    };
    let mut frame = mac(&lab.byway, BYWAY_INTERFACE);
    frame.extend(mac(&lab.kernel, KERNEL_INTERFACE));
    frame.extend([0x08, 0x00, 0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0]);
    frame.extend(KERNEL_IPV4.octets());
    frame.extend(BYWAY_IPV4.octets());
    frame.extend(4321u16.to_be_bytes());
    frame.extend(port.to_be_bytes());
    frame.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x02, 0xff, 0xff, 0, 0, 0, 0]);
    let header = checksum::finish(checksum::sum(&frame[14..34]));
    frame[24..26].copy_from_slice(&header.to_be_bytes());
    let pseudo = checksum::pseudo_header(KERNEL_IPV4.into(), BYWAY_IPV4.into(), 6, 20);
    let segment = checksum::finish(checksum::combine(pseudo, 12, checksum::sum(&frame[34..54])));
    frame[50..52].copy_from_slice(&segment.wrapping_add(tcp_checksum_off_by).to_be_bytes());
    frame
}

/// S4.6: discarded frames say why, and nobody else says anything.
#[test]
fn s4_6_discarded_frames_say_why() {
    let Some(lab) = lab(2) else { return };
    let scratch = Scratch::new();
    let (all, some) = (scratch.0.join("all.pcapng"), scratch.0.join("some.pcapng"));
    let server = Server::start(&lab, &[]);
    let filter = ["tcp", "and", "src", "port", "4321"];
    let everything = Capture::start(&lab, &server, &all, &["--snaplen", "56", "tcp port 4321"]);
    let discarded = Capture::start(&lab, &server, &some, &[&["--discarded"], &filter[..]].concat());
    let station = Station::open(&lab.kernel, KERNEL_INTERFACE).expect("a station");
    let mut frames = vec![syn(&lab, HTTP, 1), syn(&lab, 4444, 0), syn(&lab, HTTP, 0)];
    assert_eq!(station.send(&mut frames), 3);
    // The kernel knows nothing of the connection and resets it.
    let count = |name: &str| find_number(&server.ask(&lab, "stats"), name).expect("a counter");
    let seen = || (count("TcpAttemptFails") > 0 && count("TcpOutRsts") > 0).then_some(());
    eventually(PATIENCE, seen).expect("three frames and their answers");
    everything.stop();
    let said = discarded.stop();
    assert!(said.contains("2 frames captured, 2 taken by the filter"), "{said}");

    let names = ["tcp.dstport", "frame.comment", "frame.packet_flags_direction"];
    let comments = |file: &Path| -> BTreeMap<(String, String), usize> {
        let mut found = BTreeMap::new();
        for fields in fields(file, "frame.comment", &names) {
            assert!(fields[2].ends_with('1'), "inbound: {fields:?}");
            *found.entry((fields[0].clone(), fields[1].clone())).or_default() += 1;
        }
        found
    };
    let entry = |port: &str, reason: &str| ((port.to_owned(), format!("discarded: {reason}")), 1);
    let expected = BTreeMap::from([entry("80", "TcpInCsumErrors"), entry("4444", "BywayDropNoListener")]);
    assert_eq!(comments(&some), expected);
    assert_eq!(comments(&all), expected);
    assert_eq!(fields(&some, "frame", &["frame.number"]).len(), 2);
    // The SYN-ACK is longer by its options.
    let cut = fields(&all, "frame.cap_len < frame.len", &["frame.cap_len"]);
    assert!(!cut.is_empty() && cut.iter().all(|fields| fields[0] == "56"), "{cut:?}");
    server.stop();
}

/// S4.6: without a file, a line for each frame; `--count` ends it.
#[test]
fn s4_6_frames_are_shown_as_lines() {
    let Some(lab) = lab(1) else { return };
    let server = Server::start(&lab, &[]);
    let control = server.control.to_str().expect("UTF-8");
    let arguments = ["capture", "--control", control, "--count", "4", "tcp port 80"];
    let child = lab.byway.spawn(&mut byway(&arguments)).expect("byway starts");
    // Nothing says that it has begun: go on until it has seen enough.
    let child = std::cell::RefCell::new(child);
    let ended = || {
        lab.kernel.run("curl -sS http://192.0.2.1/hello").expect("curl");
        child.borrow_mut().try_wait().expect("our child")
    };
    assert!(eventually(PATIENCE, ended).expect("it ends by itself").success());
    let output = child.into_inner().wait_with_output().expect("ends");
    let text = String::from_utf8(output.stdout).expect("text");
    assert_eq!(text.lines().count(), 4, "{text}");
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        assert!(words[1] == "q0" && ["In", "Out"].contains(&words[2]) && words[4] == ">", "{line}");
        assert!(words[3].ends_with(":80") || words[5].ends_with(":80"), "{line}");
        assert!(line.contains(" tcp [") && line.contains(" win "), "{line}");
    }
    server.stop();
}

/// S4.6: `byway capture -w - | tshark -i -` shows what happens while it happens; when tshark is gone, so is the capture.
#[test]
fn s4_6_tshark_reads_live() {
    let Some(lab) = lab(1) else { return };
    let server = Server::start(&lab, &[]);
    let control = server.control.to_str().expect("UTF-8");
    let mut capture =
        lab.byway.spawn(&mut byway(&["capture", "-w", "-", "--control", control])).expect("starts");
    let mut tshark = Command::new("tshark");
    tshark.args(["-l", "-n", "-i", "-", "-Y", "http.request", "-T", "fields", "-e", "http.request.uri"]);
    tshark.stdin(capture.stdout.take().expect("piped")).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut reader = tshark.spawn().expect("tshark");
    // It holds the pipe's reading end, too.
    drop(tshark);
    let (tell, told) = std::sync::mpsc::channel();
    let lines = BufReader::new(reader.stdout.take().expect("piped")).lines();
    std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| tell.send(line)));
    let shown = || {
        lab.kernel.run("curl -sS http://192.0.2.1/live").ok();
        told.recv_timeout(Duration::from_millis(500)).ok()
    };
    assert_eq!(eventually(PATIENCE, shown).as_deref(), Some("/live"));
    // Not SIGKILL, which its helper would outlive.
    signal(reader.id(), libc::SIGINT);
    wait(&mut reader, PATIENCE).expect("ends after SIGINT");
    let gone = || {
        lab.kernel.run("curl -sS http://192.0.2.1/live").ok();
        capture.try_wait().expect("our child")
    };
    assert!(eventually(PATIENCE, gone).expect("ends with its reader").success());
    server.stop();
}

/// Octets of a pcapng file's blocks of a kind.
fn blocks(file: &Path, kind: u32) -> Vec<Vec<u8>> {
    let octets = std::fs::read(file).expect("a file");
    let le32 = |at: usize| u32::from_le_bytes(octets[at..at + 4].try_into().expect("four"));
    let (mut at, mut found) = (0, Vec::new());
    while at < octets.len() {
        let len = le32(at + 4) as usize;
        assert_eq!(le32(at + len - 4) as usize, len, "a whole block");
        if le32(at) == kind {
            found.push(octets[at + 8..at + len - 4].to_vec());
        }
        at += len;
    }
    found
}

/// D13: a reader that stands still misses frames, is told how many, and nobody waits for it.
#[test]
fn d13_a_reader_that_stands_still_holds_nobody_up() {
    let Some(lab) = lab(1) else { return };
    let scratch = Scratch::new();
    let file = scratch.0.join("slow.pcapng");
    let server = Server::start(&lab, &[]);
    let capture = Capture::start(&lab, &server, &file, &["--snaplen", "64"]);
    signal(capture.child.id(), libc::SIGSTOP);
    // Far more frames than there are slots, and records than a socket's buffer takes.
    let url = "http://192.0.2.1/bytes/60000000";
    let bytes =
        lab.kernel.run(&format!("curl -sS --fail --max-time 60 -o /dev/null -w %{{size_download}} {url}"));
    assert_eq!(bytes.expect("curl"), "60000000");
    signal(capture.child.id(), libc::SIGCONT);
    let said = capture.stop();
    let summary = said.lines().last().expect("a summary");
    let words: Vec<&str> = summary.split_whitespace().collect();
    let number = |word: &str| -> u64 {
        let place = words.iter().position(|other| *other == word).expect("a word of it");
        words[place - 1].parse().expect("a number")
    };
    let (captured, taken, left_out) = (number("frames"), number("taken"), number("left"));
    assert!(left_out > 0 && captured + left_out == taken, "{summary}");
    assert!(said.contains("of queue 0 left out: this reader is too slow"), "{said}");
    assert_eq!(blocks(&file, 6).len() as u64, captured);
    // ISB_IFDROP, the first option after interface and time.
    let [statistics] = &blocks(&file, 5)[..] else { panic!("one interface") };
    assert_eq!(statistics[12..16], [5, 0, 8, 0]);
    assert_eq!(statistics[16..24], left_out.to_le_bytes());
    server.stop();
}

/// D13: there are places for four; one whose reader was killed is free again, and the fifth is told.
#[test]
fn d13_captures_are_bounded_and_end_with_their_reader() {
    let Some(lab) = lab(1) else { return };
    let scratch = Scratch::new();
    let server = Server::start(&lab, &[]);
    let begin = |n: usize| Capture::start(&lab, &server, &scratch.0.join(format!("{n}.pcapng")), &[]);
    let running: Vec<Capture> = (0..4).map(begin).collect();
    let control = server.control.to_str().expect("UTF-8");
    let refuse = |more: &[&str], code: i32, words: &str| {
        let child = lab.byway.spawn(&mut byway(&[&["capture", "--control", control], more].concat()));
        let output = child.expect("byway starts").wait_with_output().expect("ends");
        let stderr = String::from_utf8(output.stderr).expect("UTF-8");
        assert_eq!((output.status.code(), stderr.lines().count()), (Some(code), 1), "{stderr}");
        assert!(stderr.contains(words), "{stderr}");
    };
    refuse(&[], 71, "4 captures are running");
    refuse(&["tcp", "port", "http"], 2, "character 10: 'http' is no port");
    refuse(&["--snaplen", "0"], 2, "--snaplen");
    // SIGKILL.
    drop(running);
    let again = || {
        let mut child = byway(&["capture", "--control", control, "--count", "1", "-w", "/dev/null"]);
        let mut child = lab.byway.spawn(&mut child).expect("byway starts");
        lab.kernel.run("curl -sS http://192.0.2.1/hello").expect("curl");
        let status = eventually(Duration::from_secs(2), || {
            lab.kernel.run("curl -sS http://192.0.2.1/hello").expect("curl");
            child.try_wait().expect("our child")
        });
        let _ = child.kill();
        let _ = child.wait();
        status.filter(|status| status.success())
    };
    eventually(PATIENCE, again).expect("a place is free");
    server.stop();
}

/// Over kernel sockets there is nothing to see.
#[test]
fn kernel_sockets_are_left_to_tcpdump() {
    let scratch = Scratch::new();
    let control = scratch.0.join("kernel.sock");
    let control = control.to_str().expect("UTF-8");
    let free: SocketAddr = "127.0.0.1:0".parse().expect("an end");
    let port =
        std::net::TcpListener::bind(free).and_then(|l| l.local_addr()).expect("a port").port().to_string();
    let serve =
        ["serve", "--backend", "kernel", "--address", "127.0.0.1/8", "--port", &port, "--control", control];
    let mut server = byway(&serve).spawn().expect("byway starts");
    let mut ready = String::new();
    BufReader::new(server.stdout.take().expect("piped")).read_line(&mut ready).expect("reads");
    assert!(ready.starts_with("byway ready"), "{ready}");
    let output = byway(&["capture", "--control", control]).output().expect("byway starts");
    let stderr = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(output.status.code(), Some(71), "{stderr}");
    assert!(stderr.contains("tcpdump"), "{stderr}");
    signal(server.id(), libc::SIGTERM);
    assert!(wait(&mut server, PATIENCE).expect("ends").success());
}
