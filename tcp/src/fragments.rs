//! Datagrams that arrive in fragments (RFC 791 §3.2, RFC 8200 §4.5, RFC 5722). S6.2, L4
//!
//! ```text
//!   fragment ─→ place of (src, dst, id, protocol) ─→ copied to its offset ─→ no unit missing? ─→ the datagram
//!                 │                                   │
//!                 └─ none: the oldest of its set      └─ overlap: the whole datagram is given up
//! ```
//!
//! All memory is taken at the start: a fixed number of places with 64 KiB each, whatever arrives. A fragment's
//! octets are copied and its frame is free again, so that fragments never hold frames; the work for one is its
//! octets and a bit for each unit of eight.

use core::net::IpAddr;

use siphasher::sip::SipHasher13;

use crate::counters::{Counters, DropReason};
use crate::time::{Duration, Instant};
use crate::wire::fragment::{Fragment, UNIT};
use crate::wire::{ethernet, ip};

/// Datagrams at once: 1 MiB of memory a core. A TCP peer behind a tunnel has one or two under way.
const PLACES: usize = 16;
/// Places that one sender's datagrams compete for: who floods us with fragments pushes out its own, and those
/// of the senders that the keyed hash puts beside it.
const WAYS: usize = 4;
/// How long a datagram's fragments are waited for: RFC 791's own value. They travel together; and at high rates
/// the 16-bit identification comes round in less than Linux's 30 s (RFC 4963).
const PATIENCE: Duration = Duration::from_secs(15);
/// Largest datagram, and its units.
const SIZE: usize = 65_536;
const UNITS: usize = SIZE / UNIT;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Key {
    src: IpAddr,
    dst: IpAddr,
    id: u32,
    /// IPv4 only: RFC 8200 §4.5 leaves it out.
    protocol: u8,
}

/// What is known of a datagram's headers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Whole {
    /// Ethernet's, as its first fragment had it.
    pub(crate) link: ethernet::Header,
    pub(crate) src: IpAddr,
    pub(crate) dst: IpAddr,
    /// What the fragment at offset 0 says.
    pub(crate) protocol: u8,
    /// RFC 3168 §5.3: experienced by any of them.
    pub(crate) ecn: u8,
    /// Octets of payload.
    pub(crate) len: usize,
    /// Where its octets lie.
    place: usize,
}

/// One datagram, in part.
#[derive(Debug)]
struct Place {
    key: Option<Key>,
    whole: Whole,
    since: Instant,
    /// Octets here.
    got: usize,
    /// The last fragment has told the length.
    ended: bool,
    /// Fragments contradicted each other: nothing of it is taken any more (RFC 5722 §4).
    spoiled: bool,
    /// A bit for each unit that is here.
    units: Box<[u64]>,
    octets: Box<[u8]>,
}

impl Place {
    fn new() -> Self {
        let none = IpAddr::from([0; 4]);
        let link = ethernet::Header {
            dst: Default::default(),
            src: Default::default(),
            vlan: ethernet::VlanTags::NONE,
            ethertype: 0,
        };
        Self {
            key: None,
            whole: Whole { link, src: none, dst: none, protocol: 0, ecn: 0, len: 0, place: 0 },
            since: Instant::ZERO,
            got: 0,
            ended: false,
            spoiled: false,
            units: vec![0; UNITS / 64].into(),
            octets: vec![0; SIZE].into(),
        }
    }

    fn begin(&mut self, key: Key, link: &ethernet::Header, ip: &ip::Header, now: Instant) {
        self.key = Some(key);
        let (src, dst, protocol, ecn) = (key.src, key.dst, ip.protocol, ip.ecn);
        self.whole = Whole { link: *link, src, dst, protocol, ecn, len: 0, ..self.whole };
        (self.since, self.got, self.ended, self.spoiled) = (now, 0, false, false);
        self.units.fill(0);
    }

    fn has(&self, unit: usize) -> bool {
        self.units[unit / 64] & (1 << (unit % 64)) != 0
    }

    /// Takes a fragment's octets. Whether it fits to the others.
    fn put(&mut self, fragment: &Fragment, octets: &[u8]) -> bool {
        let end = fragment.offset + octets.len();
        // What lies behind the end, or a second end elsewhere.
        let contradicts = if fragment.more {
            self.ended && end > self.whole.len
        } else {
            (self.ended && end != self.whole.len) || self.whole.len > end
        };
        if contradicts {
            return false;
        }
        let units = fragment.offset / UNIT..end.div_ceil(UNIT);
        let here = units.clone().filter(|&unit| self.has(unit)).count();
        if here > 0 {
            // A network that doubles packets doubles fragments: the same octets again are no overlap.
            return here == units.len() && self.octets[fragment.offset..end] == *octets;
        }
        for unit in units {
            self.units[unit / 64] |= 1 << (unit % 64);
        }
        self.octets[fragment.offset..end].copy_from_slice(octets);
        self.got += octets.len();
        self.ended |= !fragment.more;
        self.whole.len = self.whole.len.max(end);
        true
    }

