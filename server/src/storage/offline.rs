//! The storage of a manager that is not running: reading a survivor's data, and writing a new beginning.
//!
//! A new beginning is a state whose position is one entry after the last one that was there, with an empty log and a
//! vote in the term of that entry. To Raft the entry looks purged, so a manager that joins gets the state as a
//! snapshot. The cluster's only member elects itself.

use std::{collections::BTreeMap, fs, path::Path, time::SystemTime};

use barge_state::State;
use openraft::{EntryPayload, vote::RaftLeaderId as _};

use super::{
    Context, StorageError,
    log::disk::Disk,
    rocks::Identity,
    snapshot,
    state_db::{StateDb, Writes},
};
use crate::storage::types::{
    Decoder, LeaderId, LogId, Membership, Node, RaftId, SnapshotMeta, StoredMembership, Vote,
};

/// Bytes of log that are read at a time.
const PIECE: usize = 1 << 20;
/// Bytes of state that are written at a time.
const BATCH: usize = 1 << 20;

/// What the folder of a manager that is not running holds.
pub struct Survivor {
    /// The state after the whole log, whether it is known to be committed or not: an acknowledged write may be in the part
    /// of which this manager never learnt that.
    pub state: State,
    /// The last entry.
    pub last: LogId,
    /// Up to where the log was known to be committed.
    pub committed: u64,
    /// The newest term that this manager has heard of.
    pub term: u64,
    /// The members by the log.
    pub membership: Membership,
    /// When the log was written to last.
    pub written: SystemTime,
}

/// Reads a folder; nothing in it is changed.
pub fn survivor(store: &Path, owner: &Identity) -> Result<Survivor, StorageError> {
    let log_folder = store.join("log");
    let log = Disk::look(&log_folder, owner)?;
    let loaded = log.load()?;
    let (db, position) = newest(&store.join("state"))?;
    let mut state = db.load()?;
    let mut membership = position.last_membership.membership().clone();
    let applied = position.last_log_id;
    let mut next = applied.map_or(0, |id| id.index + 1);
    if let Some(purged) = loaded.purged
        && purged.index >= next
    {
        return Err(StorageError::corrupted(
            "the log",
            format!("entry {next} is missing, it was purged up to {purged}"),
        ));
    }
    let mut decoder = Decoder::default();
    loop {
        let entries = log.read(next, u64::MAX, PIECE)?;
        let Some(first) = entries.first() else {
            break;
        };
        if first.log_id.index != next {
            return Err(StorageError::corrupted(
                "the log",
                format!("entry {next} is missing, the next one is {}", first.log_id),
            ));
        }
        for entry in entries {
            next = entry.log_id.index + 1;
            match entry.payload {
                EntryPayload::Blank => {}
                EntryPayload::Membership(newer) => membership = newer,
                EntryPayload::Normal(command) => {
                    let (transactions, _) = decoder
                        .transactions(&command)
                        .map_err(|error| StorageError::corrupted("a transaction", error))?;
                    for transaction in transactions {
                        state.apply(entry.log_id.leader_id.term, transaction);
                    }
                }
            }
        }
    }
    let last = loaded.last.max(applied).ok_or_else(|| {
        StorageError::corrupted(
            "the log",
            "there is nothing in it, and nothing in the state",
        )
    })?;
    let vote = loaded.vote.map_or(0, |vote| vote.leader_id.term);
    Ok(Survivor {
        state,
        committed: loaded.committed.max(applied).map_or(0, |id| id.index),
        term: vote.max(last.leader_id.term),
        last,
        membership,
        written: written(&log_folder)?,
    })
}

/// A state that was being installed when the manager died is older than the snapshot beside it.
fn newest(folder: &Path) -> Result<(StateDb, SnapshotMeta), StorageError> {
    let mut newest: Option<(StateDb, SnapshotMeta)> = None;
    for path in snapshot::look(folder)? {
        let db = StateDb::open_checkpoint(&path)?;
        let position = db.position()?;
        if newest
            .as_ref()
            .is_none_or(|(_, known)| known.last_log_id < position.last_log_id)
        {
            newest = Some((db, position));
        }
    }
    newest.ok_or_else(|| StorageError::corrupted("the state", "there is none"))
}

fn written(folder: &Path) -> Result<SystemTime, StorageError> {
    let mut newest = SystemTime::UNIX_EPOCH;
    for entry in fs::read_dir(folder).context("list the log's folder")? {
        let entry = entry.context("list the log's folder")?;
        // The logs of the database's own work are touched without an entry being written.
        if entry
            .path()
            .extension()
            .is_some_and(|extension| extension == "log")
        {
            let modified = entry.metadata().and_then(|data| data.modified());
            newest = newest.max(modified.context("look at the log")?);
        }
    }
    Ok(newest)
}

/// Makes the storage of a cluster whose only member is `owner`, in a folder that does not exist yet. `after` is the last
/// entry and the newest term of before, both 0 for a cluster that has no past here. Durable on return, up to the entry in
/// the parent folder.
pub fn begin(
    store: &Path,
    owner: &Identity,
    node: Node,
    state: &State,
    after: (u64, u64),
) -> Result<(), StorageError> {
    let (index, term) = (after.0 + 1, after.1 + 1);
    let leader = LeaderId::new(term, owner.raft_id);
    let id = LogId::new(leader, index);
    let membership = only_member(owner.raft_id, node)?;
    let position = SnapshotMeta {
        last_log_id: Some(id),
        last_membership: StoredMembership::new(Some(id), membership),
    };
    let (log, states) = (store.join("log"), store.join("state"));
    fs::create_dir_all(&states).context("make the state's folder")?;

    let db = StateDb::open(&snapshot::first_state(&states), owner)?;
    let mut writes = Writes::default();
    for record in state.stored() {
        writes.record(&record);
        if writes.size() >= BATCH {
            db.write(std::mem::take(&mut writes))?;
        }
    }
    for request in state.meta().requests {
        writes.request(&request);
        if writes.size() >= BATCH {
            db.write(std::mem::take(&mut writes))?;
        }
    }
    writes.position(state, &position);
    db.write(writes)?;
    db.flush()?;
    drop(db);

    let disk = Disk::open(&log, owner)?;
    let mut writes = disk.begin(0)?;
    writes.vote(&Vote {
        leader_id: leader,
        committed: false,
    });
    writes.purge(&id);
    disk.write(writes)?;
    drop(disk);
    for folder in [&states, store] {
        snapshot::sync(folder)?;
    }
    Ok(())
}

fn only_member(id: RaftId, node: Node) -> Result<Membership, StorageError> {
    Membership::new(vec![[id].into()], BTreeMap::from([(id, node)]))
        .map_err(|error| StorageError::corrupted("the membership", error))
}

#[cfg(test)]
mod tests;
