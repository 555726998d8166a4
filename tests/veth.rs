//! The main job on real input: clients on the kernel's TCP talk to `byway serve` over a veth pair.

mod support;

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

use byway_lab::{ImpairOptions, Lab, LabOptions, VethOptions, is_root};
use support::*;
use tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tungstenite::protocol::frame::{CloseFrame, Frame};
use tungstenite::{Message, WebSocket};

fn lab(queues: u32, offloads: bool) -> Lab {
    let veth = VethOptions { queues, offloads, ..VethOptions::default() };
    Lab::new(LabOptions { veth, impair: None }).expect("a lab")
}

fn url(remote: SocketAddr, path: &str) -> String {
    format!("http://{remote}{path}")
}

/// curl posts a file and gets it back.
fn curl_echo(lab: &Lab, remote: SocketAddr, len: usize) {
    let scratch = Scratch::new();
    let (sent, sum) = scratch.random_file(len);
    let back = scratch.0.join("back");
    let command = format!(
        "curl --silent --show-error --fail --max-time 120 --globoff --data-binary @{} -o {} {}",
        sent.display(),
        back.display(),
        url(remote, "/echo"),
    );
    lab.kernel.run(&command).expect("curl");
    let octets = std::fs::read(&back).expect("answer");
    assert_eq!((octets.len(), sha256(&octets)), (len, sum), "{remote}");
}

fn serves_bodies(attach: &str, mode: &str) {
    if !is_root() {
        return;
    }
    let lab = lab(1, false);
    let server = Server::start(&lab, &["--attach", attach]);
    assert!(server.ready.contains(mode), "{}", server.ready);
    for remote in [v4(HTTP), v6(HTTP)] {
        curl_echo(&lab, remote, 1 << 20);
        curl_echo(&lab, remote, 64 << 20);
        let hello = lab.kernel.run(&format!("curl -sSg --fail {}", url(remote, "/hello"))).expect("hello");
        assert_eq!(hello, "hello\n");
    }
    assert_eq!(server.payload_bytes_copied(&lab), 0, "an HTTP echo of a body copies nothing");
    server.stop();
}

/// S9.1: bodies come back whole, native attach.
#[test]
fn s9_1_curl_echoes_bodies_native() {
    serves_bodies("native", "attach=native");
}

/// S9.1: bodies come back whole, generic attach.
#[test]
fn s9_1_curl_echoes_bodies_generic() {
    serves_bodies("generic", "attach=generic");
}

/// Kernel peers with checksum offload on: refused and counted by default, accepted with the switch.
#[test]
fn s4_5_partial_checksums_need_the_switch() {
    if !is_root() {
        return;
    }
    let lab = lab(1, true);
    let server = Server::start(&lab, &[]);
    let refused =
        lab.kernel.output(&format!("curl -sS --max-time 2 {}", url(v4(HTTP), "/hello"))).expect("runs");
    assert!(!refused.status.success());
    let stats = server.ask(&lab, "stats");
    assert!(find_number(&stats, "TcpInCsumErrors").expect("counter") > 0, "{stats}");
    server.stop();

    let server = Server::start(&lab, &["--accept-partial-checksums"]);
    for remote in [v4(HTTP), v6(HTTP)] {
        curl_echo(&lab, remote, 1 << 20);
    }
    curl_echo(&lab, v4(HTTP), 64 << 20);
    server.stop();

    // Generic attach leaves the peer's segmentation offload on: its super-frames come in several frames.
    let server = Server::start(&lab, &["--accept-partial-checksums", "--attach", "generic"]);
    for remote in [v4(HTTP), v6(HTTP)] {
        curl_echo(&lab, remote, 64 << 20);
    }
    server.stop();
}

