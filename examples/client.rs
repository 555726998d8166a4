//! A client: it opens a connection to an echo service, sends, reads back, says how long that took, and ends.
//!
//! ```text
//! cargo run --example client -- --backend kernel --to 127.0.0.1:7007
//! cargo run --example client -- --interface eth1 --address 192.0.2.8/24 --to 192.0.2.7:7
//! ```

use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;

use byway::aio::{TcpStream, now, tasks, timeout};
use byway::launch::{Setup, launch};
use byway_tcp::time::Duration;
use futures_util::io::{AsyncReadExt, AsyncWriteExt};
use futures_util::try_join;

/// Sends octets to an echo service, and reads them back
#[derive(clap::Args, Clone, Debug)]
struct Options {
    /// Address and port of the service
    #[arg(long, value_name = "IP:PORT")]
    to: SocketAddr,

    /// Octets to send
    #[arg(long, default_value_t = 1_000_000)]
    octets: usize,
}

async fn run(Options { to, octets }: Options) -> io::Result<()> {
    let begun = now();
    let opening = timeout(Duration::from_secs(5), TcpStream::connect(to)).await?;
    let (mut reader, mut writer) = opening?.split();
    let sent: Vec<u8> = (0..octets).map(|at| at as u8).collect();
    let write = async {
        writer.write_all(&sent).await?;
        // Half-closes: the service sends the rest, and closes.
        writer.close().await
    };
    let mut back = Vec::with_capacity(octets);
    let ((), _) = try_join!(write, reader.read_to_end(&mut back))?;
    if back != sent {
        return Err(io::Error::other(format!("{} octets came back, or others", back.len())));
    }
    println!("{octets} octets there and back in {:?}", now().since(begun));
    Ok(())
}

fn main() -> ExitCode {
    launch(|options: Options| {
        let make = move |core: byway::launch::Core| {
            let first = core.place() == 0;
            let options = options.clone();
            // One core is enough; the others have nothing to do.
            tasks(core, async move { if first { run(options).await } else { Ok(()) } })
        };
        Ok(Setup::new(make))
    })
}
