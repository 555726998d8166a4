//! What a driver tells of its NIC beyond what byway needs to serve: for `byway doctor` and `byway tune`.
//!
//! By ioctl, as link.rs.

use std::collections::BTreeMap;
use std::ffi::CStr;

use crate::error::Error;
use crate::link::{Asker, Link};
use crate::netdev;

const ETHTOOL_GDRVINFO: u32 = 0x03;
const ETHTOOL_GCOALESCE: u32 = 0x0e;
const ETHTOOL_GRINGPARAM: u32 = 0x10;
const ETHTOOL_GSTRINGS: u32 = 0x1b;
const ETHTOOL_GSSET_INFO: u32 = 0x37;
const ETHTOOL_GFEATURES: u32 = 0x3a;
const ETHTOOL_GCHANNELS: u32 = 0x3c;
/// The set of the features' names.
const ETH_SS_FEATURES: u32 = 4;

/// A NIC, as its driver tells.
#[derive(Clone, Debug)]
pub struct Nic {
    /// What serving needs of it.
    pub link: Link,
    /// The driver's version; in-tree drivers say the kernel's.
    pub driver_version: String,
    /// Where the device is, as sysfs names it; empty for virtual ones.
    pub bus: String,
    /// Its queues, if the driver tells.
    pub channels: Option<Channels>,
    /// Places of its rings, if it has any.
    pub rings: Option<Rings>,
    /// How long it gathers frames before it interrupts.
    pub coalescing: Option<Coalescing>,
    /// The queue in each place of the indirection table; empty if the driver doesn't tell.
    pub indirection: Vec<u32>,
    /// What XDP can have of it; `None` from kernels before 6.3.
    pub features: Option<netdev::Features>,
    /// What `ethtool -k` lists, by the kernel's names: `rx-gro-hw`, `rx-lro` …
    pub offloads: BTreeMap<String, Offload>,
}

/// Queues, now and at most.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Channels {
    /// That only receive.
    pub rx: u32,
    /// That only send.
    pub tx: u32,
    /// That do both.
    pub combined: u32,
    /// Most that only receive.
    pub rx_max: u32,
    /// Most that only send.
    pub tx_max: u32,
    /// Most that do both.
    pub combined_max: u32,
}

/// Places of the hardware's rings, now and at most.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rings {
    /// Of each receive queue.
    pub rx: u32,
    /// The most.
    pub rx_max: u32,
    /// Of each transmit queue.
    pub tx: u32,
    /// The most.
    pub tx_max: u32,
}

/// Interrupt coalescing of what is received.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Coalescing {
    /// µs from the first frame to the interrupt.
    pub rx_usecs: u32,
    /// Whether the driver chooses by itself.
    pub adaptive: bool,
}

/// One of `ethtool -k`'s lines.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Offload {
    /// Whether the NIC or the driver does it now.
    pub on: bool,
    /// Whether that can't be changed.
    pub fixed: bool,
}

impl Nic {
    /// Asks the driver of `name`.
    ///
    /// # Errors
    /// No such interface, or not an Ethernet one.
    pub fn query(name: &str) -> Result<Self, Error> {
        let link = Link::query(name)?;
        let asker = Asker::new(name)?;
        let info = driver_info(&asker);
        Ok(Self {
            driver_version: info.as_ref().map(|info| text(&info.version)).unwrap_or_default(),
            bus: info.as_ref().map(|info| text(&info.bus)).unwrap_or_default(),
            channels: channels(&asker),
            rings: rings(&asker),
            coalescing: coalescing(&asker),
            indirection: asker.indirection(),
            features: netdev::features(link.index),
            offloads: offloads(&asker).unwrap_or_default(),
            ..Self::of(link)
        })
    }

    /// One of which nothing but its link is known.
    pub fn of(link: Link) -> Self {
        Self {
            link,
            driver_version: String::new(),
            bus: String::new(),
            channels: None,
            rings: None,
            coalescing: None,
            indirection: Vec::new(),
            features: None,
            offloads: BTreeMap::new(),
        }
    }

    /// Whether the offload of that name is on, and could be off.
    pub fn could_be_off(&self, name: &str) -> bool {
        self.offloads.get(name).is_some_and(|offload| offload.on && !offload.fixed)
    }

    /// Frames that the driver may spread one packet over in zero-copy mode; 1 if it doesn't say.
    pub fn zero_copy_segments(&self) -> u32 {
        netdev::zero_copy_segments(self.features)
    }
}

/// The names of this network namespace's interfaces, loopback too.
pub fn interfaces() -> Vec<String> {
    // SAFETY: no arguments; the array it returns is freed below.
    let first = unsafe { libc::if_nameindex() };
    let mut names = Vec::new();
    if first.is_null() {
        return names;
    }
    let mut next = first;
    loop {
        // SAFETY: the array ends with an entry whose name is null, and this isn't behind it.
        let entry = unsafe { next.read() };
        if entry.if_name.is_null() {
            break;
        }
        // SAFETY: a name that isn't null is a C string, good until if_freenameindex.
        let name = unsafe { CStr::from_ptr(entry.if_name) };
        names.push(name.to_string_lossy().into_owned());
        // SAFETY: an entry with a name isn't the last.
        next = unsafe { next.add(1) };
    }
    // SAFETY: `first` came from if_nameindex, and nothing of it is used any more.
    unsafe { libc::if_freenameindex(first) };
    names
}

