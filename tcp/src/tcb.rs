//! The transmission control block (RFC 9293 §3.3.1): one connection.
//!
//! ```text
//!                 segment                                   segments
//!                    │                                         ▲
//!                    ▼                                         │
//!   input ─→ ack ─→ recovery ─→ send_queue ←─ send ─┐    output ──┘
//!     │        └─→ rtt, congestion                 app          ▲
//!     └─→ reassembly ───────────────────→ recv ────┘            │
//!   timeout (timers) ──────────────────────────────────────────┘
//! ```
//!
//! Nothing here reads a clock, allocates, or sends by itself: what happened is left in flags that
//! `output` turns into segments.

mod ack;
mod acking;
pub mod congestion;
pub(crate) mod ecn;
mod input;
mod limits;
mod output;
mod pace;
pub(crate) mod path_mtu;
mod plain;
pub mod rate;
pub(crate) mod reassembly;
mod recovery;
pub mod rtt;
pub(crate) mod send_queue;
pub mod state;
mod timeout;
mod urgent;
mod window;

use crate::app::{Closed, Metrics, Ready};
use crate::counters::{Counters, Totals};
use crate::flow_table::FourTuple;
use crate::frame::{FramePool, Memory};
use crate::listener::Listeners;
use crate::neighbor::Station;
use crate::seq::SeqNumber;
use crate::stack::Config;
use crate::time::Instant;
use crate::timer::{TimerKind, Timers};
use crate::wire::tcp::{Options, Segment};
use crate::wire::{MacAddr, ethernet};

use acking::Acking;
use congestion::{Congestion, Controller};
use ecn::Ecn;
use limits::{Holding, Limits};
use pace::Pace;
use path_mtu::PathMtu;
use reassembly::Reassembly;
use recovery::Recovery;
use rtt::RttEstimator;
use send_queue::SendQueue;
use state::{State, States};
use window::Tuning;

pub use acking::DELAYED_ACK;
pub(crate) use output::Output;

/// RFC 9293 §3.7.1 (MUST-15): the MSS of a peer that announces none, IPv4 and IPv6. S6.1
const MSS_DEFAULT_V4: u16 = 536;
const MSS_DEFAULT_V6: u16 = 1220;
/// No peer may make byway send smaller segments than this (T11): Linux's TCP_MIN_SND_MSS.
const MSS_MIN: u16 = 48;
/// Seconds. RFC 7323 §5.5: after half of the peer's clock, at a millisecond a tick, older can't be told from newer.
const TIMESTAMP_OUTDATED: u32 = 24 * 24 * 3600;
/// Timestamps with their two NOPs (RFC 7323 appendix A).
const TIMESTAMPS_LEN: u16 = 12;
/// Chunks a connection may queue whatever the memory: without them it couldn't answer at all.
const SEND_CHUNKS_MIN: u32 = 8;

/// What every step of a connection works with: the core's shared parts.
#[derive(Debug)]
pub(crate) struct Ctx<'a, M> {
    pub(crate) pool: &'a mut FramePool<M>,
    pub(crate) counters: &'a mut Counters,
    pub(crate) states: &'a mut States,
    pub(crate) config: &'a Config,
    pub(crate) listeners: &'a Listeners,
    /// What the other cores have told of themselves.
    pub(crate) elsewhere: &'a Totals,
    pub(crate) now: Instant,
}

impl<M> Ctx<'_, M> {
    /// More than half of all backlogs' places are taken.
    fn backlog_is_crowded(&self) -> bool {
        self.states.count(State::SynReceived) > self.listeners.places() / 2
    }
}

/// Send sequence variables (RFC 9293 §3.3.1).
#[derive(Debug)]
pub(crate) struct SendVars {
    /// Oldest unacknowledged.
    pub(crate) una: SeqNumber,
    /// Next to be sent.
    pub(crate) nxt: SeqNumber,
    /// Window the peer grants from `una` on, octets.
    pub(crate) wnd: u32,
    /// SEG.SEQ and SEG.ACK of the last window update.
    pub(crate) wl1: SeqNumber,
    pub(crate) wl2: SeqNumber,
    pub(crate) iss: SeqNumber,
    /// SND.UP: behind what the application calls urgent.
    pub(crate) up: Option<SeqNumber>,
    /// Largest window ever granted (RFC 5961 §5.2).
    pub(crate) max_wnd: u32,
    /// Shift of the peer's windows (RFC 7323 §2).
    pub(crate) scale: u8,
    /// Payload octets of a full segment: the peer's MSS and our MTU, less our options.
    pub(crate) mss: u16,
}

