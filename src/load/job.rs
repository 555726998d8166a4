//! What a core is to do, and the words for it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use byway_tcp::time::Duration;

/// What is spoken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protocol {
    /// HTTP/1.1.
    Http,
    /// Binary messages that are echoed.
    WebSocket,
    /// Octets that are echoed.
    Raw,
}

/// When requests are made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pace {
    /// Closed loop: the next as soon as a connection is free.
    Max,
    /// Open loop: all cores together so many a second, come what may.
    Rate(u64),
}

/// What one core is to do.
#[derive(Clone, Debug)]
pub struct Job {
    /// The server.
    pub remote: SocketAddr,
    /// What it speaks.
    pub protocol: Protocol,
    /// `Host`: as the user named the server.
    pub host: String,
    /// Path and query.
    pub path: String,
    /// Own addresses of the server's family, used in turn.
    pub locals: Vec<IpAddr>,
    /// This core's connections.
    pub connections: u32,
    /// When requests are made.
    pub pace: Pace,
    /// How many cores there are, and which of them this one is.
    pub cores: u64,
    /// See `cores`.
    pub place: u64,
    /// How long requests are made.
    pub duration: Duration,
    /// How long a connection, and a request counted from its intention, may take.
    pub timeout: Duration,
    /// What is sent with each request, and comes back by WebSocket and raw TCP.
    pub payload: Arc<[u8]>,
    /// A connection for each request.
    pub fresh: bool,
    /// Slots of the core's stack: its `max_connections`.
    pub slots: u32,
    /// Seeds what a WebSocket client has to choose at random.
    pub seed: u64,
}

/// The request, or the WebSocket's opening, in the two parts that never change.
pub(super) fn texts(job: &Job) -> (Vec<u8>, Vec<u8>) {
    let (path, host) = (&job.path, &job.host);
    let common = format!("{path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: byway-load\r\n");
    match job.protocol {
        Protocol::Raw => (Vec::new(), Vec::new()),
        Protocol::WebSocket => {
            let head = format!(
                "GET {common}Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: "
            );
            (head.into_bytes(), b"\r\n\r\n".to_vec())
        }
        Protocol::Http => {
            let close = if job.fresh { "Connection: close\r\n" } else { "" };
            let len = job.payload.len();
            let head = if len == 0 {
                format!("GET {common}{close}\r\n")
            } else {
                let body = format!("Content-Type: application/octet-stream\r\nContent-Length: {len}\r\n");
                format!("POST {common}{body}{close}\r\n")
            };
            (head.into_bytes(), Vec::new())
        }
    }
}