/// S6.1: jumbo frames in and out, in several frames each: bodies come back whole, and nothing is copied.
fn serves_jumbo_frames(attach: &str, offloads: bool) {
    if !is_root() {
        return;
    }
    let veth = VethOptions { queues: 1, mtu: 9000, offloads };
    let lab = Lab::new(LabOptions { veth, impair: None }).expect("a lab");
    let more: &[&str] = if offloads { &["--accept-partial-checksums"] } else { &[] };
    let server = Server::start(&lab, &[&["--attach", attach], more].concat());
    assert!(server.ready.contains(" mtu=9000 "), "{}", server.ready);
    for remote in [v4(HTTP), v6(HTTP)] {
        curl_echo(&lab, remote, 1 << 20);
        curl_echo(&lab, remote, 64 << 20);
        let get = "curl -sSg --fail --max-time 60 -o /dev/null -w %{size_download}";
        let got = lab.kernel.run(&format!("{get} {}", url(remote, "/bytes/50000000"))).expect("bytes");
        assert_eq!(got, "50000000");
        if !offloads {
            // What an operator does to see that the whole way takes jumbo frames.
            let size = if remote.is_ipv4() { 8972 } else { 8952 };
            lab.kernel.run(&format!("ping -M do -c 1 -w 10 -s {size} {}", remote.ip())).expect("an answer");
        }
    }
    let stats = server.ask(&lab, "stats");
    let number = |name| find_number(&stats, name).unwrap_or_else(|| panic!("no {name} in {stats}"));
    assert!(number("BywayFramesIn") > 2 * number("TcpInSegs"), "several frames a segment: {stats}");
    assert!(2 * number("BywayFramesOut") > 3 * number("TcpOutSegs"), "sent, too: {stats}");
    assert_eq!(number("BywayPayloadBytesCopied"), 0);
    assert_eq!(number("BywayDropScattered"), 0);
    server.stop();
}

#[test]
fn s6_1_jumbo_frames_native() {
    serves_jumbo_frames("native", false);
}

#[test]
fn s6_1_jumbo_frames_generic() {
    serves_jumbo_frames("generic", false);
}

/// The peer leaves checksums half done; native XDP takes its segmentation offload away.
#[test]
fn s6_1_jumbo_frames_from_a_peer_with_offloads_native() {
    serves_jumbo_frames("native", true);
}

/// The same with super-frames of 64 KiB, which generic XDP leaves to it.
#[test]
fn s6_1_jumbo_frames_from_a_peer_with_offloads_generic() {
    serves_jumbo_frames("generic", true);
}

/// A download of 64 MiB, chunked uploads, Expect: 100-continue, and an unknown path.
#[test]
fn s9_1_curl_downloads_and_chunked_uploads() {
    if !is_root() {
        return;
    }
    let lab = lab(1, false);
    let server = Server::start(&lab, &[]);
    let scratch = Scratch::new();
    let back = scratch.0.join("back");
    let get =
        format!("curl -sS --fail --max-time 60 -o {} {}", back.display(), url(v4(HTTP), "/bytes/67108864"));
    lab.kernel.run(&get).expect("bytes");
    assert_eq!(std::fs::metadata(&back).expect("answer").len(), 67_108_864);

    let (sent, sum) = scratch.random_file(3_000_000);
    for header in ["Transfer-Encoding:chunked", "Expect:100-continue", "Connection:close"] {
        let post = format!(
            "curl -sS --fail --max-time 60 -H {header} --data-binary @{} -o {} {}",
            sent.display(),
            back.display(),
            url(v4(HTTP), "/x"),
        );
        lab.kernel.run(&post).expect("post");
        assert_eq!(sha256(&std::fs::read(&back).expect("answer")), sum, "{header}");
    }
    let missing = format!("curl -sS -o /dev/null -w %{{http_code}} {}", url(v4(HTTP), "/nothing"));
    assert_eq!(lab.kernel.run(&missing).expect("runs"), "404");
    server.stop();
}

/// 200 requests in parallel by one curl.
#[test]
fn s9_1_two_hundred_requests_in_parallel() {
    if !is_root() {
        return;
    }
    let lab = lab(1, false);
    let server = Server::start(&lab, &[]);
    let command = format!(
        "curl -sS --fail --max-time 60 --parallel --parallel-immediate --parallel-max 200 {}",
        url(v4(HTTP), "/hello?[1-200]")
    );
    assert_eq!(lab.kernel.run(&command).expect("curl"), "hello\n".repeat(200));
    server.stop();
}

