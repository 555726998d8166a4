//! IPv6 (RFC 8200) and its extension headers, walked with a bound (L10).
//!
//! ```text
//!  0                          4                 6        7        8               24              40
//!  ┌────┬──────────┬──────────┬─────────────────┬────────┬────────┬───────────────┬───────────────┐
//!  │ver │ class(8) │flow label│ payload length  │ next   │hop lim.│ source        │ destination   │
//!  └────┴──────────┴──────────┴─────────────────┴────────┴────────┴───────────────┴───────────────┘
//! ```

use core::net::Ipv6Addr;

use super::fragment::{self, Fragment};
use super::ip::Header;
use super::{be16, be32, in_front, octets, put};
use crate::counters::DropReason;

/// Octets of the fixed header.
pub(super) const FIXED_LEN: usize = 40;

const PAYLOAD_LEN: usize = 4;
const NEXT_HEADER: usize = 6;
const HOP_LIMIT: usize = 7;
const SRC: usize = 8;
const DST: usize = 24;

/// Next-header values that are walked over.
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
pub(super) const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;

/// Extension headers walked before giving up. RFC 8200 §4.1 lists six that may occur, one of them
/// twice; RFC 8504 §5.3 lets a host limit the chain.
const MAX_EXTENSIONS: usize = 8;
/// Options read in one header before giving up: Linux's default of `max_dst_opts_number`,
/// doubled because we count padding.
const MAX_OPTIONS: usize = 16;

/// Reads the IPv6 header at `at` and walks its extension headers; of which datagram it is a part, if it is one.
/// The packet ends within `most` octets of the frame's beginning, perhaps in other frames.
#[inline]
pub(super) fn parse(frame: &[u8], at: usize, most: usize) -> Result<(Header, Option<Fragment>), DropReason> {
    let fixed: &[u8; FIXED_LEN] = octets(frame, at)?;
    if fixed[0] >> 4 != 6 {
        return Err(DropReason::IpHeader);
    }
    let start = at + FIXED_LEN;
    let end = start + usize::from(be16(fixed, PAYLOAD_LEN));
    if most < end {
        return Err(DropReason::Truncated);
    }
    let (protocol, skip, fragment) = match fixed[NEXT_HEADER] {
        next @ (HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION_OPTIONS) => {
            walk_extensions(&frame[start..end.min(frame.len())], next)?
        }
        next => (next, 0, None),
    };
    let header = Header {
        src: Ipv6Addr::from(*octets::<16>(fixed, SRC)?).into(),
        dst: Ipv6Addr::from(*octets::<16>(fixed, DST)?).into(),
        protocol,
        ecn: (fixed[1] >> 4) & 0b11,
        hop_limit: fixed[HOP_LIMIT],
        payload: (start + skip, end - start - skip),
    };
    Ok((header, fragment))
}

/// The upper-layer protocol behind a chain of extension headers, and the chain's octets. A fragment ends it:
/// what follows may lie anywhere in the datagram.
fn walk_extensions(chain: &[u8], mut next: u8) -> Result<(u8, usize, Option<Fragment>), DropReason> {
    let mut at = 0;
    for index in 0..=MAX_EXTENSIONS {
        if !matches!(next, HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION_OPTIONS) {
            return Ok((next, at, None));
        }
        if index == MAX_EXTENSIONS {
            break;
        }
        // Every one of them starts with the next header and its own length, and has 8 octets at least.
        let head: &[u8; 8] = octets(chain, at)?;
        let len = if next == FRAGMENT { fragment::HEADER_LEN } else { 8 + 8 * usize::from(head[1]) };
        let body = chain.get(at..at + len).ok_or(DropReason::Truncated)?;
        match next {
            // RFC 8200 §4.1: only directly after the fixed header.
            HOP_BY_HOP if index > 0 => return Err(DropReason::ExtensionHeaders),
            HOP_BY_HOP | DESTINATION_OPTIONS => check_options(&body[2..])?,
            // RFC 5095 §3: type 0 is dead. RFC 8200 §4.4: a type we don't know may be skipped only
            // when no segment is left.
            ROUTING if head[2] == 0 || head[3] != 0 => return Err(DropReason::ExtensionHeaders),
            ROUTING => {}
            // Offset 13 bits, 2 reserved, M. An atomic fragment (RFC 6946 §4) is whole.
            FRAGMENT if be16(head, 2) & 0xfff9 != 0 => {
                let (offset, more) = (be16(head, 2) >> 3, head[3] & 1 != 0);
                let fragment = Fragment::from_offset(be32(head, 4), offset, more);
                return Ok((head[0], at + len, Some(fragment)));
            }
            _ => {}
        }
        next = head[0];
        at += len;
    }
    Err(DropReason::ExtensionHeaders)
}

/// Refuses options that must be understood (RFC 8200 §4.2: the kind's two highest bits aren't 00).
fn check_options(mut options: &[u8]) -> Result<(), DropReason> {
    const PAD_1: u8 = 0;
    for _ in 0..MAX_OPTIONS {
        match options {
            [] => return Ok(()),
            [PAD_1, rest @ ..] => options = rest,
            [kind, len, rest @ ..] => {
                if kind >> 6 != 0 {
                    return Err(DropReason::ExtensionHeaders);
                }
                options = rest.get(usize::from(*len)..).ok_or(DropReason::IpHeader)?;
            }
            [_] => return Err(DropReason::IpHeader),
        }
    }
    if options.is_empty() { Ok(()) } else { Err(DropReason::ExtensionHeaders) }
}

/// Writes a header in front of `start`; see [`super::ip::emit`].
#[inline]
#[allow(clippy::too_many_arguments)] // One per header field.
pub(super) fn emit(
    frame: &mut [u8],
    start: usize,
    end: usize,
    src: Ipv6Addr,
    dst: Ipv6Addr,
    protocol: u8,
    traffic_class: u8,
    hop_limit: u8,
) -> usize {
    let at = start - FIXED_LEN;
    let payload_len = u16::try_from(end - start).expect("a frame is shorter than 64 KiB");
    let header = in_front::<FIXED_LEN>(frame, start);
    header[0] = 0x60 | traffic_class >> 4;
    header[1] = traffic_class << 4;
    put(header, 2, [0; 2]);
    put(header, PAYLOAD_LEN, payload_len.to_be_bytes());
    header[NEXT_HEADER] = protocol;
    header[HOP_LIMIT] = hop_limit;
    put(header, SRC, src.octets());
    put(header, DST, dst.octets());
    at
}
