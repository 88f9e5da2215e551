//! What stands in `?(…)`.

use serde_json::Value;

use super::{
    super::{Filter, Operand, Operator},
    Parsed, Parser,
};

impl Parser<'_> {
    pub(super) fn filter(&mut self, depth: usize) -> Parsed<Filter> {
        let left = self.operand(depth)?;
        self.spaces();
        let operators = [
            ("==", Operator::Equal),
            ("!=", Operator::NotEqual),
            ("<=", Operator::LessOrEqual),
            (">=", Operator::GreaterOrEqual),
            ("<", Operator::Less),
            (">", Operator::Greater),
        ];
        for (sign, operator) in operators {
            let rest = self.chars[self.at..].iter().take(sign.len());
            if rest.copied().eq(sign.chars()) {
                self.at += sign.len();
                let right = self.operand(depth)?;
                return Ok(Filter::Compare(left, operator, right));
            }
        }
        match (left, self.peek()) {
            (Operand::Path(path), Some(')')) => Ok(Filter::Exists(path)),
            _ => self.fail("expected ==, !=, <, <=, > or >=, and \")\" after what is compared"),
        }
    }

    fn operand(&mut self, depth: usize) -> Parsed<Operand> {
        self.spaces();
        match self.peek() {
            Some('"' | '\'') => Ok(Operand::Literal(Value::String(self.quoted()?))),
            Some('@' | '$' | '.') => Ok(Operand::Path(self.path(depth)?)),
            _ => {
                let from = self.at;
                let ends = |it: char| it.is_whitespace() || ")=!<>".contains(it);
                while self.peek().is_some_and(|it| !ends(it)) {
                    self.at += 1;
                }
                let word: String = self.chars[from..self.at].iter().collect();
                match serde_json::from_str(&word) {
                    Ok(value @ (Value::Bool(_) | Value::Number(_) | Value::Null)) => {
                        Ok(Operand::Literal(value))
                    }
                    _ => self.fail(format!(
                        "{word:?} is neither a path (@.type) nor a number, true, false or a text in quotes"
                    )),
                }
            }
        }
    }
}