type Socket = WebSocket<std::net::TcpStream>;

fn websocket(remote: SocketAddr, path: &str) -> Socket {
    let stream = connect(remote);
    let config = tungstenite::protocol::WebSocketConfig::default().max_frame_size(None);
    let url = format!("ws://{remote}{path}");
    tungstenite::client::client_with_config(url, stream, Some(config)).expect("upgrades").0
}

/// Writes in one thread and reads in the other, as a message larger than all buffers needs.
fn ws_round_trip(socket: &mut Socket, message: &Message) {
    let stream = socket.get_ref().try_clone().expect("clones");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut writer = WebSocket::from_raw_socket(stream, tungstenite::protocol::Role::Client, None);
            writer.send(message.clone()).expect("sends");
        });
        assert!(socket.read().expect("an echo") == *message, "{} octets differ", message.len());
    });
}

/// S9.2 S9.5: tungstenite's echo of text, binary, fragmented and 16 MiB messages, ping, close.
#[test]
fn s9_5_websocket_echo() {
    if !is_root() {
        return;
    }
    let lab = lab(1, false);
    let server = Server::start(&lab, &[]);
    lab.kernel.enter(|| {
        for remote in [v4(HTTP), v6(HTTP)] {
            let mut socket = websocket(remote, "/any/path");
            for len in [0, 1, 125, 126, 1400, 1448, 1449, 65_535, 65_536, 1 << 20] {
                ws_round_trip(&mut socket, &Message::binary(random_octets(len)));
                ws_round_trip(&mut socket, &Message::text("ü".repeat(len / 2)));
            }
            socket.send(Message::Ping(b"are you there".to_vec().into())).expect("sends");
            assert_eq!(socket.read().expect("pong"), Message::Pong(b"are you there".to_vec().into()));
            let close = CloseFrame { code: CloseCode::Normal, reason: "done".into() };
            socket.close(Some(close.clone())).expect("closes");
            match socket.read() {
                Ok(Message::Close(Some(answer))) => assert_eq!(answer.code, CloseCode::Normal),
                other => panic!("{other:?}"),
            }
        }
    });
    assert!(server.ask(&lab, "stats").is_object());
    server.stop();
}

/// A single-frame message copies nothing in user space.
#[test]
fn s9_5_websocket_echo_of_a_single_frame_copies_nothing() {
    if !is_root() {
        return;
    }
    let lab = lab(1, false);
    let server = Server::start(&lab, &[]);
    lab.kernel.enter(|| {
        let mut socket = websocket(v4(HTTP), "/");
        for len in [1, 100, 1000, 100_000] {
            ws_round_trip(&mut socket, &Message::binary(random_octets(len)));
            ws_round_trip(&mut socket, &Message::text("a".repeat(len)));
        }
    });
    assert_eq!(server.payload_bytes_copied(&lab), 0);
    server.stop();
}

#[test]
fn s9_5_websocket_fragments_and_16_mib() {
    if !is_root() {
        return;
    }
    let lab = lab(1, false);
    let server = Server::start(&lab, &[]);
    lab.kernel.enter(|| {
        let mut socket = websocket(v4(HTTP), "/");
        let parts: Vec<Vec<u8>> = (1..=10).map(|n| random_octets(n * 997)).collect();
        for (place, part) in parts.iter().enumerate() {
            let code = if place == 0 { Data::Binary } else { Data::Continue };
            let frame = Frame::message(part.clone(), OpCode::Data(code), place + 1 == parts.len());
            socket.send(Message::Frame(frame)).expect("sends");
        }
        assert!(socket.read().expect("an echo") == Message::binary(parts.concat()));
        ws_round_trip(&mut socket, &Message::binary(random_octets(16 << 20)));
        ws_round_trip(&mut socket, &Message::text("日本語 ".repeat((16 << 20) / 10)));
    });
    server.stop();
}

