//! Next hops and their Ethernet addresses: ARP (RFC 826) and neighbour discovery (RFC 4861), one table.
//!
//! ```text
//!               lookup: Ask                 learned             30 s            lookup
//!   (nothing) ─────────────→ INCOMPLETE ───────────→ REACHABLE ─────→ (stale) ─────────→ DELAY
//!                             │   ▲                   ▲   ▲                                │ 5 s
//!            3 questions, 3 s │   │ 3 probes, 3 s     │   └── confirmed ── PROBE ←─────────┘
//!                             ▼   └───────────────────┼─────────────────── │
//!                        UNREACHABLE ─── learned ─────┘
//! ```
//!
//! Whoever shares the link can claim any address, so a claim is believed only where we asked, and
//! what is known and fresh, or a gateway's, is never replaced by a claim: it is asked for again (L7).
//! Nor do strangers push out the neighbours that connections use (RFC 6583): entries give way in
//! three ranks, see [`NeighborTable::lookup`].

use core::net::IpAddr;

use siphasher::sip::SipHasher13;

use crate::frame::NONE;
use crate::time::{Duration, Instant};
use crate::wire::MacAddr;
use crate::wire::ethernet::VlanTags;

#[cfg(test)]
mod tests;

/// Entries by default: four times Linux's `gc_thresh3` (1024), which is known to be too small for
/// the largest flat networks; about half a megabyte a core. Behind a gateway a handful is used.
pub const DEFAULT_CAPACITY: u32 = 4096;

/// Gateways that can be pinned.
pub const MAX_PINS: u32 = 16;

/// How long an answer is believed (RFC 4861 §10, REACHABLE_TIME).
const REACHABLE: Duration = Duration::from_secs(30);
/// How long a stale neighbour is used before it is probed (RFC 4861 §10, DELAY_FIRST_PROBE_TIME):
/// most often the connection's own progress confirms it in the meantime.
const DELAY_FIRST_PROBE: Duration = Duration::from_secs(5);
/// Between two questions to one neighbour (RFC 4861 §10, RETRANS_TIMER; RFC 1122 §2.3.2.1: at most
/// one per second).
const RETRANSMIT: Duration = Duration::from_secs(1);
/// Questions before giving up (RFC 4861 §10, MAX_MULTICAST_SOLICIT and MAX_UNICAST_SOLICIT).
const MAX_TRIES: u8 = 3;
/// How long a silent neighbour is left alone: as long as it was asked, so that a dead address costs
/// a question every two seconds at most.
const UNREACHABLE: Duration = Duration::from_secs(3);
/// Connections that one entry wakes. A ninth connection to a neighbour that is just being asked for
/// is served by its own retransmission timer.
const MAX_WAITERS: usize = 8;
/// Answers per second that are passed on to other cores although nothing changed here: one of them
/// may have asked. A bound, as anybody on the link can send such answers.
const TELLS_PER_SECOND: u32 = 256;

/// Where a neighbour is on the link.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Station {
    /// Its Ethernet address.
    pub mac: MacAddr,
    /// The VLAN it is in, without a priority.
    pub vlan: VlanTags,
}

impl Station {
    /// The sender of a frame with these tags.
    pub fn new(mac: MacAddr, vlan: VlanTags) -> Self {
        Self { mac, vlan: vlan.without_priority() }
    }
}

/// What [`NeighborTable::lookup`] knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Resolution {
    /// Send to this station.
    Known(Station),
    /// Send a [`question`](NeighborTable::question) now, and [`wait`](NeighborTable::wait).
    Ask,
    /// A solicitation is on its way: [`wait`](NeighborTable::wait).
    Wait,
    /// The neighbour didn't answer; give up or try later.
    Unreachable,
}

/// How an address was heard of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LearnedBy {
    /// An ARP reply or a neighbour advertisement, asked for or not.
    Answer,
    /// The sender of an ARP request or neighbour solicitation for an address of ours.
    Request,
    /// Another core passed on an answer that its queue received; ours may have asked.
    OtherCore,
}

