//! Images from registries that fail, stall, truncate and lie.

use std::time::{Duration, Instant};

use barge_agent::runtime::{
    Image, Options, PullPolicy, Registry as Settings, Runtime, RuntimeError, containerd::Containerd,
};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::{
    image::{self, pack},
    machine::{DEADLINE, Machine, eventually, nobody, on_a_machine},
    registry::{Fault, Registry},
};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const OURS: &str = if cfg!(target_arch = "x86_64") {
    "amd64"
} else {
    "arm64"
};

/// An image of one small layer.
pub struct Tiny {
    pub layer: String,
    pub config: String,
    pub manifest: Value,
    pub descriptor: Value,
}

/// Puts an image into a registry, under its digest alone.
pub fn tiny(machine: &Machine, registry: &Registry, marker: &str, platform: Value) -> Tiny {
    let folder = machine.path(&format!("tiny-{marker}"));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("marker"), marker).unwrap();
    let (layer, diff_id) = pack(machine, &folder);
    let mut config = platform;
    config["rootfs"] = json!({"type": "layers", "diff_ids": [diff_id]});
    config["config"] = json!({"Cmd": [marker]});
    let config = serde_json::to_vec(&config).unwrap();
    let (size, config_size) = (layer.len(), config.len());
    let (layer, config) = (registry.blob(layer), registry.blob(config));
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST,
        "config": {"mediaType": CONFIG, "digest": config, "size": config_size},
        "layers": [{"mediaType": LAYER, "digest": layer, "size": size}],
    });
    Tiny {
        layer,
        config,
        descriptor: registry.document(&manifest),
        manifest,
    }
}

pub fn ours() -> Value {
    json!({"os": "linux", "architecture": OURS})
}

/// Settings of a host of which a registry is the only mirror, and which is nowhere itself.
fn mirrored(host: &str, registry: &Registry) -> Settings {
    Settings {
        host: host.into(),
        mirrors: vec![registry.url()],
        plain_http: true,
        ..Settings::default()
    }
}

/// The registry stands in for `lying.test`, beside the machine's own.
fn options(machine: &Machine, registry: &Registry) -> Options {
    let mut options = machine.options();
    options.registries.push(mirrored("lying.test", registry));
    options
}

pub fn runtime(machine: &Machine, registry: &Registry) -> Containerd {
    Containerd::new(options(machine, registry)).unwrap()
}

/// Pulls, and fails when it takes longer than the patience of a person.
async fn pull(runtime: &Containerd, image: &str) -> Result<Image, RuntimeError> {
    let pull = runtime.pull(image, PullPolicy::IfNotPresent, nobody());
    timeout(DEADLINE, pull).await.expect("a pull that ends")
}

#[test]
fn a_registry_that_stalls_delays_no_other() {
    on_a_machine(|machine| async move {
        image::push(&machine, "app:1", json!({})).await;
        let registry = Registry::start().await;
        let runtime = runtime(&machine, &registry);
        let mut stalled = Vec::new();
        for number in 0..20 {
            let tiny = tiny(&machine, &registry, &format!("s{number}"), ours());
            registry.tag(&format!("s:{number}"), &tiny.descriptor);
            registry.fault(&tiny.layer, Fault::Stall);
            let (runtime, image) = (runtime.clone(), format!("lying.test/x/s:{number}"));
            stalled.push(tokio::spawn(async move {
                runtime
                    .pull(&image, PullPolicy::IfNotPresent, nobody())
                    .await
            }));
        }
        eventually("the registry stalls", || async {
            let seen = registry.seen();
            let blobs = seen.iter().filter(|seen| seen.path.contains("/blobs/"));
            // Each a configuration, and four a layer.
            (blobs.count() >= 8).then_some(())
        })
        .await;
        let honest = runtime.pull("app:1", PullPolicy::IfNotPresent, nobody());
        timeout(Duration::from_secs(50), honest)
            .await
            .expect("an honest registry's image beside it")
            .unwrap();
        stalled.iter().for_each(|pull| pull.abort());
    });
}

