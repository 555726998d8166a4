//! A thread on its core.

use crate::error::Error;

/// The cores this process may use, lowest first.
pub fn allowed() -> Vec<usize> {
    let mut cores: Vec<usize> =
        core_affinity::get_core_ids().unwrap_or_default().into_iter().map(|core| core.id).collect();
    cores.sort_unstable();
    cores
}

/// Pins the calling thread to `core`, and looks that it got there.
///
/// # Errors
/// [`Error::Pin`] if the core doesn't exist or this process may not use it.
pub fn pin(core: usize) -> Result<(), Error> {
    if !core_affinity::set_for_current(core_affinity::CoreId { id: core }) {
        return Err(Error::Pin { core, reason: "it doesn't exist, or this process may not use it" });
    }
    // core_affinity answers with a bare bool; the kernel moves the thread before it returns.
    // SAFETY: takes no arguments.
    let at = unsafe { libc::sched_getcpu() };
    if usize::try_from(at) != Ok(core) {
        return Err(Error::Pin { core, reason: "the kernel runs the thread elsewhere" });
    }
    Ok(())
}

/// Keeps the calling thread, and those it starts, off `cores`, which are others' own; without effect if there are no
/// more.
pub fn leave(cores: &[usize]) {
    // SAFETY: a set of bits, of which all zero is a value.
    let mut others: libc::cpu_set_t = unsafe { core::mem::zeroed() };
    for core in allowed().into_iter().filter(|core| !cores.contains(core)) {
        // SAFETY: the set is as large as the macro expects; the kernel gave the number.
        unsafe { libc::CPU_SET(core, &mut others) };
    }
    // SAFETY: a readable set of the size that is given. It fails if the set is empty, and then nothing changes.
    unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const others) };
}

/// Lets the calling thread's sleeps end when they should: within 1 µs instead of 50 µs.
pub(crate) fn sharpen_sleeps() {
    // SAFETY: PR_SET_TIMERSLACK takes one number, of nanoseconds. It can't fail with one above 0.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1 as libc::c_ulong) };
}

/// Gives each of `queues` a core: the first ones allowed, in order.
///
/// # Errors
/// [`Error::TooFewCores`].
pub fn assign(interface: &str, queues: &[u32], cores: &[usize]) -> Result<Vec<(u32, usize)>, Error> {
    if cores.len() < queues.len() {
        let interface = interface.to_owned();
        return Err(Error::TooFewCores { interface, queues: queues.len(), cores: cores.len() });
    }
    Ok(queues.iter().copied().zip(cores.iter().copied()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_gets_to_its_core() {
        std::thread::spawn(|| {
            for core in allowed() {
                pin(core).expect("an allowed core");
            }
        })
        .join()
        .expect("pinned");
    }

    #[test]
    fn who_leaves_a_core_runs_on_the_others() {
        std::thread::spawn(|| {
            let all = allowed();
            let (first, others) = all.split_first().expect("a core");
            leave(&[*first]);
            assert_eq!(allowed(), if others.is_empty() { &all } else { others });
            leave(&all);
            assert!(!allowed().is_empty(), "there are no more");
        })
        .join()
        .expect("still runs");
    }

    #[test]
    fn a_core_that_is_not_there_is_refused() {
        let refused = std::thread::spawn(|| pin(1000)).join().expect("no panic");
        assert!(refused.expect_err("no such core").to_string().contains("core 1000"));
    }

    #[test]
    fn a_core_per_queue_or_an_error() {
        assert_eq!(assign("eth0", &[0, 1], &[0, 1]).expect("enough"), [(0, 0), (1, 1)]);
        assert_eq!(assign("eth0", &[3], &[2, 5]).expect("enough"), [(3, 2)]);
        let refused = assign("eth0", &[0, 1, 2], &[0, 1]).expect_err("too few");
        assert!(refused.to_string().contains("3 queues need a core each"));
    }
}
