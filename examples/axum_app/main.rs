//! An axum application with routing, JSON and a WebSocket, on byway. `application.rs` is axum's alone; only `serve.rs`,
//! which stands in for `axum::serve` and its listener, knows where it runs.
//!
//! ```text
//! cargo run --features hyper,tokio --example axum_app -- --backend kernel --port 8080
//! cargo bench --bench axum                                    # beside the same on tokio and the kernel's TCP
//! ```

mod application;
mod serve;

use std::process::ExitCode;

use byway::aio::tasks;
use byway::launch::{Setup, launch};

/// An axum application on byway
#[derive(clap::Args)]
struct Options {
    /// Port of the application
    #[arg(long, default_value_t = 80)]
    port: u16,
}

fn main() -> ExitCode {
    launch(|options: Options| {
        let port = options.port;
        let make = move |core| tasks(core, serve::serve(port, application::application()));
        Ok(Setup::new(make).listen("http", port))
    })
}
