//! What outlives byway for a moment: its quiet ports, so that nobody is refused by the kernel while byway is restarted.
//!
//! ```text
//!   byway ──fork──→ child: holds the sockets, listens on @byway-linger-INDEX ── after its time ──→ gone, ports free
//!     └─→ exit                            │ SCM_RIGHTS
//!                                         └──→ the next byway on the interface, which has the very sockets
//! ```
//!
//! The child has nothing else of its parent's: no program is attached, no AF_XDP socket is open.

use core::mem::MaybeUninit;
use core::time::Duration;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg, sockopt,
};

use super::Reservation;
use crate::sys;

/// Sockets that one message carries; the kernel's limit is 253 (SCM_MAX_FD).
const BATCH: usize = 128;

/// How long a predecessor may take to hand over.
const PATIENCE: Duration = Duration::from_secs(2);

/// Abstract, so that it belongs to the network namespace as the interface does, and goes with its owner.
fn name(index: u32) -> io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(format!("byway-linger-{index}"))
}

/// Leaves `reservation` to a child process for `time`, or until a successor takes it over.
///
/// # Errors
/// There is no child, and the ports are given up.
pub fn leave(mut reservation: Reservation, time: Duration) -> io::Result<()> {
    reservation.inherited.clear();
    let successors = UnixListener::bind_addr(&name(reservation.scope)?)?;
    let mut kept: Vec<RawFd> = reservation.sockets().map(|socket| socket.as_raw_fd()).collect();
    kept.push(successors.as_raw_fd());
    kept.sort_unstable();
    // What is done with it is in `tend`, which allocates nothing and takes no lock.
    sys::fork(move || tend(&reservation, successors, &kept, time))
}

/// The child's life. Other threads of its parent may have held any lock when it was made.
fn tend(reservation: &Reservation, successors: UnixListener, kept: &[RawFd], time: Duration) {
    sys::close_all_but(kept);
    sys::own_session(c"byway-linger");
    let mut fds = [sys::PollFd::readable(successors.as_fd())];
    if sys::poll(&mut fds, time).is_err() || !fds[0].is_ready() {
        return;
    }
    let Ok((successor, _)) = successors.accept() else { return };
    if is_one_of_us(successor.as_fd()) {
        // The name is the successor's to use from the moment it has all.
        drop(successors);
        let _ = hand_over(reservation, &successor);
    }
}

fn hand_over(reservation: &Reservation, successor: &UnixStream) -> io::Result<()> {
    let mut batch = [successor.as_fd(); BATCH];
    let mut sockets = reservation.sockets();
    loop {
        let count = batch.iter_mut().zip(&mut sockets).map(|(place, socket)| *place = socket).count();
        if count == 0 {
            return Ok(());
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        ancillary.push(SendAncillaryMessage::ScmRights(&batch[..count]));
        sendmsg(successor, &[IoSlice::new(&[0])], &mut ancillary, SendFlags::NOSIGNAL)?;
    }
}

/// The sockets of a predecessor on interface `index`; none if there is no predecessor.
pub(super) fn take_over(index: u32) -> Vec<OwnedFd> {
    let mut sockets = Vec::new();
    let Ok(predecessor) = name(index).and_then(|name| UnixStream::connect_addr(&name)) else {
        return sockets;
    };
    if !is_one_of_us(predecessor.as_fd()) || predecessor.set_read_timeout(Some(PATIENCE)).is_err() {
        return sockets;
    }
    loop {
        let mut octet = [0];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let read = recvmsg(
            &predecessor,
            &mut [IoSliceMut::new(&mut octet)],
            &mut ancillary,
            RecvFlags::CMSG_CLOEXEC,
        );
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                sockets.extend(fds);
            }
        }
        if !read.is_ok_and(|read| read.bytes > 0) {
            return sockets;
        }
    }
}

/// Anybody may use a name first; only the same user's are believed, or the superuser's.
fn is_one_of_us(other: BorrowedFd<'_>) -> bool {
    sockopt::socket_peercred(other)
        .is_ok_and(|peer| peer.uid.is_root() || peer.uid == rustix::process::geteuid())
}