/// Receive sequence variables (RFC 9293 §3.3.1).
#[derive(Debug)]
pub(crate) struct RecvVars {
    /// Next expected.
    pub(crate) nxt: SeqNumber,
    /// Right edge of the window as advertised; never moves left (RFC 9293 §3.8.6, SHLD-14).
    pub(crate) edge: SeqNumber,
    pub(crate) irs: SeqNumber,
    /// RCV.UP: behind what the peer calls urgent, as long as the application hasn't read so far.
    pub(crate) up: Option<SeqNumber>,
    /// Shift of our windows; 0 unless negotiated.
    pub(crate) scale: u8,
    /// Payload octets of a full segment from the peer, as we announced.
    pub(crate) mss: u16,
    /// Sequence number of the peer's FIN, once seen.
    pub(crate) fin: Option<SeqNumber>,
}

impl RecvVars {
    /// RCV.WND
    pub(crate) fn wnd(&self) -> u32 {
        self.edge.since(self.nxt)
    }
}

/// Timestamps option (RFC 7323), once negotiated.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timestamps {
    /// Added to our clock, so that it tells nothing about this host (RFC 7323 §5.4).
    pub(crate) offset: u32,
    /// TS.Recent
    pub(crate) recent: u32,
    /// When that was, in seconds.
    pub(crate) recent_at: u32,
}

impl Timestamps {
    /// RFC 7323 §5.5: TS.Recent is so old that it says nothing any more.
    pub(crate) fn is_outdated(&self, now: Instant) -> bool {
        seconds(now).saturating_sub(self.recent_at) > TIMESTAMP_OUTDATED
    }

    /// Our clock for this connection, in milliseconds (RFC 7323 §5.4: 1 ms to 1 s a tick).
    pub(crate) fn value(&self, now: Instant) -> u32 {
        (now.as_millis() as u32).wrapping_add(self.offset)
    }
}

/// Of a clock that may be as old as the host: 136 years.
pub(crate) fn seconds(now: Instant) -> u32 {
    (now.as_millis() / 1000) as u32
}

/// Where this connection's frames go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hop {
    /// The next hop, or where the frames came from.
    pub(crate) station: Station,
    /// Until then its Ethernet address needn't be asked for.
    pub(crate) fresh_until: Instant,
}

impl Hop {
    /// Back to where a peer's SYN came from. The next hop is asked for before anything goes there.
    pub(crate) fn back(link: &ethernet::Header) -> Self {
        Self { station: Station { mac: link.src, vlan: link.vlan }, fresh_until: Instant::ZERO }
    }

    /// Not known yet.
    pub(crate) fn unknown() -> Self {
        let station = Station { mac: MacAddr::default(), vlan: ethernet::VlanTags::NONE };
        Self { station, fresh_until: Instant::ZERO }
    }
}

/// What has to be sent besides data.
#[derive(Debug, Default)]
struct Owed {
    /// An ACK, now.
    ack: bool,
    /// Octets received since the last ACK was sent.
    unacked: u32,
    /// SYN or SYN-ACK.
    syn: bool,
    /// RST, before the connection is forgotten.
    reset: bool,
    /// A window or keepalive probe: an ACK below SND.UNA.
    probe: bool,
    /// FIN again.
    fin: bool,
    /// A tail loss probe (RFC 8985 §7.3).
    loss_probe: bool,
    /// The persist timer allows a segment smaller than silly-window avoidance would (RFC 9293 §3.8.6.2.1).
    override_sws: bool,
    /// The part of the next segment that a small window let out, again.
    part_again: bool,
}

