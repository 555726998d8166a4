//! A stack on one side, crafted segments on the other, virtual time between them.
//!
//! ```text
//!   Probe.give(peer, segment) ─→ Stack ─→ what it sends at once, as `Seg`s
//!   Probe.wait(duration)      ─→ timers ─→ what it sends meanwhile, with the time of each
//! ```

use std::collections::BTreeMap;
use std::net::IpAddr;

use byway_tcp::app::{App, Closed, Conn, ConnId, Ready};
use byway_tcp::frame::{FramePool, FrameSlice, HeapMemory, MAX_HEADERS, Owner};
use byway_tcp::seq::SeqNumber;
use byway_tcp::stack::{Cidr, Config, ConnInfo, Listener, Stack};
use byway_tcp::tcb::state::State;
use byway_tcp::time::{Duration, Instant};
use byway_tcp::wire::tcp::{Emit, Flags, Options};
use byway_tcp::wire::{Body, Checksums, MacAddr, arp, ethernet, icmpv6, ip, parse};

pub const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
pub const PEER_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);
/// The open port.
pub const PORT: u16 = 80;
pub const BACKLOG: u32 = 4;
/// MSS of the link, IPv4.
pub const MSS: usize = 1460;

pub const SYN: Flags = Flags::SYN;
pub const ACK: Flags = Flags::ACK;
pub const RST: Flags = Flags::RST;
pub const FIN: Flags = Flags::FIN;
pub const PSH: Flags = Flags::PSH;
pub const URG: Flags = Flags::URG;
pub const SYN_ACK: Flags = Flags(0x12);
pub const FIN_ACK: Flags = Flags(0x11);
pub const RST_ACK: Flags = Flags(0x14);
pub const PSH_ACK: Flags = Flags(0x18);

/// A segment, to give or as sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Seg {
    pub seq: u32,
    pub ack: u32,
    pub flags: Flags,
    pub window: u16,
    pub urgent: u16,
    pub options: Options,
    pub data: Vec<u8>,
    /// The IP header's ECN bits.
    pub ecn: u8,
}

impl Seg {
    pub fn new(flags: Flags, seq: u32, ack: u32) -> Self {
        Self { seq, ack, flags, window: 65_535, urgent: 0, options: Options::NONE, data: Vec::new(), ecn: 0 }
    }
    pub fn data(mut self, data: &[u8]) -> Self {
        self.data = data.to_vec();
        self
    }
    pub fn window(mut self, window: u16) -> Self {
        self.window = window;
        self
    }
    pub fn options(mut self, options: Options) -> Self {
        self.options = options;
        self
    }
    pub fn mss(mut self, mss: u16) -> Self {
        self.options.mss = Some(mss);
        self
    }
    pub fn is(&self, flags: Flags) -> bool {
        self.flags == flags
    }
    /// Sequence number after it.
    pub fn end(&self) -> u32 {
        let controls = u32::from(self.flags.contains(SYN)) + u32::from(self.flags.contains(FIN));
        self.seq.wrapping_add(self.data.len() as u32 + controls)
    }
}

/// The other side of one connection, as the test plays it.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    pub remote: IpAddr,
    pub remote_port: u16,
    pub local_port: u16,
    /// Our next sequence number.
    pub seq: u32,
    /// What we expect next of the stack.
    pub ack: u32,
    pub id: ConnId,
}

impl Peer {
    pub fn seg(&self, flags: Flags) -> Seg {
        Seg::new(flags, self.seq, if flags.contains(ACK) { self.ack } else { 0 })
    }
}

pub const NO_CONN: ConnId = ConnId { index: u32::MAX, generation: u32::MAX };

/// Does as it is told, and remembers.
#[derive(Debug, Default)]
pub struct Recorder {
    /// Takes what arrives.
    pub reads: bool,
    /// Closes when the peer has.
    pub closes: bool,
    /// Says this as soon as it is open.
    pub greets: Vec<u8>,
    pub opened: Vec<ConnId>,
    pub closed: Vec<(ConnId, Closed)>,
    pub finished: Vec<ConnId>,
    pub read: BTreeMap<ConnId, Vec<u8>>,
    pub drained: usize,
    /// Frames for the fill ring may run out.
    pub lenient: bool,
    /// Who was told that there is room again.
    pub woken: Vec<ConnId>,
}