/// A container restarts with the policy `Always` while its registry is busy with large images of other pods.
#[test]
fn an_image_that_is_here_waits_for_no_pull() {
    on_a_machine(|machine| async move {
        let registry = Registry::start().await;
        let mut options = options(&machine, &registry);
        options.parallel_pulls = 1;
        options.progress_window = Duration::from_secs(2 * DEADLINE.as_secs());
        let runtime = Containerd::new(options).unwrap();
        let (bulk, next, here) = (
            tiny(&machine, &registry, "bulk", ours()),
            tiny(&machine, &registry, "next", ours()),
            tiny(&machine, &registry, "here", ours()),
        );
        registry.tag("b:bulk", &bulk.descriptor);
        registry.tag("b:next", &next.descriptor);
        registry.tag("b:here", &here.descriptor);
        pull(&runtime, "lying.test/x/b:here").await.unwrap();
        registry.fault(&bulk.layer, Fault::Stall);
        let start = |tag: &str| {
            let (runtime, image) = (runtime.clone(), format!("lying.test/x/b:{tag}"));
            tokio::spawn(async move { runtime.pull(&image, PullPolicy::Always, nobody()).await })
        };
        let asked = |part: String| {
            let registry = &registry;
            async move {
                eventually("the registry is asked", || async {
                    let seen = registry.seen();
                    let asked = seen.iter().any(|seen| seen.path.contains(&part));
                    asked.then_some(())
                })
                .await;
            }
        };
        let stalled = start("bulk");
        asked(bulk.layer.clone()).await;
        let restart = runtime.pull("lying.test/x/b:here", PullPolicy::Always, nobody());
        timeout(DEADLINE, restart)
            .await
            .expect("an image that is here")
            .unwrap();
        // A pull waits its turn, and comes to it.
        let waiting = start("next");
        asked("manifests/next".to_owned()).await;
        assert!(!stalled.is_finished());
        registry.heal();
        stalled.abort();
        let pulled = timeout(DEADLINE, waiting).await.expect("its turn");
        pulled.unwrap().unwrap();
    });
}

#[test]
fn a_registry_that_trickles_gives_its_permits_back() {
    on_a_machine(|machine| async move {
        let registry = Registry::start().await;
        let mut options = options(&machine, &registry);
        (options.parallel_fetches, options.parallel_pulls) = (1, 2);
        options.progress_window = Duration::from_secs(5);
        let runtime = Containerd::new(options).unwrap();
        let (slow, quick) = (
            tiny(&machine, &registry, "slow", ours()),
            tiny(&machine, &registry, "quick", ours()),
        );
        registry.tag("t:slow", &slow.descriptor);
        registry.tag("t:quick", &quick.descriptor);
        registry.fault(&slow.layer, Fault::Trickle(Duration::from_secs(1)));
        let other = runtime.clone();
        let slow = tokio::spawn(async move { pull(&other, "lying.test/x/t:slow").await });
        eventually("the layer trickles", || async {
            let seen = registry.seen();
            let blobs = seen.iter().filter(|seen| seen.path.contains("/blobs/"));
            (blobs.count() == 2).then_some(())
        })
        .await;
        pull(&runtime, "lying.test/x/t:quick").await.unwrap();
        let error = slow.await.unwrap().unwrap_err();
        assert_eq!((error.reason, error.retryable), ("ErrImagePull", true));
        assert!(error.message.contains("too slow"), "{error}");
    });
}

#[test]
fn documents_without_an_end_are_cut_off() {
    on_a_machine(|machine| async move {
        let registry = Registry::start().await;
        let runtime = runtime(&machine, &registry);
        let tiny = tiny(&machine, &registry, "doc", ours());
        registry.tag("doc:1", &tiny.descriptor);
        for part in ["/manifests/", &tiny.config] {
            registry.fault(part, Fault::Oversized(256 << 20));
            let before = registry.sent();
            let error = pull(&runtime, "lying.test/x/doc:1").await.unwrap_err();
            assert!(error.message.contains("more than"), "{error}");
            let sent = registry.sent() - before;
            // What the kernel buffers for the agent counts: some 32 MiB where connections may have so much.
            assert!(sent < 64 << 20, "{sent} bytes were taken");
            registry.heal();
        }
        pull(&runtime, "lying.test/x/doc:1").await.unwrap();
    });
}