/// A client that writes 16 MiB before it reads anything.
#[test]
fn s9_5_websocket_client_that_writes_before_it_reads() {
    if !is_root() {
        return;
    }
    let lab = lab(1, false);
    let server = Server::start(&lab, &[]);
    lab.kernel.enter(|| {
        let mut socket = websocket(v4(HTTP), "/");
        let message = Message::binary(random_octets(16 << 20));
        socket.send(message.clone()).expect("sends");
        assert!(socket.read().expect("an echo") == message);
    });
    server.stop();
}

/// 10,000 connections one after another, 1,000 at once.
#[test]
fn s1_1_ten_thousand_connections_and_a_thousand_at_once() {
    if !is_root() {
        return;
    }
    let lab = lab(1, false);
    let server = Server::start(&lab, &[]);
    lab.kernel.enter(|| {
        let once = |n: u32| {
            let mut stream = connect(v4(ECHO));
            stream.write_all(&n.to_be_bytes()).expect("writes");
            let mut back = [0; 4];
            stream.read_exact(&mut back).expect("reads");
            assert_eq!(back, n.to_be_bytes());
            stream
        };
        for n in 0..10_000 {
            once(n);
        }
        let mut held: Vec<_> = (0..1_000).map(once).collect();
        for (n, stream) in held.iter_mut().enumerate() {
            stream.write_all(&[n as u8; 100]).expect("writes");
        }
        for (n, stream) in held.iter_mut().enumerate() {
            let mut back = [0; 100];
            stream.read_exact(&mut back).expect("reads");
            assert_eq!(back, [n as u8; 100]);
        }
        let conns = server.ask(&lab, "conns");
        let text = conns.to_string();
        assert!(text.matches("ESTAB").count() >= 1_000, "{}", &text[..text.len().min(2_000)]);
    });
    server.stop();
}

/// 100 MB through the raw echo, nothing copied.
#[test]
fn s5_1_raw_echo_of_100_mb() {
    if !is_root() {
        return;
    }
    let lab = lab(1, false);
    let server = Server::start(&lab, &[]);
    let octets = random_octets(100_000_000);
    let sum = sha256(&octets);
    assert_eq!(lab.kernel.enter(|| echo(v4(ECHO), &octets)), sum);
    assert_eq!(lab.kernel.enter(|| echo(v6(ECHO), &octets[..10_000_000])), sha256(&octets[..10_000_000]));
    assert_eq!(server.payload_bytes_copied(&lab), 0);
    server.stop();
}

/// S5.5 S5.6: a lossy, reordering, duplicating, corrupting link changes nothing but the time it takes.
fn survives(share: f64, seed: u64) {
    if !is_root() {
        return;
    }
    let impair = ImpairOptions {
        seed,
        loss: share,
        duplicate: share,
        reorder: share,
        corrupt: share,
        ..ImpairOptions::default()
    };
    let lab = Lab::new(LabOptions { veth: VethOptions::default(), impair: Some(impair) }).expect("a lab");
    let server = Server::start(&lab, &[]);
    curl_echo(&lab, v4(HTTP), 1 << 20);
    curl_echo(&lab, v6(HTTP), 1 << 20);
    let octets = random_octets(1 << 20);
    assert_eq!(lab.kernel.enter(|| echo(v4(ECHO), &octets)), sha256(&octets));
    lab.kernel.enter(|| {
        let mut socket = websocket(v4(HTTP), "/");
        ws_round_trip(&mut socket, &Message::binary(random_octets(1 << 20)));
    });
    server.stop();
}

#[test]
fn s5_5_a_link_with_one_percent_of_everything_bad() {
    survives(0.01, 1);
}

#[test]
fn s5_5_a_link_with_five_percent_of_everything_bad() {
    survives(0.05, 5);
}

