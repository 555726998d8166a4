//! Segment in → application → segment out: 64 octets echoed through `Stack<HeapMemory>`, with any number of
//! connections established, in batches of any size.
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

use crate::client::Client;
use crate::server::Server;
use crate::{PAYLOAD, RING, Shuffled, scaled, timed};

/// Of more connections only so many, whichever, take part: at a (virtual) microsecond per request a round through
/// them is shorter than a retransmission timeout, so that none goes unacknowledged for longer.
const ACTIVE: u32 = 100_000;

/// Connections on which requests are echoed.
#[derive(Debug)]
pub struct Echoes {
    server: Server,
    client: Client,
    order: Shuffled,
}

impl Echoes {
    /// So many connections, established.
    pub fn new(connections: u32) -> Self {
        let (mut server, mut client) = (Server::new(connections), Client::new(connections));
        server.establish(&mut client, connections);
        Self::of(server, client, Shuffled::some(connections.min(ACTIVE), connections))
    }

    /// Of connections that are established, those in `order`.
    pub fn of(server: Server, client: Client, order: Shuffled) -> Self {
        Self { server, client, order }
    }

    /// The time that `requests` take in batches of `batch`.
    ///
    /// # Panics
    /// If the server did anything else than echo them.
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
                    frames.push(self.server.deliver(self.client.request(number, self.server.now())));
                }
                // Only then: a batch's second request of one connection was sent before the first's answer.
                for &number in &numbers {
                    self.client.expect(number, PAYLOAD);
                }
            }
            let (segments, echoed) = (self.server.segments().1, self.server.echoed());
            total += timed(|| {
                for batch in frames.chunks(batch) {
                    self.server.turn(batch);
                }
            });
            assert_eq!(self.server.segments().1 - segments, round, "an answer each");
            assert_eq!(self.server.echoed() - echoed, round * PAYLOAD as u64);
            done += round;
        }
        self.server.assert_clean();
        scaled(total, done, requests)
    }
}