#[test]
fn layers_have_the_size_that_was_said_and_fit_the_disk() {
    on_a_machine(|machine| async move {
        let registry = Registry::start().await;
        let runtime = runtime(&machine, &registry);
        let tiny = tiny(&machine, &registry, "size", ours());
        registry.tag("size:1", &tiny.descriptor);
        for fault in [
            Fault::Oversized(64 << 20),
            Fault::Truncate(10),
            Fault::Corrupt,
        ] {
            registry.fault(&tiny.layer, fault.clone());
            let before = registry.sent();
            let error = pull(&runtime, "lying.test/x/size:1").await.unwrap_err();
            assert_eq!((error.reason, error.retryable), ("ErrImagePull", true));
            let sent = registry.sent() - before;
            assert!(sent < 16 << 20, "{fault:?}: {sent} bytes were taken");
            assert_eq!(machine.ctr(&["leases", "ls", "-q"]), "", "{fault:?}");
            registry.heal();
        }
        let mut vast = tiny.manifest.clone();
        vast["layers"][0]["size"] = json!(1_u64 << 60);
        registry.tag("size:2", &registry.document(&vast));
        let before = registry.sent();
        let error = pull(&runtime, "lying.test/x/size:2").await.unwrap_err();
        assert!(error.message.contains("free"), "{error}");
        assert!(registry.sent() - before < 64 * 1024);
        let mut many = tiny.manifest.clone();
        many["layers"] = json!(vec![many["layers"][0].clone(); 2000]);
        registry.tag("size:3", &registry.document(&many));
        let error = pull(&runtime, "lying.test/x/size:3").await.unwrap_err();
        assert!(error.message.contains("layers"), "{error}");
        pull(&runtime, "lying.test/x/size:1").await.unwrap();
    });
}

#[test]
fn a_pull_that_nobody_wants_any_more_ends() {
    on_a_machine(|machine| async move {
        let registry = Registry::start().await;
        let runtime = runtime(&machine, &registry);
        let tiny = tiny(&machine, &registry, "left", ours());
        registry.tag("left:1", &tiny.descriptor);
        registry.fault(&tiny.layer, Fault::Stall);
        let start = || {
            let runtime = runtime.clone();
            tokio::spawn(async move {
                runtime
                    .pull("lying.test/x/left:1", PullPolicy::IfNotPresent, nobody())
                    .await
            })
        };
        let (one, two) = (start(), start());
        let stalls = || {
            let seen = registry.seen();
            seen.iter().filter(|s| s.path.contains(&tiny.layer)).count()
        };
        eventually("the layer stalls", || async {
            (stalls() == 1).then_some(())
        })
        .await;
        one.abort();
        assert!(one.await.unwrap_err().is_cancelled());
        // The other one keeps it.
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(!two.is_finished());
        assert_ne!(machine.ctr(&["leases", "ls", "-q"]), "");
        two.abort();
        let begun = Instant::now();
        eventually("the pull is over", || async {
            let leases = machine.ctr(&["leases", "ls", "-q"]);
            let ingests = machine.ctr(&["content", "active"]);
            (leases.is_empty() && ingests.lines().count() <= 1).then_some(())
        })
        .await;
        assert!(begun.elapsed() < Duration::from_secs(50));
        // Whoever wants it next begins anew.
        registry.heal();
        pull(&runtime, "lying.test/x/left:1").await.unwrap();
    });
}

#[test]
fn a_password_goes_to_its_own_host_only() {
    on_a_machine(|machine| async move {
        let (mirror, itself, elsewhere) = (
            Registry::start().await,
            Registry::start().await,
            Registry::start().await,
        );
        // Of "me" and "secret".
        let (basic, challenge) = ("Basic bWU6c2VjcmV0", "Basic realm=\"r\"");
        for registry in [&mirror, &itself, &elsewhere] {
            let tiny = tiny(&machine, registry, "secret", ours());
            registry.tag("secret:1", &tiny.descriptor);
        }
        itself.guard(basic, challenge);
        mirror.guard("nobody knows", challenge);
        itself.fault("/blobs/", Fault::Redirect(elsewhere.url()));
        let host = itself.address.to_string();
        let mut options = machine.options();
        options.registries = vec![Settings {
            credentials: Some(("me".into(), "secret".into())),
            ..mirrored(&host, &mirror)
        }];
        let runtime = Containerd::new(options).unwrap();
        pull(&runtime, &format!("{host}/x/secret:1")).await.unwrap();
        let told = |registry: &Registry| {
            let seen = registry.seen();
            assert!(!seen.is_empty());
            seen.iter().filter(|s| s.authorization.is_some()).count()
        };
        assert!(told(&itself) > 0);
        assert_eq!(told(&mirror), 0, "the mirror was told the password");
        assert_eq!(told(&elsewhere), 0, "another host was told the password");
    });
}