/// Two queues, two cores: flows on both, neighbours shared between them.
#[test]
fn two_queues_on_two_cores_serve_flows_on_both() {
    if !is_root() {
        return;
    }
    let lab = lab(2, false);
    let server = Server::start(&lab, &["--queues", "all"]);
    assert!(server.ready.contains("queues=0,1"), "{}", server.ready);
    lab.kernel.enter(|| {
        let mut streams: Vec<_> =
            (0..64).map(|n| connect(if n % 2 == 0 { v4(ECHO) } else { v6(ECHO) })).collect();
        for (n, stream) in streams.iter_mut().enumerate() {
            stream.write_all(&[n as u8; 1000]).expect("writes");
            let mut back = [0; 1000];
            stream.read_exact(&mut back).expect("reads");
            assert_eq!(back, [n as u8; 1000]);
        }
        let conns = server.ask(&lab, "conns").to_string();
        assert!(conns.matches("ESTAB").count() >= 64, "{conns}");
        for core in [0, 1] {
            assert!(conns.contains(&format!("\"core\":{core}")), "no flow on core {core}: {conns}");
        }
        // /stats, answered by either core, counts the connections of both.
        let whole = eventually(PATIENCE, || {
            let stats = lab.kernel.run(&format!("curl -sS {}", url(v4(HTTP), "/stats"))).expect("stats");
            let stats: serde_json::Value = serde_json::from_str(&stats).expect("JSON");
            (find_number(&stats, "ESTAB")? >= 64).then_some(())
        });
        assert!(whole.is_some());
    });
    curl_echo(&lab, v4(HTTP), 1 << 20);
    server.stop();
}

/// P6 D6: after kill -9 under load nothing is attached, the kernel has the interface, and a restart serves.
#[test]
fn p6_d6_kill_under_load_leaves_nothing_attached() {
    if !is_root() {
        return;
    }
    let lab = lab(1, false);
    for _ in 0..3 {
        let server = Server::start(&lab, &[]);
        std::thread::scope(|scope| {
            let kernel = &lab.kernel;
            let load = scope.spawn(move || {
                kernel.enter(|| {
                    let mut stream = connect(v4(ECHO));
                    let mut octets = vec![1; 65_536];
                    // Until byway is gone.
                    while stream.write_all(&octets).is_ok() && stream.read(&mut octets).is_ok_and(|n| n > 0) {
                    }
                });
            });
            std::thread::sleep(Duration::from_millis(300));
            server.kill();
            let clean = eventually(Duration::from_secs(1), || {
                let link = lab.byway.run("ip -details link show byway0").expect("ip");
                (!link.contains("prog/xdp")).then_some(())
            });
            assert!(clean.is_some(), "a program is still attached a second after the kill");
            // The peer's retransmissions find the kernel, which has no such address: let the load end.
            lab.byway.run("ip addr add 192.0.2.1/24 dev byway0").expect("the interface is the kernel's");
            assert!(lab.kernel.run("ping -c 1 -W 1 192.0.2.1").is_ok(), "the kernel answers on it");
            load.join().expect("load");
            lab.byway.run("ip addr del 192.0.2.1/24 dev byway0").expect("deletes");
        });
    }
    let server = Server::start(&lab, &[]);
    curl_echo(&lab, v4(HTTP), 100_000);
    server.stop();
}

/// ping on both families.
#[test]
fn ping_is_answered_on_both_families() {
    if !is_root() {
        return;
    }
    let lab = lab(1, false);
    let server = Server::start(&lab, &[]);
    lab.kernel.run("ping -c 3 -i 0.2 -W 2 192.0.2.1").expect("IPv4");
    lab.kernel.run("ping -c 3 -i 0.2 -W 2 2001:db8::1").expect("IPv6");
    lab.kernel.run("ping -c 2 -i 0.2 -W 2 -s 1400 2001:db8::1").expect("large");
    server.stop();
}

/// S1.5: a closed port refuses at once.
#[test]
fn s1_5_a_closed_port_refuses() {
    if !is_root() {
        return;
    }
    let lab = lab(1, false);
    let server = Server::start(&lab, &[]);
    for remote in [v4(4444), v6(4444)] {
        let error =
            lab.kernel.enter(|| std::net::TcpStream::connect_timeout(&remote, PATIENCE)).expect_err("closed");
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
    }
    server.stop();
}
