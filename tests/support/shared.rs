//! byway at the addresses that its host's kernel has, too.
//!
//! That kernel sends with a TTL (hop limit) of its own: so a frame from one of byway's ports tells by its TTL who sent
//! it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use byway_lab::{BYWAY_INTERFACE, BYWAY_IPV4, BYWAY_IPV6, Lab, LabOptions, is_root};

/// What the kernel of byway's host has as TTL. byway's is 64.
pub const KERNEL_TTL: u8 = 77;

/// A lab whose addresses of byway's the kernel beside it has; `None` without root.
pub fn shared_lab() -> Option<Lab> {
    if !is_root() {
        return None;
    }
    let lab = Lab::new(LabOptions::default()).expect("a lab");
    for command in [
        format!("ip addr add {BYWAY_IPV4}/24 dev {BYWAY_INTERFACE}"),
        format!("ip addr add {BYWAY_IPV6}/64 dev {BYWAY_INTERFACE} nodad"),
        // In its name Linux asks for the IPv6 neighbours of others' packets; every interface but the lab's has one.
        format!("ip addr add fe80::1/64 dev {BYWAY_INTERFACE} nodad"),
        format!("sysctl -qw net.ipv4.ip_default_ttl={KERNEL_TTL}"),
        format!("sysctl -qw net.ipv6.conf.{BYWAY_INTERFACE}.hop_limit={KERNEL_TTL}"),
    ] {
        lab.byway.run(&command).expect(&command);
    }
    Some(lab)
}

/// A TCP segment in a captured frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segment {
    pub source: IpAddr,
    pub port: u16,
    pub ttl: u8,
    pub is_reset: bool,
}

impl Segment {
    pub fn of(frame: &[u8]) -> Option<Self> {
        let (source, ttl, segment): (IpAddr, _, _) = match frame.get(12..14)? {
            [0x08, 0x00] if *frame.get(23)? == 6 => {
                let header = usize::from(frame[14] & 15) * 4;
                let source: [u8; 4] = frame.get(26..30)?.try_into().ok()?;
                (Ipv4Addr::from(source).into(), frame[22], frame.get(14 + header..)?)
            }
            [0x86, 0xdd] if *frame.get(20)? == 6 => {
                let source: [u8; 16] = frame.get(22..38)?.try_into().ok()?;
                (Ipv6Addr::from(source).into(), frame[21], frame.get(54..)?)
            }
            _ => return None,
        };
        let port = u16::from_be_bytes([*segment.first()?, *segment.get(1)?]);
        Some(Self { source, port, ttl, is_reset: segment.get(13)? & 4 != 0 })
    }

    /// Not byway's.
    pub fn is_the_kernels(&self) -> bool {
        self.ttl == KERNEL_TTL
    }
}
