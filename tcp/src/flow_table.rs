//! Which connection a segment belongs to: `FourTuple` → slot, by a keyed hash.
//!
//! The key is secret and random per start (T21): a peer that picks addresses and ports can't make
//! its connections collide. Look-up is O(1) however many connections there are.

use core::fmt;
use core::hash::Hasher;
use core::net::{IpAddr, SocketAddr};

use hashbrown::HashTable;
use siphasher::sip::SipHasher13;

use crate::wire::ip;
use crate::wire::tcp::Segment;

/// The two ends of a connection, seen from here.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct FourTuple {
    /// Our address.
    pub local_ip: IpAddr,
    /// The peer's address; of the same family.
    pub remote_ip: IpAddr,
    /// Our port.
    pub local_port: u16,
    /// The peer's port.
    pub remote_port: u16,
}

impl FourTuple {
    /// Whose the segment is.
    #[inline]
    pub(crate) fn of(ip: &ip::Header, seg: &Segment) -> Self {
        Self { local_ip: ip.dst, remote_ip: ip.src, local_port: seg.dst_port, remote_port: seg.src_port }
    }

    /// Our end.
    pub fn local(&self) -> SocketAddr {
        SocketAddr::new(self.local_ip, self.local_port)
    }

    /// The peer's end.
    pub fn remote(&self) -> SocketAddr {
        SocketAddr::new(self.remote_ip, self.remote_port)
    }

    #[inline]
    pub(crate) fn feed(&self, hasher: &mut impl Hasher) {
        let (octets, len) = self.octets();
        hasher.write(&octets[..len]);
    }

    /// What there is to hash, and how much of it.
    #[inline]
    fn octets(&self) -> ([u8; 36], usize) {
        let mut octets = [0; 36];
        let ports = u32::from(self.local_port) << 16 | u32::from(self.remote_port);
        octets[..4].copy_from_slice(&ports.to_ne_bytes());
        match (self.local_ip, self.remote_ip) {
            (IpAddr::V4(local), IpAddr::V4(remote)) => {
                octets[4..8].copy_from_slice(&local.octets());
                octets[8..12].copy_from_slice(&remote.octets());
                (octets, 12)
            }
            (local, remote) => {
                for (to, ip) in octets[4..].chunks_exact_mut(16).zip([local, remote]) {
                    match ip {
                        IpAddr::V4(ip) => to[..4].copy_from_slice(&ip.octets()),
                        IpAddr::V6(ip) => to.copy_from_slice(&ip.octets()),
                    }
                }
                (octets, 36)
            }
        }
    }
}

impl fmt::Debug for FourTuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}→{}", self.local(), self.remote())
    }
}

/// A secret 128-bit key for SipHash.
#[derive(Clone, Copy)]
pub struct HashKey(pub [u8; 16]);

impl fmt::Debug for HashKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HashKey(secret)")
    }
}

impl HashKey {
    /// SipHash-1-3 of a four-tuple.
    #[inline]
    pub fn hash(&self, tuple: &FourTuple) -> u64 {
        let (octets, len) = tuple.octets();
        SipHasher13::new_with_key(&self.0).hash(&octets[..len])
    }
}

/// A set of slots, found by the four-tuple of whoever sits in them.
///
/// The tuples themselves live in the slots (the caller's `tuple_of`), so an entry costs five octets.
#[derive(Debug)]
pub struct FlowTable {
    key: HashKey,
    slots: HashTable<u32>,
    capacity: u32,
}

impl FlowTable {
    /// A table for at most `capacity` entries; all its memory is reserved here.
    pub fn new(key: HashKey, capacity: u32) -> Self {
        Self { key, slots: HashTable::with_capacity(capacity as usize), capacity }
    }

    /// Entries now.
    pub fn len(&self) -> u32 {
        self.slots.len() as u32
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// What a tuple is entered by and looked for.
    #[inline]
    pub fn hash(&self, tuple: &FourTuple) -> u64 {
        self.key.hash(tuple)
    }

    /// The slot whose tenant has the tuple of this [`hash`](Self::hash): `is_it` says whether a slot is the one.
    #[inline]
    pub fn find(&self, hash: u64, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        self.slots.find(hash, |&slot| is_it(slot)).copied()
    }

    /// The slot whose tenant probably has the tuple of this [`hash`](Self::hash), from the table's own memory alone.
    #[inline]
    pub fn guess(&self, hash: u64) -> Option<u32> {
        self.find(hash, |_| true)
    }

    /// Enters `slot`. False, and nothing changed, when the table is full. The tuple must be new.
    pub fn insert<'a>(
        &mut self,
        tuple: &FourTuple,
        slot: u32,
        tuple_of: impl Fn(u32) -> &'a FourTuple,
    ) -> bool {
        if self.len() == self.capacity {
            return false;
        }
        let key = self.key;
        self.slots.insert_unique(key.hash(tuple), slot, |&other| key.hash(tuple_of(other)));
        true
    }

    /// Removes the entry of `slot`, whose tenant has this tuple. No-op if there is none.
    pub fn remove(&mut self, tuple: &FourTuple, slot: u32) {
        if let Ok(entry) = self.slots.find_entry(self.key.hash(tuple), |&other| other == slot) {
            entry.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn tuple(n: u16) -> FourTuple {
        FourTuple {
            local_ip: [10, 0, 0, 1].into(),
            remote_ip: if n.is_multiple_of(2) {
                [10, 0, 0, 2].into()
            } else {
                IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, n])
            },
            local_port: 80,
            remote_port: n,
        }
    }

    proptest! {
        #[test]
        fn agrees_with_a_map(steps in proptest::collection::vec((any::<bool>(), 0u16..40), 0..200)) {
            let tuples: Vec<_> = (0..40).map(tuple).collect();
            let mut table = FlowTable::new(HashKey([7; 16]), 32);
            let mut model = BTreeMap::new();
            for (insert, n) in steps {
                let slot = u32::from(n);
                let of = |slot: u32| &tuples[slot as usize];
                if insert {
                    if !model.contains_key(&n) {
                        let fits = model.len() < 32;
                        prop_assert_eq!(table.insert(&tuples[usize::from(n)], slot, of), fits);
                        if fits { model.insert(n, slot); }
                    }
                } else {
                    table.remove(&tuples[usize::from(n)], slot);
                    model.remove(&n);
                }
                for k in 0..40u16 {
                    let wanted = &tuples[usize::from(k)];
                    prop_assert_eq!(table.find(table.hash(wanted), |slot| of(slot) == wanted), model.get(&k).copied());
                }
            }
        }
    }
}
