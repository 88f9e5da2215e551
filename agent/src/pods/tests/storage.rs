//! What pods take of the node's disk: counted, and bounded.

use barge_proto::v1::ResourceRequirements;

use super::{
    troubles::really,
    volumes::{assigned_with, db, mounting, settle, stops},
    *,
};
use crate::configuration::Configuration;

#[tokio::test(start_paused = true)]
async fn a_pod_that_takes_too_much_of_the_disk_is_evicted() {
    let machine = Machine::new();
    let mut agent = machine.agent(assigned_with(db("one"), "a"));
    agent.until_phase("u1", "Running").await;
    machine.runtime.fill_volumes(1 << 20);
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!(stops(&machine), 0);
    // Once too much may be a mistake.
    for _ in 0..3 {
        machine.runtime.fill_volumes((1 << 20) + 1);
        let before = measured(&machine);
        let counted = || measured(&machine) > before;
        really("it is counted", counted).await;
        machine.runtime.fill_volumes(1 << 20);
        tokio::time::sleep(Duration::from_secs(60)).await;
    }
    assert_eq!(stops(&machine), 0);
    machine.runtime.fill_volumes((1 << 20) + 1);
    agent.until_phase("u1", "Failed").await;
    let said = status(&agent.reports["u1"]);
    assert_eq!(said.reason, "Evicted");
    assert!(
        said.message.contains("emptyDir volume \"disk\" exceeds"),
        "{said:?}"
    );
    assert!(agent.events.contains(&"Evicted".to_owned()));
    // It is for good, with another agent, too.
    agent.end().await;
    let mut agent = machine.agent(assigned_with(db("one"), "a"));
    agent.until_phase("u1", "Failed").await;
    settle().await;
    let left = machine.runtime.containers();
    assert!(left.iter().all(|it| it.pod_uid != "u1"), "{left:?}");
    agent.end().await;
    assert_eq!(machine.runtime.violations(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_does_not_keep_those_who_filled_it() {
    let machine = Machine::new();
    let mut both = mounting("u1", "a");
    let spec = both.spec.as_mut().unwrap();
    let side = Container {
        name: "side".into(),
        ..spec.containers[0].clone()
    };
    spec.containers.push(side);
    let desired = Desired {
        configuration: Configuration::kept(vec![], db("one"), true),
        ..assigned(1, [both])
    };
    let mut agent = machine.agent(desired);
    agent.until_phase("u1", "Running").await;
    // No record can be written any more.
    let record = machine.folder.path().join("pods/u1/record.tmp");
    std::fs::create_dir_all(&record).unwrap();
    machine.runtime.exit(&container_id("u1", "web", 0), 1);
    settle().await;
    assert!(agent_waits(&machine), "{:?}", machine.runtime.calls());
    machine.runtime.fill_volumes((1 << 20) + 1);
    agent.until_phase("u1", "Failed").await;
    let stop = format!("stop {} 1", container_id("u1", "side", 0));
    assert!(machine.runtime.calls().contains(&stop));
    std::fs::remove_dir(&record).unwrap();
    agent.end().await;
    assert_eq!(machine.runtime.violations(), [""; 0]);
}

/// Nothing was started again.
fn agent_waits(machine: &Machine) -> bool {
    let calls = machine.runtime.calls();
    !calls.iter().any(|it| it == "start web/1")
}

fn measured(machine: &Machine) -> usize {
    let calls = machine.runtime.calls();
    calls.iter().filter(|it| it.starts_with("measure")).count()
}

#[tokio::test(start_paused = true)]
async fn what_containers_that_ended_wrote_does_not_count() {
    let machine = Machine::new();
    let limit = Quantity {
        value: "1Mi".into(),
    };
    let mut both = mounting("u1", "a");
    let spec = both.spec.as_mut().unwrap();
    let limits = [("ephemeral-storage".to_owned(), limit)];
    spec.containers[0].resources = Some(ResourceRequirements {
        limits: limits.into(),
        ..Default::default()
    });
    let init = Container {
        name: "init".into(),
        volume_mounts: vec![],
        ..spec.containers[0].clone()
    };
    spec.init_containers = vec![init];
    let mut agent = machine.agent(Desired {
        configuration: Configuration::kept(vec![], db("one"), true),
        ..assigned(1, [both])
    });
    let init = container_id("u1", "init", 0);
    really("the init container runs", || {
        machine.runtime.containers().iter().any(|it| it.id == init)
    })
    .await;
    for name in ["init", "web"] {
        machine.runtime.fill_containers(name, 800 << 10);
    }
    machine.runtime.exit(&init, 0);
    agent.until_phase("u1", "Running").await;
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(stops(&machine), 0);
    machine.runtime.fill_containers("web", 2 << 20);
    agent.until_phase("u1", "Failed").await;
    let said = status(&agent.reports["u1"]);
    assert!(said.message.contains("Container web exceeded"), "{said:?}");
    agent.end().await;
    assert_eq!(machine.runtime.violations(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn what_containers_write_to_the_files_that_the_agent_made_counts() {
    let machine = Machine::new();
    let limit = Quantity {
        value: "1Mi".into(),
    };
    let mut limited = pod("u1", "Always");
    let limits = [("ephemeral-storage".to_owned(), limit)];
    limited.spec.as_mut().unwrap().containers[0].resources = Some(ResourceRequirements {
        limits: limits.into(),
        ..Default::default()
    });
    let mut agent = machine.agent(assigned(1, [limited, pod("u2", "Always")]));
    agent.until_phase("u1", "Running").await;
    agent.until_phase("u2", "Running").await;
    machine.runtime.fill_etc(1 << 20);
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(stops(&machine), 0);
    machine.runtime.fill_etc((1 << 20) + 1);
    agent.until_phase("u1", "Failed").await;
    let said = status(&agent.reports["u1"]);
    assert_eq!(said.reason, "Evicted");
    assert!(said.message.contains("ephemeral"), "{said:?}");
    assert_eq!(stops(&machine), 1, "one without limits runs on");
    agent.end().await;
    assert_eq!(machine.runtime.violations(), [""; 0]);
}
