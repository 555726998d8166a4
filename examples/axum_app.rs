//! An axum application with routing, JSON and a WebSocket, on byway. The application is axum's alone: only `serve`,
//! which stands in for `axum::serve` and its listener, knows where it runs.
//!
//! ```text
//! cargo run --features hyper,tokio --example axum_app -- --backend kernel --port 8080
//! ```

use std::io;
use std::pin::pin;
use std::process::ExitCode;

use axum::Router;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Json, Path};
use axum::response::Response;
use axum::routing::{any, get, post};
use byway::aio::{HyperTimer, TcpListener, draining, spawn, tasks, tokio};
use byway::launch::{Setup, launch};
use futures_util::future::{Either, select};
use hyper::server::conn::http1;
use hyper_util::service::TowerToHyperService;
use serde::{Deserialize, Serialize};

// --- the application ----------------------------------------------------------------------------

#[derive(Deserialize)]
struct Sum {
    numbers: Vec<i64>,
}

#[derive(Serialize)]
struct Total {
    count: usize,
    total: i64,
}

async fn sum(Json(Sum { numbers }): Json<Sum>) -> Json<Total> {
    Json(Total { count: numbers.len(), total: numbers.iter().fold(0, |all, n| all.wrapping_add(*n)) })
}

async fn greet(Path(name): Path<String>) -> String {
    format!("hello, {name}\n")
}

async fn upgrade(socket: WebSocketUpgrade) -> Response {
    socket.on_upgrade(echo)
}

async fn echo(mut socket: WebSocket) {
    while let Some(Ok(message)) = socket.recv().await {
        if matches!(message, Message::Text(_) | Message::Binary(_)) && socket.send(message).await.is_err() {
            break;
        }
    }
}

fn application() -> Router {
    Router::new()
        .route("/hello", get(async || "hello\n"))
        .route("/greet/{name}", get(greet))
        .route("/sum", post(sum))
        .route("/ws", any(upgrade))
}

// --- where it runs ------------------------------------------------------------------------------

/// An axum application on byway
#[derive(clap::Args)]
struct Options {
    /// Port of the application
    #[arg(long, default_value_t = 80)]
    port: u16,
}

async fn serve(port: u16, application: Router) -> io::Result<()> {
    // axum spawns the tasks of WebSockets on tokio.
    tokio::start()?;
    let mut listener = TcpListener::bind(port)?;
    loop {
        let (stream, _) = listener.accept().await?;
        let service = TowerToHyperService::new(application.clone());
        // Refused by a core that has too many, the connection closes.
        let _ = spawn(async move {
            let mut server = http1::Builder::new();
            server.timer(HyperTimer);
            let mut connection = pin!(server.serve_connection(stream, service).with_upgrades());
            // What ends badly is the client's affair.
            if let Either::Right(_) = select(connection.as_mut(), draining()).await {
                connection.as_mut().graceful_shutdown();
                let _ = connection.await;
            }
        });
    }
}

fn main() -> ExitCode {
    launch(|options: Options| {
        let port = options.port;
        Ok(Setup::new(move |core| tasks(core, serve(port, application()))).listen("http", port))
    })
}
