//! The members of the cluster and their status.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use barge_client::duration::human;
use barge_proto::v1::{
    GetManagerStatusRequest, GetStatusResponse, ManagerRecord, ManagerRole, ManagerStatus, Member,
    MemberStatus, cluster_client::ClusterClient,
};
use barge_state::Kind;
use futures::{StreamExt, stream::FuturesOrdered};
use tokio::time::timeout;

use super::{Parts, rotation, waiting};
use crate::{controllers::nodes::brakes, net::Dialer, runtime::clock, store::Store};

/// How long a manager may take to say how it is.
const ANSWER: Duration = Duration::from_secs(2);
const VOTER: &str = "voter";
const LEAVING: &str = "leaving";
/// A manager this many entries behind is worth a word.
const LAG: u64 = 10_000;

/// The managers as this one knows them, by Raft id.
#[must_use]
pub fn members(store: &Store) -> Vec<Member> {
    let raft = store.status();
    let leader = raft.leader;
    let by_id: BTreeMap<u64, bool> = raft.members.iter().map(|m| (m.id, m.voter)).collect();
    let members: BTreeMap<u64, Member> = store.read(|state| {
        let records: Vec<_> = state.list::<ManagerRecord>(None).map(|r| &**r).collect();
        records
            .iter()
            .map(|record| {
                let member = Member {
                    uid: record.uid().to_owned(),
                    raft_id: record.raft_id,
                    address: record.address.clone(),
                    state: state_of(record.role(), by_id.get(&record.raft_id)).to_owned(),
                    leader: leader == Some(record.raft_id),
                    waiting: waiting::for_its_vote(record, &records, &raft).unwrap_or_default(),
                };
                (record.raft_id, member)
            })
            .collect()
    });
    members.into_values().collect()
}

/// In a word; `votes` is absent for a manager that is no member of Raft.
fn state_of(role: ManagerRole, votes: Option<&bool>) -> &'static str {
    match (role, votes) {
        (ManagerRole::Removed, _) => LEAVING,
        (_, Some(true)) => VOTER,
        (_, Some(false)) => "learner",
        (_, None) => "joining",
    }
}

/// What this manager knows of itself.
#[must_use]
pub fn of_this_manager(parts: &Parts) -> ManagerStatus {
    let raft = parts.store.status();
    let space = parts.store.space();
    let validity = parts.identity.current().validity().ok();
    ManagerStatus {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        term: raft.term,
        last_log_index: raft.last_log_index,
        applied_index: raft.applied_index,
        revision: raft.revision,
        leader: raft.leader.unwrap_or_default(),
        disk_free_bytes: space.free,
        disk_floor_bytes: space.floor,
        log_bytes: parts.store.log_bytes(),
        snapshot_taken: parts.store.snapshot_taken().map(clock::time),
        certificate_expires: validity.map(|v| clock::time(v.until)),
        certificate_renewal: validity.map(|v| clock::time(v.renewal())),
        sessions: u32::try_from(parts.sessions.count()).unwrap_or(u32::MAX),
        roots_sha256: parts.identity.current().roots_sha256().to_vec(),
        ca_progress: parts.missing.get(),
        locked: parts.issuer.keyring().is_locked(),
        key_under_passphrase: parts.issuer.keyring().under_passphrase().is_some(),
    }
}

/// Asks every manager, all at the same time.
pub async fn of_cluster(parts: &Parts) -> GetStatusResponse {
    let mut answers = FuturesOrdered::new();
    for member in members(&parts.store) {
        answers.push_back(async move {
            let answer = if member.uid == parts.identity.current().uid {
                Ok(of_this_manager(parts))
            } else {
                ask(&parts.dialer, &member.address).await
            };
            let (status, error) = match answer {
                Ok(status) => (Some(status), String::new()),
                Err(error) => (None, error),
            };
            MemberStatus {
                member: Some(member),
                status,
                error,
            }
        });
    }
    let members: Vec<_> = answers.collect().await;
    let raft = parts.store.status();
    let backup = super::schedule::status(parts);
    let ca_progress = members
        .iter()
        .filter_map(|member| member.status.as_ref())
        .find_map(|status| status.ca_progress.clone());
    let ca = parts
        .store
        .read(|state| rotation::of_state(state, ca_progress));
    let mut warnings = warnings(&members, clock::now().seconds);
    if let Some(last) = backup.as_ref().and_then(|backup| backup.last.as_ref())
        && !last.error.is_empty()
    {
        warnings.push(format!("the last scheduled backup failed: {}", last.error));
    }
    let now = clock::now();
    warnings.extend(parts.store.read(|state| brakes::held(state, &now)));
    GetStatusResponse {
        cluster_id: parts.identity.current().cluster_id.clone(),
        term: raft.term,
        revision: raft.revision,
        warnings,
        members,
        backup,
        ca,
    }
}

