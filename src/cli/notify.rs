//! Telling systemd how we are (sd_notify(3)): a datagram to the socket it names.

use std::ffi::OsStr;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// A service manager that doesn't read, with ten datagrams waiting for it, is waited for so long and no longer: a signal
/// is answered within a second (D13), and who runs systemd in earnest has none that stands still.
const PATIENCE: Duration = Duration::from_millis(500);

/// Sends `state` (`READY=1`, `STOPPING=1`, …) if a service manager asked for it.
///
/// Returns what went wrong, for a warning: serving goes on without.
pub(crate) fn notify(state: &str) -> Result<(), String> {
    match std::env::var_os("NOTIFY_SOCKET") {
        None => Ok(()),
        Some(socket) => {
            send(&socket, state).map_err(|error| format!("can't notify {}: {error}", socket.display()))
        }
    }
}

/// How often systemd has to hear `WATCHDOG=1` (sd_watchdog_enabled(3)), if it wants to.
pub(crate) fn watchdog() -> Option<Duration> {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    if number("WATCHDOG_PID").is_some_and(|pid| pid != u64::from(std::process::id())) {
        return None;
    }
    number("WATCHDOG_USEC").map(Duration::from_micros)
}

fn send(socket: &OsStr, state: &str) -> std::io::Result<()> {
    let address = match socket.as_bytes().split_first() {
        Some((b'@', name)) => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(socket)?,
    };
    let from = UnixDatagram::unbound()?;
    from.set_write_timeout(Some(PATIENCE))?;
    from.send_to_addr(state.as_bytes(), &address)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_and_an_abstract_name_are_both_reached() {
        let directory = std::env::temp_dir().join(format!("byway-notify-{}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("directory");
        let path = directory.join("socket");
        let receiver = UnixDatagram::bind(&path).expect("bind");
        send(path.as_os_str(), "READY=1").expect("send");
        let mut buffer = [0; 64];
        let length = receiver.recv(&mut buffer).expect("receive");
        assert_eq!(&buffer[..length], b"READY=1");
        std::fs::remove_dir_all(&directory).expect("clean");

        let name = format!("byway-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("name");
        let receiver = UnixDatagram::bind_addr(&address).expect("bind");
        send(OsStr::new(&format!("@{name}")), "STOPPING=1").expect("send");
        let length = receiver.recv(&mut buffer).expect("receive");
        assert_eq!(&buffer[..length], b"STOPPING=1");
    }

    /// D13: nobody waits for ever for a manager that has stopped reading.
    #[test]
    fn d13_a_manager_that_does_not_read_is_an_error() {
        let name = format!("byway-notify-deaf-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("name");
        let _deaf = UnixDatagram::bind_addr(&address).expect("bind");
        let name = format!("@{name}");
        let sent = (0..10_000).map(|_| send(OsStr::new(&name), "WATCHDOG=1")).find_map(Result::err);
        assert_eq!(sent.map(|error| error.kind()), Some(std::io::ErrorKind::WouldBlock));
    }
}
