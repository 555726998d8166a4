//! hyper 1.x on byway: a [`TcpStream`] is a connection, [`HyperTimer`] and [`HyperExecutor`] are its runtime.

use std::future::Future;
use std::io::IoSlice;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::rt::{self, ReadBufCursor};
use std::time::Duration;

use super::executor::spawn;
use super::stream::TcpStream;
use super::time::{Sleep, sleep, sleep_until};

impl rt::Read for TcpStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut out: ReadBufCursor<'_>,
    ) -> Poll<std::io::Result<()>> {
        let fill = |octets: &[u8]| {
            let count = octets.len().min(out.remaining());
            out.put_slice(&octets[..count]);
            count
        };
        self.poll_take(cx, fill).map_ok(drop)
    }
}

impl rt::Write for TcpStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, octets: &[u8]) -> Poll<std::io::Result<usize>> {
        self.poll_put(cx, [octets])
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(self.shut())
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        self.poll_put(cx, slices.iter().map(|slice| &**slice))
    }
}

/// hyper's tasks on this core; they needn't be `Send`. One that finds no place ([`Full`](super::Full)) is dropped, and
/// its connection closes.
#[derive(Clone, Copy, Debug, Default)]
pub struct HyperExecutor;

impl<F> rt::Executor<F> for HyperExecutor
where
    F: Future + 'static,
    F::Output: 'static,
{
    fn execute(&self, future: F) {
        let _ = spawn(future);
    }
}

/// hyper's timers, from the wheel of the core that polls them. A deadline is understood as so far from now.
#[derive(Clone, Copy, Debug, Default)]
pub struct HyperTimer;

impl rt::Sleep for Sleep {}

/// How far a time of the standard clock lies ahead. hyper makes deadlines by that clock, and so it has to be read: once
/// for each, which is when a timer is set and not for every segment.
#[expect(clippy::disallowed_methods, reason = "hyper's deadlines are this clock's; not on the packet path")]
fn ahead(deadline: std::time::Instant) -> Duration {
    deadline.saturating_duration_since(std::time::Instant::now())
}

impl rt::Timer for HyperTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn rt::Sleep>> {
        Box::pin(sleep(duration))
    }

    fn sleep_until(&self, deadline: std::time::Instant) -> Pin<Box<dyn rt::Sleep>> {
        Box::pin(sleep(ahead(deadline)))
    }

    fn reset(&self, sleep: &mut Pin<Box<dyn rt::Sleep>>, deadline: std::time::Instant) {
        let at = super::time::now() + ahead(deadline);
        match sleep.as_mut().downcast_mut_pin::<Sleep>() {
            Some(own) => own.get_mut().reset(at),
            None => *sleep = Box::pin(sleep_until(at)),
        }
    }
}
