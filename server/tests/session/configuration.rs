//! Which ConfigMaps and Secrets an agent is told of, and when.

use barge_proto::v1::{
    ConfigMap, ConfigMapEnvSource, EnvFromSource, HeldObject, Secret, SecretEnvSource, object,
};

use super::*;

/// What an agent has been told, all assignments together.
#[derive(Default)]
struct Told {
    pods: BTreeSet<String>,
    config_maps: Vec<(String, String)>,
    secrets: Vec<(String, Vec<u8>)>,
    removed: BTreeSet<String>,
    revision: u64,
    version: String,
}

impl Told {
    /// Reads until it holds. No pod comes before what it uses.
    async fn until(&mut self, agent: &mut Agent, what: &str, holds: impl Fn(&Self) -> bool) {
        let reading = async {
            while !holds(self) {
                if let ToAgent::Assignment(assignment) = agent.next().await.unwrap() {
                    self.add(assignment);
                }
            }
        };
        timeout(PATIENCE, reading).await.expect(what);
    }

    fn add(&mut self, assignment: barge_proto::v1::Assignment) {
        self.revision = assignment.revision;
        for it in assignment.config_maps {
            let meta = it.metadata.unwrap();
            assert!(meta.managed_fields.is_empty(), "of no use to an agent");
            self.version = meta.resource_version;
            let value = it.data.get("COLOR").cloned().unwrap_or_default();
            self.config_maps.push((meta.name, value));
        }
        for it in assignment.secrets {
            let value = it.data.get("password").cloned().unwrap_or_default();
            self.secrets.push((it.metadata.unwrap().name, value));
        }
        let removed = assignment.removed_config_maps.into_iter();
        let removed = removed.chain(assignment.removed_secrets);
        self.removed.extend(removed.map(|it| it.name));
        for pod in assignment.pods {
            let name = pod.metadata.unwrap().name;
            let uses = name == "one" && self.config_maps.is_empty();
            assert!(!uses, "the pod came before what it uses");
            self.pods.insert(name);
        }
    }
}

fn config_map(name: &str, color: &str) -> Object {
    ConfigMap {
        metadata: named(name),
        data: [("COLOR".to_owned(), color.to_owned())].into(),
        ..ConfigMap::default()
    }
    .into()
}

fn secret(name: &str, password: &str) -> Object {
    Secret {
        metadata: named(name),
        data: [("password".to_owned(), password.as_bytes().to_vec())].into(),
        ..Secret::default()
    }
    .into()
}

/// A pod that uses the ConfigMap `web` and the Secret `db`.
fn needy(name: &str) -> Object {
    let mut object = pod(name);
    let Some(object::Kind::Pod(pod)) = &mut object.kind else {
        unreachable!()
    };
    pod.spec.as_mut().unwrap().containers[0].env_from = vec![
        EnvFromSource {
            config_map_ref: Some(ConfigMapEnvSource {
                name: "web".to_owned(),
                optional: None,
            }),
            ..EnvFromSource::default()
        },
        EnvFromSource {
            secret_ref: Some(SecretEnvSource {
                name: "db".to_owned(),
                optional: None,
            }),
            ..EnvFromSource::default()
        },
    ];
    object
}

async fn put(leader: &Channel, object: Object) {
    let request = ApplyRequest {
        objects: vec![object],
        omit_objects: true,
        ..ApplyRequest::default()
    };
    ApiClient::new(leader.clone()).apply(request).await.unwrap();
}

async fn delete(leader: &Channel, kind: Kind, name: &str) {
    let request = DeleteRequest {
        kind: kind.into(),
        name: name.to_owned(),
        ..DeleteRequest::default()
    };
    ApiClient::new(leader.clone())
        .delete(request)
        .await
        .unwrap();
}

#[test]
fn an_agent_is_told_of_the_configuration_that_its_pods_use_and_of_no_other() {
    let threads = Threads::default();
    let runtime = Runtime::new().unwrap();
    runtime.block_on(an_agents_configuration(&threads));
    drop(runtime);
    assert!(threads.wait(PATIENCE), "a database is still open");
}