/// One connection.
///
/// The order is kept: what nearly every segment needs lies together in front, in ten cache lines, and in the one that the
/// congestion controller begins; what few need lies between and behind. Among many connections each line is far away.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Tcb {
    pub(crate) tuple: FourTuple,
    pub(crate) state: State,
    pub(crate) sack: bool,
    /// Both SYNs have a window scale, perhaps of 0 (RFC 7323 §2.2).
    scaling: bool,
    /// `App::opened` is due.
    pub(crate) opening: bool,
    /// `App::opened` has been called.
    pub(crate) opened: bool,
    /// The connection is over; `App::closed` is due.
    pub(crate) over: Option<Closed>,
    /// Opened by a SYN to a listener (RFC 9293 §3.5, MUST-11).
    pub(crate) passive: bool,
    /// Counts against its listener's backlog: until it leaves SYN-RECEIVED.
    pub(crate) in_backlog: bool,
    /// The application closed its side; FIN follows the queue.
    pub(crate) fin_queued: bool,
    fin_sent: bool,
    nodelay: bool,
    /// Differentiated services code point (RFC 2474).
    dscp: u8,
    /// The application has read since the last ACK was sent: the peer may have to hear of the room.
    was_read: bool,
    /// The congestion window was in the way of the last output.
    cwnd_limited: bool,
    /// The application found (nearly) no room, and wants to hear of some.
    pub(crate) wants_room: bool,
    /// The application was refused a frame, and wants to hear of some.
    pub(crate) starved: bool,
    /// Retransmissions of SYN or SYN-ACK, probes without an answer.
    tries: u8,
    persist_backoff: u8,
    /// What the application has to be told.
    pub(crate) ready: Ready,
    acking: Acking,
    owed: Owed,
    ecn: Ecn,
    pub(crate) snd: SendVars,
    pub(crate) rcv: RecvVars,
    pub(crate) timestamps: Option<Timestamps>,
    pub(crate) send: SendQueue,
    /// Last acceptable segment from the peer.
    last_heard: Instant,
    /// When RCV.NXT last moved.
    in_order_at: Instant,
    /// Since when SND.UNA has stood still with something outstanding, or something waits for the window.
    stalled_since: Instant,
    /// When SND.UNA moved last.
    progressed: Instant,
    /// Last data or SYN sent.
    last_sent: Instant,
    pub(crate) hop: Hop,
    pub(crate) rtt: RttEstimator,
    tuning: Tuning,
    pace: Pace,
    path: PathMtu,
    pub(crate) timers: Timers,
    pub(crate) recv: Reassembly,
    recovery: Recovery,
    pub(crate) congestion: Controller,
    /// When the first probe or retransmission was sent that the peer hasn't answered; before `last_heard` if it has.
    asked: Instant,
    pub(crate) state_since: Instant,
    /// From when on a segment out of place is answered again (RFC 5961 §7).
    challenge_from: Instant,
    /// Octets that arrived twice, if the one isn't the other: the next ACK says so (RFC 2883).
    duplicate: (SeqNumber, SeqNumber),
    pub(crate) retransmits: u32,
    limits: Limits,
    holding: Holding,
}

impl Tcb {
    /// A connection in LISTEN's child or CLOSED, to be opened by one of the constructors below.
    fn new(tuple: FourTuple, iss: SeqNumber, hop: Hop, config: &Config, now: Instant) -> Self {
        let mss = config.send_mss(&tuple);
        let rcv_mss = config.mss(&tuple);
        Self {
            tuple,
            state: State::Closed,
            state_since: now,
            snd: SendVars {
                una: iss,
                nxt: iss,
                wnd: 0,
                wl1: SeqNumber(0),
                wl2: SeqNumber(0),
                iss,
                up: None,
                max_wnd: 0,
                scale: 0,
                mss,
            },
            rcv: RecvVars {
                nxt: SeqNumber(0),
                edge: SeqNumber(0),
                irs: SeqNumber(0),
                up: None,
                scale: 0,
                mss: rcv_mss,
                fin: None,
            },
            send: SendQueue::new(iss + 1),
            recv: Reassembly::new(),
            timestamps: None,
            sack: false,
            scaling: false,
            rtt: RttEstimator::default(),
            congestion: Controller::new(config.congestion, u32::from(mss), iss.0),
            recovery: Recovery::new(iss),
            pace: Pace::default(),
            duplicate: (iss, iss),
            path: PathMtu::new(mss),
            timers: Timers::default(),
            limits: Limits::new(config),
            holding: Holding::new(iss + 1, now),
            ecn: Ecn::default(),
            tuning: Tuning::new(now),
            acking: Acking::new(config),
            hop,
            owed: Owed::default(),
            ready: Ready::default(),
            opening: false,
            opened: false,
            over: None,
            passive: false,
            in_backlog: false,
            fin_queued: false,
            fin_sent: false,
            nodelay: false,
            dscp: 0,
            was_read: false,
            cwnd_limited: false,
            wants_room: false,
            starved: false,
            tries: 0,
            persist_backoff: 0,
            retransmits: 0,
            challenge_from: Instant::ZERO,
            last_heard: now,
            asked: Instant::ZERO,
            in_order_at: now,
            stalled_since: now,
            progressed: now,
            last_sent: now,
        }
    }

