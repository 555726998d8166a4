//! The memory a NIC and a stack share.
//!
//! ```text
//!   frame 0            frame 1                          frame n-1
//!   ├──────────────────┼──────────────────┼───── … ─────┼──────────────────┤  one mapping, pinned
//!   │256 kernel's │ … octets of a frame … │
//!   │headroom     └ where the NIC writes; we transmit from any offset
//! ```
//!
//! Bytes are reached only through `FramePool`, whose ledger knows which frames are the kernel's.

use std::io;
use std::num::NonZeroU32;

use byway_tcp::frame::Memory;
use xsk_rs::FrameDesc;
use xsk_rs::config::{FrameSize, QueueSize, UmemConfig};

use crate::config::Config;
use crate::error::Error;
use crate::frame::DescLayout;

/// Smallest piece of a mapping on huge pages.
const HUGE_PAGE: u64 = 2 << 20;

/// All frames of one core, mapped and registered with the kernel.
#[derive(Debug)]
pub struct Umem {
    umem: xsk_rs::Umem,
    layout: DescLayout,
    frame_count: u32,
    frame_size: usize,
    huge_pages: bool,
}

impl Umem {
    /// Maps and registers the frames.
    ///
    /// # Safety
    /// The value goes into one `FramePool`, and nothing else calls its [`Memory`] methods. The
    /// pool's ledger then shows only frames that the kernel isn't writing or reading.
    ///
    /// # Errors
    /// A missing privilege, too little (lockable) memory, a kernel without AF_XDP.
    pub unsafe fn new(config: &Config) -> Result<Self, Error> {
        config.check()?;
        let layout = DescLayout::probe()?;
        let bytes = u64::from(config.frame_count) * u64::from(config.frame_size);
        // A mapping on huge pages can only be undone in whole ones.
        let huge = config.huge_pages && bytes.is_multiple_of(HUGE_PAGE);
        let (umem, huge_pages) = match huge.then(|| create(config, true)) {
            Some(Ok(umem)) => (umem, true),
            // None reserved (the usual case), or not enough: ordinary pages do, with more TLB misses.
            Some(Err(_)) | None => (create(config, false).map_err(|source| explain(source, bytes))?, false),
        };
        Ok(Self {
            umem,
            layout,
            frame_count: config.frame_count,
            frame_size: config.frame_size as usize,
            huge_pages,
        })
    }

    /// Whether the frames lie on 2 MiB pages.
    pub fn huge_pages(&self) -> bool {
        self.huge_pages
    }

    pub(crate) fn layout(&self) -> DescLayout {
        self.layout
    }

    /// For creating a socket over the same frames.
    pub(crate) fn handle(&self) -> &xsk_rs::Umem {
        &self.umem
    }

    /// A whole frame.
    #[inline]
    fn desc(&self, index: u32) -> FrameDesc {
        assert!(index < self.frame_count, "frame {index} of {}", self.frame_count);
        self.layout.desc(index as usize * self.frame_size, self.frame_size)
    }
}

impl Memory for Umem {
    fn frame_count(&self) -> u32 {
        self.frame_count
    }

    fn frame_size(&self) -> usize {
        self.frame_size
    }

    #[inline]
    fn frame(&self, index: u32) -> &[u8] {
        let desc = self.desc(index);
        // SAFETY: `desc` describes one whole frame of this UMEM. Views of it may be many, since none can
        // write: not the kernel (contract of `new`), and not user space, which would need `&mut self`.
        let data = unsafe { self.umem.data(&desc) };
        data.contents()
    }

    #[inline]
    fn frame_mut(&mut self, index: u32) -> &mut [u8] {
        let mut desc = self.desc(index);
        // SAFETY: as in `frame`; and with `&mut self` there is no other view.
        let mut data = unsafe { self.umem.data_mut(&mut desc) };
        let first = data.contents_mut().as_mut_ptr();
        // SAFETY: `first` is the start of `frame_size` mapped octets, which live as long as `self.umem`; the
        // view that it comes from ends here, and `&mut self` keeps others from being made.
        unsafe { core::slice::from_raw_parts_mut(first, self.frame_size) }
    }
}

fn create(config: &Config, huge_pages: bool) -> Result<xsk_rs::Umem, io::Error> {
    let checked = "Config::check has passed";
    let umem_config = UmemConfig::builder()
        .frame_size(FrameSize::new(config.frame_size).expect(checked))
        .fill_queue_size(QueueSize::new(config.rings.fill).expect(checked))
        .comp_queue_size(QueueSize::new(config.rings.completion).expect(checked))
        .build()
        .expect(checked);
    let frame_count = NonZeroU32::new(config.frame_count).expect(checked);
    match xsk_rs::Umem::new(umem_config, frame_count, huge_pages) {
        Ok((umem, _default_descriptors)) => Ok(umem),
        Err(error) => Err(os_error(&error)),
    }
}

/// The errno inside one of xsk-rs's errors, which keep it as their source.
pub(crate) fn os_error(error: &dyn std::error::Error) -> io::Error {
    error
        .source()
        .and_then(|source| source.downcast_ref::<io::Error>())
        .and_then(io::Error::raw_os_error)
        .map_or_else(|| io::Error::other(error.to_string()), io::Error::from_raw_os_error)
}

fn explain(source: io::Error, bytes: u64) -> Error {
    match source.raw_os_error() {
        // The kernel's word for "over RLIMIT_MEMLOCK" (mm accounting in net/xdp/xdp_umem.c).
        Some(libc::ENOBUFS) => Error::LockedMemory { bytes },
        Some(libc::EPERM) => {
            Error::Permission { what: "opening an AF_XDP socket", capability: "CAP_NET_RAW" }
        }
        Some(libc::EAFNOSUPPORT) => Error::NoAfXdp,
        _ => Error::Memory { bytes, source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn kernel_answers_are_translated() {
        let said = |errno| explain(io::Error::from_raw_os_error(errno), 128 << 20);
        assert!(said(libc::ENOBUFS).to_string().contains("RLIMIT_MEMLOCK"));
        assert_eq!(said(libc::ENOBUFS).kind(), Kind::SystemLacks);
        assert!(said(libc::EPERM).to_string().contains("CAP_NET_RAW"));
        assert_eq!(said(libc::EPERM).kind(), Kind::Permission);
        assert!(said(libc::EAFNOSUPPORT).to_string().contains("CONFIG_XDP_SOCKETS"));
        assert!(said(libc::ENOMEM).to_string().contains("no memory"));
    }
}