impl Recorder {
    pub fn text(&self, id: ConnId) -> &[u8] {
        self.read.get(&id).map_or(&[], |text| text)
    }
    pub fn end_of(&self, id: ConnId) -> Option<Closed> {
        self.closed.iter().find(|(closed, _)| *closed == id).map(|&(_, reason)| reason)
    }
    pub fn take<C: Conn + ?Sized>(&mut self, conn: &mut C) {
        let id = conn.id();
        while let Some(chunk) = conn.recv() {
            self.read.entry(id).or_default().extend_from_slice(conn.bytes(&chunk));
            conn.release(chunk);
        }
        if conn.recv_finished() && !self.finished.contains(&id) {
            self.finished.push(id);
        }
    }
}

pub fn write<C: Conn + ?Sized>(conn: &mut C, octets: &[u8]) -> usize {
    let mut done = 0;
    for part in octets.chunks(conn.mss()) {
        let Some(mut chunk) = conn.alloc() else { break };
        conn.append(&mut chunk, part);
        if let Err(chunk) = conn.send(chunk) {
            conn.release(chunk);
            break;
        }
        done += part.len();
    }
    done
}

impl App for Recorder {
    fn opened<C: Conn>(&mut self, conn: &mut C) {
        assert!(!self.opened.contains(&conn.id()), "opened twice");
        self.opened.push(conn.id());
        conn.set_nodelay(true);
        if !self.greets.is_empty() {
            write(conn, &self.greets.clone());
        }
    }
    fn ready<C: Conn>(&mut self, conn: &mut C, ready: Ready) {
        if ready.writable {
            self.woken.push(conn.id());
        }
        if self.reads && ready.readable {
            self.take(conn);
            if self.closes && conn.recv_finished() {
                conn.shutdown();
            }
        }
    }
    fn closed<C: Conn>(&mut self, conn: &mut C, reason: Closed) {
        assert!(self.end_of(conn.id()).is_none(), "closed twice");
        if self.reads {
            self.take(conn);
        }
        self.closed.push((conn.id(), reason));
    }
    fn draining<C: Conn>(&mut self, conn: &mut C) {
        self.drained += 1;
        conn.shutdown();
    }
}

/// One stack under test.
#[derive(Debug)]
pub struct Probe {
    pub stack: Stack<HeapMemory>,
    pub app: Recorder,
    pub now: Instant,
    next_port: u16,
    /// Frames that the stack sends stay in the TX ring while set.
    pub slow_nic: bool,
    pub in_ring: Vec<u32>,
    /// ARP and NDP questions are answered.
    pub answers_arp: bool,
    /// Frames that weren't TCP, as sent.
    pub others: Vec<Vec<u8>>,
    /// Where the last segment went.
    pub last_dst: MacAddr,
    /// Traffic class and hop limit of the last segment.
    pub last_service: (u8, u8),
    /// Octets in and out, ARP not counted.
    pub octets: (usize, usize),
    /// Octets of the largest frame that the link takes.
    largest: usize,
}

pub fn config() -> Config {
    let mut config = Config::new(MAC, [7; 32]);
    config.addresses = vec![Cidr { address: v4(1), prefix: 24 }, Cidr { address: v6(1), prefix: 64 }];
    config.max_connections = 64;
    config.max_time_wait = 64;
    config
}

/// Traffic class and hop limit of an untagged frame.
fn service(frame: &[u8]) -> (u8, u8) {
    match frame[14] >> 4 {
        4 => (frame[15], frame[22]),
        _ => (frame[14] << 4 | frame[15] >> 4, frame[21]),
    }
}

pub fn v4(last: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, last])
}

pub fn v6(last: u16) -> IpAddr {
    IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, last])
}

impl Probe {
    pub fn new() -> Self {
        Self::with(config(), 512, Instant::from_millis(1000))
    }

    /// A stack whose ACKs may always be delayed.
    pub fn patient() -> Self {
        Self::with(Config { quick_acks: 0, ..config() }, 512, Instant::from_millis(1000))
    }