async fn an_agents_configuration(threads: &Threads) {
    let dir = tempfile::tempdir().unwrap();
    let address = free_address();
    let _manager = start(&dir.path().join("m1"), &address, Origin::Bootstrap, threads);
    let admin_file = dir.path().join("m1/admin.toml");
    let admin = until("an admin credential", async || {
        let config = AdminConfig::load(&admin_file).ok()?;
        config.context(None).ok()?.identity().ok()
    })
    .await;
    let leader = dial(&address, &admin);
    until("the manager", async || {
        let mut cluster = ClusterClient::new(leader.clone());
        cluster.list_members(ListMembersRequest {}).await.ok()
    })
    .await;
    let token = token(&leader, Role::Agent, dir.path()).await;
    let options = JoinOptions {
        feature_level: 0,
        managers: vec![address.clone()],
        token: token.parse().unwrap(),
        dir: dir.path().join("agent"),
        address: "127.0.0.1".to_owned(),
        name: "n1".to_owned(),
        deadline: PATIENCE,
        previous: None,
    };
    let identity = join(&options).await.unwrap().identity;
    let node = dial(&address, &identity);
    let mut signs = sign(&address, &identity).await;
    answer(&mut signs).await;
    let takes = Hello {
        takes_parts: true,
        pod_level: barge_proto::level::PODS,
        ..Hello::default()
    };
    let mut agent = Agent::connect_as(&node, takes.clone()).await.unwrap();

    // What exists comes with the pod; what does not comes when it is made.
    put(&leader, config_map("web", "blue")).await;
    put(&leader, config_map("other", "black")).await;
    put(&leader, secret("strange", "hunter1")).await;
    put(&leader, needy("one")).await;
    let mut told = Told::default();
    told.until(&mut agent, "the pod", |told| told.pods.contains("one"))
        .await;
    assert_eq!(told.config_maps, [("web".to_owned(), "blue".to_owned())]);
    assert!(told.secrets.is_empty());
    put(&leader, secret("db", "hunter2")).await;
    let has_secret = |told: &Told| !told.secrets.is_empty();
    told.until(&mut agent, "the Secret", has_secret).await;
    assert_eq!(told.secrets, [("db".to_owned(), b"hunter2".to_vec())]);

    // A change comes; that of an object which no pod here uses does not.
    let old = told.version.clone();
    put(&leader, config_map("other", "white")).await;
    put(&leader, config_map("web", "green")).await;
    let changed = |told: &Told| told.config_maps.len() > 1;
    told.until(&mut agent, "the change", changed).await;
    assert_eq!(told.config_maps[1], ("web".to_owned(), "green".to_owned()));
    let current = told.version.clone();
    assert_ne!(old, current);

    // A session that goes on brings what the agent has in another version, and takes away what nothing uses.
    let held = |name: &str, version: &str| HeldObject {
        kind: "ConfigMap".to_owned(),
        namespace: "default".to_owned(),
        name: name.to_owned(),
        resource_version: version.to_owned(),
    };
    let mut resumed = Told::default();
    let (mut agent, difference) = until("a session that goes on", async || {
        let hello = Hello {
            acted_revision: told.revision,
            held: Some(Held::default()),
            configuration: vec![held("web", &old), held("unused", "3")],
            ..takes.clone()
        };
        let mut agent = Agent::connect_as(&node, hello).await.unwrap();
        loop {
            if let ToAgent::Assignment(assignment) = agent.next().await.unwrap() {
                // Below its feature level a cluster gives full sets only.
                if assignment.full {
                    return None;
                }
                return Some((agent, assignment));
            }
        }
    })
    .await;
    resumed.add(difference);
    assert_eq!(
        resumed.config_maps,
        [("web".to_owned(), "green".to_owned())]
    );
    assert_eq!(
        resumed.secrets.len(),
        1,
        "it did not say that it has the Secret"
    );
    assert!(resumed.removed.contains("unused"));

    // One that was made meanwhile, deletions, and the end of the use.
    delete(&leader, Kind::Secret, "db").await;
    let removed = |told: &Told| told.removed.contains("db");
    resumed.until(&mut agent, "its removal", removed).await;
    put(&leader, secret("db", "hunter3")).await;
    let again = |told: &Told| told.secrets.len() > 1;
    resumed.until(&mut agent, "the new one", again).await;
    assert_eq!(resumed.secrets[1].1, b"hunter3");

    // An agent that does not take configuration is not given the pod, and others are.
    put(&leader, pod("two")).await;
    let both = |told: &Told| told.pods.contains("two");
    resumed.until(&mut agent, "the other pod", both).await;
    let mut older = Agent::connect(&node).await.unwrap();
    let mut told = Told::default();
    told.until(&mut older, "the other pod", both).await;
    assert!(!told.pods.contains("one") && told.config_maps.is_empty());
    assert!(told.secrets.is_empty());

    let mut agent = Agent::connect_as(&node, takes).await.unwrap();
    let mut told = Told::default();
    told.until(&mut agent, "a full set", both).await;
    assert!(told.pods.contains("one") && told.secrets.len() == 1);
    delete(&leader, Kind::Pod, "one").await;
    // Only its node can say that it is gone.
    let uid = until("its uid", async || {
        let request = GetRequest {
            kind: Kind::Pod.into(),
            name: "one".to_owned(),
            ..GetRequest::default()
        };
        let got = ApiClient::new(leader.clone()).get(request).await.ok()?;
        match got.into_inner().object?.kind? {
            object::Kind::Pod(pod) => Some(pod.metadata?.uid),
            _ => None,
        }
    })
    .await;
    let gone = Report {
        sequence: 1,
        pods: vec![PodReport {
            uid,
            gone: true,
            ..PodReport::default()
        }],
        ..Report::default()
    };
    let gone = message(FromAgent::Report(gone));
    agent.tell.send(gone).await.unwrap();
    let unused = |told: &Told| told.removed.contains("web") && told.removed.contains("db");
    told.until(&mut agent, "that nothing uses them", unused)
        .await;
}
