//! How a transaction changes the state: the same on every manager.

mod bind;
pub use bind::node_is_ready;
mod delete;
mod events;
mod gone;
mod lost;
mod preconditions;
mod put;
mod remove;
mod report;
mod slices;
pub(crate) mod terminate;
mod tokens;
mod walk;
mod work;

use std::mem;

use barge_proto::v1::{
    Change, Outcome, Refusal, RefusalReason, Transaction, change::Change as Action,
};

use crate::{
    changed::Changed,
    level::{LOSS, ORDER},
    requests::RequestChanges,
    state::State,
};
use work::Work;

pub(crate) use events::is_before;
pub(crate) use work::find;

/// What a transaction did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Applied {
    /// The answer for the proposer.
    pub outcome: Outcome,
    /// Every record that was written, in the order of their revisions; none when it was refused.
    pub changes: Vec<Changed>,
    /// What is remembered and forgotten of clients' requests.
    pub requests: RequestChanges,
}

/// A refusal with its sentence.
pub(crate) fn refusal(reason: RefusalReason, message: impl Into<String>) -> Refusal {
    Refusal {
        reason: reason.into(),
        message: message.into(),
        target: None,
    }
}

impl State {
    /// Applies a transaction that was committed in `term`: all of it, or nothing when a rule refuses it,
    /// except that a refused Bind is only answered. Changes take effect in their order. It never fails in any
    /// other way, and gives the same result on every manager.
    pub fn apply(&mut self, term: u64, mut tx: Transaction) -> Applied {
        if let Some(request) = &tx.request {
            match self.requests.check(request, &tx.principal, self.revision) {
                Ok(None) => {}
                Ok(Some(outcome)) => {
                    return Applied {
                        outcome,
                        ..Applied::default()
                    };
                }
                Err(refusal) => return self.refused(refusal),
            }
        }
        if tx.term != 0 && tx.term != term {
            let message = format!("decided in term {}, applied in term {term}", tx.term);
            return self.refused(refusal(RefusalReason::WrongTerm, message));
        }
        // What is put is kept, and not copied.
        let changes = mem::take(&mut tx.changes);
        match self.attempt(&tx, changes) {
            Ok(work) => {
                let forget_before = work.forget_requests;
                let (revision, changes, binds) = work.finish();
                self.revision = revision;
                let outcome = Outcome {
                    revision,
                    binds,
                    ..Outcome::default()
                };
                let requests = self.remember(&tx, &outcome, forget_before);
                Applied {
                    outcome,
                    changes,
                    requests,
                }
            }
            Err(refusal) => self.refused(refusal),
        }
    }

    /// What [`State::apply`] would answer and change, without a memory of requests and in whatever term. Afterwards the state
    /// is as it was before.
    pub fn rehearse(&mut self, mut tx: Transaction) -> Applied {
        let changes = mem::take(&mut tx.changes);
        match self.attempt(&tx, changes) {
            Ok(mut work) => Applied {
                outcome: Outcome {
                    revision: work.revision(),
                    binds: mem::take(&mut work.binds),
                    ..Outcome::default()
                },
                changes: work.undo(),
                ..Applied::default()
            },
            Err(refusal) => self.refused(refusal),
        }
    }

    /// Makes the changes of a transaction; nothing is changed when a rule refuses it.
    fn attempt(&mut self, tx: &Transaction, changes: Vec<Change>) -> Result<Work<'_>, Refusal> {
        self.check_level(tx)?;
        for precondition in &tx.preconditions {
            preconditions::check(self, precondition)?;
        }
        let level = self.feature_level();
        let mut work = Work::new(&mut self.tables, self.revision, tx.time, self.limits);
        (work.sliced, work.ordered) = (level >= LOSS, level >= ORDER);
        match run(&mut work, changes) {
            Ok(()) => Ok(work),
            Err(refusal) => {
                work.undo();
                Err(refusal)
            }
        }
    }

    fn refused(&self, refusal: Refusal) -> Applied {
        let outcome = Outcome {
            revision: self.revision,
            refusal: Some(refusal),
            ..Outcome::default()
        };
        Applied {
            outcome,
            ..Applied::default()
        }
    }

    /// Forgets answers that are older than a revision, and remembers this one.
    fn remember(
        &mut self,
        tx: &Transaction,
        outcome: &Outcome,
        forget_before: u64,
    ) -> RequestChanges {
        let mut changes = RequestChanges::default();
        if forget_before > 0 {
            // A revision that is still to come would refuse every client's requests.
            let before = forget_before.min(self.revision);
            changes.forgotten = self.requests.forget_before(before, self.limits.slice);
        }
        if let Some(request) = &tx.request {
            let limit = self.limits.requests;
            let (principal, requests) = (&tx.principal, &mut self.requests);
            let (remembered, forgotten) = requests.remember(request, principal, outcome, limit);
            changes.remembered = Some(remembered);
            changes.forgotten.extend(forgotten);
        }
        // Requests that change nothing share a revision. When the floor rises above it, the revision has to
        // follow, or no client could ever have seen enough.
        self.revision = self.revision.max(self.requests.floor());
        changes
    }
}

fn forget_requests(work: &mut Work<'_>, before: u64) -> Result<(), Refusal> {
    if !work.ordered {
        let why = "answers to requests are not forgotten by age yet";
        return Err(refusal(RefusalReason::FeatureLevel, why));
    }
    work.forget_requests = before;
    Ok(())
}

fn run(work: &mut Work<'_>, changes: Vec<Change>) -> Result<(), Refusal> {
    for change in changes {
        match change.change {
            Some(Action::Put(record)) => put::put(work, record)?,
            Some(Action::PutStatus(record)) => put::put_status(work, &record)?,
            Some(Action::Remove(target)) => remove::remove(work, &target)?,
            Some(Action::Delete(asked)) => delete::delete(work, &asked)?,
            Some(Action::Collect(slice)) => slices::collect(work, &slice)?,
            Some(Action::Bind(bind)) => bind::bind(work, &bind),
            Some(Action::TerminatePod(terminate)) => terminate::terminate(work, &terminate),
            Some(Action::RecordEvent(event)) => events::record(work, &event)?,
            Some(Action::ForgetEventsBefore(time)) => events::forget_before(work, time),
            Some(Action::ForgetRequestsBefore(revision)) => forget_requests(work, revision)?,
            Some(Action::PodGone(gone)) => gone::gone(work, &gone),
            Some(Action::ReportPod(reported)) => report::report(work, reported),
            Some(Action::MarkPod(mark)) => lost::mark(work, &mark),
            Some(Action::UseToken(token)) => tokens::use_token(work, &token)?,
            None => return Err(refusal(RefusalReason::Invalid, "a change without content")),
        }
    }
    put::check_references(work)?;
    remove::collect(work);
    Ok(())
}