/// A solicitation to send.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Question {
    /// Who is asked for.
    pub ip: IpAddr,
    /// The neighbour alone, when only its presence is in doubt; everybody otherwise.
    pub probe: Option<MacAddr>,
    /// In which VLAN.
    pub vlan: VlanTags,
}

/// Lists by [`Entry::worth`], each in order of last use.
const RANKS: usize = 3;
/// In none of them.
const UNRANKED: u8 = RANKS as u8;

#[derive(Clone, Copy, Debug)]
enum State {
    /// Pinned and never asked for.
    Idle,
    /// Asked `tries` times; the next question is due at `again`.
    Incomplete { again: Instant, tries: u8 },
    /// Known; stale from `until` on.
    Reachable { until: Instant },
    /// Stale and in use; probed at `until` unless something confirms it.
    Delay { until: Instant },
    /// Probed `tries` times; the next probe is due at `again`.
    Probe { again: Instant, tries: u8 },
    /// Didn't answer; not asked again before `until`.
    Unreachable { until: Instant },
}

#[derive(Clone, Debug)]
struct Entry {
    ip: IpAddr,
    /// Its address is meaningful in Reachable, Delay and Probe, its VLAN in all states.
    station: Station,
    state: State,
    /// Somebody has looked it up, so it isn't just a stranger's claim.
    wanted: bool,
    pinned: bool,
    /// Next entry of the bucket, or of the free list.
    next: u32,
    /// Neighbours in the rank's list, and the list: [`UNRANKED`] if pinned or free.
    older: u32,
    younger: u32,
    rank: u8,
    waiters: [u32; MAX_WAITERS],
    waiting: u8,
}

impl Entry {
    fn known(&self) -> Option<Station> {
        match self.state {
            State::Reachable { .. } | State::Delay { .. } | State::Probe { .. } => Some(self.station),
            State::Idle | State::Incomplete { .. } | State::Unreachable { .. } => None,
        }
    }

    /// What gives way first: claims that nobody looked up (0), then questions without answer (1),
    /// then neighbours in use (2).
    fn worth(&self) -> u8 {
        match (self.pinned, self.wanted, self.known()) {
            (true, ..) => UNRANKED,
            (_, false, _) => 0,
            (_, _, None) => 1,
            _ => 2,
        }
    }
}

/// A bounded table of next hops.
#[derive(Debug)]
pub struct NeighborTable {
    entries: Box<[Entry]>,
    /// Heads of the hash chains; as many as entries, rounded up to a power of two.
    buckets: Box<[u32]>,
    hasher: SipHasher13,
    free: u32,
    len: u32,
    pins: u32,
    /// The longest and the last used entry of each rank.
    oldest: [u32; RANKS],
    youngest: [u32; RANKS],
    /// Nothing happens in [`advance`](Self::advance) before this.
    due: Instant,
    woken: Vec<u32>,
    /// Begin of the second in which `told` answers were passed on.
    telling_since: Instant,
    told: u32,
}

impl NeighborTable {
    /// An empty table for `capacity` neighbours. `key` is secret and random, so that nobody can
    /// choose addresses that fall into one chain (T21).
    ///
    /// # Panics
    /// If `capacity` is 0 or beyond 2^24.
    pub fn new(capacity: u32, key: [u8; 16]) -> Self {
        assert!((1..=1 << 24).contains(&capacity), "{capacity} neighbours");
        let entry = |index| Entry {
            ip: IpAddr::from([0; 4]),
            station: Station::default(),
            state: State::Idle,
            wanted: false,
            pinned: false,
            next: if index + 1 < capacity { index + 1 } else { NONE },
            older: NONE,
            younger: NONE,
            rank: UNRANKED,
            waiters: [NONE; MAX_WAITERS],
            waiting: 0,
        };
        Self {
            entries: (0..capacity).map(entry).collect(),
            buckets: vec![NONE; capacity.next_power_of_two() as usize].into_boxed_slice(),
            hasher: SipHasher13::new_with_key(&key),
            free: 0,
            len: 0,
            pins: 0,
            oldest: [NONE; RANKS],
            youngest: [NONE; RANKS],
            due: Instant::NEVER,
            woken: Vec::with_capacity(capacity as usize * MAX_WAITERS),
            telling_since: Instant::ZERO,
            told: 0,
        }
    }

