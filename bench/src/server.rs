//! A `Stack` with an application, and the port's part of the loop in memory.

use std::collections::VecDeque;
use std::sync::Arc;

use byway_datapath::capture::{Ring, SLOTS, Tap, Wish};
use byway_datapath::control::{Ledger, PAGE_MAX, Snapshot};
use byway_datapath::core_loop::LoopCounters;
use byway_datapath::kernel::SocketCounters;
use byway_datapath::port::PortCounters;
use byway_tcp::app::{App, Closed, Conn, Ready};
use byway_tcp::counters::{DropReason, Totals};
use byway_tcp::frame::{FramePool, FrameSlice, HeapMemory};
use byway_tcp::stack::{Cidr, Config, ConnInfo, Listener, Stack};
use byway_tcp::tcb::state::State;
use byway_tcp::time::{Duration, Instant};

use crate::RING;
use crate::client::{Client, GATEWAY_IP, SERVER_IP, SERVER_MAC, SERVER_PORT};

/// Octets per frame, as in a UMEM: two to a page.
const FRAME_SIZE: usize = 2048;
/// Where the driver puts a received frame: XDP_PACKET_HEADROOM.
const HEADROOM: usize = 256;
/// Frames taken from the stack at once.
const TX_BATCH: usize = 64;
/// And so often per turn: both as in `CoreLoop`.
const TX_BATCHES: usize = 4;
/// Handshakes at once while connections are being established.
const HANDSHAKES: usize = 256;
/// Virtual time a received segment takes: a million a second.
const PACE: Duration = Duration::from_micros(1);

/// Sends everything back, in the frames it came in.
#[derive(Debug, Default)]
pub struct Echo {
    /// Octets echoed.
    pub echoed: u64,
    /// Connections that ended in order.
    pub finished: u64,
}

impl App for Echo {
    fn opened<C: Conn>(&mut self, conn: &mut C) {
        conn.set_nodelay(true);
    }

    fn ready<C: Conn>(&mut self, conn: &mut C, _ready: Ready) {
        while conn.send_room() > 0 {
            let Some(chunk) = conn.recv() else { break };
            self.echoed += chunk.len() as u64;
            if let Err(chunk) = conn.send(chunk) {
                conn.release(chunk);
            }
        }
        if conn.recv_finished() {
            conn.shutdown();
        }
    }

    fn closed<C: Conn>(&mut self, _conn: &mut C, reason: Closed) {
        self.finished += u64::from(reason == Closed::Finished);
    }
}

/// The measured side.
#[derive(Debug)]
pub struct Server<A = Echo> {
    stack: Stack<HeapMemory>,
    app: A,
    /// Frames in the fill ring, which the NIC uses in their order.
    fill: VecDeque<u32>,
    /// Frames of the last turn, on their way out.
    sent: Vec<FrameSlice>,
    now: Instant,
    tap: Option<(Tap, Arc<Ring>)>,
}

impl Server {
    /// A server that echoes, with memory for `connections`, of which each may keep an unacknowledged answer.
    pub fn new(connections: u32) -> Self {
        Self::with_unacknowledged(connections, connections)
    }

    /// The same, of which so many may keep one.
    pub fn with_unacknowledged(connections: u32, answers: u32) -> Self {
        Self::with_frames(connections, answers, Echo::default())
    }

    /// Octets that the application has sent back.
    pub fn echoed(&self) -> u64 {
        self.app.echoed
    }

    /// Connections that both sides have closed.
    pub fn finished(&self) -> u64 {
        self.app.finished
    }
}

impl<A: App> Server<A> {
    /// A server of `app`, with memory as for one that echoes.
    pub fn with_app(connections: u32, app: A) -> Self {
        Self::with_frames(connections, connections, app)
    }

    fn with_frames(connections: u32, answers: u32, app: A) -> Self {
        let mut config = Config::new(SERVER_MAC, *b"thirty-two octets nobody guesses");
        config.addresses = vec![Cidr { address: SERVER_IP.into(), prefix: 24 }];
        config.gateways = vec![GATEWAY_IP.into()];
        config.max_connections = connections;
        let frames = 4 * RING as u32 + 2 * answers;
        let mut stack = Stack::new(config, FramePool::new(HeapMemory::new(frames, FRAME_SIZE)));
        stack.listen(Listener { port: SERVER_PORT, backlog: connections });
        let fill = (0..RING).map(|_| stack.pool_mut().fill().expect("there are more frames")).collect();
        let sent = Vec::with_capacity(2 * RING);
        Self { stack, app, fill, sent, now: Instant::from_millis(1), tap: None }
    }

    /// Virtual time.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// Writes a frame as the NIC does: outside the measured time, as a NIC does it, too. At most [`RING`]
    /// frames between turns.
    pub fn deliver(&mut self, octets: &[u8]) -> FrameSlice {
        let index = self.fill.pop_front().expect("at most RING frames between turns");
        self.stack.pool_mut().write_as_nic(index, HEADROOM, octets)
    }

    /// One turn of the core's loop, in `CoreLoop`'s order: the frames sent by the last turn come back,
    /// the fill ring is filled up, the stack takes `frames`, runs its timers, and sends what it has.
    pub fn turn(&mut self, frames: &[FrameSlice]) {
        self.now = self.now + PACE * frames.len().max(1) as u32;
        let pool = self.stack.pool_mut();
        for slice in self.sent.drain(..) {
            pool.completed(slice.index);
        }
        for _ in frames {
            if let Some(index) = pool.fill() {
                self.fill.push_back(index);
            }
        }
        if let Some((tap, _)) = &mut self.tap {
            tap.see_received(self.stack.pool(), frames, self.now);
        }
        self.stack.receive(&mut self.app, frames, self.now);
        if let Some((tap, _)) = &mut self.tap {
            tap.see_verdicts(self.stack.verdicts());
        }
        self.stack.advance(&mut self.app, self.now);
        for _ in 0..TX_BATCHES {
            if !self.stack.poll_transmit(TX_BATCH, self.now, &mut self.sent) {
                break;
            }
        }
        if let Some((tap, _)) = &self.tap {
            tap.see_sent(self.stack.pool(), &self.sent, self.now);
        }
    }

