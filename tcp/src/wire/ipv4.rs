//! IPv4 (RFC 791).
//!
//! ```text
//!  0        1        2                 4                 6                 8
//!  ┌────┬────┬────────┬─────────────────┬─────────────────┬───┬─────────────┬────────┬────────┬──────────┐
//!  │ver │ihl │dscp ecn│  total length   │ identification  │flg│frag offset  │  TTL   │protocol│ checksum │
//!  ├────┴────┴────────┴─────────────────┼─────────────────┴───┴─────────────┼────────┴────────┴──────────┘
//!  │ 12: source                         │ 16: destination                   │ 20: options, to ihl × 4
//! ```

use core::net::Ipv4Addr;

use super::fragment::Fragment;
use super::ip::Header;
use super::{be16, be32, checksum, in_front, octets, put};
use crate::counters::DropReason;

/// Octets of a header without options.
pub(super) const MIN_LEN: usize = 20;

const TOTAL_LEN: usize = 2;
pub(super) const ID: usize = 4;
pub(super) const FRAGMENT: usize = 6;
const TTL: usize = 8;
const PROTOCOL: usize = 9;
pub(super) const CHECKSUM: usize = 10;
const SRC: usize = 12;
const DST: usize = 16;

const DONT_FRAGMENT: u16 = 0x4000;
const MORE_FRAGMENTS: u16 = 0x2000;
/// In units of eight octets.
const FRAGMENT_OFFSET: u16 = 0x1fff;

const OPTION_END: u8 = 0;
const OPTION_NOP: u8 = 1;
const OPTION_LSRR: u8 = 131;
const OPTION_SSRR: u8 = 137;

/// Reads the IPv4 header at `at`, and of which datagram it is a part, if it is one. The packet ends within `end` octets
/// of the frame's beginning, perhaps in other frames.
#[inline]
pub(super) fn parse(frame: &[u8], at: usize, end: usize) -> Result<(Header, Option<Fragment>), DropReason> {
    let fixed: &[u8; MIN_LEN] = octets(frame, at)?;
    let header_len = usize::from(fixed[0] & 0x0f) * 4;
    let total_len = usize::from(be16(fixed, TOTAL_LEN));
    // RFC 1122 §3.2.1.1 and L2: version and lengths must agree.
    if fixed[0] >> 4 != 4 || header_len < MIN_LEN || total_len < header_len {
        return Err(DropReason::IpHeader);
    }
    if end - at < total_len {
        return Err(DropReason::Truncated);
    }
    // RFC 1122 §3.2.1.2: verify every header, discard silently.
    let options = frame.get(at + MIN_LEN..at + header_len).ok_or(DropReason::Truncated)?;
    let words = [be32(fixed, 0), be32(fixed, 4), be32(fixed, 8), be32(fixed, SRC), be32(fixed, DST)];
    let sum = words.into_iter().map(u64::from).sum::<u64>();
    if !checksum::is_valid(sum + if options.is_empty() { 0 } else { checksum::sum(options) }) {
        return Err(DropReason::IpChecksum);
    }
    if !options.is_empty() {
        check_options(options)?;
    }
    let place = be16(fixed, FRAGMENT);
    let (offset, more) = (place & FRAGMENT_OFFSET, place & MORE_FRAGMENTS != 0);
    let fragment =
        (more || offset != 0).then(|| Fragment::from_offset(u32::from(be16(fixed, ID)), offset, more));
    let header = Header {
        src: Ipv4Addr::from_bits(be32(fixed, SRC)).into(),
        dst: Ipv4Addr::from_bits(be32(fixed, DST)).into(),
        protocol: fixed[PROTOCOL],
        ecn: fixed[1] & 0b11,
        hop_limit: fixed[TTL],
        payload: (at + header_len, total_len - header_len),
    };
    Ok((header, fragment))
}

/// Looks through at most 40 octets of options for a source route; the others say nothing that TCP
/// needs, and are skipped unread (RFC 7126 §4; L5).
fn check_options(mut options: &[u8]) -> Result<(), DropReason> {
    while let [kind, rest @ ..] = options {
        match *kind {
            OPTION_END => break,
            OPTION_NOP => options = rest,
            // An answer must not be led over a route of the sender's choice: not RFC 9293's MUST-53 (§3.9.2.1).
            OPTION_LSRR | OPTION_SSRR => return Err(DropReason::SourceRoute),
            _ => {
                let len = usize::from(*rest.first().ok_or(DropReason::IpHeader)?);
                if len < 2 {
                    return Err(DropReason::IpHeader);
                }
                options = options.get(len..).ok_or(DropReason::IpHeader)?;
            }
        }
    }
    Ok(())
}

/// Writes a header in front of `start`; see [`super::ip::emit`].
#[inline]
#[allow(clippy::too_many_arguments)] // One per header field.
pub(super) fn emit(
    frame: &mut [u8],
    start: usize,
    end: usize,
    src: Ipv4Addr,
    dst: Ipv4Addr,
    protocol: u8,
    traffic_class: u8,
    hop_limit: u8,
) -> usize {
    let at = start - MIN_LEN;
    let total_len = u16::try_from(end - at).expect("a frame is shorter than 64 KiB");
    let first = u32::from_be_bytes([0x45, traffic_class, 0, 0]) | u32::from(total_len);
    let place = u32::from(DONT_FRAGMENT);
    let hops = u32::from_be_bytes([hop_limit, protocol, 0, 0]);
    let (src, dst) = (src.to_bits(), dst.to_bits());
    let sum = checksum::finish([first, place, hops, src, dst].into_iter().map(u64::from).sum());
    let header = in_front::<MIN_LEN>(frame, start);
    put(header, 0, first.to_be_bytes());
    put(header, ID, place.to_be_bytes());
    put(header, TTL, (hops | u32::from(sum)).to_be_bytes());
    put(header, SRC, src.to_be_bytes());
    put(header, DST, dst.to_be_bytes());
    at
}
