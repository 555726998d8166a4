//! What is sent now: retransmissions, new data as the windows allow, FIN, ACK.
//!
//! ```text
//!   SND.UNA            SND.NXT          SND.UNA + min(SND.WND, …)
//!      │ sent, not acked  │ may be sent       │ may not be sent
//!   ───┴──────────────────┴───────────────────┴──────────→        S5.1
//!      └ LOST first ┘      └ cwnd − in flight ┘
//! ```
//!
//! The headers are written in front of the payload, in the frame it lies in.

use core::net::IpAddr;

use super::congestion::Congestion;
use super::rate::stamp;
use super::send_queue::SACKED;
use super::state::State;
use super::{Ctx, Tcb};
use crate::frame::{FrameSlice, MAX_HEADERS, Memory, NONE, Owner};
use crate::neighbor::Station;
use crate::seq::SeqNumber;
use crate::timer::TimerKind;
use crate::wire::tcp::{Emit, Flags, Options, SackBlocks};
use crate::wire::{checksum, ethernet, ip};

/// Segments one connection may send before the next one's turn: a whole initial window (RFC 6928) and
/// some, without holding up the others for longer than about ten microseconds.
const QUANTUM: usize = 16;

/// What stopped the output of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Output {
    /// There is nothing more to send for now.
    Done,
    /// Its turn is over, or the port is full.
    More,
}

/// What may be done with the next unsent frame.
enum Next {
    Send,
    /// Send only its first so many octets. The frame stays the next unsent one, and the acknowledgement
    /// of the part cuts it: the rest's headers can't be written before the part is out of the way.
    Part(u16),
    Wait,
}

impl Tcb {
    /// Appends at most `room` frames to `out`.
    pub(crate) fn output<M: Memory>(
        &mut self,
        room: usize,
        out: &mut Vec<FrameSlice>,
        ctx: &mut Ctx<'_, M>,
    ) -> Output {
        let full = out.len() + room.min(QUANTUM);
        match self.state {
            State::Closed | State::Listen => return Output::Done,
            State::SynSent | State::SynReceived => {
                if self.owed.syn && !self.emit_syn(out, ctx) {
                    return Output::More;
                }
                // SYN-RECEIVED answers what is out of place like any synchronized state.
                if self.owed.ack && !self.emit_ack(out, ctx) {
                    return Output::More;
                }
                return Output::Done;
            }
            _ => {}
        }
        self.restart_after_idle(ctx);
        if self.owed.ack && (self.recv.has_holes() || self.duplicate.0 != self.duplicate.1) {
            // A duplicate ACK carries no data (RFC 5681 §2), and SACK blocks need the room.
            self.emit_ack(out, ctx);
        }
        if self.owed.probe {
            if out.len() >= full {
                return Output::More;
            }
            self.owed.probe = false;
            self.emit_bare(self.snd.una - 1, Flags::ACK, out, ctx);
        }
        if self.owed.loss_probe {
            if out.len() >= full {
                return Output::More;
            }
            self.owed.loss_probe = false;
            self.emit_loss_probe(out, ctx);
        }
        let output = self.output_data(full, out, ctx);
        self.note_pause(output == Output::More);
        if output == Output::More {
            return Output::More;
        }
        if self.fin_is_due() && (self.fin_sent || self.fits_window(self.send.end())) {
            if out.len() >= full {
                return Output::More;
            }
            self.emit_fin(out, ctx);
        }
        self.window_update_if_due(ctx);
        if self.owed.ack && (out.len() >= full || !self.emit_ack(out, ctx)) {
            return Output::More;
        }
        self.delay_ack(ctx.now);
        self.arm_persist(ctx);
        Output::Done
    }

    /// Lost segments first, then new ones, unless F-RTO asks for the contrary; each at its time.
    fn output_data<M: Memory>(
        &mut self,
        full: usize,
        out: &mut Vec<FrameSlice>,
        ctx: &mut Ctx<'_, M>,
    ) -> Output {
        while let Some(index) = self.next_lost(ctx) {
            if !self.recovery.retransmit_now() && self.must_wait(ctx) {
                return Output::Done;
            }
            if out.len() >= full {
                return Output::More;
            }
            if !self.retransmit(index, out, ctx) {
                return Output::Done;
            }
        }
        if self.send.lost > 0 && !self.recovery.prefers_new() {
            return Output::Done;
        }
        while let Some(index) = self.send.unsent() {
            if self.must_wait(ctx) {
                return Output::Done;
            }
            if out.len() >= full {
                return Output::More;
            }
            if !self.send_next(index, out, ctx) {
                return Output::Done;
            }
        }
        if self.congestion.samples() {
            self.note_app_limited();
        }
        Output::Done
    }

