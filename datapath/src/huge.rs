//! Large tables on huge pages, where the kernel has any to give.
//!
//! Among a million connections nearly every segment misses the TLB once for each table that it touches; with pages of
//! 2 MiB a thousand times as much memory is in its reach. The kernel gives them (transparent huge pages) to whoever
//! asks, unless `/sys/kernel/mm/transparent_hugepage/enabled` says `never`; who gets none has ordinary pages.

use core::alloc::{GlobalAlloc, Layout};
use core::ptr;
use std::alloc::System;

/// A huge page of x86-64, and of AArch64 with pages of 4 KiB.
const HUGE_PAGE: usize = 2 << 20;
/// From here on memory is a table that stays: a table of connections, never a buffer that comes and goes. The
/// last page is half empty on average, which is then an eighth at most.
const LARGE: usize = 4 * HUGE_PAGE;

/// The system's allocator, but for large memory, which is mapped by itself and asks for huge pages:
///
/// ```
/// #[global_allocator]
/// static ALLOCATOR: byway_datapath::huge::HugePages = byway_datapath::huge::HugePages;
/// ```
#[derive(Debug)]
pub struct HugePages;

// SAFETY: small memory is the system allocator's from beginning to end, for `is_large` says the same of the same layout.
// Large memory is a private mapping of its own, as long as asked for at least, aligned to a huge page and so to
// whatever a layout of this kind asks for.
unsafe impl GlobalAlloc for HugePages {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if is_large(layout) {
            return map(mapped_len(layout));
        }
        // SAFETY: the caller's promise is the one that System asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if is_large(layout) {
            // Fresh pages are zero.
            return map(mapped_len(layout));
        }
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        if is_large(layout) {
            // SAFETY: `at` is a mapping of this length, which `map` made, and the caller is done with it.
            unsafe { libc::munmap(at.cast(), mapped_len(layout)) };
            return;
        }
        // SAFETY: as above; what isn't large came from System.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller promises that `size`, rounded up to the alignment, is no longer than isize::MAX.
        let wanted = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        if !is_large(layout) && !is_large(wanted) {
            // SAFETY: as above.
            return unsafe { System.realloc(at, layout, size) };
        }
        // SAFETY: the caller promises a size that isn't 0.
        let to = unsafe { self.alloc(wanted) };
        if !to.is_null() {
            // SAFETY: both are as long as this, and the new one is nobody else's.
            unsafe { ptr::copy_nonoverlapping(at, to, layout.size().min(size)) };
            // SAFETY: `at` has this layout, and its octets have moved.
            unsafe { self.dealloc(at, layout) };
        }
        to
    }
}

fn is_large(layout: Layout) -> bool {
    layout.size() >= LARGE && layout.align() <= HUGE_PAGE
}

/// Whole huge pages. A layout's size is at most isize::MAX, so that this doesn't overflow.
fn mapped_len(layout: Layout) -> usize {
    layout.size().next_multiple_of(HUGE_PAGE)
}

/// A mapping of `len` octets that begins with a huge page; null if there is no memory.
fn map(len: usize) -> *mut u8 {
    let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    let whole = len + HUGE_PAGE;
    // SAFETY: a new mapping, wherever the kernel has room.
    let start = unsafe { libc::mmap(ptr::null_mut(), whole, protection, flags, -1, 0) };
    if start == libc::MAP_FAILED {
        return ptr::null_mut();
    }
    let start = start.cast::<u8>();
    let front = start.align_offset(HUGE_PAGE);
    let at = start.wrapping_add(front);
    if front > 0 {
        // SAFETY: the mapping's first octets, which nobody has seen.
        unsafe { libc::munmap(start.cast(), front) };
    }
    if front < HUGE_PAGE {
        // SAFETY: the same of its last.
        unsafe { libc::munmap(at.wrapping_add(len).cast(), HUGE_PAGE - front) };
    }
    // SAFETY: advice about the mapping that is left. Whether it is taken makes no difference to anybody.
    unsafe { libc::madvise(at.cast(), len, libc::MADV_HUGEPAGE) };
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel says of the mapping that `at` begins.
    fn flags(at: *mut u8) -> Option<String> {
        let maps = std::fs::read_to_string("/proc/self/smaps").expect("smaps");
        let from = maps.split(&format!("{:x}-", at as usize)).nth(1)?;
        let line = from.lines().find(|line| line.starts_with("VmFlags:"))?;
        Some(line.to_owned())
    }

    #[test]
    fn a_table_asks_for_huge_pages_and_goes_back_whole() {
        let layout = Layout::from_size_align(LARGE + 12_345, 64).expect("a layout");
        // SAFETY: a size that isn't 0.
        let at = unsafe { HugePages.alloc_zeroed(layout) };
        assert!(!at.is_null() && (at as usize).is_multiple_of(HUGE_PAGE));
        // SAFETY: so many octets are there, and zero.
        let octets = unsafe { core::slice::from_raw_parts_mut(at, layout.size()) };
        assert!(octets.iter().all(|&octet| octet == 0));
        octets[layout.size() - 1] = 7;
        let said = flags(at).expect("mapped");
        assert!(said.contains(" hg"), "{said}");
        // SAFETY: its layout.
        unsafe { HugePages.dealloc(at, layout) };
        assert_eq!(flags(at), None);
    }

    #[test]
    fn memory_keeps_its_octets_when_it_becomes_large_and_small_again() {
        let layout = |size| Layout::from_size_align(size, 8).expect("a layout");
        // SAFETY: a size that isn't 0.
        let mut at = unsafe { HugePages.alloc(layout(1000)) };
        for (octet, from, to) in
            [(1, 1000, 2000), (2, 2000, LARGE), (3, LARGE, 2 * LARGE), (4, 2 * LARGE, 500)]
        {
            // SAFETY: within its size.
            unsafe { at.write(octet) };
            // SAFETY: its layout, and a size that isn't 0.
            at = unsafe { HugePages.realloc(at, layout(from), to) };
            assert!(!at.is_null());
            // SAFETY: within its size.
            assert_eq!(unsafe { at.read() }, octet);
        }
        // SAFETY: its layout.
        unsafe { HugePages.dealloc(at, layout(500)) };
    }
}
