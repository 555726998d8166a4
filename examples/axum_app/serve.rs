//! What stands in for `axum::serve` on byway.

use std::io;
use std::pin::pin;

use axum::Router;
use byway::aio::{HyperTimer, TcpListener, draining, spawn, tokio};
use futures_util::future::{Either, select};
use hyper::server::conn::http1;
use hyper_util::service::TowerToHyperService;

/// Serves the application on a port of this core, until the program is told to end.
pub(crate) async fn serve(port: u16, application: Router) -> io::Result<()> {
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
