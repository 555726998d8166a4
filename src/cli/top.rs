//! `byway top`: what a running byway does, each second anew.
//!
//! Plain control sequences on the terminal's other screen, which every terminal of the last decades knows: a library
//! would bring a dozen crates for five of them. The keyboard stays the shell's; Ctrl-C ends it.

use std::io::{self, IsTerminal as _, Write};
use std::sync::atomic::Ordering;
use std::time::Duration;

use byway_datapath::clock::Clock;
use byway_tcp::counters::DropReason;
use clap::Args;

use super::control::Target;
use super::failure::Failure;
use super::options::duration;
use super::serve::stop_flag;
use super::stats::{self, Named, Stats};

/// How often a look is taken whether it is to end.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Reasons for discarding that are shown: the rest is in `byway stats`.
const REASONS_MAX: usize = 8;

/// The other screen, no cursor, long lines cut off; and back.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l";
const LEAVE: &str = "\x1b[?7h\x1b[?25h\x1b[?1049l";

/// Options of `byway top`.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Time between two looks
    #[arg(short, long, value_name = "TIME", default_value = "1s", value_parser = interval)]
    interval: Duration,

    /// End after so many
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,

    #[command(flatten)]
    target: Target,
}

/// No shorter: the cores are asked each time.
fn interval(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        time if time < Duration::from_millis(100) => Err("give 100ms or more".to_owned()),
        time => Ok(time),
    }
}

/// Shows until a signal comes, there was enough, or byway ends.
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let stop = stop_flag(&[libc::SIGTERM, libc::SIGINT])?;
    let look = || Ok::<_, Failure>((Clock.now(), stats::ask(&options.target)?.1));
    let mut before = look()?;
    let mut screen = Screen::enter();
    let mut shown = 0;
    while options.count.is_none_or(|count| shown < count) {
        let until = before.0 + options.interval;
        while Clock.now() < until {
            if stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            std::thread::sleep(LOOK_EVERY.min(until.since(Clock.now()).into()));
        }
        let now = look()?;
        let seconds = now.0.since(before.0).as_nanos() as f64 / 1e9;
        if screen.show(&lines(&before.1, &now.1, seconds)).is_err() {
            // The reader has seen enough (`| head`).
            return Ok(());
        }
        before = now;
        shown += 1;
    }
    Ok(())
}

/// Standard output; a terminal is left as it was.
struct Screen {
    is_terminal: bool,
}

impl Screen {
    fn enter() -> Self {
        let is_terminal = io::stdout().is_terminal();
        if is_terminal {
            let _ = write!(io::stdout(), "{ENTER}");
        }
        Self { is_terminal }
    }

    fn show(&mut self, lines: &[String]) -> io::Result<()> {
        let mut text = String::new();
        for (row, line) in lines.iter().enumerate() {
            if self.is_terminal {
                // To its row, and the rest of that erased.
                text.push_str(&format!("\x1b[{};1H{line}\x1b[K", row + 1));
            } else {
                text.push_str(line);
                text.push('\n');
            }
        }
        // What an earlier one has left below; or between two in a file.
        text.push_str(if self.is_terminal { "\x1b[J" } else { "\n" });
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.flush()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if self.is_terminal {
            let mut out = io::stdout().lock();
            let _ = write!(out, "{LEAVE}").and_then(|()| out.flush());
        }
    }
}

fn value(values: &Named, name: &str) -> u64 {
    values.get(name).copied().unwrap_or(0)
}

