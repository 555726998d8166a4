//! Chat rooms over WebSocket: the path is the room, and what somebody says is heard by all in it, on whichever core
//! their connections are. Cores tell each other by crossbeam's queues; nothing else is shared.
//!
//! ```text
//! cargo run --example chat -- --backend kernel --port 8080        # then, twice: websocat ws://127.0.0.1:8080/room
//! ```

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::task::Poll;

use async_tungstenite::WebSocketStream;
use async_tungstenite::tungstenite::handshake::server::{Request, Response};
use async_tungstenite::tungstenite::protocol::WebSocketConfig;
use async_tungstenite::tungstenite::{Message, Utf8Bytes};
use byway::aio::{TcpListener, TcpStream, draining, spawn, tasks};
use byway::launch::{Core, Setup, launch};
use crossbeam::queue::ArrayQueue;
use futures_util::StreamExt;
use futures_util::future::{Either, select};
use futures_util::task::AtomicWaker;

/// Chat rooms over WebSocket
#[derive(clap::Args)]
struct Options {
    /// Port of the rooms
    #[arg(long, default_value_t = 80)]
    port: u16,
}

/// What is said, and where.
#[derive(Clone)]
struct Line {
    room: Arc<str>,
    text: Utf8Bytes,
}

/// Lines for a core, or for a member of a room. Who is slower than its room loses lines, and holds up nobody.
struct Inbox {
    lines: ArrayQueue<Line>,
    reader: AtomicWaker,
}

impl Inbox {
    fn new(most: usize) -> Self {
        Self { lines: ArrayQueue::new(most), reader: AtomicWaker::new() }
    }

    /// From any core: waking its reader ends that core's sleep.
    fn put(&self, line: Line) {
        self.lines.force_push(line);
        self.reader.wake();
    }

    async fn next(&self) -> Line {
        poll_fn(|cx| {
            self.reader.register(cx.waker());
            self.lines.pop().map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }
}

/// The members on this core, by room.
type Rooms = RefCell<HashMap<Arc<str>, Vec<Arc<Inbox>>>>;

/// Hands what any core says to the members on this one.
async fn deliver(inbox: Arc<Inbox>, rooms: Rc<Rooms>) {
    loop {
        let line = inbox.next().await;
        if let Some(members) = rooms.borrow().get(&line.room) {
            members.iter().for_each(|member| member.put(line.clone()));
        }
    }
}

/// A connection, from its handshake on.
async fn member(stream: TcpStream, cores: Arc<[Arc<Inbox>]>, rooms: Rc<Rooms>) {
    let mut room: Arc<str> = "/".into();
    #[expect(clippy::result_large_err, reason = "the handshake's own type")]
    let note = |request: &Request, response: Response| {
        room = request.uri().path().into();
        Ok(response)
    };
    let limits = WebSocketConfig::default().max_message_size(Some(64 << 10)).max_frame_size(Some(64 << 10));
    // What isn't a WebSocket is closed.
    let Ok(mut socket) = async_tungstenite::accept_hdr_async_with_config(stream, note, Some(limits)).await
    else {
        return;
    };
    let inbox = Arc::new(Inbox::new(256));
    rooms.borrow_mut().entry(Arc::clone(&room)).or_default().push(Arc::clone(&inbox));
    // What ends badly is the member's affair.
    let _ = talk(&mut socket, &room, &inbox, &cores).await;
    let mut rooms = rooms.borrow_mut();
    if let Some(members) = rooms.get_mut(&room) {
        members.retain(|other| !Arc::ptr_eq(other, &inbox));
        if members.is_empty() {
            rooms.remove(&room);
        }
    }
}

async fn talk(
    socket: &mut WebSocketStream<TcpStream>,
    room: &Arc<str>,
    inbox: &Inbox,
    cores: &[Arc<Inbox>],
) -> Result<(), async_tungstenite::tungstenite::Error> {
    let mut ending = pin!(draining());
    loop {
        let line = pin!(inbox.next());
        let event = match select(socket.next(), select(line, ending.as_mut())).await {
            Either::Left((said, _)) => Event::Said(said.transpose()?),
            Either::Right((Either::Left((line, _)), _)) => Event::Heard(line),
            Either::Right((Either::Right(_), _)) => Event::Said(None),
        };
        match event {
            Event::Said(Some(Message::Text(text))) => {
                let line = Line { room: Arc::clone(room), text };
                cores.iter().for_each(|core| core.put(line.clone()));
            }
            // Pings are answered by themselves.
            Event::Said(Some(_)) => {}
            Event::Said(None) => return socket.close(None).await,
            Event::Heard(line) => socket.send(Message::Text(line.text)).await?,
        }
    }
}

/// What a member waits for.
enum Event {
    /// By itself; nothing, if it or the program ends.
    Said(Option<Message>),
    /// By anybody in the room.
    Heard(Line),
}

async fn serve(port: u16, cores: Arc<[Arc<Inbox>]>, place: usize) -> io::Result<()> {
    let rooms = Rc::<Rooms>::default();
    spawn(deliver(Arc::clone(&cores[place]), Rc::clone(&rooms))).map_err(io::Error::other)?;
    let mut listener = TcpListener::bind(port)?;
    loop {
        let (stream, _) = listener.accept().await?;
        // Refused by a core that has too many, the connection closes.
        let _ = spawn(member(stream, Arc::clone(&cores), Rc::clone(&rooms)));
    }
}

fn main() -> ExitCode {
    launch(|options: Options| {
        let (port, inboxes) = (options.port, OnceLock::<Arc<[Arc<Inbox>]>>::new());
        let make = move |core: Core| {
            let all = || (0..core.count()).map(|_| Arc::new(Inbox::new(65_536))).collect();
            let (cores, place) = (Arc::clone(inboxes.get_or_init(all)), core.place());
            tasks(core, serve(port, cores, place))
        };
        Ok(Setup::new(make).listen("chat", port))
    })
}
