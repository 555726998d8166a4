//! Scripts as text: see `main.rs` for the language.

use std::path::Path;

use byway_tcp::tcb::state::State;

use crate::app::Event;
use crate::packet::{ACK, Ecn, Icmp, Opt, Packet};

/// Nanoseconds of virtual time, from the script's beginning or from the line before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum When {
    At(u64),
    After(u64),
    Between(u64, u64),
    BetweenAfter(u64, u64),
    /// Whenever it comes.
    Any,
    /// In one batch with the line before.
    WithLast,
}

#[derive(Clone, Debug)]
pub enum Action {
    Config(String, String),
    Listen {
        backlog: u32,
    },
    Connect,
    Write {
        octets: usize,
        taken: usize,
    },
    /// `None`: all there is, and whatever that is.
    Read(Option<usize>),
    Reads(bool),
    Nodelay(bool),
    /// Seconds.
    UserTimeout(Option<f64>),
    /// Seconds of silence, seconds between probes, probes.
    Keepalive(Option<(f64, f64, u8)>),
    /// Seconds.
    Linger(Option<f64>),
    Shutdown,
    Abort,
    Urgent,
    Drain,
    /// Frames to the stack, as one batch.
    Inject(Vec<(usize, Injected)>),
    Expect(Packet),
    Nothing,
    State(State),
    States(State, u32),
    Event(Event),
    NoEvent,
    Counter(String, Comparison, u64),
    Assert(String, Comparison, String),
}

#[derive(Clone, Debug)]
pub enum Injected {
    Segment(Packet),
    Icmp(Icmp),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Comparison(&'static str);

impl Comparison {
    const ALL: [&'static str; 5] = ["==", "<=", ">=", "<", ">"];

    pub fn holds(self, left: u64, right: u64) -> bool {
        match self.0 {
            "==" => left == right,
            "<=" => left <= right,
            ">=" => left >= right,
            "<" => left < right,
            _ => left > right,
        }
    }
}

/// One line.
#[derive(Clone, Debug)]
pub struct Step {
    /// File and line.
    pub place: String,
    pub text: String,
    pub when: When,
    /// Which connection; the first unless the line says `@2`.
    pub flow: usize,
    pub action: Action,
}

/// Reads a script, `include`s and all. `root`: where the scripts are.
pub fn script(path: &Path, root: &Path) -> Result<Vec<Step>, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let name = path.strip_prefix(root).unwrap_or(path).display().to_string();
    let mut steps: Vec<Step> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let place = format!("tcp/tests/scripts/{name}:{}", number + 1);
        let line = line.split_once("//").map_or(line, |(code, _)| code).trim();
        if line.is_empty() {
            continue;
        }
        if let Some(file) = line.strip_prefix("include ") {
            steps.extend(script(&root.join("include").join(file.trim()), root)?);
            continue;
        }
        let wrong = |error: String| format!("{place}: {error}\n  script:   {line}");
        for step in parse_line(line, &place).map_err(wrong)? {
            match (step.when, step.action, steps.last_mut()) {
                (When::WithLast, Action::Inject(more), Some(Step { action: Action::Inject(batch), .. })) => {
                    batch.extend(more);
                }
                (When::WithLast, ..) => return Err(wrong("`&` follows another injected frame".to_owned())),
                (when, action, _) => steps.push(Step { when, action, ..step }),
            }
        }
    }
    Ok(steps)
}

fn parse_line(line: &str, place: &str) -> Result<Vec<Step>, String> {
    let (first, rest) = word(line);
    let (when, code) = match parse_when(first)? {
        Some(when) => (when, rest),
        None => (When::After(0), line),
    };
    let (flow, rest) = connection(code)?;
    let (verb, rest) = word(&rest);
    let step = |when, action| Step { place: place.to_owned(), text: code.to_owned(), when, flow, action };
    let uncertain = matches!(when, When::Any | When::Between(..) | When::BetweenAfter(..));
    if uncertain && verb != ">" {
        return Err("only what byway sends comes at an uncertain time".to_owned());
    }
    if verb != "<" && verb != ">" {
        return Ok(vec![step(when, action(verb, rest)?)]);
    }
    let (times, rest) = repetition(rest)?;
    let repeats = uncertain || when == When::WithLast;
    (0..times)
        .map(|turn| {
            let when = if turn == 0 || repeats { when } else { When::After(0) };
            let action = match verb {
                "<" => Action::Inject(vec![(flow, injected(rest, turn)?)]),
                _ => Action::Expect(packet(rest, turn)?),
            };
            Ok(step(when, action))
        })
        .collect()
}

/// Which connection a line is about, and the line without that: `< @2 S …`, `write 100 @2`.
fn connection(code: &str) -> Result<(usize, String), String> {
    let Some((front, rest)) = code.split_once('@') else { return Ok((1, code.to_owned())) };
    let (name, rest) = word(rest);
    let flow = name.parse().map_err(|_| format!("connection `@{name}`"))?;
    Ok((flow, format!("{} {rest}", front.trim_end()).trim_end().to_owned()))
}

fn word(text: &str) -> (&str, &str) {
    let text = text.trim_start();
    let end = text.find(char::is_whitespace).unwrap_or(text.len());
    (&text[..end], text[end..].trim_start())
}

fn seconds(text: &str) -> Result<u64, String> {
    let value: f64 = text.parse().map_err(|_| format!("`{text}` isn't a number of seconds"))?;
    if value < 0.0 { Err(format!("time {text} lies in the past")) } else { Ok((value * 1e9).round() as u64) }
}

/// `0.1`, `+.2`, `0.1~0.2`, `+.1~+.2`, `*`, `&`; `None` if the word is no time.
fn parse_when(word: &str) -> Result<Option<When>, String> {
    if !word.starts_with(|c: char| c.is_ascii_digit() || "+.*&".contains(c)) {
        return Ok(None);
    }
    Ok(Some(match (word, word.split_once('~')) {
        ("*", _) => When::Any,
        ("&", _) => When::WithLast,
        (_, Some((from, to))) => {
            let (low, high) = (seconds(from.trim_start_matches('+'))?, seconds(to.trim_start_matches('+'))?);
            if from.starts_with('+') { When::BetweenAfter(low, high) } else { When::Between(low, high) }
        }
        (_, None) => match word.strip_prefix('+') {
            Some(offset) => When::After(seconds(offset)?),
            None => When::At(seconds(word)?),
        },
    }))
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("`{text}` isn't a number that fits here"))
}

