//! What all netlink families share: questions and their answers, messages and their attributes (netlink(7)).

use core::time::Duration;
use std::io;
use std::os::fd::OwnedFd;

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, send, socket_with,
    sockopt,
};

pub(crate) use rustix::net::netlink::{GENERIC, SOCK_DIAG};

/// NETLINK_ROUTE, which is no protocol at all.
pub(crate) const ROUTE: Option<Protocol> = None;

// linux/netlink.h
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
pub(crate) const NLM_F_ACK: u16 = 4;
pub(crate) const NLM_F_DUMP: u16 = 0x300;
pub(crate) const NLM_F_CREATE: u16 = 0x400;

/// How long the kernel may take to answer, which it does within the call as a rule.
const PATIENCE: Duration = Duration::from_secs(2);

/// Room for more than any answer to one read: the kernel fills 32 KiB at most, and what is more is the next read's.
pub(crate) fn buffer() -> Box<[u8]> {
    vec![0; 64 << 10].into()
}

/// A socket that hears what is said to `groups`.
pub(crate) fn open(protocol: Option<Protocol>, groups: u32) -> io::Result<OwnedFd> {
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?;
    bind(&socket, &SocketAddrNetlink::new(0, groups))?;
    Ok(socket)
}

/// Asks the kernel, one question after the other.
#[derive(Debug)]
pub(crate) struct Asker {
    socket: OwnedFd,
    sequence: u32,
    buffer: Box<[u8]>,
}

impl Asker {
    pub(crate) fn new(protocol: Option<Protocol>) -> io::Result<Self> {
        let socket = open(protocol, 0)?;
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(PATIENCE))?;
        Ok(Self { socket, sequence: 0, buffer: buffer() })
    }

    /// One request, and all of its answer: each message's kind and body.
    pub(crate) fn exchange(
        &mut self,
        kind: u16,
        flags: u16,
        body: &[u8],
        mut each: impl FnMut(u16, &[u8]),
    ) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut message = Vec::with_capacity(HEADER + body.len());
        message.extend(((HEADER + body.len()) as u32).to_ne_bytes());
        message.extend(kind.to_ne_bytes());
        message.extend((NLM_F_REQUEST | flags).to_ne_bytes());
        message.extend(self.sequence.to_ne_bytes());
        message.extend(0u32.to_ne_bytes());
        message.extend(body);
        send(&self.socket, &message, SendFlags::empty())?;
        loop {
            let (length, _) = recv(&self.socket, &mut self.buffer[..], RecvFlags::empty())?;
            for (header, body) in Messages(&self.buffer[..length]) {
                // What came too late for an earlier question.
                if header.sequence != self.sequence {
                    continue;
                }
                match header.kind {
                    NLMSG_DONE => return Ok(()),
                    NLMSG_ERROR => {
                        let code = i32::from_ne_bytes(field(body, 0).unwrap_or([0xff; 4]));
                        return if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(-code)) };
                    }
                    kind => each(kind, body),
                }
                if flags & (NLM_F_DUMP | NLM_F_ACK) == 0 {
                    return Ok(());
                }
            }
        }
    }
}

/// An attribute, as it goes into a message's body.
pub(crate) fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut octets = Vec::from((ATTRIBUTE_HEADER as u16 + value.len() as u16).to_ne_bytes());
    octets.extend(kind.to_ne_bytes());
    octets.extend(value);
    octets.resize(align(octets.len()), 0);
    octets
}

/// Octets of an attribute's header.
const ATTRIBUTE_HEADER: usize = 4;

/// `N` octets at `at`.
pub(crate) fn field<const N: usize>(octets: &[u8], at: usize) -> Option<[u8; N]> {
    octets.get(at..)?.first_chunk().copied()
}

/// Octets of a message's header.
const HEADER: usize = 16;

/// Messages and attributes begin at multiples of four.
pub(crate) fn align(length: usize) -> usize {
    length.next_multiple_of(4)
}

/// What a message says of itself.
pub(crate) struct Header {
    pub(crate) kind: u16,
    sequence: u32,
}

/// The messages in what one read gave, with their bodies. Ends at what isn't whole.
pub(crate) struct Messages<'a>(pub(crate) &'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = (Header, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let length = u32::from_ne_bytes(field(self.0, 0)?) as usize;
        let kind = u16::from_ne_bytes(field(self.0, 4)?);
        let sequence = u32::from_ne_bytes(field(self.0, 8)?);
        let body = self.0.get(HEADER..length)?;
        self.0 = self.0.get(align(length)..).unwrap_or_default();
        Some((Header { kind, sequence }, body))
    }
}

/// A message's attributes: kind and value. Ends at what isn't whole.
pub(crate) struct Attributes<'a>(pub(crate) &'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let length = usize::from(u16::from_ne_bytes(field(self.0, 0)?));
        // The two highest bits are flags.
        let kind = u16::from_ne_bytes(field(self.0, 2)?) & 0x3fff;
        let value = self.0.get(4..length)?;
        self.0 = self.0.get(align(length)..).unwrap_or_default();
        Some((kind, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_found_behind_others_and_never_past_the_end() {
        let all = [attribute(1, &[7]), attribute(2, b"netdev\0"), attribute(6, &8u64.to_ne_bytes())].concat();
        let found: Vec<_> = Attributes(&all).map(|(kind, value)| (kind, value.to_vec())).collect();
        assert_eq!(found, [(1, vec![7]), (2, b"netdev\0".to_vec()), (6, 8u64.to_ne_bytes().to_vec())]);
        for end in 0..all.len() {
            assert!(Attributes(&all[..end]).count() <= 3);
            assert!(Messages(&all[..end]).count() <= 3);
        }
    }
}
