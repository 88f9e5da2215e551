//! Standard input, read by a thread of its own: a read that waits for a key does not hold back the end of the process.

use std::{
    io::{self, Read},
    thread,
};

use tokio::sync::mpsc;

/// The most that is read at a time, in bytes.
const PIECE: usize = 64 << 10;

/// What was read, until its end or an error.
pub type Input = mpsc::Receiver<io::Result<Vec<u8>>>;

/// Reads one piece ahead, and no more until that is taken.
pub fn input(mut from: impl Read + Send + 'static) -> io::Result<Input> {
    let (sender, receiver) = mpsc::channel(1);
    let read = move || {
        let mut buffer = vec![0; PIECE];
        loop {
            let piece = match from.read(&mut buffer) {
                Ok(0) => return,
                Ok(length) => Ok(buffer[..length].to_vec()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => Err(error),
            };
            let failed = piece.is_err();
            if sender.blocking_send(piece).is_err() || failed {
                return;
            }
        }
    };
    thread::Builder::new().name("input".into()).spawn(read)?;
    Ok(receiver)
}
