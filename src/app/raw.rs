//! The raw TCP services: echo (RFC 862), discard (RFC 863), chargen (RFC 864).

use byway_tcp::app::Conn;

/// Sends back what arrives, in the frames it arrived in; closes when the peer has.
pub(super) fn echo<C: Conn>(conn: &mut C) {
    // Taking no more than can be sent is the back-pressure: the window closes behind it.
    while conn.send_room() > 0 {
        let Some(chunk) = conn.recv() else { break };
        if let Err(refused) = conn.send(chunk) {
            conn.release(refused);
        }
    }
    close_after_peer(conn);
}

/// Throws away what arrives; closes when the peer has.
pub(super) fn discard<C: Conn>(conn: &mut C) {
    while let Some(chunk) = conn.recv() {
        conn.release(chunk);
    }
    close_after_peer(conn);
}

/// FIN for FIN, once all is read.
fn close_after_peer<C: Conn>(conn: &mut C) {
    if conn.recv_finished() {
        conn.shutdown();
    }
}

/// Printable ASCII characters, space to tilde (RFC 864).
const PRINTABLE: usize = 95;
/// Characters in a line of the popular pattern (RFC 864).
const LINE: usize = 72;
/// The pattern repeats after a line for each printable character.
const PERIOD: usize = PRINTABLE * (LINE + 2);

/// One period: lines of 72 characters, each line one character further round the ring.
static PATTERN: [u8; PERIOD] = {
    let mut pattern = [0; PERIOD];
    let mut line = 0;
    while line < PRINTABLE {
        let at = line * (LINE + 2);
        let mut column = 0;
        while column < LINE {
            pattern[at + column] = b' ' + ((line + column) % PRINTABLE) as u8;
            column += 1;
        }
        pattern[at + LINE] = b'\r';
        pattern[at + LINE + 1] = b'\n';
        line += 1;
    }
    pattern
};

/// Where a connection stands in the character generator's pattern.
#[derive(Debug, Default)]
pub(super) struct Chargen {
    /// Offset into [`PATTERN`].
    at: usize,
}

impl Chargen {
    /// Throws away what arrives, and sends the pattern as fast as the peer takes it until the peer
    /// closes.
    pub(super) fn ready<C: Conn>(&mut self, conn: &mut C) {
        discard(conn);
        if conn.recv_finished() {
            return;
        }
        while conn.send_room() > 0 {
            let Some(mut chunk) = conn.alloc() else { break };
            let mut left = conn.mss().min(conn.tailroom(&chunk));
            while left > 0 {
                let step = left.min(PERIOD - self.at);
                conn.append(&mut chunk, &PATTERN[self.at..self.at + step]);
                self.at = (self.at + step) % PERIOD;
                left -= step;
            }
            if let Err(refused) = conn.send(chunk) {
                conn.release(refused);
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{CHARGEN, DISCARD, ECHO, Peer};
    use super::*;

    #[test]
    fn rfc862_echo_sends_the_very_frames_back() {
        let mut peer = Peer::connect(ECHO);
        let data: Vec<u8> = (0..100_000u32).map(|i| (i % 251) as u8).collect();
        peer.send(&data);
        assert_eq!(peer.received(), data);
        assert_eq!(peer.copied(), 0);
        peer.finish();
        assert!(peer.server_finished());
        peer.close();
    }

    #[test]
    fn rfc862_echo_takes_no_more_than_it_can_send() {
        let mut peer = Peer::connect(ECHO);
        peer.set_room(2);
        peer.hold_acks(true);
        peer.send(&[7; 10_000]);
        assert_eq!(peer.chunks_sent(), 2);
        assert!(peer.unread() > 0, "the rest waits in the receive queue");
        peer.hold_acks(false);
        peer.pump();
        assert_eq!(peer.received(), [7; 10_000]);
        peer.close();
    }

    #[test]
    fn rfc863_discard_answers_nothing() {
        let mut peer = Peer::connect(DISCARD);
        peer.send(&[1; 5000]);
        assert_eq!((peer.received().len(), peer.unread()), (0, 0));
        peer.finish();
        assert!(peer.server_finished());
        peer.close();
    }

    #[test]
    fn rfc864_chargen_sends_the_rotating_pattern() {
        let mut peer = Peer::connect(CHARGEN);
        peer.hold_acks(true);
        for _ in 0..100 {
            peer.pump_once();
        }
        let text = peer.received();
        assert!(text.len() > 2 * PERIOD);
        let printable: Vec<u8> = (b' '..=b'~').collect();
        for (number, line) in text.chunks_exact(LINE + 2).enumerate() {
            let expected: Vec<u8> = (0..LINE).map(|i| printable[(number + i) % PRINTABLE]).collect();
            assert_eq!((&line[..LINE], &line[LINE..]), (&expected[..], &b"\r\n"[..]), "line {number}");
        }
        peer.send(b"ignored");
        peer.finish();
        assert!(peer.server_finished());
        peer.close();
    }
}
