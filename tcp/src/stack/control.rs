//! Frames that belong to no connection: ARP, NDP, ICMP, RST, and ACKs for TIME-WAIT.
//!
//! Answers are written into the frame that asked, so that answering needs no memory; questions, and the RST of
//! a connection that refuses a segment, take a frame of the reserve.

use core::net::IpAddr;

use super::Stack;
use crate::counters::DropReason;
use crate::flow_table::FourTuple;
use crate::frame::{Chunk, MAX_HEADERS, Memory, Owner};
use crate::neighbor::{LearnedBy, Question, Station};
use crate::seq::SeqNumber;
use crate::tcb::Tcb;
use crate::tcb::path_mtu::RAISE_AFTER_REPORT;
use crate::time::Instant;
use crate::wire::icmp::{Cause, Report};
use crate::wire::tcp::{Emit, Flags, Options, Segment};
use crate::wire::{MacAddr, arp, ethernet, icmp, icmpv6, ip};

/// Answers to strangers: so many at once and a second (T25). A core that serves a million requests
/// a second has better things to do than to reset a scan's every probe.
const ANSWERS_BURST: u64 = 1_000;
const ANSWERS_PER_SECOND: u64 = 10_000;

/// A token bucket for answers that nobody is owed.
#[derive(Debug)]
pub(super) struct RateLimit {
    burst: u64,
    per_second: u64,
    /// In units of 1/10^9 answer.
    tokens: u64,
    at: Instant,
}

impl Default for RateLimit {
    fn default() -> Self {
        Self::new(ANSWERS_BURST, ANSWERS_PER_SECOND)
    }
}

impl RateLimit {
    pub(super) fn new(burst: u64, per_second: u64) -> Self {
        Self { burst, per_second, tokens: burst * 1_000_000_000, at: Instant::ZERO }
    }

    /// Whether one more answer is allowed now.
    pub(super) fn allow(&mut self, now: Instant) -> bool {
        let passed = now.since(self.at).as_nanos().min(1_000_000_000);
        self.at = now;
        self.tokens = (self.tokens + passed * self.per_second).min(self.burst * 1_000_000_000);
        let allowed = self.tokens >= 1_000_000_000;
        if allowed {
            self.tokens -= 1_000_000_000;
        }
        allowed
    }
}

impl<M: Memory> Stack<M> {
    /// Addresses that `wire::parse` can't judge: ours on the right side, not ours on the other (L6).
    pub(super) fn check_ours(&self, link: &ethernet::Header, ip: &ip::Header) -> Result<(), DropReason> {
        if !self.config.is_own(ip.dst) {
            return Err(DropReason::IpNotOurs);
        }
        self.check_link(link)?;
        let martian =
            self.config.is_own(ip.src) || self.config.addresses.iter().any(|own| own.is_broadcast(ip.src));
        if martian { Err(DropReason::Martian) } else { Ok(()) }
    }

    /// To us, and not from us.
    pub(super) fn check_link(&self, link: &ethernet::Header) -> Result<(), DropReason> {
        if link.dst != self.config.mac {
            return Err(DropReason::WrongMac);
        }
        if link.src == self.config.mac { Err(DropReason::Martian) } else { Ok(()) }
    }

    /// RFC 826 "Packet Reception".
    pub(super) fn receive_arp(
        &mut self,
        link: &ethernet::Header,
        packet: &arp::Packet,
        mut chunk: Chunk,
        now: Instant,
    ) {
        self.counters.arp_in += 1;
        let target: IpAddr = packet.target_ip.into();
        if !self.config.is_own(target) || self.config.is_own(packet.sender_ip.into()) {
            return self.discard(chunk, DropReason::IpNotOurs);
        }
        let by = match packet.operation {
            arp::Operation::Request => LearnedBy::Request,
            arp::Operation::Reply => LearnedBy::Answer,
        };
        // A probe for a free address has no sender (RFC 5227); there is nothing to learn.
        if !packet.sender_ip.is_unspecified() {
            let station = Station::new(packet.sender_mac, link.vlan);
            self.learn(packet.sender_ip.into(), station, by, now);
        }
        if packet.operation != arp::Operation::Request {
            return self.pool.release(chunk);
        }
        let start = chunk.start();
        let mac = self.config.mac;
        let range = arp::reply_in_place(self.pool.bytes_mut(&mut chunk), link, packet, mac);
        self.counters.arp_out += 1;
        self.send_control(chunk, start + range.start..start + range.end);
    }

