//! `Date` (RFC 9110 §6.6.1): what time it is, as the program that runs the service tells it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use byway_tcp::time::{Duration, Instant};

/// `Date: Sun, 06 Nov 1994 08:49:37 GMT` and the line end.
const LEN: usize = 37;
const NANOS: u64 = 1_000_000_000;

/// The time of day. Clones share it: the program sets it, and each core writes it down once a second.
///
/// Until it is set nobody knows the time, and answers have no `Date`, which is what RFC 9110 asks of a server without
/// a clock.
#[derive(Clone, Debug)]
pub struct WallClock {
    /// Nanoseconds from 1970 to [`Instant::ZERO`]; 0: not known.
    zero: Arc<AtomicU64>,
    field: [u8; LEN],
    len: usize,
    /// `field` is right up to here.
    until: Instant,
}

impl Default for WallClock {
    fn default() -> Self {
        Self { zero: Arc::default(), field: [0; LEN], len: 0, until: Instant::ZERO }
    }
}

impl WallClock {
    /// It is now `unix` after 1970-01-01T00:00:00Z; `now` on the stack's clock. The clones know within a second. As
    /// often as the host's clock may be set: once a second is enough, and costs the cores nothing.
    pub fn set(&self, now: Instant, unix: Duration) {
        let unix = u64::try_from(unix.as_nanos()).unwrap_or(u64::MAX);
        self.zero.store(unix.saturating_sub(now.as_nanos()), Ordering::Relaxed);
    }

    /// Looks at the time, at most once a second.
    #[inline]
    pub(in crate::app) fn look(&mut self, now: Instant) {
        if now >= self.until {
            self.write(now);
        }
    }

    /// The whole line as of the last look; empty as long as the time isn't known.
    pub(super) fn field(&self) -> &[u8] {
        &self.field[..self.len]
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
        self.field = format(unix / NANOS);
        self.len = LEN;
    }
}

/// IMF-fixdate (RFC 9110 §5.6.7) of so many seconds after 1970; years have four digits.
fn format(unix: u64) -> [u8; LEN] {
    let (day, second) = (unix / 86_400, unix % 86_400);
    let (year, month, date) = civil(day);
    let mut field = *b"Date: Thu, 00 Jan 0000 00:00:00 GMT\r\n";
    let name = |names: &[u8], index: u64| -> [u8; 3] {
        let at = 3 * index as usize;
        [names[at], names[at + 1], names[at + 2]]
    };
    let mut digits = |at: usize, number: u64| {
        field[at] = b'0' + (number / 10 % 10) as u8;
        field[at + 1] = b'0' + (number % 10) as u8;
    };
    digits(11, date);
    digits(18, year / 100);
    digits(20, year);
    digits(23, second / 3600);
    digits(26, second / 60 % 60);
    digits(29, second % 60);
    // The first day was a Thursday.
    field[6..9].copy_from_slice(&name(b"ThuFriSatSunMonTueWed", day % 7));
    field[14..17].copy_from_slice(&name(b"JanFebMarAprMayJunJulAugSepOctNovDec", month));
    field
}

/// Year, month from 0, day of the month, of the day so many after 1970-01-01.
///
/// Years are counted from March, so that the leap day is their last, and in cycles of 400, all of 146,097 days.
fn civil(day: u64) -> (u64, u64, u64) {
    // Days from 0000-03-01 to 1970-01-01.
    let day = day + 719_468;
    let (cycle, day) = (day / 146_097, day % 146_097);
    // Leap days before this one: the 1,461st, not the 36,525th, and the last of a cycle.
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    // Months from March are 31, 30, 31, 30, 31 days long, twice and on: 153 in five.
    let month = (5 * day + 2) / 153;
    let date = day - (153 * month + 2) / 5 + 1;
    let year = 400 * cycle + year;
    if month < 10 { (year, month + 2, date) } else { (year + 1, month - 10, date) }
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
        ] {
            assert_eq!(text(unix), expected);
        }
    }

    /// Every day of eight centuries, against a calendar that counts days.
    #[test]
    fn every_day_follows_the_one_before() {
        let (mut year, mut month, mut date) = (1970, 0, 1);
        for day in 0..300_000 {
            assert_eq!(civil(day), (year, month, date), "day {day}");
            let leap = year % 4 == 0 && year % 100 != 0 || year % 400 == 0;
            let lengths = [31, if leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
            date += 1;
            if date > lengths[month as usize] {
                (date, month) = (1, month + 1);
            }
            if month == 12 {
                (month, year) = (0, year + 1);
            }
        }
    }

    #[test]
    fn it_is_written_when_the_second_changes() {
        let program = WallClock::default();
        let mut core = program.clone();
        core.look(Instant::from_millis(10));
        assert_eq!(core.field(), b"", "nobody knows");
        // 700 ms of the second are left.
        program.set(Instant::from_millis(500), Duration::from_millis(784_111_777_300));
        core.look(Instant::from_millis(1_009));
        assert_eq!(core.field(), b"", "not looked at yet");
        core.look(Instant::from_millis(1_010));
        assert_eq!(core.field(), b"Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n");
        core.look(Instant::from_millis(1_199));
        assert!(core.field().ends_with(b":37 GMT\r\n"));
        core.look(Instant::from_millis(1_200));
        assert!(core.field().ends_with(b":38 GMT\r\n"));
        // The host's clock is put back by an hour.
        program.set(Instant::from_millis(1_300), Duration::from_millis(784_108_178_100));
        core.look(Instant::from_millis(2_199));
        assert!(core.field().ends_with(b" 08:49:38 GMT\r\n"));
        core.look(Instant::from_millis(2_200));
        assert!(core.field().ends_with(b" 07:49:39 GMT\r\n"));
    }
}
