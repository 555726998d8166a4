//! The application's handle on a connection, for the duration of a callback.

use core::net::SocketAddr;

use crate::app::{Conn, ConnId, Keepalive, Metrics, Trouble};
use crate::counters::{Counters, Totals};
use crate::frame::{Chunk, Memory, Owner};
use crate::tcb::{Ctx, Tcb};
use crate::time::{Duration, Instant};

/// A [`Conn`] of the stack.
pub(super) struct StackConn<'a, M> {
    pub(super) id: ConnId,
    pub(super) tcb: &'a mut Tcb,
    pub(super) ctx: Ctx<'a, M>,
}

impl<M: Memory> Conn for StackConn<'_, M> {
    fn id(&self) -> ConnId {
        self.id
    }

    fn local(&self) -> SocketAddr {
        self.tcb.tuple.local()
    }

    fn peer(&self) -> SocketAddr {
        self.tcb.tuple.remote()
    }

    fn now(&self) -> Instant {
        self.ctx.now
    }

    fn mss(&self) -> usize {
        usize::from(self.tcb.queue_mss())
    }

    fn trouble(&self) -> Option<Trouble> {
        self.tcb.trouble()
    }

    #[inline]
    fn recv(&mut self) -> Option<Chunk> {
        self.tcb.read(self.ctx.pool)
    }

    fn recv_finished(&self) -> bool {
        self.tcb.recv_finished()
    }

    fn urgent(&self) -> Option<u32> {
        self.tcb.urgent()
    }

    #[inline]
    fn bytes<'a>(&'a self, chunk: &'a Chunk) -> &'a [u8] {
        self.ctx.pool.bytes(chunk)
    }

    #[inline]
    fn bytes_mut<'a>(&'a mut self, chunk: &'a mut Chunk) -> &'a mut [u8] {
        self.ctx.pool.bytes_mut(chunk)
    }

    fn alloc(&mut self) -> Option<Chunk> {
        let chunk = self.ctx.pool.alloc(Owner::App);
        self.tcb.starved |= chunk.is_none();
        chunk
    }

    fn tailroom(&self, chunk: &Chunk) -> usize {
        self.ctx.pool.tailroom(chunk)
    }

    fn grow_back(&self, chunk: &mut Chunk, octets: usize) {
        self.ctx.pool.grow_back(chunk, octets);
    }

    fn append(&mut self, chunk: &mut Chunk, octets: &[u8]) {
        self.ctx.pool.append(chunk, octets);
    }

    fn prepend(&mut self, chunk: &mut Chunk, octets: &[u8]) {
        self.ctx.pool.prepend(chunk, octets);
    }

    fn split_off(&mut self, chunk: &mut Chunk, at: usize) -> Option<Chunk> {
        let rest = self.ctx.pool.split_off(chunk, at);
        self.tcb.starved |= rest.is_none();
        rest
    }

    fn note_copied(&mut self, octets: usize) {
        self.ctx.pool.note_copied(octets);
    }

    fn release(&mut self, chunk: Chunk) {
        self.ctx.pool.release(chunk);
    }

    fn send_room(&self) -> usize {
        self.tcb.send_room(self.ctx.pool, self.ctx.config) as usize
    }

    #[inline]
    fn send(&mut self, chunk: Chunk) -> Result<(), Chunk> {
        self.tcb.queue(self.ctx.pool, self.ctx.config, chunk)
    }

    fn send_urgent(&mut self) {
        self.tcb.send_urgent();
    }

    fn send_drained(&self) -> bool {
        self.tcb.send.is_empty()
    }

    fn shutdown(&mut self) {
        self.tcb.shutdown(&mut self.ctx);
    }

    fn abort(&mut self) {
        self.tcb.abort(&mut self.ctx);
    }

    fn set_timer(&mut self, at: Option<Instant>) {
        self.tcb.set_app_timer(at);
    }

    fn set_nodelay(&mut self, on: bool) {
        self.tcb.set_nodelay(on);
    }

    fn set_user_timeout(&mut self, limit: Option<Duration>) {
        self.tcb.set_user_timeout(limit);
    }

    fn set_dscp(&mut self, dscp: u8) {
        self.tcb.set_dscp(dscp);
    }

    fn set_keepalive(&mut self, keepalive: Option<Keepalive>) {
        self.tcb.set_keepalive(keepalive, self.ctx.now);
    }

    fn set_linger(&mut self, linger: Option<Duration>) {
        self.tcb.set_linger(linger, self.ctx.now);
    }

    fn counters(&mut self) -> &mut Counters {
        self.ctx.counters
    }

    fn metrics(&self) -> Option<Metrics> {
        Some(self.tcb.metrics())
    }

    fn totals(&self) -> Totals {
        let mut totals = Totals { counters: self.ctx.counters.clone(), states: self.ctx.states.clone() };
        totals.counters.payload_bytes_copied = self.ctx.pool.payload_bytes_copied();
        totals.merge(self.ctx.elsewhere);
        totals
    }
}