#[test]
fn the_entry_for_this_machine_wherever_it_is() {
    on_a_machine(|machine| async move {
        let registry = Registry::start().await;
        let runtime = runtime(&machine, &registry);
        let image = |marker: &str, platform: Value| {
            let tiny = tiny(&machine, &registry, marker, platform);
            (tiny.descriptor, tiny.config)
        };
        let index = |entries: &[&Value]| {
            registry.document(&json!({
                "schemaVersion": 2, "mediaType": INDEX, "manifests": entries,
            }))
        };
        let with = |descriptor: &Value, platform: Value| {
            let mut descriptor = descriptor.clone();
            descriptor["platform"] = platform;
            descriptor
        };
        let (plain, _) = image("plain", ours());
        let (foreign, _) = image("foreign", json!({"os": "linux", "architecture": "s390x"}));
        let (fourth, fourth_config) = image("fourth", ours());
        let (attested, _) = image("attested", json!({}));
        let attestation = with(
            &attested,
            json!({"os": "unknown", "architecture": "unknown"}),
        );
        let nowhere = json!({"mediaType": MANIFEST, "size": 100, "platform": ours(),
            "digest": format!("sha256:{}", "0".repeat(64))});
        // A variant that no processor has, first and absent.
        let mut unknown = nowhere.clone();
        unknown["platform"]["variant"] = json!("v77");
        let foreign_named = with(&foreign, json!({"os": "linux", "architecture": "s390x"}));

        registry.tag("i:without", &index(&[&attestation, &foreign, &plain]));
        let nested = index(&[&foreign_named, &with(&plain, ours())]);
        let deeper = index(&[&nested]);
        registry.tag("i:nested", &index(&[&attestation, &deeper]));
        registry.tag("i:variant", &index(&[&unknown, &with(&plain, ours())]));
        for tag in ["without", "nested", "variant"] {
            let name = format!("lying.test/x/i:{tag}");
            let image = pull(&runtime, &name).await;
            let image = image.unwrap_or_else(|error| panic!("{tag}: {error}"));
            // A new control process reads it back, without the registry.
            let offline = machine.runtime();
            let again = offline
                .pull(&name, PullPolicy::Never, nobody())
                .await
                .unwrap();
            assert_eq!(again.id, image.id, "{tag}");
        }
        assert_eq!(machine.ctr(&["leases", "ls", "-q"]), "");
        machine.ctr(&["content", "prune", "references"]);
        let offline = machine.runtime();
        let kept = offline.pull("lying.test/x/i:nested", PullPolicy::Never, nobody());
        kept.await.unwrap();

        // What names its platform comes before what does not, and what does not run here is not taken.
        registry.tag("i:both", &index(&[&fourth, &with(&plain, ours())]));
        pull(&runtime, "lying.test/x/i:both").await.unwrap();
        let seen = registry.seen();
        assert!(!seen.iter().any(|seen| seen.path.contains(&fourth_config)));
        registry.tag("i:none", &index(&[&foreign_named]));
        let error = pull(&runtime, "lying.test/x/i:none").await.unwrap_err();
        assert!(error.message.contains("s390x"), "{error}");
        // Whoever names one image without an index means it, whatever its configuration says; and a variant of our
        // own architecture that the agent does not know may run.
        let mut odd = ours();
        odd["variant"] = json!("v77");
        registry.tag("i:foreign", &foreign);
        registry.tag("i:odd", &index(&[&foreign_named, &with(&plain, odd)]));
        for tag in ["foreign", "odd"] {
            let name = format!("lying.test/x/i:{tag}");
            let image = pull(&runtime, &name).await;
            let image = image.unwrap_or_else(|error| panic!("{tag}: {error}"));
            let offline = machine.runtime();
            let again = offline
                .pull(&name, PullPolicy::Never, nobody())
                .await
                .unwrap();
            assert_eq!(again.id, image.id, "{tag}");
        }
        // An index of indexes of indexes leads nowhere, in bounded time.
        let mut deep = index(&[&plain]);
        for _ in 0..20 {
            deep = index(&[&deep, &deep, &deep]);
        }
        registry.tag("i:deep", &deep);
        let before = registry.seen().len();
        pull(&runtime, "lying.test/x/i:deep").await.unwrap_err();
        assert!(registry.seen().len() - before < 40);
    });
}
