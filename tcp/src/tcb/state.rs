//! The eleven states of RFC 9293 §3.3.2 and the events that move between them.
//!
//! ```text
//!                              ┌────────┐ passive_open   ┌────────┐
//!                    ┌─────────│ CLOSED │───────────────→│ LISTEN │
//!        active_open │         └────────┘                └───┬────┘
//!                    ▼                                       │ syn_received
//!              ┌──────────┐  syn_received           ┌────────▼─────┐
//!              │ SYN-SENT │────────────────────────→│ SYN-RECEIVED │
//!              └────┬─────┘ (simultaneous open)     └──────┬───────┘
//!                   │ established                          │ established
//!                   └────────────→┌─────────────┐←─────────┘
//!                       close     │ ESTABLISHED │  fin_received
//!              ┌──────────────────┤             ├─────────────────┐
//!              ▼                  └─────────────┘                 ▼
//!       ┌────────────┐ fin_received ┌─────────┐            ┌────────────┐
//!       │ FIN-WAIT-1 │─────────────→│ CLOSING │            │ CLOSE-WAIT │
//!       └─────┬──────┘              └────┬────┘            └─────┬──────┘
//!             │ fin_acked                │ fin_acked             │ close
//!       ┌─────▼──────┐ fin_received ┌────▼──────┐          ┌─────▼────┐ fin_acked
//!       │ FIN-WAIT-2 │─────────────→│ TIME-WAIT │          │ LAST-ACK │──────────→ CLOSED
//!       └────────────┘              └───────────┘          └──────────┘
//! ```
//!
//! SYN-RECEIVED takes `close` and `fin_received` as ESTABLISHED does.

/// A connection's state (RFC 9293 §3.3.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u8)]
#[allow(missing_docs)] // The RFC's names.
pub enum State {
    Closed,
    Listen,
    SynSent,
    SynReceived,
    Established,
    FinWait1,
    FinWait2,
    CloseWait,
    Closing,
    LastAck,
    TimeWait,
}

impl State {
    /// Number of states.
    pub const COUNT: usize = 11;

    /// All states, in the order of their discriminants.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Closed,
        Self::Listen,
        Self::SynSent,
        Self::SynReceived,
        Self::Established,
        Self::FinWait1,
        Self::FinWait2,
        Self::CloseWait,
        Self::Closing,
        Self::LastAck,
        Self::TimeWait,
    ];

    /// As `ss` writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Closed => "UNCONN",
            Self::Listen => "LISTEN",
            Self::SynSent => "SYN-SENT",
            Self::SynReceived => "SYN-RECV",
            Self::Established => "ESTAB",
            Self::FinWait1 => "FIN-WAIT-1",
            Self::FinWait2 => "FIN-WAIT-2",
            Self::CloseWait => "CLOSE-WAIT",
            Self::Closing => "CLOSING",
            Self::LastAck => "LAST-ACK",
            Self::TimeWait => "TIME-WAIT",
        }
    }

    /// The application closes (or shuts its sending side); `None` where that changes nothing.
    /// SYN-RECEIVED closes too (RFC 9293 §3.10.4). S2.1
    pub const fn close(self) -> Option<Self> {
        match self {
            Self::SynReceived | Self::Established => Some(Self::FinWait1),
            Self::CloseWait => Some(Self::LastAck),
            _ => None,
        }
    }

    /// The peer's FIN is in order (RFC 9293 §3.10.7.4, eighth step); `None` where it isn't new.
    pub const fn fin_received(self) -> Option<Self> {
        match self {
            Self::SynReceived | Self::Established => Some(Self::CloseWait),
            Self::FinWait1 => Some(Self::Closing),
            Self::FinWait2 => Some(Self::TimeWait),
            _ => None,
        }
    }

    /// The peer acknowledged our FIN (RFC 9293 §3.10.7.4, fifth step).
    pub const fn fin_acked(self) -> Option<Self> {
        match self {
            Self::FinWait1 => Some(Self::FinWait2),
            Self::Closing => Some(Self::TimeWait),
            Self::LastAck => Some(Self::Closed),
            _ => None,
        }
    }

    /// The handshake's last ACK arrived, or the SYN-ACK for our SYN.
    pub const fn established(self) -> Option<Self> {
        match self {
            Self::SynSent | Self::SynReceived => Some(Self::Established),
            _ => None,
        }
    }

    /// A SYN arrived: at a listener, or crossing ours (simultaneous open, RFC 9293 §3.5). S1.6
    pub const fn syn_received(self) -> Option<Self> {
        match self {
            Self::Listen | Self::SynSent => Some(Self::SynReceived),
            _ => None,
        }
    }

    /// Whether a connection can be in it: in CLOSED there is none, and in LISTEN only a listener.
    const fn is_of_a_connection(self) -> bool {
        !matches!(self, Self::Closed | Self::Listen)
    }

    /// Whether the application may queue data; before ESTABLISHED it waits for that (RFC 9293 §3.10.2).
    pub const fn can_send(self) -> bool {
        matches!(self, Self::SynSent | Self::SynReceived | Self::Established | Self::CloseWait)
    }

    /// Whether data from the peer is still to be expected (RFC 9293 §3.10.7.4, seventh step).
    pub const fn can_receive(self) -> bool {
        matches!(self, Self::Established | Self::FinWait1 | Self::FinWait2)
    }
}

