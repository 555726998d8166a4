//! What is read by words is what is read octet by octet; in one piece as in two; and as httparse does it.

use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::super::request::Request;
use super::super::scanner::Scanner;
use super::*;

type Field<'h> = (&'h [u8], &'h [u8]);

/// As curl, wrk, a browser, a proxy and WebSocket clients send them.
const REQUESTS: [&str; 8] = [
    "GET /hello HTTP/1.1\r\nHost: 10.0.0.1\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\n\r\n",
    "GET /hello HTTP/1.1\r\nHost: 10.77.0.2:80\r\n\r\n",
    "GET /a/b;c?d=e HTTP/1.1\r\nHost: example.org\r\nConnection: keep-alive\r\n\
     sec-ch-ua: \"Chromium\";v=\"130\", \"Not?A_Brand\";v=\"99\"\r\nsec-ch-ua-mobile: ?0\r\nDNT: 1\r\n\
     Upgrade-Insecure-Requests: 1\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36\r\n\
     Accept: text/html,application/xhtml+xml,*/*;q=0.8\r\nAccept-Language:\tde,en;q=0.5 \r\nCookie: a=b; c=d\r\n\r\n",
    "POST /upload HTTP/1.1\r\nHost: [::1]:8080\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello",
    "PUT / HTTP/1.1\r\nhost: a\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n0\r\n\r\n",
    "GET http://a/ HTTP/1.0\r\nHost: a\r\nVia: 1.1 b\r\nX-Forwarded-For: 192.0.2.1\r\nConnection: close\r\n\r\n",
    "GET /chat HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nOrigin: https://a\r\n\
     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
     Sec-WebSocket-Protocol: chat, superchat\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n",
    "\r\nHEAD * HTTP/1.1\r\nHost:\r\nEmpty:\r\nBlank:  \t \r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
];

/// Mutated requests: octets that mean something are put in, over others, or taken out, where something was meant.
fn requests() -> impl Strategy<Value = Vec<u8>> {
    let octets = b"\r\n\t :\0\x1f\x7f\x80\xff,;/?%*-_@[{zZ0aH".to_vec();
    let mutation = (any::<Index>(), 0..3, select(octets));
    let several = prop::collection::vec(mutation, 0..4);
    (select(&REQUESTS), several).prop_map(|(request, mutations)| {
        let mut request = request.as_bytes().to_vec();
        for (place, kind, octet) in mutations {
            let at = place.index(request.len());
            match kind {
                0 => request.insert(at, octet),
                1 => request[at] = octet,
                _ => drop(request.remove(at)),
            }
        }
        request
    })
}

fn fields(octets: &[u8]) -> Option<(Vec<Field<'_>>, usize)> {
    let (mut lines, mut fields) = (Lines::new(octets), Vec::new());
    let taken = lines.fields(
        |_| (),
        |name, value| {
            fields.push((name, value));
            Ok(())
        },
    );
    taken.ok().map(|()| (fields, lines.octets()))
}

/// httparse, which takes LF for a line's end as well, and so isn't asked about blocks where one stands by itself.
fn fields_by_httparse(octets: &[u8]) -> Option<(Vec<Field<'_>>, usize)> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    match httparse::parse_headers(octets, &mut headers) {
        Ok(httparse::Status::Complete((end, headers))) => {
            let fields = headers.iter().map(|header| (header.name.as_bytes(), header.value));
            Some((fields.collect(), end))
        }
        Ok(httparse::Status::Partial) | Err(_) => None,
    }
}

fn has_bare_lf(octets: &[u8]) -> bool {
    (0..octets.len()).any(|at| octets[at] == b'\n' && (at == 0 || octets[at - 1] != b'\r'))
}

/// What comes of it when the octets come in two pieces: as a connection reads them. `None`: there is more to come.
fn in_pieces(octets: &[u8], cut: usize, limits: &Limits) -> Option<Result<String, &'static str>> {
    let mut scanner = Scanner::default();
    let (first, second) = octets.split_at(cut);
    let end = match scanner.scan(first, limits) {
        Ok(None) => scanner.scan(second, limits).map(|end| end.map(|end| cut + end)),
        ended => ended,
    };
    match end {
        Ok(end) => {
            let request = Request::parse(&octets[..end?], limits);
            Some(request.map(|request| format!("{request:?}")).map_err(|refusal| refusal.why))
        }
        Err(refusal) => Some(Err(refusal.why)),
    }
}

