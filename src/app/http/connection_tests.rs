//! HTTP over real frames: what a client sees, whatever the cuts, the room and the memory.

use byway_tcp::time::Duration;
use proptest::prelude::*;

use super::super::super::testing::{DATE, HTTP, Peer, config};

/// What curl says of itself. An answer's head goes over its request's, which is the longer one of all clients but
/// the tersest.
const CURLS: &str = "User-Agent: curl/7.88.1\r\nAccept: */*\r\n";

/// A response as a client reads it.
#[derive(Debug, PartialEq, Eq)]
struct Response {
    code: u16,
    head: String,
    body: Vec<u8>,
}

impl Response {
    fn has(&self, line: &str) -> bool {
        self.head.split("\r\n").any(|field| field == line)
    }
}

/// Reads all responses; `bodiless` tells which are answers to HEAD.
fn read(mut octets: &[u8], bodiless: impl Fn(usize) -> bool) -> Vec<Response> {
    let mut responses = Vec::new();
    while !octets.is_empty() {
        let end = octets.windows(4).position(|four| four == b"\r\n\r\n").expect("a whole head") + 4;
        let head = String::from_utf8(octets[..end].to_vec()).expect("ASCII");
        octets = &octets[end..];
        let code = head[9..12].parse().expect("a status code");
        let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name).map(str::to_owned));
        let mut body = Vec::new();
        if bodiless(responses.len()) || code == 100 || code == 101 {
        } else if let Some(length) = field("Content-Length: ") {
            let length = length.parse().expect("a number");
            body = octets[..length].to_vec();
            octets = &octets[length..];
        } else if field("Transfer-Encoding: chunked").is_some() {
            loop {
                let line = octets.windows(2).position(|two| two == b"\r\n").expect("a size line");
                let size = core::str::from_utf8(&octets[..line]).expect("ASCII");
                let size = usize::from_str_radix(size, 16).expect("hexadecimal");
                octets = &octets[line + 2..];
                body.extend_from_slice(&octets[..size]);
                assert_eq!(&octets[size..size + 2], b"\r\n");
                octets = &octets[size + 2..];
                if size == 0 {
                    break;
                }
            }
        } else {
            panic!("a response without end: {head}");
        }
        responses.push(Response { code, head, body });
    }
    responses
}

/// Sends `request` in one go and reads the only response.
fn ask(request: &str) -> Response {
    let mut peer = Peer::connect(HTTP);
    peer.send(request.as_bytes());
    let head = request.starts_with("HEAD");
    let mut responses = read(peer.received(), |_| head);
    assert_eq!(responses.len(), 1, "{request:?}: {responses:?}");
    let response = responses.remove(0);
    assert_eq!(peer.server_finished(), response.has("Connection: close"), "{request:?}: {response:?}");
    peer.close();
    response
}

fn get(path: &str) -> Response {
    ask(&format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"))
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|index| (index % 251) as u8).collect()
}

fn chunked(sizes: &[usize]) -> Vec<u8> {
    let mut wire = Vec::new();
    let mut at = 0;
    for &size in sizes {
        wire.extend_from_slice(format!("{size:x}\r\n").as_bytes());
        wire.extend((at..at + size).map(|index| (index % 251) as u8));
        wire.extend_from_slice(b"\r\n");
        at += size;
    }
    wire.extend_from_slice(b"0\r\n\r\n");
    wire
}

#[test]
fn s9_1_routes() {
    let hello = get("/hello?x=y");
    assert_eq!((hello.code, &hello.body[..]), (200, &b"hello\n"[..]));
    assert!(hello.has("Content-Type: text/plain"));
    let page = get("/");
    assert!(page.has("Content-Type: text/html; charset=utf-8"));
    assert_eq!(page.body, include_bytes!("page.html"));
    assert_eq!(get("http://a/").body, page.body, "absolute form");
    assert_eq!(get("/nothing").code, 404);
    assert_eq!(get("/hello/").code, 404);
    assert_eq!(ask("POST /hello HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").code, 404);
    assert_eq!(ask("GET /hello HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").code, 200);
    assert_eq!(ask("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n").code, 404);
}