/// Connections in each state, and how often one has ever gone from each state to each other.
///
/// One increment where a state changes, none per segment. Totals of all connections: they name nobody.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct States {
    now: [u32; State::COUNT],
    /// By the state that was left, then by the one entered.
    moved: [[u64; State::COUNT]; State::COUNT],
}

impl States {
    /// Connections in each state, by `State as usize`. In CLOSED there is none (RFC 9293 §3.3.2: "no connection state
    /// at all"); in LISTEN are the listeners.
    pub const fn now(&self) -> &[u32; State::COUNT] {
        &self.now
    }

    /// How many are in `state`.
    pub const fn count(&self, state: State) -> u32 {
        self.now[state as usize]
    }

    /// How many have gone from `from` to `to`. An open begins at LISTEN or CLOSED, every end is a move to CLOSED.
    pub const fn moved(&self, from: State, to: State) -> u64 {
        self.moved[from as usize][to as usize]
    }

    /// There are so many listeners.
    pub const fn listen(&mut self, listeners: u32) {
        self.now[State::Listen as usize] = listeners;
    }

    /// A connection goes from `from` to `to`.
    pub const fn enter(&mut self, from: State, to: State) {
        self.enter_all(from, to, 1);
    }

    /// So many of them at once.
    pub const fn enter_all(&mut self, from: State, to: State, connections: u32) {
        if from.is_of_a_connection() {
            self.now[from as usize] -= connections;
        }
        if to.is_of_a_connection() {
            self.now[to as usize] += connections;
        }
        self.moved[from as usize][to as usize] += connections as u64;
    }

    /// Adds another core's.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.now.iter_mut().zip(other.now) {
            *mine += theirs;
        }
        for (mine, theirs) in self.moved.as_flattened_mut().iter_mut().zip(other.moved.as_flattened()) {
            *mine += theirs;
        }
    }

    /// Checks that the connections in each state are those that came less those that left.
    ///
    /// # Panics
    /// If not.
    pub fn assert_consistent(&self) {
        for state in State::ALL.into_iter().filter(|state| state.is_of_a_connection()) {
            let came: u64 = State::ALL.iter().map(|&from| self.moved(from, state)).sum();
            let left: u64 = State::ALL.iter().map(|&to| self.moved(state, to)).sum();
            assert_eq!(came - left, u64::from(self.count(state)), "{state:?}: came {came}, left {left}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::State::{self, *};
    use super::States;

    #[test]
    fn states_are_counted_as_connections_come_and_go() {
        let mut states = States::default();
        states.listen(2);
        for _ in 0..3 {
            states.enter(Listen, SynReceived);
            states.enter(SynReceived, Established);
        }
        states.enter(Established, Closed);
        states.enter_all(Established, TimeWait, 2);
        assert_eq!((states.count(Listen), states.count(TimeWait), states.now().iter().sum()), (2, 2, 4));
        assert_eq!((states.moved(Listen, SynReceived), states.moved(Established, TimeWait)), (3, 2));
        states.assert_consistent();
        let mut both = states.clone();
        both.merge(&states);
        both.assert_consistent();
        assert_eq!((both.count(TimeWait), both.moved(Established, Closed)), (4, 2));
    }

    /// The whole transition table of RFC 9293 figure 5. S1.1 S1.6 S2.1
    #[test]
    fn s2_1_every_event_in_every_state() {
        let table: [(State, [Option<State>; 5]); State::COUNT] = [
            // state, close, fin_received, fin_acked, established, syn_received
            (Closed, [None, None, None, None, None]),
            (Listen, [None, None, None, None, Some(SynReceived)]),
            (SynSent, [None, None, None, Some(Established), Some(SynReceived)]),
            (SynReceived, [Some(FinWait1), Some(CloseWait), None, Some(Established), None]),
            (Established, [Some(FinWait1), Some(CloseWait), None, None, None]),
            (FinWait1, [None, Some(Closing), Some(FinWait2), None, None]),
            (FinWait2, [None, Some(TimeWait), None, None, None]),
            (CloseWait, [Some(LastAck), None, None, None, None]),
            (Closing, [None, None, Some(TimeWait), None, None]),
            (LastAck, [None, None, Some(Closed), None, None]),
            (TimeWait, [None, None, None, None, None]),
        ];
        for (index, (state, [close, fin, acked, established, syn])) in table.into_iter().enumerate() {
            assert_eq!(State::ALL[index], state);
            assert_eq!(state as usize, index);
            assert_eq!(state.close(), close, "{state:?} close");
            assert_eq!(state.fin_received(), fin, "{state:?} fin_received");
            assert_eq!(state.fin_acked(), acked, "{state:?} fin_acked");
            assert_eq!(state.established(), established, "{state:?} established");
            assert_eq!(state.syn_received(), syn, "{state:?} syn_received");
        }
    }
}
