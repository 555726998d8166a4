//! The other end of a server's connections: no state machine, just the numbers of the next segment.

use core::net::{IpAddr, Ipv4Addr};

use byway_tcp::flow_table::FourTuple;
use byway_tcp::seq::SeqNumber;
use byway_tcp::time::Instant;
use byway_tcp::wire::tcp::{Emit, Flags, Options, Segment};
use byway_tcp::wire::{Body, Checksums, MacAddr, Packet, arp, ethernet, ip, parse};

use crate::PAYLOAD;

/// The server's station.
pub const SERVER_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
/// The server's address.
pub const SERVER_IP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
/// The port that echoes.
pub const SERVER_PORT: u16 = 7;
/// All clients are behind this router, as most of a server's are.
pub const GATEWAY_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);
/// The router's address on the server's link.
pub const GATEWAY_IP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 254);

/// Ports in use per client address, from [`FIRST_PORT`] on.
const PORTS: u32 = 50_000;
const FIRST_PORT: u16 = 10_000;
/// RFC 2544's addresses for benches: 198.18.0.0/15.
const FIRST_IP: u32 = 198 << 24 | 18 << 16;
/// Room in front of a payload, as in a frame.
const HEADROOM: usize = 128;
/// What a Linux client offers, scaled by 2^7 after the SYN: more than a bench ever has in flight.
const WINDOW: u16 = 64_240;
const WINDOW_SCALE: u8 = 7;

/// One connection, as its client sees it.
#[derive(Clone, Copy, Debug, Default)]
struct Connection {
    snd_nxt: SeqNumber,
    rcv_nxt: SeqNumber,
    /// The server's last timestamp, if it sends them.
    recent: Option<u32>,
}

/// Any number of clients' connections to one server, named by number.
#[derive(Debug)]
pub struct Client {
    connections: Vec<Connection>,
    frame: [u8; 2048],
}

impl Client {
    /// Clients of `count` connections, none of them open.
    pub fn new(count: u32) -> Self {
        Self { connections: vec![Connection::default(); count as usize], frame: [0; 2048] }
    }

    /// The four-tuple of a connection, from the server's point of view.
    pub fn tuple(number: u32) -> FourTuple {
        FourTuple {
            local_ip: SERVER_IP.into(),
            remote_ip: Ipv4Addr::from_bits(FIRST_IP + 1 + number / PORTS).into(),
            local_port: SERVER_PORT,
            remote_port: FIRST_PORT + (number % PORTS) as u16,
        }
    }

    /// SYN, with the options of Linux.
    pub fn syn(&mut self, number: u32, now: Instant) -> &[u8] {
        let iss = SeqNumber(number.wrapping_mul(0x9e37_79b9).wrapping_add(now.as_millis() as u32));
        self.connections[number as usize] =
            Connection { snd_nxt: iss, rcv_nxt: SeqNumber(0), recent: Some(0) };
        let options = Options {
            mss: Some(1460),
            window_scale: Some(WINDOW_SCALE),
            sack_permitted: true,
            timestamps: Some((now.as_millis() as u32, 0)),
            ..Options::NONE
        };
        self.segment(number, Flags::SYN, &options, 0)
    }

    /// An acknowledgement of everything [`heard`](Self::heard) or [`expect`](Self::expect)ed.
    pub fn ack(&mut self, number: u32, now: Instant) -> &[u8] {
        let options = self.options(number, now);
        self.segment(number, Flags::ACK, &options, 0)
    }

    /// `payload`, with an acknowledgement.
    pub fn say(&mut self, number: u32, payload: &[u8], now: Instant) -> &[u8] {
        self.frame[HEADROOM..HEADROOM + payload.len()].copy_from_slice(payload);
        self.data(number, payload.len(), now)
    }

    /// Octets of payload in a frame of the server's.
    ///
    /// # Panics
    /// If it isn't a TCP segment's.
    pub fn payload_of(octets: &[u8]) -> usize {
        match parse(octets, Checksums::Verify).expect("the server's frames are valid").body {
            Body::Tcp(_, segment) => segment.payload.1,
            other => panic!("unexpected: {other:?}"),
        }
    }

    /// The next [`PAYLOAD`] octets, with an acknowledgement.
    pub fn request(&mut self, number: u32, now: Instant) -> &[u8] {
        self.data(number, PAYLOAD, now)
    }