    fn is_complete(&self) -> bool {
        self.ended && self.got == self.whole.len
    }
}

/// All datagrams in part.
#[derive(Debug)]
pub(crate) struct Reassembler {
    places: Box<[Place]>,
    /// Secret (T21).
    hasher: SipHasher13,
    /// Datagrams sent in fragments.
    sent: u32,
}

impl Reassembler {
    pub(crate) fn new(key: [u8; 16]) -> Self {
        Self {
            places: (0..PLACES).map(|_| Place::new()).collect(),
            hasher: SipHasher13::new_with_key(&key),
            sent: 0,
        }
    }

    /// Identification of the next datagram sent to `dst` in fragments: no two in a row alike, and nobody else's
    /// tell it (RFC 7739 §5.1, RFC 6864 §4.2).
    pub(crate) fn next_id(&mut self, dst: IpAddr) -> u32 {
        self.sent = self.sent.wrapping_add(1);
        (self.hash(dst) as u32).wrapping_add(self.sent)
    }

    fn hash(&self, ip: IpAddr) -> u64 {
        match ip {
            IpAddr::V4(v4) => self.hasher.hash(&v4.to_ipv6_mapped().octets()),
            IpAddr::V6(v6) => self.hasher.hash(&v6.octets()),
        }
    }

    /// Takes a fragment, whose octets these are. The datagram, once it is whole: its octets stay until the next call.
    ///
    /// # Errors
    /// [`DropReason::FragmentOverlap`].
    pub(crate) fn take(
        &mut self,
        link: &ethernet::Header,
        ip: &ip::Header,
        fragment: &Fragment,
        octets: &[u8],
        now: Instant,
        counters: &mut Counters,
    ) -> Result<Option<Whole>, DropReason> {
        counters.ip_reasm_reqds += 1;
        let protocol = if ip.src.is_ipv4() { ip.protocol } else { 0 };
        let key = Key { src: ip.src, dst: ip.dst, id: fragment.id, protocol };
        let at = self.place(key, now, counters);
        let place = &mut self.places[at];
        if place.key != Some(key) {
            place.begin(key, link, ip, now);
        }
        if place.spoiled || !place.put(fragment, octets) {
            place.spoiled = true;
            return Err(DropReason::FragmentOverlap);
        }
        if fragment.offset == 0 {
            place.whole.protocol = ip.protocol;
        }
        if ip.ecn == ip::ECN_CE {
            place.whole.ecn = ip::ECN_CE;
        }
        if !place.is_complete() {
            return Ok(None);
        }
        place.key = None;
        counters.ip_reasm_oks += 1;
        Ok(Some(Whole { place: at, ..place.whole }))
    }

