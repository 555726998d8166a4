//! A frame in a line, much as tcpdump writes it.

use std::fmt::Write as _;
use std::net::IpAddr;

use byway_datapath::capture::filter::Fields;
use byway_tcp::wire::tcp::Flags;
use byway_tcp::wire::{self, Body, Checksums};

const NANOS: u64 = 1_000_000_000;
/// tcpdump's letters, in the order in which it writes them.
const LETTERS: [(Flags, char); 8] = [
    (Flags::FIN, 'F'),
    (Flags::SYN, 'S'),
    (Flags::RST, 'R'),
    (Flags::PSH, 'P'),
    (Flags::ACK, '.'),
    (Flags::URG, 'U'),
    (Flags::ECE, 'E'),
    (Flags::CWR, 'W'),
];

/// `02:03:04.000000005 q0 In  192.0.2.2:4000 > 192.0.2.1:80 tcp [S] seq 1 win 64240 length 0`
pub(super) fn line(
    at: u64,
    queue: u32,
    outbound: bool,
    (octets, len): (&[u8], u32),
    reason: Option<&str>,
) -> String {
    let (seconds, nanos) = (at / NANOS, at % NANOS);
    let (hours, minutes, seconds) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let direction = if outbound { "Out" } else { "In " };
    let mut line = format!("{hours:02}:{minutes:02}:{seconds:02}.{nanos:09} q{queue} {direction} ");
    let fields = Fields::of_frame(octets);
    if let Some([source, destination]) = fields.ends() {
        let _ = write!(line, "{} > {} ", end(source), end(destination));
    }
    // What was cut off can't be verified.
    let whole = octets.len() as u32 == len;
    match wire::parse(octets, Checksums::AcceptPartial) {
        Ok(packet) => line.push_str(&body(&packet.body)),
        Err(_) => {
            let _ = write!(line, "{}{len} octets", if whole { "" } else { "cut short, " });
        }
    }
    if let Some(reason) = reason {
        let _ = write!(line, " discarded: {reason}");
    }
    line
}

fn end((address, port): (IpAddr, Option<u16>)) -> String {
    match (address, port) {
        (address, None) => address.to_string(),
        (IpAddr::V4(v4), Some(port)) => format!("{v4}:{port}"),
        (IpAddr::V6(v6), Some(port)) => format!("[{v6}]:{port}"),
    }
}

fn body(body: &Body) -> String {
    match body {
        Body::Arp(arp) => format!("arp {:?}", arp.operation).to_lowercase(),
        Body::Fragment(..) => "fragment".to_owned(),
        Body::Icmpv4(_) => "icmp".to_owned(),
        Body::Icmpv6(_) => "icmp6".to_owned(),
        Body::Tcp(_, seg) => {
            let letters = LETTERS.iter().filter(|(flag, _)| seg.flags.contains(*flag));
            let letters: String = letters.map(|&(_, letter)| letter).collect();
            let mut text = format!("tcp [{letters}] seq {}", seg.seq.0);
            if seg.flags.contains(Flags::ACK) {
                let _ = write!(text, " ack {}", seg.ack.0);
            }
            let _ = write!(text, " win {} length {}", seg.window, seg.payload.1);
            text
        }
    }
}
