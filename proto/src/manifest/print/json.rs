//! JSON in the form of Go's encoder, which kubectl prints with.

use std::io::{self, Write};

use serde_json::ser::{Formatter, PrettyFormatter};

/// Indents by four spaces, and escapes what Go escapes, and what is a character of JSON but none of YAML: what is
/// printed as JSON is read again as YAML.
pub(super) struct Go(PrettyFormatter<'static>);

impl Default for Go {
    fn default() -> Self {
        Self(PrettyFormatter::with_indent(b"    "))
    }
}

/// Outside of the control characters below U+0020, which JSON itself escapes.
fn is_escaped(c: char) -> bool {
    let by_go = matches!(c, '<' | '>' | '&' | '\u{2028}' | '\u{2029}');
    let by_yaml = matches!(
        c,
        '\u{7f}'..='\u{9f}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}'
    );
    by_go || by_yaml
}

macro_rules! like_pretty {
    ($($method:ident($($argument:ident: $type:ty)?))*) => {
        $(fn $method<W: ?Sized + Write>(&mut self, writer: &mut W $(, $argument: $type)?) -> io::Result<()> {
            self.0.$method(writer $(, $argument)?)
        })*
    };
}

impl Formatter for Go {
    like_pretty! {
        begin_array()
        end_array()
        begin_array_value(first: bool)
        end_array_value()
        begin_object()
        end_object()
        begin_object_key(first: bool)
        begin_object_value()
        end_object_value()
    }

    fn write_string_fragment<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut rest = fragment;
        while let Some((at, c)) = rest.char_indices().find(|(_, c)| is_escaped(*c)) {
            writer.write_all(&rest.as_bytes()[..at])?;
            // None of them is beyond U+FFFF.
            write!(writer, "\\u{:04x}", u32::from(c))?;
            rest = &rest[at + c.len_utf8()..];
        }
        writer.write_all(rest.as_bytes())
    }
}
