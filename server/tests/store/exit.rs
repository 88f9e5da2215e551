//! The end of the test process. Databases of the last test may still be closing when it has ended, and RocksDB's threads abort a
//! process whose exit handlers run meanwhile.

use std::{
    ffi::c_int,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use barge_server::runtime::Threads;

static OPENED: Mutex<Vec<Threads>> = Mutex::new(Vec::new());

#[allow(unsafe_code)]
unsafe extern "C" {
    safe fn atexit(run: extern "C" fn()) -> c_int;
}

/// Lets the process wait for these threads before it ends. To be called when their databases are open: handlers run in the
/// opposite order, so this one comes before those that RocksDB had registered by then.
pub fn wait_for(threads: &Threads) {
    let mut opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
    opened.push(threads.clone());
    assert_eq!(atexit(wait), 0, "too many exit handlers");
}

extern "C" fn wait() {
    let opened = std::mem::take(&mut *OPENED.lock().unwrap_or_else(PoisonError::into_inner));
    for threads in opened {
        if !threads.wait(Duration::from_secs(10)) {
            eprintln!("a database stays open");
        }
    }
}
