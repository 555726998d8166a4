//! `byway conns` against what stands behind a control socket. What it shows of real connections: tests/serve.rs.

mod support;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixListener;

use support::*;

/// A pager stands still, byway cuts off who does: the answer is taken before it is shown.
#[test]
fn d13_a_reader_that_stands_still_gets_the_whole_answer() {
    const COUNT: usize = 5000;
    let path = std::env::temp_dir().join(format!("byway-conns-{}.sock", std::process::id()));
    let listener = UnixListener::bind(&path).expect("a socket");
    let mut command = byway(&["conns", "--control", path.to_str().expect("UTF-8")]);
    let mut child = command.spawn().expect("starts");
    let (mut client, _) = listener.accept().expect("asks");
    // As byway does, and fails as it does.
    client.set_write_timeout(Some(PATIENCE)).expect("set");
    let mut question = String::new();
    BufReader::new(&client).read_line(&mut question).expect("a question");
    assert_eq!(question, "conns\n");
    for number in 0..COUNT {
        let line = format!(
            r#"{{"state":"ESTAB","recv_queue":0,"send_queue":0,"local":"192.0.2.1:80","peer":"192.0.2.2:{}","core":0,
            "in_state_ms":1,"rto_ms":200,"cwnd":14480,"ssthresh":1,"mss":1448,"retransmits":0}}"#,
            number + 1
        );
        writeln!(client, "{}", line.replace('\n', "")).expect("read, though nothing it shows is");
    }
    writeln!(client, r#"{{"end":true}}"#).expect("read");
    let mut shown = String::new();
    child.stdout.take().expect("piped").read_to_string(&mut shown).expect("text");
    assert!(wait(&mut child, PATIENCE).expect("ends").success());
    assert_eq!(shown.lines().count(), 1 + COUNT);
    std::fs::remove_file(path).expect("clean");
}
