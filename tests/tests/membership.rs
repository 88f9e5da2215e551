//! Managers come, go, move and are replaced, while the cluster goes on.

// A test that cannot go on says so by panicking.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use barge_client::{Client, ClientOptions, identity::Identity};
use barge_tests::{
    Managers, eventually,
    writer::{Writer, client, read_counter, runtime},
};

/// Generous: a change of leader takes a tenth of it, and this machine may be busy.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// The exit code of a manager that was removed.
const REMOVED: Option<i32> = Some(3);

/// The line of a manager in `barge cluster members`.
fn line(managers: &Managers, index: usize) -> Result<String, String> {
    let members = managers.try_members()?;
    let address = managers.address(index);
    let line = members
        .lines()
        .find(|line| line.starts_with(&format!("{address} ")));
    line.map(str::to_owned).ok_or(members)
}

#[test]
fn a_cluster_grows_to_five_and_shrinks_to_one_under_writes() {
    let mut managers = Managers::prepare(5);
    managers.start(0, &["--bootstrap"]);
    managers.wait_for_voters(1);
    let writer = Writer::start(&managers.config_of(&[0, 1, 2, 3, 4]));
    for index in 1..5 {
        writer.wait_for(5);
        managers.join(index);
        match index {
            // Two voters would be worse than one.
            1 => managers.wait_for_state(1, "learner"),
            _ => managers.wait_for_voters(index + 1),
        }
    }
    // The first to go is the one that leads; then whoever comes first.
    let mut left: Vec<_> = (0..5).collect();
    let mut next = managers.leader();
    while left.len() > 1 {
        writer.wait_for(5);
        let said = managers.barge(&["cluster", "remove", &managers.address(next)]);
        assert!(said.contains("is removed"), "{said}");
        assert_eq!(managers.exit_code(next), REMOVED);
        left.retain(|index| *index != next);
        managers.wait_for_voters(left.len());
        next = left[0];
    }
    writer.wait_for(5);
    let longest = writer.longest_wait();
    assert!(longest < LONGEST_WAIT, "a write took {longest:?}");
    let acknowledged = writer.stop();
    let client = client(&managers.config_of(&left), Duration::from_secs(60));
    assert_eq!(
        read_counter(&client),
        Ok((acknowledged, acknowledged)),
        "every acknowledged write is there, and was applied once"
    );
    let output = managers.try_barge(&["cluster", "remove", &managers.address(left[0])]);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success() && error.contains("the last voter"),
        "{error}"
    );
}

#[test]
fn a_removed_manager_ends_and_nobody_lets_it_in_again() {
    let mut managers = Managers::up(3);
    let leader = managers.leader();
    let gone = (0..3)
        .find(|index| *index != leader && *index > 0)
        .expect("a follower");
    let address = managers.address(gone);
    let identity = identity(&managers.data_dir(gone));
    managers.barge(&["cluster", "remove", &address]);
    assert_eq!(managers.exit_code(gone), REMOVED);
    assert!(managers.log(gone).contains("was removed from its cluster"));

    let others: Vec<_> = (0..3)
        .filter(|index| *index != gone)
        .map(|index| managers.address(index))
        .collect();
    let _entered = runtime().enter();
    let client = Client::new(&identity, &others, ClientOptions::default()).expect("a client");
    let error = runtime()
        .block_on(client.members())
        .expect_err("it was removed");
    assert!(error.is_denied(), "{error}");

    // A supervisor may start it again and again: it says the same each time. So does asking for its removal again.
    let again = managers
        .command(gone, &[])
        .output()
        .expect("start a manager");
    assert_eq!(again.status.code(), REMOVED);
    let text = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(
        text.contains("empty it and start with --join and a new token"),
        "{text}"
    );
    let id = line_id(&managers, gone);
    assert_eq!(id, None);
    let output = managers.try_barge(&["cluster", "remove", &(gone + 1).to_string()]);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );

    // With an empty folder and a new token its machine is welcome.
    fs::remove_dir_all(managers.data_dir(gone)).expect("empty the data folder");
    managers.join(gone);
    managers.wait_for_voters(3);
    managers.wait_until_caught_up();
}

fn identity(data_dir: &Path) -> Identity {
    Identity::load(&data_dir.join("identity"))
        .expect("read the identity")
        .expect("it has joined")
}

/// The ID that `barge cluster members` shows.
fn line_id(managers: &Managers, index: usize) -> Option<String> {
    let line = line(managers, index).ok()?;
    line.split_whitespace().nth(1).map(str::to_owned)
}

#[test]
fn a_manager_that_was_removed_while_it_was_away_notices_when_it_returns() {
    let mut managers = Managers::up(3);
    let leader = managers.leader();
    let away = (1..3).find(|index| *index != leader).expect("a follower");
    managers.kill(away);
    managers.barge(&["cluster", "remove", &managers.address(away)]);
    managers.start(away, &[]);
    assert_eq!(managers.exit_code(away), REMOVED);
}

