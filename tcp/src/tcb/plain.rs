//! What nearly every segment is: next in order, acknowledging all that is out, on a connection that nothing is wrong
//! with. Van Jacobson's header prediction, both ways.
//!
//! ```text
//!   arrives:  is_expected ──no──→ input (the RFC's steps)          leaves:  output ─→ is it new, whole, and small
//!                  │ yes                                                              enough for the windows?
//!                  └──→ the same outcome, each step without its questions              └─ yes ─→ emit_plain
//! ```
//!
//! Nothing here does anything that the steps wouldn't: the simulator runs every seed with and without it, and the
//! frames are the same to the octet.

use super::congestion::{AckSample, Congestion, Phase};
use super::output::push;
use super::rate::{between, stamp};
use super::state::State;
use super::{Ctx, Tcb, seconds};
use crate::frame::{Chunk, FrameSlice, Memory, Meta, NONE};
use crate::seq::SeqNumber;
use crate::stack::Config;
use crate::timer::TimerKind;
use crate::wire::ip::ECN_CE;
use crate::wire::plain::{Plain, Write, write};
use crate::wire::tcp::Flags;

impl Tcb {
    /// Takes a segment that is as expected. The chunk comes back if it isn't; nothing has changed then.
    #[inline]
    pub(crate) fn take_plain<M: Memory>(
        &mut self,
        seg: &Plain,
        mut chunk: Chunk,
        ctx: &mut Ctx<'_, M>,
    ) -> Result<(), Chunk> {
        if !self.is_expected(seg, ctx) {
            return Err(chunk);
        }
        let moved = self.snd.una != seg.ack;
        // Every ACK of a segment without marks ends what a mark held back.
        self.release();
        self.snd.wnd = u32::from(seg.window) << self.snd.scale;
        self.snd.max_wnd = self.snd.max_wnd.max(self.snd.wnd);
        (self.snd.wl1, self.snd.wl2) = (seg.seq, seg.ack);
        if moved {
            self.acknowledged_in_order(seg.ack, ctx);
        }
        if let (Some(ts), Some((value, _))) = (&mut self.timestamps, seg.timestamps)
            && self.owed.unacked == 0
        {
            (ts.recent, ts.recent_at) = (value, seconds(ctx.now));
        }
        self.last_heard = ctx.now;
        self.tries = 0;
        let (offset, len) = seg.payload;
        if len == 0 {
            ctx.pool.release(chunk);
            return Ok(());
        }
        chunk.advance(usize::from(offset));
        chunk.truncate(usize::from(len));
        let limit = self.out_of_order_limit(ctx);
        self.recv.append_next(ctx.pool, chunk, limit);
        let octets = u32::from(len);
        self.rcv.nxt += octets;
        let pause = ctx.now.since(self.in_order_at);
        self.in_order_at = ctx.now;
        self.ready.readable = true;
        self.owe_ack(octets, pause, false, ctx);
        self.tune_window(seg.timestamps, usize::from(len), octets, ctx);
        Ok(())
    }

    /// Whether the segment is next in order and acknowledges whole segments that are out, or none, and neither side has
    /// anything special under way.
    #[inline]
    fn is_expected<M: Memory>(&self, seg: &Plain, ctx: &Ctx<'_, M>) -> bool {
        let (_, len) = seg.payload;
        let news = len > 0 || seg.ack != self.snd.una;
        let in_place = seg.seq == self.rcv.nxt
            && news
            && u32::from(len) <= self.rcv.wnd()
            && self.state == State::Established;
        let fresh = match (&self.timestamps, seg.timestamps) {
            (Some(ts), Some((value, _))) => (value.wrapping_sub(ts.recent) as i32) >= 0,
            (None, None) => true,
            _ => false,
        };
        let receiving = !self.recv.has_holes() && self.rcv.fin.is_none() && seg.ecn != ECN_CE;
        let sending = self.send.is_plain(ctx.pool)
            && self.recovery.is_quiet(self.snd.una)
            && self.snd.wnd > 0
            // A window that is older says nothing (RFC 9293 §3.10.7.4); SND.WL2 is never ahead of SND.UNA. S5.2
            && self.snd.wl1.leq(seg.seq)
            && self.snd.up.is_none()
            && self.path.is_settled();
        let plain = in_place && fresh && receiving && sending;
        plain && !self.congestion.samples() && !ctx.pool.is_scarce() && self.ends_a_segment(seg.ack, ctx)
    }

