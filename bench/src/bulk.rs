//! A bulk transfer on one connection, in full segments: octets received and thrown away, or made and sent.
//!
//! Measured is [`Server::turn`], as in `echo.rs`: what it takes to receive a segment with its share of an
//! acknowledgement to send, or to send one with its share of those that come. The octets sent are whatever stood in
//! the frame: making them would be the application's work.

use std::time::Duration;

use byway_tcp::app::{App, Closed, Conn, Ready};

use crate::client::Client;
use crate::server::Server;
use crate::{scaled, timed};

/// Octets of a full segment: an MTU of 1500 less 40 of headers and 12 of timestamps.
pub const SEGMENT: usize = 1448;
/// Segments received at a time: what fits the receive window of 64 KiB before the application has read.
const BATCH: usize = 32;
/// So many turns without a segment are a server that stands still.
const TURNS_IDLE: u32 = 1_000_000;

/// Throws away what comes, and counts it.
#[derive(Debug, Default)]
struct Discard {
    received: u64,
}

impl App for Discard {
    fn opened<C: Conn>(&mut self, _conn: &mut C) {}

    fn ready<C: Conn>(&mut self, conn: &mut C, _ready: Ready) {
        while let Some(chunk) = conn.recv() {
            self.received += chunk.len() as u64;
            conn.release(chunk);
        }
    }

    fn closed<C: Conn>(&mut self, _conn: &mut C, _reason: Closed) {}
}

/// Sends as much as there is room for.
#[derive(Debug, Default)]
struct Generate;

impl Generate {
    fn send<C: Conn>(conn: &mut C) {
        while conn.send_room() > 0 {
            let Some(mut chunk) = conn.alloc() else { break };
            conn.grow_back(&mut chunk, SEGMENT);
            if let Err(chunk) = conn.send(chunk) {
                conn.release(chunk);
                break;
            }
        }
    }
}

impl App for Generate {
    fn opened<C: Conn>(&mut self, conn: &mut C) {
        assert_eq!(conn.mss(), SEGMENT);
        Self::send(conn);
    }

    fn ready<C: Conn>(&mut self, conn: &mut C, _ready: Ready) {
        Self::send(conn);
    }

    fn closed<C: Conn>(&mut self, _conn: &mut C, _reason: Closed) {}
}

/// A server that receives.
#[derive(Debug)]
pub struct Receiving {
    server: Server<Discard>,
    client: Client,
}

impl Default for Receiving {
    fn default() -> Self {
        let (mut server, mut client) = (Server::with_app(1, Discard::default()), Client::new(1));
        server.establish(&mut client, 1);
        Self { server, client }
    }
}

impl Receiving {
    /// The time that receiving `segments` takes.
    ///
    /// # Panics
    /// If not all of them got to the application.
    pub fn run(&mut self, segments: u64) -> Duration {
        let (mut total, mut done) = (Duration::ZERO, 0);
        let mut frames = Vec::with_capacity(BATCH);
        while done < segments {
            frames.clear();
            for _ in 0..BATCH {
                let data = self.client.data(0, SEGMENT, self.server.now());
                frames.push(self.server.deliver(data));
            }
            let received = self.server.app().received;
            total += timed(|| self.server.turn(&frames));
            assert_eq!(self.server.app().received - received, (BATCH * SEGMENT) as u64);
            done += BATCH as u64;
        }
        self.server.assert_clean();
        scaled(total, done, segments)
    }
}

/// A server that sends, to a client that acknowledges every second segment.
#[derive(Debug)]
pub struct Sending {
    server: Server<Generate>,
    client: Client,
}

impl Default for Sending {
    fn default() -> Self {
        let (mut server, mut client) = (Server::with_app(1, Generate), Client::new(1));
        server.establish(&mut client, 1);
        Self { server, client }
    }
}

impl Sending {
    /// The time that sending `segments` takes.
    ///
    /// # Panics
    /// If the server stops sending.
    pub fn run(&mut self, segments: u64) -> Duration {
        let (mut total, mut done, mut idle) = (Duration::ZERO, 0, 0);
        let (mut frames, mut heard) = (Vec::new(), Vec::new());
        while done < segments {
            // What was sent before belongs to the run before; only the acknowledgement is of this one.
            let before = self.server.segments().1;
            heard.clear();
            heard.extend(self.server.sent().map(<[u8]>::to_vec));
            frames.clear();
            for pair in heard.chunks(2) {
                pair.iter().for_each(|octets| assert!(self.client.heard(octets).is_none()));
                frames.push(self.server.deliver(self.client.ack(0, self.server.now())));
            }
            total += timed(|| self.server.turn(&frames));
            let sent = self.server.segments().1 - before;
            idle = if sent == 0 { idle + 1 } else { 0 };
            assert!(idle < TURNS_IDLE, "nothing is sent any more");
            done += sent;
        }
        self.server.assert_clean();
        scaled(total, done, segments)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bulk_transfers_go_on_without_a_loss() {
        let mut receiving = Receiving::default();
        let mut sending = Sending::default();
        for _ in 0..10 {
            receiving.run(1000);
            sending.run(1000);
        }
        assert!(sending.server.segments().1 > 10_000);
    }
}
