//! The program `byway`.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    byway::cli::main()
}
