//! Somebody who visits a site all the time, and notes each visit that went wrong.

use std::{
    collections::HashMap,
    io::{self, BufRead, BufReader, ErrorKind, Read, Write},
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

/// Between two visits of a steady visitor.
const PAUSE: Duration = Duration::from_millis(5);

/// How a visitor connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// With a connection for each visit.
    Fresh,
    /// With one connection to each address, for as long as the site keeps it. As all clients do, it visits once more when a connection that was kept
    /// ends before a byte of the answer: the site has closed it meanwhile.
    Kept,
}

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
        let visit = move |address| visit(address, path);
        Self::start(addresses, visit, is_good, Duration::ZERO)
    }

    /// As [`Visitor::new`], with a short pause between two visits.
    #[must_use]
    pub fn steady(addresses: Vec<SocketAddr>, way: Way, is_good: fn(&str) -> bool) -> Self {
        let mut kept = HashMap::new();
        let visit = move |address| match way {
            Way::Fresh => visit(address, "/"),
            Way::Kept => visit_kept(&mut kept, address),
        };
        Self::start(addresses, visit, is_good, PAUSE)
    }

    fn start(
        addresses: Vec<SocketAddr>,
        mut visit: impl FnMut(SocketAddr) -> io::Result<String> + Send + 'static,
        is_good: fn(&str) -> bool,
        pause: Duration,
    ) -> Self {
        let (seen, stop) = (Arc::<Mutex<Seen>>::default(), Arc::<AtomicBool>::default());
        let (sees, stops) = (seen.clone(), stop.clone());
        let visits = move || {
            for address in addresses.iter().cycle() {
                if stops.load(Ordering::Relaxed) {
                    return;
                }
                let began = Instant::now();
                let page = visit(*address);
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
                drop(seen);
                std::thread::sleep(pause);
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
fn visit(address: SocketAddr, path: &str) -> io::Result<String> {
    let mut stream = connect(address)?;
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n")?;
    let mut page = String::new();
    stream.read_to_string(&mut page)?;
    Ok(page)
}

fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

type Connection = BufReader<TcpStream>;

fn visit_kept(
    kept: &mut HashMap<SocketAddr, Connection>,
    address: SocketAddr,
) -> io::Result<String> {
    let reused = match kept.remove(&address) {
        Some(mut connection) => ask(&mut connection)?.map(|answer| (connection, answer)),
        None => None,
    };
    let (connection, (page, is_last)) = match reused {
        Some(answered) => answered,
        None => {
            let mut connection = BufReader::new(connect(address)?);
            let answer = ask(&mut connection)?;
            let closed = || io::Error::new(ErrorKind::UnexpectedEof, "closed without an answer");
            (connection, answer.ok_or_else(closed)?)
        }
    };
    if !is_last {
        kept.insert(address, connection);
    }
    Ok(page)
}

/// The answer with its head, and whether it is the last one; `None` when the connection has ended before.
fn ask(connection: &mut Connection) -> io::Result<Option<(String, bool)>> {
    let request = b"GET / HTTP/1.1\r\nHost: site\r\n\r\n";
    let ended = |error: &io::Error| {
        use ErrorKind::{BrokenPipe, ConnectionReset};
        matches!(error.kind(), BrokenPipe | ConnectionReset)
    };
    let begun = connection
        .get_mut()
        .write_all(request)
        .and_then(|()| connection.fill_buf().map(<[u8]>::is_empty));
    match begun {
        Ok(false) => {}
        Ok(true) => return Ok(None),
        Err(error) if ended(&error) => return Ok(None),
        Err(error) => return Err(error),
    }
    let (mut page, mut length, mut is_last) = (String::new(), 0, false);
    loop {
        let begin = page.len();
        connection.read_line(&mut page)?;
        let line = page[begin..].trim().to_ascii_lowercase();
        match line.split_once(": ") {
            Some(("content-length", bytes)) => length = bytes.parse().unwrap_or(0),
            Some(("connection", "close")) => is_last = true,
            _ if line.is_empty() => break,
            _ => {}
        }
    }
    let mut body = vec![0; length];
    connection.read_exact(&mut body)?;
    page.push_str(&String::from_utf8_lossy(&body));
    Ok(Some((page, is_last)))
}