fn on_off(text: &str) -> Result<bool, String> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(format!("`{text}`: on or off?")),
    }
}

fn action(verb: &str, rest: &str) -> Result<Action, String> {
    let (first, more) = word(rest);
    let nothing_more = |action| if rest.is_empty() { Ok(action) } else { Err(format!("`{rest}`?")) };
    match verb {
        "config" => Ok(Action::Config(first.to_owned(), more.to_owned())),
        "listen" => Ok(Action::Listen {
            backlog: match first {
                "" => 16,
                "backlog" => number(more)?,
                _ => return Err(format!("`{rest}`?")),
            },
        }),
        "connect" => nothing_more(Action::Connect),
        "accept" => nothing_more(Action::Event(Event::Opened)),
        "write" => {
            let octets = number(first)?;
            let taken = match more.strip_prefix("->") {
                Some(taken) => number(taken.trim())?,
                None => octets,
            };
            Ok(Action::Write { octets, taken })
        }
        "read" if rest == "all" => Ok(Action::Read(None)),
        "read" => Ok(Action::Read(Some(number(rest)?))),
        "reads" => Ok(Action::Reads(on_off(rest)?)),
        "nodelay" => Ok(Action::Nodelay(on_off(rest)?)),
        "user_timeout" if rest == "off" => Ok(Action::UserTimeout(None)),
        "user_timeout" => Ok(Action::UserTimeout(Some(number(rest)?))),
        "keepalive" if rest == "off" => Ok(Action::Keepalive(None)),
        "keepalive" => match rest.split_whitespace().collect::<Vec<_>>()[..] {
            [idle, interval, probes] => {
                Ok(Action::Keepalive(Some((number(idle)?, number(interval)?, number(probes)?))))
            }
            _ => Err("keepalive idle interval probes".to_owned()),
        },
        "linger" if rest == "off" => Ok(Action::Linger(None)),
        "linger" => Ok(Action::Linger(Some(number(rest)?))),
        "shutdown" => nothing_more(Action::Shutdown),
        "abort" => nothing_more(Action::Abort),
        "urgent" => nothing_more(Action::Urgent),
        "drain" => nothing_more(Action::Drain),
        "nothing" => nothing_more(Action::Nothing),
        "state" => Ok(Action::State(state(rest)?)),
        "states" => Ok(Action::States(state(first)?, number(more)?)),
        "event" if rest == "none" => Ok(Action::NoEvent),
        "event" => Event::named(first, Some(more).filter(|more| !more.is_empty()))
            .map(Action::Event)
            .ok_or_else(|| format!("no event `{rest}`")),
        "counter" => {
            let (how, value) = comparison(more)?;
            Ok(Action::Counter(first.to_owned(), how, number(value)?))
        }
        "assert" => {
            let (how, value) = comparison(more)?;
            Ok(Action::Assert(first.to_owned(), how, value.to_owned()))
        }
        _ => Err(format!("no such word: `{verb}`")),
    }
}

