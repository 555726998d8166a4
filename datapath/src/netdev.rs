//! What the kernel's `netdev` netlink family tells of an interface: what its driver does with XDP and AF_XDP, and which
//! interrupts its queues have. Linux 6.3 and newer (linux/netdev.h).

use std::io;
use std::os::fd::OwnedFd;

use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink};

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

    /// Frames spread over several buffers (`xdp.frags`).
    pub fn fragments(self) -> bool {
        self.xdp & Self::RX_SG != 0
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
    let mut asker = Asker::new().ok()?;
    let answers = asker.ask(DEV_GET, 0, &[(IFINDEX, &index.to_ne_bytes())]).ok()?;
    let attributes = answers.first()?;
    let u64_of =
        |kind| attribute(attributes, kind).and_then(|value| value.try_into().ok()).map(u64::from_ne_bytes);
    Some(Features {
        xdp: u64_of(XDP_FEATURES)?,
        xsk: u64_of(XSK_FEATURES).unwrap_or(0),
        rx_metadata: u64_of(RX_METADATA).unwrap_or(0),
        zero_copy_segments: attribute(attributes, ZC_MAX_SEGS).and_then(u32_of).unwrap_or(1),
    })
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
    let mut asker = Asker::new()?;
    let [queue_id, queue_ifindex, queue_type, queue_napi] = QUEUE;
    let queues = asker.ask(QUEUE_GET, DUMP, &[(queue_ifindex, &index.to_ne_bytes())])?;
    let [napi_ifindex, napi_id, napi_irq] = NAPI;
    let napis = asker.ask(NAPI_GET, DUMP, &[(napi_ifindex, &index.to_ne_bytes())])?;
    let number = |attributes: &[u8], kind| attribute(attributes, kind).and_then(u32_of);
    // Type 0 receives.
    let receiving = queues.iter().filter(|queue| number(queue, queue_type) == Some(0));
    let irq_of = |queue: &Vec<u8>| {
        let napi = number(queue, queue_napi)?;
        let napi = napis.iter().find(|entry| number(entry, napi_id) == Some(napi))?;
        Some((number(queue, queue_id)?, number(napi, napi_irq)?))
    };
    Ok(receiving.filter_map(irq_of).collect())
}

/// `NLM_F_REQUEST` and `NLM_F_DUMP` of linux/netlink.h.
const REQUEST: u16 = 1;
const DUMP: u16 = 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// Octets of `struct nlmsghdr`, and of `struct genlmsghdr`, and of `struct nlattr`.
const HEADER: usize = 16;
const GENERIC_HEADER: usize = 4;
const ATTRIBUTE_HEADER: usize = 4;
/// What a datagram of a dump holds at most (NLMSG_GOODSIZE is a page, a dump's are up to 32 KiB).
const DATAGRAM_MAX: usize = 32 << 10;

/// A socket to the `netdev` family.
struct Asker {
    socket: OwnedFd,
    family: u16,
}

impl Asker {
    fn new() -> io::Result<Self> {
        const CTRL: u16 = 0x10;
        const GETFAMILY: u8 = 3;
        const FAMILY_ID: u16 = 1;
        const FAMILY_NAME: u16 = 2;
        let kind = (AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC);
        let socket = net::socket_with(kind.0, kind.1, kind.2, Some(netlink::GENERIC))?;
        let mut asker = Self { socket, family: CTRL };
        let answers = asker.ask(GETFAMILY, 0, &[(FAMILY_NAME, b"netdev\0")])?;
        let id = answers.first().and_then(|attributes| attribute(attributes, FAMILY_ID));
        let id = id.and_then(|id| id.try_into().ok()).map(u16::from_ne_bytes);
        asker.family = id.ok_or(io::ErrorKind::NotFound)?;
        Ok(asker)
    }

    /// The attributes of each answer.
    fn ask(&mut self, command: u8, flags: u16, attributes: &[(u16, &[u8])]) -> io::Result<Vec<Vec<u8>>> {
        let message = request(self.family, flags, command, attributes);
        net::send(&self.socket, &message, SendFlags::empty())?;
        let mut answers = Vec::new();
        let mut datagram = vec![0; DATAGRAM_MAX];
        loop {
            let (length, _) = net::recv(&self.socket, datagram.as_mut_slice(), RecvFlags::empty())?;
            let mut rest = &datagram[..length.min(DATAGRAM_MAX)];
            while let Some((kind, body, next)) = message_of(rest) {
                match kind {
                    NLMSG_DONE => return Ok(answers),
                    NLMSG_ERROR => {
                        let code = body.get(..4).and_then(u32_of).unwrap_or(0) as i32;
                        return if code == 0 {
                            Ok(answers)
                        } else {
                            Err(io::Error::from_raw_os_error(-code))
                        };
                    }
                    _ => answers.push(body.get(GENERIC_HEADER..).unwrap_or_default().to_vec()),
                }
                if flags & DUMP == 0 {
                    return Ok(answers);
                }
                rest = next;
            }
        }
    }
}

/// A generic netlink message.
fn request(family: u16, flags: u16, command: u8, attributes: &[(u16, &[u8])]) -> Vec<u8> {
    const VERSION: u8 = 1;
    let mut message = vec![0; HEADER];
    message.extend([command, VERSION, 0, 0]);
    for (kind, value) in attributes {
        let length = (ATTRIBUTE_HEADER + value.len()) as u16;
        message.extend(length.to_ne_bytes());
        message.extend(kind.to_ne_bytes());
        message.extend(*value);
        message.resize(message.len().next_multiple_of(4), 0);
    }
    let length = message.len() as u32;
    message[..4].copy_from_slice(&length.to_ne_bytes());
    message[4..6].copy_from_slice(&family.to_ne_bytes());
    message[6..8].copy_from_slice(&(REQUEST | flags).to_ne_bytes());
    message
}

/// The first message of a datagram: its type, its body, and what follows it.
fn message_of(datagram: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = u32_of(datagram.get(..4)?)? as usize;
    let kind = u16::from_ne_bytes(datagram.get(4..6)?.try_into().ok()?);
    let body = datagram.get(HEADER..length)?;
    Some((kind, body, datagram.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

/// The value of the attribute `wanted`.
fn attribute(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    // The two highest bits say how the value is to be read, and aren't the type's.
    const TYPE: u16 = 0x3fff;
    loop {
        let length = usize::from(u16::from_ne_bytes(attributes.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(attributes.get(2..4)?.try_into().ok()?) & TYPE;
        let value = attributes.get(ATTRIBUTE_HEADER..length)?;
        if kind == wanted {
            return Some(value);
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
}

fn u32_of(octets: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(octets.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_found_behind_others_and_never_past_the_end() {
        let whole = request(0x10, 0, 3, &[(1, &[7]), (2, b"netdev\0"), (6, &8u64.to_ne_bytes())]);
        let (kind, body, rest) = message_of(&whole).expect("a message");
        assert_eq!((kind, rest.len()), (0x10, 0));
        let attributes = &body[GENERIC_HEADER..];
        assert_eq!(attribute(attributes, 1), Some(&[7][..]));
        assert_eq!(attribute(attributes, 2), Some(&b"netdev\0"[..]));
        assert_eq!(attribute(attributes, 6), Some(&8u64.to_ne_bytes()[..]));
        assert_eq!(attribute(attributes, 3), None);
        for end in 0..attributes.len() {
            attribute(&attributes[..end], 9);
            message_of(&whole[..end]);
        }
    }

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
