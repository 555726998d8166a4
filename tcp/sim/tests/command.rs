//! The program `byway-sim` as its user meets it: no panic, whatever happens to what it writes.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Output, Stdio};

fn byway_sim(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_byway-sim"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// `byway-sim … | head -1`: its reader leaves before it has said all.
#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    for arguments in [&["--seed", "1"][..], &["--seeds", "2"]] {
        let mut child = byway_sim(arguments).spawn().expect("byway-sim starts");
        let mut output = BufReader::with_capacity(1, child.stdout.take().expect("a pipe"));
        let mut line = Vec::new();
        if arguments[0] == "--seed" {
            output.read_until(b'\n', &mut line).expect("a first line");
        }
        drop(output);
        let mut errors = String::new();
        child.stderr.take().expect("a pipe").read_to_string(&mut errors).expect("text");
        assert_eq!(errors, "", "{arguments:?}");
        assert!(child.wait().expect("an end").success(), "{arguments:?}");
    }
}

#[test]
fn a_file_that_cannot_be_written_is_named() {
    for option in ["--capture", "--plot"] {
        let path = "/nowhere/at/all";
        let Output { status, stderr, .. } =
            byway_sim(&["--seed", "1", option, path]).output().expect("byway-sim starts");
        let errors = String::from_utf8(stderr).expect("text");
        assert_eq!(status.code(), Some(1));
        assert!(errors.starts_with("byway-sim: ") && errors.contains(path), "{errors}");
        assert_eq!(errors.lines().count(), 1, "{errors}");
    }
}
