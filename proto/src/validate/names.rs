//! The rules for names and labels, as Kubernetes has them. An error is the text of a rule; the caller puts the value before it.

/// RFC 1123 label: names of namespaces, containers and ports of Services.
///
/// # Errors
/// The rule, to be read after the name.
pub fn dns_label(name: &str) -> Result<(), String> {
    let rule = "must be at most 63 lower-case letters, digits and '-', and begin and end with a letter or digit";
    require(name.len() <= 63 && is_dns_part(name), rule)
}

/// RFC 1035 label: as an RFC 1123 label, but it begins with a letter. Names of Services.
pub(crate) fn dns_1035_label(name: &str) -> Result<(), String> {
    let rule = "must be at most 63 lower-case letters, digits and '-', begin with a letter and end with a letter or digit";
    let begins = name.starts_with(|c: char| c.is_ascii_lowercase());
    require(name.len() <= 63 && begins && is_dns_part(name), rule)
}

/// RFC 1123 subdomain: labels between dots. Names of most objects.
pub fn dns_subdomain(name: &str) -> Result<(), String> {
    let rule = "must be at most 253 lower-case letters, digits, '-' and '.', \
                and begin and end with a letter or digit, as every part between dots";
    require(name.len() <= 253 && name.split('.').all(is_dns_part), rule)
}

/// What a URL can name in one piece. Names of roles and bindings, such as system:masters.
pub(crate) fn path_segment(name: &str) -> Result<(), String> {
    let rule = "must be at most 253 characters without '/', '%' and control characters, and not be '.' or '..'";
    let is_part = |c: char| !matches!(c, '/' | '%') && !c.is_control();
    let valid = (1..=253).contains(&name.len()) && name.chars().all(is_part);
    require(valid && !matches!(name, "." | ".."), rule)
}

/// The key of a label or annotation: a name, maybe after a DNS prefix and a slash.
pub(crate) fn label_key(key: &str) -> Result<(), String> {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    let prefix_is_valid = prefix.is_none_or(|prefix| dns_subdomain(prefix).is_ok());
    let rule = "must be a name of at most 63 letters, digits, '-', '_' and '.' that begins and ends with a letter or \
                digit, maybe after a DNS prefix and '/', such as app or example.com/app";
    let name_is_valid = !name.is_empty() && name.len() <= 63 && is_qualified(name);
    require(prefix_is_valid && name_is_valid, rule)
}

/// The value of a label.
pub fn label_value(value: &str) -> Result<(), String> {
    let rule = "must be at most 63 letters, digits, '-', '_' and '.', and begin and end with a letter or digit, or be empty";
    require(
        value.is_empty() || (value.len() <= 63 && is_qualified(value)),
        rule,
    )
}

/// The name of a container's port, which target ports refer to.
pub(crate) fn port_name(name: &str) -> Result<(), String> {
    let rule = "must be at most 15 lower-case letters, digits and single '-', \
                with a letter, and begin and end with a letter or digit";
    let valid = name.len() <= 15
        && is_dns_part(name)
        && name.contains(|c: char| c.is_ascii_lowercase())
        && !name.contains("--");
    require(valid, rule)
}

/// The name of an environment variable.
///
/// # Errors
/// The rule that it breaks.
pub fn env_name(name: &str) -> Result<(), String> {
    let rule = "must be printable ASCII characters other than '='";
    let is_part = |c: char| (c.is_ascii_graphic() || c == ' ') && c != '=';
    require(!name.is_empty() && name.chars().all(is_part), rule)
}

/// The name of a header of HTTP.
pub(crate) fn header_name(name: &str) -> Result<(), String> {
    let rule = "must be letters, digits and '-', such as X-Custom-Header";
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '-';
    require(!name.is_empty() && name.chars().all(is_part), rule)
}

/// The value of a header of HTTP.
pub(crate) fn header_value(value: &str) -> Result<(), String> {
    let rule = "must be one line without control characters";
    require(!value.contains(|c: char| c.is_control() && c != '\t'), rule)
}

/// The key of a value in a Secret or a ConfigMap: the name of a file, too.
pub(crate) fn data_key(key: &str) -> Result<(), String> {
    let rule =
        "must be 1 to 253 letters, digits, '-', '_' and '.', and not be '.' or begin with '..'";
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let valid = (1..=253).contains(&key.len())
        && key.chars().all(is_part)
        && key != "."
        && !key.starts_with("..");
    require(valid, rule)
}

fn require(valid: bool, rule: &str) -> Result<(), String> {
    if valid { Ok(()) } else { Err(rule.to_owned()) }
}

fn is_dns_part(part: &str) -> bool {
    let is_edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    part.starts_with(is_edge)
        && part.ends_with(is_edge)
        && part.chars().all(|c| is_edge(c) || c == '-')
}

fn is_qualified(name: &str) -> bool {
    let is_edge = |c: char| c.is_ascii_alphanumeric();
    name.starts_with(is_edge)
        && name.ends_with(is_edge)
        && name
            .chars()
            .all(|c| is_edge(c) || matches!(c, '-' | '_' | '.'))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn check(rule: fn(&str) -> Result<(), String>, good: &[&str], bad: &[&str]) {
        for name in good {
            assert_eq!(rule(name), Ok(()), "{name:?}");
        }
        for name in bad {
            assert!(rule(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn names_are_kubernetes() {
        let long = "a".repeat(63);
        let longer = "a".repeat(64);
        check(
            dns_label,
            &["a", "a-b", "1", "a--b", &long],
            &["", "-a", "a-", "A", "a.b", "a_b", "é", &longer],
        );
        check(dns_1035_label, &["a1", "a-b"], &["1a", "", "a-"]);
        check(
            dns_subdomain,
            &[
                "a",
                "a.b",
                "1.2",
                &longer,
                "a.".repeat(126).trim_end_matches('.'),
            ],
            &["", ".a", "a.", "a..b", "a.-b", "A.b", &"a".repeat(254)],
        );
        check(
            label_key,
            &[
                "app",
                "a_b.c",
                "App",
                "example.com/App",
                &format!("{}/{long}", "a".repeat(253)),
            ],
            &[
                "",
                "/a",
                "a/",
                "a/b/c",
                "Example.com/a",
                "_a",
                "a-",
                &longer,
                "a b",
            ],
        );
        check(
            label_value,
            &["", "a", "A_b.c-1", &long],
            &["-a", "a-", "a b", "a/b", &longer],
        );
        check(
            port_name,
            &["http", "a-1", "1a"],
            &["", "1", "http--1", "HTTP", "a234567890123456"],
        );
        check(
            env_name,
            &["A", "a.b-c", "_", "A B"],
            &["", "A=B", "ä", "\n"],
        );
    }
}
