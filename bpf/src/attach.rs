//! Attaching the program to an interface by a `bpf_link`, and naming who is there already.

use std::fmt;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use libbpf_rs::XdpFlags;
use libbpf_rs::libbpf_sys;
use libbpf_rs::query::{
    LinkInfoIter, LinkTypeInfo, MapInfo, MapInfoIter, ProgInfoIter, ProgInfoQueryOptions, ProgramInfo,
};

use crate::error::{Error, Occupant, denied};
use crate::{Result, interface};

/// Maps of every version of steer.bpf.c.
const OUR_MAPS: [&str; 4] = ["sockets", "own_ipv4", "own_ipv6", "verdicts"];

/// Where the program should hook in.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum AttachMode {
    /// Native if the driver can, else generic, with the reason.
    #[default]
    Auto,
    /// In the driver, or not at all.
    Native,
    /// Behind the driver, on the socket buffer: every driver can, slower.
    Generic,
}

/// Where the program does hook in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// In the driver.
    Native,
    /// On the kernel's socket buffer.
    Generic,
}

impl Mode {
    fn flags(self) -> XdpFlags {
        match self {
            Self::Native => XdpFlags::DRV_MODE,
            Self::Generic => XdpFlags::SKB_MODE,
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Native => "native",
            Self::Generic => "generic",
        })
    }
}

/// What [`Steering::attach`](crate::Steering::attach) came to.
#[derive(Debug)]
pub struct Attached {
    /// The mode the program runs in.
    pub mode: Mode,
    /// Why it is not native, if native was tried first.
    pub fallback: Option<Error>,
}

/// The program's hold on the interface, for as long as this lives.
///
/// By link and not by netlink: the kernel closes the descriptor of a process that dies, and the last close
/// detaches.
#[derive(Debug)]
pub(crate) struct Link {
    fd: OwnedFd,
}

impl Drop for Link {
    /// A child between fork and exec holds a copy of every descriptor, so that closing ours may not be the
    /// last close. This detaches here and now.
    fn drop(&mut self) {
        // SAFETY: the descriptor is open, and the call touches no memory. It fails only if the interface is
        // gone.
        unsafe { libbpf_sys::bpf_link_detach(self.fd.as_raw_fd()) };
    }
}

pub(crate) fn attach(program: BorrowedFd<'_>, ifindex: i32, mode: AttachMode) -> Result<(Link, Attached)> {
    let interface = interface::name(ifindex).ok_or(Error::NoInterface { ifindex })?;
    let create = |mode: Mode| {
        link_create(program, ifindex, mode).map_err(|source| explain(source, ifindex, &interface, mode))
    };
    let (mode, fallback) = match mode {
        AttachMode::Native => (Mode::Native, None),
        AttachMode::Generic => (Mode::Generic, None),
        AttachMode::Auto => match create(Mode::Native) {
            Ok(link) => return Ok((link, Attached { mode: Mode::Native, fallback: None })),
            Err(error) if concerns_both_modes(&error) => return Err(error),
            Err(error) => (Mode::Generic, Some(error)),
        },
    };
    Ok((create(mode)?, Attached { mode, fallback }))
}

/// Whether the interface has no XDP program, as far as the kernel tells.
pub(crate) fn check_vacant(ifindex: i32) -> Result<()> {
    let interface = interface::name(ifindex).ok_or(Error::NoInterface { ifindex })?;
    match occupant(ifindex) {
        Some(occupant) => Err(Error::Occupied { interface, occupant }),
        None => Ok(()),
    }
}

/// libbpf's own `bpf_program__attach_xdp` leaves the choice of mode to the driver, so this names it.
fn link_create(program: BorrowedFd<'_>, ifindex: i32, mode: Mode) -> io::Result<Link> {
    let options = libbpf_sys::bpf_link_create_opts {
        sz: size_of::<libbpf_sys::bpf_link_create_opts>() as libbpf_sys::size_t,
        flags: mode.flags().bits(),
        ..Default::default()
    };
    // SAFETY: `program` is open for the call, and `options` is a valid structure that states its own size.
    let fd = unsafe {
        libbpf_sys::bpf_link_create(program.as_raw_fd(), ifindex, libbpf_sys::BPF_XDP, &raw const options)
    };
    if fd < 0 {
        return Err(io::Error::from_raw_os_error(-fd));
    }
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
    Ok(Link { fd: unsafe { OwnedFd::from_raw_fd(fd) } })
}

/// Whether generic mode would fail for the same reason, or would run beside something that must not be there.
fn concerns_both_modes(error: &Error) -> bool {
    matches!(
        error,
        Error::Permission { .. } | Error::Memlock | Error::NoInterface { .. } | Error::Occupied { .. }
    )
}