    /// The next `octets`, with an acknowledgement.
    pub fn data(&mut self, number: u32, octets: usize, now: Instant) -> &[u8] {
        let options = self.options(number, now);
        self.segment(number, Flags::ACK | Flags::PSH, &options, octets)
    }

    /// FIN, with an acknowledgement.
    pub fn fin(&mut self, number: u32, now: Instant) -> &[u8] {
        let options = self.options(number, now);
        self.segment(number, Flags::ACK | Flags::FIN, &options, 0)
    }

    /// The server's answer will be so many octets, unread: what comes next acknowledges them.
    pub fn expect(&mut self, number: u32, octets: usize) {
        self.connections[number as usize].rcv_nxt += octets as u32;
    }

    /// Takes a frame of the server's. `Some`: what has to go back at once, which is an ARP reply.
    ///
    /// # Panics
    /// If the frame isn't what the connection's next one should be: a bench of it would mean nothing.
    pub fn heard(&mut self, octets: &[u8]) -> Option<&[u8]> {
        let Packet { link, body } = parse(octets, Checksums::Verify).expect("the server's frames are valid");
        match body {
            Body::Arp(arp) => {
                assert_eq!((arp.operation, arp.target_ip), (arp::Operation::Request, GATEWAY_IP));
                let reply = arp::reply_in_place(&mut self.frame, &link, &arp, GATEWAY_MAC);
                Some(&self.frame[reply])
            }
            Body::Tcp(ip, seg) => {
                assert_eq!((link.dst, ip.src), (GATEWAY_MAC, IpAddr::from(SERVER_IP)));
                self.heard_segment(number_of(ip.dst, seg.dst_port), &seg);
                None
            }
            other => panic!("unexpected: {other:?}"),
        }
    }

    fn heard_segment(&mut self, number: u32, seg: &Segment) {
        assert!(!seg.flags.contains(Flags::RST), "connection {number} was reset");
        let connection = &mut self.connections[number as usize];
        if seg.flags.contains(Flags::SYN) {
            connection.rcv_nxt = seg.seq;
        }
        assert_eq!(seg.seq, connection.rcv_nxt, "connection {number}: retransmitted or lost");
        assert_eq!(seg.ack, connection.snd_nxt, "connection {number}: what was sent isn't acknowledged");
        connection.rcv_nxt += seg.seg_len();
        connection.recent = seg.options.timestamps.map(|(value, _)| value);
    }

    fn options(&self, number: u32, now: Instant) -> Options {
        let recent = self.connections[number as usize].recent;
        Options { timestamps: recent.map(|recent| (now.as_millis() as u32, recent)), ..Options::NONE }
    }

    fn segment(&mut self, number: u32, flags: Flags, options: &Options, payload: usize) -> &[u8] {
        let FourTuple { local_ip, remote_ip, local_port, remote_port } = Self::tuple(number);
        let connection = &mut self.connections[number as usize];
        let ack = if flags.contains(Flags::ACK) { connection.rcv_nxt } else { SeqNumber(0) };
        let header = Emit {
            src_port: remote_port,
            dst_port: local_port,
            seq: connection.snd_nxt,
            ack,
            flags,
            window: WINDOW,
            urgent: 0,
            options,
        };
        let end = HEADROOM + payload;
        let counts = flags.contains(Flags::SYN) || flags.contains(Flags::FIN);
        connection.snd_nxt += payload as u32 + u32::from(counts);
        let start = header.emit(&mut self.frame, HEADROOM..end, remote_ip, local_ip);
        let start = ip::emit(&mut self.frame, start, end, remote_ip, local_ip, ip::TCP, 0);
        let link = ethernet::Header {
            dst: SERVER_MAC,
            src: GATEWAY_MAC,
            vlan: ethernet::VlanTags::NONE,
            ethertype: ethernet::IPV4,
        };
        let start = link.emit(&mut self.frame, start);
        &self.frame[start..end]
    }
}

fn number_of(ip: IpAddr, port: u16) -> u32 {
    let IpAddr::V4(ip) = ip else { panic!("not a client: {ip}") };
    (ip.to_bits() - FIRST_IP - 1) * PORTS + u32::from(port - FIRST_PORT)
}