    /// Nothing more to send, and room in the window: the rate that is measured is the application's.
    fn note_app_limited(&mut self) {
        let flight = self.in_flight();
        if flight < self.send_window()
            && let Some(rate) = self.congestion.sampler()
        {
            rate.on_app_limited(flight);
        }
    }

    /// RFC 5681 §4.1: after an idle RTO the old window says nothing about the path any more.
    fn restart_after_idle<M: Memory>(&mut self, ctx: &Ctx<'_, M>) {
        let idle = ctx.now.since(self.last_sent);
        if self.snd.una == self.snd.nxt && idle > self.rtt.rto() && self.send.unsent().is_some() {
            self.congestion.on_idle(ctx.now, idle, u32::from(self.snd.mss));
        }
    }

    /// The first LOST segment, if the window allows it; one is always allowed when nothing is in flight.
    fn next_lost<M: Memory>(&mut self, ctx: &Ctx<'_, M>) -> Option<u32> {
        if self.send.lost == 0 || self.recovery.prefers_new() || self.recovery.waits_for_word() {
            return None;
        }
        let index = self.send.first_lost(ctx.pool)?;
        let flight = self.in_flight();
        let len = u32::from(ctx.pool.meta(index).len);
        let allowed = flight == 0 || self.recovery.retransmit_now() || flight + len <= self.send_window();
        allowed.then_some(index)
    }

    /// Sends a LOST segment. False when it can't be sent now.
    fn retransmit<M: Memory>(&mut self, index: u32, out: &mut Vec<FrameSlice>, ctx: &mut Ctx<'_, M>) -> bool {
        if ctx.pool.owner(index) == Owner::TxRing {
            // It hasn't left this host yet; sending it twice wouldn't help. The timer comes back.
            return false;
        }
        if !self.fit_to_path(index, ctx) {
            return false;
        }
        ctx.counters.tcp_retrans_segs += 1;
        self.retransmits += 1;
        self.recovery.on_retransmit(self.timestamps.map(|timestamps| timestamps.value(ctx.now)));
        let whole = ctx.pool.meta(index).len;
        self.emit_data(index, whole, out, ctx);
        true
    }

    /// RFC 8985 §7.3: a new segment if there is one and the peer's window lets it through, else the last one again.
    /// The congestion window isn't asked.
    fn emit_loss_probe<M: Memory>(&mut self, out: &mut Vec<FrameSlice>, ctx: &mut Ctx<'_, M>) {
        let new = self.send.unsent().filter(|&index| {
            let meta = ctx.pool.meta(index);
            let end = SeqNumber(meta.seq).since(self.snd.una) + u32::from(meta.len);
            meta.sent == 0 && end <= self.snd.wnd
        });
        let last = self.send.last_sent().filter(|&index| ctx.pool.meta(index).flags & SACKED == 0);
        let Some(index) = new.or(last) else {
            // Only FIN is out, if anything.
            self.owed.fin |= self.fin_sent;
            return self.probe_sent(true, ctx);
        };
        if ctx.pool.owner(index) == Owner::TxRing || !self.fit_to_path(index, ctx) {
            return;
        }
        let again = new.is_none();
        if again {
            ctx.counters.tcp_retrans_segs += 1;
            self.retransmits += 1;
        }
        let whole = ctx.pool.meta(index).len;
        self.emit_data(index, whole, out, ctx);
        self.probe_sent(again, ctx);
    }

    /// Sends the next new segment if it may. False when it has to wait.
    fn send_next<M: Memory>(&mut self, index: u32, out: &mut Vec<FrameSlice>, ctx: &mut Ctx<'_, M>) -> bool {
        if ctx.pool.owner(index) == Owner::TxRing {
            // A part of it is still on its way out of this host.
            return false;
        }
        if !self.fit_to_path(index, ctx) {
            return false;
        }
        let next = self.next_segment(index, ctx);
        if matches!(next, Next::Wait) {
            return false;
        }
        self.owed.override_sws = false;
        self.owed.part_again = false;
        let meta = *ctx.pool.meta(index);
        match next {
            Next::Send if self.is_plain(&meta, ctx.config) => self.emit_plain(index, &meta, out, ctx),
            Next::Part(octets) => self.emit_data(index, octets, out, ctx),
            _ => self.emit_data(index, meta.len, out, ctx),
        }
        true
    }

