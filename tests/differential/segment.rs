//! Segments as the prober writes and reads them: by hand, not with byway's own code.

use std::net::Ipv4Addr;

pub(crate) const FIN: u8 = 0x01;
pub(crate) const SYN: u8 = 0x02;
pub(crate) const RST: u8 = 0x04;
pub(crate) const PSH: u8 = 0x08;
pub(crate) const ACK: u8 = 0x10;
pub(crate) const URG: u8 = 0x20;

/// Where both ends are, and where the prober is.
pub(crate) const TARGET: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
pub(crate) const PROBER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 9);
pub(crate) const PROBER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];

/// A segment to be sent; numbers are relative to the initial ones.
#[derive(Clone, Debug)]
pub(crate) struct Seg {
    pub(crate) flags: u8,
    pub(crate) seq: i64,
    pub(crate) ack: i64,
    pub(crate) len: usize,
    pub(crate) window: u16,
    pub(crate) urgent: u16,
    /// Octets of options, before the timestamps.
    pub(crate) options: Vec<u8>,
    /// TSval; TSecr is what the target sent last.
    pub(crate) timestamp: Option<u32>,
    /// Added to the right checksum.
    pub(crate) checksum_error: u16,
    /// Instead of the right data offset.
    pub(crate) data_offset: Option<u8>,
}

pub(crate) fn seg(flags: u8, seq: i64, ack: i64) -> Seg {
    let (options, timestamp, data_offset) = (Vec::new(), None, None);
    Seg {
        flags,
        seq,
        ack,
        len: 0,
        window: 60_000,
        urgent: 0,
        options,
        timestamp,
        checksum_error: 0,
        data_offset,
    }
}

/// SYN with an MSS of 1460, nothing else.
pub(crate) fn syn() -> Seg {
    seg(SYN, 0, 0).options(&[2, 4, 5, 0xb4])
}

/// ACK alone.
pub(crate) fn ack(seq: i64, ack: i64) -> Seg {
    self::seg(ACK, seq, ack)
}

/// ACK with data.
pub(crate) fn data(seq: i64, ack: i64, len: usize) -> Seg {
    self::seg(ACK | PSH, seq, ack).len(len)
}

/// ACK with FIN.
pub(crate) fn fin(seq: i64, ack: i64) -> Seg {
    self::seg(ACK | FIN, seq, ack)
}

/// RST alone.
pub(crate) fn rst(seq: i64) -> Seg {
    self::seg(RST, seq, 0)
}

impl Seg {
    pub(crate) fn len(self, len: usize) -> Self {
        Self { len, ..self }
    }

    pub(crate) fn window(self, window: u16) -> Self {
        Self { window, ..self }
    }

    pub(crate) fn urgent(self, urgent: u16) -> Self {
        Self { urgent, flags: self.flags | URG, ..self }
    }

    pub(crate) fn options(self, options: &[u8]) -> Self {
        Self { options: options.to_vec(), ..self }
    }

    pub(crate) fn timestamp(self, value: u32) -> Self {
        Self { timestamp: Some(value), ..self }
    }

    pub(crate) fn with_bad_checksum(self) -> Self {
        Self { checksum_error: 1, ..self }
    }

    pub(crate) fn data_offset(self, words: u8) -> Self {
        Self { data_offset: Some(words), ..self }
    }

    /// As tcpdump would say it, in relative numbers.
    pub(crate) fn text(&self) -> String {
        let Self { seq, ack, len, window, options, timestamp, .. } = self;
        let ack = if self.flags & ACK != 0 { format!(" ack {ack}") } else { String::new() };
        let mut text = format!("[{}] seq {seq}{ack} len {len} win {window}", flags_text(self.flags));
        if !options.is_empty() {
            text += &format!(" options {options:?}");
        }
        if let Some(timestamp) = timestamp {
            text += &format!(" TS {timestamp}");
        }
        text
    }

    /// The frame, for a connection with these initial numbers.
    pub(crate) fn frame(&self, to: [u8; 6], ports: (u16, u16), iss: u32, irs: u32, echo: u32) -> Vec<u8> {
        let mut options = self.options.clone();
        if let Some(value) = self.timestamp {
            options.extend([1, 1, 8, 10]);
            options.extend(value.to_be_bytes());
            options.extend(echo.to_be_bytes());
        }
        options.resize(options.len().next_multiple_of(4), 0);
        let header_len = 20 + options.len();
        let mut tcp = Vec::with_capacity(header_len + self.len);
        tcp.extend(ports.0.to_be_bytes());
        tcp.extend(ports.1.to_be_bytes());
        tcp.extend(iss.wrapping_add(self.seq as u32).to_be_bytes());
        let ack = if self.flags & ACK != 0 { irs.wrapping_add(self.ack as u32) } else { 0 };
        tcp.extend(ack.to_be_bytes());
        tcp.push(self.data_offset.unwrap_or((header_len / 4) as u8) << 4);
        tcp.push(self.flags);
        tcp.extend(self.window.to_be_bytes());
        tcp.extend([0, 0]);
        tcp.extend(self.urgent.to_be_bytes());
        tcp.extend(options);
        // The octet at a number is always the same, so that overlaps agree.
        tcp.extend((0..self.len as i64).map(|at| (self.seq + at) as u8));

        let mut pseudo = [PROBER.octets(), TARGET.octets()].concat();
        pseudo.extend([0, 6]);
        pseudo.extend((tcp.len() as u16).to_be_bytes());
        let checksum = (!sum(&[&pseudo, &tcp])).wrapping_add(self.checksum_error);
        tcp[16..18].copy_from_slice(&checksum.to_be_bytes());

        let mut ip = vec![0x45, 0];
        ip.extend((20 + tcp.len() as u16).to_be_bytes());
        ip.extend([0, 0, 0x40, 0, 64, 6, 0, 0]);
        ip.extend(PROBER.octets());
        ip.extend(TARGET.octets());
        let checksum = !sum(&[&ip]);
        ip[10..12].copy_from_slice(&checksum.to_be_bytes());
        [&to[..], &PROBER_MAC[..], &[8, 0][..], &ip[..], &tcp[..]].concat()
    }
}

