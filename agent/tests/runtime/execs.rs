//! Programs run in containers.

use std::{fs, time::Duration};

use barge_agent::runtime::{ContainerSpec, ExecOutcome, Runtime, RuntimeError, Security};
use serde_json::json;

use super::{
    machine::{eventually, on_a_machine},
    pods::Pod,
};

const LONG: Duration = Duration::from_secs(30);

#[test]
fn a_program_runs_beside_the_containers_own_and_is_bounded() {
    on_a_machine(|machine| async move {
        let (pod, _) = Pod::new(&machine, json!({})).await;
        let spec = ContainerSpec {
            security: Security {
                run_as_user: Some(1001),
                ..Security::default()
            },
            ..pod.spec("main", 0, "sleep 1000000")
        };
        let container = pod.runtime.start_container(&spec).await.unwrap();
        let run = async |script: &str, within: Duration| -> Result<ExecOutcome, RuntimeError> {
            let command = ["/bin/sh", "-c", script].map(str::to_owned);
            pod.runtime.exec(&container.id, &command, within).await
        };
        let ran = run("id -u; echo err >&2; exit 3", LONG).await.unwrap();
        assert_eq!(ran.exit_code, Some(3));
        // The outputs are two, and which comes first is up to the shim.
        let said = String::from_utf8_lossy(&ran.output);
        let said: std::collections::BTreeSet<_> = said.lines().collect();
        assert_eq!(said, ["1001", "err"].into());

        // More than a pipe holds, and more than is kept.
        let ran = run("seq 1000000", LONG).await.unwrap();
        assert_eq!((ran.exit_code, ran.output.len()), (Some(0), 10 * 1024));
        assert!(ran.output.starts_with(b"1\n2\n3\n"));

        let ran = run("echo begun; sleep 1000000", Duration::from_secs(1))
            .await
            .unwrap();
        assert_eq!(ran.exit_code, None);
        assert_eq!(ran.output, b"begun\n");

        let missing = ["/bin/missing".to_owned()];
        let error = pod
            .runtime
            .exec(&container.id, &missing, LONG)
            .await
            .unwrap_err();
        assert!(error.message.contains("/bin/missing"), "{error}");
        let error = pod
            .runtime
            .exec("nothing-0", &missing, LONG)
            .await
            .unwrap_err();
        assert!(error.message.contains("not there"), "{error}");

        // Nothing of them is left, also of one for which nobody waits any more.
        let command = ["sleep".to_owned(), "2".to_owned()];
        let nobody = pod
            .runtime
            .exec(&container.id, &command, Duration::from_secs(1));
        assert!(
            tokio::time::timeout(Duration::from_millis(300), nobody)
                .await
                .is_err()
        );
        let execs = machine.paths().programs();
        eventually("all pipes are gone", || async {
            let left = fs::read_dir(&execs).map_or(0, |folder| folder.count());
            (left == 0).then_some(())
        })
        .await;
        let tasks = machine.ctr(&["task", "ps", &container.id]);
        assert_eq!(tasks.lines().count(), 2, "{tasks}");
        let found = pod.runtime.list().await.unwrap();
        assert_eq!(found.containers[0].state, container.state);
        pod.runtime
            .stop_container(&container.id, Duration::ZERO)
            .await
            .unwrap();
        pod.runtime.remove_container(&container.id).await.unwrap();
        pod.runtime
            .remove_sandbox(&pod.sandbox.pod_uid)
            .await
            .unwrap();
    });
}
