//! An axum application with routing, JSON and a WebSocket, which knows nothing of where it runs.

use axum::Router;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Json, Path};
use axum::response::Response;
use axum::routing::{any, get, post};
use serde::{Deserialize, Serialize};

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

/// All of it.
pub(crate) fn application() -> Router {
    Router::new()
        .route("/hello", get(async || "hello\n"))
        .route("/greet/{name}", get(greet))
        .route("/sum", post(sum))
        .route("/ws", any(upgrade))
}
