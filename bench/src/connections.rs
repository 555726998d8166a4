//! A connection's whole life: handshake, one request of 64 octets and its answer, and the close by the
//! client: five segments in, three out.
//!
//! 64 connections go through it together, in four turns of the loop, each of which is measured as in
//! `echo.rs`. Between the turns, unmeasured, the client reads the answers (the server's initial sequence
//! numbers can't be foreseen) and writes the next segments.

use std::time::Duration;

use byway_tcp::frame::FrameSlice;

use crate::client::Client;
use crate::server::Server;
use crate::{scaled, timed};

const TOGETHER: usize = 64;
/// So many different four-tuples, before one comes again.
const CLIENTS: u32 = 64 * 1024;

/// Connections that come and go.
#[derive(Debug)]
pub struct Connections {
    server: Server,
    client: Client,
    numbers: core::iter::Cycle<core::ops::Range<u32>>,
}

impl Default for Connections {
    fn default() -> Self {
        let (mut server, mut client) = (Server::new(CLIENTS), Client::new(CLIENTS + 1));
        // One that stays, so that the gateway is known.
        server.establish(&mut client, 1);
        Self { server, client, numbers: (1..CLIENTS + 1).cycle() }
    }
}

impl Connections {
    /// The time that `connections` take.
    ///
    /// # Panics
    /// If one of them went otherwise.
    pub fn run(&mut self, connections: u64) -> Duration {
        let (mut total, mut done) = (Duration::ZERO, 0);
        let mut frames: Vec<FrameSlice> = Vec::with_capacity(2 * TOGETHER);
        while done < connections {
            let numbers: Vec<u32> = self.numbers.by_ref().take(TOGETHER).collect();
            let finished = self.server.finished();
            let segments = self.server.segments();
            let (server, client) = (&mut self.server, &mut self.client);
            let mut turn = |server: &mut Server, client: &mut Client, frames: &mut Vec<FrameSlice>| {
                total += timed(|| server.turn(frames));
                server.let_hear(client);
                frames.clear();
            };
            for &number in &numbers {
                frames.push(server.deliver(client.syn(number, server.now())));
            }
            turn(server, client, &mut frames);
            for &number in &numbers {
                frames.push(server.deliver(client.ack(number, server.now())));
                frames.push(server.deliver(client.request(number, server.now())));
            }
            turn(server, client, &mut frames);
            for &number in &numbers {
                frames.push(server.deliver(client.fin(number, server.now())));
            }
            turn(server, client, &mut frames);
            for &number in &numbers {
                frames.push(server.deliver(client.ack(number, server.now())));
            }
            turn(server, client, &mut frames);

            let count = TOGETHER as u64;
            assert_eq!(self.server.finished() - finished, count);
            let now = self.server.segments();
            assert_eq!((now.0 - segments.0, now.1 - segments.1), (5 * count, 3 * count));
            done += count;
        }
        self.server.assert_clean();
        scaled(total, done, connections)
    }
}
