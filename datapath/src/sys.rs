//! The system calls that more than one file makes, wrapped once.

use core::time::Duration;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use crate::error::Error;

/// One descriptor to poll for reading.
///
/// Never for writing: an AF_XDP socket can nearly always be written to, and the poll would spin.
#[repr(transparent)]
#[derive(Debug)]
pub(crate) struct PollFd(libc::pollfd);

impl PollFd {
    pub(crate) fn readable(fd: BorrowedFd<'_>) -> Self {
        Self(libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 })
    }

    /// Whether there is something to read, or an error to be seen.
    pub(crate) fn is_ready(&self) -> bool {
        self.0.revents != 0
    }

    /// Whether there is something to read and no error.
    pub(crate) fn is_readable_only(&self) -> bool {
        self.0.revents == libc::POLLIN
    }
}

/// Waits until one of `fds` is ready or `timeout` has passed. A signal ends the wait, too.
pub(crate) fn poll(fds: &mut [PollFd], timeout: Duration) -> Result<(), Error> {
    let timeout = libc::timespec {
        tv_sec: timeout.as_secs() as libc::time_t,
        tv_nsec: libc::c_long::from(timeout.subsec_nanos()),
    };
    let first = fds.as_mut_ptr().cast::<libc::pollfd>();
    // SAFETY: `first` points at `fds.len()` pollfds (`PollFd` is transparent), `timeout` outlives
    // the call, and a null signal mask leaves the mask alone.
    let result =
        unsafe { libc::ppoll(first, fds.len() as libc::nfds_t, &raw const timeout, core::ptr::null()) };
    if result < 0 {
        // What `revents` holds is unspecified now; nothing is ready.
        fds.iter_mut().for_each(|fd| fd.0.revents = 0);
        if io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            return Err(Error::system("waiting for frames (ppoll)"));
        }
    }
    Ok(())
}

/// The index of interface `name` of this thread's network namespace.
pub(crate) fn interface_index(name: &str) -> Option<u32> {
    let name = std::ffi::CString::new(name).ok()?;
    // SAFETY: a C string that outlives the call.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    (index != 0).then_some(index)
}

/// Whether this thread's network namespace has an interface with this index, whatever its name is now.
pub(crate) fn interface_exists(index: u32) -> bool {
    let mut name = [0; libc::IFNAMSIZ];
    // SAFETY: room for a name, as the call wants.
    let found = unsafe { libc::if_indextoname(index, name.as_mut_ptr()) };
    !found.is_null()
}