    /// Number of entries, at most the capacity.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Where to send a packet whose next hop is `ip`, an address on the link. Who isn't known is asked for in
    /// `vlan`, or, if that says nothing, where the neighbour was last.
    ///
    /// When the table is full, a new entry takes the place of the longest unused one: of those that
    /// strangers made and nobody looked up, if there are any; otherwise of those that haven't
    /// answered; otherwise of all. A pinned one never gives way.
    pub fn lookup(&mut self, ip: IpAddr, vlan: Option<VlanTags>, now: Instant) -> Resolution {
        let Some(index) = self.find(ip).or_else(|| self.insert(ip, true)) else {
            return Resolution::Unreachable;
        };
        self.entries[index as usize].wanted = true;
        self.touch(index);
        let entry = &mut self.entries[index as usize];
        match entry.state {
            State::Reachable { until } if until <= now => {
                // RFC 4861 §7.3.3: the first packet to a stale neighbour starts the delay.
                entry.state = State::Delay { until: now + DELAY_FIRST_PROBE };
                let station = entry.station;
                self.due = self.due.min(now + DELAY_FIRST_PROBE);
                Resolution::Known(station)
            }
            State::Reachable { .. } | State::Delay { .. } | State::Probe { .. } => {
                Resolution::Known(entry.station)
            }
            State::Incomplete { .. } => Resolution::Wait,
            State::Unreachable { until } if now < until => Resolution::Unreachable,
            State::Unreachable { .. } | State::Idle => {
                entry.state = State::Incomplete { again: now + RETRANSMIT, tries: 1 };
                if let Some(vlan) = vlan {
                    entry.station.vlan = vlan.without_priority();
                }
                self.due = self.due.min(now + RETRANSMIT);
                Resolution::Ask
            }
        }
    }

    /// What to ask for `ip`, which is being looked for.
    pub fn question(&self, ip: IpAddr) -> Question {
        let vlan = self.find(ip).map_or(VlanTags::NONE, |index| self.entries[index as usize].station.vlan);
        Question { ip, probe: None, vlan }
    }

    /// Notes that `ip` claims to be at `station`; true if the other cores should hear of it, which is
    /// never so for what comes from one.
    ///
    /// The caller has checked that `ip` is on the link and not ours, and for
    /// [`LearnedBy::Request`] that the question was for an address of ours (RFC 826, "Am I the
    /// target protocol address?").
    pub fn learned(&mut self, ip: IpAddr, station: Station, now: Instant, by: LearnedBy) -> bool {
        if station.mac.is_group() || ip.is_multicast() || ip.is_unspecified() {
            return false;
        }
        let Some(index) = self.find(ip) else {
            return match by {
                LearnedBy::Request => self.learned_from_stranger(ip, station, now),
                // L7: what wasn't asked for makes no entry. Another core may have asked.
                LearnedBy::Answer => self.may_tell(now),
                LearnedBy::OtherCore => false,
            };
        };
        let entry = &self.entries[index as usize];
        let stale = State::Reachable { until: now };
        let fresh = State::Reachable { until: now + REACHABLE };
        let changed = match (entry.state, by) {
            // Never asked for, and a gateway: nobody's claim is taken.
            (State::Idle, _) => false,
            // RFC 4861 §7.2.3: a solicitation tells the address, not that we can reach it.
            (State::Incomplete { .. } | State::Unreachable { .. }, LearnedBy::Request) => {
                self.set(index, station, stale)
            }
            (State::Incomplete { .. } | State::Unreachable { .. }, _) => self.set(index, station, fresh),
            // Only the one who was asked can answer a probe: it went to that address alone. Otherwise a
            // stranger who doubts an entry aloud could answer the question that this raises (L7).
            (State::Probe { .. }, LearnedBy::Answer | LearnedBy::OtherCore) if entry.station == station => {
                self.set(index, station, fresh)
            }
            _ if entry.station == station => false,
            _ => self.contradicted(index, station, now),
        };
        match by {
            LearnedBy::Answer => changed || self.may_tell(now),
            LearnedBy::Request => changed,
            LearnedBy::OtherCore => false,
        }
    }