/// Asks one manager how it is.
///
/// # Errors
/// One sentence on why it does not say.
pub async fn ask(dialer: &Dialer, address: &str) -> Result<ManagerStatus, String> {
    let channel = dialer.channel(address).map_err(|error| error.to_string())?;
    let mut client = ClusterClient::new(channel);
    match timeout(
        ANSWER,
        client.get_manager_status(GetManagerStatusRequest {}),
    )
    .await
    {
        Ok(Ok(status)) => Ok(status.into_inner()),
        Ok(Err(status)) => Err(barge_client::channel::root_cause(&status)),
        Err(_) => Err(format!("no answer within {} s", ANSWER.as_secs())),
    }
}

/// What is wrong, in words.
fn warnings(members: &[MemberStatus], now: i64) -> Vec<String> {
    let mut warnings = Vec::new();
    let voters: Vec<_> = members.iter().filter(|m| is_voter(m)).collect();
    let answering = voters.iter().filter(|m| m.status.is_some()).count();
    let needed = voters.len() / 2 + 1;
    let silent = voters.iter().filter(|member| member.status.is_none());
    let silent: Vec<_> = silent
        .filter_map(|member| Some(member.member.as_ref()?.address.as_str()))
        .collect();
    if answering < voters.len() {
        let more = answering.saturating_sub(needed);
        warnings.push(match answering.checked_sub(needed) {
            None => format!(
                "{answering} of {} managers answer, {needed} are needed: nothing can be changed. Start those that do not answer ({}), \
                 or, if their data is lost, stop a manager that is left and run `barge-server recover` on it",
                voters.len(),
                silent.join(", ")
            ),
            Some(0) => format!(
                "{answering} of {} managers answer: no further one may fail",
                voters.len()
            ),
            Some(_) => format!(
                "{answering} of {} managers answer: {more} more may fail",
                voters.len()
            ),
        });
    }
    let known: Vec<_> = members.iter().filter_map(|m| m.member.clone()).collect();
    warnings.extend(warnings_of_members(&known));
    let versions: BTreeSet<_> = members
        .iter()
        .filter_map(|m| m.status.as_ref())
        .map(|status| status.version.as_str())
        .collect();
    if versions.len() > 1 {
        let versions: Vec<_> = versions.into_iter().collect();
        warnings.push(format!(
            "managers run different versions: {}",
            versions.join(", ")
        ));
    }
    let last = members
        .iter()
        .filter_map(|m| m.status.as_ref())
        .map(|status| status.last_log_index)
        .max()
        .unwrap_or_default();
    for member in members {
        let (Some(who), Some(status)) = (&member.member, &member.status) else {
            continue;
        };
        let behind = last.saturating_sub(status.applied_index);
        if behind > LAG {
            warnings.push(format!("{} is {behind} entries behind", who.address));
        }
        if status.locked {
            warnings.push(format!(
                "{} is locked since it was started: it signs no certificates and opens no Secrets until `barge cluster unlock`",
                who.address
            ));
        }
        if status.disk_free_bytes < status.disk_floor_bytes {
            let mib = |bytes: u64| bytes >> 20;
            warnings.push(format!(
                "the disk of {} runs full, {} MiB of the {} MiB that it needs are free: it does not lead, and without a \
                 majority of managers with space nothing can be written",
                who.address,
                mib(status.disk_free_bytes),
                mib(status.disk_floor_bytes)
            ));
        }
        if let (Some(renewal), Some(expires)) =
            (status.certificate_renewal, status.certificate_expires)
            && now > renewal.seconds + (expires.seconds - renewal.seconds) / 2
        {
            warnings.push(format!(
                "the certificate of {} expires in {} and was not renewed: its log says why",
                who.address,
                human(expires.seconds - now)
            ));
        }
    }
    warnings
}

fn is_voter(member: &MemberStatus) -> bool {
    member.member.as_ref().is_some_and(|m| m.state == VOTER)
}