/// Sets an integer socket option.
pub(crate) fn set_option(fd: RawFd, level: i32, option: i32, value: u32) -> io::Result<()> {
    let length = size_of::<u32>() as libc::socklen_t;
    // SAFETY: the option's value is four readable octets.
    let result = unsafe { libc::setsockopt(fd, level, option, (&raw const value).cast(), length) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Asks for an integer socket option.
pub(crate) fn option(fd: RawFd, level: i32, option: i32) -> io::Result<u32> {
    let (mut value, mut length) = (0u32, size_of::<u32>() as libc::socklen_t);
    // SAFETY: at most `length` octets are written to `value`, which is as long; both outlive the call.
    let result = unsafe { libc::getsockopt(fd, level, option, (&raw mut value).cast(), &raw mut length) };
    if result == 0 { Ok(value) } else { Err(io::Error::last_os_error()) }
}

/// An empty `sendto`: "look at the TX ring".
#[inline]
pub(crate) fn send_nothing(fd: RawFd) -> io::Result<()> {
    // SAFETY: no octets are sent, and no address is given.
    let result = unsafe { libc::sendto(fd, core::ptr::null(), 0, libc::MSG_DONTWAIT, core::ptr::null(), 0) };
    if result >= 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// An empty `recvfrom`: "look at the fill ring".
#[inline]
pub(crate) fn receive_nothing(fd: RawFd) -> io::Result<()> {
    let nowhere = core::ptr::null_mut();
    // SAFETY: no octets are received, and no address is asked for.
    let result = unsafe {
        libc::recvfrom(fd, nowhere, 0, libc::MSG_DONTWAIT, core::ptr::null_mut(), core::ptr::null_mut())
    };
    if result >= 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Octets that a TCP socket's peer hasn't acknowledged (SIOCOUTQ, which Linux numbers as TIOCOUTQ).
pub(crate) fn unacknowledged(fd: BorrowedFd<'_>) -> io::Result<usize> {
    let mut octets: libc::c_int = 0;
    // SAFETY: the request writes one int, which outlives the call.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCOUTQ, &raw mut octets) };
    if result == 0 { Ok(octets.max(0) as usize) } else { Err(io::Error::last_os_error()) }
}

/// What the kernel tells of a TCP socket (TCP_INFO).
pub(crate) fn tcp_info(fd: BorrowedFd<'_>) -> io::Result<libc::tcp_info> {
    // An older kernel writes less than all of it; what it doesn't know stays 0.
    // SAFETY: integers only, of which zero is a value.
    let mut info: libc::tcp_info = unsafe { core::mem::zeroed() };
    let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
    let (level, option) = (libc::IPPROTO_TCP, libc::TCP_INFO);
    // SAFETY: at most `length` octets are written to `info`, which is as long; both outlive the call.
    let result =
        unsafe { libc::getsockopt(fd.as_raw_fd(), level, option, (&raw mut info).cast(), &raw mut length) };
    if result == 0 { Ok(info) } else { Err(io::Error::last_os_error()) }
}

/// Has a socket take nothing: a filter of one instruction that drops every packet (SO_ATTACH_FILTER).
pub(crate) fn drop_all(fd: BorrowedFd<'_>) -> io::Result<()> {
    let mut drop = libc::sock_filter { code: (libc::BPF_RET | libc::BPF_K) as u16, jt: 0, jf: 0, k: 0 };
    let program = libc::sock_fprog { len: 1, filter: &raw mut drop };
    let length = size_of::<libc::sock_fprog>() as libc::socklen_t;
    let (level, option) = (libc::SOL_SOCKET, libc::SO_ATTACH_FILTER);
    // SAFETY: the option's value is a program of one instruction; both outlive the call, which copies them.
    let result =
        unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, (&raw const program).cast(), length) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// How often the kernel gave the calling thread's core to another one, though it would have gone on (getrusage's
/// involuntary context switches).
pub(crate) fn preemptions() -> u64 {
    // SAFETY: integers only, of which zero is a value.
    let mut usage: libc::rusage = unsafe { core::mem::zeroed() };
    // SAFETY: a writable rusage, which outlives the call. It can't fail for the calling thread.
    unsafe { libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage) };
    usage.ru_nivcsw as u64
}

/// Runs `body` in a child process, which ends with it. It must neither allocate nor take a lock: another thread of the
/// parent may have held that, and is not there to let go.
pub(crate) fn fork(body: impl FnOnce()) -> io::Result<()> {
    // SAFETY: the child runs `body`, of which the caller promises the above, and ends without unwinding or destructors.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            body();
            // SAFETY: ends the process; nothing of it is used any more.
            unsafe { libc::_exit(0) }
        }
        _ => Ok(()),
    }
}

/// Closes every descriptor but `kept`, which are in order. For a child process: whoever owns them here never runs again.
pub(crate) fn close_all_but(kept: &[RawFd]) {
    let mut from: libc::c_uint = 0;
    for fd in kept.iter().map(|&fd| fd as libc::c_uint).chain([libc::c_uint::MAX]) {
        if from < fd {
            // SAFETY: touches no memory. It fails for a kernel before 5.9, which leaves them open.
            unsafe { libc::close_range(from, fd - 1, 0) };
        }
        from = fd.saturating_add(1);
    }
}

/// Out of reach of the terminal's signals, and with a name of its own in `ps`.
pub(crate) fn own_session(name: &core::ffi::CStr) {
    // SAFETY: no memory is touched.
    unsafe { libc::setsid() };
    // SAFETY: the name is a C string, which outlives the call.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
}
