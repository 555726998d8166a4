//! Urgent data (RFC 9293 §3.8.5, RFC 6093): a pointer into the stream, no stream of its own. S4.3
//!
//! ```text
//!   read   RCV.NXT          RCV.UP                     SEG.SEQ        SND.UP
//!   ──┴───────┴────────────────┴────→                  ───┴─────────────┴────→
//!     └── urgent: so many octets ──┘                      └ urgent pointer ─┘
//! ```
//!
//! Both point behind the last urgent octet (MUST-62), however far that is (MUST-31).

use super::Tcb;
use crate::seq::SeqNumber;
use crate::wire::tcp::{Flags, Segment};

impl Tcb {
    /// The next octet that the application reads.
    fn next_read(&self) -> SeqNumber {
        let fin = self.rcv.fin.is_some_and(|fin| fin.lt(self.rcv.nxt));
        self.rcv.nxt - u32::from(fin) - self.recv.bytes()
    }

    /// RFC 9293 §3.10.7.4, sixth step: the application hears of urgent data, and of more of it (MUST-32). The pointer
    /// is only a number to compare with, whatever it is (T18); it counts with our window closed, too (MUST-66).
    pub(super) fn take_urgent(&mut self, seg: &Segment) {
        if !seg.flags.contains(Flags::URG) || !self.state.can_receive() {
            return;
        }
        let up = seg.seq + u32::from(seg.urgent);
        if self.rcv.up.unwrap_or(self.next_read()).lt(up) {
            self.rcv.up = Some(up);
            self.ready.urgent = true;
        }
    }

    /// What was read isn't urgent any more.
    pub(super) fn urgent_was_read(&mut self) {
        if let Some(up) = self.rcv.up
            && up.leq(self.next_read())
        {
            self.rcv.up = None;
        }
    }

    pub(crate) fn urgent(&self) -> Option<u32> {
        self.rcv.up.map(|up| up.since(self.next_read()))
    }

    /// Everything queued so far is urgent.
    pub(crate) fn send_urgent(&mut self) {
        let end = self.send.end();
        self.snd.up = (self.snd.una.lt(end) && self.state.can_send()).then_some(end);
    }

    /// URG and the pointer of a segment at `seq`. One that lies further ahead than 16 bits reach says that much;
    /// a later segment says the rest.
    pub(super) fn urgent_ahead(&self, seq: SeqNumber) -> (Flags, u16) {
        match self.snd.up {
            Some(up) if seq.lt(up) => (Flags::URG, u16::try_from(up.since(seq)).unwrap_or(u16::MAX)),
            _ => (Flags::NONE, 0),
        }
    }
}
