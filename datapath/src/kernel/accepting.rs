//! Who is let in: accepting, pausing when there is no place or descriptor, and the last ones before the end.

use byway_tcp::app::{App, Closed, ConnId};
use byway_tcp::time::{Duration, Instant};
use rustix::event::epoll::{self, EventData, EventFlags};

use super::connection::Connection;
use super::event_loop::{EventLoop, LISTENERS, Slot};
use super::listener::{Accepted, Asked};
use super::opening::word;
use crate::clock::Clock;

/// Connections accepted from one listener before it is the others' turn.
const ACCEPTS: usize = 64;
/// As often is each listener asked before it is closed: a backlog of 4,096 whole.
const LAST_ACCEPTS: usize = 4096 / ACCEPTS;
/// Without a descriptor or memory for a connection: when to try again.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// Everything a connection is ever told of: registered once.
pub(super) const INTEREST: EventFlags = EventFlags::IN
    .union(EventFlags::OUT)
    .union(EventFlags::RDHUP)
    .union(EventFlags::PRI)
    .union(EventFlags::ET);

impl<A: App> EventLoop<A> {
    pub(super) fn accept(&mut self, place: usize) {
        for _ in 0..ACCEPTS {
            if self.paused.is_some() {
                return;
            }
            if self.open == self.max_connections {
                self.shared.sockets.accept_full += 1;
                return self.pause_accepting(Instant::NEVER);
            }
            let Some(listener) = self.listeners.get(place) else { return };
            match listener.accept() {
                Asked::Accepted(accepted) => self.admit(accepted),
                Asked::Gone => {}
                Asked::Nobody => return,
                Asked::Short => {
                    self.shared.sockets.accept_failed += 1;
                    return self.pause_accepting(self.shared.now + ACCEPT_AGAIN);
                }
            }
        }
    }

    /// Peers wait in the backlog, and past that for their SYN to be answered; no event repeats itself meanwhile.
    fn pause_accepting(&mut self, until: Instant) {
        self.paused = Some(until);
        self.set_interest(EventFlags::empty());
    }

    pub(super) fn resume_accepting(&mut self) {
        if self.paused.take().is_some() {
            self.set_interest(EventFlags::IN);
        }
    }

    fn set_interest(&self, flags: EventFlags) {
        for (place, listener) in self.listeners.iter().enumerate() {
            let word = EventData::new_u64(LISTENERS | place as u64);
            // It is registered, and changing that takes no memory.
            let _ = epoll::modify(&self.epoll, listener, word, flags);
        }
    }

    fn admit(&mut self, accepted: Accepted) {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            self.slots.len() as u32 - 1
        });
        let generation = self.slots[index as usize].generation;
        let word = EventData::new_u64(word(ConnId { index, generation }));
        let connection = Connection::new(accepted, &mut self.shared);
        if epoll::add(&self.epoll, connection.fd(), word, INTEREST).is_err() {
            // No memory, or max_user_watches reached: nothing would ever be heard of it.
            connection.close(Closed::Aborted, &mut self.shared);
            self.free.push(index);
            return;
        }
        self.open += 1;
        self.shared.sockets.accepted += 1;
        self.shared.counters.tcp_passive_opens += 1;
        self.slots[index as usize].connection = Some(connection);
        self.call(index, |app, conn| app.opened(conn));
        if self.settle(index) {
            self.queue_again(index);
        }
    }

    /// Accepts no more; asks the application to end what there is.
    pub(super) fn drain(&mut self) {
        self.shared.now = Clock.now();
        // Closing a listener resets those that wait in its backlog: they are let in first, to be answered.
        for place in 0..self.listeners.len() {
            for _ in 0..LAST_ACCEPTS {
                self.accept(place);
            }
        }
        self.listeners.clear();
        self.shared.states.listen(0);
        self.paused = None;
        self.draining = true;
        for index in 0..self.slots.len() as u32 {
            if self.is_opening(index) {
                continue;
            }
            self.call(index, |app, conn| app.draining(conn));
            if self.settle(index) {
                self.queue_again(index);
            }
        }
    }
}
