//! Who may use an image that is on the machine, as a label of containerd's record of it.
//!
//! A record without this label is of an image that every pod may use: it was pulled as nobody or with the node's own credentials, or was imported by
//! hand. One with it was pulled with a pull secret. The label lists those that the registry gave the image to, as hashes with a salt. It is
//! written together with the record, so no image is ever on the machine unmarked, and goes with it.

use std::collections::HashMap;

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};

use super::{stored, ways::Ticket};
use crate::runtime::{keyring::Login, secrets::PullSecret};

/// The label.
pub const LABEL: &str = "barge.io/pulled-with";
/// Secrets that are remembered for an image; the oldest is forgotten, and asks the registry again. All have to fit into a label, which may have 4096 bytes.
const MOST: usize = 64;
/// Bytes of a hash that are kept.
const HASH: usize = 12;

/// The secrets by which an image may be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// What the image's name stood for when this was written.
    digest: String,
    salt: String,
    /// Of each secret: the hash of its credential, of the Secret, and of the Secret's name. The newest is the last.
    secrets: Vec<[String; 3]>,
}

impl Mark {
    /// The mark of a record, which has these labels and stands for this digest; `None` when every pod may use the image.
    pub fn of(name: &str, digest: &str, labels: &HashMap<String, String>) -> Option<Self> {
        // Who makes or moves a record by hand in containerd gives the image to all, and may have copied the labels.
        if labels
            .get(stored::LABEL)
            .is_none_or(|pulled| pulled != name)
        {
            return None;
        }
        let text = labels.get(LABEL).filter(|text| !text.is_empty())?;
        let mark = Self::parse(text);
        if mark.digest != digest && !mark.digest.is_empty() {
            // An agent that knew no marks pulled since, with the node's credentials.
            return None;
        }
        Some(mark)
    }

    /// Of what cannot be read nobody is known: the registry is asked again.
    fn parse(text: &str) -> Self {
        let mut words = text.split(' ').map(str::to_owned);
        let digest = words.next().unwrap_or_default();
        let salt = words.next().unwrap_or_default();
        let secrets = words.filter_map(|word| {
            let hashes: Vec<_> = word.split('.').map(str::to_owned).collect();
            hashes.try_into().ok()
        });
        let mark = Self {
            secrets: secrets.collect(),
            digest,
            salt,
        };
        match mark.digest.starts_with("sha256:") && !mark.salt.is_empty() {
            true => mark,
            false => Self {
                digest: String::new(),
                salt: String::new(),
                secrets: Vec::new(),
            },
        }
    }

    fn to_label(&self) -> String {
        let mut text = format!("{} {}", self.digest, self.salt);
        for hashes in &self.secrets {
            text.push(' ');
            text.push_str(&hashes.join("."));
        }
        text
    }

    /// Whether the image may be used with a pod's credential: the same one was good, or another one in the same Secret.
    pub fn admits(&self, ticket: &Ticket) -> bool {
        let [login, secret, _] = self.hashes(ticket);
        let mut known = self.secrets.iter();
        known.any(|it| it[0] == login || it[1] == secret)
    }

    /// Whether a Secret of this name was good. It counts as long as the node cannot know more of it.
    pub fn admits_unknown(&self, secret: &PullSecret) -> bool {
        let name = self.hash(["name", &secret.namespace, &secret.name]);
        self.secrets.iter().any(|it| it[2] == name)
    }

    fn add(&mut self, ticket: &Ticket) {
        let hashes = self.hashes(ticket);
        if self.secrets.contains(&hashes) {
            return;
        }
        // What was changed in a Secret replaces what it had.
        self.secrets.retain(|it| it[1] != hashes[1]);
        self.secrets.push(hashes);
        let surplus = self.secrets.len().saturating_sub(MOST);
        self.secrets.drain(..surplus);
    }

    fn hashes(&self, ticket: &Ticket) -> [String; 3] {
        let [namespace, name, uid] = ticket.coordinates();
        [
            self.hash(ticket.login.parts()),
            self.hash(["secret", namespace, name, uid]),
            self.hash(["name", namespace, name]),
        ]
    }

    fn hash<'a>(&self, parts: impl IntoIterator<Item = &'a str>) -> String {
        let mut digest = Sha256::new();
        let mut add = |part: &str| {
            digest.update((part.len() as u64).to_le_bytes());
            digest.update(part);
        };
        add(&self.salt);
        parts.into_iter().for_each(&mut add);
        BASE64_URL_SAFE_NO_PAD.encode(&digest.finalize()[..HASH])
    }
}

impl Login {
    /// What makes it this one and no other.
    pub(super) fn parts(&self) -> Vec<&str> {
        match self {
            Self::Password(user, password) => vec!["password", user, password],
            Self::Identity(token) => vec!["identity", token],
        }
    }
}

/// What there was under a name before a pull.
pub struct Before<'a> {
    /// What the name stood for.
    pub digest: &'a str,
    /// Labels of its record.
    pub labels: &'a HashMap<String, String>,
}

/// The label's value once a registry gave the image of a digest by a ticket: empty when every pod may use it. `salt` is a fresh one.
pub fn after(
    name: &str,
    before: Option<Before<'_>>,
    digest: &str,
    ticket: Option<&Ticket>,
    salt: String,
) -> String {
    let Some(ticket) = ticket else {
        return String::new();
    };
    let before = before.filter(|before| before.digest == digest);
    let known = before.map(|before| Mark::of(name, digest, before.labels));
    let mut mark = match known {
        // All could use it, and can.
        Some(None) => return String::new(),
        Some(Some(mark)) if !mark.digest.is_empty() => mark,
        _ => Mark {
            digest: digest.to_owned(),
            salt,
            secrets: Vec::new(),
        },
    };
    mark.add(ticket);
    mark.to_label()
}

/// A salt that no other label has.
pub fn salt() -> String {
    BASE64_URL_SAFE_NO_PAD.encode(rand::random::<[u8; 16]>())
}

#[cfg(test)]
mod tests;
