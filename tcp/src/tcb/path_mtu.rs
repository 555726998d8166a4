//! Path-MTU discovery: what routers say, what silence says, and trying larger again. S6.2
//!
//! ```text
//!                  packet too big (RFC 1191, 8201)
//!   SND.MSS ──────────────────────────────────────→ what the next hop takes   ─┐ 10 minutes
//!   negotiated                                                                 │
//!      ▲ └── a full segment timed out twice (RFC 4821 §7.7) ─→ base ─→ floor  ─┤ 10 seconds
//!      │                                                                       ▼
//!      └────────────── acknowledged ──────────── one segment of full size, new data (RFC 8899 §4.1)
//! ```
//!
//! Every packet is sent with DF. Segments that were cut for the larger size are cut again when their
//! turn comes to be sent, so that a smaller path costs O(1) a segment however much is queued.

use super::congestion::Congestion;
use super::{Ctx, TIMESTAMPS_LEN, Tcb};
use crate::app::Closed;
use crate::counters::DropReason;
use crate::frame::Memory;
use crate::seq::SeqNumber;
use crate::tcb::send_queue::SACKED;
use crate::tcb::state::State;
use crate::time::{Duration, Instant};
use crate::wire::icmp::{Cause, Report};

/// Linux's min_pmtu: no router of today's links needs less, and a liar costs us a third of the
/// throughput, not all of it (RFC 5927 §7; L8).
pub(crate) const MTU_MIN_V4: u16 = 552;
/// RFC 8200 §5: every link of IPv6 carries that.
pub(crate) const MTU_MIN_V6: u16 = 1280;
/// What a router older than RFC 1191 may have meant, which says only that it was too large (RFC 1191 §7, table
/// 7-1: Ethernet with IEEE 802.3, ARPANET and others).
const PLATEAUS_V4: [u16; 2] = [1492, 1006];
/// After silence: Linux's tcp_base_mss and 40 octets. Tunnels in tunnels carry it.
const MTU_BASE_V4: u16 = 1064;
/// Time-outs in a row of a full segment before its size is suspected: one is common.
const SUSPICIOUS_TIMEOUTS: u32 = 2;
/// How long a router's word holds: routes change (RFC 1191 §6.3, RFC 8201 §4).
pub(crate) const RAISE_AFTER_REPORT: Duration = Duration::from_secs(600);
/// Silence may have had any reason, such as an outage that is over. Trying costs one segment; after a failure
/// it is a router's word that has been missing.
const RAISE_AFTER_SILENCE: Duration = Duration::from_secs(10);

/// What is merged is limited to a multiple of this, so that a connection keeps an octet for it: at 9,000, by a fortieth.
const MERGED_UNIT: u16 = 256;

/// What one connection knows of its path.
#[derive(Debug)]
pub(super) struct PathMtu {
    /// Largest packet that the path is known to take, octets.
    mtu: u16,
    /// SND.MSS if the path takes packets of the link's MTU: what the peers negotiated.
    full: u16,
    /// When to try that again; [`Instant::NEVER`] while SND.MSS is that.
    pub(super) raise_at: Instant,
    /// New data is cut to `full`, and one segment of it sent.
    raising: bool,
    /// Sequence number behind that segment, and its octets.
    probe: Option<SeqNumber>,
    probe_len: u16,
    /// How much text several frames may carry together, in units of [`MERGED_UNIT`]: see stack/merge.rs. 0: each goes by
    /// itself.
    merged: u8,
    /// When a router last said that packets don't arrive; [`Instant::ZERO`]: never.
    trouble_at: Instant,
}

impl PathMtu {
    /// Nothing is being tried, nor will be.
    #[inline]
    pub(super) fn is_settled(&self) -> bool {
        self.raise_at == Instant::NEVER
    }

    pub(super) fn new(full: u16) -> Self {
        Self {
            mtu: u16::MAX,
            full,
            raise_at: Instant::NEVER,
            raising: false,
            probe: None,
            probe_len: 0,
            merged: 0,
            trouble_at: Instant::ZERO,
        }
    }
}

impl Tcb {
    /// The options are negotiated: `full` octets of payload make a full segment.
    pub(super) fn negotiated_mss(&mut self, full: u16) {
        self.path.full = full;
        // A path known to be smaller stays so.
        self.snd.mss = full.min(self.path_mss());
        self.merge_up_to(self.merged_mss().min(self.path_mss()));
    }

