//! Namespaces joined by veth pairs.

use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::Result;

use crate::impair::{Impair, ImpairOptions, Report};
use crate::namespace::Namespace;

/// byway's own addresses in the lab (RFC 5737 and RFC 3849 documentation ranges), /24 and /64.
pub const BYWAY_IPV4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// See [`BYWAY_IPV4`].
pub const BYWAY_IPV6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
/// The addresses of the kernel on the other side.
pub const KERNEL_IPV4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
/// See [`KERNEL_IPV4`].
pub const KERNEL_IPV6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);
/// byway's interface, in [`Lab::byway`].
pub const BYWAY_INTERFACE: &str = "byway0";
/// The kernel's interface, in [`Lab::kernel`].
pub const KERNEL_INTERFACE: &str = "peer0";

/// Where an end of a pair goes, and what it is called there.
#[derive(Clone, Copy, Debug)]
pub struct VethEnd<'a> {
    /// The namespace.
    pub namespace: &'a Namespace,
    /// The interface's name, 15 octets at most.
    pub name: &'a str,
}

/// What both ends of a pair are like.
#[derive(Clone, Copy, Debug)]
pub struct VethOptions {
    /// Receive and transmit queues of each end. What one end sends on queue q, the other receives on queue q,
    /// and native XDP wants no fewer receive queues than the peer has transmit queues.
    pub queues: u32,
    /// The MTU of both ends; below 1280 there is no IPv6, and the pair is refused.
    pub mtu: u32,
    /// Leaves checksum and segmentation offload on, as they are by default. Then frames carry partial
    /// checksums and may be larger than the MTU.
    pub offloads: bool,
}

impl Default for VethOptions {
    fn default() -> Self {
        Self { queues: 1, mtu: 1500, offloads: false }
    }
}

/// Joins two namespaces (or one to itself) by a veth pair, both ends up, without addresses: not even
/// link-local ones, so that the kernel sends nothing by itself.
pub fn veth_pair(one: VethEnd<'_>, other: VethEnd<'_>, options: VethOptions) -> Result<()> {
    let VethOptions { queues, mtu, offloads } = options;
    let size = format!("mtu {mtu} numrxqueues {queues} numtxqueues {queues}");
    one.namespace.run(&format!(
        "ip link add {} {size} type veth peer name {} {size} netns {}",
        one.name,
        other.name,
        other.namespace.path(),
    ))?;
    for VethEnd { namespace, name } in [one, other] {
        if !offloads {
            namespace.run(&format!("ethtool -K {name} tx off tso off gso off gro off"))?;
        }
        namespace.run(&format!("ip link set {name} addrgenmode none"))?;
        namespace.run(&format!("ip link set {name} up"))?;
    }
    Ok(())
}

/// What a [`Lab`] is like.
#[derive(Clone, Debug, Default)]
pub struct LabOptions {
    /// The pair, or both pairs.
    pub veth: VethOptions,
    /// Puts a bridge between byway and the kernel that impairs what passes.
    pub impair: Option<ImpairOptions>,
}

/// Two namespaces, byway's and a kernel's, and what lies between them.
#[derive(Debug)]
pub struct Lab {
    /// Where byway runs, on [`BYWAY_INTERFACE`].
    pub byway: Namespace,
    /// Where the kernel's TCP is the peer, on [`KERNEL_INTERFACE`], with addresses.
    pub kernel: Namespace,
    impair: Option<Impair>,
}

impl Lab {
    /// Builds it, ready for frames.
    pub fn new(options: LabOptions) -> Result<Self> {
        let LabOptions { veth, impair } = options;
        let (byway, kernel) = (Namespace::new()?, Namespace::new()?);
        let byway_end = VethEnd { namespace: &byway, name: BYWAY_INTERFACE };
        let kernel_end = VethEnd { namespace: &kernel, name: KERNEL_INTERFACE };
        let impair = match impair {
            None => {
                veth_pair(byway_end, kernel_end, veth)?;
                None
            }
            Some(options) => {
                let wire = Namespace::new()?;
                veth_pair(byway_end, VethEnd { namespace: &wire, name: "near" }, veth)?;
                veth_pair(VethEnd { namespace: &wire, name: "far" }, kernel_end, veth)?;
                Some(Impair::start(&wire, "near", "far", options)?)
            }
        };
        kernel.run(&format!("ip addr add {KERNEL_IPV4}/24 dev {KERNEL_INTERFACE}"))?;
        kernel.run(&format!("ip addr add {KERNEL_IPV6}/64 dev {KERNEL_INTERFACE} nodad"))?;
        Ok(Self { byway, kernel, impair })
    }

    /// Ends the impairment, after which nothing passes any more: what it did. Nothing if there was none.
    pub fn stop_impairing(&mut self) -> Result<Option<Report>> {
        self.impair.take().map(Impair::stop).transpose()
    }
}
