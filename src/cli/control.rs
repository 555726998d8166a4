//! The control socket: a question in one line, an answer in JSON lines, then the end.
//!
//! ```text
//!   byway stats ── "stats\n" ──→ thread byway-control ── Inquirer ──→ cores, between two turns
//!               ←── one line ───
//!   byway conns ── "conns\n" ──→  page by page: whatever the number of connections, a core's turn
//!               ←── a line each ─ stays short and this thread holds one page
//!   byway capture ─ "capture …" ─→ a thread of its own, capture/feed.rs
//! ```
//!
//! The socket is mode 0600. Four clients at a time (clients.rs), and one that doesn't read or write is cut off, so that
//! a stuck client costs nothing but the next one's patience (D13).

use std::fs;
use std::io::{self, BufRead as _, BufReader, Read as _, Write};
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use byway_bpf::Steering;
use byway_datapath::capture::filter::TEXT_MAX;
use byway_datapath::control::Page;
use byway_datapath::runtime::Inquirer;
use clap::Args;
use serde::{Deserialize, Serialize};

use super::capture::feed;
use super::clients::{self, Patience};
use super::conns::Connection;
use super::failure::Failure;
use super::stats::Stats;

/// One in so many of a busy core's nanoseconds goes to showing its connections: each page is followed by a pause. A
/// hundred thousand of them take a busy core 20 ms, and so 2 s; an idle one shows them at once.
const SHARE: u32 = 100;

/// Answers at once; the next client's question waits for one of them.
const ANSWERS_MAX: usize = 4;

/// Where control sockets lie unless told otherwise.
const DIRECTORY: &str = "/run/byway";

/// Longest question.
///
/// A capture's, whose filter is in it as JSON: some of its octets take two there.
const QUESTION_MAX: u64 = 2 * TEXT_MAX as u64 + 128;

/// How long a client may take to ask, all in all: it is here because it has a question.
const QUESTION_TIMEOUT: Duration = Duration::from_millis(500);

/// How long a client may keep the thread waiting to go on with an answer.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(2);

/// `/run/byway/IF.sock`.
pub(crate) fn default_path(interface: &str) -> PathBuf {
    Path::new(DIRECTORY).join(format!("{interface}.sock"))
}

/// What a running byway can be asked.
#[derive(Debug)]
pub(crate) struct Answerer {
    /// What byway serves on, for a reader.
    pub(crate) interface: String,
    pub(crate) inquirer: Inquirer,
    /// `None`: over kernel sockets.
    pub(crate) steering: Option<Arc<Mutex<Steering>>>,
}

impl Answerer {
    /// What is counted now.
    pub(super) fn stats(&self) -> Stats {
        let verdicts = self.steering.as_ref().map(|steering| {
            steering.lock().unwrap_or_else(PoisonError::into_inner).counters().unwrap_or_default()
        });
        Stats::new(&self.interface, &self.inquirer.snapshots(), verdicts.as_deref())
    }
}

/// Instead of an answer.
#[derive(Serialize, Deserialize)]
pub(crate) struct Refusal {
    pub(crate) error: String,
}

/// The last line of an answer to `conns`: without it the answer is incomplete.
#[derive(Serialize, Deserialize)]
pub(crate) struct End {
    pub(crate) end: bool,
}

/// The socket file of this process; removed when dropped.
#[derive(Debug)]
pub(crate) struct Server {
    path: PathBuf,
    /// Device, inode and change time: what we remove is what we made.
    identity: Option<[i64; 4]>,
}

impl Server {
    /// Takes the socket's place in the file system. Nobody answers before [`serve`](Self::serve).
    pub(crate) fn bind(path: &Path) -> Result<(Self, UnixListener), Failure> {
        let fail = |what: &str, error: io::Error| {
            let text =
                format!("control socket {}: {what}: {error}; choose a place by --control", path.display());
            match error.kind() {
                io::ErrorKind::PermissionDenied => Failure { code: Failure::PERMISSION, message: text },
                _ => Failure::system(text),
            }
        };
        if path.parent() == Some(Path::new(DIRECTORY)) {
            // Readable by its owner only, so that the socket is out of reach from the start.
            let mut builder = fs::DirBuilder::new();
            let made = builder.recursive(true).mode(0o700).create(DIRECTORY);
            made.map_err(|error| fail("making its directory", error))?;
        }
        make_room(path)?;
        let listener = UnixListener::bind(path).map_err(|error| fail("binding", error))?;
        let private = fs::Permissions::from_mode(0o600);
        fs::set_permissions(path, private).map_err(|error| fail("making it private", error))?;
        Ok((Self { path: path.to_owned(), identity: identity(path) }, listener))
    }