fn channels(asker: &Asker) -> Option<Channels> {
    let mut raw = [0u32; 9];
    raw[0] = ETHTOOL_GCHANNELS;
    let [_, rx_max, tx_max, _, combined_max, rx, tx, _, combined] = answered(asker, raw)?;
    Some(Channels { rx, tx, combined, rx_max, tx_max, combined_max })
}

fn rings(asker: &Asker) -> Option<Rings> {
    let mut raw = [0u32; 9];
    raw[0] = ETHTOOL_GRINGPARAM;
    let [_, rx_max, _, _, tx_max, rx, _, _, tx] = answered(asker, raw)?;
    (rx_max > 0).then_some(Rings { rx, rx_max, tx, tx_max })
}

fn coalescing(asker: &Asker) -> Option<Coalescing> {
    const RX_USECS: usize = 1;
    const USE_ADAPTIVE_RX: usize = 10;
    let mut raw = [0u32; 23];
    raw[0] = ETHTOOL_GCOALESCE;
    let raw = answered(asker, raw)?;
    Some(Coalescing { rx_usecs: raw[RX_USECS], adaptive: raw[USE_ADAPTIVE_RX] != 0 })
}

/// An answer that is numbers only.
fn answered<const N: usize>(asker: &Asker, mut question: [u32; N]) -> Option<[u32; N]> {
    asker.ethtool(&mut question).then_some(question)
}

fn driver_info(asker: &Asker) -> Option<DriverInfo> {
    let mut info = DriverInfo {
        command: ETHTOOL_GDRVINFO,
        driver: [0; 32],
        version: [0; 32],
        firmware: [0; 32],
        bus: [0; 32],
        rest: [0; 64],
    };
    asker.ethtool(&mut info).then_some(info)
}

/// Every offload with its name: how many there are, what they are called, which are on.
fn offloads(asker: &Asker) -> Option<BTreeMap<String, Offload>> {
    let mut count =
        StringCount { command: ETHTOOL_GSSET_INFO, reserved: 0, sets: 1 << ETH_SS_FEATURES, length: 0 };
    if !asker.ethtool(&mut count) {
        return None;
    }
    let length = (count.length as usize).min(FEATURES_MAX);
    let mut names = Strings {
        command: ETHTOOL_GSTRINGS,
        set: ETH_SS_FEATURES,
        length: length as u32,
        strings: [[0; 32]; FEATURES_MAX],
    };
    let blocks = length.div_ceil(32);
    let mut bits = FeatureBits {
        command: ETHTOOL_GFEATURES,
        size: blocks as u32,
        blocks: [FeatureBlock::default(); FEATURES_MAX / 32],
    };
    // The kernel writes as many strings as it has, whatever it is told.
    if count.length as usize > FEATURES_MAX || !asker.ethtool(&mut names) || !asker.ethtool(&mut bits) {
        return None;
    }
    let offload = |place: usize| {
        let (block, bit) = (&bits.blocks[place / 32], 1 << (place % 32));
        let fixed = block.never_changed & bit != 0 || block.available & bit == 0;
        Offload { on: block.active & bit != 0, fixed }
    };
    Some((0..length).map(|place| (text(&names.strings[place]), offload(place))).collect())
}

/// What comes before the first NUL.
fn text(octets: &[u8]) -> String {
    let end = octets.iter().position(|&octet| octet == 0).unwrap_or(octets.len());
    String::from_utf8_lossy(&octets[..end]).into_owned()
}

/// The most features there is room for; Linux 6.18 has 64.
const FEATURES_MAX: usize = 256;

/// `struct ethtool_drvinfo`.
#[repr(C)]
struct DriverInfo {
    command: u32,
    driver: [u8; 32],
    version: [u8; 32],
    firmware: [u8; 32],
    bus: [u8; 32],
    rest: [u8; 64],
}

/// `struct ethtool_sset_info`, asked for one set.
#[repr(C)]
struct StringCount {
    command: u32,
    reserved: u32,
    sets: u64,
    length: u32,
}

/// `struct ethtool_gstrings`.
#[repr(C)]
struct Strings {
    command: u32,
    set: u32,
    length: u32,
    strings: [[u8; 32]; FEATURES_MAX],
}

/// `struct ethtool_get_features_block`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct FeatureBlock {
    available: u32,
    requested: u32,
    active: u32,
    never_changed: u32,
}

/// `struct ethtool_gfeatures`.
#[repr(C)]
struct FeatureBits {
    command: u32,
    size: u32,
    blocks: [FeatureBlock; FEATURES_MAX / 32],
}

const _: () = assert!(size_of::<DriverInfo>() == 196);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_listed() {
        assert!(interfaces().iter().any(|name| name == "lo"));
    }

    /// The kernel has these of every interface, whatever the driver.
    #[test]
    fn offloads_have_their_names() {
        let asker = Asker::new("lo").expect("a socket");
        let offloads = offloads(&asker).expect("told");
        assert!(offloads["loopback"].on && offloads["loopback"].fixed);
        assert!(!offloads["rx-lro"].on);
        assert!(channels(&asker).is_none() && rings(&asker).is_none());
    }
}
