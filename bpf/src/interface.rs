//! What an error message wants to know of an interface. Asked by ioctl, not by sysfs: in a fresh network
//! namespace sysfs still shows the old one.

use std::ffi::CStr;
use std::io;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;

/// `struct ethtool_value` of linux/ethtool.h.
#[repr(C)]
struct EthtoolValue {
    cmd: u32,
    data: u32,
}

const ETHTOOL_GFLAGS: u32 = 0x25;
const ETH_FLAG_LRO: u32 = 1 << 15;

/// The interface's name, in the caller's network namespace.
pub(crate) fn name(ifindex: i32) -> Option<String> {
    let mut name = [0u8; libc::IFNAMSIZ];
    let index = u32::try_from(ifindex).ok()?;
    // SAFETY: if_indextoname writes at most IF_NAMESIZE (= IFNAMSIZ) octets with their NUL, the array's
    // length.
    let found = unsafe { libc::if_indextoname(index, name.as_mut_ptr().cast()) };
    if found.is_null() {
        return None;
    }
    CStr::from_bytes_until_nul(&name).ok().map(|name| name.to_string_lossy().into_owned())
}

pub(crate) fn mtu(name: &str) -> io::Result<u32> {
    let mut request = request(name);
    ioctl(libc::SIOCGIFMTU, &mut request)?;
    // SAFETY: SIOCGIFMTU has filled this member of the union; any bits are an i32 anyway.
    let mtu = unsafe { request.ifr_ifru.ifru_mtu };
    Ok(mtu.unsigned_abs())
}

/// Whether large receive offload is on. Drivers without ethtool have none.
pub(crate) fn lro(name: &str) -> bool {
    let mut flags = EthtoolValue { cmd: ETHTOOL_GFLAGS, data: 0 };
    let mut request = request(name);
    request.ifr_ifru.ifru_data = (&raw mut flags).cast();
    ioctl(libc::SIOCETHTOOL, &mut request).is_ok() && flags.data & ETH_FLAG_LRO != 0
}

fn request(name: &str) -> libc::ifreq {
    // SAFETY: ifreq is plain data, for which all octets zero are a value: an empty name and a null union.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // One octet less than there is room for, so that the NUL stays.
    for (to, from) in request.ifr_name[..libc::IFNAMSIZ - 1].iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request
}

fn ioctl(operation: libc::Ioctl, request: &mut libc::ifreq) -> io::Result<()> {
    // Any socket serves: the ioctl goes to the network namespace it was made in.
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    // SAFETY: both callers' operations take an ifreq, which outlives the call, as does what its ifru_data
    // points to.
    let rc = unsafe { libc::ioctl(socket.as_raw_fd(), operation, std::ptr::from_mut(request)) };
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_has_a_name_and_an_mtu_and_no_lro() {
        assert_eq!(name(1).as_deref(), Some("lo"));
        assert!(mtu("lo").is_ok_and(|mtu| mtu > 0));
        assert!(!lro("lo"));
    }

    #[test]
    fn an_interface_that_is_not_there_has_nothing() {
        assert_eq!(name(0), None);
        assert_eq!(name(-1), None);
        assert!(mtu("bwb-none").is_err());
        assert!(!lro("bwb-none"));
    }
}
