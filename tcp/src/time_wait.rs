//! TIME-WAIT, in a compact table of its own (S2.4, S2.5): the connection's slot and its buffers are free
//! as soon as both sides have closed.

use core::net::IpAddr;

use hashbrown::HashTable;

use crate::flow_table::{FourTuple, HashKey};
use crate::seq::SeqNumber;
use crate::stack::Config;
use crate::time::{Duration, Instant};
use crate::timer::wheel::TimerWheel;
use crate::wire::tcp::{Flags, Segment};

/// 2 MSL is seconds: a tick of 2^27 ns (134 ms) is fine enough.
const TICK_SHIFT: u32 = 27;

/// What is remembered of a closed connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    remote_ip: [u8; 16],
    /// Index into the stack's own addresses.
    local: u16,
    local_port: u16,
    remote_port: u16,
    has_timestamps: bool,
    /// When a segment without text was last answered, in [`ANSWER_TICK_MS`]s modulo 256.
    answered: u8,
    snd_nxt: SeqNumber,
    rcv_nxt: SeqNumber,
    /// TS.Recent
    recent: u32,
}

/// Segments without text are answered once in so many milliseconds (RFC 5961 §7, T9).
const ANSWER_TICK_MS: u64 = 500;

fn answer_tick(now: Instant) -> u8 {
    (now.as_millis() / ANSWER_TICK_MS) as u8
}

/// What a segment for a TIME-WAIT pair leads to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// Nothing.
    Ignore,
    /// ACK with these numbers (RFC 9293 §3.10.7.4).
    Ack { seq: SeqNumber, ack: SeqNumber, recent: Option<u32> },
    /// A newer SYN: the entry is gone, the listener takes over (RFC 6191; RFC 9293 §3.6.1, MAY-2, SHLD-4). Our initial
    /// sequence number has to lie beyond what the old connection used.
    Reopen { used: SeqNumber },
}

/// The table.
#[derive(Debug)]
pub(crate) struct TimeWaitTable {
    key: HashKey,
    map: HashTable<u32>,
    entries: Vec<Entry>,
    free: Vec<u32>,
    wheel: TimerWheel,
    max: u32,
    duration: Duration,
}

fn mapped(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    }
}

impl Entry {
    fn tuple(&self, config: &Config) -> FourTuple {
        let local_ip = config.addresses[usize::from(self.local)].address;
        let ip = core::net::Ipv6Addr::from(self.remote_ip);
        let remote_ip = if local_ip.is_ipv4() { IpAddr::V6(ip).to_canonical() } else { IpAddr::V6(ip) };
        FourTuple { local_ip, remote_ip, local_port: self.local_port, remote_port: self.remote_port }
    }

    fn is(&self, tuple: &FourTuple, config: &Config) -> bool {
        self.remote_port == tuple.remote_port
            && self.local_port == tuple.local_port
            && self.remote_ip == mapped(tuple.remote_ip)
            && config.addresses[usize::from(self.local)].address == tuple.local_ip
    }
}

impl TimeWaitTable {
    pub(crate) fn new(key: HashKey, config: &Config) -> Self {
        let max = config.max_time_wait.max(1);
        Self {
            key,
            map: HashTable::with_capacity(max as usize),
            entries: Vec::with_capacity(max as usize),
            free: Vec::with_capacity(max as usize),
            wheel: TimerWheel::new(max, TICK_SHIFT),
            max,
            duration: config.time_wait,
        }
    }

    /// Enters a pair. False when the table is full: the pair is then closed without the wait.
    pub(crate) fn insert(
        &mut self,
        tuple: &FourTuple,
        (snd_nxt, rcv_nxt): (SeqNumber, SeqNumber),
        recent: Option<u32>,
        config: &Config,
        now: Instant,
    ) -> bool {
        let Some(local) = config.addresses.iter().position(|own| own.address == tuple.local_ip) else {
            return false;
        };
        let entry = Entry {
            remote_ip: mapped(tuple.remote_ip),
            local: local as u16,
            local_port: tuple.local_port,
            remote_port: tuple.remote_port,
            has_timestamps: recent.is_some(),
            answered: answer_tick(now).wrapping_sub(1),
            snd_nxt,
            rcv_nxt,
            recent: recent.unwrap_or(0),
        };
        let index = match self.free.pop() {
            Some(index) => {
                self.entries[index as usize] = entry;
                index
            }
            None if (self.entries.len() as u32) < self.max => {
                self.entries.push(entry);
                self.entries.len() as u32 - 1
            }
            None => return false,
        };
        let (key, entries) = (self.key, &self.entries);
        self.map
            .insert_unique(key.hash(tuple), index, |&other| key.hash(&entries[other as usize].tuple(config)));
        self.wheel.arm(index, now + self.duration);
        true
    }

