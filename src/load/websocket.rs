//! A WebSocket's client side (RFC 6455): the opening, masked frames out, a server's frames in.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::app::ws::frame::{CONTROL_PAYLOAD, Header, Opcode, ReplyHeader};

/// Base64 of 16 octets (§4.1).
pub(super) const KEY: usize = 24;
/// Longest header a server sends: 2 octets and 8 of length, no key.
const SERVER_HEADER: usize = 10;
/// Longest header a client sends.
const CLIENT_HEADER: usize = 14;

/// `Sec-WebSocket-Key`.
pub(super) fn key(nonce: [u8; 16]) -> [u8; KEY] {
    let mut key = [0; KEY];
    let written = STANDARD.encode_slice(nonce, &mut key);
    debug_assert_eq!(written, Ok(KEY));
    key
}

/// The header of an unfragmented frame of ours, with its masking key.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ClientHeader {
    octets: [u8; CLIENT_HEADER],
    len: u8,
}

impl ClientHeader {
    pub(super) fn new(opcode: Opcode, len: u64, key: [u8; 4]) -> Self {
        let unmasked = ReplyHeader::new(true, opcode, len);
        let unmasked = unmasked.as_slice();
        let mut octets = [0; CLIENT_HEADER];
        octets[..unmasked.len()].copy_from_slice(unmasked);
        octets[1] |= 0x80;
        octets[unmasked.len()..unmasked.len() + 4].copy_from_slice(&key);
        Self { octets, len: unmasked.len() as u8 + 4 }
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        &self.octets[..usize::from(self.len)]
    }
}

/// What comes next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Event {
    /// All octets are used up; more are needed.
    More,
    /// The echo is complete.
    Echoed,
    /// A ping, with its payload: [`Reader::control`].
    Ping,
    /// The server closes.
    Close,
}

#[derive(Clone, Copy, Debug)]
struct Frame {
    fin: bool,
    opcode: Opcode,
    left: u64,
}

/// How far the server's frames have been read.
#[derive(Debug)]
pub(super) struct Reader {
    /// A header that began in the chunk before.
    carry: [u8; SERVER_HEADER],
    carried: usize,
    frame: Option<Frame>,
    /// The kind of the message that is being received in fragments.
    message: Option<Opcode>,
    /// Octets of the echo so far.
    got: usize,
    control: [u8; CONTROL_PAYLOAD],
    controlled: usize,
}

impl Default for Reader {
    fn default() -> Self {
        Self {
            carry: [0; SERVER_HEADER],
            carried: 0,
            frame: None,
            message: None,
            got: 0,
            control: [0; CONTROL_PAYLOAD],
            controlled: 0,
        }
    }
}

impl Reader {
    /// Payload of the control frame that was last complete.
    pub(super) fn control(&self) -> &[u8] {
        &self.control[..self.controlled]
    }

    /// Reads on in `octets`: how many of them are used up, and what came of it. Binary messages are the echo of
    /// `payload`; text is the server's own affair and passed over.
    ///
    /// # Errors
    /// What no server may send (§5), and what isn't the echo.
    pub(super) fn next(&mut self, octets: &[u8], payload: &[u8]) -> Result<(usize, Event), &'static str> {
        let mut at = 0;
        loop {
            let frame = match self.frame {
                Some(frame) => frame,
                None => {
                    let (used, header) = self.read_header(&octets[at..])?;
                    at += used;
                    let Some(frame) = header else { return Ok((at, Event::More)) };
                    self.begin(frame, payload)?;
                    frame
                }
            };
            let take = usize::try_from(frame.left).unwrap_or(usize::MAX).min(octets.len() - at);
            self.take(frame.opcode, &octets[at..at + take], payload)?;
            at += take;
            let left = frame.left - take as u64;
            if left > 0 {
                self.frame = Some(Frame { left, ..frame });
                return Ok((at, Event::More));
            }
            self.frame = None;
            if let Some(event) = self.end(frame, payload)? {
                return Ok((at, event));
            }
        }
    }

    fn read_header(&mut self, octets: &[u8]) -> Result<(usize, Option<Frame>), &'static str> {
        if self.carried == 0
            && let Some((frame, used)) = parse(octets)?
        {
            return Ok((used, Some(frame)));
        }
        for (place, &octet) in octets.iter().enumerate() {
            self.carry[self.carried] = octet;
            self.carried += 1;
            if let Some((frame, _)) = parse(&self.carry[..self.carried])? {
                self.carried = 0;
                return Ok((place + 1, Some(frame)));
            }
        }
        Ok((octets.len(), None))
    }

    /// Whether a frame may come here (§5.4), and what it says it carries fits.
    fn begin(&mut self, frame: Frame, payload: &[u8]) -> Result<(), &'static str> {
        if frame.opcode.is_control() {
            self.controlled = 0;
            return Ok(());
        }
        match (frame.opcode, self.message) {
            (Opcode::Continuation, None) => return Err("a continuation of no message"),
            (Opcode::Continuation, Some(_)) => {}
            (_, Some(_)) => return Err("a message inside another"),
            (opcode, None) => {
                self.message = Some(opcode);
                self.got = 0;
            }
        }
        let echo = self.message == Some(Opcode::Binary);
        if echo && frame.left > (payload.len() - self.got) as u64 {
            return Err("more came back than was sent");
        }
        Ok(())
    }

    fn take(&mut self, opcode: Opcode, octets: &[u8], payload: &[u8]) -> Result<(), &'static str> {
        if opcode.is_control() {
            let end = self.controlled + octets.len();
            self.control[self.controlled..end].copy_from_slice(octets);
            self.controlled = end;
        } else if self.message == Some(Opcode::Binary) {
            let end = self.got + octets.len();
            if payload.get(self.got..end) != Some(octets) {
                return Err("what came back isn't what was sent");
            }
            self.got = end;
        }
        Ok(())
    }

    fn end(&mut self, frame: Frame, payload: &[u8]) -> Result<Option<Event>, &'static str> {
        match frame.opcode {
            Opcode::Ping => return Ok(Some(Event::Ping)),
            Opcode::Close => return Ok(Some(Event::Close)),
            Opcode::Pong => return Ok(None),
            _ if !frame.fin => return Ok(None),
            _ => {}
        }
        let echo = self.message.take() == Some(Opcode::Binary);
        if echo && self.got < payload.len() {
            return Err("less came back than was sent");
        }
        Ok(echo.then_some(Event::Echoed))
    }
}