    /// Whether `ack` is SND.NXT, or a segment that is out ends there. One that acknowledges nothing while something is
    /// out may be a duplicate.
    #[inline]
    fn ends_a_segment<M: Memory>(&self, ack: SeqNumber, ctx: &Ctx<'_, M>) -> bool {
        let (una, nxt) = (self.snd.una, self.snd.nxt);
        ack == nxt || (ack.acknowledges(una, nxt) && self.send.ends_at(ctx.pool, ack))
    }

    /// Segments up to `ack` arrived, in order, and nothing that was out was sent twice: what
    /// [`acknowledged`](Self::acknowledged) comes to.
    #[inline]
    fn acknowledged_in_order<M: Memory>(&mut self, ack: SeqNumber, ctx: &mut Ctx<'_, M>) {
        // It runs for what was sent before something that arrived, and all of that is here.
        debug_assert!(!self.timers.is_set(TimerKind::Reorder));
        let acked = ack.since(self.snd.una);
        let in_flight_before = self.snd.nxt.since(self.snd.una);
        let limited = self.window_was_used_by(in_flight_before);
        self.snd.una = ack;
        (self.stalled_since, self.progressed) = (ctx.now, ctx.now);
        self.persist_backoff = 0;
        let Some(last) = self.send.acknowledge_whole(ctx.pool, ack) else { return };
        // Of several that arrived, the last has the shortest round trip.
        let rtt = between(last, stamp(ctx.now));
        self.measured(rtt, ctx.now);
        self.recovery.rack.arrived_in_order(last, ack, rtt);
        self.recovery.progressed(ack);
        let sample = AckSample {
            now: ctx.now,
            una: ack,
            nxt: self.snd.nxt,
            mss: u32::from(self.snd.mss),
            acked,
            delivered: acked,
            lost: 0,
            in_flight_before,
            in_flight: in_flight_before - acked,
            limited,
            rtt: Some(rtt),
            srtt: self.rtt.srtt(),
            rate: None,
            phase: Phase::Open,
        };
        self.congestion.on_ack(&sample);
        self.set_pace();
        self.after_progress(ack, ctx);
        self.schedule_probe(ctx);
    }

    /// Sends a frame that is new and whole, and whose checksum is known.
    #[inline]
    pub(super) fn emit_plain<M: Memory>(
        &mut self,
        index: u32,
        meta: &Meta,
        out: &mut Vec<FrameSlice>,
        ctx: &mut Ctx<'_, M>,
    ) {
        let (seq, len) = (SeqNumber(meta.seq), u32::from(meta.len));
        self.answered(ctx.now);
        let (cwr, ecn) = self.ecn.for_data(true);
        let push_flag = if self.send.is_tail(index) { Flags::PSH } else { Flags::NONE };
        let what = Write {
            to: self.hop.station.mac,
            from: ctx.config.mac,
            seq,
            ack: self.rcv.nxt,
            flags: Flags::ACK | push_flag | cwr | self.ecn.echo(),
            window: self.window(ctx),
            timestamps: self.timestamps.map(|ts| (ts.value(ctx.now), ts.recent)),
            traffic_class: self.dscp << 2 | ecn,
            hop_limit: ctx.config.hop_limit,
            tuple: &self.tuple,
        };
        let start = usize::from(meta.start);
        let payload = start..start + usize::from(meta.len);
        let end = payload.end;
        let from = write(ctx.pool.frame_mut(index), payload, u64::from(meta.aux), &what);
        ctx.pool.transmit_parked(index);
        push(out, ctx, index, from, end);
        self.send.sent_first(ctx.pool, index, stamp(ctx.now));
        self.recovery.on_send(len);
        self.paced(len, ctx.now);
        self.after_sending(seq + len, ctx);
    }

    /// Whether [`emit_plain`](Self::emit_plain) is enough for a frame that may be sent whole.
    #[inline]
    pub(super) fn is_plain(&self, meta: &Meta, config: &Config) -> bool {
        let untagged = self.hop.station.vlan.as_slice().is_empty();
        meta.sent == 0
            && meta.aux != NONE
            && untagged
            && !self.fin_queued
            && self.snd.up.is_none()
            && !self.congestion.samples()
            && config.prediction
    }
}