    /// The host's kernel, whose neighbours these are, says where `ip` is, or that it isn't there: believed whatever was
    /// known, for it has asked. One that nobody looked for is kept where that costs nobody else a place.
    pub fn told_by_kernel(&mut self, ip: IpAddr, station: Option<Station>, now: Instant) {
        let found = self.find(ip);
        match (station, found) {
            (Some(station), _) if station.mac.is_group() => {}
            (Some(station), _) => {
                if let Some(index) = found.or_else(|| self.insert(ip, false)) {
                    self.set(index, station, State::Reachable { until: now + REACHABLE });
                }
            }
            (None, None) => {}
            (None, Some(index)) => {
                let entry = &mut self.entries[index as usize];
                if matches!(entry.state, State::Incomplete { .. }) {
                    entry.state = State::Unreachable { until: now + UNREACHABLE };
                    wake(entry, &mut self.woken);
                } else {
                    // Not in use any more, or its place was needed: asked for again when it is.
                    self.remove(index);
                }
            }
        }
    }

    /// Something arrived that the neighbour can only have sent because our packets reach it, such as
    /// an ACK for new data (RFC 4861 §7.3.1), when they go to `mac`: another station that has claimed the
    /// address meanwhile is confirmed by nothing (L7). Saves the probes; once a second is often enough.
    pub fn confirm(&mut self, ip: IpAddr, mac: MacAddr, now: Instant) {
        if let Some(index) = self.find(ip) {
            let entry = &mut self.entries[index as usize];
            if entry.known().is_some_and(|station| station.mac == mac) {
                entry.state = State::Reachable { until: now + REACHABLE };
            }
        }
    }

    /// Keeps an entry for `ip` for ever: a gateway. False if there are [`MAX_PINS`] already, or no
    /// room.
    pub fn pin(&mut self, ip: IpAddr) -> bool {
        if self.pins == MAX_PINS {
            return false;
        }
        let Some(index) = self.find(ip).or_else(|| self.insert(ip, true)) else {
            return false;
        };
        let entry = &mut self.entries[index as usize];
        self.pins += u32::from(!entry.pinned);
        entry.pinned = true;
        self.touch(index);
        true
    }

    /// Asks that `conn` be woken when the question for `ip` is decided, for better or worse. False if
    /// nothing is being asked, or too many wait already: then a timer has to do.
    pub fn wait(&mut self, ip: IpAddr, conn: u32) -> bool {
        let Some(index) = self.find(ip) else { return false };
        let entry = &mut self.entries[index as usize];
        let waiting = usize::from(entry.waiting);
        if !matches!(entry.state, State::Incomplete { .. }) {
            return false;
        }
        if entry.waiters[..waiting].contains(&conn) {
            return true;
        }
        let Some(slot) = entry.waiters.get_mut(waiting) else { return false };
        *slot = conn;
        entry.waiting += 1;
        true
    }

    /// Whether there is anything for [`take_woken`](Self::take_woken).
    #[inline]
    pub fn has_woken(&self) -> bool {
        !self.woken.is_empty()
    }

    /// Moves the connections to wake to `out`. Each has to look its next hop up again, and may be
    /// gone by now.
    pub fn take_woken(&mut self, out: &mut Vec<u32>) {
        out.append(&mut self.woken);
    }

    /// When [`advance`](Self::advance) has something to do; [`Instant::NEVER`] if it hasn't.
    pub fn next_deadline(&self) -> Instant {
        self.due
    }

