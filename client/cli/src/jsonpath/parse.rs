//! From text to a template.

use super::{Part, Path, Step};

mod filter;

/// Ranges in ranges, and filters in filters.
const DEPTH: usize = 16;

/// What is wrong with a template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("in the JSONPath template {text:?}, at character {at}: {what}")]
pub struct ParseError {
    text: String,
    /// From 1.
    at: usize,
    what: String,
}

impl ParseError {
    pub(super) fn not_a_path(text: &str) -> Self {
        Self {
            text: text.to_owned(),
            at: 1,
            what: "expected one path, such as {.metadata.name}".to_owned(),
        }
    }
}

type Parsed<T> = Result<T, ParseError>;

/// Reads a whole template.
pub fn template(text: &str) -> Parsed<Vec<Part>> {
    let mut parser = Parser {
        text,
        chars: text.chars().collect(),
        at: 0,
    };
    let (parts, ended) = parser.parts(0)?;
    match ended {
        true => parser.fail("{end} without a {range}"),
        false => Ok(parts),
    }
}

struct Parser<'a> {
    text: &'a str,
    chars: Vec<char>,
    at: usize,
}

/// What stands in braces.
enum Action {
    Parts(Vec<Part>),
    Range(Path),
    End,
}

impl Parser<'_> {
    fn fail<T>(&self, what: impl Into<String>) -> Parsed<T> {
        Err(ParseError {
            text: self.text.to_owned(),
            at: self.at + 1,
            what: what.into(),
        })
    }

    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn take(&mut self, wanted: char) -> bool {
        let is = self.peek() == Some(wanted);
        self.at += usize::from(is);
        is
    }

    fn expect(&mut self, wanted: char) -> Parsed<()> {
        match self.take(wanted) {
            true => Ok(()),
            false => self.fail(match self.peek() {
                Some(found) => format!("expected {wanted:?}, found {found:?}"),
                None => format!("expected {wanted:?}, found the end"),
            }),
        }
    }

    fn spaces(&mut self) {
        while self.peek().is_some_and(char::is_whitespace) {
            self.at += 1;
        }
    }

    /// The parts up to the end of the text, or up to `{end}`: then true.
    fn parts(&mut self, depth: usize) -> Parsed<(Vec<Part>, bool)> {
        if depth > DEPTH {
            return self.fail(format!("more than {DEPTH} ranges in each other"));
        }
        let mut parts = Vec::new();
        while let Some(next) = self.peek() {
            if next != '{' {
                let from = self.at;
                while self.peek().is_some_and(|it| it != '{') {
                    self.at += 1;
                }
                parts.push(Part::Text(self.chars[from..self.at].iter().collect()));
                continue;
            }
            self.at += 1;
            match self.action(depth)? {
                Action::Parts(more) => parts.extend(more),
                Action::End => return Ok((parts, true)),
                Action::Range(path) => {
                    let (body, ended) = self.parts(depth + 1)?;
                    if !ended {
                        return self.fail("{range} without an {end}");
                    }
                    parts.push(Part::Range(path, body));
                }
            }
        }
        Ok((parts, false))
    }

    /// What stands between braces; the first one is read.
    fn action(&mut self, depth: usize) -> Parsed<Action> {
        self.spaces();
        let mut parts = Vec::new();
        loop {
            self.spaces();
            match self.peek() {
                Some('}') => {
                    self.at += 1;
                    return Ok(Action::Parts(parts));
                }
                Some('"' | '\'') => parts.push(Part::Text(self.quoted()?)),
                Some('.' | '[' | '$' | '@' | '*') => parts.push(Part::Show(self.path(depth)?)),
                Some(letter) if letter.is_alphabetic() && parts.is_empty() => match &*self.word() {
                    "end" => {
                        self.spaces();
                        return self.expect('}').map(|()| Action::End);
                    }
                    "range" => {
                        self.spaces();
                        let path = self.path(depth)?;
                        self.spaces();
                        return self.expect('}').map(|()| Action::Range(path));
                    }
                    word => {
                        return self.fail(format!(
                                "{word:?} is neither range nor end: a field begins with a dot ({{.{word}}})"
                            ));
                    }
                },
                Some(other) => return self.fail(format!("{other:?} is not expected here")),
                None => return self.fail("the brace is not closed"),
            }
        }
    }

    fn word(&mut self) -> String {
        let from = self.at;
        while self.peek().is_some_and(char::is_alphanumeric) {
            self.at += 1;
        }
        self.chars[from..self.at].iter().collect()
    }

    /// A text in quotes of either sort, with Go's usual escapes.
    fn quoted(&mut self) -> Parsed<String> {
        let quote = self.peek();
        self.at += 1;
        let mut text = String::new();
        loop {
            let Some(next) = self.peek() else {
                return self.fail("the quotes are not closed");
            };
            self.at += 1;
            if Some(next) == quote {
                return Ok(text);
            }
            if next != '\\' {
                text.push(next);
                continue;
            }
            let Some(escaped) = self.peek() else {
                return self.fail("the quotes are not closed");
            };
            self.at += 1;
            text.push(match escaped {
                'n' => '\n',
                't' => '\t',
                'r' => '\r',
                other => other,
            });
        }
    }

    fn path(&mut self, depth: usize) -> Parsed<Path> {
        if depth > DEPTH {
            return self.fail(format!("more than {DEPTH} filters in each other"));
        }
        let whole = self.take('$');
        if !whole {
            self.take('@');
        }
        let mut steps = Vec::new();
        loop {
            match self.peek() {
                Some('.') => {
                    self.at += 1;
                    if self.take('.') {
                        steps.push(Step::Below);
                    }
                    if self.take('*') {
                        steps.push(Step::All);
                    } else {
                        let name = self.field()?;
                        // "{.}" is the value itself.
                        if !name.is_empty() {
                            steps.push(Step::Field(name));
                        }
                    }
                }
                Some('*') => {
                    self.at += 1;
                    steps.push(Step::All);
                }
                Some('[') => {
                    self.at += 1;
                    steps.push(self.bracket(depth)?);
                }
                _ => return Ok(Path { whole, steps }),
            }
        }
    }

    /// A field's name, up to what ends it; a backslash takes the next character as it is.
    fn field(&mut self) -> Parsed<String> {
        let mut name = String::new();
        while let Some(next) = self.peek() {
            match next {
                '\\' => {
                    self.at += 1;
                    let Some(escaped) = self.peek() else {
                        return self.fail("a backslash at the end");
                    };
                    name.push(escaped);
                }
                '.' | '[' | ']' | '{' | '}' | '(' | ')' | '=' | '!' | '<' | '>' | ',' | '*'
                | '"' | '\'' => break,
                space if space.is_whitespace() => break,
                other => name.push(other),
            }
            self.at += 1;
        }
        Ok(name)
    }

    /// What stands in brackets; the first one is read.
    fn bracket(&mut self, depth: usize) -> Parsed<Step> {
        self.spaces();
        if self.take('?') {
            self.expect('(')?;
            let filter = self.filter(depth + 1)?;
            self.spaces();
            self.expect(')')?;
            self.spaces();
            self.expect(']')?;
            return Ok(Step::Filter(filter));
        }
        if self.take('*') {
            self.spaces();
            return self.expect(']').map(|()| Step::All);
        }
        let mut steps = vec![self.subscript(depth)?];
        self.spaces();
        while self.take(',') {
            self.spaces();
            steps.push(self.subscript(depth)?);
            self.spaces();
        }
        self.expect(']')?;
        let several = steps.len() > 1;
        let path = |step| Path {
            whole: false,
            // 'metadata.name' among several is a path, alone it is a name.
            steps: match step {
                Step::Field(name) if several => name
                    .split('.')
                    .filter(|name| !name.is_empty())
                    .map(|name| Step::Field(name.to_owned()))
                    .collect(),
                step => vec![step],
            },
        };
        match steps.pop() {
            Some(only) if steps.is_empty() => Ok(only),
            last => Ok(Step::Union(
                steps.into_iter().chain(last).map(path).collect(),
            )),
        }
    }

    /// A name in quotes, an index or a slice.
    fn subscript(&mut self, depth: usize) -> Parsed<Step> {
        match self.peek() {
            Some('"' | '\'') => return Ok(Step::Field(self.quoted()?)),
            Some('.' | '@' | '$') => return Ok(Step::Union(vec![self.path(depth + 1)?])),
            _ => {}
        }
        let from = self.number()?;
        if !self.take(':') {
            return match from {
                Some(index) => Ok(Step::Index(index)),
                None => self.fail("expected an index, a slice, a name in quotes, * or ?(…)"),
            };
        }
        let to = self.number()?;
        let by = match self.take(':') {
            true => self.number()?.unwrap_or(1),
            false => 1,
        };
        if by < 1 {
            return self.fail(format!("{by} is no step of a slice: at least 1"));
        }
        Ok(Step::Slice { from, to, by })
    }

    fn number(&mut self) -> Parsed<Option<i64>> {
        let from = self.at;
        self.take('-');
        while self.peek().is_some_and(|it| it.is_ascii_digit()) {
            self.at += 1;
        }
        if self.at == from {
            return Ok(None);
        }
        let text: String = self.chars[from..self.at].iter().collect();
        match text.parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) => self.fail(format!("{text:?} is no index")),
        }
    }
}
