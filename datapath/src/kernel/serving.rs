//! Who is served, how much at once, and who waits for what: room, the others, or frames.

use byway_tcp::app::{App, ConnId, Ready};
use byway_tcp::time::{Duration, Instant};
use rustix::event::epoll::EventFlags;

use super::conn::SocketConn;
use super::connection::READS_PER_SERVE;
use super::event_loop::{EventLoop, Slot};

/// Callbacks in a row for one connection, as long as its socket takes everything: 1 MiB.
const ROUNDS: usize = 4;
/// While connections wait for frames: how often those that hold some without moving are looked for.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A peer that has taken nothing for so long, while others wait for memory, gives way (T3). Three times what the other
/// backend grants: a socket takes more only once a third of its buffer is free, and a slow line needs a while for that.
pub(super) const STALLED: Duration = Duration::from_secs(15);
/// So does one that would need longer for what is queued for it (T4), as in the other backend.
const PATIENCE: Duration = Duration::from_secs(60);

impl<A: App> EventLoop<A> {
    pub(super) fn on_event(&mut self, id: ConnId, flags: EventFlags) {
        let (index, slot) = (id.index, self.slots.get_mut(id.index as usize));
        // Of an earlier tenant, who ended in this very batch.
        let Some(slot) = slot.filter(|slot| slot.generation == id.generation) else { return };
        let Some(connection) = &mut slot.connection else { return };
        connection.note(flags);
        if connection.over.is_some() {
            return self.finish(index);
        }
        if connection.is_opening() && !self.complete_opening(index) {
            if self.slots[index as usize]
                .connection
                .as_ref()
                .is_some_and(|connection| connection.over.is_some())
            {
                self.finish(index);
            }
            return;
        }
        let Some(connection) = &mut self.slots[index as usize].connection else { return };
        if connection.is_waiting() {
            connection.flush(&mut self.shared);
        }
        let ready = Ready {
            readable: connection.is_readable(),
            writable: connection.may_go_on(&self.shared),
            ..Ready::default()
        };
        if ready.readable || ready.writable {
            self.serve(index, ready);
        } else {
            self.settle(index);
        }
    }

    /// Calls the application with what is new, and again as long as its socket takes what it sends.
    pub(super) fn serve(&mut self, index: u32, mut ready: Ready) {
        if let Some(connection) = &mut self.slots[index as usize].connection {
            connection.reads_left = READS_PER_SERVE;
        }
        for _ in 0..ROUNDS {
            self.call(index, |app, conn| app.ready(conn, ready));
            if !self.settle(index) {
                return;
            }
            ready = Ready { writable: true, ..Ready::default() };
        }
        self.queue_again(index);
    }

    /// A callback, if the connection is still there.
    pub(super) fn call(&mut self, index: u32, callback: impl FnOnce(&mut A, &mut SocketConn<'_>)) {
        let Self { app, slots, shared, .. } = self;
        let Slot { generation, connection: Some(connection), .. } = &mut slots[index as usize] else {
            return;
        };
        if connection.over.is_none() {
            connection.begin_call();
            let id = ConnId { index, generation: *generation };
            callback(app, &mut SocketConn { id, connection, shared });
            connection.owed = connection.is_out_of_room(shared);
        }
    }

    /// After a callback: what was queued goes to the socket; who is over is forgotten, and who could go on later waits
    /// for it in the right place. Whether the application is owed a callback at once.
    pub(super) fn settle(&mut self, index: u32) -> bool {
        let slot = &mut self.slots[index as usize];
        let Some(connection) = &mut slot.connection else { return false };
        connection.flush(&mut self.shared);
        connection.count_state(&mut self.shared);
        if connection.over.is_some() {
            self.finish(index);
            return false;
        }
        if connection.starved {
            if !core::mem::replace(&mut slot.queued_starved, true) {
                self.starved.push_back(index);
                self.look_at = self.look_at.min(self.shared.now + LOOK_EVERY);
            }
            return false;
        }
        if connection.is_readable() && connection.reads_left == 0 {
            self.queue_again(index);
            return false;
        }
        connection.may_go_on(&self.shared)
    }

    pub(super) fn queue_again(&mut self, index: u32) {
        let slot = &mut self.slots[index as usize];
        if slot.connection.is_some() && !core::mem::replace(&mut slot.queued_again, true) {
            self.again.push_back(index);
        }
    }

    /// Those that had their share, once each.
    pub(super) fn serve_again(&mut self) {
        for _ in 0..self.again.len() {
            let Some(index) = self.again.pop_front() else { return };
            let slot = &mut self.slots[index as usize];
            slot.queued_again = false;
            let Some(connection) = &mut slot.connection else { continue };
            let (readable, writable) = (connection.is_readable(), connection.owed);
            self.serve(index, Ready { readable, writable, ..Ready::default() });
        }
    }

    /// Those that wait for frames, as far as there are some; and if there are none, who holds them.
    pub(super) fn feed_starved(&mut self) {
        if self.look_at <= self.shared.now {
            self.look_at = self.shared.now + LOOK_EVERY;
            self.relieve_at(self.shared.now);
        }
        for _ in 0..self.starved.len() {
            if !self.shared.has_frames() {
                break;
            }
            let Some(index) = self.starved.pop_front() else { break };
            let slot = &mut self.slots[index as usize];
            slot.queued_starved = false;
            let Some(connection) = &mut slot.connection else { continue };
            if core::mem::take(&mut connection.starved) {
                let readable = connection.is_readable();
                self.serve(index, Ready { readable, writable: true, ..Ready::default() });
            }
        }
        if self.starved.is_empty() {
            self.look_at = Instant::NEVER;
        }
    }

    /// Memory that doesn't come back by itself is taken back (T3). O(connections), once a second while some starve.
    pub(super) fn relieve_at(&mut self, now: Instant) {
        for index in 0..self.slots.len() as u32 {
            let Some(connection) = &mut self.slots[index as usize].connection else { continue };
            if connection.is_too_slow(STALLED, PATIENCE, now) {
                connection.abort();
                self.shared.counters.tcp_abort_on_memory += 1;
                self.finish(index);
            }
        }
    }
}
