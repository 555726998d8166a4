//! How long a connection waits for its peer: after the application has closed, and while others wait for memory.

use byway_tcp::app::Closed;
use byway_tcp::frame::Chunk;
use byway_tcp::time::{Duration, Instant};

use super::connection::Connection;

/// How long a peer that is sent nothing more may keep its side open without sending anything: Linux's tcp_fin_timeout,
/// which only begins when the socket is closed. T5
pub(super) const FIN_TIMEOUT: Duration = Duration::from_secs(60);

impl Connection {
    /// When to look after this connection though nothing happens.
    pub(super) fn deadline(&self) -> Instant {
        let limit = self.linger.map_or(FIN_TIMEOUT, |linger| linger.min(FIN_TIMEOUT));
        let closing = if self.shut { self.moved_at + limit } else { Instant::NEVER };
        self.timer.min(closing)
    }

    /// Ends it if its peer has had time enough since the application closed. Whether the application's timer is due.
    pub(super) fn expire(&mut self, now: Instant) -> bool {
        let due = self.timer <= now;
        if due {
            self.timer = Instant::NEVER;
        }
        if self.deadline() <= now {
            self.over.get_or_insert(Closed::TimedOut);
        }
        due
    }

    /// Whether it holds frames for a peer that has taken nothing for `stalled`, or would need more than `patience` for
    /// them at its pace of that time.
    pub(super) fn is_too_slow(&mut self, stalled: Duration, patience: Duration, now: Instant) -> bool {
        if self.queue.is_empty() {
            return false;
        }
        let (since, before) = self.paced;
        let watched = now.since(since);
        if now.since(self.moved_at) >= stalled || watched < stalled {
            return now.since(self.moved_at) >= stalled;
        }
        let waiting: usize = self.queue.iter().map(Chunk::len).sum();
        let taken = u128::from(self.sent - before);
        self.paced = (now, self.sent);
        waiting as u128 * u128::from(watched.as_millis()) > taken * u128::from(patience.as_millis())
    }
}
