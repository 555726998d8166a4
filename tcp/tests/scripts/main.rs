//! Script tests: what a peer says, what byway answers, and when, in a language after packetdrill's.
//!
//! Every `*.pkt` below this folder is a test by the name of its path: `cargo test -p byway-tcp --test scripts fin_wait2`.
//! Its first line is a comment that says what it shows, with the RFC's section or the requirement's id.
//! Scripts in `engine/` whose second line begins with `// fails:` have to fail, with those words in the message;
//! one with `// ignored:` there says what byway doesn't do yet.
//!
//! ```text
//! // RFC 9293 §3.10.4, S2.1: the application closes first.
//! 0    listen backlog 5
//! 0    < S 0:0(0) win 32792 <mss 1460,sackOK,nop,wscale 7>
//! +0   > S. 0:0(0) ack 1 <mss 1460,nop,nop,sackOK,nop,wscale 9>
//! +.1  < . 1:1(0) ack 1 win 257
//! +0   accept
//! +0   shutdown
//! +0   > F. 1:1(0) ack 1
//! ```
//!
//! **Times** are virtual: `0.1` since the start, `+.2` after the line before (after the moment its segment left,
//! where that was expected), `.1~.2` and `+.1~+.2` from to, `*` whenever, nothing for `+0`. An expected segment may
//! leave 0.1 ms before its time and 0.3 ms after it: two ticks of the timer wheel. Other lines happen exactly then.
//! A segment that no line expects, before the next line's time, is a failure.
//!
//! **Segments**: `<` comes from the peer, `>` from byway. Flags are letters, `.` is ACK, `-` none, E ECE, W CWR.
//! `first:end(length) ack N win N urg N <options>`; SYN and FIN aren't part of the length. Numbers count from each
//! side's initial one, window fields are as on the wire. In expectations, win is looked at if it is there, `<...>`
//! stands for any options, no options for none; `TS val any ecr any`. NOPs don't count. byway's timestamps count
//! milliseconds from its first; the peer's are as written. `[ce]`, `[ect0]`, `[ect1]` in front are the IP header's
//! ECN bits, without which there are none. `5x . 1:1001(1000) ack 1` are five segments in a row. `badsum` spoils
//! the checksum, `othertext` the text, `raw 0x0203` writes any octets as options. A line with `&` for its time is one batch with the line
//! above. `< [1:1001(1000)] icmp unreachable frag_needed mtu 1400` is an ICMP error about what is quoted. `@2`
//! behind the arrow or at the end of a line means a second connection, from another port of the peer. What byway
//! sends and what it gives to the application is compared octet by octet with what was written.
//!
//! **The application**: `listen backlog 5`, `connect`, `accept` (it was told of the connection), `write 1000`,
//! `write 1000 -> 500` (so much is taken), `read 1000` (exactly), `read all`, `reads on` (whatever comes, at once),
//! `nodelay on`, `user_timeout 5`, `keepalive 10 1 3` (idle, interval, probes; or off), `linger 0`, `shutdown`,
//! `abort`, `drain`, `urgent` (all that is queued). It has heard: `event opened|readable|writable|eof|urgent|trouble`,
//! `event closed finished|reset|timed_out|aborted|unreachable` (and forgets what came before), `event none`.
//!
//! **To look at**: `state FIN-WAIT-2`, `states SYN-RECEIVED 3`, `counter TcpExtTCPTimeouts 1`,
//! `assert cwnd == 10*1000`, `assert rto <= 300ms` (also ssthresh, mss, srtt, recv_queue, send_queue, retransmits,
//! urgent),
//! `+1 nothing`.
//!
//! **Before all else**: `config ipv6`, `config mtu 9000`, `peer_isn`, `receive_buffer`, `send_buffer`, `keepalive on`,
//! `keepalive_interval`, `keepalive_probes`, `user_timeout`, `orphan_timeout`, `fin_timeout`, `time_wait`,
//! `max_connections`, `max_time_wait`, `frames`, `congestion reno`, `syncookies off|on|always`,
//! `ecn off|answer|ask`, `quick_acks 16` (0 in scripts unless set).
//! `include file` puts the lines of a file of `include/` in its place.

#![allow(unreachable_pub)] // Modules of one test program.

mod app;
mod flow;
mod packet;
mod parse;
mod run;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};

fn main() -> ExitCode {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts");
    let mut scripts = Vec::new();
    find(&root, &mut scripts);
    scripts.sort();
    let trials = scripts
        .into_iter()
        .map(|path| {
            let name = path.strip_prefix(&root).unwrap_or(&path).with_extension("");
            let name = name.display().to_string().replace('/', "::");
            let root = root.clone();
            let ignored = second_line(&path).starts_with("// ignored: ");
            Trial::test(name, move || check(&path, &root).map_err(Failed::from)).with_ignored_flag(ignored)
        })
        .collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn find(folder: &Path, scripts: &mut Vec<PathBuf>) {
    let entries = std::fs::read_dir(folder).expect("the scripts' folder");
    for path in entries.map(|entry| entry.expect("a folder's entry").path()) {
        if path.is_dir() {
            find(&path, scripts);
        } else if path.extension().is_some_and(|extension| extension == "pkt") {
            scripts.push(path);
        }
    }
}

fn second_line(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().nth(1).unwrap_or_default().to_owned()
}

fn check(path: &Path, root: &Path) -> Result<(), String> {
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    let first = text.lines().next().unwrap_or_default();
    if !first.starts_with("// ") || !names_a_rule(first) {
        return Err("the first line is a comment with an RFC's section or a requirement's id".to_owned());
    }
    let result = parse::script(path, root).and_then(|steps| run::run(&steps));
    match (second_line(path).strip_prefix("// fails: "), result) {
        (None, result) => result,
        (Some(words), Err(error)) if error.contains(words) => Ok(()),
        (Some(words), Err(error)) => Err(format!("fails otherwise than by `{words}`:\n{error}")),
        (Some(words), Ok(())) => Err(format!("passes, and should fail: {words}")),
    }
}

/// `RFC 5961`, `S5.4`, `T7`.
fn names_a_rule(comment: &str) -> bool {
    let id = |word: &str| {
        let digits = word.strip_prefix(['S', 'T']).unwrap_or_default().trim_end_matches([':', ',', '.']);
        !digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit() || c == '.')
    };
    comment.contains("RFC ") || comment.split_whitespace().any(id)
}