/// A server's frame header and its own length; `None` while it isn't complete.
fn parse(octets: &[u8]) -> Result<Option<(Frame, usize)>, &'static str> {
    let Some(&first) = octets.first() else { return Ok(None) };
    let fin = first & 0x80 != 0;
    if first & 0x70 != 0 {
        return Err("a frame with reserved bits");
    }
    let opcode = Opcode::from_bits(first & 0x0f).ok_or("a frame of a reserved kind")?;
    if opcode.is_control() && !fin {
        return Err("a fragmented control frame");
    }
    let Some(&second) = octets.get(1) else { return Ok(None) };
    // "A client MUST close a connection if it detects a masked frame" (§5.1). W2
    if second & 0x80 != 0 {
        return Err("a masked frame from a server");
    }
    if opcode.is_control() && usize::from(second) > CONTROL_PAYLOAD {
        return Err("a control frame that is too long");
    }
    let len = Header::parse_len(second, &octets[2..]).map_err(|_| "a frame length that isn't minimal")?;
    Ok(len.map(|(left, used)| (Frame { fin, opcode, left }, used)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(octets: &[u8], size: usize, payload: &[u8]) -> Result<Vec<Event>, &'static str> {
        let (mut reader, mut events) = (Reader::default(), Vec::new());
        for piece in octets.chunks(size) {
            let mut at = 0;
            loop {
                let (used, event) = reader.next(&piece[at..], payload)?;
                at += used;
                match event {
                    Event::More => break,
                    other => events.push(other),
                }
            }
        }
        Ok(events)
    }

    fn everywhere(octets: &[u8], payload: &[u8]) -> Result<Vec<Event>, &'static str> {
        let whole = read(octets, octets.len(), payload);
        for size in 1..octets.len() {
            assert_eq!(read(octets, size, payload), whole, "{octets:?} by {size}");
        }
        whole
    }

    #[test]
    fn echoes_pings_and_text_wherever_they_are_cut() {
        let frames = b"\x82\x05hello\x89\x02hi\x81\x03abc\x02\x02he\x8a\x00\x80\x03llo\x88\x02\x03\xe8";
        let expected = vec![Event::Echoed, Event::Ping, Event::Echoed, Event::Close];
        assert_eq!(everywhere(frames, b"hello"), Ok(expected));
        let payload = vec![7; 300];
        let long = [&[0x82, 126, 1, 44], payload.as_slice()].concat();
        assert_eq!(read(&long, 100, &payload), Ok(vec![Event::Echoed]));
        assert_eq!(everywhere(b"\x82\x00", b""), Ok(vec![Event::Echoed]));
    }

    #[test]
    fn w2_w3_what_no_server_may_send_is_an_error() {
        for frames in [
            &b"\x82\x85\0\0\0\0hello"[..],
            b"\xc2\x05hello",
            b"\x83\x05hello",
            b"\x09\x00",
            b"\x89\x7e\x00\x7e",
            b"\x82\x7e\x00\x05hello",
            b"\x82\x7f\x80\0\0\0\0\0\0\x05",
            b"\x80\x05hello",
            b"\x02\x02he\x82\x03llo",
            b"\x82\x06hello!",
            b"\x82\x04hell",
            b"\x82\x05hellx",
            b"\x82\x7f\x00\0\0\0\xff\xff\xff\xff",
        ] {
            assert!(everywhere(frames, b"hello").is_err(), "{frames:?}");
        }
    }

    #[test]
    fn our_frames_are_masked() {
        assert_eq!(ClientHeader::new(Opcode::Binary, 5, [1, 2, 3, 4]).as_slice(), [0x82, 0x85, 1, 2, 3, 4]);
        let long = ClientHeader::new(Opcode::Binary, 70_000, [1, 2, 3, 4]);
        assert_eq!(long.as_slice(), [0x82, 0xff, 0, 0, 0, 0, 0, 1, 0x11, 0x70, 1, 2, 3, 4]);
        assert_eq!(&key(*b"the sample nonce"), b"dGhlIHNhbXBsZSBub25jZQ==", "RFC 6455 §1.3");
    }
}