    /// Whether the next new segment fits the windows, silly-window avoidance and Nagle.
    fn next_segment<M: Memory>(&mut self, index: u32, ctx: &Ctx<'_, M>) -> Next {
        let meta = ctx.pool.meta(index);
        let len = u32::from(meta.len);
        let mss = u32::from(self.snd.mss);
        let flight = self.in_flight();
        self.cwnd_limited = flight > 0 && !self.owed.part_again && flight + len > self.send_window();
        if self.cwnd_limited {
            return Next::Wait;
        }
        let offset = SeqNumber(meta.seq).since(self.snd.una);
        let usable = self.snd.wnd.saturating_sub(offset);
        if usable < len {
            // RFC 9293 §3.8.6.2.1 (MUST-38): a part only if it is half the largest window, or when the
            // override timer says so. S5.2
            let worthwhile = usable >= mss || usable >= (self.snd.max_wnd / 2).max(1);
            let nothing_out = self.snd.una == self.snd.nxt && (worthwhile || self.owed.override_sws);
            return if usable > 0 && (nothing_out || self.owed.part_again) {
                Next::Part(usable as u16)
            } else {
                Next::Wait
            };
        }
        // RFC 9293 §3.7.4 (Nagle, SHLD-7): a small last segment waits for what is out, and no longer (§3.9.1.2,
        // MUST-60); not if the application doesn't want it (MUST-17). S8.1
        let small = len < mss && self.send.is_tail(index);
        if small && !self.nodelay && !self.fin_queued && self.snd.una != self.snd.nxt {
            return Next::Wait;
        }
        Next::Send
    }

    /// Writes the headers in front of a parked payload's first `octets` and hands the frame to the port.
    fn emit_data<M: Memory>(
        &mut self,
        index: u32,
        octets: u16,
        out: &mut Vec<FrameSlice>,
        ctx: &mut Ctx<'_, M>,
    ) {
        let meta = *ctx.pool.meta(index);
        let whole = octets == meta.len;
        let seq = SeqNumber(meta.seq);
        let end = seq + u32::from(octets);
        let mut flags = Flags::ACK;
        if self.send.is_tail(index) && whole {
            // The last segment of what was written (RFC 9293 §3.9.1, MUST-61). S4.4
            flags |= Flags::PSH;
            if self.fin_queued && (self.fin_sent || self.fits_window(end)) {
                flags |= Flags::FIN;
            }
        }
        let new = self.snd.nxt.leq(seq);
        if new {
            self.answered(ctx.now);
        }
        let (cwr, ecn) = self.ecn.for_data(new);
        flags |= cwr;
        let options = self.options(ctx, false);
        let start = usize::from(meta.start);
        let payload = start..start + usize::from(octets);
        let header = self.header(seq, flags, &options, ctx);
        let envelope = self.envelope(ecn, ctx);
        let frame = ctx.pool.frame_mut(index);
        let known = whole && meta.aux != NONE;
        let sum = if known { u64::from(meta.aux) } else { checksum::sum(&frame[payload.clone()]) };
        let from = write_headers(&header, &envelope, frame, payload.clone(), sum);
        ctx.pool.transmit_parked(index);
        push(out, ctx, index, from, payload.end);
        let flight = self.in_flight();
        if let Some(rate) = self.congestion.sampler() {
            let record = rate.on_send(flight, u32::from(octets), stamp(ctx.now));
            ctx.pool.transmission_mut(index).record = record;
        }
        self.send.sent(ctx.pool, index, whole, stamp(ctx.now));
        self.recovery.on_send(u32::from(octets));
        self.paced(u32::from(octets), ctx.now);
        let mut reached = end;
        if flags.contains(Flags::FIN) {
            reached += 1;
            self.fin_sent = true;
            self.owed.fin = false;
        }
        self.after_sending(reached, ctx);
        if meta.sent > 0 {
            self.recovery.sent_again(self.snd.nxt);
        }
    }

    /// SND.NXT, the retransmission timer, and the ACK that rode along.
    pub(super) fn after_sending<M>(&mut self, reached: SeqNumber, ctx: &mut Ctx<'_, M>) {
        // What runs with nothing out has only stood in for a next hop to be found.
        let first = self.snd.una == self.snd.nxt;
        if first {
            self.stalled_since = ctx.now;
        }
        self.snd.nxt = self.snd.nxt.max(reached);
        self.last_sent = ctx.now;
        // RFC 6298 §5.1
        if first || !self.timers.is_set(TimerKind::Retransmit) {
            self.timers.set(TimerKind::Retransmit, ctx.now + self.rtt.rto());
        }
        self.timers.clear(TimerKind::Persist);
        self.schedule_probe(ctx);
        self.acked_by_sending();
    }

