//! Facts about an interface, asked by ioctl.
//!
//! Not by sysfs: in a fresh network namespace /sys still shows the old one's interfaces.

use core::net::IpAddr;
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use byway_tcp::rss::Rss;
use byway_tcp::stack::Cidr;
use byway_tcp::wire::MacAddr;

use crate::error::Error;

const ETHTOOL_GDRVINFO: u32 = 0x03;
const ETHTOOL_GFLAGS: u32 = 0x25;
const ETHTOOL_GRXFH: u32 = 0x29;
const ETHTOOL_GCHANNELS: u32 = 0x3c;
const ETHTOOL_GRSSH: u32 = 0x46;

/// `flow_type` of [`ETHTOOL_GRXFH`]: TCP over IPv4, and over IPv6.
const TCP_FLOWS: [u32; 2] = [0x01, 0x05];
/// Addresses and both ports are hashed.
const RXH_FOUR_TUPLE: u64 = 0xf0;
/// `hfunc` of [`ETHTOOL_GRSSH`]: Toeplitz.
const ETH_RSS_HASH_TOP: u8 = 1;

/// In the answer to [`ETHTOOL_GFLAGS`]: the NIC takes VLAN tags off what it receives.
const ETH_FLAG_RXVLAN: u32 = 1 << 8;

/// What there is to know about an interface before using it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Link {
    /// Its name.
    pub name: String,
    /// Its index.
    pub index: u32,
    /// Its Ethernet address.
    pub mac: MacAddr,
    /// Largest IP packet, in octets.
    pub mtu: u32,
    /// Receive queues in use.
    pub rx_queues: u32,
    /// Transmit queues in use.
    pub tx_queues: u32,
    /// Administratively up.
    pub up: bool,
    /// Carrier present.
    pub running: bool,
    /// The driver's name, empty if it doesn't tell.
    pub driver: String,
    /// How flows are spread over the queues, seen from queue 0. `None` with one queue, and if the driver
    /// doesn't tell, or spreads them by anything but the Toeplitz hash of addresses and ports.
    pub rss: Option<Rss>,
}

impl Link {
    /// Asks the kernel about interface `name` of this thread's network namespace.
    ///
    /// # Errors
    /// No such interface, or not an Ethernet one.
    pub fn query(name: &str) -> Result<Self, Error> {
        let asker = Asker::new(name)?;
        let flags = asker.flags()?;
        let (rx_queues, tx_queues) = asker.queues();
        Ok(Self {
            name: name.to_owned(),
            index: asker.index()?,
            mac: asker.mac()?,
            mtu: asker.mtu()?,
            rx_queues,
            tx_queues,
            up: flags & libc::IFF_UP != 0,
            running: flags & libc::IFF_RUNNING != 0,
            driver: asker.driver(),
            rss: if rx_queues > 1 { asker.rss() } else { None },
        })
    }

    /// The same link as it is now: what may change under a running byway is asked again.
    ///
    /// # Errors
    /// It is gone.
    pub fn again(&self) -> Result<Self, Error> {
        let asker = Asker::new(&self.name)?;
        let flags = asker.flags()?;
        let (rx_queues, tx_queues) = asker.queues();
        Ok(Self {
            mtu: asker.mtu()?,
            rx_queues,
            tx_queues,
            up: flags & libc::IFF_UP != 0,
            running: flags & libc::IFF_RUNNING != 0,
            ..self.clone()
        })
    }

    /// Whether the NIC takes VLAN tags off before the XDP program sees the frame, so that tagged and untagged frames
    /// are one. A veth says so and has nothing to take off.
    pub fn strips_vlan_tags(&self) -> bool {
        let mut flags = Value { command: ETHTOOL_GFLAGS, data: 0 };
        let told = Asker::new(&self.name).is_ok_and(|asker| asker.ethtool(&mut flags));
        told && flags.data & ETH_FLAG_RXVLAN != 0 && self.driver != "veth"
    }

    /// The addresses the kernel has on this interface, with their prefixes.
    ///
    /// # Errors
    /// When the kernel doesn't answer.
    pub fn kernel_addresses(&self) -> Result<Vec<Cidr>, Error> {
        Ok(kernel_addresses()?
            .into_iter()
            .filter(|(name, _)| *name == self.name)
            .map(|(_, cidr)| cidr)
            .collect())
    }

