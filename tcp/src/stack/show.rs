//! What the operator sees: counters and connections (S3.3, S2.3).

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::Stack;
use crate::app::ConnId;
use crate::counters::{Counters, Totals};
use crate::frame::Memory;
use crate::tcb::Tcb;
use crate::tcb::congestion::{Algorithm, Congestion, Phase};
use crate::tcb::state::{State, States};
use crate::time::{Duration, Instant};
use crate::timer::TimerKind;

/// A connection as `byway conns` shows it.
#[derive(Clone, Debug)]
pub struct ConnInfo {
    /// Its name.
    pub id: ConnId,
    /// Its state.
    pub state: State,
    /// Our side.
    pub local: SocketAddr,
    /// The other side; unspecified for a listener.
    pub peer: SocketAddr,
    /// Octets received and not yet taken by the application; for a listener, half-open connections.
    pub recv_queue: u32,
    /// Octets sent or queued and not yet acknowledged; for a listener, its backlog.
    pub send_queue: u32,
    /// How long it has been in this state.
    pub in_state: Duration,
    /// Smoothed round-trip time, once measured.
    pub srtt: Option<Duration>,
    /// Its variation.
    pub rttvar: Duration,
    /// Smallest of the last minutes, once measured.
    pub min_rtt: Option<Duration>,
    /// Retransmission timeout.
    pub rto: Duration,
    /// How often it has been doubled since the last progress.
    pub backoff: u8,
    /// What it waits for next, and how long still.
    pub timer: Option<(TimerKind, Duration)>,
    /// Congestion window, octets.
    pub cwnd: u32,
    /// Slow-start threshold, octets.
    pub ssthresh: u32,
    /// Where loss recovery stands.
    pub phase: Phase,
    /// Congestion control.
    pub congestion: Algorithm,
    /// What congestion control is doing.
    pub mode: &'static str,
    /// Payload octets of a full segment.
    pub mss: u16,
    /// Octets sent and not acknowledged.
    pub unacked: u32,
    /// What the peer lets us send, and we it, in octets.
    pub send_window: u32,
    /// As above.
    pub recv_window: u32,
    /// Segments retransmitted, ever.
    pub retransmits: u32,
}

impl ConnInfo {
    fn bare(state: State, local: SocketAddr, peer: SocketAddr) -> Self {
        Self {
            id: ConnId { index: u32::MAX, generation: 0 },
            state,
            local,
            peer,
            recv_queue: 0,
            send_queue: 0,
            in_state: Duration::ZERO,
            srtt: None,
            rttvar: Duration::ZERO,
            min_rtt: None,
            rto: Duration::ZERO,
            backoff: 0,
            timer: None,
            cwnd: 0,
            ssthresh: 0,
            phase: Phase::Open,
            congestion: Algorithm::default(),
            mode: "",
            mss: 0,
            unacked: 0,
            send_window: 0,
            recv_window: 0,
            retransmits: 0,
        }
    }

    fn of(tcb: &Tcb, id: ConnId, now: Instant) -> Self {
        Self {
            id,
            state: tcb.state,
            local: tcb.tuple.local(),
            peer: tcb.tuple.remote(),
            recv_queue: tcb.recv.bytes(),
            send_queue: tcb.send.bytes(),
            in_state: now.since(tcb.state_since),
            srtt: tcb.rtt.srtt(),
            rttvar: tcb.rtt.variation(),
            min_rtt: tcb.rtt.min_rtt(),
            rto: tcb.rtt.rto(),
            backoff: tcb.rtt.backoff(),
            timer: tcb.timers.next_of_tcp().map(|(kind, at)| (kind, at.since(now))),
            cwnd: tcb.shown_window(),
            ssthresh: tcb.congestion.ssthresh(),
            phase: tcb.phase(),
            congestion: tcb.congestion.algorithm(),
            mode: tcb.congestion.mode(),
            mss: tcb.snd.mss,
            unacked: tcb.snd.nxt.since(tcb.snd.una),
            send_window: tcb.snd.wnd,
            recv_window: tcb.rcv.wnd(),
            retransmits: tcb.retransmits,
        }
    }
}

impl<M: Memory> Stack<M> {
    /// Connections that aren't closed, TIME-WAIT not counted.
    pub fn connection_count(&self) -> u32 {
        self.flows.len()
    }

    /// The counters so far.
    pub fn counters(&self) -> Counters {
        let mut counters = self.counters.clone();
        counters.payload_bytes_copied = self.pool.payload_bytes_copied();
        counters
    }

    /// Takes note of what the other cores have counted and hold, for `Conn::totals`.
    pub fn learn_totals(&mut self, elsewhere: Box<Totals>) {
        self.elsewhere = elsewhere;
    }

    /// Connections in each state, and the moves between them.
    pub fn states(&self) -> &States {
        &self.states
    }

    /// Connections in each state, by `State as usize`.
    pub fn connections_by_state(&self) -> [u32; State::COUNT] {
        *self.states.now()
    }

    /// Shows connections from place `from` on, looking at no more than `max` places: listeners first,
    /// TIME-WAIT last. Returns the place to go on with, `None` at the end, so that a turn of the loop
    /// stays short however many there are.
    pub fn connections(
        &self,
        from: u32,
        max: u32,
        now: Instant,
        show: &mut dyn FnMut(ConnInfo),
    ) -> Option<u32> {
        let listeners = self.listeners.all();
        let (slots_at, waits_at) = (listeners.len() as u32, listeners.len() as u32 + self.slots.len() as u32);
        let end = waits_at + self.time_wait.slots();
        let stop = from.saturating_add(max).min(end);
        for place in from..stop {
            if place < slots_at {
                let port = &listeners[place as usize];
                let any: IpAddr = if self.config.addresses.iter().any(|own| own.address.is_ipv6()) {
                    Ipv6Addr::UNSPECIFIED.into()
                } else {
                    Ipv4Addr::UNSPECIFIED.into()
                };
                let mut info = ConnInfo::bare(
                    State::Listen,
                    SocketAddr::new(port.address.unwrap_or(any), port.listener.port),
                    SocketAddr::new(any, 0),
                );
                info.recv_queue = port.half_open;
                info.send_queue = port.listener.backlog;
                show(info);
            } else if place < waits_at {
                let index = place - slots_at;
                let slot = &self.slots[index as usize];
                if let Some(tcb) = &slot.tcb {
                    show(ConnInfo::of(tcb, ConnId { index, generation: slot.generation }, now));
                }
            } else if let Some((tuple, waited)) = self.time_wait.show(place - waits_at, &self.config, now) {
                let mut info = ConnInfo::bare(State::TimeWait, tuple.local(), tuple.remote());
                info.in_state = waited;
                show(info);
            }
        }
        (stop < end).then_some(stop)
    }
}
