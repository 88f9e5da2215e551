//! Whole lines of one of several streams, each with its prefix.

/// A longer line is printed in pieces.
const LONGEST: usize = 64 << 10;

/// Cuts a stream into whole lines.
#[derive(Debug, Default)]
pub struct Lines {
    prefix: Vec<u8>,
    /// The begin of a line whose end has not come.
    rest: Vec<u8>,
    /// Whether the line that `rest` is of was begun in an earlier piece.
    begun: bool,
}

impl Lines {
    /// Every line begins with `prefix`.
    pub fn new(prefix: &str) -> Self {
        Self {
            prefix: prefix.as_bytes().to_vec(),
            ..Self::default()
        }
    }

    /// What can be printed after this has come: whole lines, or the first part of one that is too long.
    pub fn feed(&mut self, data: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        for piece in data.split_inclusive(|byte| *byte == b'\n') {
            self.rest.extend_from_slice(piece);
            if piece.ends_with(b"\n") {
                self.put(&mut out);
                self.begun = false;
            } else if self.rest.len() > LONGEST {
                self.put(&mut out);
                self.begun = true;
            }
        }
        out
    }

    /// What is left at the end of the stream, as a line.
    pub fn end(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        if self.begun || !self.rest.is_empty() {
            self.put(&mut out);
            out.push(b'\n');
            self.begun = false;
        }
        out
    }

    fn put(&mut self, out: &mut Vec<u8>) {
        if !self.begun {
            out.extend_from_slice(&self.prefix);
        }
        out.append(&mut self.rest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_whole_and_have_their_prefix() {
        let mut lines = Lines::new("[a] ");
        assert_eq!(lines.feed(b"one\ntw"), b"[a] one\n");
        assert_eq!(lines.feed(b"o"), b"");
        assert_eq!(lines.feed(b"\n\nthree"), b"[a] two\n[a] \n");
        assert_eq!(lines.end(), b"[a] three\n");
        assert_eq!(lines.end(), b"");
    }

    #[test]
    fn a_line_without_an_end_is_not_kept_whole() {
        let mut lines = Lines::new("> ");
        let long = vec![b'x'; LONGEST + 1];
        assert_eq!(lines.feed(&long).len(), LONGEST + 3);
        assert_eq!(lines.feed(b"y\nz\n"), b"y\n> z\n");
    }
}
