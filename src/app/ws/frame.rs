//! Frame headers (RFC 6455 §5.2), checked as strictly as the section allows.

use super::session::CloseCode;

/// Longest header a client sends: 2 octets, 8 of length, 4 of key.
pub(super) const CLIENT_HEADER: usize = 14;
/// Longest payload of a control frame (§5.5).
pub(crate) const CONTROL_PAYLOAD: usize = 125;

/// Of the first octet: the message is compressed (RFC 7692 §6).
const RSV1: u8 = 0x40;

/// What a frame is (§11.8).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Opcode {
    Continuation = 0,
    Text = 1,
    Binary = 2,
    Close = 8,
    Ping = 9,
    Pong = 10,
}

impl Opcode {
    pub(crate) fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            0 => Self::Continuation,
            1 => Self::Text,
            2 => Self::Binary,
            8 => Self::Close,
            9 => Self::Ping,
            10 => Self::Pong,
            _ => return None,
        })
    }

    /// Close, ping, pong: short, and allowed between the fragments of a message.
    pub(crate) fn is_control(self) -> bool {
        self as u8 >= 8
    }
}

/// A client's frame header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Header {
    /// The message's last fragment.
    pub(super) fin: bool,
    /// RSV1: the message is compressed (RFC 7692 §6).
    pub(super) compressed: bool,
    pub(super) opcode: Opcode,
    /// Octets of payload.
    pub(super) len: u64,
    /// Masking key.
    pub(super) key: [u8; 4],
}

impl Header {
    /// Reads a header and its own length from the front of `octets`; `None` while it isn't
    /// complete. Whatever is wrong is reported at the first octet that shows it (W3). `deflate`: whether
    /// permessage-deflate is agreed.
    ///
    /// # Errors
    /// 1002 for everything a client must not send (§5.1, §5.2, §5.5).
    pub(super) fn parse(octets: &[u8], deflate: bool) -> Result<Option<(Self, usize)>, CloseCode> {
        let Some(&first) = octets.first() else { return Ok(None) };
        let fin = first & 0x80 != 0;
        let compressed = first & RSV1 != 0;
        // Reserved opcodes, RSV without a negotiated extension (§5.2); with it, a message's first frame says whether
        // it is compressed (RFC 7692 §6.1).
        let opcode = Opcode::from_bits(first & 0x0f).ok_or(CloseCode::PROTOCOL)?;
        let may_be = deflate && matches!(opcode, Opcode::Text | Opcode::Binary);
        if first & 0x30 != 0 || compressed && !may_be {
            return Err(CloseCode::PROTOCOL);
        }
        // "All control frames … MUST NOT be fragmented" (§5.5).
        if opcode.is_control() && !fin {
            return Err(CloseCode::PROTOCOL);
        }
        let Some(&second) = octets.get(1) else { return Ok(None) };
        // "The server MUST close the connection upon receiving a frame that is not masked" (§5.1).
        if second & 0x80 == 0 {
            return Err(CloseCode::PROTOCOL);
        }
        let short = second & 0x7f;
        if opcode.is_control() && usize::from(short) > CONTROL_PAYLOAD {
            return Err(CloseCode::PROTOCOL);
        }
        let Some((len, key_at)) = Self::parse_len(short, &octets[2..])? else { return Ok(None) };
        let Some(&key) = octets[key_at..].first_chunk::<4>() else { return Ok(None) };
        Ok(Some((Self { fin, compressed, opcode, len, key }, key_at + 4)))
    }

    /// The payload's length and where the key begins. "The minimal number of bytes MUST be used
    /// to encode the length", and the 64-bit form's top bit must be 0 (§5.2).
    pub(crate) fn parse_len(short: u8, extended: &[u8]) -> Result<Option<(u64, usize)>, CloseCode> {
        match short {
            126 => {
                let Some(&octets) = extended.first_chunk::<2>() else { return Ok(None) };
                let len = u64::from(u16::from_be_bytes(octets));
                if len < 126 { Err(CloseCode::PROTOCOL) } else { Ok(Some((len, 4))) }
            }
            127 => {
                if extended.first().is_some_and(|&top| top & 0x80 != 0) {
                    return Err(CloseCode::PROTOCOL);
                }
                let Some(&octets) = extended.first_chunk::<8>() else { return Ok(None) };
                let len = u64::from_be_bytes(octets);
                if len <= 0xffff { Err(CloseCode::PROTOCOL) } else { Ok(Some((len, 10))) }
            }
            short => Ok(Some((u64::from(short), 2))),
        }
    }
}

