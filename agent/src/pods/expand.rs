//! `$(NAME)` in environment, command and arguments, by Kubernetes' rules.

use std::collections::BTreeMap;

/// Replaces each `$(NAME)` that is known; others stay as they are, and `$$` is a dollar sign.
pub fn expand(text: &str, known: &BTreeMap<String, String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(next) = after.strip_prefix('$') {
            out.push('$');
            rest = next;
        } else if let Some((name, next)) = reference(after) {
            match known.get(name) {
                Some(value) => out.push_str(value),
                None => {
                    out.push_str("$(");
                    out.push_str(name);
                    out.push(')');
                }
            }
            rest = next;
        } else {
            out.push('$');
            rest = after;
        }
    }
    out.push_str(rest);
    out
}

/// The first `$(NAME)` in a text that is not known.
pub fn unknown<'a>(text: &'a str, known: &BTreeMap<String, String>) -> Option<&'a str> {
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        let after = &rest[at + 1..];
        rest = match (after.strip_prefix('$'), reference(after)) {
            (Some(next), _) => next,
            (None, Some((name, _))) if !known.contains_key(name) => return Some(name),
            (None, Some((_, next))) => next,
            (None, None) => after,
        };
    }
    None
}

/// The name in `(NAME)…` and what follows it.
fn reference(text: &str) -> Option<(&str, &str)> {
    text.strip_prefix('(')?.split_once(')')
}

#[cfg(test)]
mod tests {
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
            assert_eq!(expand(text, &known), expected, "{text}");
        }
        for (text, expected) in [
            ("$(A)/$(C)/$(D)", Some("C")),
            ("$$(C)$(A)$", None),
            ("$(C", None),
        ] {
            assert_eq!(unknown(text, &known), expected, "{text}");
        }
    }
}