    /// A SYN arrived at a listener: LISTEN → SYN-RECEIVED (RFC 9293 §3.10.7.2). S1.1
    pub(crate) fn passive<M: Memory>(
        tuple: FourTuple,
        syn: &Segment,
        iss: SeqNumber,
        timestamp_offset: u32,
        hop: Hop,
        ctx: &mut Ctx<'_, M>,
    ) -> Self {
        let mut tcb = Self::new(tuple, iss, hop, ctx.config, ctx.now);
        tcb.passive = true;
        tcb.in_backlog = true;
        tcb.state = State::SynReceived;
        ctx.states.enter(State::Listen, State::SynReceived);
        tcb.take_syn(syn, timestamp_offset, ctx);
        tcb.owed.syn = true;
        tcb
    }

    /// A SYN cookie came back (RFC 4987 §3.6): SYN-RECEIVED as it would have been kept after `syn`, our SYN-ACK
    /// sent, for the ACK to be given to [`input`](Self::input). T1
    pub(crate) fn passive_by_cookie<M: Memory>(
        tuple: FourTuple,
        syn: &Segment,
        iss: SeqNumber,
        timestamp_offset: u32,
        hop: Hop,
        ctx: &mut Ctx<'_, M>,
    ) -> Self {
        let mut tcb = Self::passive(tuple, syn, iss, timestamp_offset, hop, ctx);
        tcb.in_backlog = false;
        tcb.owed.syn = false;
        tcb.snd.nxt = iss + 1;
        // Whatever was offered then: no less is taken now, nor more than could be (P2).
        let most = ctx.config.receive_buffer.max(2 * u32::from(tcb.rcv.mss)).min(u32::from(u16::MAX));
        tcb.rcv.edge = tcb.rcv.nxt + most;
        tcb
    }

    /// The application opens: CLOSED → SYN-SENT (RFC 9293 §3.10.1). S1.1
    pub(crate) fn active<M: Memory>(
        tuple: FourTuple,
        iss: SeqNumber,
        timestamp_offset: u32,
        hop: Hop,
        ctx: &mut Ctx<'_, M>,
    ) -> Self {
        let mut tcb = Self::new(tuple, iss, hop, ctx.config, ctx.now);
        tcb.state = State::SynSent;
        ctx.states.enter(State::Closed, State::SynSent);
        tcb.timestamps =
            Some(Timestamps { offset: timestamp_offset, recent: 0, recent_at: seconds(ctx.now) });
        tcb.sack = true;
        tcb.scaling = true;
        tcb.ecn = Ecn::for_active(ctx.config.ecn);
        tcb.rcv.scale = window_scale(ctx.config.receive_buffer);
        tcb.owed.syn = true;
        tcb
    }

    /// What the peer's SYN says: its sequence number and options (RFC 9293 §3.7.1, RFC 7323 §1.3, 2018 §2).
    fn take_syn<M: Memory>(&mut self, syn: &Segment, timestamp_offset: u32, ctx: &Ctx<'_, M>) {
        let options: &Options = &syn.options;
        // An active open has offered a window already, from a beginning it didn't know.
        let offered = self.rcv.wnd();
        self.rcv.irs = syn.seq;
        self.rcv.nxt = syn.seq + 1;
        self.rcv.edge = self.rcv.nxt + offered;
        // RFC 7323 §2.3.
        self.scaling = options.window_scale.is_some();
        if let Some(scale) = options.window_scale {
            self.snd.scale = scale;
            self.rcv.scale = window_scale(ctx.config.receive_buffer);
        } else {
            self.snd.scale = 0;
            self.rcv.scale = 0;
        }
        self.sack = options.sack_permitted;
        self.ecn.on_syn(syn, !self.passive, ctx.config.ecn);
        self.timestamps = options.timestamps.map(|(value, _)| Timestamps {
            offset: timestamp_offset,
            recent: value,
            recent_at: seconds(ctx.now),
        });
        // Eff.snd.MSS (RFC 9293 §3.7.1, MUST-16), less the options of every segment.
        let peers = peer_mss(options, &self.tuple);
        let less_options = |mss: u16| match self.timestamps {
            Some(_) => mss.saturating_sub(TIMESTAMPS_LEN).max(MSS_MIN - TIMESTAMPS_LEN),
            None => mss,
        };
        let mss = less_options(peers.min(ctx.config.send_mss(&self.tuple)));
        self.merge_up_to(less_options(peers.min(ctx.config.mss(&self.tuple))));
        self.negotiated_mss(mss);
        let (algorithm, mss) = (ctx.config.congestion, u32::from(self.snd.mss));
        self.congestion = Controller::new(algorithm, mss, self.snd.iss.0);
        // The window in a SYN is never scaled (RFC 7323 §2.2).
        self.snd.wnd = u32::from(syn.window);
        self.snd.max_wnd = self.snd.wnd;
        self.snd.wl1 = syn.seq;
        self.snd.wl2 = self.snd.una;
    }

