//! The corpus of `deploy/conformance/http-probes.jsonl`, in memory; `make conformance` sends it over sockets.

use serde_json::Value;

use super::super::testing::{HTTP, Peer, config};

const CORPUS: &str = include_str!("../../../deploy/conformance/http-probes.jsonl");
/// Frames of a connection: enough for what a probe leaves unread.
const FRAMES: u32 = 64;
const AFTER: &[u8] = b"GET /hello HTTP/1.1\r\nHost: a\r\n\r\n";
const INTERIM: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// Strings in order; a number repeats the one before it.
fn strings(value: &Value) -> Vec<Vec<u8>> {
    let octets = |text: &str| text.chars().map(|c| u8::try_from(c).expect("one octet")).collect::<Vec<u8>>();
    let mut all: Vec<Vec<u8>> = Vec::new();
    for item in value.as_array().unwrap_or(&vec![value.clone()]) {
        if let Some(text) = item.as_str() {
            all.push(octets(text));
        } else {
            let count = item.as_u64().expect("a string or a number") as usize;
            let last = all.pop().expect("something to repeat");
            all.extend(std::iter::repeat_n(last, count));
        }
    }
    all
}

/// Whose connections all run in the memory of the first: nothing of one may be left for the next.
fn peer() -> Peer {
    Peer::connect_with(HTTP, config(), FRAMES)
}

/// One line of the corpus.
struct Probe {
    name: String,
    send: Vec<u8>,
    answers: Vec<Vec<u8>>,
    rest: Option<(Vec<u8>, Vec<Vec<u8>>)>,
    cut: bool,
    open: bool,
    head: bool,
}

impl Probe {
    fn all() -> Vec<Self> {
        let values = CORPUS.lines().skip(1).map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        let probe = |value: Value| {
            let is = |name: &str| value.get(name).is_some_and(|flag| flag == true);
            assert!(value["see"].as_str().is_some_and(|see| !see.is_empty()));
            Self {
                name: value["name"].as_str().expect("a name").to_owned(),
                send: strings(&value["send"]).concat(),
                answers: strings(&value["answers"]),
                rest: value.get("rest").map(|rest| (strings(rest).concat(), strings(&value["then"]))),
                cut: is("cut"),
                open: is("open"),
                head: is("head"),
            }
        };
        values.map(probe).collect()
    }

    /// Sends it in pieces of these sizes on a fresh connection: all that is said.
    fn run(&self, peer: &mut Peer, sizes: &[usize]) -> Vec<u8> {
        peer.again();
        let last = if let Some((rest, _)) = &self.rest {
            peer.send_cut(&self.send, sizes);
            self.check(peer.received(), &self.answers, sizes);
            rest
        } else {
            &self.send
        };
        // What follows is in the same segment, if the segment isn't cut elsewhere.
        peer.send_cut(&[last, AFTER].concat(), sizes);
        assert_eq!(
            peer.server_finished(),
            !self.open,
            "{} by {sizes:?}: {}",
            self.name,
            shown(peer.received())
        );
        peer.take()
    }

    fn expected(&self) -> Vec<Vec<u8>> {
        let then = self.rest.iter().flat_map(|(_, then)| then.clone());
        let after = self.open.then(|| b"200:hello\n".to_vec());
        self.answers.iter().cloned().chain(then).chain(after).collect()
    }

    fn check(&self, octets: &[u8], expected: &[Vec<u8>], sizes: &[usize]) {
        let said = self.read(octets, expected.len());
        let right = said.len() == expected.len()
            && said.iter().zip(expected).all(|(said, expected)| {
                said == expected || !expected.contains(&b':') && said.starts_with(expected)
            });
        assert!(right, "{} by {sizes:?}: {}", self.name, shown(octets));
    }

