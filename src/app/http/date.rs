//! `Date` (RFC 9110 §6.6.1): what time it is, as the program that runs the service tells it.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::UNIX_EPOCH;

use byway_tcp::time::{Duration, Instant};
use httpdate::HttpDate;

/// `Date: Sun, 06 Nov 1994 08:49:37 GMT` and the line end.
const LEN: usize = 37;
const NANOS: u64 = 1_000_000_000;
/// The last second of the year 9999.
const LAST: u64 = 253_402_300_799;

/// The time of day. Clones share it: the program sets it, and each core writes it down once a second.
///
/// Until it is set nobody knows the time, and answers have no `Date`, which is what RFC 9110 asks of a server without
/// a clock.
#[derive(Clone, Debug)]
pub struct WallClock {
    /// Nanoseconds from 1970 to [`Instant::ZERO`]; 0: not known.
    zero: Arc<AtomicU64>,
    field: Option<[u8; LEN]>,
    /// `field` is right up to here.
    until: Instant,
}

impl Default for WallClock {
    fn default() -> Self {
        Self { zero: Arc::default(), field: None, until: Instant::ZERO }
    }
}

impl WallClock {
    /// It is now `unix` after 1970-01-01T00:00:00Z; `now` on the stack's clock. The clones know within a second. As
    /// often as the host's clock may be set: once a second is enough, and costs the cores nothing.
    pub fn set(&self, now: Instant, unix: Duration) {
        self.zero.store(unix.as_nanos().saturating_sub(now.as_nanos()), Ordering::Relaxed);
    }

    /// Looks at the time, at most once a second.
    #[inline]
    pub(in crate::app) fn look(&mut self, now: Instant) {
        if now >= self.until {
            self.write(now);
        }
    }

    /// The whole line as of the last look, if the time is known.
    pub(super) fn field(&self) -> Option<&[u8; LEN]> {
        self.field.as_ref()
    }

    #[cold]
    fn write(&mut self, now: Instant) {
        let zero = self.zero.load(Ordering::Relaxed);
        if zero == 0 {
            self.until = now + Duration::from_secs(1);
            return;
        }
        let unix = zero.saturating_add(now.as_nanos());
        self.until = now + Duration::from_nanos(NANOS - unix % NANOS);
        self.field = Some(format(unix / NANOS));
    }
}

/// The line for so many seconds after 1970 (RFC 9110 §5.6.7). Years have four digits: the last second of 9999 is the last.
fn format(unix: u64) -> [u8; LEN] {
    let time = UNIX_EPOCH + core::time::Duration::from_secs(unix.min(LAST));
    let mut field = [0; LEN];
    let written = write!(&mut field[..], "Date: {}\r\n", HttpDate::from(time));
    debug_assert!(written.is_ok());
    field
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(unix: u64) -> String {
        let field = String::from_utf8(format(unix).to_vec()).expect("ASCII");
        field
            .strip_prefix("Date: ")
            .and_then(|field| field.strip_suffix(" GMT\r\n"))
            .expect("a field")
            .to_owned()
    }

    #[test]
    fn dates_as_date_1_gives_them() {
        for (unix, expected) in [
            (0, "Thu, 01 Jan 1970 00:00:00"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37"),
            (951_782_399, "Mon, 28 Feb 2000 23:59:59"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00"),
            (2_147_483_648, "Tue, 19 Jan 2038 03:14:08"),
            (4_107_542_400, "Mon, 01 Mar 2100 00:00:00"),
            (253_402_300_799, "Fri, 31 Dec 9999 23:59:59"),
            (u64::MAX, "Fri, 31 Dec 9999 23:59:59"),
        ] {
            assert_eq!(text(unix), expected);
        }
    }

    #[test]
    fn it_is_written_when_the_second_changes() {
        let program = WallClock::default();
        let mut core = program.clone();
        core.look(Instant::from_millis(10));
        assert_eq!(core.field(), None, "nobody knows");
        // 700 ms of the second are left.
        program.set(Instant::from_millis(500), Duration::from_millis(784_111_777_300));
        core.look(Instant::from_millis(1_009));
        assert_eq!(core.field(), None, "not looked at yet");
        core.look(Instant::from_millis(1_010));
        assert_eq!(core.field(), Some(b"Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n"));
        core.look(Instant::from_millis(1_199));
        assert!(core.field().expect("a time").ends_with(b":37 GMT\r\n"));
        core.look(Instant::from_millis(1_200));
        assert!(core.field().expect("a time").ends_with(b":38 GMT\r\n"));
        // The host's clock is put back by an hour.
        program.set(Instant::from_millis(1_300), Duration::from_millis(784_108_178_100));
        core.look(Instant::from_millis(2_199));
        assert!(core.field().expect("a time").ends_with(b" 08:49:38 GMT\r\n"));
        core.look(Instant::from_millis(2_200));
        assert!(core.field().expect("a time").ends_with(b" 07:49:39 GMT\r\n"));
    }
}
