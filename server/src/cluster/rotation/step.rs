//! The managers and agents that a rotation of the CA waits for, and its next step.

use barge_proto::v1::{CaProgress, CaRotation, CaRotationPhase};

/// Names in a list for people.
pub const NAMED: usize = 100;

/// A manager, and the digest of the roots that it trusts; absent when it does not answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manager {
    /// host:port
    pub address: String,
    /// What it says that it trusts.
    pub roots_sha256: Option<Vec<u8>>,
}

/// A node, and the digest of the roots that it trusts; absent when it was not heard from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agent {
    /// Its name.
    pub name: String,
    /// Whether it is connected and well.
    pub ready: bool,
    /// What it says that it trusts.
    pub roots_sha256: Option<Vec<u8>>,
}

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Some managers or agents have not followed this phase, or its time has not passed.
    Wait,
    /// The new root begins to sign.
    Sign,
    /// The old root goes.
    Finish,
}

/// Decides the next step from the roots that each manager and agent trusts, and names those that have not followed.
///
/// Managers are waited for whatever happens: one that does not know the new root would be cut off from Raft. Nodes that are
/// not ready need not know the new root before it signs: managers show it together with the old root's word for it, so a
/// node that comes back then still believes them. But they need it before the old one goes.
#[must_use]
pub fn next(
    rotation: &CaRotation,
    wanted: &[u8],
    managers: &[Manager],
    agents: &[Agent],
    now: i64,
) -> (Step, CaProgress) {
    let differs = |roots: &Option<Vec<u8>>| roots.as_deref() != Some(wanted);
    let missing_managers: Vec<_> = managers
        .iter()
        .filter(|manager| differs(&manager.roots_sha256))
        .map(|manager| manager.address.clone())
        .collect();
    let signs = rotation.phase() == CaRotationPhase::Renewing;
    let missing: Vec<_> = agents
        .iter()
        .filter(|agent| (signs || agent.ready) && differs(&agent.roots_sha256))
        .map(|agent| agent.name.clone())
        .collect();
    let left_behind = rotation
        .leave_behind_after
        .is_some_and(|after| after.seconds <= now);
    let complete = missing_managers.is_empty() && (missing.is_empty() || left_behind);
    let step = match complete {
        true if !signs => Step::Sign,
        true if both_until(rotation).is_some_and(|until| until <= now) => Step::Finish,
        _ => Step::Wait,
    };
    let progress = CaProgress {
        missing_managers,
        missing_node_count: u32::try_from(missing.len()).unwrap_or(u32::MAX),
        missing_nodes: missing.into_iter().take(NAMED).collect(),
    };
    (step, progress)
}

/// Not before this second (since 1970) the old root goes; absent before the new one signs.
#[must_use]
pub fn both_until(rotation: &CaRotation) -> Option<i64> {
    let overlap = i64::try_from(rotation.overlap_seconds).unwrap_or(i64::MAX);
    rotation
        .signs_since
        .map(|since| since.seconds.saturating_add(overlap))
}

#[cfg(test)]
mod tests {
    use barge_proto::v1::Time;

    use super::*;

    const OLD: &[u8] = b"old";
    const NEW: &[u8] = b"new";

    fn at(seconds: i64) -> Option<Time> {
        Some(Time { seconds, nanos: 0 })
    }

    fn spreading() -> CaRotation {
        CaRotation {
            phase: CaRotationPhase::Spreading.into(),
            ..CaRotation::default()
        }
    }

    fn renewing() -> CaRotation {
        CaRotation {
            phase: CaRotationPhase::Renewing.into(),
            signs_since: at(100),
            overlap_seconds: 50,
            ..CaRotation::default()
        }
    }

    fn managers(roots: [Option<&[u8]>; 3]) -> Vec<Manager> {
        let one = |(number, roots): (usize, Option<&[u8]>)| Manager {
            address: format!("m{number}:1"),
            roots_sha256: roots.map(<[u8]>::to_vec),
        };
        roots.into_iter().enumerate().map(one).collect()
    }

    fn agent(name: &str, ready: bool, roots: Option<&[u8]>) -> Agent {
        Agent {
            name: name.to_owned(),
            ready,
            roots_sha256: roots.map(<[u8]>::to_vec),
        }
    }

    fn all() -> Vec<Manager> {
        managers([Some(NEW); 3])
    }

    #[test]
    fn every_manager_is_waited_for_whatever_happens() {
        for silent in [None, Some(OLD)] {
            let managers = managers([Some(NEW), silent, Some(NEW)]);
            let forced = CaRotation {
                leave_behind_after: at(0),
                ..renewing()
            };
            for rotation in [spreading(), renewing(), forced] {
                let (step, progress) = next(&rotation, NEW, &managers, &[], 1000);
                assert_eq!(step, Step::Wait);
                assert_eq!(progress.missing_managers, ["m1:1"]);
            }
        }
    }

    #[test]
    fn nodes_that_are_not_ready_hold_up_the_end_only() {
        let agents = [
            agent("here", true, Some(NEW)),
            agent("away", false, Some(OLD)),
            agent("silent", false, None),
        ];
        assert_eq!(next(&spreading(), NEW, &all(), &agents, 0).0, Step::Sign);
        let (step, progress) = next(&renewing(), NEW, &all(), &agents, 1000);
        assert_eq!((step, progress.missing_node_count), (Step::Wait, 2));
        assert_eq!(progress.missing_nodes, ["away", "silent"]);
        let late = [agent("late", true, Some(OLD))];
        assert_eq!(next(&spreading(), NEW, &all(), &late, 0).0, Step::Wait);
    }

    #[test]
    fn the_old_root_goes_when_all_have_the_new_one_and_the_time_has_passed() {
        let agents = [agent("here", true, Some(NEW))];
        let step = |now| next(&renewing(), NEW, &all(), &agents, now).0;
        assert_eq!((step(149), step(150)), (Step::Wait, Step::Finish));
    }

    #[test]
    fn after_the_deadline_nodes_are_left_behind_and_named() {
        let agents = [agent("late", true, Some(OLD)), agent("away", false, None)];
        for (rotation, then) in [(spreading(), Step::Sign), (renewing(), Step::Finish)] {
            let rotation = CaRotation {
                leave_behind_after: at(500),
                ..rotation
            };
            let (before, _) = next(&rotation, NEW, &all(), &agents, 499);
            let (after, progress) = next(&rotation, NEW, &all(), &agents, 500);
            assert_eq!((before, after), (Step::Wait, then));
            assert!(progress.missing_nodes.contains(&"late".to_owned()));
        }
    }

    #[test]
    fn the_names_are_bounded() {
        let agents: Vec<_> = (0..150)
            .map(|n| agent(&format!("n{n}"), true, None))
            .collect();
        let (_, progress) = next(&spreading(), NEW, &all(), &agents, 0);
        assert_eq!(
            (progress.missing_nodes.len(), progress.missing_node_count),
            (NAMED, 150)
        );
    }
}