#[test]
fn a_machine_that_lost_its_disk_is_replaced_by_itself() {
    let mut managers = Managers::up(3);
    let leader = managers.leader();
    let lost = (1..3).find(|index| *index != leader).expect("a follower");
    let id = line_id(&managers, lost).expect("its ID");
    managers.kill(lost);
    // Two of three answer: none of the two may go.
    let output = managers.try_barge(&["cluster", "remove", &managers.address(leader)]);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success() && error.contains(&format!("(ID {id})")),
        "it says who is to be removed first: {error}"
    );
    fs::remove_dir_all(managers.data_dir(lost)).expect("lose the disk");
    managers.join(lost);
    managers.wait_for_voters(4);
    let status = managers.barge(&["cluster", "status"]);
    assert!(
        status.contains("have the address")
            && status.contains(&format!("barge cluster remove {id}")),
        "{status}"
    );
    let output = managers.try_barge(&["cluster", "remove", &managers.address(lost)]);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(error.contains("name the one you mean by its ID"), "{error}");
    managers.barge(&["cluster", "remove", &id]);
    managers.wait_for_voters(3);
    managers.wait_until_caught_up();
}

#[test]
fn a_manager_that_moved_comes_back_by_itself() {
    let mut managers = Managers::up(3);
    let leader = managers.leader();
    let moved = (1..3).find(|index| *index != leader).expect("a follower");
    let before = managers.address(moved);
    managers.stop(moved);
    managers.move_to_another_address(moved);
    managers.start(moved, &[]);
    managers.wait_for_state(moved, "voter");
    managers.wait_until_caught_up();
    let members = managers.try_members().expect("the members");
    assert!(!members.contains(&format!("{before} ")), "{members}");
    // Raft, too, finds it there: with another one away, its vote is needed.
    let other = (1..3).find(|index| *index != moved).expect("another one");
    managers.kill(other);
    let writer = Writer::start(&managers.config_of(&[0, moved]));
    writer.wait_for(5);
    let _ = writer.stop();
}

#[test]
fn voters_are_demoted_and_promoted_and_stay_what_they_are() {
    let mut managers = Managers::up(3);
    let leader = managers.leader();
    managers.barge(&["cluster", "demote", &managers.address(leader)]);
    managers.wait_for_state(leader, "learner");
    let next = managers.leader();
    assert_ne!(next, leader, "who does not vote does not lead");
    let members = managers.try_barge(&["cluster", "members"]);
    let warning = String::from_utf8_lossy(&members.stderr).into_owned();
    assert!(warning.contains("there are 2 voters"), "{warning}");
    // A restart does not make it a voter again.
    managers.stop(leader);
    managers.start(leader, &[]);
    let config = managers.config_for(leader);
    eventually("the learner serves", || {
        read_members(&client(&config, Duration::from_secs(5)))
    });
    managers.wait_for_state(leader, "learner");
    managers.barge(&["cluster", "promote", &managers.address(leader)]);
    managers.wait_for_voters(3);
    managers.barge(&["cluster", "promote", &managers.address(leader)]);
    let output = managers.try_barge(&["cluster", "promote", "10.9.9.9:1"]);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        error.contains("no manager has the ID, uid or address"),
        "{error}"
    );
}

/// A linearizable read through a manager works.
fn read_members(client: &Client) -> Result<(), String> {
    let read = runtime().block_on(client.tokens());
    read.map(drop).map_err(|error| error.to_string())
}

/// Killed wherever it is with joining, and started again with the same flags, a manager ends up as one learner.
#[test]
fn joining_may_be_interrupted_anywhere() {
    let mut managers = Managers::prepare(2);
    managers.start(0, &["--bootstrap"]);
    managers.wait_for_voters(1);
    let flags = managers.join_flags(1);
    let flags = flags.each_ref().map(String::as_str);
    let folder = managers.data_dir(1);
    let stages = [
        "lock",
        // There until it is part of the identity.
        "identity/key.pem",
        "sealing.key",
        "identity/identity.toml",
        "store",
        "store/state",
    ];
    for (at, stage) in stages.iter().enumerate() {
        managers.start(1, &flags);
        let reached = || stages[at..].iter().any(|stage| folder.join(stage).exists());
        eventually(stage, || match reached() {
            true => Ok(()),
            false => Err("not yet".to_owned()),
        });
        managers.kill(1);
    }
    managers.start(1, &flags);
    managers.wait_for_state(1, "learner");
    let members = managers.try_members().expect("the members");
    assert_eq!(
        members.lines().count(),
        3,
        "a header and two managers: {members}"
    );
    // The token was used once.
    managers.stop(1);
    managers.start(1, &flags);
    managers.wait_until_answers(1);
}

