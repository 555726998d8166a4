//! What one core tells the others. A NIC puts a connection's segments on its core's queue, but spreads what has no
//! ports by addresses alone: answers to ARP, ICMP errors, fragments.

use core::net::IpAddr;
use std::sync::Arc;

use super::control::RateLimit;
use super::{Cidr, Route, Stack};
use crate::frame::{Memory, Owner};
use crate::neighbor::{LearnedBy, Station};
use crate::time::Instant;
use crate::wire::MacAddr;
use crate::wire::ethernet::VlanTags;
use crate::wire::icmp::Report;

/// Things told that are others' business, at once and a second: anybody can make such things up, and telling
/// costs the other cores' attention. ICMP errors come one for a path's change; a peer that splits its segments gets
/// some 10 Mbit/s through.
const TELLS_BURST: u64 = 100;
const TELLS_PER_SECOND: u64 = 1_000;
/// Neighbours asked of the kernel at once and a second. Each that isn't there costs a place in its table for some
/// seconds, of which there are 1,024 for everybody (gc_thresh3): a flood from made-up neighbours leaves it three
/// quarters.
const WANTED_PER_SECOND: u64 = 256;

/// Something that another core may want to know.
#[derive(Clone, Debug)]
pub enum News {
    /// Where a neighbour is.
    Neighbor(IpAddr, Station),
    /// A router's complaint about a connection that isn't ours.
    Error(Report),
    /// A frame with a segment, put together from fragments, for a connection that isn't ours.
    Segment(Box<[u8]>),
    /// To the host's kernel: where is this neighbour? Only with [`Config::host_routes`](super::Config::host_routes).
    Wanted(IpAddr),
    /// From the host's kernel: where a neighbour is, or that it isn't there.
    KernelNeighbor(IpAddr, Option<MacAddr>),
    /// From the host's kernel: the addresses we share with it, and its routes, both as they are from now on.
    Host {
        /// Own addresses.
        addresses: Arc<[Cidr]>,
        /// Longest prefix first.
        routes: Arc<[Route]>,
    },
}

/// What is to be told, and how much of it may be.
#[derive(Debug)]
pub(super) struct Outbox {
    waiting: Vec<News>,
    limit: RateLimit,
    wanted: RateLimit,
}

impl Default for Outbox {
    fn default() -> Self {
        Self {
            waiting: Vec::new(),
            limit: RateLimit::new(TELLS_BURST, TELLS_PER_SECOND),
            wanted: RateLimit::new(WANTED_PER_SECOND, WANTED_PER_SECOND),
        }
    }
}

impl<M: Memory> Stack<M> {
    /// Moves what the other cores should hear of to `out`: everything since the last call.
    pub fn take_news(&mut self, out: &mut Vec<News>) {
        out.append(&mut self.outbox.waiting);
    }

    /// Another core tells. [`advance`](Self::advance) has to follow.
    pub fn hear(&mut self, news: &News, now: Instant) {
        match news {
            // Its answer may be the one this core waits for.
            News::Neighbor(ip, station) => {
                self.neighbors.learned(*ip, *station, now, LearnedBy::OtherCore);
                self.wake_resolved();
            }
            News::Error(report) => drop(self.act_on_error(report, now)),
            News::Segment(frame) => {
                let Some(mut chunk) = self.pool.alloc(Owner::Rx) else { return };
                if frame.len() > self.pool.tailroom(&chunk) {
                    return self.pool.release(chunk);
                }
                self.pool.append(&mut chunk, frame);
                self.receive_foreign(chunk, now);
            }
            News::KernelNeighbor(ip, mac) => {
                let station = mac.map(|mac| Station::new(mac, VlanTags::NONE));
                self.neighbors.told_by_kernel(*ip, station, now);
                self.wake_resolved();
            }
            News::Host { addresses, routes } => self.move_to(addresses, routes, now),
            // The kernel's to answer.
            News::Wanted(_) => {}
        }
    }

    /// The host has other addresses and routes now. Connections on an address that it has no longer end: their
    /// peers are told by resets, for nobody will answer them there.
    fn move_to(&mut self, addresses: &[Cidr], routes: &Arc<[Route]>, now: Instant) {
        self.config.addresses = addresses.to_vec();
        self.config.host_routes = Some(Arc::clone(routes));
        for index in 0..self.slots.len() as u32 {
            let Some(tcb) = &mut self.slots[index as usize].tcb else { continue };
            // Looked up again before the next segment: another route may be theirs now.
            tcb.hop.fresh_until = Instant::ZERO;
            if self.config.is_own(tcb.tuple.local_ip) {
                continue;
            }
            let Some((tcb, mut ctx)) = self.tcb(index, now) else { continue };
            tcb.abort(&mut ctx);
            self.mark_dirty(index);
        }
    }

    pub(super) fn want_neighbor(&mut self, ip: IpAddr, now: Instant) {
        if self.outbox.wanted.allow(now) {
            self.outbox.waiting.push(News::Wanted(ip));
        }
    }

    /// Whether there is anything for [`take_news`](Self::take_news).
    pub fn has_news(&self) -> bool {
        !self.outbox.waiting.is_empty()
    }

    pub(super) fn tell_neighbor(&mut self, ip: IpAddr, station: Station) {
        // The table limits how often that happens.
        self.outbox.waiting.push(News::Neighbor(ip, station));
    }

    pub(super) fn tell_error(&mut self, report: &Report, now: Instant) {
        if self.outbox.limit.allow(now) {
            self.outbox.waiting.push(News::Error(*report));
        }
    }

    pub(super) fn tell_segment(&mut self, frame: &crate::frame::Chunk, now: Instant) {
        if self.outbox.limit.allow(now) {
            self.outbox.waiting.push(News::Segment(self.pool.bytes(frame).into()));
        }
    }
}
