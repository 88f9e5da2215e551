//! Pods that an agent before this one wired with CNI's bridge plugin.

use std::fs;

use barge_agent::runtime::{Runtime, containerd::Containerd};
use serde_json::json;

use super::{
    machine::{Machine, RANGE, eventually, on_a_machine, run},
    pods::{Pod, sandbox},
    traces::Traces,
};

const SERVER: &str = "while :; do echo from the pod | nc -l -p 80; done";

/// A runtime that wires as agents before this one did: with the network configuration that they generated.
fn older(machine: &Machine) -> Containerd {
    let folder = machine.path("older");
    fs::create_dir_all(&folder).unwrap();
    let addresses = machine.path("data/cni/addresses");
    let config = json!({"cniVersion": "1.0.0", "name": "barge", "plugins": [{
        "type": "bridge", "bridge": "barge0", "isGateway": true, "hairpinMode": true, "ipMasq": false,
        "ipam": {"type": "host-local", "dataDir": addresses, "ranges": [[{"subnet": RANGE}]], "routes": [{"dst": "0.0.0.0/0"}]}}]});
    fs::write(folder.join("barge.conflist"), config.to_string()).unwrap();
    let mut options = machine.options();
    options.cni_conf_dir = Some(folder);
    Containerd::new(options).unwrap()
}

#[test]
fn a_bridged_pod_keeps_its_address_and_reaches_routed_ones() {
    on_a_machine(|machine| async move {
        let (new, before) = Pod::new(&machine, json!({})).await;
        new.runtime
            .remove_sandbox(&new.sandbox.pod_uid)
            .await
            .unwrap();
        let runtime = older(&machine);
        let old = Pod {
            sandbox: runtime.create_sandbox(&sandbox("old")).await.unwrap(),
            image: new.image.clone(),
            runtime,
        };
        let server = old.spec("server", 0, SERVER);
        old.runtime.start_container(&server).await.unwrap();
        let address = old.sandbox.ips[0];
        assert!(run("ip", &["link", "show", "barge0"]).contains("UP"));

        // The agent is replaced.
        let runtime = machine.runtime();
        runtime.ensure_network(RANGE).await.unwrap();
        let listed = runtime.list().await.unwrap();
        assert_eq!(listed.sandboxes[0].ips, [address]);
        assert_eq!(runtime.mend_network().await.unwrap(), Vec::<String>::new());
        let new = Pod {
            sandbox: runtime.create_sandbox(&sandbox("new")).await.unwrap(),
            ..new
        };
        assert_ne!(new.sandbox.ips, [address]);
        let route = run("ip", &["route", "show", &new.sandbox.ips[0].to_string()]);
        assert!(route.contains("dev bp-"), "{route}");
        let server = new.spec("server", 0, SERVER);
        new.runtime.start_container(&server).await.unwrap();
        let ask =
            |to: &str| format!("until nc {to} 80 < /dev/null | grep from; do sleep 0.05; done");
        let to_old = ask(&address.to_string());
        let (_, out, _) = new.run(&new.spec("client", 0, &to_old)).await;
        assert_eq!(out, "from the pod\n");
        let to_new = ask(&new.sandbox.ips[0].to_string());
        let (_, out, _) = old.run(&old.spec("client", 0, &to_new)).await;
        assert_eq!(out, "from the pod\n");

        // Both end with the new agent, and the bridge goes when nobody is on it any more.
        for pod in [&old, &new] {
            runtime.remove_sandbox(&pod.sandbox.pod_uid).await.unwrap();
        }
        runtime.ensure_network(RANGE).await.unwrap();
        assert!(!run("ip", &["link"]).contains("barge0"));
        assert_eq!(Traces::of(&machine), before);
    });
}

#[test]
fn what_others_remove_of_a_pod_s_network_is_made_again() {
    on_a_machine(|machine| async move {
        let (pod, _) = Pod::new(&machine, json!({})).await;
        let server = pod.spec("server", 0, SERVER);
        pod.runtime.start_container(&server).await.unwrap();
        let address = pod.sandbox.ips[0];
        let link = barge_agent::runtime::pod_link(address);
        let answers = || {
            eventually("the pod answers", || async move {
                use tokio::io::AsyncReadExt;
                let mut stream = tokio::net::TcpStream::connect((address, 80)).await.ok()?;
                let mut text = String::new();
                stream.read_to_string(&mut text).await.ok()?;
                (!text.is_empty()).then_some(())
            })
        };
        answers().await;
        // Another control, which has to read what there is.
        let runtime = machine.runtime();
        for command in [
            &["route", "del", &address.to_string()][..],
            &["link", "del", &link],
        ] {
            run("ip", command);
            let mended = runtime.mend_network().await.unwrap();
            assert_eq!(mended, [format!("default/web-0 ({address})")]);
            answers().await;
            assert_eq!(runtime.mend_network().await.unwrap(), Vec::<String>::new());
        }
        pod.runtime
            .remove_sandbox(&pod.sandbox.pod_uid)
            .await
            .unwrap();
    });
}
