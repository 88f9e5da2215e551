//! Ports of the nodes that no Service may take: on them the machines themselves are reached.

use std::{fmt, ops::RangeInclusive, str::FromStr};

use serde::Deserialize;

/// What is kept where nothing else is said. 7100 is where managers usually are; where they really are is kept, too.
const DEFAULT: &[(u16, &str)] = &[
    (22, "SSH"),
    (68, "the machine's DHCP client"),
    (546, "the machine's DHCPv6 client"),
    (7100, "managers"),
];

/// A list of ports and ranges, "22,2379-2380", TCP and UDP alike. It replaces the default: 22, 68, 546, 7100.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct ReservedPorts(Vec<(RangeInclusive<u16>, &'static str)>);

impl ReservedPorts {
    /// No port.
    pub const NONE: Self = Self(Vec::new());

    /// What uses a port; absent when it is free for Services.
    #[must_use]
    pub fn holder(&self, port: u16) -> Option<&'static str> {
        let mut all = self.0.iter();
        all.find(|(ports, _)| ports.contains(&port))
            .map(|(_, holder)| *holder)
    }

    /// This list and one more port.
    #[must_use]
    pub fn and(mut self, port: u16, holder: &'static str) -> Self {
        self.0.push((port..=port, holder));
        self
    }
}

impl Default for ReservedPorts {
    fn default() -> Self {
        let one = |(port, holder): &(u16, &'static str)| (*port..=*port, *holder);
        Self(DEFAULT.iter().map(one).collect())
    }
}

/// Not a list of ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotPorts(String);

impl fmt::Display for NotPorts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "\"{}\" is no port (1 to 65535) and no range; expected is a list such as 22,2379-2380,10250",
            self.0
        )
    }
}

impl std::error::Error for NotPorts {}

impl FromStr for ReservedPorts {
    type Err = NotPorts;

    fn from_str(text: &str) -> Result<Self, NotPorts> {
        let parts = text
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty());
        let range = |part: &str| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let first = first.trim().parse().ok().filter(|first| *first > 0)?;
            let last = last.trim().parse().ok().filter(|last| *last >= first)?;
            Some((first..=last, "--reserved-ports of the leader"))
        };
        parts
            .map(|part| range(part).ok_or_else(|| NotPorts(part.to_owned())))
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

impl TryFrom<String> for ReservedPorts {
    type Error = NotPorts;

    fn try_from(text: String) -> Result<Self, NotPorts> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn ports_and_ranges() {
        let ports: ReservedPorts = "22, 2379-2380,10250".parse().unwrap();
        let held: Vec<u16> = (1..=u16::MAX)
            .filter(|port| ports.holder(*port).is_some())
            .collect();
        assert_eq!(held, [22, 2379, 2380, 10250]);
        assert_eq!("".parse(), Ok(ReservedPorts::NONE));
        assert_eq!(ReservedPorts::default().holder(22), Some("SSH"));
        assert_eq!(ReservedPorts::NONE.and(9100, "x").holder(9100), Some("x"));
        for wrong in ["ssh", "0", "65536", "20-10", "1-2-3", "-5"] {
            let error = format!("22,{wrong}").parse::<ReservedPorts>().unwrap_err();
            assert!(
                error.to_string().contains(&format!("\"{wrong}\"")),
                "{error}"
            );
        }
    }
}
