//! Full sets that come in parts: nothing of one is acted on before the last part has come.

use barge_proto::v1::Assignment;
use prost::Message;

use crate::desired::Refused;

/// Bytes of one full set, in however many parts.
pub const LARGEST_SET: usize = 512 << 20;

/// The parts of a full set that have come so far. A session that ends in between leaves the node with what it had.
#[derive(Debug, Default)]
pub struct Parts {
    set: Option<Assignment>,
    bytes: usize,
}

impl Parts {
    /// Adds what a manager assigned. Answers what can be acted on: a difference, or a full set that is complete.
    ///
    /// # Errors
    /// [`Refused::Torn`] when it does not belong to the set that was begun, [`Refused::TooLarge`] when that gets too large.
    pub fn add(&mut self, mut part: Assignment) -> Result<Option<Assignment>, Refused> {
        let more = std::mem::take(&mut part.more);
        if self.set.is_none() && !more {
            return Ok(Some(part));
        }
        self.bytes += part.encoded_len();
        if self.bytes > LARGEST_SET {
            return Err(Refused::TooLarge { most: LARGEST_SET });
        }
        let begun = self.set.as_ref().map(|set| set.revision);
        if !part.full || begun.is_some_and(|revision| revision != part.revision) {
            return Err(Refused::Torn);
        }
        match &mut self.set {
            Some(set) => join(set, part),
            None => self.set = Some(part),
        }
        if more {
            return Ok(None);
        }
        self.bytes = 0;
        Ok(self.set.take())
    }
}

/// A full set has no removals.
fn join(set: &mut Assignment, part: Assignment) {
    set.pods.extend(part.pods);
    set.services.extend(part.services);
    set.endpoints.extend(part.endpoints);
    set.peers.extend(part.peers);
    set.tombstones.extend(part.tombstones);
    set.withheld_secrets.extend(part.withheld_secrets);
    set.config_maps.extend(part.config_maps);
    set.secrets.extend(part.secrets);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use barge_proto::v1::Peer;

    use super::*;

    fn part(revision: u64, uid: &str, more: bool) -> Assignment {
        Assignment {
            revision,
            full: true,
            more,
            peers: vec![Peer {
                node_uid: uid.to_owned(),
                ..Peer::default()
            }],
            ..Assignment::default()
        }
    }

    #[test]
    fn a_set_is_handed_on_when_it_is_complete() {
        let mut parts = Parts::default();
        assert_eq!(parts.add(part(7, "a", true)).unwrap(), None);
        assert_eq!(parts.add(part(7, "b", true)).unwrap(), None);
        let set = parts.add(part(7, "c", false)).unwrap().unwrap();
        let uids = set.peers.iter().map(|peer| peer.node_uid.as_str());
        assert_eq!(uids.collect::<Vec<_>>(), ["a", "b", "c"]);
        assert!(!set.more);
        // What follows stands for itself.
        let difference = Assignment {
            revision: 8,
            ..Assignment::default()
        };
        assert_eq!(parts.add(difference.clone()).unwrap(), Some(difference));
        assert!(parts.add(part(9, "d", false)).unwrap().is_some());
    }

    #[test]
    fn what_does_not_belong_to_the_set_is_refused() {
        let mut parts = Parts::default();
        parts.add(part(7, "a", true)).unwrap();
        assert_eq!(parts.add(part(8, "b", false)), Err(Refused::Torn));
        let mut parts = Parts::default();
        parts.add(part(7, "a", true)).unwrap();
        let difference = Assignment {
            revision: 7,
            ..Assignment::default()
        };
        assert_eq!(parts.add(difference), Err(Refused::Torn));
    }

    #[test]
    fn a_set_without_an_end_is_refused() {
        let mut parts = Parts {
            bytes: LARGEST_SET - (3 << 20),
            ..Parts::default()
        };
        let refused = (0..4).find_map(|_| parts.add(part(7, &"x".repeat(1 << 20), true)).err());
        assert_eq!(refused, Some(Refused::TooLarge { most: LARGEST_SET }));
    }
}
