//! A segment arrives (RFC 9293 §3.10.7): the RFC's steps, a function each, in its order.

use super::reassembly::Inserted;
use super::state::State;
use super::{Ctx, Tcb, seconds};
use crate::app::Closed;
use crate::counters::DropReason;
use crate::frame::{Chunk, Memory};
use crate::seq::SeqNumber;
use crate::time::{Duration, Instant};
use crate::timer::TimerKind;
use crate::wire::tcp::{Flags, Segment};

/// Why a segment goes no further, and what is answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Disposition {
    /// Nothing is answered.
    Discard(DropReason),
    /// The peer is told where we stand (RFC 9293 §3.10.7.4, RFC 5961).
    ChallengeAck(DropReason),
    /// RST with SEQ = SEG.ACK; our state stays (RFC 9293 §3.10.7.3, SYN-RECEIVED).
    Reset(DropReason),
    /// It has done its work: nothing is answered, and nothing was refused.
    Done,
}

/// How often a segment out of place is answered: Linux's tcp_invalid_ratelimit. Two sides that have lost
/// each other's place would otherwise acknowledge each other for ever (T9).
const CHALLENGE_INTERVAL: Duration = Duration::from_millis(500);

impl Tcb {
    /// Takes a segment and its frame. Returns whether the stack has to answer with RST.
    #[must_use = "RST has to be sent"]
    pub(crate) fn input<M: Memory>(&mut self, seg: &Segment, chunk: Chunk, ctx: &mut Ctx<'_, M>) -> bool {
        let verdict =
            if self.state == State::SynSent { self.syn_sent(seg, ctx) } else { self.synchronized(seg, ctx) };
        match verdict {
            Ok(()) => self.take_text(seg, chunk, ctx),
            Err(disposition) => {
                ctx.pool.release(chunk);
                match disposition {
                    Disposition::Discard(reason) => ctx.counters.drop(reason),
                    Disposition::ChallengeAck(reason) => {
                        ctx.counters.drop(reason);
                        if self.may_challenge(seg, ctx.now) {
                            ctx.counters.tcp_challenge_acks += 1;
                            self.owed.ack = true;
                        }
                    }
                    Disposition::Done => {}
                    Disposition::Reset(reason) => {
                        ctx.counters.drop(reason);
                        return true;
                    }
                }
            }
        }
        false
    }

    /// The same in ESTABLISHED, where none is answered with RST.
    pub(crate) fn input_established<M: Memory>(&mut self, seg: &Segment, chunk: Chunk, ctx: &mut Ctx<'_, M>) {
        debug_assert_eq!(self.state, State::Established);
        let reset = self.input(seg, chunk, ctx);
        debug_assert!(!reset);
    }

    /// Whether a segment out of place is answered now. Limited per connection, so that nobody learns anything
    /// from another connection's answers (RFC 5961 §7, T8). Text and FIN always are: their sender waits.
    fn may_challenge(&mut self, seg: &Segment, now: Instant) -> bool {
        let control = seg.flags.intersects(Flags::SYN | Flags::RST);
        if !control && seg.seg_len() > 0 {
            return true;
        }
        let may = self.challenge_from <= now;
        if may {
            self.challenge_from = now + CHALLENGE_INTERVAL;
        }
        may
    }