    fn acked_by_sending(&mut self) {
        self.owed.ack = false;
        self.owed.unacked = 0;
        self.was_read = false;
        self.timers.clear(TimerKind::DelayedAck);
    }

    /// SYN, or SYN-ACK. False when no frame is free.
    fn emit_syn<M: Memory>(&mut self, out: &mut Vec<FrameSlice>, ctx: &mut Ctx<'_, M>) -> bool {
        let answer = self.state == State::SynReceived;
        let mut flags = Flags::SYN | self.ecn.syn_flags(answer, self.snd.nxt == self.snd.iss);
        if answer {
            flags |= Flags::ACK;
        }
        if !self.emit_bare(self.snd.iss, flags, out, ctx) {
            return false;
        }
        self.owed.syn = false;
        self.owed.ack = false;
        let first = self.snd.nxt == self.snd.iss;
        if first {
            self.snd.nxt = self.snd.iss + 1;
        } else {
            ctx.counters.tcp_retrans_segs += 1;
            self.retransmits += 1;
        }
        self.last_sent = ctx.now;
        // A SYN that is repeated again and again doesn't put off the end of its connection (T5).
        if first || !self.timers.is_set(TimerKind::Retransmit) {
            self.timers.set(TimerKind::Retransmit, ctx.now + self.rtt.rto());
        }
        true
    }

    /// Whether the window reaches beyond `seq`: FIN takes an octet of it (RFC 9293 §3.4).
    fn fits_window(&self, seq: SeqNumber) -> bool {
        seq.in_window(self.snd.una, self.snd.wnd)
    }

    /// Everything before FIN has been sent, without it.
    pub(super) fn fin_is_due(&self) -> bool {
        let due = self.fin_queued && (!self.fin_sent || self.owed.fin);
        due && self.send.unsent().is_none() && self.over.is_none()
    }

    /// FIN by itself. S2.1
    fn emit_fin<M: Memory>(&mut self, out: &mut Vec<FrameSlice>, ctx: &mut Ctx<'_, M>) {
        let fin = self.send.end();
        if self.emit_bare(fin, Flags::FIN | Flags::ACK, out, ctx) {
            if self.owed.fin {
                ctx.counters.tcp_retrans_segs += 1;
                self.retransmits += 1;
            }
            self.fin_sent = true;
            self.owed.fin = false;
            self.after_sending(fin + 1, ctx);
        }
    }

    fn emit_ack<M: Memory>(&mut self, out: &mut Vec<FrameSlice>, ctx: &mut Ctx<'_, M>) -> bool {
        // Right of its window a peer wouldn't even look at the acknowledgement: after a window that shrank, the
        // number is the last one that the peer takes. S5.4
        let edge = self.snd.una + self.snd.wnd;
        let seq = if edge.lt(self.snd.nxt) { edge } else { self.snd.nxt };
        if !self.emit_bare(seq, Flags::ACK, out, ctx) {
            return false;
        }
        self.acked_by_sending();
        true
    }

    /// A segment without text. False when no frame is free.
    fn emit_bare<M: Memory>(
        &mut self,
        seq: SeqNumber,
        flags: Flags,
        out: &mut Vec<FrameSlice>,
        ctx: &mut Ctx<'_, M>,
    ) -> bool {
        let Some(chunk) = ctx.pool.alloc(Owner::Control) else { return false };
        let options =
            if flags.contains(Flags::SYN) { self.syn_options(ctx) } else { self.options(ctx, true) };
        let header = self.header(seq, flags, &options, ctx);
        let envelope = self.envelope(0, ctx);
        let index = chunk.index();
        let frame = ctx.pool.frame_mut(index);
        let from = write_headers(&header, &envelope, frame, MAX_HEADERS..MAX_HEADERS, 0);
        let slice = ctx.pool.transmit_once(chunk, from..MAX_HEADERS);
        push(out, ctx, slice.index, from, MAX_HEADERS);
        true
    }

