//! The program `byway`.
#![forbid(unsafe_code)]

/// Among many connections most of a segment's time is misses, of the TLB, too.
#[global_allocator]
static ALLOCATOR: byway_datapath::huge::HugePages = byway_datapath::huge::HugePages;

fn main() -> std::process::ExitCode {
    byway::cli::main()
}