    /// Reads something of each cache line that most segments need, so that all of them are near.
    #[inline]
    pub(crate) fn touch(&self) -> u64 {
        let numbers =
            [self.snd.una, self.rcv.nxt, self.recovery.again].iter().fold(0, |all, number| all ^ number.0);
        let octets = self.send.lost ^ self.tuning.arrived ^ self.recv.bytes ^ self.congestion.cwnd();
        let times = [self.hop.fresh_until, self.path.raise_at, self.timers.woken_by];
        let times = times.iter().fold(0, |all, time| all ^ time.as_nanos());
        times ^ u64::from(numbers ^ octets ^ u32::from(self.tuple.local_port))
    }

    /// Moves to `state`, keeping the counts.
    pub(crate) fn enter<M>(&mut self, state: State, ctx: &mut Ctx<'_, M>) {
        ctx.states.enter(self.state, state);
        self.state = state;
        self.state_since = ctx.now;
    }

    /// The connection is over: no more segments; `App::closed` with `reason` follows.
    pub(crate) fn finish<M>(&mut self, reason: Closed, ctx: &mut Ctx<'_, M>) {
        if self.over.is_none() {
            let unreachable = reason == Closed::TimedOut && self.is_unreachable();
            let reason = if unreachable { Closed::Unreachable } else { reason };
            self.over = Some(reason);
            if reason != Closed::Finished {
                if self.opened || self.opening {
                    ctx.counters.tcp_estab_resets += 1;
                } else {
                    ctx.counters.tcp_attempt_fails += 1;
                }
            }
        }
        if self.state != State::TimeWait {
            self.enter(State::Closed, ctx);
        }
        self.timers = Timers::default();
    }

    /// The application, or the end of the program, cuts the connection off (RFC 9293 §3.10.5). S3.1
    pub(crate) fn abort<M>(&mut self, ctx: &mut Ctx<'_, M>) {
        match self.state {
            State::Closed => {}
            // Both sides have said everything; only octets that nobody took are still here.
            State::TimeWait => self.over = Some(Closed::Aborted),
            state => {
                self.owed.reset = state != State::SynSent;
                self.finish(Closed::Aborted, ctx);
            }
        }
    }

    /// Octets of data in flight as the network sees it (RFC 6675 "pipe"). FIN's octet of sequence space
    /// doesn't count: with a window of one segment it would keep the last data from being sent again.
    fn in_flight(&self) -> u32 {
        let sent = self.snd.nxt.min(self.send.end());
        let outstanding = if self.snd.una.lt(sent) { sent.since(self.snd.una) } else { 0 };
        let arrived = self.recovery.assumed_sacked(u32::from(self.snd.mss));
        outstanding.saturating_sub(self.send.sacked + self.send.lost).saturating_sub(arrived)
    }

    /// How the sending side stands.
    pub(crate) fn metrics(&self) -> Metrics {
        let ssthresh = self.congestion.ssthresh();
        Metrics {
            cwnd: self.shown_window(),
            // Arbitrarily high at first (RFC 5681 §3.1).
            ssthresh: (ssthresh < u32::MAX).then_some(ssthresh),
            in_flight: self.in_flight(),
            srtt: self.rtt.srtt(),
            rto: self.rtt.rto(),
            mss: u32::from(self.snd.mss),
            retransmits: self.retransmits,
        }
    }

    /// Frames that may be held out of order.
    fn out_of_order_limit<M: Memory>(&self, ctx: &Ctx<'_, M>) -> u32 {
        ctx.pool.fair_share()
    }

    // --- the application's side ---------------------------------------------------------------

