//! What `/stats` and `/feed` say: counters, connections by state, and how often one went from each state to each other.
//!
//! All of it is of all connections together and names nobody, for anybody may ask. Of single connections a stranger
//! is told about the one he asks over, and of no other: addresses, ports, windows and round trips of the others would
//! tell who is here, from where and how busy; and neither his address (many share one, RFC 6888) nor a port that can
//! be guessed would prove that another connection is his. The operator's view of all of them is `byway conns`.

use core::cell::{Cell, RefCell};
use core::fmt::Write as _;
use std::sync::Arc;

use byway_tcp::app::Conn;
use byway_tcp::tcb::state::State;
use byway_tcp::time::{Duration, Instant};

/// The members of the JSON object that `/stats` is.
fn write_members<C: Conn>(out: &mut String, conn: &C) {
    let totals = conn.totals();
    out.push_str("\"connections\":");
    write_object(out, State::ALL.iter().map(|&state| (state.name(), totals.states.count(state).into())));
    out.push_str(",\"transitions\":{");
    let mut separator = "";
    for from in State::ALL {
        let moved = State::ALL.iter().map(|&to| (to.name(), totals.states.moved(from, to)));
        if moved.clone().all(|(_, count)| count == 0) {
            continue;
        }
        out.push_str(separator);
        quote(out, from.name());
        write_object(out, moved.filter(|&(_, count)| count > 0));
        separator = ",";
    }
    out.push_str("},\"counters\":");
    write_object(out, totals.counters.iter());
}

