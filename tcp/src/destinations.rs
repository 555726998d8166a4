//! What is known of the way to a host, for its next connection: the path MTU (RFC 1191 §6.3, RFC 8201 §5.2).

use core::net::IpAddr;

use siphasher::sip::SipHasher13;

use crate::time::Instant;

/// Places. Only reports that quote a segment in flight take one, so a server sees about as many as it has
/// peers behind tunnels; a collision costs a connection one lost segment. 40 KiB a core.
const PLACES: usize = 1024;

#[derive(Clone, Copy, Debug)]
struct Destination {
    ip: IpAddr,
    mtu: u16,
    until: Instant,
}

/// A fixed number of destinations: a new one takes the place of whichever was there.
#[derive(Debug)]
pub(crate) struct Destinations {
    places: Box<[Option<Destination>]>,
    /// Secret, so that nobody can choose whose place to take (T21).
    hasher: SipHasher13,
}

impl Destinations {
    pub(crate) fn new(key: [u8; 16]) -> Self {
        Self { places: vec![None; PLACES].into(), hasher: SipHasher13::new_with_key(&key) }
    }

    fn place(&self, ip: IpAddr) -> usize {
        let octets = match ip {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            IpAddr::V6(v6) => v6.octets(),
        };
        self.hasher.hash(&octets) as usize % PLACES
    }

    /// Packets to `ip` may have `mtu` octets; believed until then.
    pub(crate) fn learn(&mut self, ip: IpAddr, mtu: u16, until: Instant) {
        let place = self.place(ip);
        self.places[place] = Some(Destination { ip, mtu, until });
    }

    /// The path MTU to `ip`, octets, and how long that is believed.
    pub(crate) fn path_mtu(&self, ip: IpAddr, now: Instant) -> Option<(u16, Instant)> {
        let known = self.places[self.place(ip)].filter(|known| known.ip == ip && now < known.until)?;
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
        assert_eq!(known, PLACES, "every place has one tenant");
    }
}
