//! What is known of the way to a host, for its next connection: the path MTU (RFC 1191 §6.3, RFC 8201 §5.2).

use core::net::IpAddr;

use siphasher::sip::SipHasher13;

use crate::time::Instant;

/// Only reports that quote a segment in flight take a place, so a server sees about as many as it has peers
/// behind tunnels: 40 KiB a core.
const SETS: usize = 256;
/// Places in a set. With one, two hosts whose hashes meet would displace each other at every connection, each
/// time for a lost flight.
const WAYS: usize = 4;

#[derive(Clone, Copy, Debug)]
struct Destination {
    ip: IpAddr,
    mtu: u16,
    until: Instant,
}

/// A fixed number of destinations: in a full set a new one takes the place of what ends first.
#[derive(Debug)]
pub(crate) struct Destinations {
    sets: Box<[[Option<Destination>; WAYS]]>,
    /// Secret, so that nobody can choose whose place to take (T21).
    hasher: SipHasher13,
}

impl Destinations {
    pub(crate) fn new(key: [u8; 16]) -> Self {
        Self { sets: vec![[None; WAYS]; SETS].into(), hasher: SipHasher13::new_with_key(&key) }
    }

    fn set(&self, ip: IpAddr) -> usize {
        let octets = match ip {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            IpAddr::V6(v6) => v6.octets(),
        };
        self.hasher.hash(&octets) as usize % SETS
    }

    /// Packets to `ip` may have `mtu` octets; believed until then.
    pub(crate) fn learn(&mut self, ip: IpAddr, mtu: u16, until: Instant) {
        let set = self.set(ip);
        let set = &mut self.sets[set];
        let is_of_ip = |place: &Option<Destination>| place.is_some_and(|known| known.ip == ip);
        let ends = |&way: &usize| set[way].map(|known| known.until);
        let place = set.iter().position(is_of_ip).or_else(|| (0..WAYS).min_by_key(ends)).unwrap_or(0);
        set[place] = Some(Destination { ip, mtu, until });
    }

    /// The path MTU to `ip`, octets, and how long that is believed.
    pub(crate) fn path_mtu(&self, ip: IpAddr, now: Instant) -> Option<(u16, Instant)> {
        let mut set = self.sets[self.set(ip)].iter().flatten();
        let known = set.find(|known| known.ip == ip && now < known.until)?;
        Some((known.mtu, known.until))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(n: u32) -> IpAddr {
        IpAddr::from((0x0a00_0000 + n).to_be_bytes())
    }

    #[test]
    fn s6_2_what_was_learned_expires_and_never_grows() {
        let mut table = Destinations::new([3; 16]);
        let (now, until) = (Instant::from_millis(5), Instant::from_millis(600_005));
        assert_eq!(table.path_mtu(ip(1), now), None);
        table.learn(ip(1), 1400, until);
        assert_eq!(table.path_mtu(ip(1), now), Some((1400, until)));
        assert_eq!(table.path_mtu(ip(1), until), None);
        for n in 0..100_000 {
            table.learn(ip(n), 1300, until);
        }
        let known = (0..100_000).filter(|&n| table.path_mtu(ip(n), now).is_some()).count();
        assert_eq!(known, SETS * WAYS, "every place has one tenant");
    }

    #[test]
    fn s6_2_hosts_that_share_a_set_are_known_side_by_side() {
        let mut table = Destinations::new([3; 16]);
        let shared = (2..).find(|&n| table.set(ip(n)) == table.set(ip(1))).expect("a host that hashes alike");
        let (now, until) = (Instant::from_millis(5), Instant::from_millis(600_005));
        table.learn(ip(1), 1400, until);
        table.learn(ip(shared), 1300, until);
        assert_eq!(table.path_mtu(ip(1), now), Some((1400, until)));
        assert_eq!(table.path_mtu(ip(shared), now), Some((1300, until)));
        // What is learned again takes no second place.
        for mtu in [1200, 1100, 1000, 900, 800] {
            table.learn(ip(1), mtu, until);
        }
        assert_eq!(table.path_mtu(ip(1), now), Some((800, until)));
        assert_eq!(table.path_mtu(ip(shared), now), Some((1300, until)));
    }
}