/// `counter X 3` is `counter X == 3`.
fn comparison(text: &str) -> Result<(Comparison, &str), String> {
    let (first, rest) = word(text);
    match Comparison::ALL.into_iter().find(|&how| how == first) {
        Some(how) => Ok((Comparison(how), rest)),
        None if !text.is_empty() => Ok((Comparison("=="), text)),
        None => Err("compared with what?".to_owned()),
    }
}

/// RFC 9293 §3.3.2's names.
fn state(name: &str) -> Result<State, String> {
    Ok(match name {
        "CLOSED" => State::Closed,
        "LISTEN" => State::Listen,
        "SYN-SENT" => State::SynSent,
        "SYN-RECEIVED" => State::SynReceived,
        "ESTABLISHED" => State::Established,
        "FIN-WAIT-1" => State::FinWait1,
        "FIN-WAIT-2" => State::FinWait2,
        "CLOSE-WAIT" => State::CloseWait,
        "CLOSING" => State::Closing,
        "LAST-ACK" => State::LastAck,
        "TIME-WAIT" => State::TimeWait,
        _ => return Err(format!("no state `{name}` in RFC 9293")),
    })
}

/// `3x . 1:1001(1000) ack 1`: three segments, each behind the one before.
fn repetition(text: &str) -> Result<(u32, &str), String> {
    let (first, rest) = word(text);
    match first.strip_suffix('x') {
        Some(times) if times.starts_with(|c: char| c.is_ascii_digit()) => Ok((number(times)?, rest)),
        _ => Ok((1, text)),
    }
}

fn injected(text: &str, turn: u32) -> Result<Injected, String> {
    if text.contains("icmp ") {
        return Ok(Injected::Icmp(icmp(text)?));
    }
    let mut packet = packet(text, turn)?;
    packet.window.get_or_insert(u16::MAX);
    if packet.options.is_none() {
        return Err("an injected segment's options have to be said".to_owned());
    }
    Ok(Injected::Segment(packet))
}

/// `12`, or `-1` for what lies before the beginning.
fn sequence(text: &str) -> Result<u32, String> {
    let value: i64 = number(text)?;
    u32::try_from(value.rem_euclid(1 << 32)).map_err(|_| format!("sequence number {text}"))
}

/// `1:1001(1000)`
fn range(text: &str) -> Result<(u32, u32), String> {
    let wrong = || format!("`{text}` isn't first:end(length)");
    let (first, rest) = text.split_once(':').ok_or_else(wrong)?;
    let (end, len) = rest.strip_suffix(')').and_then(|rest| rest.split_once('(')).ok_or_else(wrong)?;
    let (first, end, len) = (sequence(first)?, sequence(end)?, number(len)?);
    if first.wrapping_add(len) == end { Ok((first, len)) } else { Err(format!("`{text}` doesn't add up")) }
}

fn packet(text: &str, turn: u32) -> Result<Packet, String> {
    let (text, options) = match text.split_once('<') {
        None => (text, Some(Vec::new())),
        Some((front, options)) => {
            let options =
                options.trim().strip_suffix('>').ok_or("options end with `>`, and the line, too")?;
            (front, if options == "..." { None } else { Some(parse_options(options)?) })
        }
    };
    let mut packet = Packet { options, ..Packet::default() };
    let (mut flags, mut rest) = word(text);
    if let Some(name) = flags.strip_prefix('[').and_then(|flags| flags.strip_suffix(']')) {
        packet.ecn = Ecn::NAMED
            .into_iter()
            .find_map(|(ecn, value)| (ecn == name).then_some(value))
            .ok_or_else(|| format!("`[{name}]`: {:?}", Ecn::NAMED.map(|(name, _)| name)))?;
        (flags, rest) = word(rest);
    }
    packet.flags = Packet::flags_of(flags).ok_or_else(|| format!("flags `{flags}`"))?;
    let (numbers, mut rest) = word(rest);
    (packet.seq, packet.len) = range(numbers)?;
    packet.seq = packet.seq.wrapping_add(turn * packet.len);
    while !rest.is_empty() {
        let (what, more) = word(rest);
        let (value, after) = word(more);
        rest = after;
        match what {
            "ack" => packet.ack = Some(sequence(value)?),
            "win" => packet.window = Some(number(value)?),
            "urg" => packet.urgent = Some(number(value)?),
            "badsum" => {
                packet.bad_checksum = true;
                rest = more;
            }
            "othertext" => {
                packet.other_text = true;
                rest = more;
            }
            _ => return Err(format!("`{what}` in a segment")),
        }
    }
    if packet.has(ACK) && packet.ack.is_none() {
        return Err("`.` without `ack`".to_owned());
    }
    Ok(packet)
}