    /// Chunks that may be queued.
    pub(crate) fn send_room<M: Memory>(&self, pool: &FramePool<M>, config: &Config) -> u32 {
        if !self.state.can_send() || self.fin_queued {
            return 0;
        }
        let (octets, mss) = (config.send_buffer.saturating_sub(self.send.bytes()), u32::from(self.snd.mss));
        let by_frames = pool.fair_share().saturating_sub(self.send.frames());
        let least = SEND_CHUNKS_MIN.saturating_sub(self.send.frames());
        // Asked several times a segment, and a division takes as long as all the rest of it.
        let enough = u64::from(octets) >= u64::from(by_frames) * u64::from(mss);
        let room = if enough { by_frames } else { octets / mss };
        room.max(least)
    }

    /// Whether `chunks`, more than are always granted, may be queued: what [`send_room`](Self::send_room) says, told
    /// at less expense.
    pub(crate) fn has_room<M: Memory>(&self, chunks: u32, pool: &FramePool<M>, config: &Config) -> bool {
        debug_assert!(chunks > SEND_CHUNKS_MIN);
        let octets = u64::from(config.send_buffer.saturating_sub(self.send.bytes()));
        let fits = pool.fair_share() >= self.send.frames() + chunks
            && octets >= u64::from(chunks) * u64::from(self.snd.mss);
        fits && self.state.can_send() && !self.fin_queued
    }

    /// The next octets in order.
    pub(crate) fn read<M: Memory>(&mut self, pool: &mut FramePool<M>) -> Option<crate::frame::Chunk> {
        let chunk = self.recv.pop(pool);
        self.was_read |= chunk.is_some();
        self.urgent_was_read();
        chunk
    }

    /// Queues a chunk, cut to segments.
    pub(crate) fn queue<M: Memory>(
        &mut self,
        pool: &mut FramePool<M>,
        config: &Config,
        mut chunk: crate::frame::Chunk,
    ) -> Result<(), crate::frame::Chunk> {
        if !self.state.can_send() || self.fin_queued {
            return Err(chunk);
        }
        // A callback may go over its room a little (a head and its body), not without bound.
        if self.send.bytes() > 2 * config.send_buffer {
            return Err(chunk);
        }
        if chunk.is_empty() {
            pool.release(chunk);
            return Ok(());
        }
        let mss = usize::from(self.queue_mss());
        while chunk.len() > mss {
            let Some(rest) = pool.split_off(&mut chunk, mss) else {
                self.starved = true;
                return Err(chunk);
            };
            self.send.push(pool, core::mem::replace(&mut chunk, rest));
        }
        // RFC 9293 §3.9.1.2 (SHLD-27, SHLD-28): small writes become one segment, without marks between them.
        if !self.nodelay {
            match self.send.gather(pool, chunk, mss) {
                Ok(()) => return Ok(()),
                Err(back) => chunk = back,
            }
        }
        self.send.push(pool, chunk);
        Ok(())
    }

    /// The application closes its sending side (RFC 9293 §3.10.4). S2.1, S2.2
    pub(crate) fn shutdown<M>(&mut self, ctx: &mut Ctx<'_, M>) {
        if self.fin_queued {
            return;
        }
        if let Some(next) = self.state.close() {
            if self.closes_hard() {
                return self.abort(ctx);
            }
            self.fin_queued = true;
            self.enter(next, ctx);
            self.start_linger(ctx.now);
        } else if self.state == State::SynSent {
            self.finish(Closed::Aborted, ctx);
        }
    }

    pub(crate) fn set_dscp(&mut self, dscp: u8) {
        self.dscp = dscp & 0x3f;
    }

    pub(crate) fn set_nodelay(&mut self, on: bool) {
        self.nodelay = on;
    }

    /// The peer's FIN was reached and everything before it taken.
    pub(crate) fn recv_finished(&self) -> bool {
        self.recv.is_empty() && self.rcv.fin.is_some_and(|fin| fin.lt(self.rcv.nxt))
    }

    pub(crate) fn set_app_timer(&mut self, at: Option<Instant>) {
        match at {
            Some(at) => self.timers.set(TimerKind::App, at),
            None => self.timers.clear(TimerKind::App),
        }
    }

    /// Whether octets lie ahead of a hole, and nothing has come in order since `then`.
    pub(crate) fn has_hole_since(&self, then: Instant) -> bool {
        self.recv.has_holes() && self.in_order_at <= then
    }

