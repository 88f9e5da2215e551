//! The syntax of `-l`: `a=b`, `a==b`, `a!=b`, `a in (b,c)`, `a notin (b,c)`, `a`, `!a`, separated by commas.

use std::str::FromStr;

use super::{Requirement, Selector, SelectorError, Test};
use crate::validate::names;

impl FromStr for Selector {
    type Err = SelectorError;

    /// The empty string selects everything.
    fn from_str(text: &str) -> Result<Self, SelectorError> {
        let mut parser = Parser { text, rest: text };
        let mut requirements = Vec::new();
        if parser.peek().is_none() {
            return Ok(Self::default());
        }
        loop {
            requirements.push(parser.requirement()?);
            if parser.peek().is_none() {
                return Ok(Self { requirements });
            }
            if !parser.eat(",") {
                return parser.expected("a comma or the end");
            }
        }
    }
}

struct Parser<'a> {
    text: &'a str,
    rest: &'a str,
}

impl<'a> Parser<'a> {
    /// The next character that is not white space.
    fn peek(&mut self) -> Option<char> {
        self.rest = self.rest.trim_start();
        self.rest.chars().next()
    }

    fn eat(&mut self, token: &str) -> bool {
        self.peek();
        let rest = self.rest.strip_prefix(token);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    /// The characters that keys and values are made of; may be empty.
    fn word(&mut self) -> &'a str {
        self.peek();
        let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
        let end = self.rest.find(|c| !is_part(c)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word
    }

    fn expected<T>(&self, expected: &'static str) -> Result<T, SelectorError> {
        let read = self.text.len() - self.rest.len();
        Err(SelectorError::Syntax {
            text: self.text.to_owned(),
            at: self.text[..read].chars().count() + 1,
            expected,
        })
    }

    fn key(&mut self) -> Result<String, SelectorError> {
        match self.word() {
            "" => self.expected("a label's key"),
            key => match names::label_key(key) {
                Ok(()) => Ok(key.to_owned()),
                Err(rule) => Err(SelectorError::Key {
                    key: key.to_owned(),
                    rule,
                }),
            },
        }
    }

    fn requirement(&mut self) -> Result<Requirement, SelectorError> {
        if self.eat("!") {
            let key = self.key()?;
            let test = Test::DoesNotExist;
            return Ok(Requirement { key, test });
        }
        let key = self.key()?;
        let test = if self.eat("!=") {
            Test::NotIn(vec![self.word().to_owned()])
        } else if self.eat("==") || self.eat("=") {
            Test::In(vec![self.word().to_owned()])
        } else if matches!(self.peek(), None | Some(',')) {
            Test::Exists
        } else {
            let before = self.rest;
            match self.word() {
                "in" => Test::In(self.values()?),
                "notin" => Test::NotIn(self.values()?),
                _ => {
                    self.rest = before;
                    return self.expected("=, !=, in, notin or a comma");
                }
            }
        };
        Ok(Requirement { key, test })
    }

    fn values(&mut self) -> Result<Vec<String>, SelectorError> {
        if !self.eat("(") {
            return self.expected("values in parentheses");
        }
        let mut values = vec![self.word().to_owned()];
        while self.eat(",") {
            values.push(self.word().to_owned());
        }
        if !self.eat(")") {
            return self.expected("a comma or a closing parenthesis");
        }
        Ok(values)
    }
}