/// Warnings about the membership, in words.
#[must_use]
pub fn warnings_of_members(members: &[Member]) -> Vec<String> {
    let mut warnings = Vec::new();
    match members.iter().filter(|m| m.state == VOTER).count() {
        1 => {
            warnings.push("there is one voter: when it fails, nothing can be changed".to_owned());
        }
        2 => warnings.push(
            "there are 2 voters: when either fails, nothing can be changed until it is back"
                .to_owned(),
        ),
        n if n > 0 && n % 2 == 0 => warnings.push(format!(
            "there are {n} voters: {} tolerate as many failures",
            n - 1
        )),
        _ => {}
    }
    let mut by_address = BTreeMap::<&str, Vec<u64>>::new();
    for member in members {
        by_address
            .entry(&member.address)
            .or_default()
            .push(member.raft_id);
        if member.state == LEAVING {
            warnings.push(format!("{} is being removed", member.address));
        } else if !member.waiting.is_empty() {
            let Member {
                address,
                state,
                waiting,
                ..
            } = member;
            warnings.push(format!("{address} ({state}): {waiting}"));
        }
    }
    for (address, ids) in by_address {
        if let [first, rest @ ..] = &ids[..]
            && !rest.is_empty()
        {
            let all: Vec<_> = ids.iter().map(u64::to_string).collect();
            warnings.push(format!(
                "managers {} have the address {address}: if the machine of {first} was set up anew, remove it with \
                 `barge cluster remove {first}`",
                all.join(" and ")
            ));
        }
    }
    warnings
}

#[cfg(test)]
mod tests {
    use barge_proto::v1::Time;

    use super::*;

    fn voter(id: u64, answers: bool) -> MemberStatus {
        MemberStatus {
            member: Some(Member {
                raft_id: id,
                address: format!("m{id}:1"),
                state: "voter".to_owned(),
                ..Member::default()
            }),
            status: answers.then(ManagerStatus::default),
            error: String::new(),
        }
    }

    #[test]
    fn three_managers_that_answer_are_nothing_to_say() {
        let all = [voter(1, true), voter(2, true), voter(3, true)];
        assert!(warnings(&all, 0).is_empty());
    }

    #[test]
    fn what_is_wrong_is_said() {
        let say = |members: &[MemberStatus]| warnings(members, 0).join("; ");
        let one_down = say(&[voter(1, true), voter(2, true), voter(3, false)]);
        assert!(one_down.contains("2 of 3 managers answer: no further one may fail"));
        let two_down = say(&[voter(1, true), voter(2, false), voter(3, false)]);
        assert!(
            two_down
                .contains("nothing can be changed. Start those that do not answer (m2:1, m3:1)")
        );
        assert!(say(&[voter(1, true)]).contains("there is one voter"));
        assert!(say(&[voter(1, true), voter(2, true)]).contains("there are 2 voters"));
    }

    #[test]
    fn what_a_learner_waits_for_is_said() {
        let learner = Member {
            address: "m2:1".to_owned(),
            state: "learner".to_owned(),
            waiting: "it catches up".to_owned(),
            ..Member::default()
        };
        let warnings = warnings_of_members(&[learner]);
        assert_eq!(warnings, ["m2:1 (learner): it catches up"]);
    }

    #[test]
    fn two_that_share_an_address_are_said() {
        let one = |raft_id| Member {
            raft_id,
            address: "a:1".to_owned(),
            state: VOTER.to_owned(),
            ..Member::default()
        };
        let warnings = warnings_of_members(&[one(2), one(4), one(5)]);
        assert!(
            warnings[0].starts_with("managers 2 and 4 and 5 have the address a:1")
                && warnings[0].ends_with("`barge cluster remove 2`"),
            "{warnings:?}"
        );
    }

    #[test]
    fn mixed_versions_are_said() {
        let with = |id, version: &str| {
            let mut member = voter(id, true);
            if let Some(status) = &mut member.status {
                status.version = version.to_owned();
            }
            member
        };
        let all = [with(1, "1.0"), with(2, "1.1"), with(3, "1.1")];
        let all = warnings(&all, 0).join("; ");
        assert!(all.contains("different versions: 1.0, 1.1"), "{all}");
    }

    #[test]
    fn lag_and_expiry_are_said() {
        let mut slow = voter(1, true);
        let mut fast = voter(2, true);
        if let Some(status) = &mut fast.status {
            status.last_log_index = 20_000;
            status.applied_index = 20_000;
        }
        if let Some(status) = &mut slow.status {
            status.certificate_expires = Some(Time {
                seconds: 3 * 24 * 3600 + 5,
                nanos: 0,
            });
            status.certificate_renewal = Some(Time {
                seconds: -10 * 24 * 3600,
                nanos: 0,
            });
        }
        let all = warnings(&[slow, fast, voter(3, false)], 0).join("; ");
        assert!(all.contains("m1:1 is 20000 entries behind"));
        assert!(all.contains("the certificate of m1:1 expires in 3d and was not renewed"));
    }
}
