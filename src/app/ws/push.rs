//! What a WebSocket is told without being asked: `/ticker` and `/feed`.

use byway_tcp::app::Conn;
use byway_tcp::time::{Duration, Instant};

use super::super::outbox::Outbox;
use super::super::service::Core;
use super::super::stats::Feed;
use super::frame::{Opcode, ReplyHeader};

/// Pushes a message each period (S9.3).
#[derive(Debug)]
pub(in crate::app) struct Push {
    opened: Instant,
    period: Duration,
    pub(super) next: Instant,
    /// A message is to be sent as soon as it doesn't land inside another.
    pub(super) due: bool,
    count: u64,
    feed: Option<Feed>,
}

impl Push {
    /// Counts the ticks.
    pub(in crate::app) fn ticks(now: Instant, period: Duration) -> Self {
        let period = period.max(Duration::from_millis(1));
        Self { opened: now, period, next: now + period, due: false, count: 0, feed: None }
    }

    /// Tells what `/stats` tells, and how this connection stands.
    pub(in crate::app) fn stats(now: Instant, period: Duration, feed: Feed) -> Self {
        Self { feed: Some(feed), ..Self::ticks(now, period) }
    }

    /// Time has passed: a message may fall due. However many periods it was, it is one message.
    pub(super) fn clock(&mut self, now: Instant) {
        while self.next <= now {
            self.due = true;
            self.next = self.next + self.period;
        }
    }

    /// Says the message that is due.
    pub(super) fn say<C: Conn>(&mut self, conn: &mut C, outbox: &mut Outbox, core: &Core) {
        self.due = false;
        self.count += 1;
        if let Some(feed) = &self.feed {
            let now = (self.count, self.period);
            feed.message(&core.feeds, conn, now, |conn, own, all| say(conn, outbox, &[own, all, "}"]));
        } else {
            let seconds = conn.now().since(self.opened).as_secs();
            say(conn, outbox, &[&format!("{{\"tick\":{},\"seconds\":{seconds}}}", self.count)]);
        }
    }
}

/// One message, of parts.
fn say<C: Conn>(conn: &mut C, outbox: &mut Outbox, parts: &[&str]) {
    let len: usize = parts.iter().map(|part| part.len()).sum();
    outbox.write(conn, ReplyHeader::new(true, Opcode::Text, len as u64).as_slice());
    for part in parts {
        outbox.write_all(conn, part.as_bytes());
    }
}