    /// What was said as the corpus writes it down; `expected` answers, of which the last may be cut.
    fn read(&self, mut octets: &[u8], expected: usize) -> Vec<Vec<u8>> {
        let mut answers = Vec::new();
        while !octets.is_empty() {
            let end = octets.windows(4).position(|four| four == b"\r\n\r\n").expect("a whole head") + 4;
            let head = str::from_utf8(&octets[..end]).expect("ASCII");
            octets = &octets[end..];
            let line = head.strip_prefix("HTTP/1.1 ").expect("a status line");
            let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name));
            let mut answer = line[..4].trim_end().as_bytes().to_vec();
            answer.push(b':');
            let whole = match field("Content-Length: ")
                .map(|length| length.parse::<usize>().expect("a number"))
            {
                // The follow-up is a GET.
                _ if self.head && answers.len() < self.expected().len() - usize::from(self.open) => true,
                Some(length) => {
                    let there = length.min(octets.len());
                    answer.extend_from_slice(&octets[..there]);
                    octets = &octets[there..];
                    there == length
                }
                None if field("Transfer-Encoding: chunked").is_some() => dechunk(&mut octets, &mut answer),
                None if line.starts_with("101") => {
                    assert!(!shown(octets).contains("HTTP/"), "{}: {}", self.name, shown(octets));
                    octets = &[];
                    true
                }
                None => true,
            };
            answers.push(answer);
            assert_eq!(whole, !(self.cut && answers.len() == expected), "{}: {head}", self.name);
        }
        answers
    }
}

/// Adds a chunked body to `out`; whether it is complete.
fn dechunk(octets: &mut &[u8], out: &mut Vec<u8>) -> bool {
    while let Some(line) = octets.windows(2).position(|two| two == b"\r\n") {
        let size = str::from_utf8(&octets[..line]).expect("ASCII");
        let size = usize::from_str_radix(size, 16).expect("hexadecimal");
        let rest = &octets[line + 2..];
        let there = size.min(rest.len());
        out.extend_from_slice(&rest[..there]);
        *octets = rest[there..].strip_prefix(b"\r\n").unwrap_or(&[]);
        if size == 0 {
            return true;
        }
    }
    false
}

fn shown(octets: &[u8]) -> String {
    String::from_utf8_lossy(octets).into_owned()
}

/// Without interim answers: whether a client waits for one depends on when its body comes.
fn final_answers(octets: &[u8]) -> Vec<u8> {
    match octets.windows(INTERIM.len()).position(|window| window == INTERIM) {
        Some(at) => [&octets[..at], &final_answers(&octets[at + INTERIM.len()..])].concat(),
        None => octets.to_vec(),
    }
}

#[test]
fn h3_h4_h5_h7_every_probe_is_answered_as_the_strict_reading_says() {
    let probes = Probe::all();
    assert!(probes.len() >= 120);
    let mut peer = peer();
    for probe in probes {
        let sizes = [1460];
        probe.check(&probe.run(&mut peer, &sizes), &probe.expected(), &sizes);
    }
}

/// The metamorphic test: where the segments were cut changes no octet of what is said.
#[test]
fn h6_every_split_of_every_probe_is_answered_alike() {
    let mut peer = peer();
    for probe in Probe::all() {
        let whole = final_answers(&probe.run(&mut peer, &[1460]));
        let len = probe.send.len();
        let splits = (1..len).filter(|_| len <= 1460).map(|at| vec![at, 1460]);
        // In pieces, what follows is apart from the probe, too.
        let pieces =
            [1, 2, 3, 7, 64, 1459].map(|size| vec![size]).into_iter().skip(if len > 20_000 { 3 } else { 0 });
        for sizes in splits.chain(pieces) {
            let said = final_answers(&probe.run(&mut peer, &sizes));
            assert!(said == whole, "{} by {sizes:?}: {} and not {}", probe.name, shown(&said), shown(&whole));
        }
    }
}

/// Nor do room, memory and the segments' size.
#[test]
fn h6_every_probe_is_answered_alike_when_room_and_memory_are_short() {
    for (seed, probe) in (0..).zip(Probe::all()) {
        let mut plenty = peer();
        let whole = final_answers(&probe.run(&mut plenty, &[1460]));
        for (room, mss) in [(1, 1460), (2, 200), (5, 48)] {
            let mut short = peer();
            short.set_room(room);
            short.set_mss(mss);
            short.fail_allocs(0.5, seed);
            let said = final_answers(&probe.run(&mut short, &[mss]));
            assert!(said == whole, "{} with {room} of {mss}: {}", probe.name, shown(&said));
        }
    }
}