    /// RFC 1122 §3.2.2.6: echo; §4.2.3.9: errors about packets of ours.
    pub(super) fn receive_icmpv4(
        &mut self,
        link: &ethernet::Header,
        ip: &ip::Header,
        mut chunk: Chunk,
        now: Instant,
    ) {
        if let Err(reason) = self.check_ours(link, ip) {
            return self.discard(chunk, reason);
        }
        match icmp::parse(self.pool.bytes(&chunk), ip) {
            Ok(icmp::Message::EchoRequest) => {
                self.counters.icmp_in_echos += 1;
                self.counters.icmp_out_echo_reps += 1;
                let (start, mac) = (chunk.start(), self.config.mac);
                let range = icmp::echo_reply_in_place(self.pool.bytes_mut(&mut chunk), link, ip, mac);
                self.send_control(chunk, start + range.start..start + range.end);
            }
            Ok(icmp::Message::Error(report)) => {
                match report.cause {
                    Cause::TooBig { .. } | Cause::Unreachable => self.counters.icmp_in_dest_unreachs += 1,
                    Cause::TimeExceeded => self.counters.icmp_in_time_excds += 1,
                    Cause::ParameterProblem => self.counters.icmp_in_parm_probs += 1,
                }
                self.pool.release(chunk);
                self.receive_error(&report, now);
            }
            Err(reason) => self.discard(chunk, reason),
        }
    }

    /// RFC 4443 §4.2 (echo) and RFC 4861 §7.2 (neighbours).
    pub(super) fn receive_icmpv6(
        &mut self,
        link: &ethernet::Header,
        ip: &ip::Header,
        mut chunk: Chunk,
        now: Instant,
    ) {
        if self.config.is_own(ip.src) {
            return self.discard(chunk, DropReason::Martian);
        }
        let (start, mac) = (chunk.start(), self.config.mac);
        match icmpv6::parse(self.pool.bytes(&chunk), link, ip) {
            Ok(icmpv6::Message::EchoRequest) => {
                if let Err(reason) = self.check_ours(link, ip) {
                    return self.discard(chunk, reason);
                }
                self.counters.icmp6_in_echos += 1;
                self.counters.icmp6_out_echo_reps += 1;
                let range = icmpv6::echo_reply_in_place(self.pool.bytes_mut(&mut chunk), link, ip, mac);
                self.send_control(chunk, start + range.start..start + range.end);
            }
            Ok(icmpv6::Message::Solicitation(solicitation)) => {
                self.counters.ndp_in += 1;
                if !self.config.is_own(solicitation.target.into()) {
                    return self.discard(chunk, DropReason::IpNotOurs);
                }
                if let (Some(source), false) = (solicitation.source_link, ip.src.is_unspecified()) {
                    self.learn(ip.src, Station::new(source, link.vlan), LearnedBy::Request, now);
                }
                self.counters.ndp_out += 1;
                let frame = self.pool.frame_mut(chunk.index());
                let range = icmpv6::advertisement_in_place(&mut frame[start..], link, ip, &solicitation, mac);
                self.send_control(chunk, start + range.start..start + range.end);
            }
            Ok(icmpv6::Message::Advertisement(advertisement)) => {
                self.counters.ndp_in += 1;
                // Only answers: an announcement that nobody asked for teaches nothing (L7).
                if let (Some(target), true) = (advertisement.target_link, advertisement.solicited) {
                    let station = Station::new(target, link.vlan);
                    self.learn(advertisement.target.into(), station, LearnedBy::Answer, now);
                }
                self.pool.release(chunk);
            }
            Ok(icmpv6::Message::Error(report)) => {
                if let Err(reason) = self.check_ours(link, ip) {
                    return self.discard(chunk, reason);
                }
                match report.cause {
                    Cause::TooBig { .. } => self.counters.icmp6_in_pkt_too_bigs += 1,
                    Cause::Unreachable => self.counters.icmp6_in_dest_unreachs += 1,
                    Cause::TimeExceeded => self.counters.icmp6_in_time_excds += 1,
                    Cause::ParameterProblem => self.counters.icmp6_in_parm_problems += 1,
                }
                self.pool.release(chunk);
                self.receive_error(&report, now);
            }
            Err(reason) => self.discard(chunk, reason),
        }
    }

