//! LISTEN: which ports are open, and where a connection's numbers start.

pub(crate) mod cookie;

use core::hash::Hasher;
use core::net::IpAddr;

use siphasher::sip::SipHasher24;

use crate::flow_table::{FourTuple, HashKey};
use crate::seq::SeqNumber;
use crate::stack::Listener;
use crate::time::Instant;

use cookie::Cookies;

/// An open port and its half-open connections.
#[derive(Debug)]
pub(crate) struct Port {
    pub(crate) listener: Listener,
    /// Open at this own address only; `None`: at each.
    pub(crate) address: Option<IpAddr>,
    /// Connections in SYN-RECEIVED.
    pub(crate) half_open: u32,
    /// Until when a cookie can come back; nobody's ACK is looked at later (T2).
    pub(crate) cookies_until: Instant,
}

impl Port {
    /// Whether another half-open connection fits into the backlog.
    pub(crate) fn has_room(&self) -> bool {
        self.half_open < self.listener.backlog
    }
}

/// All open ports of a stack. A server has a handful, so a list is the fastest look-up.
#[derive(Debug, Default)]
pub(crate) struct Listeners {
    ports: Vec<Port>,
    /// Places in all backlogs.
    places: u32,
}

impl Listeners {
    /// No effect if the port is open already at that address, or at one of those meant: a segment has one listener.
    pub(crate) fn add(&mut self, listener: Listener, address: Option<IpAddr>) {
        let overlaps = |p: &Port| {
            let same = address.is_none() || p.address.is_none() || p.address == address;
            p.listener.port == listener.port && same
        };
        if !self.ports.iter().any(overlaps) {
            self.places += listener.backlog;
            self.ports.push(Port { listener, address, half_open: 0, cookies_until: Instant::ZERO });
        }
    }

    /// The listener for what comes to our end of `tuple`.
    pub(crate) fn find(&mut self, tuple: &FourTuple) -> Option<&mut Port> {
        let is_ours = |p: &&mut Port| {
            p.listener.port == tuple.local_port && p.address.is_none_or(|own| own == tuple.local_ip)
        };
        self.ports.iter_mut().find(is_ours)
    }

    /// Half-open connections that all ports together may have.
    pub(crate) fn places(&self) -> u32 {
        self.places
    }

    pub(crate) fn all(&self) -> &[Port] {
        &self.ports
    }
}

/// Keys for the numbers a stranger must not guess.
#[derive(Debug)]
pub(crate) struct Secrets {
    isn: HashKey,
    timestamps: HashKey,
    ports: HashKey,
    pub(crate) cookies: Cookies,
}

impl Secrets {
    /// Independent keys from one secret.
    pub(crate) fn new(secret: &[u8; 32]) -> Self {
        let derive = |label: u8| {
            let mut key = [0u8; 16];
            for (half, out) in key.chunks_exact_mut(8).enumerate() {
                let mut root = [0u8; 16];
                root.copy_from_slice(&secret[16..]);
                let mut hasher = SipHasher24::new_with_key(&root);
                hasher.write(&secret[..16]);
                hasher.write(&[label, half as u8]);
                out.copy_from_slice(&hasher.finish().to_ne_bytes());
            }
            HashKey(key)
        };
        Self { isn: derive(1), timestamps: derive(2), ports: derive(3), cookies: Cookies(derive(4)) }
    }

    /// Initial sequence number: a 4 µs clock plus a keyed hash of the four-tuple (RFC 6528 §3; RFC 9293 §3.4.1, MUST-8,
    /// MUST-9, SHLD-1). S1.3, T19
    pub(crate) fn isn(&self, tuple: &FourTuple, now: Instant) -> SeqNumber {
        let clock = (now.as_nanos() / 4_000) as u32;
        SeqNumber((self.isn.hash(tuple) as u32).wrapping_add(clock))
    }

    /// Offset of the timestamp clock: fixed for a four-tuple, so that its next incarnation's timestamps are
    /// newer (RFC 7323 §5.4, RFC 6191).
    pub(crate) fn timestamp_offset(&self, tuple: &FourTuple) -> u32 {
        self.timestamps.hash(tuple) as u32
    }

    /// Where to begin the search for a local port towards this remote (RFC 6056 §3.3.3). T20
    pub(crate) fn port_offset(&self, tuple: &FourTuple) -> u32 {
        self.ports.hash(tuple) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Duration;

    fn tuple(port: u16) -> FourTuple {
        FourTuple {
            local_ip: [10, 0, 0, 1].into(),
            remote_ip: [10, 0, 0, 2].into(),
            local_port: 80,
            remote_port: port,
        }
    }

    #[test]
    fn s1_3_t19_isns_differ_between_tuples_and_grow_with_time_for_one() {
        let secrets = Secrets::new(&[9; 32]);
        let now = Instant::from_millis(1000);
        let mut seen: Vec<u32> = (0..10_000).map(|p| secrets.isn(&tuple(p), now).0).collect();
        // No two neighbours differ by the same amount more often than chance allows.
        let mut deltas: Vec<u32> = seen.windows(2).map(|w| w[1].wrapping_sub(w[0])).collect();
        deltas.sort_unstable();
        deltas.dedup();
        assert!(deltas.len() > 9_990, "{}", deltas.len());
        // Uniform over 16 buckets: chi-square with 15 degrees of freedom, p = 0.001 at 37.7.
        let mut buckets = [0f64; 16];
        for isn in &seen {
            buckets[(isn >> 28) as usize] += 1.0;
        }
        let chi: f64 = buckets.iter().map(|n| (n - 625.0) * (n - 625.0) / 625.0).sum();
        assert!(chi < 37.7, "{chi}");
        seen.sort_unstable();
        seen.dedup();
        assert!(seen.len() > 9_990);
        let later = secrets.isn(&tuple(7), now + Duration::from_millis(4));
        assert_eq!(later.since(secrets.isn(&tuple(7), now)), 1000);
        assert_ne!(Secrets::new(&[8; 32]).isn(&tuple(7), now), secrets.isn(&tuple(7), now));
    }

    /// RFC 7323 §7: the clock of a connection's timestamps tells nothing about this host's.
    #[test]
    fn t19_timestamp_clocks_differ_between_tuples_and_starts() {
        let (secrets, restarted) = (Secrets::new(&[9; 32]), Secrets::new(&[8; 32]));
        let mut offsets: Vec<u32> = (0..1000).map(|port| secrets.timestamp_offset(&tuple(port))).collect();
        assert_eq!(
            offsets[7],
            secrets.timestamp_offset(&tuple(7)),
            "the next incarnation's are newer (RFC 6191)"
        );
        assert_ne!(offsets[7], restarted.timestamp_offset(&tuple(7)));
        offsets.sort_unstable();
        offsets.dedup();
        assert_eq!(offsets.len(), 1000);
        // All over the 32 bits.
        assert!(offsets[100] < 1 << 30 && offsets[900] > 3 << 30);
    }
}