    /// Repeats questions, probes and gives up, as far as due; `ask` gets the solicitations to send.
    /// Free before [`next_deadline`](Self::next_deadline), otherwise one walk over the table, and
    /// never more often than the questions' intervals ask for.
    pub fn advance(&mut self, now: Instant, mut ask: impl FnMut(Question)) {
        if now < self.due {
            return;
        }
        self.due = Instant::NEVER;
        for index in 0..self.entries.len() {
            if let Some(question) = self.step(index as u32, now) {
                ask(question);
            }
        }
    }

    /// One entry's part in [`advance`](Self::advance).
    fn step(&mut self, index: u32, now: Instant) -> Option<Question> {
        let entry = &mut self.entries[index as usize];
        let Station { mac, vlan } = entry.station;
        let everybody = Question { ip: entry.ip, probe: None, vlan };
        let alone = Question { ip: entry.ip, probe: Some(mac), vlan };
        let again = now + RETRANSMIT;
        let question = match entry.state {
            State::Incomplete { again: due, tries } if due <= now => {
                if tries < MAX_TRIES {
                    entry.state = State::Incomplete { again, tries: tries + 1 };
                    Some(everybody)
                } else {
                    entry.state = State::Unreachable { until: now + UNREACHABLE };
                    wake(entry, &mut self.woken);
                    None
                }
            }
            State::Delay { until } if until <= now => {
                entry.state = State::Probe { again, tries: 1 };
                Some(alone)
            }
            State::Probe { again: due, tries } if due <= now => {
                if tries < MAX_TRIES {
                    entry.state = State::Probe { again, tries: tries + 1 };
                    Some(alone)
                } else {
                    // RFC 7048 §3: it may have moved; ask everybody before giving up.
                    entry.state = State::Incomplete { again, tries: 1 };
                    self.touch(index);
                    Some(everybody)
                }
            }
            _ => None,
        };
        if let State::Incomplete { again: due, .. }
        | State::Probe { again: due, .. }
        | State::Delay { until: due } = self.entries[index as usize].state
        {
            self.due = self.due.min(due);
        }
        question
    }

    /// A stranger asked for us and will want an answer (RFC 826). Kept only where that costs nobody
    /// else a place, and not believed to be reachable (RFC 4861 §7.2.3).
    fn learned_from_stranger(&mut self, ip: IpAddr, station: Station, now: Instant) -> bool {
        let Some(index) = self.insert(ip, false) else { return false };
        self.set(index, station, State::Reachable { until: now })
    }

    /// A claim against what is known, without our having asked.
    fn contradicted(&mut self, index: u32, station: Station, now: Instant) -> bool {
        let entry = &mut self.entries[index as usize];
        match entry.state {
            // It is being asked already.
            State::Probe { .. } => false,
            State::Reachable { until } if until > now => {
                // L7: fresh. Ask the one we know; if it has moved, it won't answer, and everybody is
                // asked. At most once a second, whatever is claimed.
                if now.since(until - REACHABLE) >= RETRANSMIT {
                    self.probe_now(index, now);
                }
                false
            }
            // L7: a gateway isn't taken over by a claim, however old our knowledge.
            _ if entry.pinned => {
                self.probe_now(index, now);
                false
            }
            // Stale: an address that moved (failover) is found at once, and probed when used.
            _ => self.set(index, station, State::Reachable { until: now }),
        }
    }

    fn probe_now(&mut self, index: u32, now: Instant) {
        self.entries[index as usize].state = State::Probe { again: now, tries: 0 };
        self.due = self.due.min(now);
    }

    /// Makes an address known and wakes who waits for it. Always true: something changed.
    fn set(&mut self, index: u32, station: Station, state: State) -> bool {
        let entry = &mut self.entries[index as usize];
        entry.station = station;
        entry.state = state;
        wake(entry, &mut self.woken);
        self.touch(index);
        true
    }