#[test]
fn s9_1_stats_are_counters_and_states() {
    let mut peer = Peer::connect(HTTP);
    peer.counters_mut().tcp_in_segs = 17;
    peer.send(b"GET /stats HTTP/1.1\r\nHost: a\r\n\r\n");
    let response = read(peer.received(), |_| false).remove(0);
    let json: serde_json::Value = serde_json::from_slice(&response.body).expect("JSON");
    assert_eq!(json["counters"]["TcpInSegs"], 17);
    assert_eq!(json["counters"]["TcpExtTCPRcvQDrop"], 0);
    assert_eq!(json["connections"]["ESTAB"], 1);
    assert_eq!(json["connections"]["TIME-WAIT"], 0);
}

#[test]
fn s9_1_bytes_are_generated_as_room_allows() {
    for len in [0, 1, 250, 1460, 1_000_003] {
        assert!(get(&format!("/bytes/{len}")).body == pattern(len), "{len}");
    }
    for (path, code) in [
        ("/bytes/", 404),
        ("/bytes/x", 404),
        ("/bytes/+1", 404),
        ("/bytes/1073741825", 400),
        ("/bytes/99999999999999999999999999", 400),
    ] {
        assert_eq!(get(path).code, code, "{path}");
    }
    let largest = ask("HEAD /bytes/1073741824 HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(largest.has("Content-Length: 1073741824"));

    let mut peer = Peer::connect(HTTP);
    peer.set_room(2);
    peer.hold_acks(true);
    peer.send(b"GET /bytes/1000000 HTTP/1.1\r\nHost: a\r\n\r\nGET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(peer.chunks_sent(), 2);
    assert!(peer.held() <= 2, "no more is generated than can be sent: {}", peer.held());
    peer.fail_allocs(0.3, 1);
    peer.hold_acks(false);
    peer.pump();
    let responses = read(peer.received(), |_| false);
    assert!(responses[0].body == pattern(1_000_000));
    assert_eq!(responses[1].body, b"hello\n");
    assert!(peer.longest_chunk() <= 1460);
    assert_eq!(peer.copied(), 0);
}

#[test]
fn s9_1_a_body_comes_back_in_its_own_frames() {
    let body = pattern(300_000);
    let mut request =
        format!("PUT /x HTTP/1.1\r\nHost: a\r\n{CURLS}Content-Type: a/b\r\nContent-Length: 300000\r\n\r\n")
            .into_bytes();
    let head = request.len();
    request.extend_from_slice(&body);
    let mut peer = Peer::connect(HTTP);
    peer.send(&request);
    let response = read(peer.received(), |_| false).remove(0);
    assert!(response.body == body);
    assert!(response.has("Content-Type: a/b"));
    assert_eq!(peer.copied(), 0);
    assert_eq!(peer.chunks_sent(), request.len().div_ceil(1460), "segment for segment");
    assert!(peer.longest_chunk() <= 1460);
    peer.close();

    // Head and body in segments of their own: the answer's head would make the first segment of
    // the body too long, and goes ahead.
    let mut peer = Peer::connect(HTTP);
    peer.send_cut(&request, &[head, 1460]);
    assert!(read(peer.received(), |_| false)[0].body == body);
    assert_eq!((peer.copied(), peer.longest_chunk()), (0, 1460));
    peer.close();
}

#[test]
fn s9_1_a_chunked_body_comes_back_chunk_for_chunk() {
    let mut request = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    let body = chunked(&[1, 15, 16, 5000, 70_000, 3, 200_000]);
    request.extend_from_slice(&body);
    let mut peer = Peer::connect(HTTP);
    peer.send(&request);
    let head = format!("HTTP/1.1 200 OK\r\n{DATE}Transfer-Encoding: chunked\r\n\r\n");
    let expected = [head.as_bytes(), &body[..]].concat();
    assert!(peer.received() == expected);
    assert_eq!(peer.copied(), 0);
    assert!(peer.longest_chunk() <= 1460);
    peer.close();

    let loose = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
        0005;x=y\r\nhello\r\n00;z\r\nTrailer: 1\r\nOther: 2\r\n\r\n";
    let response = ask(loose);
    assert_eq!(response.body, b"hello");
    let empty = ask("GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n");
    assert_eq!((empty.code, empty.body.len()), (200, 0));
}

#[test]
fn s9_1_a_thousand_pipelined_requests() {
    let mut peer = Peer::connect(HTTP);
    peer.send("GET /hello HTTP/1.1\r\nHost: a\r\n\r\n".repeat(1000).as_bytes());
    let responses = read(peer.received(), |_| false);
    assert_eq!(responses.len(), 1000);
    assert!(responses.iter().all(|response| response.body == b"hello\n"));
    let segments = peer.received().len() / 1460;
    assert!(peer.chunks_sent() <= 3 * segments, "{} segments", peer.chunks_sent());
    assert_eq!(peer.copied(), 0);
    peer.close();

    let mut peer = Peer::connect(HTTP);
    let mut requests = Vec::new();
    for number in 0..1000 {
        let body = pattern(number % 40 + 1);
        let head = format!("POST / HTTP/1.1\r\nHost: a\r\n{CURLS}Content-Length: {}\r\n\r\n", body.len());
        requests.extend_from_slice(head.as_bytes());
        requests.extend_from_slice(&body);
    }
    peer.send(&requests);
    let responses = read(peer.received(), |_| false);
    assert_eq!(responses.len(), 1000);
    for (number, response) in responses.iter().enumerate() {
        assert_eq!(response.body, pattern(number % 40 + 1));
    }
    assert_eq!(peer.copied(), 0, "answers are closed up in the requests' frames");
    assert!(peer.chunks_sent() <= requests.len().div_ceil(1460));
}

#[test]
fn s9_1_an_answer_alone_goes_out_in_the_frame_of_its_request() {
    let mut peer = Peer::connect(HTTP);
    peer.fail_allocs(1.0, 1);
    for _ in 0..5 {
        peer.send(b"GET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    assert_eq!(read(peer.received(), |_| false).len(), 5, "without a single free frame");
    assert_eq!(peer.chunks_sent(), 5);
}

/// RFC 9110 §6.6.1: in every final answer, and right.
#[test]
fn s9_1_answers_are_dated() {
    let mut peer = Peer::connect(HTTP);
    for (request, code) in [
        ("GET /hello HTTP/1.1\r\nHost: a\r\n\r\n", 200),
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", 200),
        ("GET /none HTTP/1.1\r\nHost: a\r\n\r\n", 404),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx", 200),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 200),
        ("GET /\r\n\r\n", 400),
    ] {
        peer.send(request.as_bytes());
        let response = read(&peer.take(), |_| false).remove(0);
        assert!(response.code == code && response.has(DATE.trim_end()), "{request:?}: {response:?}");
    }
    let mut peer = Peer::connect(HTTP);
    peer.pass(Duration::from_millis(999));
    peer.send(b"GET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(read(peer.received(), |_| false)[0].has("Date: Sun, 06 Nov 1994 08:49:38 GMT"));
}

#[test]
fn s9_1_head_has_no_body() {
    for path in ["/", "/hello", "/bytes/1000", "/stats", "/none"] {
        let (head, full) = (ask(&format!("HEAD {path} HTTP/1.1\r\nHost: a\r\n\r\n")), get(path));
        assert_eq!((head.code, &head.head), (full.code, &full.head));
    }
    // Nor has a refusal, at once, in the body, or in the middle of the head.
    for request in [
        "HEAD / HTTP/1.1\nHost: a",
        "\r\nHEAD / HTTP/1.1\r\nHost: a\n",
        "HEAD / HTTP/1.1\r\nHost: a\r\nExpect: x\r\n\r\n",
        "\r\nHEAD / HTTP/1.1\r\n\r\n",
        "HEAD / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nx",
    ] {
        let mut peer = Peer::connect(HTTP);
        peer.send(request.as_bytes());
        let responses = read(peer.received(), |_| true);
        assert_eq!((responses.len(), responses[0].has("Connection: close")), (1, true), "{request:?}");
    }
    let mut peer = Peer::connect(HTTP);
    peer.send(b"HEAD / HTTP/1.1\r\n");
    peer.pass(Duration::from_secs(10));
    assert_eq!(read(peer.received(), |_| true)[0].code, 408);
    // The body of a HEAD request is read, and only the head of its echo is sent.
    let mut peer = Peer::connect(HTTP);
    peer.send(b"HEAD / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
    peer.send(b"HEAD / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n");
    peer.send(b"GET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
    let responses = read(peer.received(), |index| index < 2);
    assert_eq!(responses.len(), 3);
    assert!(responses[0].has("Content-Length: 5") && responses[1].has("Transfer-Encoding: chunked"));
}

#[test]
fn s9_1_h7_expect_100_continue() {
    let head = "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\nContent-Length: 5\r\n\r\n";
    let answer = |len: usize| format!("HTTP/1.1 200 OK\r\n{DATE}Content-Length: {len}\r\n\r\n");
    let hello = (answer(5) + "hello").into_bytes();
    let mut peer = Peer::connect(HTTP);
    peer.send(head.as_bytes());
    assert_eq!(peer.take(), b"HTTP/1.1 100 Continue\r\n\r\n");
    peer.send(b"he");
    peer.send(b"llo");
    assert_eq!(peer.take(), hello);
    peer.send(format!("{head}hello").as_bytes());
    assert_eq!(peer.take(), hello, "the body is there");
    peer.queue(head.as_bytes());
    peer.queue(b"he");
    peer.readable();
    peer.send(b"llo");
    assert_eq!(peer.take(), hello, "the body is right behind");
    peer.close();
    assert_eq!(ask("POST / HTTP/1.1\r\nHost: a\r\nExpect: x\r\nContent-Length: 5\r\n\r\n").code, 417);
    let old = "POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\nx";
    let mut peer = Peer::connect(HTTP);
    peer.send(old.as_bytes());
    assert_eq!(peer.received(), (answer(1) + "x").as_bytes());
}

#[test]
fn s9_1_connections_persist_as_version_and_fields_say() {
    for (request, closes) in [
        ("GET /hello HTTP/1.1\r\nHost: a\r\n\r\n", false),
        ("GET /hello HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", true),
        ("GET /hello HTTP/1.0\r\n\r\n", true),
        ("GET /hello HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", false),
        ("POST /hello HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi", true),
        ("GET /bytes/5000 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", true),
    ] {
        let mut peer = Peer::connect(HTTP);
        peer.send(format!("{request}GET /hello HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
        let responses = read(peer.received(), |_| false);
        assert_eq!(
            (responses.len(), peer.server_finished()),
            (if closes { 1 } else { 2 }, closes),
            "{request}"
        );
        peer.close();
    }
}

#[test]
fn h3_h4_h5_a_refusal_is_the_last_thing_said() {
    for (request, code) in [
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1099511627777\r\n\r\n", 413),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n10000000001\r\n", 413),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX\r\n\r\n", 400),
        ("CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", 501),
        ("GET https://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 421),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n+5\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\nhello\r\n", 400),
        ("GET / HTTP/1.1\nHost: a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        ("\x16\x03\x01\x02", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n", 400),
    ] {
        let mut peer = Peer::connect(HTTP);
        peer.send(format!("{request}GET /hello HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
        peer.send(b"GET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
        let responses = read(peer.received(), |_| false);
        assert_eq!((responses.len(), responses[0].code), (1, code), "{request:?}");
        assert!(responses[0].has("Connection: close"));
        assert!(peer.server_finished());
        assert_eq!(peer.unread(), 0, "what comes after is discarded");
        peer.close();
    }
}

#[test]
fn h3_a_body_that_goes_wrong_later_ends_without_its_end() {
    let mut peer = Peer::connect(HTTP);
    peer.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\nx\r\n");
    let begun = format!("HTTP/1.1 200 OK\r\n{DATE}Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n");
    assert_eq!(peer.received(), begun.as_bytes());
    assert!(peer.server_finished());
}

#[test]
fn h2_limits_on_the_header_block() {
    let refused = |request: String| {
        let mut peer = Peer::connect(HTTP);
        peer.send(request.as_bytes());
        let code = read(peer.received(), |_| false)[0].code;
        assert!(peer.server_finished());
        peer.close();
        code
    };
    assert_eq!(refused(format!("GET /{}", "a".repeat(9000))), 414);
    assert_eq!(refused(format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}", "a".repeat(1 << 20))), 431);
    assert_eq!(refused(format!("GET / HTTP/1.1\r\nHost: a\r\n{}", "X: y\r\n".repeat(10_000))), 431);
    let type_of = |len| {
        format!(
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Type: {}\r\nContent-Length: 1\r\n\r\nx",
            "t".repeat(len)
        )
    };
    assert_eq!(refused(type_of(257)), 431);
    assert_eq!(ask(&type_of(256)).code, 200);
    let many = format!("GET /hello HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(99));
    assert_eq!(ask(&many).code, 200);
}

#[test]
fn h1_the_header_deadline_is_not_prolonged_by_drips() {
    let mut peer = Peer::connect(HTTP);
    for octet in b"GET / HTT" {
        peer.send(&[*octet]);
        peer.pass(Duration::from_secs(1));
    }
    assert!(peer.received().is_empty());
    peer.pass(Duration::from_millis(999));
    assert!(peer.received().is_empty());
    peer.pass(Duration::from_millis(1));
    assert_eq!(read(peer.received(), |_| false)[0].code, 408);
    assert!(peer.server_finished());
    // A peer that doesn't close is reset.
    peer.pass(Duration::from_secs(4));
    assert!(!peer.server_aborted());
    peer.pass(Duration::from_secs(1));
    assert!(peer.server_aborted());
}

#[test]
fn h1_the_deadline_of_a_later_request_counts_from_its_first_octet() {
    let mut peer = Peer::connect(HTTP);
    peer.send(b"GET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
    peer.take();
    peer.pass(Duration::from_secs(70));
    peer.send(b"G");
    peer.pass(Duration::from_secs(9));
    assert!(peer.received().is_empty());
    peer.pass(Duration::from_secs(1));
    assert_eq!(read(peer.received(), |_| false)[0].code, 408);
}

/// Old clients send a line end after a body (RFC 9112 §2.2): it begins no request.
#[test]
fn h1_an_empty_line_hurries_nobody() {
    let mut peer = Peer::connect(HTTP);
    peer.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi\r\n");
    peer.take();
    peer.pass(Duration::from_secs(70));
    assert!(!peer.server_finished());
    peer.send(b"G");
    peer.pass(Duration::from_millis(9_999));
    assert!(peer.received().is_empty());
    peer.pass(Duration::from_millis(1));
    assert_eq!(read(peer.received(), |_| false)[0].code, 408);
    peer.close();
    // Nor do more of them keep a connection that is idle.
    let mut peer = Peer::connect(HTTP);
    peer.send(b"GET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
    peer.take();
    for _ in 0..75 {
        assert!(!peer.server_finished());
        peer.send(b"\r\n");
        peer.pass(Duration::from_secs(1));
    }
    assert!(peer.server_finished() && peer.received().is_empty());
}

#[test]
fn s9_1_idle_connections_are_closed_silently() {
    let mut peer = Peer::connect(HTTP);
    peer.pass(Duration::from_secs(10));
    assert!(peer.server_finished() && peer.received().is_empty(), "never said anything");
    peer.close();
    let mut peer = Peer::connect(HTTP);
    for _ in 0..3 {
        peer.send(b"GET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
        peer.take();
        peer.pass(Duration::from_secs(74));
        assert!(!peer.server_finished());
    }
    peer.pass(Duration::from_secs(1));
    assert!(peer.server_finished() && peer.received().is_empty());
}

#[test]
fn h1_a_body_must_make_progress() {
    let head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n";
    let mut peer = Peer::connect(HTTP);
    peer.send(head);
    for _ in 0..3 {
        peer.send(&[1; 10_000]);
        peer.pass(Duration::from_secs(20));
        assert!(!peer.server_finished());
    }
    peer.send(&[1; 9_999]);
    peer.pass(Duration::from_secs(20));
    assert!(peer.server_finished());
    peer.close();
    let mut peer = Peer::connect(HTTP);
    peer.send(head);
    peer.pass(Duration::from_secs(20));
    assert_eq!(read(peer.received(), |_| false)[0].code, 408, "the answer hadn't begun");
    peer.close();
    // Nothing is said inside an answer that has begun, not even between two chunks.
    let mut peer = Peer::connect(HTTP);
    peer.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n5\r\n");
    let before = peer.take();
    assert!(before.ends_with(b"\r\n\r\n2\r\nhi\r\n"));
    peer.pass(Duration::from_secs(20));
    assert!(peer.server_finished() && peer.received().is_empty());
}

#[test]
fn s2_2_a_request_is_answered_after_the_peers_fin() {
    let mut peer = Peer::connect(HTTP);
    peer.set_room(1);
    peer.hold_acks(true);
    peer.send(b"GET /bytes/100000 HTTP/1.1\r\nHost: a\r\n\r\nGET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
    peer.finish();
    assert!(!peer.server_finished());
    peer.hold_acks(false);
    peer.pump();
    assert_eq!(read(peer.received(), |_| false).len(), 2);
    assert!(peer.server_finished());
}

#[test]
fn s9_1_back_pressure_stops_reading() {
    let mut peer = Peer::connect(HTTP);
    peer.set_room(3);
    peer.hold_acks(true);
    peer.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n");
    peer.send(&pattern(100_000));
    assert_eq!(peer.chunks_sent(), 3);
    assert!(peer.held() <= 2);
    assert!(peer.unread() > 60);
    peer.hold_acks(false);
    peer.pump();
    assert!(read(peer.received(), |_| false)[0].body == pattern(100_000));
}

#[test]
fn s9_1_a_draining_server_finishes_what_is_under_way() {
    let mut peer = Peer::connect(HTTP);
    peer.send(b"GET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
    peer.take();
    peer.drain();
    assert!(peer.server_finished() && peer.received().is_empty(), "idle");
    peer.close();

    let mut peer = Peer::connect(HTTP);
    peer.set_room(1);
    peer.hold_acks(true);
    peer.send(b"GET /bytes/100000 HTTP/1.1\r\nHost: a\r\n\r\nGET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
    peer.drain();
    assert!(!peer.server_finished());
    peer.hold_acks(false);
    peer.pump();
    let responses = read(peer.received(), |_| false);
    assert_eq!((responses.len(), peer.server_finished()), (1, true));
    assert!(responses[0].body == pattern(100_000));
    peer.close();

    let mut peer = Peer::connect(HTTP);
    peer.send(b"GET /hello HTTP/1.1\r\nHost");
    peer.drain();
    peer.send(b": a\r\n\r\n");
    let responses = read(peer.received(), |_| false);
    assert!(responses[0].has("Connection: close") && peer.server_finished());
}

/// Requests of every kind, one after the other.
fn conversation() -> Vec<u8> {
    let mut wire = Vec::new();
    let post = |len: usize| {
        format!("POST /e HTTP/1.1\r\nHost: a\r\nContent-Type: t/t\r\nContent-Length: {len}\r\n\r\n")
    };
    wire.extend_from_slice(b"GET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
    for len in [5, 100] {
        wire.extend_from_slice(post(len).as_bytes());
        wire.extend(pattern(len));
    }
    wire.extend_from_slice(b"GET /bytes/300 HTTP/1.1\r\nHost: a\r\n\r\n");
    wire.extend_from_slice(b"\r\nPOST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    wire.extend_from_slice(b"3;ext\r\nabc\r\n00000004\r\ndefg\r\n0\r\nT: u\r\n\r\n");
    wire.extend_from_slice(b"A / HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 3\r\n\r\nxyz");
    wire.extend_from_slice(b"GET /none HTTP/1.1\r\nHost: a\r\n\r\n");
    wire.extend_from_slice(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    wire.extend_from_slice(&chunked(&[10, 300, 17]));
    wire.extend_from_slice(b"GET / HTTP/1.1\r\nHost : a\r\n\r\nGET / HTTP/1.1\r\n\r\n");
    wire
}

#[test]
fn h6_every_split_gives_the_same_answers() {
    let wire = conversation();
    let mut whole = Peer::connect(HTTP);
    whole.send(&wire);
    let expected = whole.take();
    let codes: Vec<u16> = read(&expected, |_| false).iter().map(|response| response.code).collect();
    assert_eq!(codes, [200, 200, 200, 200, 200, 200, 404, 200, 400]);
    for at in 1..wire.len() {
        let mut peer = Peer::connect(HTTP);
        peer.send_cut(&wire, &[at, 1460]);
        assert!(peer.received() == expected, "split at {at}");
        peer.close();
    }
    for size in 1..50 {
        let mut peer = Peer::connect(HTTP);
        peer.send_cut(&wire, &[size]);
        assert!(peer.received() == expected, "pieces of {size}");
        peer.close();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Cuts, room, memory, segment size and headroom change nothing in what is said.
    #[test]
    fn h6_answers_do_not_depend_on_the_circumstances(
        sizes in proptest::collection::vec(1usize..400, 1..60),
        room in 1usize..6, failure in prop_oneof![Just(0.0), Just(0.5), Just(0.9)],
        mss in prop_oneof![Just(1460usize), 48usize..600], offset in prop_oneof![Just(310usize), 128usize..160],
        seed: u64, batched: bool,
    ) {
        let wire = conversation();
        let mut whole = Peer::connect(HTTP);
        whole.send(&wire);
        let expected = whole.take();
        let mut peer = Peer::connect_with(HTTP, config(), 512);
        peer.set_mss(mss);
        peer.set_offset(offset);
        peer.set_room(room);
        peer.fail_allocs(failure, seed);
        if batched {
            peer.queue(&wire);
            peer.readable();
        } else {
            peer.send_cut(&wire, &sizes);
        }
        prop_assert!(peer.received() == expected, "{:?}", String::from_utf8_lossy(peer.received()));
        peer.close();
    }

    /// Whatever comes, nothing breaks and nothing leaks.
    #[test]
    fn p1_octets_of_any_kind_are_survived(
        octets in proptest::collection::vec(prop_oneof![any::<u8>(), Just(b'\r'), Just(b'\n'), Just(b' ')], 0..300),
        at in 0usize..900, size in 1usize..100,
    ) {
        let mut wire = conversation();
        let at = at.min(wire.len());
        wire.splice(at..wire.len().min(at + octets.len()), octets);
        let mut peer = Peer::connect(HTTP);
        peer.send_cut(&wire, &[size]);
        peer.finish();
        prop_assert!(peer.server_finished());
        peer.close();
    }
}