/// What happened in `seconds` between two looks.
fn lines(before: &Stats, now: &Stats, seconds: f64) -> Vec<String> {
    // A byway that was started anew counts from 0.
    let rate_of = |before: &Named, now: &Named, name: &str| {
        value(now, name).saturating_sub(value(before, name)) as f64 / seconds
    };
    let rate = |name: &str| rate_of(&before.counters, &now.counters, name);
    let megabits = |name: &str| rate(name) * 8.0 / 1e6;
    let mut lines = vec![
        format!("byway on {} ({})", now.interface, now.backend),
        String::new(),
        format!(
            "answered/s {:>12.0}   opened/s {:>10.0}   retransmitted/s {:>8.0}   timeouts/s {:>6.0}",
            rate("BywayAnswered"),
            rate("TcpPassiveOpens") + rate("TcpActiveOpens"),
            rate("TcpRetransSegs"),
            rate("TcpExtTCPTimeouts")
        ),
    ];
    if now.backend == "xdp" {
        for (way, frames, octets, segments) in [
            ("in ", "BywayFramesIn", "BywayOctetsIn", "TcpInSegs"),
            ("out", "BywayFramesOut", "BywayOctetsOut", "TcpOutSegs"),
        ] {
            let (frames, segments, megabits) = (rate(frames), rate(segments), megabits(octets));
            lines.push(format!(
                "{way} frames/s {frames:>10.0}   segments/s {segments:>8.0}   Mbit/s {megabits:>17.1}"
            ));
        }
    } else {
        let of = |name| rate_of(&before.sockets, &now.sockets, name);
        lines.push(format!("reads/s {:>15.0}   Mbit/s {:>12.1}", of("reads"), of("octets_in") * 8.0 / 1e6));
        lines.push(format!(
            "writes/s {:>14.0}   Mbit/s {:>12.1}",
            of("writes"),
            of("octets_out") * 8.0 / 1e6
        ));
    }
    lines.push(String::new());
    lines.push(format!(
        "{:>4} {:>5} {:>12} {:>8} {:>9} {:>12} {:>12} {:>12}",
        "core", "queue", "turns/s", "busy %", "stalls/s", "longest gap", "connections", "free frames"
    ));
    for core in &now.cores {
        let none = Named::new();
        let earlier =
            before.cores.iter().find(|other| other.core == core.core).map_or(&none, |core| &core.turns);
        let turns = rate_of(earlier, &core.turns, "turns");
        let busy = rate_of(earlier, &core.turns, "busy_turns") / turns.max(1.0) * 100.0;
        let stalls = rate_of(earlier, &core.turns, "stalls");
        let gap = format!("{:.3} ms", value(&core.turns, "gap_max_ns") as f64 / 1e6);
        let open: u64 =
            core.connections.iter().filter(|(state, _)| *state != "LISTEN").map(|(_, count)| count).sum();
        let free = value(&core.frames, "free") as f64 / value(&core.frames, "total").max(1) as f64 * 100.0;
        lines.push(format!(
            "{:>4} {:>5} {turns:>12.0} {busy:>8.1} {stalls:>9.0} {gap:>12} {open:>12} {free:>10.0} %",
            core.core, core.queue
        ));
    }
    lines.push(String::new());
    let open = now.connections.iter().filter(|(_, count)| **count > 0);
    let open: Vec<String> = open.map(|(state, count)| format!("{state} {count}")).collect();
    lines.push(format!("connections: {}", open.join(", ")));
    lines.push(format!("discarded/s: {}", discarded(rate)));
    lines
}

/// The busiest reasons.
fn discarded(rate: impl Fn(&str) -> f64) -> String {
    let rates = DropReason::ALL.iter().map(|reason| (reason.name(), rate(reason.name())));
    let mut busy: Vec<(&str, f64)> = rates.filter(|&(_, rate)| rate > 0.0).collect();
    busy.sort_by(|one, other| other.1.total_cmp(&one.1));
    busy.truncate(REASONS_MAX);
    match busy.as_slice() {
        [] => "nothing".to_owned(),
        busy => busy.iter().map(|(name, rate)| format!("{name} {rate:.1}")).collect::<Vec<_>>().join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats(factor: u64) -> Stats {
        let named =
            |values: &[(&str, u64)]| values.iter().map(|&(name, value)| (name.to_owned(), value)).collect();
        let counters = [
            ("BywayAnswered", 1000 * factor),
            ("BywayOctetsIn", 250_000 * factor),
            ("TcpInCsumErrors", factor),
            ("IpInHdrErrors", 3 * factor),
        ];
        let turns =
            named(&[("turns", 1000 * factor), ("busy_turns", 250 * factor), ("gap_max_ns", 1_500_000)]);
        Stats {
            interface: "eth1".to_owned(),
            backend: "xdp".to_owned(),
            counters: named(&counters),
            connections: named(&[("ESTAB", 3), ("LISTEN", 1), ("CLOSING", 0)]),
            steering: Named::new(),
            xsk: Named::new(),
            sockets: Named::new(),
            turns: Named::new(),
            frames: Named::new(),
            cores: vec![stats::Core {
                core: 2,
                queue: 0,
                connections: named(&[("ESTAB", 3), ("LISTEN", 1)]),
                frames: named(&[("free", 50), ("total", 200)]),
                turns,
            }],
        }
    }

    #[test]
    fn rates_are_those_between_two_looks() {
        let text = lines(&stats(1), &stats(3), 2.0).join("\n");
        let words: Vec<&str> = text.split_whitespace().collect();
        let after = |word: &str| words[words.iter().position(|other| *other == word).expect("there") + 1];
        assert_eq!(after("answered/s"), "1000");
        assert_eq!(after("Mbit/s"), "2.0");
        assert!(text.contains("connections: ESTAB 3, LISTEN 1\n"), "{text}");
        assert!(text.contains("discarded/s: IpInHdrErrors 3.0, TcpInCsumErrors 1.0"), "{text}");
        let core: Vec<&str> = text
            .lines()
            .find(|line| line.trim_start().starts_with("2 "))
            .expect("a core")
            .split_whitespace()
            .collect();
        assert_eq!(core, ["2", "0", "1000", "25.0", "0", "1.500", "ms", "3", "25", "%"]);
    }

    #[test]
    fn a_byway_that_was_started_anew_has_no_rate_below_nothing() {
        let text = lines(&stats(3), &stats(1), 1.0).join("\n");
        assert!(!text.contains('-'), "{text}");
        assert!(text.contains("discarded/s: nothing"), "{text}");
    }
}
