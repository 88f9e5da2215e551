//! What control and carrier say to each other: one JSON object a line, one answer for each.

use serde::{Deserialize, Serialize};

/// Raised when a carrier of before would misunderstand.
pub const VERSION: u32 = 2;

/// No line is longer.
pub const LONGEST: u64 = 64 * 1024;

/// A request with the version of who asks.
#[derive(Debug, Serialize, Deserialize)]
pub struct Envelope {
    /// [`VERSION`] of control.
    pub version: u32,
    /// What is wanted.
    #[serde(flatten)]
    pub request: Request,
}

/// What control may want. All are safe to repeat.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Request {
    /// Nothing but an answer.
    Ping,
    /// Make pipes for a container, open them, and drain them into its log.
    Attach(Attachment),
    /// Take what is still in a container's pipes, and remove them.
    Detach {
        /// The container's id.
        id: String,
    },
    /// Answer once nobody writes into a container's pipes any more and all that was written is in its log, or that it is not so within
    /// 5 s. Since version 2.
    Settle {
        /// The container's id.
        id: String,
    },
    /// End, unless pipes are attached.
    Shutdown,
    /// End and leave the pipes to a successor.
    Leave,
}

/// A container's output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// The container's id.
    pub id: String,
    /// Uid of its pod.
    pub pod_uid: String,
    /// Name in the pod.
    pub container: String,
    /// Which restart.
    pub attempt: u32,
}

/// The carrier's answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Reply {
    /// [`VERSION`] of the carrier.
    pub version: u32,
    /// Of the program it runs.
    pub build: String,
    /// Its process id.
    pub pid: u32,
    /// How many containers it drains.
    pub attached: usize,
    /// Whether a supervisor (systemd) started it, and will start its successor.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub supervised: bool,
    /// What went wrong, in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Reply {
    /// How the carrier's program differs from this one, in a sentence; absent when it does not. A carrier that speaks another
    /// [`VERSION`] may misunderstand what control asks for.
    pub fn difference(&self) -> Option<String> {
        let build = env!("CARGO_PKG_VERSION");
        if self.version == VERSION && self.build == build {
            return None;
        }
        let what = match self.version == VERSION {
            true => "of another build",
            false => "of another build, and speaks another protocol",
        };
        Some(format!(
            "the carrier (process {}: {}, protocol {}) is {what} than its agent ({build}, protocol {VERSION})",
            self.pid, self.build, self.version
        ))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn another_build_or_protocol_is_told() {
        let reply = |version: u32, build: &str| Reply {
            version,
            build: build.to_owned(),
            pid: 7,
            attached: 0,
            supervised: false,
            error: None,
        };
        let build = env!("CARGO_PKG_VERSION");
        assert_eq!(reply(VERSION, build).difference(), None);
        let other = reply(VERSION, "0.0.1").difference().unwrap();
        assert!(
            other.contains("process 7: 0.0.1") && !other.contains("speaks"),
            "{other}"
        );
        let other = reply(VERSION + 1, build).difference().unwrap();
        assert!(other.contains("speaks another protocol"), "{other}");
    }

    /// Carriers outlive upgrades: what is on the wire cannot change silently.
    #[test]
    fn golden() {
        let attach = Envelope {
            version: VERSION,
            request: Request::Attach(Attachment {
                id: "u-c-0".into(),
                pod_uid: "u".into(),
                container: "c".into(),
                attempt: 0,
            }),
        };
        let text = serde_json::to_string(&attach).unwrap();
        assert_eq!(
            text,
            r#"{"version":2,"op":"attach","id":"u-c-0","pod_uid":"u","container":"c","attempt":0}"#
        );
        let back: Envelope = serde_json::from_str(r#"{"version":1,"op":"shutdown"}"#).unwrap();
        assert!(matches!(back.request, Request::Shutdown));
        let settle = Request::Settle { id: "u".into() };
        let text = serde_json::to_string(&settle).unwrap();
        assert_eq!(text, r#"{"op":"settle","id":"u"}"#);
    }
}
