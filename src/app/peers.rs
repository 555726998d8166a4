//! How many connections each peer has on this core (H1).

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};

/// Connections by peer. As large as there are peers connected, by a keyed hash that no peer can aim at.
#[derive(Debug, Default)]
pub(super) struct Peers(HashMap<IpAddr, u32>);

impl Peers {
    /// One more connection of `peer`, if it has fewer than `limit`; say [`leave`](Self::leave) at its end.
    pub(super) fn enter(&mut self, peer: IpAddr, limit: u32) -> bool {
        let count = self.0.entry(who(peer)).or_default();
        let room = *count < limit;
        *count += u32::from(room);
        room
    }

    /// A connection that had [entered](Self::enter) is over.
    pub(super) fn leave(&mut self, peer: IpAddr) {
        let who = who(peer);
        if let Some(count) = self.0.get_mut(&who) {
            *count -= 1;
            if *count == 0 {
                self.0.remove(&who);
            }
        }
    }
}

/// Who an address belongs to. In IPv6 a host has a /64 of addresses and may use a new one for each connection
/// (RFC 8981); mapped ones are what sockets for both families show of IPv4.
fn who(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn h1_a_peer_has_so_many_and_no_more() {
        let mut peers = Peers::default();
        let addresses = |all: [&str; 3]| all.map(|one| one.parse::<IpAddr>().expect("an address"));
        for [one, same, other] in [
            addresses(["192.0.2.1", "::ffff:192.0.2.1", "192.0.2.2"]),
            addresses(["2001:db8::1", "2001:db8::ffff:0:0:1", "2001:db8:0:1::1"]),
        ] {
            assert!(peers.enter(one, 2) && peers.enter(same, 2));
            assert!(!peers.enter(one, 2) && !peers.enter(same, 2));
            assert!(peers.enter(other, 2));
            peers.leave(same);
            assert!(peers.enter(one, 2));
            [one, same, other].into_iter().for_each(|peer| peers.leave(peer));
        }
        assert!(peers.0.is_empty(), "nothing is kept of who is gone");
    }
}
