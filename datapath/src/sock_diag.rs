//! Who has AF_XDP sockets: what `ss --xdp` shows (sock_diag(7), linux/xdp_diag.h), and what is seen without.

use std::fs;

use crate::netlink::{self, Asker, Attributes, NLM_F_DUMP, field};
use crate::reservation::holder;
use crate::sys;

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const XDP_SHOW_INFO: u32 = 1;
const XDP_DIAG_INFO: u16 = 1;

/// Where in an AF_XDP socket its fill ring is mapped (XDP_UMEM_PGOFF_FILL_RING), as /proc/PID/maps writes it. Packet
/// sockets, which are mapped as well, have nothing there.
const FILL_RING_OFFSET: &str = "100000000";

/// An AF_XDP socket that is bound.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct XdpSocket {
    /// The queue it has.
    pub queue: u32,
    /// The process that has it, as `pid N (name)`, if it may be seen.
    pub holder: Option<String>,
}

/// The sockets on interface `index` of this thread's network namespace, by queue. `None`: the kernel doesn't tell, it
/// was built without CONFIG_XDP_SOCKETS_DIAG.
pub fn xdp_sockets(index: u32) -> Option<Vec<XdpSocket>> {
    let mut found: Vec<(u32, u32)> = Vec::new();
    let mut asker = Asker::new(Some(netlink::SOCK_DIAG)).ok()?;
    // `struct xdp_diag_req`: family, protocol, of any inode, what to show, of any cookie.
    let mut request = vec![libc::AF_XDP as u8, 0, 0, 0];
    request.extend([0u32, XDP_SHOW_INFO, 0, 0].iter().flat_map(|word| word.to_ne_bytes()));
    let each = |_, body: &[u8]| found.extend(socket(body, index));
    asker.exchange(SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, &request, each).ok()?;
    found.sort_unstable();
    let named = |(queue, inode): (u32, u32)| XdpSocket { queue, holder: holder::process(&inode.to_string()) };
    Some(found.into_iter().map(named).collect())
}

/// The processes that have AF_XDP sockets, on whatever queue, of any network namespace: as far as they may be seen,
/// each as `pid N (name)`.
pub fn xdp_processes() -> Vec<String> {
    let has_rings = |pid: &str| {
        let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
        maps.lines().any(is_fill_ring)
    };
    holder::pids().filter(|pid| has_rings(pid)).map(|pid| holder::named(&pid)).collect()
}

/// Who has the queue, or might have it, as far as that may be seen.
pub(crate) fn holder_of(interface: &str, queue: u32) -> String {
    let unseen = || "a process that can't be seen from here".to_owned();
    let index = sys::interface_index(interface);
    if let Some(sockets) = index.and_then(xdp_sockets) {
        let of_queue = sockets.into_iter().find(|socket| socket.queue == queue);
        return of_queue.and_then(|socket| socket.holder).unwrap_or_else(unseen);
    }
    // Those of other queues, and byway itself, which has just tried to have one, are among them.
    let me = format!("pid {} ", std::process::id());
    let mut others = xdp_processes();
    others.retain(|process| !process.starts_with(&me));
    if others.is_empty() { unseen() } else { others.join(" or ") }
}

/// A line of /proc/PID/maps: addresses, permissions, offset, device, inode, path.
fn is_fill_ring(line: &str) -> bool {
    let mut fields = line.split_ascii_whitespace();
    fields.nth(2) == Some(FILL_RING_OFFSET) && fields.nth(2).is_some_and(|path| path.starts_with("socket:"))
}

/// `struct xdp_diag_msg`: queue and inode of a socket on interface `index`.
fn socket(body: &[u8], index: u32) -> Option<(u32, u32)> {
    let inode = u32::from_ne_bytes(field(body, 4)?);
    let (_, info) = Attributes(body.get(16..)?).find(|(kind, _)| *kind == XDP_DIAG_INFO)?;
    let on = u32::from_ne_bytes(field(info, 0)?);
    (on == index).then_some((u32::from_ne_bytes(field(info, 4)?), inode))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::attribute;

    #[test]
    fn a_message_of_the_kernels_is_read_and_a_short_one_isnt() {
        let mut message = vec![44, 3, 0, 0];
        message.extend([4711u32, 1, 0].iter().flat_map(|word| word.to_ne_bytes()));
        message.extend(attribute(2, &0u32.to_ne_bytes()));
        message.extend(attribute(XDP_DIAG_INFO, &[7u32.to_ne_bytes(), 1u32.to_ne_bytes()].concat()));
        assert_eq!(socket(&message, 7), Some((1, 4711)));
        assert_eq!(socket(&message, 8), None, "another interface's");
        assert!((0..message.len()).all(|length| socket(&message[..length], 7).is_none()));
    }

    #[test]
    fn rings_of_packet_sockets_are_not_taken_for_xdps() {
        let line = |offset: &str, path: &str| {
            is_fill_ring(&format!(
                "7f0000000000-7f0000011000 rw-s {offset} 00:08 4711                       {path}"
            ))
        };
        assert!(line("100000000", "socket:[4711]"));
        assert!(!line("00000000", "socket:[4711]"));
        assert!(!line("100000000", "/usr/lib/large"));
        assert!(!is_fill_ring("7f0000000000-7f0000011000 rw-p 00000000 00:00 0 "));
    }
}
