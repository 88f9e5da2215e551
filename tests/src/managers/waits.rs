//! Waiting for managers to be what a test needs.

use super::Managers;
use crate::wait::eventually;

impl Managers {
    /// Makes a learner a voter, as soon as it serves.
    pub fn promote(&self, index: usize) {
        eventually("it is promoted", || {
            let output = self.try_barge(&["cluster", "promote", &self.address(index)]);
            match output.status.success() {
                true => Ok(()),
                false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
            }
        });
    }

    /// Waits until `barge cluster members` shows a manager in this state.
    pub fn wait_for_state(&self, index: usize, state: &str) {
        let address = format!("{} ", self.address(index));
        eventually(&format!("manager {index} is a {state}"), || {
            let members = self.try_members()?;
            let mut lines = members.lines();
            match lines.any(|line| line.starts_with(&address) && line.contains(state)) {
                true => Ok(()),
                false => Err(members),
            }
        });
    }

    /// Waits until there are so many voters.
    pub fn wait_for_voters(&self, count: usize) {
        eventually(&format!("{count} voters"), || {
            let members = self.try_members()?;
            let voters = members
                .lines()
                .filter(|line| line.contains("voter"))
                .count();
            if voters == count {
                Ok(())
            } else {
                Err(members)
            }
        });
    }

    /// Waits until a manager answers for itself.
    pub fn wait_until_answers(&self, index: usize) {
        let config = self.config_for(index);
        eventually("it answers", || {
            let output = self.try_barge_with(&config, &["token", "list"]);
            match output.status.success() {
                true => Ok(()),
                false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
            }
        });
    }

    /// Waits until every manager answers and has applied what the leader has.
    pub fn wait_until_caught_up(&self) {
        eventually("all managers have caught up", || {
            let output = self.try_barge(&["cluster", "status"]);
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            if output.status.success() && !text.contains("warning") {
                Ok(())
            } else {
                Err(text)
            }
        });
    }

    /// Which manager leads, waiting for one among those that run.
    #[must_use]
    pub fn leader(&self) -> usize {
        eventually("a leader", || {
            let members = self.try_members()?;
            let line = members
                .lines()
                .find(|line| line.contains("leader") && line.contains(&self.prefix()));
            line.and_then(|line| {
                (0..self.running.len()).find(|index| line.contains(&self.address(*index)))
            })
            .filter(|index| self.running[*index].is_some())
            .ok_or(members)
        })
    }
}