    /// Checks that every one of `queues` also sends: an AF_XDP socket has the queues of one number, both ways, and the
    /// kernel binds it to one that only receives, too.
    ///
    /// # Errors
    /// [`Error::QueueOnlyReceives`].
    pub fn check_sends(&self, queues: &[u32]) -> Result<(), Error> {
        match queues.iter().find(|&&queue| queue >= self.tx_queues) {
            None => Ok(()),
            Some(&queue) => Err(Error::QueueOnlyReceives {
                interface: self.name.clone(),
                queue,
                rx: self.rx_queues,
                tx: self.tx_queues,
            }),
        }
    }

    /// Checks that every one of `queues` exists.
    ///
    /// # Errors
    /// [`Error::NoQueue`].
    pub fn check_queues(&self, queues: &[u32]) -> Result<(), Error> {
        match queues.iter().find(|&&queue| queue >= self.rx_queues) {
            None => Ok(()),
            Some(&queue) => {
                Err(Error::NoQueue { interface: self.name.clone(), queue, count: self.rx_queues })
            }
        }
    }
}

/// Every address of every interface of this network namespace.
///
/// # Errors
/// When the kernel doesn't answer.
pub fn kernel_addresses() -> Result<Vec<(String, Cidr)>, Error> {
    let mut first = core::ptr::null_mut();
    // SAFETY: `first` is writable; the list it is set to is freed below.
    if unsafe { libc::getifaddrs(&raw mut first) } != 0 {
        return Err(Error::system("listing addresses (getifaddrs)"));
    }
    let mut found = Vec::new();
    let mut next = first;
    // SAFETY: the list's pointers are null or good until freeifaddrs.
    while let Some(entry) = unsafe { next.as_ref() } {
        next = entry.ifa_next;
        if let (Some(address), Some(mask)) = (ip(entry.ifa_addr), ip(entry.ifa_netmask)) {
            // SAFETY: an entry's name is a C string, good until freeifaddrs.
            let name = unsafe { CStr::from_ptr(entry.ifa_name) };
            found.push((name.to_string_lossy().into_owned(), Cidr { address, prefix: ones(mask) }));
        }
    }
    // SAFETY: the list came from getifaddrs, and nothing of it is used any more.
    unsafe { libc::freeifaddrs(first) };
    Ok(found)
}

/// The IP address in a socket address, if it is one.
fn ip(address: *const libc::sockaddr) -> Option<IpAddr> {
    // SAFETY: getifaddrs gives null or a pointer to a socket address.
    let family = i32::from(unsafe { address.as_ref() }?.sa_family);
    match family {
        libc::AF_INET => {
            // SAFETY: the family says that it is a sockaddr_in; a reference isn't made, so its
            // alignment doesn't matter.
            let v4 = unsafe { address.cast::<libc::sockaddr_in>().read_unaligned() };
            Some(IpAddr::from(v4.sin_addr.s_addr.to_ne_bytes()))
        }
        libc::AF_INET6 => {
            // SAFETY: as above, sockaddr_in6.
            let v6 = unsafe { address.cast::<libc::sockaddr_in6>().read_unaligned() };
            Some(IpAddr::from(v6.sin6_addr.s6_addr))
        }
        _ => None,
    }
}

/// Leading ones of a netmask.
fn ones(mask: IpAddr) -> u8 {
    match mask {
        IpAddr::V4(mask) => mask.to_bits().leading_ones() as u8,
        IpAddr::V6(mask) => mask.to_bits().leading_ones() as u8,
    }
}

/// A socket and a request, to ask about one interface.
pub(crate) struct Asker {
    socket: OwnedFd,
    name: String,
    request: libc::ifreq,
}

