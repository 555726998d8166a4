//! `byway top` on a terminal and into a file.

mod support;

use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command};

use support::*;

const LEAVE: &str = "\x1b[?7h\x1b[?25h\x1b[?1049l";

/// byway over kernel sockets, which anybody may have.
fn serve(scratch: &Scratch) -> (Child, String) {
    let any: SocketAddr = "127.0.0.1:0".parse().expect("an address");
    let port =
        TcpListener::bind(any).and_then(|listener| listener.local_addr()).expect("a port").port().to_string();
    let control = scratch.0.join("control.sock").display().to_string();
    let serve =
        ["serve", "--backend", "kernel", "--address", "127.0.0.1/8", "--port", &port, "--control", &control];
    let mut child = byway(&serve).spawn().expect("byway starts");
    let mut ready = String::new();
    BufReader::new(child.stdout.take().expect("piped")).read_line(&mut ready).expect("reads");
    assert!(ready.starts_with("byway ready"), "{ready}");
    (child, control)
}

#[test]
fn into_a_file_it_is_text() {
    let scratch = Scratch::new();
    let (mut server, control) = serve(&scratch);
    let arguments = ["top", "--interval", "100ms", "--count", "2", "--control", &control];
    let output = byway(&arguments).output().expect("byway starts");
    let text = String::from_utf8(output.stdout).expect("text");
    assert!(output.status.success());
    assert_eq!(text.matches("byway on * (kernel)").count(), 2, "{text}");
    assert!(text.contains("discarded/s: nothing") && !text.contains('\x1b'), "{text}");
    signal(server.id(), libc::SIGTERM);
    assert!(wait(&mut server, PATIENCE).expect("ends").success());
    let nobody = byway(&arguments).output().expect("byway starts");
    assert_eq!(nobody.status.code(), Some(71));
}

/// Whether by a signal, by enough, or by byway's end: the terminal is left as it was.
#[test]
fn a_terminal_is_left_as_it_was() {
    if !Command::new("script").arg("--version").output().is_ok_and(|output| output.status.success()) {
        println!("skipped: no `script` (bsdutils)");
        return;
    }
    let scratch = Scratch::new();
    let (mut server, control) = serve(&scratch);
    let on_terminal = |command: &str| {
        let output = Command::new("script").args(["-qec", command, "/dev/null"]).output().expect("script");
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let top = format!("{} top --interval 100ms --control {control}", env!("CARGO_BIN_EXE_byway"));
    for command in [format!("{top} --count 2"), format!("timeout --preserve-status -s INT 2 {top}")] {
        let (code, text) = on_terminal(&command);
        assert_eq!(code, Some(0), "{command}: {text}");
        assert!(text.starts_with("\x1b[?1049h") && text.ends_with(LEAVE), "{text:?}");
        assert!(text.contains("\x1b[1;1Hbyway on * (kernel)\x1b[K"), "{text:?}");
    }
    let (pid, top) = (server.id(), on_terminal);
    let (code, text) = std::thread::scope(|scope| {
        let shown = scope.spawn(|| top(&format!("{} top --control {control}", env!("CARGO_BIN_EXE_byway"))));
        std::thread::sleep(std::time::Duration::from_millis(1500));
        signal(pid, libc::SIGTERM);
        shown.join().expect("shown")
    });
    assert_eq!(code, Some(71), "{text:?}");
    let (_, last) = text.split_once(LEAVE).expect("left");
    assert!(last.starts_with("byway: ") && last.contains("is it running?"), "{last:?}");
    assert!(wait(&mut server, PATIENCE).expect("ends").success());
}
