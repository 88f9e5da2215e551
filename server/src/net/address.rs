//! Addresses as people write them.

/// Splits `host:port`; IPv6 addresses are in brackets. Absent when it is something else.
#[must_use]
pub fn split_address(address: &str) -> Option<(&str, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    let port = port.parse().ok().filter(|port| *port != 0)?;
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let bracketed = bare.len() + 2 == host.len();
    if bare.is_empty() || bare.contains(':') != bracketed || host.contains(char::is_whitespace) {
        return None;
    }
    Some((bare, port))
}