    /// Takes a datagram that came whole, its payload in these parts. They stay until the next call.
    pub(crate) fn hold<'a>(
        &mut self,
        link: &ethernet::Header,
        ip: &ip::Header,
        parts: impl Iterator<Item = &'a [u8]>,
        now: Instant,
        counters: &mut Counters,
    ) -> Whole {
        let key = Key { src: ip.src, dst: ip.dst, id: 0, protocol: ip.protocol };
        let at = self.place(key, now, counters);
        let place = &mut self.places[at];
        place.begin(key, link, ip, now);
        place.key = None;
        for part in parts {
            place.octets[place.whole.len..place.whole.len + part.len()].copy_from_slice(part);
            place.whole.len += part.len();
        }
        Whole { place: at, ..place.whole }
    }

    /// The payload of a datagram that the last [`take`](Self::take) gave.
    pub(crate) fn octets(&self, whole: &Whole) -> &[u8] {
        &self.places[whole.place].octets[..whole.len]
    }

    /// The same, to be changed in place.
    pub(crate) fn octets_mut(&mut self, whole: &Whole) -> &mut [u8] {
        &mut self.places[whole.place].octets[..whole.len]
    }

    /// The datagram's own place, or else a free one, or the one whose datagram has waited longest.
    fn place(&mut self, key: Key, now: Instant, counters: &mut Counters) -> usize {
        let set = self.hash(key.src) as usize % (PLACES / WAYS) * WAYS;
        let places = &mut self.places[set..set + WAYS];
        for place in places.iter_mut() {
            if place.key.is_some() && now.since(place.since) >= PATIENCE {
                place.key = None;
                counters.ip_reasm_timeout += 1;
            }
        }
        let own = places.iter().position(|place| place.key == Some(key));
        let at = own.or_else(|| places.iter().position(|place| place.key.is_none()));
        let at = at.unwrap_or_else(|| {
            counters.ip_reasm_evicted += 1;
            let oldest = places.iter().enumerate().min_by_key(|(_, place)| place.since);
            oldest.map_or(0, |(at, _)| at)
        });
        set + at
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn link() -> ethernet::Header {
        ethernet::Header {
            dst: Default::default(),
            src: Default::default(),
            vlan: ethernet::VlanTags::NONE,
            ethertype: ethernet::IPV4,
        }
    }

    fn header(src: u32, v6: bool, protocol: u8, len: usize) -> ip::Header {
        let ip = |n: u32| match v6 {
            false => IpAddr::from(n.to_be_bytes()),
            true => IpAddr::from([0xfd00, 0, 0, 0, 0, 0, (n >> 16) as u16, n as u16]),
        };
        ip::Header { src: ip(src), dst: ip(9), protocol, ecn: 0, hop_limit: 64, payload: (0, len) }
    }

    struct Bench {
        reassembler: Reassembler,
        counters: Counters,
        now: Instant,
    }

    impl Bench {
        fn new() -> Self {
            let (reassembler, counters) = (Reassembler::new([5; 16]), Counters::default());
            Self { reassembler, counters, now: Instant::from_millis(1) }
        }

        /// Gives octets `range` of `payload` as a fragment; the datagram if that makes it whole.
        fn give(
            &mut self,
            src: u32,
            id: u32,
            octets: &[u8],
            offset: usize,
            more: bool,
        ) -> Result<Option<Vec<u8>>, DropReason> {
            let (ip, fragment) = (header(src, false, 17, octets.len()), Fragment { id, offset, more });
            let now = self.now;
            let whole = self.reassembler.take(&link(), &ip, &fragment, octets, now, &mut self.counters)?;
            Ok(whole.map(|whole| self.reassembler.octets(&whole).to_vec()))
        }
    }

    fn payload(len: usize) -> Vec<u8> {
        (0..len).map(|n| (n * 31 % 253) as u8).collect()
    }

    proptest! {
        /// Whatever the cuts and the order, also with some of it doubled: the datagram as it was, once.
        #[test]
        fn s6_2_fragments_in_any_order_make_the_datagram(
            len in 9_usize..20_000,
            cuts in prop::collection::vec(1_usize..2500, 1..40),
            order in any::<prop::sample::Index>(),
            doubled in any::<prop::sample::Index>(),
            seed: u64,
        ) {
            let payload = payload(len);
            let mut edges: Vec<usize> =
                cuts.into_iter().map(|cut| cut * UNIT).filter(|&cut| cut < len).chain([0, len]).collect();
            edges.sort_unstable();
            edges.dedup();
            let mut parts: Vec<(usize, usize)> = edges.windows(2).map(|edge| (edge[0], edge[1])).collect();
            prop_assume!(parts.len() > 1);
            let twice = parts[doubled.index(parts.len())];
            let mut rng = seed;
            for at in (1..parts.len()).rev() {
                rng = rng.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                parts.swap(at, (rng >> 33) as usize % (at + 1));
            }
            let at = order.index(parts.len());
            parts.insert(at, twice);
            let mut bench = Bench::new();
            let mut made = Vec::new();
            for (start, end) in parts {
                if let Some(whole) = bench.give(1, 7, &payload[start..end], start, end < len).expect("no overlap") {
                    made.push(whole);
                }
            }
            prop_assert_eq!(made, [payload]);
        }

        /// L4: overlaps, second ends, holes: no panic, and never octets that nobody sent at that place.
        #[test]
        fn l4_no_rubbish_makes_a_datagram(
            parts in prop::collection::vec((0_usize..40, 1_usize..30, any::<bool>(), 0_u32..3, 0_u8..2), 1..60),
        ) {
            let mut bench = Bench::new();
            for (unit, units, more, id, version) in parts {
                let (start, end) = (unit * UNIT, (unit + units) * UNIT);
                let octets: Vec<u8> = (start..end).map(|at| at as u8 ^ (version << 7) ^ id as u8).collect();
                if let Ok(Some(whole)) = bench.give(1, id, &octets, start, more) {
                    prop_assert!(whole.len().is_multiple_of(UNIT));
                    for (at, octet) in whole.iter().enumerate() {
                        prop_assert_eq!(octet & 0x7f, (at as u8 ^ id as u8) & 0x7f);
                    }
                }
            }
        }
    }

    /// L4: teardrop, a second last fragment, octets behind the last: all of it is dropped, also what comes later.
    #[test]
    fn l4_an_overlap_ends_the_whole_datagram() {
        let p = payload(64);
        for attack in [
            // Teardrop: inside what is there.
            (8, 16, true),
            // Over the end of what is there.
            (16, 32, true),
            // Another end.
            (40, 44, false),
            // Behind the end.
            (56, 64, true),
        ] {
            let mut bench = Bench::new();
            assert_eq!(bench.give(1, 7, &p[0..24], 0, true), Ok(None));
            assert_eq!(bench.give(1, 7, &p[40..48], 40, false), Ok(None));
            let (start, end, more) = attack;
            let mut evil = p[start..end].to_vec();
            evil[0] ^= 1;
            assert_eq!(bench.give(1, 7, &evil, start, more), Err(DropReason::FragmentOverlap), "{attack:?}");
            assert_eq!(
                bench.give(1, 7, &p[24..40], 24, true),
                Err(DropReason::FragmentOverlap),
                "{attack:?}"
            );
            // After its time the same numbers are a new datagram.
            bench.now = bench.now + PATIENCE;
            assert_eq!(bench.give(1, 7, &p[0..24], 0, true), Ok(None));
            assert_eq!(bench.give(1, 7, &p[24..64], 24, false), Ok(Some(p.clone())));
        }
    }

    #[test]
    fn s6_2_a_datagram_of_64_kib_and_one_that_ends_in_the_middle_of_a_unit() {
        for len in [65_515, 17, 1481] {
            let p = payload(len);
            let mut bench = Bench::new();
            let cut = (len / 2) / UNIT * UNIT;
            assert_eq!(bench.give(1, 7, &p[cut..], cut, false), Ok(None));
            assert_eq!(bench.give(1, 7, &p[..cut], 0, true), Ok(Some(p)));
        }
    }

    /// L4: a million fragments of datagrams that never end, from one sender and from many: what a neighbour sends
    /// in two fragments one after the other still arrives.
    #[test]
    fn l4_a_flood_of_fragments_keeps_nobody_out() {
        let mut bench = Bench::new();
        let p = payload(1480);
        for n in 0..1_000_000_u32 {
            let src = if n % 2 == 0 { 1 } else { n };
            assert_eq!(bench.give(src, n, &p[..64], 8 * (n as usize % 100), true), Ok(None));
            if n % 1000 == 0 {
                assert_eq!(bench.give(9, n, &p[..1400], 0, true), Ok(None));
                assert_eq!(bench.give(9, n, &p[1400..], 1400, false), Ok(Some(p.clone())));
            }
        }
        assert_eq!((bench.reassembler.places.len(), bench.counters.ip_reasm_oks), (PLACES, 1000));
        assert!(bench.counters.ip_reasm_evicted > 990_000);
    }

    /// Without time the rest isn't waited for; and the same numbers from another host, or of another protocol, are
    /// another datagram.
    #[test]
    fn s6_2_datagrams_are_told_apart() {
        let p = payload(32);
        let mut bench = Bench::new();
        assert_eq!(bench.give(1, 7, &p[..16], 0, true), Ok(None));
        assert_eq!(bench.give(2, 7, &p[16..], 16, false), Ok(None));
        assert_eq!(bench.give(1, 8, &p[16..], 16, false), Ok(None));
        let other = header(1, false, 1, 16);
        let last = Fragment { id: 7, offset: 16, more: false };
        let now = bench.now;
        let taken = bench.reassembler.take(&link(), &other, &last, &p[16..], now, &mut bench.counters);
        assert!(matches!(taken, Ok(None)), "another protocol");
        bench.now = bench.now + PATIENCE;
        assert_eq!(bench.give(1, 7, &p[16..], 16, false), Ok(None), "too late");
        assert!(bench.counters.ip_reasm_timeout > 0);
        assert_eq!(bench.give(1, 7, &p[..16], 0, true), Ok(Some(p)));
    }

    /// RFC 8200 §4.5: in IPv6 the first fragment's next header counts, whatever the others say.
    #[test]
    fn s6_2_the_first_fragment_names_the_protocol_of_ipv6() {
        let p = payload(32);
        let mut bench = Bench::new();
        let now = bench.now;
        let (second, first) = (header(1, true, 60, 16), header(1, true, 6, 16));
        let fragment = |offset, more| Fragment { id: 7, offset, more };
        let counters = &mut bench.counters;
        let taken = bench.reassembler.take(&link(), &second, &fragment(16, false), &p[16..], now, counters);
        assert!(matches!(taken, Ok(None)));
        let taken = bench.reassembler.take(&link(), &first, &fragment(0, true), &p[..16], now, counters);
        assert!(matches!(taken, Ok(Some(Whole { protocol: 6, len: 32, .. }))), "{taken:?}");
    }
}
