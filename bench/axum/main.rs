//! `cargo bench --bench axum`: the application of `examples/axum_app` on byway and on tokio, over a veth pair in copy mode.
//!
//! ```text
//!   ┌ client, a core ┐               ┌ server, a core, one of these at a time ──────────────────────┐
//!   │ byway load     │ ──── veth ─── │ the application on byway::aio, AF_XDP                         │
//!   │   closed loop  │               │ the application on byway::aio, the kernel's sockets           │
//!   └────────────────┘               │ the application on tokio (axum::serve), the kernel's sockets  │
//!                                    └───────────────────────────────────────────────────────────────┘
//! ```
//!
//! This program is its own server: started again with `SERVE`, it serves. Rounds take turns, each in another order, and
//! ratios are of a round's own.

#[path = "../../examples/axum_app/application.rs"]
mod application;
#[path = "../veth/bed.rs"]
#[expect(dead_code, reason = "its other parts are that bench's")]
mod bed;
#[path = "../common.rs"]
#[expect(dead_code, reason = "its other parts are the other benches'")]
mod common;
#[path = "../veth/load.rs"]
#[expect(dead_code, reason = "its other parts are that bench's")]
mod load;
#[path = "../../examples/axum_app/serve.rs"]
mod serve;

use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use byway::aio::tasks;
use byway::launch::{Setup, launch};
use byway::load::grouped;
use byway_datapath::pin;
use byway_lab::is_root;
use clap::Parser as _;

use bed::{BYPASS, Bed, KERNEL, SERVER_INTERFACE};
use common::median;
use load::Load;

/// In the environment: where this process is to serve.
const SERVE: &str = "BYWAY_BENCH_SERVE";
const PORT: u16 = 80;
const AT_ONCE: u32 = 64;

/// Measures an axum application on byway and on tokio.
#[derive(Debug, clap::Parser)]
#[command(name = "cargo bench --bench axum --")]
struct Options {
    /// Times that everything is measured
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Length of a run
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// What cargo says to every bench
    #[arg(long, hide = true)]
    bench: bool,
}

/// Where the application runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Place {
    Byway,
    BywayOnKernel,
    Tokio,
}

const PLACES: [Place; 3] = [Place::Byway, Place::BywayOnKernel, Place::Tokio];

/// What is asked.
const PATHS: [&str; 3] = ["http /hello", "http /greet/byway", "ws /ws"];

impl Place {
    fn name(self) -> &'static str {
        match self {
            Self::Byway => "byway::aio on AF_XDP",
            Self::BywayOnKernel => "byway::aio on kernel sockets",
            Self::Tokio => "tokio (axum::serve)",
        }
    }

    fn address(self) -> Ipv4Addr {
        if self == Self::Byway { BYPASS } else { KERNEL }
    }

    fn start(self, bed: &Bed) -> Result<Running> {
        let own = std::env::current_exe()?;
        let mut command = bed.server.command(own.to_str().context("a path in UTF-8")?);
        if self == Self::Tokio {
            command.env(SERVE, "tokio").arg(SocketAddr::new(KERNEL.into(), PORT).to_string());
        } else {
            command.env(SERVE, "byway").args(["--interface", SERVER_INTERFACE]);
            command.args(["--address", &format!("{}/24", self.address())]);
            command.args(["--cores", &bed.server.core.to_string()]);
            if self == Self::BywayOnKernel {
                command.args(["--backend", "kernel"]);
            }
            let control = bed.scratch.join("serve.sock");
            let _ = std::fs::remove_file(&control);
            command.arg("--control").arg(control);
        }
        command.stdout(Stdio::piped()).stderr(std::fs::File::create(bed.scratch.join("serve.log"))?);
        let mut running = Running(bed.server.namespace.spawn(&mut command)?);
        let mut ready = String::new();
        BufReader::new(running.0.stdout.take().context("piped")?).read_line(&mut ready)?;
        let said = std::fs::read_to_string(bed.scratch.join("serve.log"))?;
        ensure!(ready.contains("ready"), "{}: {}", self.name(), said.lines().next().unwrap_or("no word"));
        Ok(running)
    }
}

