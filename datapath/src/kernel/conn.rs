//! The application's handle on a socket, for the duration of a callback.

use std::net::SocketAddr;

use byway_tcp::app::{Conn, ConnId, Keepalive, Metrics, Trouble};
use byway_tcp::counters::{Counters, Totals};
use byway_tcp::frame::{Chunk, MAX_HEADERS, Owner};
use byway_tcp::time::{Duration, Instant};

use super::FRAME_SIZE;
use super::connection::Connection;
use super::shared::Shared;

/// A [`Conn`] over a socket.
///
/// What the kernel doesn't tell stays untold: soft errors ([`Conn::trouble`]), and where urgent octets end
/// ([`Conn::urgent`]; they stay in line). [`Conn::send_urgent`] marks nothing.
pub(super) struct SocketConn<'a> {
    pub(super) id: ConnId,
    pub(super) connection: &'a mut Connection,
    pub(super) shared: &'a mut Shared,
}

impl Conn for SocketConn<'_> {
    fn id(&self) -> ConnId {
        self.id
    }

    fn local(&self) -> SocketAddr {
        self.connection.local
    }

    fn peer(&self) -> SocketAddr {
        self.connection.peer
    }

    fn now(&self) -> Instant {
        self.shared.now
    }

    /// Whatever fits into a frame: the kernel cuts segments by itself, and no chunk has to be cut for them.
    fn mss(&self) -> usize {
        FRAME_SIZE - MAX_HEADERS
    }

    fn trouble(&self) -> Option<Trouble> {
        None
    }

    fn recv(&mut self) -> Option<Chunk> {
        self.connection.recv(self.shared)
    }

    fn recv_finished(&self) -> bool {
        self.connection.recv_finished()
    }

    fn urgent(&self) -> Option<u32> {
        None
    }

    #[inline]
    fn bytes<'a>(&'a self, chunk: &'a Chunk) -> &'a [u8] {
        self.shared.pool.bytes(chunk)
    }

    #[inline]
    fn bytes_mut<'a>(&'a mut self, chunk: &'a mut Chunk) -> &'a mut [u8] {
        self.shared.pool.bytes_mut(chunk)
    }

    fn alloc(&mut self) -> Option<Chunk> {
        let chunk = self.shared.pool.alloc(Owner::App);
        self.connection.starved |= chunk.is_none();
        chunk
    }

    fn tailroom(&self, chunk: &Chunk) -> usize {
        self.shared.pool.tailroom(chunk)
    }

    fn grow_back(&self, chunk: &mut Chunk, octets: usize) {
        self.shared.pool.grow_back(chunk, octets);
    }

    fn append(&mut self, chunk: &mut Chunk, octets: &[u8]) {
        self.shared.pool.append(chunk, octets);
    }

    fn prepend(&mut self, chunk: &mut Chunk, octets: &[u8]) {
        self.shared.pool.prepend(chunk, octets);
    }

    fn split_off(&mut self, chunk: &mut Chunk, at: usize) -> Option<Chunk> {
        let rest = self.shared.pool.split_off(chunk, at);
        self.connection.starved |= rest.is_none();
        rest
    }

    fn note_copied(&mut self, octets: usize) {
        self.shared.pool.note_copied(octets);
    }

    fn release(&mut self, chunk: Chunk) {
        self.shared.pool.release(chunk);
    }

    fn send_room(&self) -> usize {
        self.connection.send_room(self.shared)
    }

    fn send(&mut self, chunk: Chunk) -> Result<(), Chunk> {
        self.connection.send(chunk, self.shared)
    }

    fn send_urgent(&mut self) {}

    fn send_drained(&self) -> bool {
        self.connection.send_drained()
    }

    fn shutdown(&mut self) {
        self.connection.shutdown(self.id.index, self.shared);
    }

    fn abort(&mut self) {
        self.connection.abort();
    }

    fn set_timer(&mut self, at: Option<Instant>) {
        self.connection.timer = at.unwrap_or(Instant::NEVER);
        self.shared.wheel.arm_by(self.id.index, self.connection.timer);
    }

    fn set_user_timeout(&mut self, limit: Option<Duration>) {
        self.connection.set_user_timeout(limit);
    }

    fn set_keepalive(&mut self, keepalive: Option<Keepalive>) {
        self.connection.set_keepalive(keepalive);
    }

    fn set_linger(&mut self, linger: Option<Duration>) {
        self.connection.set_linger(linger);
    }

    fn set_dscp(&mut self, dscp: u8) {
        self.connection.set_dscp(dscp);
    }

    fn set_nodelay(&mut self, on: bool) {
        self.connection.set_nodelay(on);
    }

    fn counters(&mut self) -> &mut Counters {
        &mut self.shared.counters
    }

    fn metrics(&self) -> Option<Metrics> {
        crate::sys::tcp_info(self.connection.fd()).ok().map(|info| metrics(&info))
    }

    fn totals(&self) -> Totals {
        let mut totals =
            Totals { counters: self.shared.counters.clone(), states: self.shared.states.clone() };
        totals.counters.payload_bytes_copied = self.shared.pool.payload_bytes_copied();
        totals.merge(&self.shared.elsewhere);
        totals
    }
}

/// The kernel counts windows in segments (`tcp(7)`, TCP_INFO) and time in microseconds.
fn metrics(info: &libc::tcp_info) -> Metrics {
    let mss = info.tcpi_snd_mss;
    let flight = (info.tcpi_unacked + info.tcpi_retrans).saturating_sub(info.tcpi_sacked + info.tcpi_lost);
    Metrics {
        cwnd: info.tcpi_snd_cwnd.saturating_mul(mss),
        // TCP_INFINITE_SSTHRESH: nothing has set one.
        ssthresh: (info.tcpi_snd_ssthresh < 0x7fff_ffff).then(|| info.tcpi_snd_ssthresh.saturating_mul(mss)),
        in_flight: flight.saturating_mul(mss),
        srtt: (info.tcpi_rtt > 0).then(|| Duration::from_micros(info.tcpi_rtt.into())),
        rto: Duration::from_micros(info.tcpi_rto.into()),
        mss,
        retransmits: info.tcpi_total_retrans,
    }
}
