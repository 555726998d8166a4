//! The echo service (RFC 862) on the `App` interface: what arrives is sent back in the very frames it came in.
//!
//! ```text
//! cargo run --example echo -- --backend kernel --port 7007                                # anywhere
//! cargo run --example echo -- --interface eth1 --address 192.0.2.7/24                     # on byway's own TCP
//! ```

use std::process::ExitCode;

use byway::launch::{Setup, launch};
use byway_tcp::app::{App, Closed, Conn, Ready};

/// Sends back what arrives (RFC 862)
#[derive(clap::Args)]
struct Options {
    /// Port of the service
    #[arg(long, default_value_t = 7)]
    port: u16,
}

struct Echo;

impl App for Echo {
    fn opened<C: Conn>(&mut self, conn: &mut C) {
        conn.set_nodelay(true);
        // Octets may have come with the handshake's last segment.
        self.ready(conn, Ready::default());
    }

    fn ready<C: Conn>(&mut self, conn: &mut C, _: Ready) {
        // Back-pressure: what can't be sent isn't taken, and the peer's window closes.
        while conn.send_room() > 0 {
            let Some(chunk) = conn.recv() else { break };
            if let Err(refused) = conn.send(chunk) {
                conn.release(refused);
            }
        }
        if conn.recv_finished() {
            conn.shutdown();
        }
    }

    fn closed<C: Conn>(&mut self, _: &mut C, _: Closed) {}
}

fn main() -> ExitCode {
    launch(|options: Options| Ok(Setup::new(|_core| Echo).listen("echo", options.port)))
}