/// What `barge cluster members` warns of.
fn warnings(managers: &Managers) -> Result<String, String> {
    let output = managers.try_barge(&["cluster", "members"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    match output.status.success() {
        true => Ok(said),
        false => Err(said),
    }
}

fn warns(managers: &Managers, words: &str) {
    warns_of_any(managers, &[words]);
}

fn warns_of_any(managers: &Managers, all: &[&str]) {
    eventually(&format!("a warning: {all:?}"), || {
        let said = warnings(managers)?;
        match all.iter().any(|words| said.contains(words)) {
            true => Ok(()),
            false => Err(said),
        }
    });
}

/// The flag was copied from the first manager, or nobody is there at all.
#[test]
fn a_manager_that_is_not_where_it_says_is_told_so_and_does_not_vote() {
    let mut managers = Managers::prepare(2);
    managers.start(0, &["--bootstrap"]);
    managers.wait_for_voters(1);
    let writer = Writer::start(&managers.config_of(&[0]));
    writer.wait_for(5);
    let flags = managers.join_flags(1);
    let flags = flags.each_ref().map(String::as_str);
    let nobody = managers.address(0).replace(".11:", ".99:");
    for (address, found) in [
        (managers.address(0), "this is manager 1"),
        (nobody, "does not find manager 2"),
    ] {
        managers.mislead(1, Some(&address));
        managers.start(1, &flags);
        eventually("it is told", || {
            let log = managers.log(1);
            let told = log.contains(&format!("at {address}, the address that it advertises"))
                && log.contains(found)
                && log.contains("--advertise HOST:PORT");
            told.then_some(()).ok_or(log)
        });
        warns(&managers, &format!("not reached at {address} since"));
        let refused = managers.try_barge(&["cluster", "promote", "2"]);
        let error = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(
            !refused.status.success() && error.contains("not reached"),
            "{error}"
        );
        writer.wait_for(20);
        managers.kill(1);
    }
    managers.mislead(1, None);
    managers.start(1, &[]);
    managers.wait_for_state(1, "learner");
    warns(&managers, "waits for a third manager");
    let said = warnings(&managers).unwrap_or_default();
    assert!(!said.contains("not reached"), "{said}");
    let _ = writer.stop();
}

#[test]
fn managers_that_die_right_after_their_start_block_nobody() {
    let mut managers = Managers::prepare(3);
    managers.start(0, &["--bootstrap"]);
    managers.wait_for_voters(1);
    let writer = Writer::start(&managers.config_of(&[0]));
    for index in [1, 2] {
        managers.join(index);
        managers.wait_for_state(index, "learner");
        managers.kill(index);
        writer.wait_for(50);
    }
    // It depends on how far they came.
    warns_of_any(
        &managers,
        &["does not answer at", "acknowledged nothing yet at"],
    );
    managers.wait_for_state(1, "learner");
    managers.barge(&["cluster", "remove", "2"]);
    // The other one returns, and is the only one to wait.
    managers.start(2, &[]);
    warns(&managers, "`barge cluster promote 3`");
    writer.wait_for(20);
    let longest = writer.longest_wait();
    assert!(longest < LONGEST_WAIT, "a write took {longest:?}");
    let _ = writer.stop();
}

#[test]
fn a_cluster_of_two_that_lost_one_says_so_and_waits_quietly() {
    let mut managers = Managers::up(2);
    warns(&managers, "when either fails");
    let leader = managers.leader();
    let lost = 1 - leader;
    let id = line_id(&managers, lost).expect("its ID");
    managers.kill(lost);
    let config = managers.config_for(leader);
    let before = managers.log(leader).len();
    let refused = managers.try_barge_with(&config, &["cluster", "remove", &id]);
    let error = String::from_utf8_lossy(&refused.stderr).into_owned();
    let named = format!("{} (ID {id}) does not answer", managers.address(lost));
    assert!(
        !refused.status.success()
            && error.contains(&named)
            && error.contains("`barge-server recover`"),
        "{error}"
    );
    let status = managers.try_barge_with(&config, &["cluster", "status"]);
    let status = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(
        status.contains("nothing can be changed. Start those") && status.contains("recover"),
        "{status}"
    );
    let grown = managers.log(leader).len() - before;
    assert!(grown < 64 << 10, "it wrote {grown} bytes into its log");
    managers.start(lost, &[]);
    let writer = Writer::start(&managers.config_of(&[0, 1]));
    writer.wait_for(5);
    let _ = writer.stop();
}

/// What is under way at a voter that stops cannot be committed without it.
#[test]
fn one_of_two_voters_stops_at_once() {
    for leads in [true, false] {
        let mut managers = Managers::up(2);
        let writer = Writer::start(&managers.config_of(&[0, 1]));
        writer.wait_for(20);
        let leader = managers.leader();
        let stopped = if leads { leader } else { 1 - leader };
        let begun = Instant::now();
        assert!(managers.stop(stopped), "{}", managers.log(stopped));
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(4), "it took {took:?}");
        managers.start(stopped, &[]);
        writer.wait_for(20);
        let _ = writer.stop();
    }
}
