//! An unmodified hyper service: what hyper needs of a runtime is byway's stream, timer and tasks.
//!
//! ```text
//! cargo run --features hyper --example hyper_hello -- --backend kernel --port 8080
//! ```

use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::process::ExitCode;

use byway::aio::{HyperTimer, TcpListener, draining, spawn, tasks};
use byway::launch::{Setup, launch};
use futures_util::future::{Either, select};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};

/// Says hello to every request, by hyper
#[derive(clap::Args)]
struct Options {
    /// Port of the service
    #[arg(long, default_value_t = 80)]
    port: u16,
}

async fn hello(_: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    Ok(Response::new(Full::new(Bytes::from_static(b"hello\n"))))
}

async fn serve(port: u16) -> io::Result<()> {
    let mut listener = TcpListener::bind(port)?;
    loop {
        let (stream, _) = listener.accept().await?;
        // Refused by a core that has too many, the connection closes.
        let _ = spawn(async move {
            let mut server = http1::Builder::new();
            server.timer(HyperTimer);
            let mut connection = pin!(server.serve_connection(stream, service_fn(hello)));
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
        Ok(Setup::new(move |core| tasks(core, serve(port))).listen("http", port))
    })
}