    /// An ICMP error about a segment of ours (RFC 1122 §4.2.3.9, RFC 5927).
    fn receive_error(&mut self, report: &Report, now: Instant) {
        // A smaller path costs a walk over what is in flight: not as often as somebody may like.
        if !self.errors.allow(now) {
            return self.counters.drop(DropReason::RateLimited);
        }
        if let Err(reason) = self.act_on_error(report, now) {
            self.counters.drop(reason);
            if reason == DropReason::IcmpNoConnection {
                self.tell_error(report, now);
            }
        }
    }

    /// To the connection that the segment quoted is of (RFC 9293 §3.9.2.2, MUST-54).
    pub(super) fn act_on_error(&mut self, report: &Report, now: Instant) -> Result<(), DropReason> {
        let quoted = &report.quoted;
        let tuple = FourTuple {
            local_ip: quoted.src,
            remote_ip: quoted.dst,
            local_port: quoted.src_port,
            remote_port: quoted.dst_port,
        };
        let index = self.find(&tuple).ok_or(DropReason::IcmpNoConnection)?;
        let (tcb, mut ctx) = self.tcb(index, now).ok_or(DropReason::IcmpNoConnection)?;
        let path_mtu = tcb.on_icmp(report, &mut ctx)?;
        if tcb.has_news() {
            self.mark_dirty(index);
        }
        if let Some(mtu) = path_mtu {
            self.destinations.learn(tuple.remote_ip, mtu, now + RAISE_AFTER_REPORT);
        }
        self.schedule_output(index);
        Ok(())
    }

    /// What earlier connections to the same host have found out about the way.
    pub(super) fn recall_path(&self, tcb: &mut Tcb, now: Instant) {
        if let Some((mtu, until)) = self.destinations.path_mtu(tcb.tuple.remote_ip, now) {
            tcb.limit_path(mtu, until);
        }
    }

    fn learn(&mut self, ip: IpAddr, station: Station, by: LearnedBy, now: Instant) {
        let mac = station.mac;
        // RFC 826 and RFC 4861 speak of neighbours: what isn't on the link has none (L7).
        let on_link = self.config.next_hop(ip) == Some(ip);
        let useful = on_link && !mac.is_group() && mac != self.config.mac && mac != MacAddr::default();
        if useful && self.neighbors.learned(ip, station, now, by) {
            self.tell_neighbor(ip, station);
        }
    }

    /// Asks the link for a neighbour (RFC 826, RFC 4861 §7.2.2), or the kernel if neighbours are its.
    pub(super) fn ask(&mut self, question: Question, now: Instant) {
        let Question { ip: target, probe, vlan } = question;
        if self.config.host_routes.is_some() {
            return self.want_neighbor(target, now);
        }
        let on_link = self.config.addresses.iter().find(|own| own.contains(target));
        let family = self.config.addresses.iter().find(|own| own.address.is_ipv4() == target.is_ipv4());
        let Some(source) = on_link.or(family).map(|own| own.address) else { return };
        let Some(chunk) = self.pool.alloc(Owner::Control) else { return };
        let mac = self.config.mac;
        let frame = self.pool.frame_mut(chunk.index());
        let range = match (source, target) {
            (IpAddr::V4(source), IpAddr::V4(target)) => {
                self.counters.arp_out += 1;
                arp::emit_request(frame, MAX_HEADERS, vlan, mac, source, target, probe)
            }
            (IpAddr::V6(source), IpAddr::V6(target)) => {
                self.counters.ndp_out += 1;
                icmpv6::emit_neighbor_solicitation(frame, MAX_HEADERS, vlan, mac, source, target, probe)
            }
            _ => return self.pool.release(chunk),
        };
        self.send_control(chunk, range);
    }

