//! Requests on their way to [`Conn::send`]: written straight into the frames that carry them.

use byway_tcp::app::Conn;

use super::websocket::ClientHeader;
use crate::app::ws::frame::Opcode;
use crate::app::ws::mask;

/// Sends `parts`, one after the other, from octet `sent` on; with a key, the last of them masked.
pub(super) fn parts<C: Conn>(conn: &mut C, parts: [&[u8]; 3], key: Option<[u8; 4]>, sent: &mut usize) {
    let total: usize = parts.iter().map(|part| part.len()).sum();
    while *sent < total && conn.send_room() > 0 {
        let Some(mut chunk) = conn.alloc() else { return };
        let mut room = conn.mss().min(conn.tailroom(&chunk));
        let mut begin = 0;
        for (number, part) in parts.iter().enumerate() {
            let from = (*sent + chunk.len()).saturating_sub(begin);
            begin += part.len();
            let Some(rest) = part.get(from..).filter(|_| *sent + chunk.len() < begin) else { continue };
            let octets = &rest[..rest.len().min(room)];
            let at = chunk.len();
            conn.append(&mut chunk, octets);
            if let Some(key) = key.filter(|_| number == 2) {
                mask::unmask(&mut conn.bytes_mut(&mut chunk)[at..], mask::rotate(key, from));
            }
            room -= octets.len();
        }
        let len = chunk.len();
        match conn.send(chunk) {
            Ok(()) => *sent += len,
            // Closed already, or no room after all: `closed` or `writable` follows.
            Err(refused) => return conn.release(refused),
        }
    }
}

/// A control frame, if there is room for it: without, the connection has other troubles.
pub(super) fn control<C: Conn>(conn: &mut C, opcode: Opcode, payload: &[u8], key: [u8; 4]) {
    let header = ClientHeader::new(opcode, payload.len() as u64, key);
    parts(conn, [header.as_slice(), &[], payload], Some(key), &mut 0);
}
