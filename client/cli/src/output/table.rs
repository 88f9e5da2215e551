//! Columns of text.

use std::io::{self, Write};

/// Between columns.
const GAP: usize = 3;

/// Rows under a header; every column as wide as its widest cell.
#[derive(Debug, Clone)]
pub struct Table {
    rows: Vec<Vec<String>>,
    widths: Vec<usize>,
}

impl Table {
    pub fn new<T: Into<String>>(header: Vec<T>) -> Self {
        let mut table = Self {
            rows: Vec::new(),
            widths: Vec::new(),
        };
        table.push(header.into_iter().map(Into::into).collect());
        table
    }

    /// Without the header, which must not have been printed yet.
    pub fn headless(mut self) -> Self {
        self.rows.remove(0);
        let rows = std::mem::take(&mut self.rows);
        self.widths.clear();
        for row in rows {
            self.push(row);
        }
        self
    }

    pub fn push(&mut self, row: Vec<String>) {
        self.widths.resize(self.widths.len().max(row.len()), 0);
        for (width, cell) in self.widths.iter_mut().zip(&row) {
            *width = (*width).max(cell.chars().count());
        }
        self.rows.push(row);
    }

    /// Writes all rows and forgets them; the widths stay, for rows that come later.
    pub fn print(&mut self, out: &mut impl Write) -> io::Result<()> {
        for row in std::mem::take(&mut self.rows) {
            writeln!(out, "{}", line(&row, &self.widths))?;
        }
        out.flush()
    }

    /// Writes to standard output.
    pub fn show(&mut self) -> io::Result<()> {
        self.print(&mut io::stdout().lock())
    }
}

fn line(row: &[String], widths: &[usize]) -> String {
    let mut line = String::new();
    for (index, (cell, width)) in row.iter().zip(widths).enumerate() {
        line.push_str(cell);
        if index + 1 < row.len() {
            let pad = width.saturating_sub(cell.chars().count()) + GAP;
            line.extend(std::iter::repeat_n(' ', pad));
        }
    }
    line.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_keep_their_width() {
        let mut out = Vec::new();
        let mut table = Table::new(vec!["NAME", "AGE"]);
        table.push(vec!["größer".into(), "5s".into()]);
        table.print(&mut out).unwrap();
        table.push(vec!["b".into(), "61d".into()]);
        table.print(&mut out).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "NAME     AGE\ngrößer   5s\nb        61d\n"
        );
    }
    #[test]
    fn without_a_header_the_rows_set_the_widths() {
        let mut out = Vec::new();
        let mut table = Table::new(vec!["A LONG NAME", "AGE"]);
        table.push(vec!["a".into(), "5s".into()]);
        table.headless().print(&mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "a   5s\n");
    }
}
