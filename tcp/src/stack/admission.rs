//! LISTEN (RFC 9293 §3.10.7.2): which SYNs become connections, and which are answered by a cookie.

use super::{Ecn, Stack, SynCookies};
use crate::counters::DropReason;
use crate::flow_table::FourTuple;
use crate::frame::{Chunk, Memory};
use crate::listener::cookie::{self, Terms};
use crate::seq::SeqNumber;
use crate::tcb::{self, Hop, Tcb, ecn};
use crate::time::Instant;
use crate::wire::tcp::{Emit, Flags, Options, Segment};
use crate::wire::{ethernet, ip};

impl<M: Memory> Stack<M> {
    /// A segment for no connection: CLOSED or LISTEN (RFC 9293 §3.10.7.1, §3.10.7.2). `used`: the last sequence
    /// number of the connection that this one follows.
    #[expect(clippy::too_many_arguments, reason = "a segment and where it came from")]
    pub(super) fn receive_for_listener(
        &mut self,
        link: &ethernet::Header,
        ip: &ip::Header,
        tuple: &FourTuple,
        seg: &Segment,
        chunk: Chunk,
        used: Option<SeqNumber>,
        now: Instant,
    ) {
        if seg.flags.contains(Flags::RST) {
            return self.discard(chunk, DropReason::NoListener);
        }
        // On a host's address the next byway comes before anybody hears a refusal: the peer's SYN comes again.
        let is_quiet = self.draining && self.config.host_routes.is_some();
        if is_quiet && seg.flags.contains(Flags::SYN) {
            return self.discard(chunk, DropReason::NoListener);
        }
        let port = if self.draining { None } else { self.listeners.find(tuple) };
        let Some(port) = port else {
            self.counters.drop(DropReason::NoListener);
            return self.answer_reset(link, tuple, seg, chunk, now);
        };
        if seg.flags.contains(Flags::ACK) {
            if now < port.cookies_until && !seg.flags.contains(Flags::SYN) {
                return self.take_cookie(link, ip, tuple, seg, chunk, now);
            }
            self.counters.drop(DropReason::NoListener);
            return self.answer_reset(link, tuple, seg, chunk, now);
        }
        if !seg.flags.contains(Flags::SYN) || seg.flags.contains(Flags::FIN) {
            return self.discard(chunk, DropReason::TcpFlags);
        }
        let has_room = port.has_room();
        if self.is_full() {
            return self.discard(chunk, DropReason::TableFull);
        }
        // A pair that left TIME-WAIT needs a number beyond its last one, and only comes this far if there is room.
        let cookie = match self.config.syncookies {
            SynCookies::Off => false,
            SynCookies::OnOverflow => !has_room,
            SynCookies::Always => used.is_none(),
        };
        if cookie {
            self.answer_by_cookie(link, tuple, seg, chunk, now);
        } else if has_room {
            self.pool.release(chunk);
            self.admit_syn(link, tuple, seg, used, now);
        } else {
            self.discard(chunk, DropReason::ListenOverflow);
        }
    }

    /// LISTEN → SYN-RECEIVED. S1.1
    fn admit_syn(
        &mut self,
        link: &ethernet::Header,
        tuple: &FourTuple,
        seg: &Segment,
        used: Option<SeqNumber>,
        now: Instant,
    ) {
        let (mut iss, offset) = (self.secrets.isn(tuple, now), self.secrets.timestamp_offset(tuple));
        if let Some(used) = used
            && iss.leq(used)
        {
            // The old connection's octets ran ahead of the clock: beyond its largest unscaled window, as
            // Linux does (RFC 9293 §3.6.1, RFC 6191 §2). S2.4
            iss = used + 65_537;
        }
        let hop = Hop::back(link);
        let tcb = Tcb::passive(*tuple, seg, iss, offset, hop, &mut self.ctx(now));
        if let Some(port) = self.listeners.find(tuple) {
            port.half_open += 1;
        }
        self.enter_passive(tcb, now);
    }

    /// Gives a connection from a SYN its slot. The table isn't full.
    fn enter_passive(&mut self, mut tcb: Tcb, now: Instant) -> u32 {
        self.recall_path(&mut tcb, now);
        let Some(id) = self.admit(tcb) else { unreachable!("no SYN gets this far with a full table") };
        self.counters.tcp_passive_opens += 1;
        self.schedule_output(id.index);
        id.index
    }

