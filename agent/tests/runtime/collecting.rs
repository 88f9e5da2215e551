//! Removal of images, with real ones.

use barge_agent::runtime::{PullPolicy, Runtime};
use serde_json::json;

use super::{
    image, lying,
    machine::{eventually, nobody, on_a_machine},
    pods::Pod,
    registry::{Fault, Registry},
};

#[test]
fn a_removed_image_leaves_nothing_and_takes_nothing_from_others() {
    on_a_machine(|machine| async move {
        let (pod, _) = Pod::new(&machine, json!({})).await;
        let spec = pod.spec("main", 0, "sleep 1000000");
        let runtime = &pod.runtime;
        let container = runtime.start_container(&spec).await.unwrap();
        let with_one = machine.ctr(&["snapshot", "ls"]).lines().count();
        let blobs_with_one = machine.ctr(&["content", "ls", "-q"]).lines().count();

        image::push(&machine, "other:1", json!({})).await;
        let other = runtime
            .pull("other:1", PullPolicy::IfNotPresent, nobody())
            .await
            .unwrap();
        machine.ctr(&["image", "tag", &other.name, "docker.io/library/imported:1"]);
        let store = runtime.images().await.unwrap();
        let mut names: Vec<_> = store
            .images
            .iter()
            .map(|image| image.name.as_str())
            .collect();
        names.sort_unstable();
        // What got its name by hand is somebody's own.
        assert_eq!(
            names,
            ["docker.io/library/other:1", "docker.io/library/shell:1"]
        );
        assert!(store.images.iter().all(|image| image.pulled_at_ms > 0));
        let disk = store.disk.unwrap();
        assert!(disk.used > 0 && disk.used < disk.total, "{disk:?}");

        machine.ctr(&["image", "rm", "docker.io/library/imported:1"]);
        assert!(runtime.remove_image(&other.name).await.unwrap());
        // Its layers went with it, but for the one that both have; and that before the call returned.
        assert_eq!(machine.ctr(&["snapshot", "ls"]).lines().count(), with_one);
        assert_eq!(
            machine.ctr(&["content", "ls", "-q"]).lines().count(),
            blobs_with_one
        );
        assert!(runtime.remove_image(&other.name).await.unwrap(), "again");

        // The image of a container that runs: the container runs on, and its successor pulls again.
        assert!(runtime.remove_image(&pod.image.name).await.unwrap());
        let found = runtime.list().await.unwrap();
        assert_eq!(found.containers[0].state, container.state);
        assert!(
            runtime
                .find_image("shell:1", nobody())
                .await
                .unwrap()
                .is_none()
        );
        let again = runtime
            .pull("shell:1", PullPolicy::IfNotPresent, nobody())
            .await
            .unwrap();
        assert_eq!(again.id, pod.image.id);
        let (_, out, _) = pod.run(&pod.spec("main", 1, "echo again")).await;
        assert_eq!(out, "again\n");
        runtime
            .stop_container(&container.id, std::time::Duration::ZERO)
            .await
            .unwrap();
        runtime.remove_container(&container.id).await.unwrap();
        runtime.remove_sandbox(&pod.sandbox.pod_uid).await.unwrap();
    });
}

#[test]
fn the_lease_of_a_pull_that_died_is_given_back() {
    on_a_machine(|machine| async move {
        let registry = Registry::start().await;
        let runtime = lying::runtime(&machine, &registry);
        let tiny = lying::tiny(&machine, &registry, "died", lying::ours());
        registry.tag("died:1", &tiny.descriptor);
        registry.fault(&tiny.layer, Fault::Stall);
        // An agent of its own, which pulls, and dies with everything it was about to do.
        let agent = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .unwrap();
        let pulling = {
            let _inside = agent.enter();
            lying::runtime(&machine, &registry)
        };
        agent.spawn(async move {
            pulling
                .pull("lying.test/x/died:1", PullPolicy::Always, nobody())
                .await
        });
        let leases = || machine.ctr(&["leases", "ls", "-q"]);
        eventually("the pull has a lease", || async {
            (!leases().is_empty()).then_some(())
        })
        .await;
        agent.shutdown_background();
        assert_ne!(leases(), "");
        runtime.recover().await.unwrap();
        assert_eq!(leases(), "");
    });
}
