//! `$(NAME)` in environment, command and arguments, by Kubernetes' rules; and how much of that a container can have.
//!
//! References multiply: a value of two references to a value of two references grows without end. So lengths are counted before anything is made.

use std::collections::BTreeMap;

/// The longest string that Linux gives a program (MAX_ARG_STRLEN), with the NUL at its end, in bytes.
pub const LONGEST: usize = 128 << 10;
/// The most that environment, command and arguments of a container take together, in bytes: a quarter of the usual stack of 8 MiB (`execve(2)`).
pub const LARGEST: usize = 2 << 20;

/// Counts the strings that a container is given.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Strings {
    bytes: usize,
}

impl Strings {
    /// Counts a string of `bytes` bytes, and the NUL at its end.
    ///
    /// # Errors
    /// A sentence: it is too long, or all of them are too many.
    pub fn count(&mut self, bytes: usize) -> Result<(), String> {
        let bytes = bytes.saturating_add(1);
        if bytes > LONGEST {
            return Err(format!(
                "it is {bytes} bytes long, and Linux gives a program at most {LONGEST} in one string: shorten it, or mount it as a file"
            ));
        }
        self.bytes = self.bytes.saturating_add(bytes);
        match self.bytes > LARGEST {
            true => Err(format!(
                "with it the environment, command and arguments of the container are {} bytes, and at most {LARGEST} are possible: mount files instead",
                self.bytes
            )),
            false => Ok(()),
        }
    }
}

/// Replaces each `$(NAME)` that is known; others stay as they are, and `$$` is a dollar sign.
///
/// # Errors
/// The length, in bytes, when that is more than `most`; then nothing was made.
pub fn expand(text: &str, known: &BTreeMap<String, String>, most: usize) -> Result<String, usize> {
    let mut bytes = 0_usize;
    pieces(text, known, |piece| {
        bytes = bytes.saturating_add(piece.len());
    });
    if bytes > most {
        return Err(bytes);
    }
    let mut out = String::with_capacity(bytes);
    pieces(text, known, |piece| out.push_str(piece));
    Ok(out)
}

/// As [`expand`], for a string that a program is given beside those that `strings` counts. `more` bytes come before it in the same string.
///
/// # Errors
/// A sentence.
pub fn expand_into(
    strings: &mut Strings,
    text: &str,
    known: &BTreeMap<String, String>,
    more: usize,
) -> Result<String, String> {
    match expand(text, known, LONGEST) {
        Ok(expanded) => strings
            .count(expanded.len().saturating_add(more))
            .map(|()| expanded),
        Err(bytes) => Err(Strings::default()
            .count(bytes.saturating_add(more))
            .err()
            .unwrap_or_default()),
    }
}

/// Tells the parts of an expanded text, one after the other.
fn pieces<'a>(text: &'a str, known: &'a BTreeMap<String, String>, mut tell: impl FnMut(&'a str)) {
    let (mut rest, end) = (text, after_last_end(text));
    while let Some(at) = rest.find('$') {
        tell(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(next) = after.strip_prefix('$') {
            tell("$");
            rest = next;
        } else if let Some((name, next)) = reference(after, end) {
            match known.get(name) {
                Some(value) => tell(value),
                None => {
                    tell("$(");
                    tell(name);
                    tell(")");
                }
            }
            rest = next;
        } else {
            tell("$");
            rest = after;
        }
    }
    tell(rest);
}

/// The first `$(NAME)` in a text that is not known.
pub fn unknown<'a>(text: &'a str, known: &BTreeMap<String, String>) -> Option<&'a str> {
    let (mut rest, end) = (text, after_last_end(text));
    while let Some(at) = rest.find('$') {
        let after = &rest[at + 1..];
        rest = match (after.strip_prefix('$'), reference(after, end)) {
            (Some(next), _) => next,
            (None, Some((name, _))) if !known.contains_key(name) => return Some(name),
            (None, Some((_, next))) => next,
            (None, None) => after,
        };
    }
    None
}

/// The name in `(NAME)…` and what follows it. `end` is [`after_last_end`] of the whole text: without a `)` nothing is searched, so that many `$(` take
/// no longer than their length.
fn reference(text: &str, end: usize) -> Option<(&str, &str)> {
    if text.len() <= end {
        return None;
    }
    text.strip_prefix('(')?.split_once(')')
}

/// Bytes after the last `)`; without one, all.
fn after_last_end(text: &str) -> usize {
    text.rfind(')').map_or(text.len(), |at| text.len() - at - 1)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn behaves_as_kubernetes_does() {
        let known = BTreeMap::from([
            ("A".to_owned(), "1".to_owned()),
            ("B".to_owned(), "$(A)".to_owned()),
        ]);
        for (text, expected) in [
            ("", ""),
            ("plain", "plain"),
            ("$(A)", "1"),
            ("x$(A)y$(A)", "x1y1"),
            ("$(B)", "$(A)"),
            ("$(C)", "$(C)"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$1"),
            ("$A", "$A"),
            ("$", "$"),
            ("$(A", "$(A"),
            ("$()", "$()"),
            ("é$(A)é", "é1é"),
        ] {
            assert_eq!(expand(text, &known, 99).unwrap(), expected, "{text}");
        }
        for (text, expected) in [
            ("$(A)/$(C)/$(D)", Some("C")),
            ("$$(C)$(A)$", None),
            ("$(C", None),
        ] {
            assert_eq!(unknown(text, &known), expected, "{text}");
        }
    }

    /// With a search to the end for each it takes minutes.
    #[test]
    fn references_that_do_not_end_take_no_longer_than_their_length() {
        let text = "$(".repeat(1 << 20);
        let expanded = expand(&text, &BTreeMap::new(), text.len()).unwrap();
        assert_eq!(expanded, text);
        assert_eq!(unknown(&text, &BTreeMap::new()), None);
    }

    #[test]
    fn nothing_longer_than_a_program_takes_is_made() {
        let known = BTreeMap::from([("A".to_owned(), "x".repeat(1 << 20))]);
        // A TiB, if it were made.
        let text = "$(A)".repeat(1 << 20);
        assert_eq!(expand(&text, &known, LONGEST), Err(1 << 40));
        assert_eq!(
            expand("$(A)$$", &known, (1 << 20) + 1).unwrap().len(),
            (1 << 20) + 1
        );
        let mut strings = Strings::default();
        assert_eq!(strings.count(LONGEST - 1), Ok(()));
        assert!(strings.count(LONGEST).unwrap_err().contains("131073 bytes"));
        for _ in 1..16 {
            assert_eq!(strings.count(LONGEST - 1), Ok(()));
        }
        let full = strings.count(0).unwrap_err();
        assert!(full.contains("at most 2097152"), "{full}");
    }
}
