//! The groups that neighbour discovery asks byway's own IPv6 addresses by.
//!
//! A NIC receives the groups that the kernel has joined, and the kernel knows nothing of these addresses: without
//! this no neighbour ever finds them. (A veth has no filter, so there it goes unnoticed.)

use core::net::IpAddr;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use byway_tcp::wire::icmpv6::solicited_node;

use crate::error::Error;

/// Memberships of an interface, for as long as this lives, or the process.
#[derive(Debug)]
pub struct Groups {
    // A packet socket bound to nothing: it receives no frame.
    socket: OwnedFd,
    ifindex: i32,
}

impl Groups {
    /// Joins the solicited-node groups (RFC 4291 §2.7.1) of the IPv6 ones among `addresses`.
    ///
    /// # Errors
    /// CAP_NET_RAW is missing, or the interface.
    pub fn join(ifindex: u32, addresses: impl IntoIterator<Item = IpAddr>) -> Result<Self, Error> {
        // SAFETY: no pointers are passed.
        let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        if fd < 0 {
            return Err(match io::Error::last_os_error() {
                error if error.raw_os_error() == Some(libc::EPERM) => {
                    Error::Permission { what: "receiving multicast groups", capability: "CAP_NET_RAW" }
                }
                source => Error::System { what: "opening a packet socket", source },
            });
        }
        // SAFETY: the kernel just gave us this descriptor, and nobody else has it.
        let groups = Self { socket: unsafe { OwnedFd::from_raw_fd(fd) }, ifindex: ifindex as i32 };
        for address in addresses {
            if let IpAddr::V6(own) = address {
                groups.add(ethernet_group(solicited_node(own).octets()))?;
            }
        }
        Ok(groups)
    }

    fn add(&self, group: [u8; 6]) -> Result<(), Error> {
        let mut address = [0; 8];
        address[..6].copy_from_slice(&group);
        let request = libc::packet_mreq {
            mr_ifindex: self.ifindex,
            mr_type: libc::PACKET_MR_MULTICAST as libc::c_ushort,
            mr_alen: 6,
            mr_address: address,
        };
        let length = size_of_val(&request) as libc::socklen_t;
        let (level, option) = (libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP);
        // SAFETY: the option's value is a packet_mreq, readable for its length.
        let result = unsafe {
            libc::setsockopt(self.socket.as_raw_fd(), level, option, (&raw const request).cast(), length)
        };
        if result == 0 { Ok(()) } else { Err(Error::system("joining a multicast group")) }
    }
}

/// RFC 2464 §7.
fn ethernet_group(group: [u8; 16]) -> [u8; 6] {
    [0x33, 0x33, group[12], group[13], group[14], group[15]]
}