    pub fn with(config: Config, frames: u32, now: Instant) -> Self {
        let mtu = if config.frames_sent > 1 { config.receive_mtu } else { 1500 };
        let largest = 14 + usize::from(mtu);
        let mut stack = Stack::new(config, FramePool::new(HeapMemory::new(frames, 2048)));
        stack.listen(Listener { port: PORT, backlog: BACKLOG });
        let app = Recorder { reads: true, closes: true, ..Recorder::default() };
        let mut probe = Self {
            stack,
            app,
            now,
            next_port: 10_000,
            slow_nic: false,
            in_ring: Vec::new(),
            answers_arp: true,
            others: Vec::new(),
            last_dst: MacAddr::default(),
            last_service: (0, 0),
            octets: (0, 0),
            largest,
        };
        probe.introduce();
        probe
    }

    /// The peer asks for us, so the stack knows where it is and needn't ask.
    pub fn introduce(&mut self) {
        let mut frame = vec![0; 256];
        let (IpAddr::V4(peer), IpAddr::V4(own)) = (v4(2), v4(1)) else { unreachable!() };
        let range = arp::emit_request(&mut frame, 0, ethernet::VlanTags::NONE, PEER_MAC, peer, own, None);
        self.give_frames(&[frame[range].to_vec()]);
        let (IpAddr::V6(peer), IpAddr::V6(own)) = (v6(2), v6(1)) else { unreachable!() };
        let range = icmpv6::emit_neighbor_solicitation(
            &mut frame,
            0,
            ethernet::VlanTags::NONE,
            PEER_MAC,
            peer,
            own,
            None,
        );
        self.give_frames(&[frame[range].to_vec()]);
        self.others.clear();
    }

    // --- frames -------------------------------------------------------------------------------

    pub fn frame(&self, peer: &Peer, seg: &Seg) -> Vec<u8> {
        let mut frame = vec![0; MAX_HEADERS + seg.data.len()];
        let local = if peer.remote.is_ipv4() { v4(1) } else { v6(1) };
        let end = MAX_HEADERS + seg.data.len();
        frame[MAX_HEADERS..end].copy_from_slice(&seg.data);
        let header = Emit {
            src_port: peer.remote_port,
            dst_port: peer.local_port,
            seq: SeqNumber(seg.seq),
            ack: SeqNumber(seg.ack),
            flags: seg.flags,
            window: seg.window,
            urgent: seg.urgent,
            options: &seg.options,
        };
        let at = header.emit(&mut frame, MAX_HEADERS..end, peer.remote, local);
        let at = ip::emit(&mut frame, at, end, peer.remote, local, ip::TCP, seg.ecn);
        let ethertype = if local.is_ipv4() { ethernet::IPV4 } else { ethernet::IPV6 };
        let link = ethernet::Header { dst: MAC, src: PEER_MAC, vlan: ethernet::VlanTags::NONE, ethertype };
        let at = link.emit(&mut frame, at);
        frame[at..end].to_vec()
    }

    /// One batch of frames, and all TCP segments that come back at once.
    pub fn give_frames(&mut self, frames: &[Vec<u8>]) -> Vec<(u16, Seg)> {
        let packets: Vec<_> = frames.iter().map(|frame| vec![frame.clone()]).collect();
        self.give_packets(&packets)
    }

    /// The same of packets that may each lie in several frames.
    pub fn give_packets(&mut self, packets: &[Vec<Vec<u8>>]) -> Vec<(u16, Seg)> {
        let mut slices = Vec::new();
        for packet in packets {
            let free = self.stack.pool().free_count() as usize;
            if self.app.lenient && free <= packet.len() + self.stack.pool().total() as usize / 64 {
                continue;
            }
            for (place, octets) in packet.iter().enumerate() {
                let index = self.stack.pool_mut().fill().expect("a frame for the fill ring");
                let slice = self.stack.pool_mut().write_as_nic(index, 256, octets);
                slices.push(FrameSlice { more: place + 1 < packet.len(), ..slice });
            }
        }
        self.stack.receive(&mut self.app, &slices, self.now);
        self.collect()
    }