    /// RFC 9293 §3.10.7.3: SYN-SENT.
    fn syn_sent<M: Memory>(&mut self, seg: &Segment, ctx: &mut Ctx<'_, M>) -> Result<(), Disposition> {
        let acked = seg.flags.contains(Flags::ACK);
        // First: the ACK bit.
        if acked && !seg.ack.acknowledges(self.snd.iss, self.snd.nxt) {
            return if seg.flags.contains(Flags::RST) {
                Err(Disposition::Discard(DropReason::BadAck))
            } else {
                Err(Disposition::Reset(DropReason::BadAck))
            };
        }
        // Second: the RST bit. S1.5
        if seg.flags.contains(Flags::RST) {
            if !acked {
                return Err(Disposition::Discard(DropReason::BlindReset));
            }
            self.finish(Closed::Reset, ctx);
            return Err(Disposition::Done);
        }
        // Fourth: the SYN bit.
        if !seg.flags.contains(Flags::SYN) {
            return Err(Disposition::Discard(DropReason::TcpFlags));
        }
        let offset = self.timestamps.map_or(0, |ts| ts.offset);
        self.take_syn(seg, offset, ctx);
        self.last_heard = ctx.now;
        if acked {
            self.establish(seg, ctx);
            self.acknowledged(seg, ctx);
            self.owed.ack = true;
        } else if let Some(next) = self.state.syn_received() {
            // Simultaneous open (RFC 9293 §3.5, figure 7, MUST-10). S1.6
            self.enter(next, ctx);
            self.tries = 0;
            self.owed.syn = true;
            return Err(Disposition::Done);
        }
        Ok(())
    }

    /// SYN-RECEIVED, and the SYN comes again.
    fn syn_again<M: Memory>(&mut self, seg: &Segment, ctx: &mut Ctx<'_, M>) -> Result<(), Disposition> {
        let acks = seg.flags.contains(Flags::ACK) && seg.ack == self.snd.iss + 1 && seg.ack == self.snd.nxt;
        if acks {
            // The peer's half of a simultaneous open (RFC 9293 §3.5, figure 7, line 6). S1.6
            self.remember_timestamp(seg, ctx);
            self.last_heard = ctx.now;
            self.owed.ack = true;
            return self.check_ack(seg, ctx);
        }
        self.ecn.on_syn_again(seg);
        // Our SYN-ACK was lost, or this SYN was doubled: once more. S1.4
        self.owed.syn |= self.may_challenge(seg, ctx.now);
        Err(Disposition::Discard(DropReason::Duplicate))
    }

    /// RFC 9293 §3.10.7.4: all other states, steps one to five.
    fn synchronized<M: Memory>(&mut self, seg: &Segment, ctx: &mut Ctx<'_, M>) -> Result<(), Disposition> {
        let syn = seg.flags.contains(Flags::SYN) && !seg.flags.contains(Flags::RST);
        if self.state == State::SynReceived && syn && seg.seq == self.rcv.irs {
            return self.syn_again(seg, ctx);
        }
        self.check_sequence(seg, ctx)?;
        self.check_reset(seg, ctx)?;
        self.check_syn(seg)?;
        self.check_ack(seg, ctx)?;
        // Not before: who only guesses a number in the window mustn't put TS.Recent ahead of the peer's clock (T7).
        self.remember_timestamp(seg, ctx);
        self.last_heard = ctx.now;
        self.tries = 0;
        Ok(())
    }

    /// First step: is any of it inside the receive window? S5.4, T14
    fn check_sequence<M: Memory>(&mut self, seg: &Segment, ctx: &mut Ctx<'_, M>) -> Result<(), Disposition> {
        let rst = seg.flags.contains(Flags::RST);
        if let (Some(ts), Some((value, _))) = (self.timestamps, seg.options.timestamps) {
            let older = (value.wrapping_sub(ts.recent) as i32) < 0;
            if older && !rst && !ts.is_outdated(ctx.now) {
                return Err(Disposition::ChallengeAck(DropReason::Paws));
            }
        }
        let len = seg.seg_len();
        let (nxt, wnd) = (self.rcv.nxt, self.rcv.wnd());
        let acceptable = if len == 0 {
            seg.seq == nxt || seg.seq.in_window(nxt, wnd)
        } else {
            (seg.seq + (len - 1)).in_window(nxt, wnd) || seg.seq.in_window(nxt, wnd)
            // With a closed window ACK, URG and RST still count (RFC 9293 §3.10.7.4).
                || (wnd == 0 && seg.seq == nxt)
        };
        if acceptable {
            return Ok(());
        }
        if rst {
            return Err(Disposition::Discard(DropReason::BlindReset));
        }
        // Not older than any window could explain: the numbers of an impostor are anywhere (T7).
        let old = (seg.seq + len).leq(nxt) && nxt.since(seg.seq) <= u32::from(u16::MAX) << self.rcv.scale;
        if old && len > 0 && !seg.flags.contains(Flags::SYN) {
            self.note_duplicate(text_start(seg), seg.payload.1);
        }
        // Just left of the window: a late ACK, a probe or a keepalive. At its right edge: an ACK of a peer that has used
        // the window up, and some of what it sent is lost. An answer is owed; the acknowledgement still holds.
        let beside = old || (len == 0 && seg.seq == nxt + wnd);
        if beside && seg.flags.contains(Flags::ACK) && !seg.flags.contains(Flags::SYN) {
            let (una, nxt) = (self.snd.una, self.snd.nxt);
            if self.state != State::SynReceived && (seg.ack == una || seg.ack.acknowledges(una, nxt)) {
                self.last_heard = ctx.now;
                self.tries = 0;
                self.acknowledged(seg, ctx);
            }
            return Err(Disposition::ChallengeAck(DropReason::Duplicate));
        }
        Err(Disposition::ChallengeAck(DropReason::OutOfWindow))
    }

