//! The end: what was measured is over, and connections are closed.
//!
//! A few at a time, as they were opened: a hundred thousand FINs at once overrun either side's rings, and a server that
//! misses both FIN and RST keeps the connection for hours.

use std::sync::atomic::Ordering;

use byway_tcp::app::{Conn, Opener, Ready};
use byway_tcp::time::Duration;

use super::super::job::Protocol;
use super::{Load, OPENING_MAX, PARTING, Phase, Stage};

/// How long that may take: 64 at once are 100,000 if a round trip takes 3 ms. What is open then is closed at once.
const LEAVING: Duration = Duration::from_secs(5);

impl Load {
    /// Whether what happens is still of interest.
    pub(super) fn counts(&self) -> bool {
        !matches!(self.stage, Stage::Leaving { .. } | Stage::Done)
    }

    /// What counted, counted.
    pub(super) fn finish(&mut self) {
        if self.progress.measuring.load(Ordering::Relaxed) {
            let until = self.now.min(self.end).max(self.last_answer);
            self.report.elapsed = until.since(self.began);
        }
        self.progress.tell(&self.report, self.open);
        self.stage = Stage::Leaving { until: self.now + LEAVING };
    }

    /// Nothing is left to be done here.
    pub(super) fn end(&mut self) {
        self.stage = Stage::Done;
        self.progress.done.store(true, Ordering::Release);
    }

    /// Whether nobody waits to be closed, or for the server's answer to that.
    pub(super) fn has_left(&self) -> bool {
        self.leaving == 0 && self.idle.is_empty()
    }

    pub(super) fn may_leave(&self) -> bool {
        self.leaving < OPENING_MAX && !self.idle.is_empty()
    }

    /// Has connections closed that have nothing to say.
    pub(super) fn leave<O: Opener>(&mut self, opener: &mut O) {
        while self.may_leave() {
            let Some(at) = self.next_idle() else { return };
            self.places[at as usize].phase = Phase::Leaving;
            self.open -= 1;
            self.leaving += 1;
            self.wake(at, opener);
        }
    }

    pub(super) fn take_leave<C: Conn>(&mut self, conn: &mut C, ready: Ready) {
        if ready.woken {
            if self.job.protocol == Protocol::WebSocket {
                self.say_close(conn)
            } else {
                conn.shutdown()
            }
            conn.set_timer(Some(self.now + PARTING));
        }
        self.part(conn, ready.timer);
    }
}
