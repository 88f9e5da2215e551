//! Progress on standard error: one line that changes on a terminal, separate lines in a pipe.

use std::io::{self, IsTerminal, Write};

/// The line that says what is being waited for.
#[derive(Debug)]
pub struct Progress {
    terminal: bool,
    last: String,
}

impl Progress {
    pub fn new() -> Self {
        Self {
            terminal: io::stderr().is_terminal(),
            last: String::new(),
        }
    }

    /// Says what is the case now; a repetition is not printed.
    pub fn say(&mut self, text: &str) {
        if text == self.last {
            return;
        }
        text.clone_into(&mut self.last);
        let line = match self.terminal {
            true => format!("\r\x1b[2K{text}"),
            false => format!("{text}\n"),
        };
        // Progress that cannot be shown is no reason to stop.
        let _ = io::stderr().write_all(line.as_bytes());
    }

    /// Takes the changing line away, or keeps `text` in its place.
    pub fn finish(&mut self, text: Option<&str>) {
        let clear = if self.terminal { "\r\x1b[2K" } else { "" };
        let line = match text {
            Some(text) => format!("{clear}{text}\n"),
            None => clear.to_owned(),
        };
        self.last.clear();
        let _ = io::stderr().write_all(line.as_bytes());
    }
}
