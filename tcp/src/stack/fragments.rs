//! What arrives in fragments, and what has to leave in fragments. S6.2
//!
//! A datagram no larger than our MTU is written as a whole into the frame of its last fragment, and goes on like
//! any other: a TCP segment that somebody on the way had to split. Larger ones are no segments, as we never
//! announce such an MSS: only echo requests are answered, in fragments again.

use super::Stack;
use crate::counters::DropReason;
use crate::flow_table::FourTuple;
use crate::fragments::Whole;
use crate::frame::{Chunk, MAX_HEADERS, Memory, Owner};
use crate::time::Instant;
use crate::wire::fragment::{self, Fragment};
use crate::wire::tcp::Segment;
use crate::wire::{Body, Packet, ethernet, icmp, icmpv6, ip};

impl<M: Memory> Stack<M> {
    pub(super) fn receive_fragment(
        &mut self,
        link: &ethernet::Header,
        ip: &ip::Header,
        fragment: &Fragment,
        mut chunk: Chunk,
        now: Instant,
    ) {
        if let Err(reason) = self.check_ours(link, ip) {
            return self.discard(chunk, reason);
        }
        let octets = ip.payload_of(self.pool.bytes(&chunk));
        let whole = match self.reassembler.take(link, ip, fragment, octets, now, &mut self.counters) {
            Ok(Some(whole)) => whole,
            Ok(None) => return self.pool.release(chunk),
            Err(reason) => return self.discard(chunk, reason),
        };
        let start = whole.link.len() + ip::header_len(whole.dst);
        let (end, room) = (start + whole.len, chunk.len() + self.pool.tailroom(&chunk));
        let too_large = ip::header_len(whole.dst) + whole.len > usize::from(self.config.mtu);
        if too_large || end > room {
            self.pool.release(chunk);
            let answered = self.answer_large(&whole, now);
            return answered.unwrap_or_else(|reason| self.counters.drop(reason));
        }
        chunk.truncate(0);
        self.pool.grow_back(&mut chunk, end);
        let frame = self.pool.bytes_mut(&mut chunk);
        frame[start..].copy_from_slice(self.reassembler.octets(&whole));
        // The hop limit is a new one: neighbour discovery doesn't come in fragments (RFC 6980 §5), and isn't
        // believed without its own.
        ip::emit(frame, start, end, whole.src, whole.dst, whole.protocol, whole.ecn);
        whole.link.emit(frame, whole.link.len());
        self.pool.note_copied(2 * whole.len);
        self.receive_whole(chunk, now);
    }

    /// A segment that another core has put together, perhaps for us.
    pub(super) fn receive_foreign(&mut self, chunk: Chunk, now: Instant) {
        match crate::wire::parse(self.pool.bytes(&chunk), self.config.checksums) {
            Ok(Packet { link, body: Body::Tcp(ip, seg) }) if self.find(&tuple_of(&ip, &seg)).is_some() => {
                self.receive_tcp(&link, &ip, &seg, chunk, now);
            }
            _ => self.pool.release(chunk),
        }
    }

    /// A datagram put together from fragments, in a frame of its own.
    fn receive_whole(&mut self, chunk: Chunk, now: Instant) {
        match crate::wire::parse(self.pool.bytes(&chunk), self.config.checksums) {
            Ok(Packet { link, body }) => match body {
                Body::Tcp(ip, seg) => {
                    // A NIC spreads fragments by their addresses alone: the connection may be another core's,
                    // which a reset would end. And nobody splits a SYN.
                    if self.find(&tuple_of(&ip, &seg)).is_none() {
                        self.tell_segment(&chunk, now);
                        return self.discard(chunk, DropReason::NoListener);
                    }
                    self.receive_tcp(&link, &ip, &seg, chunk, now);
                }
                Body::Icmpv4(ip) => self.receive_icmpv4(&link, &ip, chunk, now),
                Body::Icmpv6(ip) => self.receive_icmpv6(&link, &ip, chunk, now),
                // A fragment in a fragment.
                Body::Fragment(..) | Body::Arp(_) => self.discard(chunk, DropReason::FragmentHeader),
            },
            Err(reason) => self.discard(chunk, reason),
        }
    }

    /// Answers an echo request that is larger than a packet: its reply leaves in fragments (RFC 1122 §3.2.2.6,
    /// RFC 4443 §4.2).
    pub(super) fn answer_large(&mut self, whole: &Whole, now: Instant) -> Result<(), DropReason> {
        let (src, dst, len) = (whole.src, whole.dst, whole.len);
        let message = self.reassembler.octets_mut(whole);
        match whole.protocol {
            ip::ICMP if src.is_ipv4() => icmp::answer_echo(message)?,
            ip::ICMPV6 if src.is_ipv6() => icmpv6::answer_echo(message, src, dst)?,
            _ => return Err(DropReason::Fragment),
        }
        if src.is_ipv4() {
            self.counters.icmp_in_echos += 1;
        } else {
            self.counters.icmp6_in_echos += 1;
        }
        let known = self.destinations.path_mtu(src, now).map_or(self.config.mtu, |(mtu, _)| mtu);
        let mtu = usize::from(known.min(self.config.mtu));
        // A stranger's echo takes no frame that a connection could miss.
        if fragment::split(len, mtu, src).count() > self.pool.fair_share() as usize {
            return Err(DropReason::MemoryPressure);
        }
        let id = self.reassembler.next_id(src);
        for range in fragment::split(len, mtu, src) {
            if !self.rate.allow(now) {
                return Err(DropReason::RateLimited);
            }
            let Some(chunk) = self.pool.alloc(Owner::Control) else { return Err(DropReason::MemoryPressure) };
            let part = Fragment { id, offset: range.start, more: range.end < len };
            let (start, end) = (MAX_HEADERS, MAX_HEADERS + range.len());
            let frame = self.pool.frame_mut(chunk.index());
            frame[start..end].copy_from_slice(&self.reassembler.octets(whole)[range]);
            let at = part.emit(frame, start, end, dst, src, whole.protocol);
            let at = whole.link.answer(self.config.mac).emit(frame, at);
            self.counters.ip_frag_creates += 1;
            self.send_control(chunk, at..end);
        }
        self.counters.ip_frag_oks += 1;
        if src.is_ipv4() {
            self.counters.icmp_out_echo_reps += 1;
        } else {
            self.counters.icmp6_out_echo_reps += 1;
        }
        Ok(())
    }
}

fn tuple_of(ip: &ip::Header, seg: &Segment) -> FourTuple {
    FourTuple { local_ip: ip.dst, remote_ip: ip.src, local_port: seg.dst_port, remote_port: seg.src_port }
}
