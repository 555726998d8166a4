//! What a task has of a connection: [`TcpListener`], [`TcpStream`].

use std::future::poll_fn;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_io::{AsyncRead, AsyncWrite};

use super::executor::{Core, Remote, current, current_of};
use super::sockets::{Key, Step};
use std::rc::Rc;

/// Not on its core: a stream may travel through other threads, but lives on one.
fn elsewhere() -> io::Error {
    io::Error::other("this belongs to another core: use it in a task there")
}

fn here() -> io::Result<Rc<Core>> {
    current().ok_or_else(|| io::Error::other("no core is here: use it in a task of byway::aio"))
}

fn poll_of<T>(step: Step<T>) -> Poll<io::Result<T>> {
    match step {
        Some(result) => Poll::Ready(result.map_err(io::Error::from)),
        None => Poll::Pending,
    }
}

/// A port, for one core: every core that is to serve it binds it, and gets the connections that its queue brings.
/// Dropped, it resets the connections that nobody has accepted.
#[derive(Debug)]
pub struct TcpListener {
    port: u16,
    remote: Arc<Remote>,
}

impl TcpListener {
    /// Takes the connections to a port of this core, on every own address.
    ///
    /// # Errors
    /// `AddrNotAvailable`: the program hasn't opened it (`Setup::listen`). `AddrInUse`: another task of this core has it.
    pub fn bind(port: u16) -> io::Result<Self> {
        let core = here()?;
        core.sockets.borrow_mut().bind(port)?;
        Ok(Self { port, remote: Arc::clone(&core.remote) })
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The next connection, and who opened it. While the program drains there is none: it waits.
    ///
    /// # Errors
    /// When it is not on the core where it was bound.
    pub async fn accept(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
        poll_fn(|cx| {
            let core = current_of(self.remote.id).ok_or_else(elsewhere)?;
            let accepted = core.sockets.borrow_mut().accept(self.port, cx.waker());
            let Some((key, local, peer)) = accepted else { return Poll::Pending };
            let handle = Handle { key, remote: Arc::clone(&self.remote) };
            Poll::Ready(Ok((TcpStream { handle, local, peer }, peer)))
        })
        .await
    }
}

impl Drop for TcpListener {
    fn drop(&mut self) {
        // Elsewhere: whoever comes is let in and never accepted.
        if let Some(core) = current_of(self.remote.id) {
            core.sockets.borrow_mut().unbind(self.port);
        }
    }
}

/// Closes the socket when dropped.
#[derive(Debug)]
struct Handle {
    key: Key,
    remote: Arc<Remote>,
}

impl Handle {
    fn core(&self) -> io::Result<Rc<Core>> {
        current_of(self.remote.id).ok_or_else(elsewhere)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        match current_of(self.remote.id) {
            Some(core) => {
                let wakers = core.sockets.borrow_mut().drop_handle(self.key);
                drop(wakers);
            }
            None => {
                self.remote.orphans.push(self.key);
                self.remote.notify();
            }
        }
    }
}

/// A connection, in a task of its core: `futures_io::{AsyncRead, AsyncWrite}`, and with the feature `hyper` its
/// `rt::{Read, Write}`.
///
/// Up to 64 KiB wait to be read, and as much to be sent; then the peer's window closes, or writing waits. What a task
/// writes before it waits for something is sent together, in full segments, and small segments aren't held back
/// ([`set_nodelay`](Self::set_nodelay)): there is nothing to flush.
///
/// Dropped, it closes the connection in order, or resets it if something of the peer's was left unread, as the
/// kernel does.
///
/// It is `Send` so that it can pass through what asks for that (hyper's upgrades do), and yet works only in tasks of
/// its own core: reading and writing elsewhere is an error.
#[derive(Debug)]
pub struct TcpStream {
    handle: Handle,
    local: SocketAddr,
    peer: SocketAddr,
}

impl TcpStream {
    /// Opens a connection, from the first own address of the peer's family.
    ///
    /// # Errors
    /// `ConnectionRefused`, `TimedOut`, `HostUnreachable`; `AddrNotAvailable`: no own address of that family;
    /// `InvalidInput`: nothing that a single other host can have; `AddrInUse`: no port is free; `QuotaExceeded`:
    /// `--max-connections` are there.
    pub async fn connect(peer: SocketAddr) -> io::Result<Self> {
        Self::open(None, peer).await
    }

    /// The same from one of the own addresses.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub async fn connect_from(local: IpAddr, peer: SocketAddr) -> io::Result<Self> {
        Self::open(Some(local), peer).await
    }

    async fn open(local: Option<IpAddr>, peer: SocketAddr) -> io::Result<Self> {
        let core = here()?;
        let key = core.sockets.borrow_mut().connect(local, peer);
        // From here on dropping it gives up.
        let handle = Handle { key, remote: Arc::clone(&core.remote) };
        drop(core);
        let opened = poll_fn(|cx| {
            let core = handle.core()?;
            poll_of(core.sockets.borrow_mut().poll_opened(handle.key, cx.waker()))
        });
        let local = opened.await?;
        Ok(Self { handle, local, peer })
    }

    /// Our address and port.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// The peer's address and port.
    pub fn peer_addr(&self) -> SocketAddr {
        self.peer
    }

    /// Sends small segments at once (true, the default) or as Nagle says.
    ///
    /// # Errors
    /// When it is not on its core.
    pub fn set_nodelay(&self, on: bool) -> io::Result<()> {
        self.handle.core()?.sockets.borrow_mut().set_nodelay(self.handle.key, on);
        Ok(())
    }

    /// Gives `take` what has arrived, without a copy of it; it says how many octets it took.
    pub(super) fn poll_take(
        &self,
        cx: &mut Context<'_>,
        take: impl FnMut(&[u8]) -> usize,
    ) -> Poll<io::Result<usize>> {
        let core = self.handle.core()?;
        let step = core.sockets.borrow_mut().poll_read(self.handle.key, cx.waker(), take);
        poll_of(step)
    }

    pub(super) fn poll_put<'a>(
        &self,
        cx: &mut Context<'_>,
        pieces: impl IntoIterator<Item = &'a [u8]>,
    ) -> Poll<io::Result<usize>> {
        let core = self.handle.core()?;
        let step = core.sockets.borrow_mut().poll_write(self.handle.key, cx.waker(), pieces);
        poll_of(step)
    }

    pub(super) fn shut(&self) -> io::Result<()> {
        self.handle.core()?.sockets.borrow_mut().shutdown(self.handle.key);
        Ok(())
    }
}

/// Fills `out` from pieces.
fn filling(mut out: &mut [u8]) -> impl FnMut(&[u8]) -> usize {
    move |octets| {
        let count = octets.len().min(out.len());
        let (now, later) = core::mem::take(&mut out).split_at_mut(count);
        now.copy_from_slice(&octets[..count]);
        out = later;
        count
    }
}

impl AsyncRead for TcpStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut [u8]) -> Poll<io::Result<usize>> {
        self.poll_take(cx, filling(out))
    }

    fn poll_read_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        let first = out.iter_mut().find(|slice| !slice.is_empty());
        self.poll_take(cx, filling(first.map_or(&mut [], |slice| &mut **slice)))
    }
}

impl AsyncWrite for TcpStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_put(cx, [octets])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_put(cx, slices.iter().map(|slice| &**slice))
    }

    /// What was written is sent without being asked for.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Half-closes: FIN follows what was written. Reading goes on.
    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.shut())
    }
}