/// A server, killed with its handle.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn main() -> ExitCode {
    match std::env::var(SERVE).as_deref() {
        Ok("tokio") => on_tokio(),
        Ok(_) => on_byway(),
        Err(_) => measure(),
    }
}

/// Nothing of its own.
#[derive(clap::Args)]
struct None {}

fn on_byway() -> ExitCode {
    launch(|_: None| {
        let make = |core| tasks(core, serve::serve(PORT, application::application()));
        Ok(Setup::new(make).listen("http", PORT))
    })
}

/// As axum's documentation has it, on one thread as byway on one core.
fn on_tokio() -> ExitCode {
    let run = async || -> Result<()> {
        let at = std::env::args().nth(1).context("an address")?;
        let listener = tokio::net::TcpListener::bind(at).await?;
        println!("ready");
        let listener = axum::serve::ListenerExt::tap_io(listener, |stream| {
            let _ = stream.set_nodelay(true);
        });
        Ok(axum::serve(listener, application::application()).await?)
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime.map_err(Into::into).and_then(|runtime| runtime.block_on(run())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn measure() -> ExitCode {
    let options = match Options::try_parse() {
        Ok(options) => options,
        // `cargo bench -- NAME` and `--save-baseline` are for criterion.
        Err(error) if error.use_stderr() => {
            return skip(error.to_string().lines().next().unwrap_or_default());
        }
        Err(shown) => shown.exit(),
    };
    let cores = pin::allowed();
    let &[server, client, ..] = &cores[..] else { return skip("it takes two cores, one for each side") };
    if !is_root() {
        return skip("it takes root, for namespaces and XDP");
    }
    match run(&options, [server, client]) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("axum: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn skip(why: &str) -> ExitCode {
    eprintln!("axum: skipped: {why}");
    ExitCode::SUCCESS
}

fn run(options: &Options, cores: [usize; 2]) -> Result<()> {
    let bed = Bed::new(cores)?;
    // By place and path, a rate for each round.
    let mut rates = [[(); 3]; 3].map(|paths| paths.map(|()| Vec::new()));
    for round in 0..options.rounds as usize {
        for step in 0..PLACES.len() {
            let place = (round + step) % PLACES.len();
            for (path, words) in PATHS.iter().enumerate() {
                bed.go_on()?;
                // A server of its own for each run.
                let _server = PLACES[place].start(&bed)?;
                let load = Load {
                    addresses: 1,
                    connections: AT_ONCE,
                    rate: Option::None,
                    time: Duration::from_secs(options.seconds),
                };
                let (scheme, path_of) = words.split_once(' ').unwrap_or(("http", words));
                let url = format!("{scheme}://{}{path_of}", PLACES[place].address());
                let outcome = load.run(&bed, &url, &bed.scratch.join("outcome"))?;
                ensure!(outcome.errors() == 0, "{} has errors: {}", PLACES[place].name(), outcome.json);
                let rate = outcome.rate();
                eprintln!(
                    "round {round}: {}, {words}: {} requests/s",
                    PLACES[place].name(),
                    grouped(rate as u64)
                );
                rates[place][path].push(rate);
            }
        }
    }
    println!(
        "veth, copy mode, one core each side, {AT_ONCE} connections, closed loop; medians of {} rounds",
        options.rounds
    );
    println!("{:<30} {:>18} {:>18} {:>18}   requests/s (times tokio's)", "", PATHS[0], PATHS[1], PATHS[2]);
    for (place, of_place) in PLACES.iter().zip(&rates) {
        print!("{:<30}", place.name());
        for (path, of_path) in of_place.iter().enumerate() {
            let ratios = of_path.iter().zip(&rates[2][path]).map(|(rate, tokio)| rate / tokio);
            let shown =
                format!("{} ({:.2})", grouped(median(of_path.iter().copied()) as u64), median(ratios));
            print!(" {shown:>18}");
        }
        println!();
    }
    Ok(())
}