/// Every octet at every place of words and of what is left behind them, among octets of each kind.
#[test]
fn h4_words_are_looked_through_as_octets_are() {
    for len in 0..20 {
        for octet in 0..=u8::MAX {
            let good = !octet.is_ascii_control();
            for (at, around) in (0..len).flat_map(|at| [b' ', b'~', 0x80, 0xff].map(|around| (at, around))) {
                let mut octets = vec![around; len];
                octets[at] = octet;
                assert_eq!(text(&octets), if good { len } else { at }, "{octet} at {at} of {len}");
            }
            assert_eq!(text(&vec![octet; len]), if good { len } else { 0 }, "{octet} {len} times");
        }
    }
}

#[test]
fn names_are_known_in_any_case() {
    assert!(is(b"Content-Length", b"content-length") && is(b"CONTENT-LENGTH", b"content-length"));
    for octet in (0..=u8::MAX).filter(|&octet| is_tchar(octet)) {
        assert_eq!(is(&[octet], b"h"), octet.eq_ignore_ascii_case(&b'h'));
        assert_eq!(is(&[octet], b"-"), octet == b'-');
    }
    assert!(!is(b"Hos", b"host") && !is(b"Hosts", b"host"));
}

#[test]
fn all_requests_are_good() {
    for request in REQUESTS.iter().take(7) {
        let parsed = Request::parse(request.as_bytes(), &Limits::default()).expect(request);
        assert_eq!(parsed.octets, request.find("\r\n\r\n").expect("an end") + 4);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Accepted and refused alike, with the same names and values and the same end.
    #[test]
    fn h4_fields_are_those_that_httparse_finds(request in requests()) {
        let start = request.iter().position(|&octet| octet == b'\n').map_or(0, |at| at + 1);
        let block = &request[start..];
        if !has_bare_lf(block) {
            prop_assert_eq!(fields(block), fields_by_httparse(block));
        }
    }

    /// No request is taken that httparse refuses, or understands otherwise. (Many are refused that it takes: it doesn't
    /// ask for Host, say, or look into targets.)
    #[test]
    fn h4_h5_what_httparse_refuses_is_refused(request in requests()) {
        if let Ok(ours) = Request::parse(&request, &Limits::default()) {
            let mut headers = [httparse::EMPTY_HEADER; 64];
            let mut theirs = httparse::Request::new(&mut headers);
            let end = theirs.parse(&request);
            // Higher minor versions than it knows are read as 1.1 (RFC 9110 §2.5).
            if end != Err(httparse::Error::Version) {
                prop_assert_eq!(end, Ok(httparse::Status::Complete(ours.octets)));
                prop_assert_eq!(theirs.version, Some(ours.minor));
                let target = theirs.path.expect("a target").as_bytes();
                prop_assert!(ours.path == b"/" || target.windows(ours.path.len()).any(|part| part == ours.path));
            }
        }
    }

    /// H6: what is read at once is what is read when it was cut anywhere, and what isn't is refused or waited for, also
    /// where a limit is passed.
    #[test]
    fn h6_a_block_at_once_is_the_block_in_pieces(
        request in requests(), cut in any::<Index>(),
        line in 10_usize..60, block in 20_usize..200, headers in 0_usize..8,
    ) {
        let small = Limits { request_line: line, header_block: block, headers, ..Limits::default() };
        for limits in [Limits::default(), small] {
            let at_once = Request::parse(&request, &limits).map(|request| format!("{request:?}"));
            let in_pieces = in_pieces(&request, cut.index(request.len()), &limits);
            if at_once.is_ok() || matches!(in_pieces, Some(Ok(_))) {
                prop_assert_eq!(Some(at_once.map_err(|refusal| refusal.why)), in_pieces);
            }
        }
    }
}