    fn may_tell(&mut self, now: Instant) -> bool {
        if now.since(self.telling_since) >= Duration::from_secs(1) {
            self.telling_since = now;
            self.told = 0;
        }
        self.told = self.told.saturating_add(1);
        self.told <= TELLS_PER_SECOND
    }

    fn bucket(&self, ip: IpAddr) -> usize {
        let octets = match ip {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            IpAddr::V6(v6) => v6.octets(),
        };
        self.hasher.hash(&octets) as usize & (self.buckets.len() - 1)
    }

    fn find(&self, ip: IpAddr) -> Option<u32> {
        let mut index = self.buckets[self.bucket(ip)];
        while index != NONE {
            let entry = &self.entries[index as usize];
            if entry.ip == ip {
                return Some(index);
            }
            index = entry.next;
        }
        None
    }

    /// A new entry, for which an older one gives way if need be: a stranger's claim (`!wanted`) only
    /// takes another's place.
    fn insert(&mut self, ip: IpAddr, wanted: bool) -> Option<u32> {
        if self.free == NONE {
            let ranks = if wanted { &self.oldest[..] } else { &self.oldest[..1] };
            let victim = ranks.iter().copied().find(|&index| index != NONE)?;
            self.remove(victim);
        }
        let index = self.free;
        let bucket = self.bucket(ip);
        let entry = &mut self.entries[index as usize];
        self.free = entry.next;
        entry.ip = ip;
        entry.station = Station::default();
        entry.state = State::Idle;
        entry.wanted = wanted;
        entry.next = self.buckets[bucket];
        self.buckets[bucket] = index;
        self.len += 1;
        self.touch(index);
        Some(index)
    }

    /// Makes an entry the youngest of the rank that it has now.
    fn touch(&mut self, index: u32) {
        let entry = &self.entries[index as usize];
        let rank = entry.worth();
        if rank == entry.rank && entry.younger == NONE {
            return;
        }
        self.unrank(index);
        let entry = &mut self.entries[index as usize];
        entry.rank = rank;
        if rank == UNRANKED {
            return;
        }
        let older = core::mem::replace(&mut self.youngest[usize::from(rank)], index);
        entry.older = older;
        if older == NONE {
            self.oldest[usize::from(rank)] = index;
        } else {
            self.entries[older as usize].younger = index;
        }
    }

    /// Takes an entry out of its rank's list.
    fn unrank(&mut self, index: u32) {
        let entry = &mut self.entries[index as usize];
        let rank = usize::from(core::mem::replace(&mut entry.rank, UNRANKED));
        let older = core::mem::replace(&mut entry.older, NONE);
        let younger = core::mem::replace(&mut entry.younger, NONE);
        if rank == RANKS {
            return;
        }
        if older == NONE {
            self.oldest[rank] = younger;
        } else {
            self.entries[older as usize].younger = younger;
        }
        if younger == NONE {
            self.youngest[rank] = older;
        } else {
            self.entries[younger as usize].older = older;
        }
    }

    /// Frees an entry; who waits for it has to look up again.
    fn remove(&mut self, index: u32) {
        let bucket = self.bucket(self.entries[index as usize].ip);
        let after = self.entries[index as usize].next;
        if self.buckets[bucket] == index {
            self.buckets[bucket] = after;
        } else {
            let mut at = self.buckets[bucket];
            while self.entries[at as usize].next != index {
                at = self.entries[at as usize].next;
            }
            self.entries[at as usize].next = after;
        }
        self.unrank(index);
        let entry = &mut self.entries[index as usize];
        wake(entry, &mut self.woken);
        entry.state = State::Idle;
        entry.next = self.free;
        self.free = index;
        self.len -= 1;
    }
}

/// Moves an entry's waiting connections to those to wake.
fn wake(entry: &mut Entry, woken: &mut Vec<u32>) {
    woken.extend_from_slice(&entry.waiters[..usize::from(entry.waiting)]);
    entry.waiting = 0;
}