    /// What the stack sends now: (peer's port, segment).
    pub fn collect(&mut self) -> Vec<(u16, Seg)> {
        let mut segments = Vec::new();
        loop {
            let mut out: Vec<FrameSlice> = Vec::new();
            let more = self.stack.poll_transmit(8, self.now, &mut out);
            assert!(out.len() <= 8, "poll_transmit keeps to the room it was given");
            let mut answers = Vec::new();
            for frames in out.split_inclusive(|slice| !slice.more) {
                let mut octets = Vec::new();
                for slice in frames {
                    octets.extend_from_slice(self.stack.pool().transmitted(*slice));
                    if self.slow_nic {
                        self.in_ring.push(slice.index);
                    } else {
                        self.stack.pool_mut().completed(slice.index);
                    }
                }
                let packet = parse(&octets, Checksums::Verify).expect("the stack sends valid frames");
                match packet.body {
                    Body::Tcp(header, seg) => {
                        self.last_dst = packet.link.dst;
                        self.last_service = service(&octets);
                        assert!(header.payload.1 + header.payload.0 <= self.largest, "within the MTU");
                        self.octets.1 += octets.len();
                        let (at, len) = seg.payload;
                        segments.push((
                            seg.dst_port,
                            Seg {
                                seq: seg.seq.0,
                                ack: seg.ack.0,
                                flags: seg.flags,
                                window: seg.window,
                                urgent: seg.urgent,
                                options: seg.options,
                                data: octets[at..at + len].to_vec(),
                                ecn: header.ecn,
                            },
                        ));
                    }
                    Body::Arp(packet) if packet.operation == arp::Operation::Request && self.answers_arp => {
                        let mut frame = octets.clone();
                        let link = ethernet::Header::parse(&frame).expect("ethernet");
                        let range = arp::reply_in_place(&mut frame, &link, &packet, PEER_MAC);
                        answers.push(frame[range].to_vec());
                    }
                    _ => self.others.push(octets),
                }
            }
            if !answers.is_empty() {
                segments.extend(self.give_frames(&answers));
            }
            if !more || out.is_empty() {
                break;
            }
        }
        self.stack.pool().assert_conserved();
        segments
    }

    pub fn complete(&mut self) {
        for index in self.in_ring.drain(..) {
            self.stack.pool_mut().completed(index);
        }
    }

    // --- segments -----------------------------------------------------------------------------

    /// Gives a batch of segments of one peer; what comes back to it.
    pub fn batch(&mut self, peer: &Peer, segs: &[Seg]) -> Vec<Seg> {
        let frames: Vec<_> = segs.iter().map(|seg| self.frame(peer, seg)).collect();
        self.octets.0 += frames.iter().map(Vec::len).sum::<usize>();
        let mut out = self.give_frames(&frames);
        if self.app.lenient {
            out.retain(|(port, _)| *port == peer.remote_port);
        }
        out.into_iter()
            .map(|(port, seg)| {
                assert_eq!(port, peer.remote_port);
                seg
            })
            .collect()
    }

    pub fn give(&mut self, peer: &Peer, seg: &Seg) -> Vec<Seg> {
        self.batch(peer, core::slice::from_ref(seg))
    }

    /// Opens `peer`'s connection by the handshake; it announces this MSS.
    pub fn open_as(&mut self, mut peer: Peer, mss: u16) -> Peer {
        let syn_ack = self.ask(&peer, &peer.seg(SYN).mss(mss));
        peer.seq += 1;
        peer.ack = syn_ack.end();
        self.give(&peer, &peer.seg(ACK));
        peer.id = *self.app.opened.last().expect("open");
        peer
    }

    /// Gives a segment that is answered by exactly one.
    pub fn ask(&mut self, peer: &Peer, seg: &Seg) -> Seg {
        let mut out = self.give(peer, seg);
        assert_eq!(out.len(), 1, "one answer to {seg:?}: {out:?}");
        out.pop().expect("one")
    }

    /// Gives a segment that isn't answered.
    pub fn tell(&mut self, peer: &Peer, seg: &Seg) {
        let out = self.give(peer, seg);
        assert!(out.is_empty(), "no answer to {seg:?}: {out:?}");
    }

