//! Somebody who visits a site all the time, and notes each visit that went wrong.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// For a connection, and for the answer.
const PATIENCE: Duration = Duration::from_secs(8);

/// A visit that went wrong.
#[derive(Debug, Clone)]
pub struct Failure {
    /// When the visit began.
    pub began: Instant,
    /// When it was given up.
    pub ended: Instant,
    /// What came in place of a page.
    pub why: String,
}

/// What the visitor has seen.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Visits that went well.
    pub pages: u64,
    /// Those that did not, in their order.
    pub failures: Vec<Failure>,
    /// The last page.
    pub last: String,
}

/// Visits one address after the other, without a pause, until it is asked what it has seen.
#[derive(Debug)]
pub struct Visitor {
    seen: Arc<Mutex<Seen>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Visitor {
    /// Begins. A page is good when `is_good` says so of its text.
    #[must_use]
    pub fn new(addresses: Vec<SocketAddr>, path: &'static str, is_good: fn(&str) -> bool) -> Self {
        let (seen, stop) = (Arc::<Mutex<Seen>>::default(), Arc::<AtomicBool>::default());
        let (sees, stops) = (seen.clone(), stop.clone());
        let visits = move || {
            for address in addresses.iter().cycle() {
                if stops.load(Ordering::Relaxed) {
                    return;
                }
                let began = Instant::now();
                let page = visit(*address, path);
                let mut seen = sees.lock().expect("nobody panics with it");
                match page {
                    Ok(page) if is_good(&page) => {
                        seen.pages += 1;
                        seen.last = page;
                    }
                    Ok(page) => seen
                        .failures
                        .push(failure(began, format!("{address}: {page:?}"))),
                    Err(error) => seen
                        .failures
                        .push(failure(began, format!("{address}: {error}"))),
                }
            }
        };
        Self {
            seen,
            stop,
            thread: Some(std::thread::spawn(visits)),
        }
    }

    /// What it has seen until now.
    ///
    /// # Panics
    /// When it could not go on.
    #[must_use]
    pub fn seen(&self) -> Seen {
        self.seen.lock().expect("the visitor lives").clone()
    }
}

impl Drop for Visitor {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // What it panicked of was printed.
            let _ = thread.join();
        }
    }
}

fn failure(began: Instant, why: String) -> Failure {
    Failure {
        began,
        ended: Instant::now(),
        why,
    }
}

/// The whole answer, with its head.
fn visit(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n")?;
    let mut page = String::new();
    stream.read_to_string(&mut page)?;
    Ok(page)
}