impl Asker {
    pub(crate) fn new(name: &str) -> Result<Self, Error> {
        if name.is_empty() || name.len() >= libc::IFNAMSIZ || name.contains(['/', '\0']) {
            return Err(Error::NoInterface(name.to_owned()));
        }
        // SAFETY: no pointers are passed.
        let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
        if fd < 0 {
            return Err(Error::system("opening a socket for ioctls"));
        }
        // SAFETY: the kernel just gave us this descriptor, and nobody else has it.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        // SAFETY: an ifreq is plain data, and zeroes are valid in all of it.
        let mut request: libc::ifreq = unsafe { core::mem::zeroed() };
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *to = from as libc::c_char;
        }
        Ok(Self { socket, name: name.to_owned(), request })
    }

    fn ask(&self, code: libc::c_ulong, what: &'static str) -> Result<libc::ifreq, Error> {
        let mut request = self.request;
        // SAFETY: `request` is a writable ifreq, and every code used with `ask` takes one.
        let result = unsafe { libc::ioctl(self.socket.as_raw_fd(), code as _, &raw mut request) };
        if result == 0 {
            return Ok(request);
        }
        let source = io::Error::last_os_error();
        match source.raw_os_error() {
            Some(libc::ENODEV) => Err(Error::NoInterface(self.name.clone())),
            _ => Err(Error::Link { interface: self.name.clone(), what, source }),
        }
    }

    fn index(&self) -> Result<u32, Error> {
        let answer = self.ask(libc::SIOCGIFINDEX, "asking for the index")?;
        // SAFETY: SIOCGIFINDEX sets this field.
        Ok(unsafe { answer.ifr_ifru.ifru_ifindex } as u32)
    }

    fn flags(&self) -> Result<i32, Error> {
        let answer = self.ask(libc::SIOCGIFFLAGS, "asking for the flags")?;
        // SAFETY: SIOCGIFFLAGS sets this field.
        Ok(i32::from(unsafe { answer.ifr_ifru.ifru_flags }))
    }

    fn mtu(&self) -> Result<u32, Error> {
        let answer = self.ask(libc::SIOCGIFMTU, "asking for the MTU")?;
        // SAFETY: SIOCGIFMTU sets this field.
        Ok(unsafe { answer.ifr_ifru.ifru_mtu } as u32)
    }

    fn mac(&self) -> Result<MacAddr, Error> {
        let answer = self.ask(libc::SIOCGIFHWADDR, "asking for the MAC address")?;
        // SAFETY: SIOCGIFHWADDR sets this field.
        let address = unsafe { answer.ifr_ifru.ifru_hwaddr };
        if address.sa_family != libc::ARPHRD_ETHER {
            return Err(Error::NotEthernet(self.name.clone()));
        }
        let mut mac = [0; 6];
        for (to, from) in mac.iter_mut().zip(address.sa_data) {
            *to = from as u8;
        }
        Ok(MacAddr(mac))
    }

    /// Asks the driver, whose structures begin with the command's code.
    pub(crate) fn ethtool<T>(&self, question: &mut T) -> bool {
        let mut request = self.request;
        request.ifr_ifru.ifru_data = core::ptr::from_mut(question).cast();
        // SAFETY: SIOCETHTOOL takes an ifreq whose data points at the structure of the command it
        // begins with; every caller passes the one its command fills in, with the sizes of what
        // follows it where the command has any.
        let result =
            unsafe { libc::ioctl(self.socket.as_raw_fd(), libc::SIOCETHTOOL as _, &raw mut request) };
        result == 0
    }

    /// Queues that receive, and that send: the driver's counts, or one of each if it doesn't tell.
    fn queues(&self) -> (u32, u32) {
        let mut channels = Channels { command: ETHTOOL_GCHANNELS, ..Channels::default() };
        if !self.ethtool(&mut channels) {
            return (1, 1);
        }
        let Channels { rx, tx, combined, .. } = channels;
        ((rx + combined).max(1), (tx + combined).max(1))
    }

    /// The queue in each place of the indirection table; empty if the driver doesn't tell.
    pub(crate) fn indirection(&self) -> Vec<u32> {
        let mut sizes = RssHead { command: ETHTOOL_GRSSH, ..RssHead::default() };
        if !self.ethtool(&mut sizes) {
            return Vec::new();
        }
        let (table_len, key_len) = (sizes.table_len as usize, sizes.key_len as usize);
        if table_len > RSS_TABLE_MAX || key_len > RSS_KEY_MAX {
            return Vec::new();
        }
        let mut whole = RssWhole { head: sizes, rest: [0; RSS_TABLE_MAX + RSS_KEY_MAX / 4] };
        if self.ethtool(&mut whole) { whole.rest[..table_len].to_vec() } else { Vec::new() }
    }

    /// The key and the indirection table: asked for their sizes first, then for themselves.
    fn rss(&self) -> Option<Rss> {
        let hashes_ports = TCP_FLOWS.iter().all(|&flow| {
            let mut fields = HashFields { command: ETHTOOL_GRXFH, flow, ..HashFields::default() };
            // A driver that doesn't tell hashes what drivers hash by default.
            !self.ethtool(&mut fields) || fields.data & RXH_FOUR_TUPLE == RXH_FOUR_TUPLE
        });
        let mut sizes = RssHead { command: ETHTOOL_GRSSH, ..RssHead::default() };
        if !hashes_ports || !self.ethtool(&mut sizes) || sizes.hfunc != ETH_RSS_HASH_TOP {
            return None;
        }
        let (table_len, key_len) = (sizes.table_len as usize, sizes.key_len as usize);
        if sizes.input_transform != 0 || table_len > RSS_TABLE_MAX || key_len > RSS_KEY_MAX {
            return None;
        }
        let mut whole = RssWhole { head: sizes, rest: [0; RSS_TABLE_MAX + RSS_KEY_MAX / 4] };
        if !self.ethtool(&mut whole) {
            return None;
        }
        // The table comes first, the key behind it.
        let (table, key) = whole.rest.split_at(table_len);
        let key: Vec<u8> = key.iter().flat_map(|word| word.to_ne_bytes()).take(key_len).collect();
        Rss::new(&key, table, 0)
    }

    fn driver(&self) -> String {
        let mut info = DriverInfo { command: ETHTOOL_GDRVINFO, driver: [0; 32], rest: [0; DRIVER_INFO_REST] };
        if !self.ethtool(&mut info) {
            return String::new();
        }
        let end = info.driver.iter().position(|&octet| octet == 0).unwrap_or(info.driver.len());
        String::from_utf8_lossy(&info.driver[..end]).into_owned()
    }
}