/// A link has no extended acknowledgement, so the reason is found from the error number and the interface's
/// state.
fn explain(source: io::Error, ifindex: i32, interface: &str, mode: Mode) -> Error {
    let interface = interface.to_owned();
    let native = mode == Mode::Native;
    match source.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => denied(),
        Some(libc::ENODEV) => Error::NoInterface { ifindex },
        Some(libc::EBUSY | libc::EEXIST) => match occupant(ifindex) {
            Some(occupant) => Error::Occupied { interface, occupant },
            None => Error::Attach { interface, mode, source },
        },
        Some(libc::EOPNOTSUPP | libc::EINVAL) if native && interface::lro(&interface) => {
            Error::LroOn { interface }
        }
        Some(libc::EOPNOTSUPP) if native => Error::NativeUnsupported { interface, source },
        // veth and most drivers say ERANGE, virtio and a few EINVAL, ENA EFBIG; none of them at 1500.
        Some(libc::ERANGE | libc::EINVAL | libc::EFBIG) if native => match interface::mtu(&interface) {
            Ok(mtu) => Error::MtuTooLarge { interface, mtu },
            Err(_) => Error::Attach { interface, mode, source },
        },
        Some(libc::ENOSPC | libc::ENOMEM) if native => Error::TooFewQueues { interface, source },
        _ => Error::Attach { interface, mode, source },
    }
}

/// The XDP program on interface `ifindex`, if there is one and the kernel tells. What it is and who holds it may only be
/// seen with CAP_BPF; that there is one, by anybody.
pub fn occupant(ifindex: i32) -> Option<Occupant> {
    let mut found = libbpf_sys::bpf_xdp_query_opts {
        sz: size_of::<libbpf_sys::bpf_xdp_query_opts>() as libbpf_sys::size_t,
        ..Default::default()
    };
    // SAFETY: `found` is a writable structure that states its own size.
    if unsafe { libbpf_sys::bpf_xdp_query(ifindex, XdpFlags::NONE.bits() as i32, &raw mut found) } != 0 {
        return None;
    }
    let interface = interface::name(ifindex)?;
    let (program_id, mode) = match u32::from(found.attach_mode) {
        libbpf_sys::XDP_ATTACHED_DRV => (found.drv_prog_id, Some(Mode::Native)),
        libbpf_sys::XDP_ATTACHED_SKB => (found.skb_prog_id, Some(Mode::Generic)),
        libbpf_sys::XDP_ATTACHED_MULTI => (found.drv_prog_id, None),
        _ => (found.prog_id, None),
    };
    // Nobody, or gone again between a refusal and the question.
    if program_id == 0 {
        return None;
    }
    let wanted = ProgInfoQueryOptions::default().include_map_ids(true);
    let program = ProgInfoIter::with_query_opts(wanted).find(|info| info.id == program_id);
    let is_ours = program.as_ref().is_some_and(has_our_maps);
    let name = program.map(|program| program.name.to_string_lossy().into_owned());
    let link = LinkInfoIter::default()
        .find(|link| {
            link.prog_id == program_id
                && matches!(&link.info, LinkTypeInfo::Xdp(xdp) if xdp.ifindex == ifindex as u32)
        })
        .map(|link| (link.id, holder(link.id)));
    Some(Occupant { program_id, name, mode, link, is_ours, interface })
}

/// Its name is one word, which others may well use; its maps' names all together nobody else has.
fn has_our_maps(program: &ProgramInfo) -> bool {
    let of_program = |map: &MapInfo| program.map_ids.contains(&map.id);
    let names: Vec<_> = MapInfoIter::default().filter(of_program).map(|map| map.name).collect();
    OUR_MAPS.iter().all(|ours| names.iter().any(|name| name.as_bytes() == ours.as_bytes()))
}

/// The process that has the link open, as `pid N (name)`.
fn holder(link_id: u32) -> Option<String> {
    let holds = |pid: &str| -> Option<bool> {
        let held = fs::read_dir(format!("/proc/{pid}/fdinfo")).ok()?.flatten().any(|fd| {
            fs::read_to_string(fd.path()).is_ok_and(|info| {
                info.lines().any(|line| {
                    line.strip_prefix("link_id:").is_some_and(|id| id.trim() == link_id.to_string())
                })
            })
        });
        Some(held)
    };
    let pid = fs::read_dir("/proc")
        .ok()?
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
        .find(|pid| holds(pid) == Some(true))?;
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    Some(format!("pid {pid} ({})", name.trim()))
}