    /// SYN-ACK without an entry, in the frame of the SYN: no memory, no timer, no second transmission (T1, T26).
    fn answer_by_cookie(
        &mut self,
        link: &ethernet::Header,
        tuple: &FourTuple,
        syn: &Segment,
        chunk: Chunk,
        now: Instant,
    ) {
        // What can't be remembered isn't offered: without timestamps only the MSS.
        let terms = syn.options.timestamps.map(|_| Terms {
            window_scale: syn.options.window_scale,
            sack: syn.options.sack_permitted,
            ecn: self.config.ecn != Ecn::Off && ecn::asks(syn),
        });
        let mss = tcb::peer_mss(&syn.options, tuple);
        let iss = self.secrets.cookies.make(tuple, syn.seq, mss, terms, now);
        let clock = (now.as_millis() as u32).wrapping_add(self.secrets.timestamp_offset(tuple));
        let own_mss = self.config.mss(tuple);
        let scales = terms.is_some_and(|terms| terms.window_scale.is_some());
        let options = Options {
            mss: Some(own_mss),
            window_scale: scales.then(|| tcb::window_scale(self.config.receive_buffer)),
            sack_permitted: terms.is_some_and(|terms| terms.sack),
            timestamps: terms
                .zip(syn.options.timestamps)
                .map(|(terms, (value, _))| (terms.stamp(clock), value)),
            ..Options::NONE
        };
        let ece = if terms.is_some_and(|terms| terms.ecn) { Flags::ECE } else { Flags::NONE };
        let window = tcb::receive_share(&self.pool, &self.config, own_mss).min(u32::from(u16::MAX));
        let header = Emit {
            src_port: tuple.local_port,
            dst_port: tuple.remote_port,
            seq: iss,
            ack: syn.seq + 1,
            flags: Flags::SYN | Flags::ACK | ece,
            window: window as u16,
            urgent: 0,
            options: &options,
        };
        self.counters.syncookies_sent += 1;
        if let Some(port) = self.listeners.find(tuple) {
            port.cookies_until = now + cookie::LIFETIME;
        }
        self.send_bare(link, tuple, &header, chunk);
    }

    /// An ACK to a listener that has sent cookies of late: if it brings one, the connection is there, and the ACK
    /// and its text are taken as if it had been there all along. A forged one costs a hash (T2).
    fn take_cookie(
        &mut self,
        link: &ethernet::Header,
        ip: &ip::Header,
        tuple: &FourTuple,
        seg: &Segment,
        chunk: Chunk,
        now: Instant,
    ) {
        let (irs, iss) = (seg.seq - 1, seg.ack - 1);
        let offset = self.secrets.timestamp_offset(tuple);
        let terms = seg.options.timestamps.map(|(_, echo)| Terms::of_stamp(echo));
        let Some(mss) = self.secrets.cookies.check(tuple, irs, iss, terms, now) else {
            self.counters.syncookies_failed += 1;
            if seg.payload.1 > 0 {
                // Text that has overtaken the segment with the cookie's number: the sender will repeat it, and a reset
                // would end a connection that it takes for open. Whoever has none is told by its ACKs without text.
                return self.discard(chunk, DropReason::NoListener);
            }
            self.counters.drop(DropReason::NoListener);
            return self.answer_reset(link, tuple, seg, chunk, now);
        };
        if self.is_full() {
            // The peer sends its text again, or asks again.
            return self.discard(chunk, DropReason::TableFull);
        }
        self.counters.syncookies_recv += 1;
        let options = Options {
            mss: Some(mss),
            window_scale: terms.and_then(|terms| terms.window_scale),
            sack_permitted: terms.is_some_and(|terms| terms.sack),
            timestamps: seg.options.timestamps,
            ..Options::NONE
        };
        let asked = if terms.is_some_and(|terms| terms.ecn) { ecn::SETUP } else { Flags::NONE };
        let syn = Segment { seq: irs, flags: Flags::SYN | asked, options, payload: (0, 0), ecn: 0, ..*seg };
        let hop = Hop::back(link);
        let tcb = Tcb::passive_by_cookie(*tuple, &syn, iss, offset, hop, &mut self.ctx(now));
        let index = self.enter_passive(tcb, now);
        self.input(index, link, ip, seg, chunk, now);
        // Nobody knows when the SYN-ACK was sent: the RTT is measured later.
        if let Some(tcb) = self.slots[index as usize].tcb.as_mut() {
            tcb.rtt = tcb::rtt::RttEstimator::default();
        }
    }
}