/// `struct ethtool_channels`.
#[repr(C)]
#[derive(Default)]
struct Channels {
    command: u32,
    rx_max: u32,
    tx_max: u32,
    other_max: u32,
    combined_max: u32,
    rx: u32,
    tx: u32,
    other: u32,
    combined: u32,
}

/// `struct ethtool_value`.
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

/// `struct ethtool_rxnfc` as ETHTOOL_GRXFH uses it.
#[repr(C)]
#[derive(Default)]
struct HashFields {
    command: u32,
    flow: u32,
    data: u64,
    rest: [u64; 22],
}

/// Places in the largest indirection table, and octets in the largest key, that drivers have: 4096 and 52,
/// with room to grow.
const RSS_TABLE_MAX: usize = 8192;
const RSS_KEY_MAX: usize = 256;

/// The beginning of `struct ethtool_rxfh`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct RssHead {
    command: u32,
    context: u32,
    /// Places of the table.
    table_len: u32,
    /// Octets of the key.
    key_len: u32,
    /// The hash function.
    hfunc: u8,
    /// What is done to the addresses before (symmetric hashing).
    input_transform: u8,
    reserved: [u8; 6],
}

/// `struct ethtool_rxfh` with the table and the key behind it.
#[repr(C)]
struct RssWhole {
    head: RssHead,
    rest: [u32; RSS_TABLE_MAX + RSS_KEY_MAX / 4],
}

/// What follows the driver's name in `struct ethtool_drvinfo`.
const DRIVER_INFO_REST: usize = 4 * 32 + 12 + 5 * 4;

/// `struct ethtool_drvinfo`.
#[repr(C)]
struct DriverInfo {
    command: u32,
    driver: [u8; 32],
    rest: [u8; DRIVER_INFO_REST],
}

const _: () = assert!(size_of::<Channels>() == 36);
const _: () = assert!(size_of::<HashFields>() == 192);
const _: () = assert!(size_of::<RssHead>() == 24);
const _: () = assert!(size_of::<DriverInfo>() == 196);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_interface_is_named() {
        for name in ["nosuchif0", "", "a-name-much-too-long-for-linux", "a/b"] {
            let error = Link::query(name).expect_err("no such interface");
            assert!(matches!(&error, Error::NoInterface(named) if named == name), "{error}");
        }
    }

    #[test]
    fn loopback_is_not_ethernet() {
        let error = Link::query("lo").expect_err("not Ethernet");
        assert!(matches!(error, Error::NotEthernet(_)), "{error}");
    }

    #[test]
    fn netmasks_become_prefixes() {
        assert_eq!(ones("255.255.255.0".parse().expect("mask")), 24);
        assert_eq!(ones("0.0.0.0".parse().expect("mask")), 0);
        assert_eq!(ones("ffff:ffff:ffff:ffff::".parse().expect("mask")), 64);
    }

    #[test]
    fn a_queue_out_of_range_is_named() {
        let link = Link {
            name: "eth0".into(),
            index: 2,
            mac: MacAddr([2, 0, 0, 0, 0, 1]),
            mtu: 1500,
            rx_queues: 2,
            tx_queues: 1,
            up: true,
            running: true,
            driver: "veth".into(),
            rss: None,
        };
        link.check_queues(&[0, 1]).expect("both exist");
        let error = link.check_queues(&[0, 2]).expect_err("two queues only");
        assert!(error.to_string().contains("no RX queue 2: it has 2"), "{error}");
        link.check_sends(&[0]).expect("it does both");
        let error = link.check_sends(&[0, 1]).expect_err("one sends");
        assert!(error.to_string().contains("queue 1 of eth0 only receives (2 receive, 1 send)"), "{error}");
    }
}
