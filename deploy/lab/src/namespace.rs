//! Network namespaces that live as long as their handle.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::process::{self, Child, Command, Output, Stdio};
use std::sync::Arc;
use std::thread;

use anyhow::{Context, Result, bail, ensure};

/// A network namespace without a name: the kernel ends it, with the interfaces in it, when the last handle,
/// thread and process in it are gone. To look into one from outside: `nsenter --net=$path`, see
/// [`path`](Self::path).
#[derive(Clone, Debug)]
pub struct Namespace {
    file: Arc<File>,
}

impl Namespace {
    /// Makes a namespace with its loopback interface up.
    pub fn new() -> Result<Self> {
        let made = thread::spawn(|| -> io::Result<File> {
            // SAFETY: unshare changes the calling thread's namespaces and touches no memory; the thread ends
            // here.
            if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
                return Err(io::Error::last_os_error());
            }
            File::open("/proc/thread-self/ns/net")
        });
        let file = made.join().expect("nothing in it panics");
        let file = file.context("cannot make a network namespace; it takes root (CAP_SYS_ADMIN)")?;
        let namespace = Self { file: Arc::new(file) };
        namespace.run("ip link set lo up")?;
        Ok(namespace)
    }

    /// Runs `body` on a thread of its own inside the namespace. Sockets and processes made there stay in it.
    /// A panic inside goes on outside.
    pub fn enter<T: Send>(&self, body: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                self.join().expect("the namespace is open");
                body()
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Moves the calling thread, and what it starts from here on, into the namespace for good.
    pub fn join(&self) -> io::Result<()> {
        // SAFETY: setns takes an open descriptor and changes the calling thread's namespace; no memory is
        // touched.
        if unsafe { libc::setns(self.file.as_raw_fd(), libc::CLONE_NEWNET) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    /// Runs a command (words separated by blanks, no shell) inside to its end: its standard output.
    pub fn run(&self, command: &str) -> Result<String> {
        let output = self.output(command)?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "`{command}`: {}: {}", output.status, stderr.trim());
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// As [`run`](Self::run), for commands whose failure is of interest.
    pub fn output(&self, command: &str) -> Result<Output> {
        let mut words = command.split_whitespace();
        let Some(program) = words.next() else { bail!("no command") };
        let mut process = Command::new(program);
        process.args(words).stdin(Stdio::null());
        self.enter(|| process.output()).with_context(|| format!("cannot run `{command}`"))
    }

    /// Starts a process inside. It is the caller's to end.
    pub fn spawn(&self, command: &mut Command) -> io::Result<Child> {
        self.enter(|| command.spawn())
    }

    /// A path by which `ip link set … netns PATH` and `nsenter --net=PATH` find the namespace while this
    /// process lives.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", process::id(), self.file.as_raw_fd())
    }

    /// The index of an interface inside.
    pub fn ifindex(&self, interface: &str) -> Result<u32> {
        let name = std::ffi::CString::new(interface)?;
        // SAFETY: if_nametoindex reads the NUL-terminated name, which outlives the call.
        match self.enter(|| unsafe { libc::if_nametoindex(name.as_ptr()) }) {
            0 => bail!("no interface {interface} in the namespace"),
            index => Ok(index),
        }
    }
}

/// Whether namespaces and XDP can be had. If not, says on standard error that the caller skips.
pub fn is_root() -> bool {
    // SAFETY: geteuid has no arguments and cannot fail.
    let root = unsafe { libc::geteuid() } == 0;
    if !root {
        eprintln!("skipped: needs root for network namespaces and XDP");
    }
    root
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_made_inside_is_not_outside() {
        if !is_root() {
            return;
        }
        let namespace = Namespace::new().unwrap();
        namespace.run("ip link add bwb0 type veth peer name bwb1").unwrap();
        assert!(namespace.ifindex("bwb0").unwrap() > 1);
        assert!(Namespace::new().unwrap().ifindex("bwb0").is_err());
        let outside = Command::new("ip").args(["link", "show", "bwb0"]).output().unwrap();
        assert!(!outside.status.success());
    }

    #[test]
    fn a_command_that_fails_says_what_it_said() {
        if !is_root() {
            return;
        }
        let error = Namespace::new().unwrap().run("ip link show bwb-none").unwrap_err().to_string();
        assert!(error.contains("ip link show bwb-none") && error.contains("does not exist"), "{error}");
    }

    #[test]
    fn a_panic_inside_is_a_panic_outside() {
        if !is_root() {
            return;
        }
        let namespace = Namespace::new().unwrap();
        let outcome = std::panic::catch_unwind(|| namespace.enter(|| panic!("inside")));
        assert_eq!(outcome.unwrap_err().downcast_ref(), Some(&"inside"));
    }
}