    /// Lets time pass; what is sent meanwhile, and when.
    pub fn wait(&mut self, duration: Duration) -> Vec<(Duration, Seg)> {
        let (start, end) = (self.now, self.now + duration);
        let mut sent: Vec<_> = self.collect().into_iter().map(|(_, seg)| (Duration::ZERO, seg)).collect();
        loop {
            let next = self.stack.next_deadline().max(self.now);
            if next > end {
                break;
            }
            let stood = self.now == next;
            self.now = next;
            self.stack.advance(&mut self.app, self.now);
            let elapsed = self.now.since(start);
            let out = self.collect();
            if stood && out.is_empty() {
                // Something waits for a frame: time goes on meanwhile.
                self.now = (self.now + Duration::from_millis(1)).min(end);
                if self.now == end {
                    break;
                }
            }
            sent.extend(out.into_iter().map(|(_, seg)| (elapsed, seg)));
        }
        self.now = end;
        self.stack.advance(&mut self.app, self.now);
        sent.extend(self.collect().into_iter().map(|(_, seg)| (duration, seg)));
        sent
    }

    pub fn wait_ms(&mut self, millis: u64) -> Vec<(Duration, Seg)> {
        self.wait(Duration::from_millis(millis))
    }

    // --- connections --------------------------------------------------------------------------

    /// A peer that hasn't said anything yet.
    pub fn peer(&mut self) -> Peer {
        self.next_port += 1;
        Peer { remote: v4(2), remote_port: self.next_port, local_port: PORT, seq: 1000, ack: 0, id: NO_CONN }
    }

    /// Sends SYN and takes the SYN-ACK: the stack is in SYN-RECEIVED.
    pub fn half_open(&mut self, options: Options) -> (Peer, Seg) {
        let mut peer = self.peer();
        let syn_ack = self.ask(&peer, &peer.seg(SYN).options(options));
        assert!(syn_ack.is(SYN_ACK) && syn_ack.ack == peer.seq + 1, "{syn_ack:?}");
        peer.seq += 1;
        peer.ack = syn_ack.seq.wrapping_add(1);
        (peer, syn_ack)
    }

    /// A connection that the peer opened.
    pub fn accept(&mut self) -> Peer {
        self.accept_with(Options { mss: Some(MSS as u16), ..Options::NONE }, 65_535)
    }

    pub fn accept_with(&mut self, options: Options, window: u16) -> Peer {
        let (mut peer, _) = self.half_open(options);
        let opened = self.app.opened.len();
        self.give(&peer, &peer.seg(ACK).window(window));
        assert_eq!(self.app.opened.len(), opened + 1);
        peer.id = *self.app.opened.last().expect("open");
        assert_eq!(self.state(&peer), State::Established);
        peer
    }

    /// An active open: the stack's SYN is out.
    pub fn connect(&mut self) -> (Peer, Seg) {
        let remote = std::net::SocketAddr::new(v4(2), 9);
        let id = self.stack.connect(remote, self.now).expect("connect");
        let mut out = self.collect();
        assert_eq!(out.len(), 1, "{out:?}");
        let (_, syn) = out.pop().expect("SYN");
        assert!(syn.is(SYN), "{syn:?}");
        let local_port = self.info(id).expect("there").local.port();
        let ack = syn.seq.wrapping_add(1);
        (Peer { remote: v4(2), remote_port: 9, local_port, seq: 5000, ack, id }, syn)
    }

    /// An active open that was answered.
    pub fn connected(&mut self) -> Peer {
        let (mut peer, _) = self.connect();
        let ack = self.ask(&peer, &peer.seg(SYN_ACK).mss(MSS as u16));
        assert!(ack.is(ACK) && ack.seq == peer.ack, "{ack:?}");
        peer.seq += 1;
        assert_eq!(self.state(&peer), State::Established);
        peer
    }

    pub fn info(&self, id: ConnId) -> Option<ConnInfo> {
        let mut found = None;
        self.stack.connections(0, u32::MAX, self.now, &mut |info| {
            if info.id == id {
                found = Some(info);
            }
        });
        found
    }

    /// The connection's state: CLOSED if there is none, LISTEN if its port is open.
    pub fn state(&self, peer: &Peer) -> State {
        let mut state = if peer.local_port == PORT { State::Listen } else { State::Closed };
        self.stack.connections(0, u32::MAX, self.now, &mut |info| {
            let same = info.peer.port() == peer.remote_port
                && info.peer.ip() == peer.remote
                && info.local.port() == peer.local_port;
            if same && info.state != State::Listen {
                state = info.state;
            }
        });
        state
    }

