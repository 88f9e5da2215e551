//! Lines of `name: value`, with values under each other.

/// Where values begin.
const COLUMN: usize = 20;

/// A text that grows by lines.
#[derive(Debug, Default)]
pub struct Text {
    text: String,
    indent: usize,
}

impl Text {
    /// One line; an empty value leaves it out.
    pub fn field(&mut self, name: &str, value: impl AsRef<str>) {
        let value = value.as_ref();
        if value.is_empty() {
            return;
        }
        let pad = COLUMN
            .saturating_sub(name.chars().count() + 1 + self.indent)
            .max(1);
        let space = " ".repeat(self.indent);
        self.text
            .push_str(&format!("{space}{name}:{}{value}\n", " ".repeat(pad)));
    }

    /// One field with several values, one a line.
    pub fn list(&mut self, name: &str, values: impl IntoIterator<Item = String>) {
        let mut values = values.into_iter();
        let Some(first) = values.next() else {
            return;
        };
        self.field(name, first);
        for value in values {
            self.text
                .push_str(&format!("{}{value}\n", " ".repeat(COLUMN)));
        }
    }

    /// A value that may have several lines: those begin below its name.
    pub fn value(&mut self, name: &str, value: &str) {
        if !value.contains('\n') {
            return self.field(name, value);
        }
        self.section(name, |text| {
            for line in value.lines() {
                let space = " ".repeat(text.indent);
                text.text.push_str(&format!("{space}{line}\n"));
            }
        });
    }

    /// A heading with lines below it.
    pub fn section(&mut self, title: &str, body: impl FnOnce(&mut Self)) {
        self.text
            .push_str(&format!("{}{title}:\n", " ".repeat(self.indent)));
        self.indent += 2;
        body(self);
        self.indent -= 2;
    }

    pub fn finish(self) -> String {
        self.text
    }
}
