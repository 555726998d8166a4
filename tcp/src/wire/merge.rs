//! Segments of ours, written one after the other, under one header: what stack/merge.rs needs.

use core::net::IpAddr;

use super::tcp::{ACK, CHECKSUM, DATA_OFFSET, FLAGS, Flags, MIN_LEN, SEQ, WINDOW};
use super::{be16, be32, checksum, ip, put};
use crate::seq::SeqNumber;

/// What may differ between segments that are merged.
const AT_THE_END: Flags = Flags(Flags::FIN.0 | Flags::PSH.0);
/// What isn't merged: it has a meaning of its own, or a place in the stream.
const SPECIAL: Flags = Flags(Flags::SYN.0 | Flags::RST.0 | Flags::URG.0);

/// A segment of ours, as its headers were written.
#[derive(Clone, Copy)]
pub(crate) struct Sent<'a> {
    /// From the Ethernet header to the text.
    headers: &'a [u8],
    /// Where the IP and the TCP header begin in them.
    ip: usize,
    tcp: usize,
    pub(crate) seq: SeqNumber,
    pub(crate) flags: Flags,
    /// Octets of text.
    pub(crate) len: usize,
}

impl<'a> Sent<'a> {
    /// Reads a frame of ours, whose IP header begins at `ip` and TCP header at `tcp`.
    pub(crate) fn read(frame: &'a [u8], (ip, tcp): (usize, usize)) -> Self {
        let headers = &frame[..tcp + usize::from(frame[tcp + DATA_OFFSET] >> 4) * 4];
        let (seq, flags) = (SeqNumber(be32(frame, tcp + SEQ)), Flags(frame[tcp + FLAGS]));
        Self { headers, ip, tcp, seq, flags, len: frame.len() - headers.len() }
    }

    /// Octets of all headers.
    pub(crate) fn headers_len(&self) -> usize {
        self.headers.len()
    }

    /// Whether others may go on under its header.
    pub(crate) fn may_begin(&self) -> bool {
        self.len > 0 && !self.flags.intersects(SPECIAL | Flags::FIN)
    }

    /// Whether `next` goes on `len` octets behind the beginning of this, and says the same otherwise.
    pub(crate) fn goes_on(&self, next: &Self, len: usize) -> bool {
        fn rest(sent: &[u8]) -> (&[u8], &[u8], &[u8]) {
            (&sent[ACK..FLAGS], &sent[WINDOW..CHECKSUM], &sent[MIN_LEN..])
        }
        // The first two octets of an IP header have DSCP and ECN.
        next.len > 0
            && self.seq + len as u32 == next.seq
            && next.flags.difference(AT_THE_END) == self.flags.difference(AT_THE_END)
            && self.headers.len() == next.headers.len()
            && rest(&self.headers[self.tcp..]) == rest(&next.headers[self.tcp..])
            && self.headers[self.ip..self.ip + 2] == next.headers[self.ip..self.ip + 2]
    }

    /// The [`sum`](checksum::sum) over the text, from local to remote, as its checksum tells it.
    pub(crate) fn sum(&self, local: IpAddr, remote: IpAddr) -> u64 {
        let header = &self.headers[self.tcp..];
        let pseudo = checksum::pseudo_header(local, remote, ip::TCP, header.len() + self.len);
        // Everything together sums up to 0xffff, a zero of ones' complement: the text is what the rest lacks of it.
        u64::from(checksum::finish(pseudo + checksum::sum(header)))
    }
}

/// Makes the headers at the beginning of `frame` speak for `len` octets of text with this `sum`.
pub(crate) fn rewrite(
    frame: &mut [u8],
    (ip_at, tcp_at): (usize, usize),
    (local, remote): (IpAddr, IpAddr),
    flags: Flags,
    len: usize,
    sum: u64,
) {
    let (class, hops) = match remote {
        IpAddr::V4(_) => (frame[ip_at + 1], frame[ip_at + 8]),
        IpAddr::V6(_) => ((be16(frame, ip_at) >> 4) as u8, frame[ip_at + 7]),
    };
    let text_at = tcp_at + usize::from(frame[tcp_at + DATA_OFFSET] >> 4) * 4;
    ip::emit_hops(frame, tcp_at, text_at + len, local, remote, ip::TCP, class, hops);
    frame[tcp_at + FLAGS] = flags.0;
    put(frame, tcp_at + CHECKSUM, [0; 2]);
    let pseudo = checksum::pseudo_header(local, remote, ip::TCP, text_at - tcp_at + len);
    let header = checksum::sum(&frame[tcp_at..text_at]);
    put(frame, tcp_at + CHECKSUM, checksum::finish(pseudo + header + sum).to_be_bytes());
}