    pub fn count(&self, state: State) -> u32 {
        self.stack.connections_by_state()[state as usize]
    }

    /// Acts as the application of a connection; what is sent at once.
    pub fn act<R>(&mut self, peer: &Peer, act: impl FnOnce(&mut Recorder, &mut dyn Conn) -> R) -> Vec<Seg> {
        self.stack.with_conn(&mut self.app, peer.id, self.now, act).expect("the connection is there");
        self.collect().into_iter().map(|(_, seg)| seg).collect()
    }

    pub fn send(&mut self, peer: &Peer, octets: &[u8]) -> Vec<Seg> {
        self.act(peer, |_, conn| assert_eq!(write(conn, octets), octets.len()))
    }

    pub fn shutdown(&mut self, peer: &Peer) -> Vec<Seg> {
        self.act(peer, |_, conn| conn.shutdown())
    }

    pub fn read(&mut self, peer: &Peer) -> Vec<Seg> {
        self.act(peer, |app, conn| app.take(conn))
    }

    /// The stack closes first: FIN-WAIT-1, and its FIN is out.
    pub fn fin_wait_1(&mut self) -> Peer {
        let mut peer = self.accept();
        let fin = self.shutdown(&peer);
        assert!(fin.len() == 1 && fin[0].is(FIN_ACK) && fin[0].seq == peer.ack, "{fin:?}");
        peer.ack = peer.ack.wrapping_add(1);
        assert_eq!(self.state(&peer), State::FinWait1);
        peer
    }

    pub fn fin_wait_2(&mut self) -> Peer {
        let peer = self.fin_wait_1();
        self.tell(&peer, &peer.seg(ACK));
        assert_eq!(self.state(&peer), State::FinWait2);
        peer
    }

    /// Both FINs crossed.
    pub fn closing(&mut self) -> Peer {
        let mut peer = self.fin_wait_1();
        let early = Peer { ack: peer.ack.wrapping_sub(1), ..peer };
        let ack = self.ask(&early, &early.seg(FIN_ACK));
        assert!(ack.is(ACK), "{ack:?}");
        peer.seq = peer.seq.wrapping_add(1);
        assert_eq!(self.state(&peer), State::Closing);
        peer
    }

    pub fn time_wait(&mut self) -> Peer {
        let mut peer = self.fin_wait_2();
        let ack = self.ask(&peer, &peer.seg(FIN_ACK));
        assert!(ack.is(ACK) && ack.ack == peer.seq.wrapping_add(1), "{ack:?}");
        peer.seq = peer.seq.wrapping_add(1);
        assert_eq!(self.state(&peer), State::TimeWait);
        peer
    }

    /// As `time_wait`, where the table may be full.
    pub fn time_wait_or_closed(&mut self) -> Peer {
        let mut peer = self.fin_wait_2();
        self.ask(&peer, &peer.seg(FIN_ACK));
        peer.seq = peer.seq.wrapping_add(1);
        peer
    }

    /// The peer closed, the application didn't.
    pub fn close_wait(&mut self) -> Peer {
        let mut peer = self.accept();
        let closes = core::mem::replace(&mut self.app.closes, false);
        let ack = self.ask(&peer, &peer.seg(FIN_ACK));
        self.app.closes = closes;
        assert!(ack.is(ACK) && ack.ack == peer.seq.wrapping_add(1), "{ack:?}");
        peer.seq = peer.seq.wrapping_add(1);
        assert_eq!(self.state(&peer), State::CloseWait);
        peer
    }

    pub fn last_ack(&mut self) -> Peer {
        let mut peer = self.close_wait();
        let fin = self.shutdown(&peer);
        assert!(fin.len() == 1 && fin[0].is(FIN_ACK), "{fin:?}");
        peer.ack = peer.ack.wrapping_add(1);
        assert_eq!(self.state(&peer), State::LastAck);
        peer
    }

    /// Every frame is free: nothing leaked.
    pub fn assert_idle(&self) {
        let pool = self.stack.pool();
        pool.assert_conserved();
        assert_eq!(pool.free_count() + pool.count(Owner::Fill), pool.total(), "{pool:?}");
    }
}
