//! Which program has a port.

use core::net::{IpAddr, SocketAddr};
use std::fs;
use std::path::Path;

/// What the kernel calls listening in its tables.
const LISTEN: &str = "0A";

/// The program that has a TCP socket at `endpoint`, or at all addresses, as `pid N (name)`; a listening one rather
/// than another. Sockets that are only bound are in no table.
pub(super) fn of(endpoint: SocketAddr) -> Option<String> {
    let mut inodes = Vec::new();
    // By thread, for it is the thread's network namespace that counts.
    for table in ["/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"] {
        let text = fs::read_to_string(table).unwrap_or_default();
        inodes.extend(text.lines().skip(1).filter_map(|line| entry(line, endpoint)));
    }
    inodes.sort_by_key(|&(_, listens)| !listens);
    let (inode, _) = inodes.first()?;
    Some(process(inode).unwrap_or_else(|| "a program that may not be seen from here".to_owned()))
}

/// A line's socket, if it has an owner and stands in the way, and whether it listens.
fn entry(line: &str, endpoint: SocketAddr) -> Option<(String, bool)> {
    let mut fields = line.split_whitespace();
    let (address, port) = fields.nth(1)?.split_once(':')?;
    let (state, inode) = (fields.nth(1)?, fields.nth(5)?);
    let address = address_of(address)?.to_canonical();
    let in_the_way = u16::from_str_radix(port, 16) == Ok(endpoint.port())
        && (address == endpoint.ip() || address.is_unspecified());
    // Without an inode it is nobody's any more: TIME-WAIT, and what closes by itself.
    (in_the_way && inode != "0").then(|| (inode.to_owned(), state == LISTEN))
}

/// Words of four octets, each as this machine has it.
fn address_of(hex: &str) -> Option<IpAddr> {
    let mut octets = Vec::new();
    for at in (0..hex.len()).step_by(8) {
        octets.extend(u32::from_str_radix(hex.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    }
    match octets.len() {
        4 => Some(IpAddr::from(<[u8; 4]>::try_from(octets).ok()?)),
        16 => Some(IpAddr::from(<[u8; 16]>::try_from(octets).ok()?)),
        _ => None,
    }
}

/// The process that has a socket of this inode open.
pub(crate) fn process(inode: &str) -> Option<String> {
    let socket = format!("socket:[{inode}]");
    let holds = |pid: &String| {
        let Ok(open) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
        open.flatten().any(|fd| fs::read_link(fd.path()).is_ok_and(|target| target == Path::new(&socket)))
    };
    pids().find(holds).map(|pid| named(&pid))
}

/// All processes that /proc shows.
pub(crate) fn pids() -> impl Iterator<Item = String> {
    let names = fs::read_dir("/proc").into_iter().flatten().flatten();
    let names = names.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| name.bytes().all(|octet| octet.is_ascii_digit()))
}

/// `pid N (name)`.
pub(crate) fn named(pid: &str) -> String {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    format!("pid {pid} ({})", name.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_both_tables_are_read() {
        let v4 = "   0: 0100007F:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 x";
        let at = |text: &str| text.parse::<SocketAddr>().expect("endpoint");
        assert_eq!(entry(v4, at("127.0.0.1:80")), Some(("4711".to_owned(), true)));
        assert_eq!(entry(v4, at("127.0.0.1:81")), None);
        assert_eq!(entry(v4, at("192.0.2.1:80")), None);
        let v6 = "   0: 00000000000000000000000000000000:0050 00000000000000000000000000000000:0000 01 0:0 00:0 0 0 0 12";
        assert_eq!(entry(v6, at("192.0.2.1:80")), Some(("12".to_owned(), false)));
        let time_wait =
            "   0: 0100007F:0050 0100007F:9C40 06 00000000:00000000 03:00001770 00000000 0 0 0 3 x";
        assert_eq!(entry(time_wait, at("127.0.0.1:80")), None);
        assert_eq!(entry("", at("127.0.0.1:80")), None);
    }
}