/// An object of numbers. Names are our own: nothing in them has to be escaped.
fn write_object(out: &mut String, members: impl Iterator<Item = (&'static str, u64)>) {
    out.push('{');
    let mut separator = "";
    for (name, number) in members {
        out.push_str(separator);
        quote(out, name);
        let _ = write!(out, "{number}");
        separator = ",";
    }
    out.push('}');
}

fn quote(out: &mut String, name: &str) {
    let _ = write!(out, "\"{name}\":");
}

/// `/stats`.
pub(super) fn stats<C: Conn>(conn: &C) -> Vec<u8> {
    let mut json = String::from("{");
    write_members(&mut json, conn);
    json.push_str("}\n");
    json.into_bytes()
}

/// What a core's feeds share: the text, made at most twice a period however many there are, and the places.
#[derive(Debug)]
pub(super) struct Feeds {
    permit: Arc<()>,
    most: usize,
    text: RefCell<String>,
    made: Cell<Option<Instant>>,
}

impl Feeds {
    pub(super) fn new(most: usize) -> Self {
        Self { permit: Arc::new(()), most, text: RefCell::default(), made: Cell::new(None) }
    }

    /// Whether there is no place for another.
    pub(super) fn is_full(&self) -> bool {
        Arc::strong_count(&self.permit) > self.most
    }

    /// For a connection that opened at `now`; the place is free again when it is dropped.
    pub(super) fn open(&self, now: Instant) -> Feed {
        Feed { opened: now, _permit: Arc::clone(&self.permit) }
    }

    /// Makes the text anew if it is older than half a `period`; when it was made.
    fn renew<C: Conn>(&self, conn: &C, period: Duration) -> Instant {
        let now = conn.now();
        match self.made.get() {
            Some(made) if now.since(made) < period / 2 => made,
            _ => {
                let mut text = self.text.borrow_mut();
                text.clear();
                write_members(&mut text, conn);
                self.made.set(Some(now));
                now
            }
        }
    }
}

/// One connection's place among the feeds of its core.
#[derive(Debug)]
pub(super) struct Feed {
    opened: Instant,
    _permit: Arc<()>,
}

impl Feed {
    /// The message number `count`, in two parts: about this connection, and what all feeds of the core say.
    pub(super) fn message<C: Conn, R>(
        &self,
        feeds: &Feeds,
        conn: &mut C,
        (count, period): (u64, Duration),
        say: impl FnOnce(&mut C, &str, &str) -> R,
    ) -> R {
        let made = feeds.renew(conn, period);
        // Since this connection opened: the clock itself would tell how long the host has been up.
        let ms = made.since(self.opened).as_millis();
        let mut own = format!("{{\"feed\":{count},\"ms\":{ms},\"own\":");
        write_own(&mut own, conn);
        own.push(',');
        let text = feeds.text.borrow();
        say(conn, &own, &text)
    }
}

/// How the connection stands that the message goes out on.
fn write_own<C: Conn>(out: &mut String, conn: &C) {
    let Some(metrics) = conn.metrics() else {
        out.push_str("null");
        return;
    };
    let micros = |duration: Duration| duration.as_micros();
    let known = |number: Option<u64>| number.map_or_else(|| "null".to_owned(), |number| number.to_string());
    let _ = write!(
        out,
        "{{\"peer\":\"{}\",\"cwnd\":{},\"ssthresh\":{},\"in_flight\":{},\"srtt_us\":{},\"rto_us\":{},\"mss\":{},\
         \"retransmits\":{}}}",
        conn.peer(),
        metrics.cwnd,
        known(metrics.ssthresh.map(u64::from)),
        metrics.in_flight,
        known(metrics.srtt.map(micros)),
        micros(metrics.rto),
        metrics.mss,
        metrics.retransmits
    );
}

#[cfg(test)]
mod tests {
    use byway_tcp::app::Metrics;
    use byway_tcp::time::Duration;
    use serde_json::Value;

    use super::super::testing::{HTTP, Peer, config};

    const UPGRADE: &str = "Host: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
        Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n";

    fn open(peer: &mut Peer) -> String {
        peer.send(format!("GET /feed HTTP/1.1\r\n{UPGRADE}").as_bytes());
        String::from_utf8(peer.take()).expect("a head")
    }

    /// The messages, each in one frame.
    fn messages(mut octets: &[u8]) -> Vec<Value> {
        let mut messages = Vec::new();
        while let [0x81, short, rest @ ..] = octets {
            let (len, rest) = match *short {
                126 => (usize::from(u16::from_be_bytes([rest[0], rest[1]])), &rest[2..]),
                short => (usize::from(short), rest),
            };
            messages.push(serde_json::from_slice(&rest[..len]).expect("JSON"));
            octets = &rest[len..];
        }
        assert!(octets.is_empty(), "whole text frames only");
        messages
    }

    /// Names with numbers, in any number.
    fn assert_numbers(value: &Value, least: usize) {
        let members = value.as_object().expect("an object");
        assert!(members.len() >= least && members.values().all(Value::is_u64), "{value}");
    }

    #[test]
    fn s9_3_a_feed_is_the_stats_and_how_its_own_connection_stands() {
        let mut peer = Peer::connect(HTTP);
        let head = open(&mut peer);
        assert!(head.starts_with("HTTP/1.1 101 ") && !head.contains("permessage"), "{head}");
        peer.set_metrics(Some(Metrics {
            cwnd: 14_600,
            srtt: Some(Duration::from_micros(1_500)),
            ..Metrics::default()
        }));
        peer.pass(Duration::from_millis(760));
        let feed = messages(&peer.take());
        assert_eq!(feed.len(), 3);
        for (place, message) in (1u64..).zip(&feed) {
            assert_eq!((message["feed"].as_u64(), message["ms"].as_u64()), (Some(place), Some(place * 250)));
            let own = &message["own"];
            assert_eq!((own["cwnd"].as_u64(), own["srtt_us"].as_u64()), (Some(14_600), Some(1_500)));
            assert!(own["ssthresh"].is_null(), "nothing has set one");
            for name in ["in_flight", "rto_us", "mss", "retransmits"] {
                assert!(own[name].is_u64(), "{name}");
            }
            assert_eq!(own["peer"], "192.0.2.9:40000", "its own address, and nobody else's");
            assert_numbers(&message["connections"], 11);
            assert_numbers(&message["counters"], 50);
            assert_eq!(message["connections"]["ESTAB"], 1);
            assert_eq!(message["transitions"]["UNCONN"]["ESTAB"], 1);
            message["transitions"]
                .as_object()
                .expect("an object")
                .values()
                .for_each(|to| assert_numbers(to, 1));
        }
        // Nobody knows: said so.
        peer.set_metrics(None);
        peer.pass(Duration::from_millis(250));
        assert!(messages(&peer.take())[0]["own"].is_null());
        peer.close();
    }

    #[test]
    fn the_places_of_feeds_are_bounded_and_given_back() {
        let mut config = config();
        config.limits.feeds = 0;
        let mut peer = Peer::connect_with(HTTP, config.clone(), 256);
        let refused = open(&mut peer);
        assert!(refused.starts_with("HTTP/1.1 503 ") && peer.server_finished(), "{refused}");
        peer.close();
        // One place: it is there for each that comes after another has gone.
        config.limits.feeds = 1;
        let mut peer = Peer::connect_with(HTTP, config, 256);
        for _ in 0..3 {
            assert!(open(&mut peer).starts_with("HTTP/1.1 101 "));
            peer.again();
        }
    }

    /// W6: to a peer that doesn't read, nothing is said that would have to be kept.
    #[test]
    fn w6_a_feed_that_is_not_read_is_not_fed() {
        let mut peer = Peer::connect(HTTP);
        open(&mut peer);
        peer.hold_acks(true);
        peer.set_room(4);
        peer.pass(Duration::from_secs(3600));
        assert!(peer.received().len() < 16 << 10, "{} octets", peer.received().len());
        let before = messages_so_far(&peer);
        peer.hold_acks(false);
        peer.pump();
        assert!(peer.received().len() < 32 << 10, "one message for all that was missed");
        assert!(messages(peer.received()).len() > before);
        peer.close();
    }

    fn messages_so_far(peer: &Peer) -> usize {
        peer.received().windows(8).filter(|eight| eight == b"{\"feed\":").count() - 1
    }

    #[test]
    fn answers_are_counted() {
        let mut peer = Peer::connect(HTTP);
        peer.send(b"GET /hello HTTP/1.1\r\nHost: a\r\n\r\nGET /none HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(peer.counters_mut().app_answered, 2);
        open(&mut peer);
        // A message in two fragments, and a ping, which is none.
        peer.send(b"\x01\x81\0\0\0\0a\x89\x80\0\0\0\0\x80\x81\0\0\0\0b");
        assert_eq!(peer.counters_mut().app_answered, 3);
        peer.close();
    }
}