    /// Answers on threads of its own until the process ends.
    pub(crate) fn serve(listener: UnixListener, answerer: Arc<Answerer>) -> Result<(), Failure> {
        let accept = move || listener.accept().map(|(client, _)| client);
        let lanes = answerer.inquirer.lanes().to_vec();
        clients::serve("byway-control", ANSWERS_MAX, &lanes, accept, move |client| {
            // A client that went away or stood still is no news.
            let _ = answer(&client, &answerer);
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.identity.is_some() && self.identity == identity(&self.path) {
            // Gone already, or not removable: the next start deals with it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> Option<[i64; 4]> {
    let meta = fs::symlink_metadata(path).ok()?;
    Some([meta.dev() as i64, meta.ino() as i64, meta.ctime(), meta.ctime_nsec()])
}

/// Removes what a killed byway left behind; refuses if somebody is alive there.
fn make_room(path: &Path) -> Result<(), Failure> {
    let Ok(meta) = fs::symlink_metadata(path) else { return Ok(()) };
    let shown = path.display();
    if !meta.file_type().is_socket() {
        return Err(Failure::configuration(format!(
            "{shown} is there and no socket: give another --control"
        )));
    }
    if UnixStream::connect(path).is_ok() {
        let text = format!("another byway answers on {shown}: stop it, or give another --control");
        return Err(Failure::system(text));
    }
    fs::remove_file(path).map_err(|error| Failure::system(format!("removing the stale {shown}: {error}")))
}

fn answer(client: &UnixStream, answerer: &Answerer) -> io::Result<()> {
    let mut question = String::new();
    let patient = Patience::new(client, QUESTION_TIMEOUT);
    BufReader::new(patient.take(QUESTION_MAX)).read_line(&mut question)?;
    client.set_read_timeout(Some(QUESTION_TIMEOUT))?;
    client.set_write_timeout(Some(CLIENT_TIMEOUT))?;
    let mut out = io::BufWriter::new(client);
    match question.trim_end() {
        "stats" => {
            write_line(&mut out, &answerer.stats())?;
        }
        "conns" if answerer.steering.is_none() => {
            let error = "this byway serves over kernel sockets, whose connections `ss -tan` shows".to_owned();
            write_line(&mut out, &Refusal { error })?;
        }
        "conns" => {
            let complete = write_connections(&mut out, &answerer.inquirer)?;
            write_line(&mut out, &End { end: complete })?;
        }
        question => match question.strip_prefix("capture ") {
            Some(wish) => {
                if let Err(error) = feed::start(client, wish, answerer)? {
                    write_line(&mut out, &Refusal { error })?;
                }
            }
            None => {
                let error = "ask for stats, conns or capture".to_owned();
                write_line(&mut out, &Refusal { error })?;
            }
        },
    }
    out.flush()
}

/// Every core's connections; false if a core didn't answer.
fn write_connections(out: &mut impl Write, inquirer: &Inquirer) -> io::Result<bool> {
    // Two at once would take twice the share.
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut page = Page::default();
    for place in 0..inquirer.core_count() {
        let mut from = 0;
        loop {
            let Some(next) = inquirer.connections(place, from, page) else { return Ok(false) };
            page = next;
            for info in &page.connections {
                write_line(out, &Connection::new(place, info))?;
            }
            if let Some(cost) = page.cost {
                std::thread::sleep(cost * (SHARE - 1));
            }
            match page.next {
                Some(next) => from = next,
                None => break,
            }
        }
    }
    Ok(true)
}

pub(super) fn write_line(out: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, value)?;
    out.write_all(b"\n")
}

/// Which running byway is meant.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Target {
    /// Control socket [default: the only one in /run/byway]
    #[arg(long, value_name = "SOCKET")]
    pub(crate) control: Option<PathBuf>,

    /// Interface that it serves: short for --control /run/byway/IF.sock
    #[arg(long, value_name = "IF", conflicts_with = "control")]
    pub(crate) interface: Option<String>,
}

/// Asks a running byway; gives the answer line by line.
pub(crate) fn ask(
    target: &Target,
    question: &str,
) -> Result<impl Iterator<Item = io::Result<String>> + use<>, Failure> {
    let stream = connect(target, question)?;
    // Longer than the cores may take to answer it.
    stream.set_read_timeout(Some(CLIENT_TIMEOUT * 5)).map_err(|error| Failure::system(error.to_string()))?;
    Ok(BufReader::new(stream).lines())
}

/// Asks a running byway; the answer is on its way.
pub(super) fn connect(target: &Target, question: &str) -> Result<UnixStream, Failure> {
    let path = match target {
        Target { control: Some(path), .. } => path.to_owned(),
        Target { interface: Some(interface), .. } => default_path(interface),
        _ => the_only_one()?,
    };
    let fail = |error: io::Error| {
        let shown = path.display();
        match error.kind() {
            io::ErrorKind::PermissionDenied => Failure {
                code: Failure::PERMISSION,
                message: format!(
                    "control socket {shown}: {error}: ask as the user that started byway, or as root"
                ),
            },
            _ => Failure::system(format!(
                "no byway answers on {shown} ({error}): is it running? --control says where"
            )),
        }
    };
    let mut stream = UnixStream::connect(&path).map_err(fail)?;
    stream.write_all(question.as_bytes()).map_err(fail)?;
    stream.write_all(b"\n").map_err(fail)?;
    Ok(stream)
}

/// The control socket, if there is only one where they lie by default.
fn the_only_one() -> Result<PathBuf, Failure> {
    let entries = fs::read_dir(DIRECTORY).map(|entries| entries.flatten().map(|entry| entry.path()));
    let mut sockets: Vec<PathBuf> =
        entries.into_iter().flatten().filter(|path| path.extension().is_some_and(|e| e == "sock")).collect();
    sockets.sort();
    match sockets.as_slice() {
        [path] => Ok(path.clone()),
        [] => Err(Failure::system(format!(
            "no byway is running (no socket in {DIRECTORY}): start `byway serve`, or say --control"
        ))),
        several => {
            let names: Vec<String> = several.iter().map(|path| path.display().to_string()).collect();
            Err(Failure::configuration(format!(
                "several byways are running: choose by --control {}",
                names.join(" or ")
            )))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(name: &str) -> PathBuf {
        let directory = std::env::temp_dir().join(format!("byway-control-{name}-{}", std::process::id()));
        fs::create_dir_all(&directory).expect("directory");
        directory.join("byway.sock")
    }

    #[test]
    fn the_socket_is_private_and_goes_with_its_server() {
        let path = place("private");
        let (server, _listener) = Server::bind(&path).expect("bind");
        assert_eq!(fs::metadata(&path).expect("made").permissions().mode() & 0o777, 0o600);
        drop(server);
        assert!(!path.exists());
    }

    #[test]
    fn a_stale_socket_gives_way_a_live_one_does_not() {
        let path = place("stale");
        drop(UnixListener::bind(&path).expect("left behind"));
        assert!(path.exists());
        let (_server, _listener) = Server::bind(&path).expect("takes its place");
        let failure = Server::bind(&path).expect_err("alive");
        assert_eq!(failure.code, Failure::SYSTEM);
        assert!(failure.message.contains("another byway answers"), "{}", failure.message);
    }

    #[test]
    fn what_is_no_socket_is_left_alone() {
        let path = place("file");
        fs::write(&path, "precious").expect("write");
        assert_eq!(Server::bind(&path).expect_err("not ours").code, Failure::CONFIGURATION);
        assert_eq!(fs::read_to_string(&path).expect("still there"), "precious");
        fs::remove_file(&path).expect("clean");
    }

    #[test]
    fn a_server_removes_only_its_own_socket() {
        let path = place("own");
        let (server, listener) = Server::bind(&path).expect("bind");
        drop(listener);
        fs::remove_file(&path).expect("removed by somebody");
        let (_other, _listener) = Server::bind(&path).expect("another");
        drop(server);
        assert!(path.exists(), "the other's socket stays");
    }

    #[test]
    fn nobody_there_is_said_so() {
        let path = place("nobody");
        let target = Target { control: Some(path), ..Target::default() };
        let Err(failure) = ask(&target, "stats") else { panic!("nobody is there") };
        assert_eq!(failure.code, Failure::SYSTEM);
        assert!(failure.message.contains("is it running?"), "{}", failure.message);
    }
}
