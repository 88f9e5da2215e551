//! A bounded pipe between the stream of a program and a thread that reads or writes an archive.

use std::{
    cell::Cell,
    io::{self, Read, Write},
    rc::Rc,
};

use tokio::sync::mpsc;

/// Pieces that wait.
const AHEAD: usize = 4;
/// What is written is gathered up to so much, in bytes.
const PIECE: usize = 64 << 10;

pub fn pipe() -> (mpsc::Sender<Vec<u8>>, mpsc::Receiver<Vec<u8>>) {
    mpsc::channel(AHEAD)
}

/// Writes into the pipe, in pieces.
#[derive(Debug)]
pub struct Writer {
    to: mpsc::Sender<Vec<u8>>,
    gathered: Vec<u8>,
}

impl Writer {
    pub fn new(to: mpsc::Sender<Vec<u8>>) -> Self {
        Self {
            to,
            gathered: Vec::with_capacity(PIECE),
        }
    }
}

impl Write for Writer {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let room = PIECE - self.gathered.len();
        let length = room.min(data.len());
        self.gathered.extend_from_slice(&data[..length]);
        if self.gathered.len() == PIECE {
            self.flush()?;
        }
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.gathered, Vec::with_capacity(PIECE));
        let sent = self.to.blocking_send(piece);
        sent.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

/// Reads from the pipe, until its end and within a budget.
#[derive(Debug)]
pub struct Reader {
    from: mpsc::Receiver<Vec<u8>>,
    piece: Vec<u8>,
    taken: usize,
    budget: Budget,
}

/// How many bytes may be read. It bounds what an archive's headers can make this process keep.
#[derive(Debug, Clone)]
pub struct Budget(Rc<Cell<u64>>);

impl Budget {
    pub fn new() -> Self {
        Self(Rc::new(Cell::new(u64::MAX)))
    }

    pub fn set(&self, bytes: u64) {
        self.0.set(bytes);
    }
}

impl Reader {
    pub fn new(from: mpsc::Receiver<Vec<u8>>, budget: Budget) -> Self {
        Self {
            from,
            piece: Vec::new(),
            taken: 0,
            budget,
        }
    }
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.taken == self.piece.len() {
            let Some(piece) = self.from.blocking_recv() else {
                return Ok(0);
            };
            self.piece = piece;
            self.taken = 0;
        }
        let rest = &self.piece[self.taken..];
        let length = rest.len().min(buffer.len());
        let left = self.budget.0.get();
        let Some(left) = left.checked_sub(length as u64) else {
            return Err(io::Error::other("a header of the archive is too long"));
        };
        self.budget.0.set(left);
        buffer[..length].copy_from_slice(&rest[..length]);
        self.taken += length;
        Ok(length)
    }
}
