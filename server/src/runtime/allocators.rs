//! Giving freed memory back to the system. Both allocators of this process keep freed memory for later: mimalloc, which Rust uses, in
//! each thread, and glibc's, which RocksDB uses, in its arenas.

use std::{
    cell::Cell,
    sync::atomic::{AtomicU64, Ordering},
};

// The crate has the library; nothing here names it otherwise.
use mimalloc as _;

/// glibc's arenas, at most; without a bound there are eight for each processor. RocksDB has a few threads that allocate.
const ARENAS: i32 = 4;
/// Pieces of that many bytes and more are mapped by themselves, and go back to the system when they are freed. RocksDB's write buffers
/// consist of such. Without a fixed value glibc raises its own as soon as the first one is freed.
const MAPPED: i32 = 256 << 10;

/// How often threads were asked to give back memory.
static ASKED: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// The last time that this thread gave back what it keeps.
    static GIVEN: Cell<u64> = const { Cell::new(0) };
}

/// Bounds what glibc keeps. Called once, before there are threads.
pub fn bound() {
    calls::bound(ARENAS, MAPPED);
}

/// Gives back what this thread keeps, and what glibc keeps; other threads follow when they call [`follow`]. May take some
/// milliseconds: not for a thread of a runtime.
pub fn give_back() {
    ASKED.fetch_add(1, Ordering::Relaxed);
    follow();
    calls::trim();
}

/// Gives back the memory that this thread keeps, if it was asked to since the last time. Costs next to nothing otherwise: threads call it when they
/// have nothing to do.
pub fn follow() {
    let asked = ASKED.load(Ordering::Relaxed);
    if GIVEN.replace(asked) != asked {
        calls::collect();
    }
}

/// Functions of the two allocators that Rust knows nothing of.
#[allow(unsafe_code)]
mod calls {
    use std::ffi::c_int;

    #[cfg(target_env = "gnu")]
    const M_MMAP_THRESHOLD: c_int = -3;
    #[cfg(target_env = "gnu")]
    const M_ARENA_MAX: c_int = -8;

    unsafe extern "C" {
        fn mi_collect(force: bool);
        #[cfg(target_env = "gnu")]
        fn malloc_trim(pad: usize) -> c_int;
        #[cfg(target_env = "gnu")]
        fn mallopt(parameter: c_int, value: c_int) -> c_int;
    }

    pub fn collect() {
        // SAFETY: any thread may call it at any time; it touches memory that was freed, and nothing else.
        unsafe { mi_collect(true) }
    }

    pub fn trim() {
        // SAFETY: as above; glibc takes its own locks.
        #[cfg(target_env = "gnu")]
        unsafe {
            malloc_trim(0);
        }
    }

    pub fn bound(arenas: c_int, mapped: c_int) {
        // SAFETY: these set two numbers of glibc's, under its own lock.
        #[cfg(target_env = "gnu")]
        unsafe {
            mallopt(M_ARENA_MAX, arenas);
            mallopt(M_MMAP_THRESHOLD, mapped);
        }
        #[cfg(not(target_env = "gnu"))]
        let _ = (arenas, mapped);
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_thread_follows_once() {
        super::bound();
        super::give_back();
        let followed = std::thread::spawn(|| {
            super::follow();
            super::GIVEN.get()
        });
        assert!(followed.join().is_ok_and(|given| given > 0));
    }
}
