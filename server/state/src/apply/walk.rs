//! The walk through what records own.
//!
//! Users decide how deep ownership goes, and may make circles. So the walk keeps its steps on an explicit stack on the heap. It visits
//! records in the same order as the recursion that it replaces.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use super::{delete, remove, terminate, work::Work};
use crate::kind::{Kind, Stored};

/// What is to be done next.
pub enum Step {
    /// Mark a record as deleted in the foreground, then what it owns.
    Mark(Stored),
    /// Remove records because what they belong to is gone.
    Reach(Vec<Stored>),
    /// Remove the template with this uid, or have it removed with its last pod.
    Release(String),
}

/// Takes a step, and all that follow from it.
pub fn walk(work: &mut Work<'_>, first: Step) {
    let mut steps = vec![first];
    while let Some(step) = steps.pop() {
        match step {
            Step::Mark(record) => mark(work, record, &mut steps),
            Step::Reach(records) => reach(work, records, &mut steps),
            Step::Release(template) => release(work, &template, &mut steps),
        }
    }
}

/// Owners among what it owns are marked first, one after the other; then its pods and templates end.
fn mark(work: &mut Work<'_>, record: Stored, steps: &mut Vec<Step>) {
    if delete::is_marked(&record) {
        return;
    }
    let uid = record.uid().to_owned();
    delete::mark(work, record);
    let (simple, owners): (Vec<_>, Vec<_>) = remove::orphans(work, &uid)
        .into_iter()
        .partition(|owned| matches!(owned, Stored::Pod(_) | Stored::Revision(_)));
    steps.push(Step::Reach(simple));
    steps.extend(owners.into_iter().rev().map(Step::Mark));
}

/// Templates wait until it is known which pods stay. They are still there then, so a circle of them is left where it begins again.
fn reach(work: &mut Work<'_>, mut records: Vec<Stored>, steps: &mut Vec<Step>) {
    let mut templates = Vec::new();
    let mut reached = BTreeMap::new();
    while let Some(next) = records.pop() {
        // It may have been reached in another way, or have changed.
        let Some(current) = work.tables.find_uid(next.kind(), next.uid()) else {
            continue;
        };
        match current {
            Stored::Revision(revision) => {
                // What it owns is the same as when it was reached before, unless something was written since.
                let now = work.revision();
                if reached.insert(revision.uid().to_owned(), now) == Some(now) {
                    continue;
                }
                records.extend(remove::orphans(work, revision.uid()));
                templates.push(revision.uid().to_owned());
            }
            Stored::Pod(pod) if terminate::is_running(work.tables, &pod) => {
                terminate::mark(work, &pod, None, "");
            }
            other => records.extend(remove::delete(work, other)),
        }
    }
    steps.extend(templates.into_iter().rev().map(Step::Release));
}

fn release(work: &mut Work<'_>, uid: &str, steps: &mut Vec<Step>) {
    let Some(template) = work.tables.revisions.by_uid(uid).cloned() else {
        return;
    };
    if work.tables.pods_by_template.count(uid) == 0 {
        let left = remove::delete(work, Stored::Revision(template));
        steps.push(Step::Reach(left));
    } else if template.meta().deletion_timestamp.is_none() {
        let mut marked = template.as_ref().clone();
        marked.meta_mut().deletion_timestamp = Some(work.now);
        work.write(Some(template), marked);
    }
}