    /// Second step, with RFC 5961 §3.2: only the exact number resets, with or without text (RFC 9293 §3.5.3, SHLD-2).
    /// The application hears of it (§3.6, MUST-12). S3.1, T7
    fn check_reset<M: Memory>(&mut self, seg: &Segment, ctx: &mut Ctx<'_, M>) -> Result<(), Disposition> {
        if !seg.flags.contains(Flags::RST) {
            return Ok(());
        }
        if seg.seq != self.rcv.nxt {
            return Err(Disposition::ChallengeAck(DropReason::BlindReset));
        }
        match self.state {
            // RFC 1337: TIME-WAIT isn't cut short. S2.4
            State::TimeWait => return Err(Disposition::Discard(DropReason::TimeWait)),
            // Everything was said already.
            State::Closing | State::LastAck if self.send.is_empty() => self.finish(Closed::Finished, ctx),
            _ => self.finish(Closed::Reset, ctx),
        }
        Err(Disposition::Done)
    }

    /// Fourth step, with RFC 5961 §4: a SYN inside a connection is answered, never obeyed. T7
    fn check_syn(&self, seg: &Segment) -> Result<(), Disposition> {
        if seg.flags.contains(Flags::SYN) {
            return Err(Disposition::ChallengeAck(DropReason::BlindReset));
        }
        Ok(())
    }

    /// TS.Recent (RFC 7323 §4.3): from the segment that spans the last ACK sent, so that a delayed ACK echoes
    /// the first of the segments that it acknowledges.
    fn remember_timestamp<M>(&mut self, seg: &Segment, ctx: &Ctx<'_, M>) {
        if let (Some(ts), Some((value, _))) = (&mut self.timestamps, seg.options.timestamps) {
            let newer = (value.wrapping_sub(ts.recent) as i32) >= 0;
            let last_ack_sent = self.rcv.nxt - self.owed.unacked;
            if seg.seq.leq(last_ack_sent) && (newer || ts.is_outdated(ctx.now)) {
                ts.recent = value;
                ts.recent_at = seconds(ctx.now);
            }
        }
    }

    /// Steps six to eight: the urgent pointer, text, FIN.
    fn take_text<M: Memory>(&mut self, seg: &Segment, mut chunk: Chunk, ctx: &mut Ctx<'_, M>) {
        let (offset, len) = seg.payload;
        if self.over.is_some() && self.state != State::TimeWait {
            ctx.pool.release(chunk);
            return;
        }
        if seg.flags.contains(Flags::FIN) && self.rcv.fin.is_none() {
            let fin = text_start(seg) + len as u32;
            // One octet of sequence space inside the window.
            if fin.since(self.rcv.nxt) <= self.rcv.wnd() {
                self.rcv.fin = Some(fin);
            }
            // Ahead of a hole even a bare FIN is answered at once: it may be the peer's loss probe (RFC 8985 §7.3).
            self.owed.ack |= fin != self.rcv.nxt;
        }
        self.take_marks(seg, ctx);
        self.take_urgent(seg);
        if len == 0 || !self.state.can_receive() {
            if len > 0 {
                // After the peer's FIN there is no more text (RFC 9293 §3.10.7.4, seventh step).
                self.owed.ack = true;
                ctx.counters.drop(DropReason::AfterClose);
            }
            ctx.pool.release(chunk);
        } else {
            chunk.advance(offset);
            chunk.truncate(len);
            let nxt = self.rcv.nxt;
            self.take_payload(text_start(seg), chunk, ctx);
            self.tune_window(seg.options.timestamps, len, self.rcv.nxt.since(nxt), ctx);
        }
        self.check_fin(ctx);
    }