/// A server's frame header, written out: 2, 4 or 10 octets, no key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReplyHeader {
    octets: [u8; 10],
    len: u8,
}

impl ReplyHeader {
    /// For `len` octets of payload.
    pub(crate) fn new(fin: bool, opcode: Opcode, len: u64) -> Self {
        let mut octets = [0; 10];
        octets[0] = (u8::from(fin) << 7) | opcode as u8;
        let used = if len < 126 {
            octets[1] = len as u8;
            2
        } else if let Ok(len) = u16::try_from(len) {
            octets[1] = 126;
            octets[2..4].copy_from_slice(&len.to_be_bytes());
            4
        } else {
            octets[1] = 127;
            octets[2..10].copy_from_slice(&len.to_be_bytes());
            10
        };
        Self { octets, len: used }
    }

    /// The same for the first frame of a compressed message.
    pub(super) fn compressed(mut self) -> Self {
        self.octets[0] |= RSV1;
        self
    }

    /// The header's octets.
    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.octets[..usize::from(self.len)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tungstenite::protocol::frame::FrameHeader;
    use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

    fn error(octets: &[u8]) -> bool {
        Header::parse(octets, false) == Err(CloseCode::PROTOCOL)
    }

    #[test]
    fn w2_an_unmasked_frame_is_an_error() {
        assert!(error(&[0x81, 0x05]));
    }

    #[test]
    fn w3_header_rules_are_checked_at_the_octet_that_breaks_them() {
        for rsv in [0x40, 0x20, 0x10] {
            assert!(error(&[0x81 | rsv]), "RSV");
        }
        for opcode in [0, 8, 9, 10] {
            assert_eq!(Header::parse(&[0xc0 | opcode], true), Err(CloseCode::PROTOCOL), "RSV1 of {opcode}");
        }
        for rsv in [0x60, 0x20, 0x10] {
            assert_eq!(Header::parse(&[0x81 | rsv], true), Err(CloseCode::PROTOCOL), "RSV2, RSV3");
        }
        for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
            assert!(error(&[0x80 | opcode]), "reserved opcode {opcode}");
        }
        for opcode in [8, 9, 10] {
            assert!(error(&[opcode]), "fragmented control frame");
            assert!(error(&[0x80 | opcode, 0x80 | 126]), "control frame over 125");
        }
        assert!(error(&[0x82, 0x80 | 126, 0, 125]), "non-minimal 16 bits");
        assert!(error(&[0x82, 0x80 | 127, 0, 0, 0, 0, 0, 0, 0xff, 0xff]), "non-minimal 64 bits");
        assert!(error(&[0x82, 0x80 | 127, 0x80]), "top bit");
    }

    fn opcode() -> impl Strategy<Value = (Opcode, OpCode)> {
        prop_oneof![
            Just((Opcode::Continuation, OpCode::Data(Data::Continue))),
            Just((Opcode::Text, OpCode::Data(Data::Text))),
            Just((Opcode::Binary, OpCode::Data(Data::Binary))),
            Just((Opcode::Ping, OpCode::Control(Control::Ping))),
            Just((Opcode::Pong, OpCode::Control(Control::Pong))),
            Just((Opcode::Close, OpCode::Control(Control::Close))),
        ]
    }

    proptest! {
        #[test]
        fn headers_agree_with_tungstenite(
            (ours, theirs) in opcode(), fin: bool, key: [u8; 4],
            len in prop_oneof![0u64..130, 65_530u64..65_540, any::<u64>().prop_map(|len| len >> 1)],
        ) {
            let (len, fin) = if ours.is_control() { (len % 126, true) } else { (len, fin) };
            let header = FrameHeader { is_final: fin, opcode: theirs, mask: Some(key), ..FrameHeader::default() };
            let mut wire = Vec::new();
            header.format(len, &mut wire).expect("a header");
            for cut in 0..wire.len() {
                prop_assert_eq!(Header::parse(&wire[..cut], false), Ok(None));
            }
            let expected = Header { fin, compressed: false, opcode: ours, len, key };
            prop_assert_eq!(Header::parse(&wire, true), Ok(Some((expected, wire.len()))));

            let reply = ReplyHeader::new(fin, ours, len);
            let mut wire = Vec::new();
            FrameHeader { mask: None, ..header }.format(len, &mut wire).expect("a header");
            prop_assert_eq!(reply.as_slice(), &wire);
        }
    }
}
