//! What the kernel's `netdev` netlink family tells of an interface: what its driver does with XDP and AF_XDP, and which
//! interrupts its queues have. Linux 6.3 and newer (linux/netdev.h).

use std::io;

use crate::netlink::{self, Asker, Attributes, NLM_F_DUMP, attribute, field};

/// What a driver does with XDP and AF_XDP, as bits of linux/netdev.h.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Features {
    xdp: u64,
    xsk: u64,
    rx_metadata: u64,
    /// Buffers that one frame may be spread over in zero-copy mode; 1 where it has to be whole.
    pub zero_copy_segments: u32,
}

impl Features {
    const REDIRECT: u64 = 2;
    const ZERO_COPY: u64 = 8;
    const RX_SG: u64 = 32;
    const TX_SG: u64 = 64;
    const TX_CHECKSUM: u64 = 2;
    const VLAN_TAG: u64 = 4;

    /// Native XDP that can redirect to a socket.
    pub fn native(self) -> bool {
        self.xdp & Self::REDIRECT != 0
    }

    /// AF_XDP's zero-copy mode.
    pub fn zero_copy(self) -> bool {
        self.xdp & Self::ZERO_COPY != 0
    }

    /// Frames spread over several buffers are received (`xdp.frags`).
    pub fn fragments(self) -> bool {
        self.xdp & Self::RX_SG != 0
    }

    /// Such frames are sent, when redirected there (`ndo_xdp_xmit`).
    pub fn sends_fragments(self) -> bool {
        self.xdp & Self::TX_SG != 0
    }

    /// Checksums of what an AF_XDP socket sends, asked for in the frame's metadata.
    pub fn tx_checksum(self) -> bool {
        self.xsk & Self::TX_CHECKSUM != 0
    }

    /// A VLAN tag that the NIC took out can be asked for by an XDP program.
    pub fn vlan_tag(self) -> bool {
        self.rx_metadata & Self::VLAN_TAG != 0
    }
}

/// Asks what the driver of interface `index` can. `None` if the kernel doesn't know the question: it is older than 6.3,
/// or there is no such interface.
pub fn features(index: u32) -> Option<Features> {
    const DEV_GET: u8 = 1;
    const IFINDEX: u16 = 1;
    const XDP_FEATURES: u16 = 3;
    const ZC_MAX_SEGS: u16 = 4;
    const RX_METADATA: u16 = 5;
    const XSK_FEATURES: u16 = 6;
    let mut family = Family::new().ok()?;
    let answers = family.ask(DEV_GET, 0, &attribute(IFINDEX, &index.to_ne_bytes())).ok()?;
    let attributes = answers.first()?;
    let u64_of = |kind| value(attributes, kind).map(u64::from_ne_bytes);
    Some(Features {
        xdp: u64_of(XDP_FEATURES)?,
        xsk: u64_of(XSK_FEATURES).unwrap_or(0),
        rx_metadata: u64_of(RX_METADATA).unwrap_or(0),
        zero_copy_segments: value(attributes, ZC_MAX_SEGS).map_or(1, u32::from_ne_bytes),
    })
}

/// Frames that a driver with these features may spread one packet over in zero-copy mode; 1 if it doesn't say.
pub fn zero_copy_segments(features: Option<Features>) -> u32 {
    features.filter(|features| features.zero_copy()).map_or(1, |features| features.zero_copy_segments.max(1))
}

/// The interrupt of each receive queue, by the queue's number, of the drivers that tell (Linux 6.8 and newer).
pub fn queue_irqs(index: u32) -> Vec<(u32, u32)> {
    irqs(index).unwrap_or_default()
}

fn irqs(index: u32) -> io::Result<Vec<(u32, u32)>> {
    const QUEUE_GET: u8 = 10;
    const NAPI_GET: u8 = 11;
    const QUEUE: [u16; 4] = [1, 2, 3, 4];
    const NAPI: [u16; 3] = [1, 2, 3];
    let mut family = Family::new()?;
    let [queue_id, queue_ifindex, queue_type, queue_napi] = QUEUE;
    let queues = family.ask(QUEUE_GET, NLM_F_DUMP, &attribute(queue_ifindex, &index.to_ne_bytes()))?;
    let [napi_ifindex, napi_id, napi_irq] = NAPI;
    let napis = family.ask(NAPI_GET, NLM_F_DUMP, &attribute(napi_ifindex, &index.to_ne_bytes()))?;
    let number = |attributes: &[u8], kind| value(attributes, kind).map(u32::from_ne_bytes);
    // Type 0 receives.
    let receiving = queues.iter().filter(|queue| number(queue, queue_type) == Some(0));
    let irq_of = |queue: &Vec<u8>| {
        let napi = number(queue, queue_napi)?;
        let napi = napis.iter().find(|entry| number(entry, napi_id) == Some(napi))?;
        Some((number(queue, queue_id)?, number(napi, napi_irq)?))
    };
    Ok(receiving.filter_map(irq_of).collect())
}

/// Octets of `struct genlmsghdr`.
const GENERIC_HEADER: usize = 4;

/// The `netdev` family.
struct Family {
    asker: Asker,
    id: u16,
}

impl Family {
    fn new() -> io::Result<Self> {
        const CTRL: u16 = 0x10;
        const GETFAMILY: u8 = 3;
        const FAMILY_ID: u16 = 1;
        const FAMILY_NAME: u16 = 2;
        let mut family = Self { asker: Asker::new(Some(netlink::GENERIC))?, id: CTRL };
        let answers = family.ask(GETFAMILY, 0, &attribute(FAMILY_NAME, b"netdev\0"))?;
        let id = answers.first().and_then(|attributes| value(attributes, FAMILY_ID));
        family.id = id.map(u16::from_ne_bytes).ok_or(io::ErrorKind::NotFound)?;
        Ok(family)
    }

    /// The attributes of each answer.
    fn ask(&mut self, command: u8, flags: u16, attributes: &[u8]) -> io::Result<Vec<Vec<u8>>> {
        const VERSION: u8 = 1;
        let body = [&[command, VERSION, 0, 0], attributes].concat();
        let mut answers = Vec::new();
        self.asker.exchange(self.id, flags, &body, |_, answer| {
            answers.push(answer.get(GENERIC_HEADER..).unwrap_or_default().to_vec());
        })?;
        Ok(answers)
    }
}

/// The value of the attribute `wanted`.
fn value<const N: usize>(attributes: &[u8], wanted: u16) -> Option<[u8; N]> {
    let (_, value) = Attributes(attributes).find(|(kind, _)| *kind == wanted)?;
    field(value, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a kernel that has the family; the test says so where it hasn't.
    #[test]
    fn loopback_has_no_zero_copy() {
        match features(1) {
            Some(features) => assert!(!features.zero_copy()),
            None => eprintln!("skipped: this kernel has no netdev netlink family"),
        }
        assert_eq!(features(0), None);
        assert_eq!(queue_irqs(1), []);
    }
}