/// One's complement sum (RFC 1071) of parts, each of even length but the last.
fn sum(parts: &[&[u8]]) -> u16 {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let mut sum: u32 =
        words.map(|word| u32::from(word[0]) << 8 | u32::from(word.get(1).copied().unwrap_or(0))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

pub(crate) fn flags_text(flags: u8) -> String {
    let names = ['F', 'S', 'R', 'P', '.', 'U', 'E', 'W'];
    (0..8).filter(|bit| flags & 1 << bit != 0).map(|bit| names[bit]).collect()
}

/// An answer, as it came.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    /// The prober's port, and the target's.
    pub(crate) ports: (u16, u16),
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    pub(crate) flags: u8,
    pub(crate) window: u16,
    pub(crate) len: u32,
    pub(crate) mss: Option<u16>,
    pub(crate) scale: bool,
    pub(crate) sack_permitted: bool,
    pub(crate) timestamp: Option<u32>,
    pub(crate) sack: Vec<(u32, u32)>,
}

impl Answer {
    /// Reads a frame; none if it isn't TCP over IPv4 to the prober.
    pub(crate) fn read(frame: &[u8]) -> Option<Self> {
        let ip = frame.get(14..)?;
        if frame.get(12..14)? != [8, 0] || ip.get(9)? != &6 || ip.get(16..20)? != PROBER.octets() {
            return None;
        }
        let total = usize::from(u16::from_be_bytes([ip[2], ip[3]]));
        let tcp = ip.get(usize::from(ip[0] & 15) * 4..total)?;
        let header = tcp.get(..20)?;
        let word =
            |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let half = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
        let header_len = usize::from(header[12] >> 4) * 4;
        let mut answer = Self {
            ports: (half(2), half(0)),
            seq: word(4),
            ack: word(8),
            flags: header[13],
            window: half(14),
            len: (tcp.len() - header_len) as u32,
            mss: None,
            scale: false,
            sack_permitted: false,
            timestamp: None,
            sack: Vec::new(),
        };
        answer.read_options(tcp.get(20..header_len)?)?;
        Some(answer)
    }

    fn read_options(&mut self, mut options: &[u8]) -> Option<()> {
        while let [kind, rest @ ..] = options {
            if *kind == 0 {
                break;
            }
            if *kind == 1 {
                options = rest;
                continue;
            }
            let len = usize::from(*rest.first()?);
            let body = options.get(2..len)?;
            match (kind, body) {
                (2, [high, low]) => self.mss = Some(u16::from_be_bytes([*high, *low])),
                (3, [_]) => self.scale = true,
                (4, []) => self.sack_permitted = true,
                (5, _) => {
                    let edges =
                        body.chunks_exact(4).map(|edge| u32::from_be_bytes(edge.try_into().expect("four")));
                    let edges: Vec<u32> = edges.collect();
                    self.sack = edges.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
                }
                (8, [a, b, c, d, ..]) => self.timestamp = Some(u32::from_be_bytes([*a, *b, *c, *d])),
                _ => panic!("an option that nobody asked for: {options:?}"),
            }
            options = &options[len..];
        }
        Some(())
    }

    /// Octets of sequence space.
    pub(crate) fn seq_len(&self) -> u32 {
        self.len + u32::from(self.flags & SYN != 0) + u32::from(self.flags & FIN != 0)
    }

    /// What is compared. `iss` is the prober's initial number, `irs` the target's, once known.
    pub(crate) fn text(&self, iss: u32, irs: Option<u32>) -> String {
        // PSH on what isn't the last segment is a matter of taste, and S4.4 has its own tests.
        let mut text = format!("[{}]", flags_text(self.flags & !PSH));
        text += &match (self.seq, irs) {
            (0, _) => " seq zero".to_owned(),
            (seq, Some(irs)) => format!(" seq {}", seq.wrapping_sub(irs) as i32),
            (seq, None) => format!(" seq raw {seq}"),
        };
        if self.flags & ACK != 0 {
            text += &format!(" ack {}", self.ack.wrapping_sub(iss) as i32);
        }
        if self.len > 0 {
            text += &format!(" len {}", self.len);
        }
        if self.flags & RST == 0 && self.window == 0 {
            text += " closed";
        }
        if let Some(mss) = self.mss {
            text += &format!(" mss {mss}");
        }
        for (is, name) in
            [(self.scale, " scale"), (self.sack_permitted, " sackOK"), (self.timestamp.is_some(), " TS")]
        {
            text += if is { name } else { "" };
        }
        for (from, to) in &self.sack {
            text += &format!(" sack {}-{}", from.wrapping_sub(iss) as i32, to.wrapping_sub(iss) as i32);
        }
        text
    }
}
