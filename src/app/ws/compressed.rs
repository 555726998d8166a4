//! The part of a [`Session`] that deals with compressed messages (RFC 7692 §6): received octets are inflated where they
//! lie, checked, and deflated again into fresh chunks. It yields to the loop between pieces of `deflate::FRAGMENT`.

use byway_tcp::app::Conn;

use super::super::super::outbox::Outbox;
use super::super::super::rewrite::Rewrite;
use super::super::super::service::Core;
use super::super::deflate::Step;
use super::super::frame::{Opcode, ReplyHeader};
use super::super::mask;
use super::{CloseCode, Session, Turn};

impl Session {
    /// Whether the current frame is one of a compressed message's.
    pub(super) fn is_compressed(&self) -> bool {
        self.frame.is_some_and(|frame| !frame.opcode.is_control())
            && self.message.is_some_and(|message| message.compressed)
    }

    /// Reads on in a compressed message's frame.
    ///
    /// # Errors
    /// Why the peer is to be told Close.
    pub(super) fn turn_compressed<C: Conn>(
        &mut self,
        conn: &mut C,
        input: &mut Option<Rewrite>,
        outbox: &mut Outbox,
        core: &Core,
    ) -> Result<Turn, CloseCode> {
        if input.as_ref().is_some_and(|input| !input.cursors.is_blank()) {
            return Ok(send_replies(conn, input, outbox));
        }
        while core.work.may_go_on() {
            let Some(deflate) = &mut self.deflate else { break };
            if deflate.is_full() {
                self.send_fragment(conn, outbox, core, false);
                return Ok(Turn::Again);
            }
            let Some(frame) = self.frame else { break };
            if frame.left > 0 {
                if !self.inflate(conn, input, core)? {
                    return Ok(Turn::Starved);
                }
            } else if !frame.fin {
                self.frame_ends();
                return Ok(Turn::Again);
            } else if !self.inflate_end(conn, core)? {
                if self.message.is_some_and(|message| message.text) {
                    self.utf8.finish().map_err(|_| CloseCode::DATA)?;
                }
                self.send_fragment(conn, outbox, core, true);
                self.frame_ends();
                return Ok(Turn::Again);
            }
        }
        Ok(Turn::Blocked)
    }

    /// Inflates what has come of the current frame, as far as there is place; `false`: nothing has.
    fn inflate<C: Conn>(
        &mut self,
        conn: &mut C,
        input: &mut Option<Rewrite>,
        core: &Core,
    ) -> Result<bool, CloseCode> {
        let (Some(rewrite), Some(frame), Some(deflate)) = (input, &mut self.frame, &mut self.deflate) else {
            return Ok(false);
        };
        let octets = rewrite.unread_len().min(usize::try_from(frame.left).unwrap_or(usize::MAX));
        if octets == 0 {
            return Ok(false);
        }
        let from = rewrite.cursors.read;
        let buf = &mut conn.bytes_mut(&mut rewrite.chunk)[from..from + octets];
        mask::unmask(&mut buf[self.unmasked..], mask::rotate(frame.key, self.unmasked));
        let Step { used, plain, cost } = deflate.inflate(buf, core.config.limits.message)?;
        if self.message.is_some_and(|message| message.text) {
            self.utf8.push(plain).map_err(|_| CloseCode::DATA)?;
        }
        let made = plain.len();
        if used + made == 0 {
            // It never stands still with input and place; if it ever did, this would go round for ever.
            return Err(CloseCode::DATA);
        }
        core.work.spend(cost);
        conn.note_copied(made);
        rewrite.cursors.skip(used);
        frame.took(used);
        self.unmasked = octets - used;
        Ok(true)
    }

    /// Inflates what is left at the message's end; `false`: nothing.
    fn inflate_end<C: Conn>(&mut self, conn: &mut C, core: &Core) -> Result<bool, CloseCode> {
        let Some(deflate) = &mut self.deflate else { return Ok(false) };
        let Some(Step { plain, cost, .. }) = deflate.inflate_end(core.config.limits.message)? else {
            return Ok(false);
        };
        if self.message.is_some_and(|message| message.text) {
            self.utf8.push(plain).map_err(|_| CloseCode::DATA)?;
        }
        core.work.spend(cost);
        conn.note_copied(plain.len());
        Ok(true)
    }

    /// Sends the answer's next fragment.
    fn send_fragment<C: Conn>(&mut self, conn: &mut C, outbox: &mut Outbox, core: &Core, last: bool) {
        let (Some(deflate), Some(message)) = (&mut self.deflate, self.message) else { return };
        let fragment = deflate.fragment(last);
        let opcode = match (fragment.first, message.text) {
            (false, _) => Opcode::Continuation,
            (true, true) => Opcode::Text,
            (true, false) => Opcode::Binary,
        };
        let header = ReplyHeader::new(last, opcode, fragment.octets.len() as u64);
        let header = if fragment.first && fragment.packed { header.compressed() } else { header };
        core.work.spend(fragment.cost);
        outbox.write(conn, header.as_slice());
        outbox.write_all(conn, fragment.octets);
        conn.note_copied(fragment.octets.len());
    }
}

/// Sends the replies so far, which lie in the frame that is being read, before anything that lies elsewhere.
fn send_replies<C: Conn>(conn: &mut C, input: &mut Option<Rewrite>, outbox: &mut Outbox) -> Turn {
    let Some(rewrite) = input.take() else { return Turn::Again };
    if rewrite.unread_len() == 0 {
        rewrite.finish(conn, outbox);
        return Turn::Again;
    }
    match rewrite.cut(conn, outbox) {
        Ok(rest) => {
            *input = Some(rest);
            Turn::Again
        }
        Err(unchanged) => {
            *input = Some(unchanged);
            Turn::Blocked
        }
    }
}