    fn header<'a, M: Memory>(
        &mut self,
        seq: SeqNumber,
        flags: Flags,
        options: &'a Options,
        ctx: &Ctx<'_, M>,
    ) -> Emit<'a> {
        let window = if flags.contains(Flags::SYN) { self.syn_window(ctx) } else { self.window(ctx) };
        let ack = if flags.contains(Flags::ACK) { self.rcv.nxt } else { SeqNumber(0) };
        let opens = flags.intersects(Flags::SYN | Flags::RST);
        let echo = if opens { Flags::NONE } else { self.ecn.echo() };
        let (urg, urgent) = if opens { (Flags::NONE, 0) } else { self.urgent_ahead(seq) };
        Emit {
            src_port: self.tuple.local_port,
            dst_port: self.tuple.remote_port,
            seq,
            ack,
            flags: flags | echo | urg,
            window,
            urgent,
            options,
        }
    }

    fn envelope<M>(&self, ecn: u8, ctx: &Ctx<'_, M>) -> Envelope {
        let (src, dst) = (self.tuple.local_ip, self.tuple.remote_ip);
        let Station { mac, vlan } = self.hop.station;
        let ethertype = if dst.is_ipv4() { ethernet::IPV4 } else { ethernet::IPV6 };
        let link = ethernet::Header { dst: mac, src: ctx.config.mac, vlan, ethertype };
        // RFC 9293 §3.9.1.9 (SHLD-22), §3.9.2 (MUST-49).
        Envelope { link, src, dst, traffic_class: self.dscp << 2 | ecn, hop_limit: ctx.config.hop_limit }
    }

    /// RFC 7323 §3.2: timestamps in every segment once negotiated; SACK blocks where there is room.
    fn options<M: Memory>(&mut self, ctx: &mut Ctx<'_, M>, with_sack: bool) -> Options {
        let mut sack = SackBlocks::default();
        if with_sack && self.sack {
            // The first block may tell of what arrived twice (RFC 2883 §4).
            let (start, end) = self.duplicate;
            if start != end {
                self.duplicate.0 = end;
                ctx.counters.tcp_dsack_sent += 1;
                sack.push(start, end);
            }
            for (start, end) in self.recv.sack_blocks(ctx.pool).take(4) {
                sack.push(start, end);
            }
        }
        Options {
            timestamps: self.timestamps.map(|ts| (ts.value(ctx.now), ts.recent)),
            sack,
            ..Options::default()
        }
    }

    /// MSS in every SYN (RFC 9293 §3.7.1, MUST-14, SHLD-5, MAY-3), and in nothing else (MUST-65).
    fn syn_options<M: Memory>(&self, ctx: &Ctx<'_, M>) -> Options {
        let active = self.state == State::SynSent;
        Options {
            mss: Some(ctx.config.mss(&self.tuple)),
            window_scale: self.scaling.then_some(self.rcv.scale),
            sack_permitted: self.sack,
            timestamps: self.timestamps.map(|ts| (ts.value(ctx.now), if active { 0 } else { ts.recent })),
            sack: SackBlocks::default(),
        }
    }

    /// Data waits, nothing is out, and the window doesn't let it go: ask from time to time. S5.3
    fn arm_persist<M: Memory>(&mut self, ctx: &mut Ctx<'_, M>) {
        let nothing_out = self.snd.una == self.snd.nxt;
        let stuck = nothing_out && (self.send.unsent().is_some() || self.fin_is_due());
        if stuck && !self.timers.is_set(TimerKind::Persist) {
            if self.persist_backoff == 0 {
                self.stalled_since = ctx.now;
            }
            let at = self.by_patience(ctx.now + self.persist_interval(), ctx.config);
            self.timers.set(TimerKind::Persist, at);
        }
    }

    /// RST for the other side, now (RFC 9293 §3.10.5). S3.1
    pub(crate) fn emit_reset_if_owed<M: Memory>(&mut self, out: &mut Vec<FrameSlice>, ctx: &mut Ctx<'_, M>) {
        let owed = core::mem::take(&mut self.owed.reset);
        if owed && self.emit_bare(self.snd.nxt, Flags::RST | Flags::ACK, out, ctx) {
            ctx.counters.tcp_out_rsts += 1;
        }
    }
}

/// What the headers around a segment say.
struct Envelope {
    link: ethernet::Header,
    src: IpAddr,
    dst: IpAddr,
    /// DSCP and ECN.
    traffic_class: u8,
    hop_limit: u8,
}

fn write_headers(
    header: &Emit<'_>,
    envelope: &Envelope,
    frame: &mut [u8],
    payload: core::ops::Range<usize>,
    sum: u64,
) -> usize {
    let &Envelope { link, src, dst, traffic_class, hop_limit } = envelope;
    let end = payload.end;
    let at = header.emit_summed(frame, payload, sum, src, dst);
    let at = ip::emit_hops(frame, at, end, src, dst, ip::TCP, traffic_class, hop_limit);
    link.emit(frame, at)
}

pub(super) fn push<M>(out: &mut Vec<FrameSlice>, ctx: &mut Ctx<'_, M>, index: u32, from: usize, to: usize) {
    ctx.counters.tcp_out_segs += 1;
    out.push(FrameSlice { index, offset: from as u16, len: (to - from) as u16, more: false });
}