fn parse_options(text: &str) -> Result<Vec<Opt>, String> {
    text.split(',').map(str::trim).filter(|option| !option.is_empty()).map(option).collect()
}

fn option(text: &str) -> Result<Opt, String> {
    let (name, rest) = word(text);
    let stamp = |text: &str| if text == "any" { Ok(None) } else { number(text).map(Some) };
    Ok(match name {
        "nop" => Opt::Nop,
        "mss" => Opt::Mss(number(rest)?),
        "wscale" => Opt::Scale(number(rest)?),
        "sackOK" => Opt::SackOk,
        "TS" => match rest.split_whitespace().collect::<Vec<_>>()[..] {
            ["val", value, "ecr", echo] => Opt::Timestamps(stamp(value)?, stamp(echo)?),
            _ => return Err(format!("`{text}` isn't `TS val 1 ecr 2`")),
        },
        "sack" => {
            let block = |block: &str| {
                let (left, right) = block.split_once(':').ok_or_else(|| format!("SACK block `{block}`"))?;
                Ok((sequence(left)?, sequence(right)?))
            };
            Opt::Sack(rest.split_whitespace().map(block).collect::<Result<_, String>>()?)
        }
        "unk" => {
            let (kind, octets) = word(rest);
            Opt::Unknown(number(kind)?, hex(octets)?)
        }
        "raw" => Opt::Raw(hex(rest)?),
        _ => return Err(format!("no option `{text}`")),
    })
}

fn hex(text: &str) -> Result<Vec<u8>, String> {
    let digits = text.trim_start_matches("0x");
    let octet = |at: usize| digits.get(at..at + 2).and_then(|octet| u8::from_str_radix(octet, 16).ok());
    (0..digits.len()).step_by(2).map(|at| octet(at).ok_or_else(|| format!("hexadecimal `{text}`"))).collect()
}

/// `[1:1001(1000)] icmp unreachable frag_needed mtu 1400`: about that segment of ours.
fn icmp(text: &str) -> Result<Icmp, String> {
    let (quoted, rest) = text
        .strip_prefix('[')
        .and_then(|text| text.split_once(']'))
        .ok_or("an ICMP error begins with what it quotes: [1:1001(1000)]")?;
    let (seq, len) = range(quoted.trim())?;
    let words: Vec<&str> = rest.split_whitespace().collect();
    let (kind, code, rest) = match words[..] {
        ["icmp", "unreachable", "net"] => (3, 0, 0),
        ["icmp", "unreachable", "host"] => (3, 1, 0),
        ["icmp", "unreachable", "protocol"] => (3, 2, 0),
        ["icmp", "unreachable", "port"] => (3, 3, 0),
        ["icmp", "unreachable", "frag_needed", "mtu", mtu] => (3, 4, number(mtu)?),
        ["icmp", "unreachable", "source_route_failed"] => (3, 5, 0),
        ["icmp", "unreachable", "prohibited"] => (3, 13, 0),
        ["icmp", "source_quench"] => (4, 0, 0),
        ["icmp", "time_exceeded"] => (11, 0, 0),
        ["icmp", "parameter_problem"] => (12, 0, 0),
        ["icmp", "v6", "unreachable", "no_route"] => (1, 0, 0),
        ["icmp", "v6", "unreachable", "port"] => (1, 4, 0),
        ["icmp", "v6", "packet_too_big", "mtu", mtu] => (2, 0, number(mtu)?),
        _ => return Err(format!("`{}`", rest.trim())),
    };
    Ok(Icmp { kind, code, rest, seq, len })
}