    /// Octets of text that several frames may carry together.
    pub(crate) fn merged_mss(&self) -> u16 {
        u16::from(self.path.merged) * MERGED_UNIT
    }

    pub(super) fn merge_up_to(&mut self, octets: u16) {
        self.path.merged = (octets / MERGED_UNIT) as u8;
    }

    /// Octets to cut the application's data to.
    pub(crate) fn queue_mss(&self) -> u16 {
        if self.path.raising { self.path.full.max(self.snd.mss) } else { self.snd.mss }
    }

    /// Octets of IP and TCP headers in every segment with data.
    fn headers_len(&self) -> u16 {
        let fixed = if self.tuple.remote_ip.is_ipv4() { 40 } else { 60 };
        fixed + if self.timestamps.is_some() { TIMESTAMPS_LEN } else { 0 }
    }

    /// Payload octets that fit into the path's packets.
    fn path_mss(&self) -> u16 {
        self.path.mtu - self.headers_len()
    }

    fn mtu_min(&self) -> u16 {
        if self.tuple.remote_ip.is_ipv4() { MTU_MIN_V4 } else { MTU_MIN_V6 }
    }

    /// The path takes packets of at most `mtu` octets; tried again at `raise_at`. Whether that is news.
    pub(crate) fn limit_path(&mut self, mtu: u16, raise_at: Instant) -> bool {
        let mtu = mtu.max(self.mtu_min());
        let before = core::mem::replace(&mut self.path.mtu, mtu);
        if self.path_mss() >= self.snd.mss {
            self.path.mtu = before;
            return false;
        }
        let size = self.path_mss();
        self.congestion.on_mss(u32::from(self.snd.mss), u32::from(size));
        self.snd.mss = size;
        self.path.merged = 0;
        self.path.raise_at = raise_at;
        self.path.raising = false;
        self.path.probe = None;
        true
    }

    /// A router, or the peer's host, says that the segment at `seq` didn't arrive. Gives the path MTU, octets,
    /// if that has become known by it.
    ///
    /// # Errors
    /// Why it changes nothing.
    pub(crate) fn on_icmp<M: Memory>(
        &mut self,
        report: &Report,
        ctx: &mut Ctx<'_, M>,
    ) -> Result<Option<u16>, DropReason> {
        // RFC 5927 §4.1: anybody can send one, but only who sees our segments knows what is in flight. L8
        let in_flight = report.quoted.seq.in_window(self.snd.una, self.snd.nxt.since(self.snd.una));
        if !in_flight || self.over.is_some() {
            return Err(DropReason::IcmpOutOfWindow);
        }
        match report.cause {
            Cause::TooBig { mtu } => self.on_too_big(mtu, ctx).map(Some),
            _ => {
                self.path.trouble_at = ctx.now;
                self.ready.trouble = true;
                // RFC 9293 §3.9.2.2: hard errors SHOULD abort (SHLD-26); RFC 5927 §6.2: but nothing that is
                // established, where the last word is the retransmission limit's. L8
                if report.hard && matches!(self.state, State::SynSent | State::SynReceived) {
                    self.finish(Closed::Unreachable, ctx);
                }
                // RFC 9293 §3.9.2.2, MUST-56: soft errors MUST NOT abort.
                Ok(None)
            }
        }
    }

    /// Whether the last that was heard of our packets is that they don't arrive.
    pub(crate) fn is_unreachable(&self) -> bool {
        self.path.trouble_at != Instant::ZERO && self.path.trouble_at >= self.progressed
    }

