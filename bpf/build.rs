//! Compiles `steer.bpf.c` for the BPF target and generates its skeleton.
//!
//! Only the kernel's UAPI headers are used (no `vmlinux.h`), and libbpf's own, which libbpf-cargo brings:
//! the program touches no kernel structure, so one object fits every kernel.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use libbpf_cargo::SkeletonBuilder;

fn main() {
    for source in ["src/steer.bpf.c", "src/parse.h", "src/steer.h"] {
        println!("cargo:rerun-if-changed={source}");
    }

    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("steer.skel.rs");
    let mut args: Vec<OsString> = vec!["-Wall".into(), "-Wextra".into(), "-Werror".into()];

    // Debian keeps <asm/types.h> in a directory of the host's architecture, which `-target bpf` does not
    // search.
    let arch = env::var("CARGO_CFG_TARGET_ARCH").expect("cargo sets CARGO_CFG_TARGET_ARCH");
    let multiarch = format!("/usr/include/{arch}-linux-gnu");
    if Path::new(&multiarch).is_dir() {
        args.extend(["-idirafter".into(), multiarch.into()]);
    }

    if let Err(error) =
        SkeletonBuilder::new().source("src/steer.bpf.c").clang_args(args).build_and_generate(&out)
    {
        panic!(
            "cannot build steer.bpf.c: {error:#}\nIt takes clang and the kernel's and libc's headers: run deploy/install-deps.sh"
        );
    }
}
