//! One connection of a script: between numbers as the script counts them and numbers on the wire.

use std::net::{IpAddr, SocketAddr};

use crate::packet::{Opt, Packet};

/// The open port.
pub const PORT: u16 = 80;

/// One connection as the peer sees it.
#[derive(Debug)]
pub struct Flow {
    pub peer: SocketAddr,
    pub local: SocketAddr,
    /// Our initial sequence number, once sent.
    pub iss: Option<u32>,
    /// Our timestamp clock when it was first seen.
    pub clock: Option<u32>,
    /// Where the peer's stream begins and the application has got to in it.
    pub read_at: u32,
    /// Where the application's stream has got to.
    pub write_at: u32,
}

impl Flow {
    pub fn new(number: usize, ipv6: bool, peer_isn: u32) -> Self {
        Self {
            peer: SocketAddr::new(peer(ipv6), 10_000 + number as u16),
            local: SocketAddr::new(own(ipv6), PORT),
            iss: None,
            clock: None,
            read_at: peer_isn.wrapping_add(1),
            write_at: 1,
        }
    }

    pub fn to_wire(&self, packet: &Packet, peer_isn: u32) -> Packet {
        let (iss, clock) = (self.iss.unwrap_or(0), self.clock.unwrap_or(0));
        let mut wire = packet.clone();
        wire.seq = packet.seq.wrapping_add(peer_isn);
        wire.ack = packet.ack.map(|ack| ack.wrapping_add(iss));
        for option in wire.options.iter_mut().flatten() {
            match option {
                Opt::Sack(blocks) => shift(blocks, iss),
                // An echo of nothing stays nothing.
                Opt::Timestamps(_, Some(echo)) => *echo = echo.wrapping_add(clock),
                _ => {}
            }
        }
        wire
    }

    pub fn of_wire(&mut self, wire: &Packet, peer_isn: u32) -> Packet {
        let mut packet = wire.clone();
        packet.seq = wire.seq.wrapping_sub(self.iss.unwrap_or(0));
        packet.ack = wire.ack.map(|ack| ack.wrapping_sub(peer_isn));
        for option in packet.options.iter_mut().flatten() {
            match option {
                Opt::Sack(blocks) => shift(blocks, peer_isn.wrapping_neg()),
                Opt::Timestamps(Some(value), _) => {
                    let clock = *self.clock.get_or_insert(*value);
                    *value = value.wrapping_sub(clock);
                }
                _ => {}
            }
        }
        packet
    }
}

fn shift(blocks: &mut [(u32, u32)], by: u32) {
    for (left, right) in blocks {
        (*left, *right) = (left.wrapping_add(by), right.wrapping_add(by));
    }
}

/// Octet of a byte stream, by its place in sequence space: every octet sent or read is compared with it.
fn stream_octet(at: u32) -> u8 {
    (at.wrapping_mul(31) >> 3) as u8 ^ at as u8
}

pub fn stream(from: u32, len: usize) -> Vec<u8> {
    (0..len as u32).map(|at| stream_octet(from.wrapping_add(at))).collect()
}

fn address(ipv6: bool, last: u8) -> IpAddr {
    if ipv6 {
        IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, u16::from(last)])
    } else {
        IpAddr::from([10, 0, 0, last])
    }
}

pub fn own(ipv6: bool) -> IpAddr {
    address(ipv6, 1)
}

pub fn peer(ipv6: bool) -> IpAddr {
    address(ipv6, 2)
}

/// Who sends ICMP errors.
pub fn router(ipv6: bool) -> IpAddr {
    address(ipv6, 3)
}