    /// Whether octets have waited to be acknowledged, or only to be sent, since `then` without any progress.
    pub(crate) fn has_stalled_since(&self, then: Instant) -> bool {
        let waiting = self.snd.una != self.snd.nxt || self.timers.is_set(TimerKind::Persist);
        waiting && !self.send.is_empty() && self.stalled_since <= then
    }

    /// Whether the peer acknowledged something new after `then`: our packets reach it (RFC 4861 §7.3.1).
    pub(crate) fn has_progressed_since(&self, then: Instant) -> bool {
        self.snd.una != self.snd.iss && self.progressed >= then
    }

    /// Whether something is sent and not acknowledged, or waits to be sent: then a timer runs (T5).
    pub(crate) fn is_waiting(&self) -> bool {
        self.snd.una != self.snd.nxt || self.send.unsent().is_some() || self.fin_is_due()
    }

    /// What `ready` should say that the application hasn't been told.
    pub(crate) fn has_news(&self) -> bool {
        self.opening || self.over.is_some() || self.ready != Ready::default()
    }
}

/// Largest payload the peer takes, as its SYN's options say (RFC 9293 §3.7.1). S6.1
pub(crate) fn peer_mss(options: &Options, tuple: &FourTuple) -> u16 {
    match options.mss {
        // A zero is no announcement (T11).
        None | Some(0) if tuple.remote_ip.is_ipv4() => MSS_DEFAULT_V4,
        None | Some(0) => MSS_DEFAULT_V6,
        Some(mss) => mss.max(MSS_MIN),
    }
}

/// Octets that a connection whose peer sends segments of `mss` may buffer: its share of what is free. S5.2
pub(crate) fn receive_share<M: Memory>(pool: &FramePool<M>, config: &Config, mss: u16) -> u32 {
    // A segment may take several frames.
    let share = pool.fair_share().saturating_mul(u32::from(mss.min(config.mtu)));
    // RFC 9293 §3.8.6.2.2 needs two segments for any progress beyond stop-and-wait.
    let least = 2 * u32::from(mss);
    share.clamp(least, config.receive_buffer.max(least))
}

/// Shift with which the largest window fits 16 bits (RFC 7323 §2.3: at most 14).
pub(crate) fn window_scale(receive_buffer: u32) -> u8 {
    let bits = 32 - receive_buffer.leading_zeros();
    (bits.saturating_sub(16) as u8).min(14)
}

#[cfg(test)]
mod tests {
    use core::mem::offset_of;

    use super::{Tcb, window_scale};
    use crate::CACHE_LINE;
    use crate::stack::SLOT_FRONT;

    /// Of 1 KiB that an idle connection may take in a table of ten million; its timer and its places in tables and lists
    /// are the rest. A slot is that and eight octets, in whole cache lines.
    #[test]
    fn a_connection_stays_small() {
        assert_eq!(size_of::<Tcb>(), 15 * CACHE_LINE - SLOT_FRONT);
    }

    /// The lines in front, one by one, and the congestion controller's first.
    #[test]
    fn whoever_touches_a_connection_touches_each_line_that_a_segment_needs() {
        let touched = [
            offset_of!(Tcb, tuple.local_port),
            offset_of!(Tcb, snd.una),
            offset_of!(Tcb, rcv.nxt),
            offset_of!(Tcb, send.lost),
            offset_of!(Tcb, hop.fresh_until),
            offset_of!(Tcb, tuning.arrived),
            offset_of!(Tcb, path.raise_at),
            offset_of!(Tcb, timers.woken_by),
            offset_of!(Tcb, recv.bytes),
            offset_of!(Tcb, recovery.again),
            offset_of!(Tcb, congestion),
        ];
        let lines = touched.map(|offset| (SLOT_FRONT + offset) / CACHE_LINE);
        assert_eq!(lines, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11]);
        assert_eq!(offset_of!(Tcb, congestion) % CACHE_LINE, 0);
    }

    #[test]
    fn s5_2_the_scale_is_the_smallest_that_expresses_the_buffer() {
        for (buffer, scale) in [(65_535, 0), (65_536, 1), (1 << 20, 5), (8 << 20, 8), (1 << 30, 14)] {
            assert_eq!(window_scale(buffer), scale, "{buffer}");
            assert!(u64::from(buffer) <= 65_536 << scale || scale == 14);
        }
    }
}