    fn find(&self, tuple: &FourTuple, config: &Config) -> Option<u32> {
        if self.map.is_empty() {
            return None;
        }
        let hash = self.key.hash(tuple);
        self.map.find(hash, |&index| self.entries[index as usize].is(tuple, config)).copied()
    }

    /// Whether the pair still waits.
    pub(crate) fn contains(&self, tuple: &FourTuple, config: &Config) -> bool {
        self.find(tuple, config).is_some()
    }

    fn remove(&mut self, index: u32, config: &Config) {
        let hash = self.key.hash(&self.entries[index as usize].tuple(config));
        if let Ok(entry) = self.map.find_entry(hash, |&other| other == index) {
            entry.remove();
            self.free.push(index);
        }
        self.wheel.cancel(index);
    }

    /// A segment for a waiting pair; `None` if the pair doesn't wait. `may_reopen`: a listener would take a SYN.
    pub(crate) fn input(
        &mut self,
        tuple: &FourTuple,
        seg: &Segment,
        may_reopen: bool,
        config: &Config,
        now: Instant,
    ) -> Option<Verdict> {
        let index = self.find(tuple, config)?;
        let entry = self.entries[index as usize];
        // RFC 1337: RST doesn't end the wait. S2.4, T6
        if seg.flags.contains(Flags::RST) {
            return Some(Verdict::Ignore);
        }
        let recent = entry.has_timestamps.then_some(entry.recent);
        let newer_stamp = match (recent, seg.options.timestamps) {
            // RFC 6191 §2: of equal stamps the sequence number decides.
            (Some(recent), Some((value, _))) if value != recent => {
                Some((value.wrapping_sub(recent) as i32) > 0)
            }
            _ => None,
        };
        if seg.flags.contains(Flags::SYN) && !seg.flags.intersects(Flags::ACK | Flags::FIN) {
            // RFC 6191 §2: a newer timestamp, or without timestamps a larger sequence number.
            let newer = newer_stamp.unwrap_or(entry.rcv_nxt.lt(seg.seq));
            if newer && may_reopen {
                self.remove(index, config);
                return Some(Verdict::Reopen { used: entry.snd_nxt });
            }
        }
        let old = seg.seq.lt(entry.rcv_nxt);
        if seg.flags.contains(Flags::FIN) && old {
            // Our last ACK was lost: again, and the wait starts over (RFC 9293 §3.10.7.4, eighth step).
            self.wheel.arm(index, now + self.duration);
        }
        let tick = answer_tick(now);
        let out_of_place = seg.seg_len() > 0 || seg.seq != entry.rcv_nxt;
        let waits_for_ack = seg.seg_len() > 0 && !seg.flags.contains(Flags::SYN);
        if waits_for_ack || (out_of_place && entry.answered != tick) {
            self.entries[index as usize].answered = tick;
            return Some(Verdict::Ack { seq: entry.snd_nxt, ack: entry.rcv_nxt, recent });
        }
        Some(Verdict::Ignore)
    }

    /// Forgets what has waited long enough, at most `limit` pairs. Returns how many.
    pub(crate) fn advance(&mut self, limit: u32, config: &Config, now: Instant) -> u32 {
        // Called every turn, and most of the time nobody waits.
        if self.map.is_empty() {
            return 0;
        }
        let mut gone = 0;
        while gone < limit {
            let Some(index) = self.wheel.pop_expired(now) else { break };
            self.remove(index, config);
            gone += 1;
        }
        gone
    }

    pub(crate) fn next_deadline(&self) -> Instant {
        self.wheel.next_deadline()
    }

    /// Pairs that wait.
    pub(crate) fn len(&self) -> u32 {
        self.map.len() as u32
    }

    /// Slots in use or once used.
    pub(crate) fn slots(&self) -> u32 {
        self.entries.len() as u32
    }

    /// The pair in a slot and how long it has waited; `None` if the slot is free.
    pub(crate) fn show(&self, slot: u32, config: &Config, now: Instant) -> Option<(FourTuple, Duration)> {
        let left = self.wheel.deadline(slot)?.since(now);
        let entry = self.entries.get(slot as usize)?;
        Some((entry.tuple(config), self.duration.saturating_sub(left)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s2_5_an_entry_with_its_timer_and_hash_slot_stays_within_64_octets() {
        let timer = TimerWheel::TIMER_SIZE;
        // Slot number and control octet in the hash table at 7/8 load, and a place in the free list.
        let hash = 6 + 4;
        assert!(size_of::<Entry>() + timer + hash <= 64, "{} + {timer} + {hash}", size_of::<Entry>());
    }
}
