//! Receive-side scaling: which RX queue a NIC puts a flow's frames on.
//!
//! ```text
//!  key      ████████████████████████████████ …            one 32-bit window of the key for each bit
//!  input    source │ destination │ ports                   of the input; those at ones are added up
//!                        └─→ hash ─→ table[hash mod len] ─→ queue
//! ```
//!
//! An active open chooses its local port with it, so that the answers reach the core that asked
//! (one core, one queue, one [`Stack`](crate::stack::Stack)). The hash is Toeplitz, as Microsoft's
//! RSS specification defines it and NICs compute it: linear over XOR, so that trying another port
//! costs two octets' work, not the whole input's.

use core::net::IpAddr;

use crate::flow_table::FourTuple;

/// Octets a key must have: 36 of input (two IPv6 addresses, two ports) and 32 bits for the last one's window.
pub const KEY_LEN_MIN: usize = 40;

/// How the NIC spreads TCP flows, and which queue is ours.
#[derive(Clone, PartialEq, Eq)]
pub struct Rss {
    key: Box<[u8]>,
    table: Box<[u32]>,
    queue: u32,
}

impl Rss {
    /// The NIC's Toeplitz key and indirection table, seen from the core that serves `queue`. `None` if the
    /// key is shorter than [`KEY_LEN_MIN`], or the table is empty: then nothing can be computed.
    pub fn new(key: &[u8], table: &[u32], queue: u32) -> Option<Self> {
        let usable = key.len() >= KEY_LEN_MIN && !table.is_empty();
        usable.then(|| Self { key: key.into(), table: table.into(), queue })
    }

    /// The same NIC, seen from another queue's core.
    pub fn for_queue(&self, queue: u32) -> Self {
        Self { queue, ..self.clone() }
    }

    /// The queue on which the peer's segments of this connection arrive.
    pub fn queue_of(&self, tuple: &FourTuple) -> u32 {
        self.arrivals(tuple).queue(tuple.local_port)
    }

    /// What arrives on connections like `tuple`, whatever our port.
    pub(crate) fn arrivals(&self, tuple: &FourTuple) -> Arrivals<'_> {
        // The peer is the source of what arrives.
        let mut input = [0; 36];
        let addresses = match (tuple.remote_ip, tuple.local_ip) {
            (IpAddr::V4(remote), IpAddr::V4(local)) => {
                input[..4].copy_from_slice(&remote.octets());
                input[4..8].copy_from_slice(&local.octets());
                8
            }
            (remote, local) => {
                input[..16].copy_from_slice(&v6(remote));
                input[16..32].copy_from_slice(&v6(local));
                32
            }
        };
        input[addresses..addresses + 2].copy_from_slice(&tuple.remote_port.to_be_bytes());
        let port_at = addresses + 2;
        Arrivals { rss: self, hash: toeplitz(&self.key, 0, &input[..port_at]), port_at }
    }
}

/// The key decides where flows land: who knows it can aim at one core (T22).
impl core::fmt::Debug for Rss {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Rss").field("queue", &self.queue).finish_non_exhaustive()
    }
}

/// The hash over everything but our port, which comes last.
#[derive(Debug)]
pub(crate) struct Arrivals<'a> {
    rss: &'a Rss,
    hash: u32,
    port_at: usize,
}

impl Arrivals<'_> {
    /// The queue if our port is `port`.
    fn queue(&self, port: u16) -> u32 {
        let hash = self.hash ^ toeplitz(&self.rss.key, self.port_at, &port.to_be_bytes());
        self.rss.table[hash as usize % self.rss.table.len()]
    }

    /// Whether answers to `port` arrive on our own queue.
    pub(crate) fn are_ours(&self, port: u16) -> bool {
        self.queue(port) == self.rss.queue
    }
}

fn v6(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// The hash of `input`, which lies `at` octets from the input's start.
fn toeplitz(key: &[u8], at: usize, input: &[u8]) -> u32 {
    let mut hash = 0;
    for (window, &octet) in key[at..].windows(5).zip(input) {
        let bits = window.iter().fold(0_u64, |bits, &octet| bits << 8 | u64::from(octet));
        for bit in 0..8 {
            if octet & (0x80 >> bit) != 0 {
                hash ^= (bits >> (8 - bit)) as u32;
            }
        }
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The key and the results of Microsoft's "Verifying the RSS Hash Calculation".
    const KEY: [u8; 40] = [
        0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0, 0xd0,
        0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42,
        0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
    ];

    fn tuple(local: &str, remote: &str) -> FourTuple {
        let (local, remote): (core::net::SocketAddr, core::net::SocketAddr) =
            (local.parse().expect("address"), remote.parse().expect("address"));
        FourTuple {
            local_ip: local.ip(),
            remote_ip: remote.ip(),
            local_port: local.port(),
            remote_port: remote.port(),
        }
    }

    #[test]
    fn s1_1_the_vectors_of_the_specification() {
        let table = [
            ("161.142.100.80:1766", "66.9.149.187:2794", 0x51cc_c178_u32),
            ("65.69.140.83:4739", "199.92.111.2:14230", 0xc626_b0ea),
            ("12.22.207.184:38024", "24.19.198.95:12898", 0x5c2b_394a),
            ("209.142.163.6:2217", "38.27.205.30:48228", 0xafc7_327f),
            ("202.188.127.2:1303", "153.39.163.191:44251", 0x10e8_28a2),
            ("[3ffe:2501:200:3::1]:1766", "[3ffe:2501:200:1fff::7]:2794", 0x4020_7d3d),
            ("[ff02::1]:4739", "[3ffe:501:8::260:97ff:fe40:efab]:14230", 0xdde5_1bbf),
            ("[fe80::200:f8ff:fe21:67cf]:38024", "[3ffe:1900:4545:3:200:f8ff:fe21:67cf]:44251", 0x02d1_feef),
        ];
        let rss = Rss::new(&KEY, &[0], 0).expect("usable");
        for (local, remote, expected) in table {
            let tuple = tuple(local, remote);
            let arrivals = rss.arrivals(&tuple);
            let port = toeplitz(&KEY, arrivals.port_at, &tuple.local_port.to_be_bytes());
            assert_eq!(arrivals.hash ^ port, expected, "{tuple:?}");
        }
    }

    #[test]
    fn the_table_names_the_queue() {
        let indirection: Vec<u32> = (0..128).map(|place| place % 3).collect();
        let rss = Rss::new(&KEY, &indirection, 2).expect("usable");
        let flow = tuple("161.142.100.80:1766", "66.9.149.187:2794");
        assert_eq!(rss.queue_of(&flow), (0x51cc_c178 % 128) % 3);
        let ours = (0..3000).filter(|&port| rss.arrivals(&flow).are_ours(port)).count();
        assert!((800..1200).contains(&ours), "a third of the ports: {ours}");
    }

    #[test]
    fn what_cannot_be_computed_is_refused() {
        assert_eq!(Rss::new(&KEY[..39], &[0], 0), None);
        assert_eq!(Rss::new(&KEY, &[], 0), None);
        assert!(Rss::new(&[0; 52], &[0; 512], 7).is_some());
        assert!(!format!("{:?}", Rss::new(&KEY, &[0], 0)).contains("109"), "the key stays secret");
    }
}
