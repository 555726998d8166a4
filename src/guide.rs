//! From nothing to a protocol of one's own, in three steps: a service that adds numbers.
//!
//! The protocol: a client sends lines, each a whole number; for each the server answers with the sum so far, in a line.
//! A line that is no number, or longer than 32 octets, ends the connection.
//!
//! ```text
//!   client   1\n   41\n      twelve\n
//!   server       1\n   42\n           FIN
//! ```
//!
//! # A program
//!
//! `Cargo.toml` names `byway` and `byway-tcp` (by path or git: they aren't on crates.io), `clap` with `derive`, and for
//! the last step `futures-util` with `io`. `main` hands [`launch`](crate::launch::launch) the program's own options and what to run;
//! everything else about interface, cores and signals is byway's.
//!
//! # What a connection is
//!
//! A program on byway is one [`App`](byway_tcp::app::App) per core. The loop on each core takes a batch of frames from
//! the NIC, and calls the application once for each connection that has news:
//!
//! - [`opened`](byway_tcp::app::App::opened): the handshake is complete.
//! - [`ready`](byway_tcp::app::App::ready): octets have arrived, or the peer's FIN, or there is room to send again.
//! - [`closed`](byway_tcp::app::App::closed): it is over; whatever chunk was kept for it has to be released now.
//!
//! Octets come and go in *chunks*: [`recv`](byway_tcp::app::Conn::recv) gives the frame that the NIC wrote, and it is the
//! application's until it is sent or released; one that is dropped is a leak, and panics in debug builds. Nothing may
//! block, for all other connections of the core wait meanwhile.
//!
//! # In callbacks
//!
//! TCP has no messages: a line may come in pieces, or ten in one. What is left of an unfinished one is kept by
//! connection, in a map by [`ConnId`](byway_tcp::app::ConnId). `feed` knows nothing of connections, and so is tested without one:
//!
//! ```
//! #[derive(Default)]
//! struct Adder {
//!     sum: i64,
//!     line: Vec<u8>,
//! }
//!
//! impl Adder {
//!     /// Takes what has arrived, and appends the answers to `out`. False: the peer doesn't speak the protocol.
//!     fn feed(&mut self, octets: &[u8], out: &mut Vec<u8>) -> bool {
//!         for &octet in octets {
//!             if octet != b'\n' {
//!                 self.line.push(octet);
//!                 if self.line.len() > 32 {
//!                     return false;
//!                 }
//!                 continue;
//!             }
//!             let text = std::str::from_utf8(&self.line);
//!             let Some(number) = text.ok().and_then(|text| text.trim().parse::<i64>().ok()) else { return false };
//!             self.sum = self.sum.wrapping_add(number);
//!             self.line.clear();
//!             out.extend_from_slice(format!("{}\n", self.sum).as_bytes());
//!         }
//!         true
//!     }
//! }
//!
//! // However it is cut into segments.
//! for cut in 0..=8 {
//!     let (mut adder, mut out) = (Adder::default(), Vec::new());
//!     let (first, second) = b"1\n41\n-2\n".split_at(cut);
//!     assert!(adder.feed(first, &mut out) && adder.feed(second, &mut out));
//!     assert_eq!(out, b"1\n42\n40\n");
//! }
//! assert!(!Adder::default().feed(b"twelve\n", &mut Vec::new()));
//! assert!(!Adder::default().feed(&[b'1'; 33], &mut Vec::new()));
//! ```
//!
//! The application around it takes a chunk only when all earlier answers are on their way. What isn't taken stays in the
//! receive queue, and the peer's window closes: that is all there is to back-pressure, and it bounds what a connection
//! can make the program hold. Whoever stops because `send_room` is 0 or `alloc` gives nothing is called again, with
//! `writable`.
//!
//! ```no_run
//! use std::collections::HashMap;
//! use std::process::ExitCode;
//!
//! use byway::launch::{Setup, launch};
//! use byway_tcp::app::{App, Closed, Conn, ConnId, Ready};
//! # #[derive(Default)]
//! # struct Adder;
//! # impl Adder { fn feed(&mut self, _: &[u8], _: &mut Vec<u8>) -> bool { true } }
//!
//! #[derive(Default)]
//! struct Talk {
//!     adder: Adder,
//!     /// Answers to one chunk, not sent yet. Used again and again: nothing is allocated for a segment.
//!     answers: Vec<u8>,
//!     /// The peer doesn't speak the protocol.
//!     over: bool,
//! }
//!
//! #[derive(Default)]
//! struct Sums(HashMap<ConnId, Talk>);
//!
//! impl App for Sums {
//!     fn opened<C: Conn>(&mut self, conn: &mut C) {
//!         conn.set_nodelay(true);
//!         self.0.insert(conn.id(), Talk::default());
//!         // Octets may have come with the handshake's last segment.
//!         self.ready(conn, Ready::default());
//!     }
//!
//!     fn ready<C: Conn>(&mut self, conn: &mut C, _: Ready) {
//!         let Some(talk) = self.0.get_mut(&conn.id()) else { return };
//!         loop {
//!             while !talk.answers.is_empty() {
//!                 if conn.send_room() == 0 {
//!                     return;
//!                 }
//!                 let Some(mut chunk) = conn.alloc() else { return };
//!                 let some = talk.answers.len().min(conn.mss());
//!                 conn.append(&mut chunk, &talk.answers[..some]);
//!                 talk.answers.drain(..some);
//!                 if let Err(refused) = conn.send(chunk) {
//!                     conn.release(refused);
//!                 }
//!             }
//!             let Some(chunk) = conn.recv() else { break };
//!             if !talk.over {
//!                 talk.over = !talk.adder.feed(conn.bytes(&chunk), &mut talk.answers);
//!             }
//!             conn.release(chunk);
//!         }
//!         // FIN goes behind the answers.
//!         if talk.over || conn.recv_finished() {
//!             conn.shutdown();
//!         }
//!     }
//!
//!     fn closed<C: Conn>(&mut self, conn: &mut C, _: Closed) {
//!         self.0.remove(&conn.id());
//!     }
//! }
//!
//! /// Adds the numbers that clients send
//! #[derive(clap::Args)]
//! struct Options {
//!     /// Port of the service
//!     #[arg(long, default_value_t = 7777)]
//!     port: u16,
//! }
//!
//! fn main() -> ExitCode {
//!     launch(|options: Options| Ok(Setup::new(|_core| Sums::default()).listen("sums", options.port)))
//! }
//! ```
//!
//! # Trying it
//!
//! ```text
//! cargo run -- --backend kernel --port 7777                           anywhere, without privileges
//! printf '1\n41\n' | nc -N 127.0.0.1 7777
//! cargo run -- --interface eth1 --address 192.0.2.7/24                on byway's own TCP, as root
//! byway conns -t established --control /run/byway/eth1.sock
//! ```
//!
//! Without a network: `examples/sim_two_stacks.rs` puts two stacks into one process, in virtual time.
//!
//! # In tasks
//!
//! The same with a task for each connection, as on other runtimes. It copies each octet twice each way, and reads from
//! top to bottom:
//!
//! ```no_run
//! use std::io;
//!
//! use byway::aio::{TcpListener, TcpStream, spawn, tasks, timeout};
//! use byway::launch::{Setup, launch};
//! use byway_tcp::time::Duration;
//! use futures_util::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
//!
//! async fn add(stream: TcpStream) -> io::Result<()> {
//!     let (reader, mut writer) = stream.split();
//!     let (mut reader, mut sum, mut line) = (BufReader::new(reader), 0i64, String::new());
//!     loop {
//!         line.clear();
//!         // A line is bounded, and so is the time for it.
//!         let mut bounded = (&mut reader).take(32);
//!         if timeout(Duration::from_secs(60), bounded.read_line(&mut line)).await?? == 0 {
//!             return Ok(());
//!         }
//!         let number: i64 = line.trim().parse().map_err(io::Error::other)?;
//!         sum = sum.wrapping_add(number);
//!         writer.write_all(format!("{sum}\n").as_bytes()).await?;
//!     }
//! }
//!
//! async fn serve(port: u16) -> io::Result<()> {
//!     let mut listener = TcpListener::bind(port)?;
//!     loop {
//!         let (stream, _) = listener.accept().await?;
//!         // Refused by a core that has too many, the connection closes.
//!         let _ = spawn(add(stream));
//!     }
//! }
//! # #[derive(clap::Args)]
//! # struct Options {
//! #     #[arg(long, default_value_t = 7777)]
//! #     port: u16,
//! # }
//!
//! fn main() -> std::process::ExitCode {
//!     launch(|options: Options| {
//!         let port = options.port;
//!         Ok(Setup::new(move |core| tasks(core, serve(port))).listen("sums", port))
//!     })
//! }
//! ```
