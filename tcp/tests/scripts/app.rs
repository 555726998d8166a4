//! The application of a script: it does nothing by itself but remember, until the script says otherwise.

use std::collections::BTreeMap;
use std::fmt;

use byway_tcp::app::{App, Closed, Conn, ConnId, Ready};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    Opened,
    Readable,
    Writable,
    Eof,
    Urgent,
    Trouble,
    Closed(Closed),
}

impl Event {
    pub fn named(name: &str, detail: Option<&str>) -> Option<Self> {
        Some(match (name, detail) {
            ("opened", None) => Self::Opened,
            ("readable", None) => Self::Readable,
            ("writable", None) => Self::Writable,
            ("eof", None) => Self::Eof,
            ("urgent", None) => Self::Urgent,
            ("trouble", None) => Self::Trouble,
            ("closed", Some("finished")) => Self::Closed(Closed::Finished),
            ("closed", Some("reset")) => Self::Closed(Closed::Reset),
            ("closed", Some("timed_out")) => Self::Closed(Closed::TimedOut),
            ("closed", Some("unreachable")) => Self::Closed(Closed::Unreachable),
            ("closed", Some("aborted")) => Self::Closed(Closed::Aborted),
            _ => return None,
        })
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Opened => "opened",
            Self::Readable => "readable",
            Self::Writable => "writable",
            Self::Eof => "eof",
            Self::Urgent => "urgent",
            Self::Trouble => "trouble",
            Self::Closed(Closed::Finished) => "closed finished",
            Self::Closed(Closed::Reset) => "closed reset",
            Self::Closed(Closed::TimedOut) => "closed timed_out",
            Self::Closed(Closed::Unreachable) => "closed unreachable",
            Self::Closed(Closed::Aborted) => "closed aborted",
        })
    }
}

/// What the application of one connection has seen.
#[derive(Debug, Default)]
pub struct Seen {
    pub id: Option<ConnId>,
    /// Not yet mentioned by the script, oldest first.
    pub events: Vec<Event>,
    /// Octets read, as they came.
    pub read: Vec<u8>,
    /// Reads whatever comes, at once.
    pub reads: bool,
    eof: bool,
}

impl Seen {
    fn hears(&mut self, event: Event) {
        if self.events.last() != Some(&event) {
            self.events.push(event);
        }
    }

    /// Takes chunks until there are `limit` octets or nothing is left; how many octets it took.
    pub fn take<C: Conn + ?Sized>(&mut self, conn: &mut C, limit: usize) -> usize {
        let before = self.read.len();
        while self.read.len() - before < limit
            && let Some(chunk) = conn.recv()
        {
            self.read.extend_from_slice(conn.bytes(&chunk));
            conn.release(chunk);
        }
        if conn.recv_finished() && !self.eof {
            self.eof = true;
            self.hears(Event::Eof);
        }
        self.read.len() - before
    }
}

/// The application of all connections of a script, by the peer's port.
#[derive(Debug, Default)]
pub struct Recorder {
    pub seen: BTreeMap<u16, Seen>,
    /// Connections that were told to set this when they open.
    pub nodelay: bool,
}

impl Recorder {
    pub fn of(&mut self, peer_port: u16) -> &mut Seen {
        self.seen.entry(peer_port).or_default()
    }
}

impl App for Recorder {
    fn opened<C: Conn>(&mut self, conn: &mut C) {
        conn.set_nodelay(self.nodelay);
        let id = conn.id();
        let seen = self.of(conn.peer().port());
        // What an earlier connection of the same pair has left to be mentioned stays.
        *seen = Seen {
            id: Some(id),
            events: core::mem::take(&mut seen.events),
            reads: seen.reads,
            ..Seen::default()
        };
        seen.hears(Event::Opened);
    }

    fn ready<C: Conn>(&mut self, conn: &mut C, ready: Ready) {
        let seen = self.of(conn.peer().port());
        if ready.writable {
            seen.hears(Event::Writable);
        }
        if ready.trouble {
            seen.hears(Event::Trouble);
        }
        if ready.urgent {
            seen.hears(Event::Urgent);
        }
        if ready.readable {
            seen.hears(Event::Readable);
            let limit = if seen.reads { usize::MAX } else { 0 };
            seen.take(conn, limit);
        }
    }

    fn closed<C: Conn>(&mut self, conn: &mut C, reason: Closed) {
        let seen = self.of(conn.peer().port());
        if seen.reads {
            seen.take(conn, usize::MAX);
        }
        seen.hears(Event::Closed(reason));
        seen.id = None;
    }
}