    /// Seventh step: the segment's text.
    fn take_payload<M: Memory>(&mut self, seq: SeqNumber, mut chunk: Chunk, ctx: &mut Ctx<'_, M>) {
        // Nothing beyond the window we advertised (S5.4), and nothing behind FIN.
        let edge = self.rcv.fin.unwrap_or(self.rcv.edge);
        let inside = if edge.lt(seq) { 0 } else { edge.since(seq) as usize };
        if chunk.len() > inside {
            chunk.truncate(inside);
        }
        if chunk.is_empty() || ctx.pool.is_scarce() {
            let reason = if chunk.is_empty() { DropReason::OutOfWindow } else { DropReason::MemoryPressure };
            ctx.pool.release(chunk);
            ctx.counters.drop(reason);
            self.owed.ack = true;
            return;
        }
        if self.state == State::FinWait2 {
            // The peer is alive and still sending: the limit counts from its last word. S2.6
            self.timers.set(TimerKind::FinWait2, ctx.now + ctx.config.fin_timeout);
        }
        let holes = self.recv.has_holes();
        let limit = self.out_of_order_limit(ctx);
        let octets = chunk.len();
        let known = if seq.lt(self.rcv.nxt) { self.rcv.nxt.since(seq) as usize } else { 0 };
        match self.recv.insert(ctx.pool, chunk, seq, self.rcv.nxt, limit) {
            Inserted::InOrder(octets) => {
                self.rcv.nxt += octets;
                let pause = ctx.now.since(self.in_order_at);
                self.in_order_at = ctx.now;
                self.ready.readable = true;
                self.owe_ack(octets, pause, holes, ctx);
            }
            // RFC 9293 §3.10.7.4 (SHLD-31): kept, and answered (MAY-13).
            Inserted::OutOfOrder => {
                ctx.counters.tcp_ofo_queue += 1;
                self.owe_ack_now(ctx);
            }
            Inserted::Dropped(reason) => {
                ctx.counters.drop(reason);
                self.owe_ack_now(ctx);
                if reason == DropReason::Duplicate {
                    self.note_duplicate(seq, octets);
                }
            }
        }
        if known > 0 {
            self.note_duplicate(seq, known.min(octets));
        }
    }

    /// Octets arrived that were here already: the next ACK tells the peer that it sent them needlessly, or that
    /// the network doubled them (RFC 2883). S5.7
    fn note_duplicate(&mut self, start: SeqNumber, octets: usize) {
        if self.sack && octets > 0 {
            self.duplicate = (start, start + octets as u32);
        }
    }

    /// Eighth step: the peer's FIN, once everything before it is here. S2.1
    fn check_fin<M: Memory>(&mut self, ctx: &mut Ctx<'_, M>) {
        if self.rcv.fin != Some(self.rcv.nxt) {
            return;
        }
        let Some(next) = self.state.fin_received() else { return };
        self.rcv.nxt += 1;
        self.rcv.edge = self.rcv.edge.max(self.rcv.nxt);
        self.owed.ack = true;
        self.ready.readable = true;
        if next == State::TimeWait {
            self.enter_time_wait(ctx);
        } else {
            self.enter(next, ctx);
        }
    }
}

/// Sequence number of the first octet of text: SYN comes before it.
fn text_start(seg: &Segment) -> SeqNumber {
    if seg.flags.contains(Flags::SYN) { seg.seq + 1 } else { seg.seq }
}