    /// RFC 1191 §6.4, RFC 8201 §4: what was too large goes out again at once, in smaller pieces; that says
    /// nothing about congestion (RFC 8201 §5.4).
    fn on_too_big<M: Memory>(&mut self, mtu: u32, ctx: &mut Ctx<'_, M>) -> Result<u16, DropReason> {
        let v4 = self.tuple.remote_ip.is_ipv4();
        let known = self.snd.mss + self.headers_len();
        let mtu = match u16::try_from(mtu).unwrap_or(u16::MAX) {
            0 if v4 => PLATEAUS_V4.into_iter().find(|&plateau| plateau < known).unwrap_or(MTU_MIN_V4),
            // RFC 8201 §4: a node MUST NOT go below IPv6's minimum.
            mtu if mtu < self.mtu_min() && !v4 => return Err(DropReason::IcmpMtu),
            mtu => mtu.max(self.mtu_min()),
        };
        if !self.limit_path(mtu, ctx.now + RAISE_AFTER_REPORT) {
            // All segments of a flight meet the same router: the first has been believed. Larger than what we
            // send, or no smaller than the floor, it says nothing.
            return Err(DropReason::IcmpMtu);
        }
        ctx.counters.tcp_mtu_reductions += 1;
        let mut at = self.send.next_outstanding(ctx.pool, None);
        while let Some(index) = at {
            let meta = ctx.pool.meta(index);
            if meta.len > self.snd.mss && meta.flags & SACKED == 0 {
                self.send.mark_lost(ctx.pool, index);
            }
            at = self.send.next_outstanding(ctx.pool, Some(index));
        }
        Ok(mtu)
    }

    /// The retransmission timer has expired once more. Full segments that time out again and again may be too
    /// large for a hop that doesn't say so (RFC 4821 §7.7, RFC 8899 §4.3).
    pub(super) fn suspect_black_hole<M: Memory>(&mut self, ctx: &mut Ctx<'_, M>) {
        if !self.recovery.timeouts().is_multiple_of(SUSPICIOUS_TIMEOUTS) {
            return;
        }
        let Some(head) = self.send.next_outstanding(ctx.pool, None) else { return };
        let base = if self.tuple.remote_ip.is_ipv4() { MTU_BASE_V4 } else { MTU_MIN_V6 };
        // The step down from what timed out: it may be smaller than SND.MSS, and still too large.
        let size = ctx.pool.meta(head).len + self.headers_len();
        let next = if size > base { base } else { self.mtu_min() };
        // A small segment that isn't answered wasn't too large.
        let suspect = size > next;
        if suspect && self.limit_path(next, ctx.now + RAISE_AFTER_SILENCE) {
            ctx.counters.tcp_mtu_black_holes += 1;
        }
    }

    /// SND.UNA moved.
    pub(super) fn raise_path_if_due<M>(&mut self, ctx: &mut Ctx<'_, M>) {
        if self.path.raise_at == Instant::NEVER {
            return;
        }
        if let Some(end) = self.path.probe
            && end.leq(self.snd.una)
        {
            let len = self.path.probe_len;
            ctx.counters.tcp_mtup_success += 1;
            if self.snd.mss < len {
                self.congestion.on_mss(u32::from(self.snd.mss), u32::from(len));
                self.snd.mss = len;
            }
            self.path.mtu = self.snd.mss + self.headers_len();
            self.path.probe = None;
            self.path.raising = false;
            // The application's chunk may have been smaller than what was negotiated.
            self.path.raise_at = if self.snd.mss < self.path.full { ctx.now } else { Instant::NEVER };
        }
        if self.path.raise_at <= ctx.now {
            self.path.raising = true;
        }
    }

    /// Cuts a frame that is about to be sent to what the path takes. False: there is no memory for it, and the
    /// frame has to wait.
    #[inline]
    pub(super) fn fit_to_path<M: Memory>(&mut self, index: u32, ctx: &mut Ctx<'_, M>) -> bool {
        ctx.pool.meta(index).len <= self.snd.mss || self.cut_to_path(index, ctx)
    }

    fn cut_to_path<M: Memory>(&mut self, index: u32, ctx: &mut Ctx<'_, M>) -> bool {
        let meta = ctx.pool.meta(index);
        let (end, len, fresh) = (SeqNumber(meta.seq) + u32::from(meta.len), meta.len, meta.sent == 0);
        let is_probe = self.path.probe == Some(end);
        if fresh && self.path.raising && (is_probe || self.path.probe.is_none()) {
            (self.path.probe, self.path.probe_len) = (Some(end), len);
            return true;
        }
        if is_probe {
            // It was lost, most likely for its size.
            ctx.counters.tcp_mtup_fail += 1;
            self.path.probe = None;
            self.path.raising = false;
            self.path.raise_at = ctx.now + RAISE_AFTER_REPORT;
        }
        self.send.cut(ctx.pool, index, self.snd.mss)
    }
}
