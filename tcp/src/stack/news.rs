//! What one core tells the others. A NIC puts a connection's segments on its core's queue, but spreads what has no
//! ports by addresses alone: answers to ARP, ICMP errors, fragments.

use core::net::IpAddr;

use super::Stack;
use super::control::RateLimit;
use crate::frame::{Memory, Owner};
use crate::neighbor::{LearnedBy, Station};
use crate::time::Instant;
use crate::wire::icmp::Report;

/// Things told that are others' business, at once and a second: anybody can make such things up, and telling
/// costs the other cores' attention. ICMP errors come one for a path's change; a peer that splits its segments gets
/// some 10 Mbit/s through.
const TELLS_BURST: u64 = 100;
const TELLS_PER_SECOND: u64 = 1_000;

/// Something that another core may want to know.
#[derive(Clone, Debug)]
pub enum News {
    /// Where a neighbour is.
    Neighbor(IpAddr, Station),
    /// A router's complaint about a connection that isn't ours.
    Error(Report),
    /// A frame with a segment, put together from fragments, for a connection that isn't ours.
    Segment(Box<[u8]>),
}

/// What is to be told, and how much of it may be.
#[derive(Debug)]
pub(super) struct Outbox {
    waiting: Vec<News>,
    limit: RateLimit,
}

impl Default for Outbox {
    fn default() -> Self {
        Self { waiting: Vec::new(), limit: RateLimit::new(TELLS_BURST, TELLS_PER_SECOND) }
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
        }
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