    /// RST for a segment that has no connection (RFC 9293 §3.10.7.1). S1.5
    pub(super) fn answer_reset(
        &mut self,
        link: &ethernet::Header,
        tuple: &FourTuple,
        seg: &Segment,
        chunk: Chunk,
        now: Instant,
    ) {
        let (seq, ack, flags) = if seg.flags.contains(Flags::ACK) {
            (seg.ack, SeqNumber(0), Flags::RST)
        } else {
            (SeqNumber(0), seg.seq + seg.seg_len(), Flags::RST | Flags::ACK)
        };
        if self.answer_segment(link, tuple, (seq, ack), flags, &Options::NONE, chunk, now) {
            self.counters.tcp_out_rsts += 1;
        }
    }

    /// RST for a segment that a connection refuses, whose frame is already gone.
    pub(super) fn reset_for(
        &mut self,
        link: &ethernet::Header,
        tuple: &FourTuple,
        seg: &Segment,
        now: Instant,
    ) {
        if let Some(chunk) = self.pool.alloc(Owner::Control) {
            self.answer_reset(link, tuple, seg, chunk, now);
        }
    }

    /// The ACK of TIME-WAIT (RFC 9293 §3.10.7.4). S2.4
    pub(super) fn answer_for_time_wait(
        &mut self,
        link: &ethernet::Header,
        tuple: &FourTuple,
        (seq, ack, recent): (SeqNumber, SeqNumber, Option<u32>),
        chunk: Chunk,
        now: Instant,
    ) {
        let clock = (now.as_millis() as u32).wrapping_add(self.secrets.timestamp_offset(tuple));
        let options = Options { timestamps: recent.map(|recent| (clock, recent)), ..Options::NONE };
        self.answer_segment(link, tuple, (seq, ack), Flags::ACK, &options, chunk, now);
    }

    /// A segment back to where the question came from, in its frame. False if there were too many of late.
    #[expect(clippy::too_many_arguments, reason = "the parts of one segment header")]
    fn answer_segment(
        &mut self,
        link: &ethernet::Header,
        tuple: &FourTuple,
        (seq, ack): (SeqNumber, SeqNumber),
        flags: Flags,
        options: &Options,
        chunk: Chunk,
        now: Instant,
    ) -> bool {
        if !self.rate.allow(now) {
            self.discard(chunk, DropReason::RateLimited);
            return false;
        }
        let header = Emit {
            src_port: tuple.local_port,
            dst_port: tuple.remote_port,
            seq,
            ack,
            flags,
            window: 0,
            urgent: 0,
            options,
        };
        self.send_bare(link, tuple, &header, chunk);
        true
    }

    /// A finished header without text, back to where the question came from, in its frame.
    pub(super) fn send_bare(
        &mut self,
        link: &ethernet::Header,
        tuple: &FourTuple,
        header: &Emit<'_>,
        chunk: Chunk,
    ) {
        let link = link.answer(self.config.mac);
        let frame = self.pool.frame_mut(chunk.index());
        let at = header.emit(frame, MAX_HEADERS..MAX_HEADERS, tuple.local_ip, tuple.remote_ip);
        let (src, dst, hop_limit) = (tuple.local_ip, tuple.remote_ip, self.config.hop_limit);
        let at = ip::emit_hops(frame, at, MAX_HEADERS, src, dst, ip::TCP, 0, hop_limit);
        let at = link.emit(frame, at);
        self.counters.tcp_out_segs += 1;
        self.send_control(chunk, at..MAX_HEADERS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t25_answers_to_strangers_are_limited_to_a_burst_and_a_rate() {
        let mut limit = RateLimit::default();
        let start = Instant::from_millis(5);
        let burst = (0..5_000).filter(|_| limit.allow(start)).count();
        assert!((1_000..=1_050).contains(&burst), "{burst}");
        let later = Instant::from_millis(15);
        assert_eq!((0..5_000).filter(|_| limit.allow(later)).count(), 100);
    }
}
