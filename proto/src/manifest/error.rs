//! An error in a text, shown as rustc does.

use std::fmt;

use super::{Position, Source};

/// Characters of the line shown on each side of the place: manifests of one endless line exist.
const AROUND: usize = 60;

/// Something is wrong in a manifest. Its `Display` is the message, the place, and the line with a mark under it:
///
/// ```text
/// spec: unknown field `replica`: did you mean `replicas`?
///  --> web.yaml:6:3
///   |
/// 6 |   replica: 3
///   |   ^^^^^^^
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestError {
    message: String,
    file: String,
    at: Position,
    excerpt: Excerpt,
}

/// The part of the line that is shown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Excerpt {
    text: String,
    /// Characters before the mark.
    indent: usize,
    /// Characters of the mark.
    width: usize,
}

impl std::error::Error for ManifestError {}

impl ManifestError {
    pub(super) fn new(source: &Source, at: Position, message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            file: source.name.clone(),
            excerpt: Excerpt::new(&source.text, at),
            at,
        }
    }

    /// What is wrong, without where.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The name of the source.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// Counted from 1; 0 when it is not known.
    pub fn line(&self) -> usize {
        self.at.line
    }

    /// In characters, counted from 1; 0 when it is not known.
    pub fn column(&self) -> usize {
        self.at.column
    }
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        let gutter = self.at.line.to_string().len();
        if self.at.line == 0 {
            return write!(f, "\n --> {}", self.file);
        }
        let Excerpt {
            text,
            indent,
            width,
        } = &self.excerpt;
        write!(
            f,
            "\n{empty:gutter$}--> {}:{}:{}\n{empty:gutter$} |\n{} | {text}\n{empty:gutter$} | {empty:indent$}{:^<width$}",
            self.file,
            self.at.line,
            self.at.column,
            self.at.line,
            "",
            empty = "",
        )
    }
}

impl Excerpt {
    fn new(text: &str, at: Position) -> Self {
        let Some(line) = at.line.checked_sub(1).and_then(|n| text.lines().nth(n)) else {
            return Self::default();
        };
        // The parser does not count a byte order mark. Tabs and control characters would move the mark.
        let line: Vec<char> = line
            .trim_start_matches('\u{feff}')
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        let column = at.column.saturating_sub(1).min(line.len());
        let start = column.saturating_sub(AROUND);
        let end = (column + AROUND).min(line.len());
        let ellipsis = |cut| if cut { "…" } else { "" };
        let shown: String = line[start..end].iter().collect();
        Self {
            text: format!(
                "{}{}{}",
                ellipsis(start > 0),
                shown.trim_end(),
                ellipsis(end < line.len())
            ),
            indent: column - start + usize::from(start > 0),
            width: at.width.clamp(1, (end - column).max(1)),
        }
    }
}
