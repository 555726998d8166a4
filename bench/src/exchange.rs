//! Segment in → application → segment out: a request and its answer through `Stack<HeapMemory>`, with any number of
//! connections established, in batches of any size. 64 octets are echoed, or `GET /hello` is answered.
//!
//! What is measured is [`Server::turn`], and nothing else: the answers of the turn before are completed,
//! the fill ring is filled up, the batch is received, which calls the application, the timers are
//! advanced, and the answers are taken from `poll_transmit`. Not measured is the client's side: it
//! writes the segments for up to 1,024 requests (sequence numbers, acknowledgements, timestamps and
//! checksums right, each acknowledging the connection's answer before) into the fill ring's frames, as
//! the NIC's DMA would, and then the clock runs while the server takes them batch by batch. Frames were
//! thus written shortly before and lie in the second-level cache, much as with DDIO; connections were
//! not touched. Answers aren't read. That there was one for each request, that nothing was refused or
//! retransmitted, and that no payload was copied, is asserted from the counters.
//!
//! Connections take turns in a fixed shuffled order: each is as cold as the others allow.

use std::time::Duration;

use byway::app::{Config, Ports, Service, WallClock};
use byway_datapath::capture::Wish;
use byway_datapath::control::PAGE_MAX;
use byway_tcp::app::App;
use byway_tcp::time::Duration as Span;

use crate::client::{Client, SERVER_PORT};
use crate::server::{Echo, Server};
use crate::{PAYLOAD, RING, Shuffled, scaled, timed};

/// Of more connections only so many, whichever, take part: at a (virtual) microsecond per request a round through
/// them is shorter than a retransmission timeout, so that none goes unacknowledged for longer.
const ACTIVE: u32 = 100_000;

/// What `curl` asks for, short of its name.
const HELLO: &[u8] = b"GET /hello HTTP/1.1\r\nHost: 10.0.0.1\r\nUser-Agent: byway\r\nAccept: */*\r\n\r\n";

/// Connections on which requests are answered, one segment by one.
#[derive(Debug)]
pub struct Exchanges<A> {
    server: Server<A>,
    client: Client,
    order: Shuffled,
    request: Vec<u8>,
    /// Octets of each answer.
    answer: usize,
}

impl Exchanges<Echo> {
    /// So many connections, established, on which 64 octets are echoed.
    pub fn echo(connections: u32) -> Self {
        let (mut server, mut client) = (Server::new(connections), Client::new(connections));
        server.establish(&mut client, connections);
        Self::of(server, client, Shuffled::some(connections.min(ACTIVE), connections))
    }

    /// Of connections that are established, those in `order`.
    pub fn of(server: Server, client: Client, order: Shuffled) -> Self {
        Self { server, client, order, request: vec![0; PAYLOAD], answer: PAYLOAD }
    }
}

impl Exchanges<Service> {
    /// So many connections, established, on which `/hello` is asked for.
    ///
    /// # Panics
    /// If the answer isn't one segment.
    pub fn hello(connections: u32) -> Self {
        let ports = Ports { http: Some(SERVER_PORT), ..Ports::default() };
        let clock = WallClock::default();
        let service = Service::new(Config { ports, clock: clock.clone(), ..Config::default() });
        let (mut server, mut client) = (Server::with_app(connections, service), Client::new(connections));
        clock.set(server.now(), Span::from_secs(1_000_000_000));
        server.establish(&mut client, connections);
        let frame = server.deliver(client.say(0, HELLO, server.now()));
        server.turn(&[frame]);
        let sent: Vec<_> = server.sent().map(Client::payload_of).collect();
        let &[answer] = &sent[..] else { panic!("{} segments", sent.len()) };
        server.let_hear(&mut client);
        let order = Shuffled::some(connections.min(ACTIVE), connections);
        Self { server, client, order, request: HELLO.to_vec(), answer }
    }
}

impl<A: App> Exchanges<A> {
    /// The same, captured.
    pub fn watched(mut self, wish: &Wish) -> Self {
        self.server.watch(wish);
        self
    }

    /// The time that it takes to show so many connections, page by page, as `byway conns` has them shown.
    pub fn show(&self, connections: u64) -> Duration {
        let mut page = Vec::with_capacity(PAGE_MAX as usize);
        let (mut from, mut shown) = (0, 0);
        let total = timed(|| {
            while shown < connections {
                from = self.server.show(from, &mut page).unwrap_or(0);
                shown += page.len() as u64;
            }
        });
        scaled(total, shown, connections)
    }

    /// The time that it takes to give so many snapshots, as `byway stats` and `byway top` have them.
    pub fn snapshots(&self, count: u64) -> Duration {
        let (give, taken) = std::sync::mpsc::sync_channel(1);
        timed(|| {
            for _ in 0..count {
                give.try_send(self.server.snapshot()).expect("taken");
                drop(taken.try_recv());
            }
        })
    }

    /// The time that `requests` take in batches of `batch`.
    ///
    /// # Panics
    /// If the server did anything else than answer them.
    pub fn run(&mut self, batch: usize, requests: u64) -> Duration {
        let (mut total, mut done) = (Duration::ZERO, 0);
        let mut numbers = Vec::with_capacity(batch);
        let mut frames = Vec::with_capacity(RING);
        while done < requests {
            let round = (requests - done).min(RING as u64).next_multiple_of(batch as u64);
            frames.clear();
            while (frames.len() as u64) < round {
                numbers.clear();
                numbers.extend((0..batch).map(|_| self.order.draw()));
                for &number in &numbers {
                    frames.push(self.server.deliver(self.client.say(
                        number,
                        &self.request,
                        self.server.now(),
                    )));
                }
                // Only then: a batch's second request of one connection was sent before the first's answer.
                for &number in &numbers {
                    self.client.expect(number, self.answer);
                }
            }
            let (segments, octets) = (self.server.segments().1, self.server.octets_out());
            total += timed(|| {
                for batch in frames.chunks(batch) {
                    self.server.turn(batch);
                }
            });
            assert_eq!(self.server.segments().1 - segments, round, "an answer each");
            let headers = 14 + 20 + 32;
            assert_eq!(self.server.octets_out() - octets, round * (headers + self.answer as u64));
            self.server.forget_seen();
            done += round;
        }
        self.server.assert_clean();
        scaled(total, done, requests)
    }
}