    /// From now on a turn's frames are captured, as `byway capture` has them.
    pub fn watch(&mut self, wish: &Wish) {
        let ring = Ring::new(SLOTS, wish.snaplen);
        self.tap = Some((Tap::new(0, wish, Arc::clone(&ring)), ring));
        self.stack.note_verdicts(true);
    }

    /// Does the watcher's part, which is another thread's; how many frames were seen.
    pub fn forget_seen(&mut self) -> u64 {
        let Some((_, ring)) = &self.tap else { return 0 };
        let seen = std::iter::from_fn(|| ring.take()).map(|slot| ring.give_back(slot)).count();
        assert_eq!(ring.counts().1, 0, "none was left out");
        seen as u64
    }

    /// Shows a page of connections from place `from` on; where to go on.
    pub fn show(&self, from: u32, page: &mut Vec<ConnInfo>) -> Option<u32> {
        page.clear();
        self.stack.connections(from, PAGE_MAX, self.now, &mut |info| page.push(info))
    }

    /// What a core gives who asks for its counters.
    pub fn snapshot(&self) -> Snapshot {
        let totals = Totals { counters: self.stack.counters(), states: self.stack.states().clone() };
        Snapshot {
            core: 0,
            queue: 0,
            totals,
            ledger: Ledger::default(),
            port: PortCounters::default(),
            turns: LoopCounters::default(),
            sockets: SocketCounters::default(),
        }
    }

    /// The frames that the last turn sent.
    pub fn sent(&self) -> impl Iterator<Item = &[u8]> {
        self.sent.iter().map(|&slice| self.stack.pool().transmitted(slice))
    }

    /// Lets the client hear what the last turn sent, and takes turns until it has nothing to say at once.
    pub fn let_hear(&mut self, client: &mut Client) {
        loop {
            let mut replies = Vec::new();
            for octets in self.sent() {
                replies.extend(client.heard(octets).map(<[u8]>::to_vec));
            }
            if replies.is_empty() {
                return;
            }
            let frames: Vec<_> = replies.iter().map(|octets| self.deliver(octets)).collect();
            self.turn(&frames);
        }
    }

    /// Opens the client's first `count` connections by the real handshake.
    pub fn establish(&mut self, client: &mut Client, count: u32) {
        let all: Vec<u32> = (0..count).collect();
        // The first by itself: the stack has to ask for the gateway's address before it can answer.
        let (first, rest) = all.split_at(1);
        for numbers in core::iter::once(first).chain(rest.chunks(HANDSHAKES)) {
            let mut frames = Vec::new();
            for &number in numbers {
                frames.push(self.deliver(client.syn(number, self.now)));
            }
            self.turn(&frames);
            self.let_hear(client);
            frames.clear();
            for &number in numbers {
                frames.push(self.deliver(client.ack(number, self.now)));
            }
            self.turn(&frames);
        }
        assert_eq!(self.stack.connections_by_state()[State::Established as usize], count);
    }

    /// Octets of all frames.
    pub fn buffers(&self) -> usize {
        self.stack.pool().total() as usize * self.stack.pool().frame_size()
    }

    /// The application.
    pub fn app(&self) -> &A {
        &self.app
    }

    /// TCP segments received and sent.
    pub fn segments(&self) -> (u64, u64) {
        (self.stack.counters().tcp_in_segs, self.stack.counters().tcp_out_segs)
    }

    /// Octets sent, headers included.
    pub fn octets_out(&self) -> u64 {
        self.stack.counters().octets_out
    }

    /// Nothing was refused, lost or sent twice: the bench did what it says.
    ///
    /// # Panics
    /// Otherwise.
    pub fn assert_clean(&self) {
        let counters = self.stack.counters();
        // The first SYN-ACK had to wait for the gateway's address.
        let asked = counters.dropped(DropReason::NoNeighbor);
        assert_eq!(counters.dropped_total(), asked, "{counters:?}");
        assert_eq!(counters.tcp_retrans_segs, 0);
        self.stack.pool().assert_conserved();
        assert_eq!(self.stack.pool().payload_bytes_copied(), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{PAYLOAD, Shuffled};

    #[test]
    fn requests_come_back_one_segment_each() {
        let (mut server, mut client) = (Server::new(300), Client::new(300));
        server.establish(&mut client, 300);
        let (_, before) = server.segments();
        let mut order = Shuffled::new(300);
        for _ in 0..300 {
            let number = order.draw();
            let frame = server.deliver(client.request(number, server.now()));
            server.turn(&[frame]);
            assert_eq!(server.sent().count(), 1);
            server.let_hear(&mut client);
        }
        assert_eq!(server.echoed(), 300 * PAYLOAD as u64);
        assert_eq!(server.segments().1 - before, 300);
        server.assert_clean();
    }

    #[test]
    fn connections_close_in_order() {
        let (mut server, mut client) = (Server::new(4), Client::new(4));
        server.establish(&mut client, 4);
        for number in 0..4 {
            let frame = server.deliver(client.fin(number, server.now()));
            server.turn(&[frame]);
            server.let_hear(&mut client);
            let frame = server.deliver(client.ack(number, server.now()));
            server.turn(&[frame]);
        }
        assert_eq!(server.finished(), 4);
        server.assert_clean();
    }
}
