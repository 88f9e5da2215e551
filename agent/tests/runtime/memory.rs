//! What a lying registry costs in memory. Measured in a process of its own, because the tests share theirs.

use std::process::Stdio;

use barge_agent::runtime::{
    Options, PullPolicy, Registry as Settings, Runtime, containerd::Containerd,
};
use futures::future::join_all;
use serde_json::{Value, json};

use super::{
    lying::{ours, tiny},
    machine::{DEADLINE, Machine, nobody, on_a_machine},
    registry::{Fault, Registry},
};

/// What people were promised, in KiB.
const MOST: u64 = 16 * 1024;
/// What the pull of each kind fails with.
const WHY: [(&str, &str); 4] = [
    ("endless", "more than 4194304 bytes"),
    ("large", "1 layers and 0 digests"),
    ("many", "at most 4096"),
    ("stalled", "too slow"),
];
/// Images of each kind, pulled all at the same time.
const IMAGES: usize = 12;

/// Not a test: pulls what it is told to, and says by how much its memory grew.
#[test]
#[ignore = "run by the other tests as a process of its own"]
fn pulling_process() {
    let told = std::env::var("BARGE_TEST_PULLS").expect("what to pull");
    let told: Value = serde_json::from_str(&told).unwrap();
    let text = |name: &str| told[name].as_str().unwrap().to_owned();
    let runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = { runtime }.worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let options = Options {
            socket: text("socket").into(),
            namespace: text("namespace"),
            progress_window: std::time::Duration::from_secs(10),
            registries: vec![Settings {
                host: "lying.test".into(),
                mirrors: vec![text("mirror")],
                plain_http: true,
                ..Settings::default()
            }],
            ..Options::new(text("data")).unwrap()
        };
        let runtime = Containerd::new(options).unwrap();
        let pull = |tag: String| {
            let runtime = runtime.clone();
            async move {
                let image = format!("lying.test/x/{tag}");
                runtime.pull(&image, PullPolicy::Always, nobody()).await
            }
        };
        pull("m:honest".to_owned()).await.unwrap();
        let before = most_memory();
        let tags = told["tags"].as_array().unwrap().iter();
        let tags = tags.map(|tag| tag.as_str().unwrap().to_owned());
        let tags: Vec<String> = tags.collect();
        let ended = join_all(tags.iter().cloned().map(pull)).await;
        for (tag, ended) in tags.iter().zip(ended) {
            // Each has come as far as it should have, or nothing was measured.
            let why = ended.expect_err(tag).message;
            let told = WHY.iter().find(|(kind, _)| tag.contains(kind));
            let (_, wanted) = told.unwrap();
            assert!(why.contains(wanted), "{tag}: {why}");
        }
        println!("grew by {} KiB", most_memory() - before);
    });
}

/// The most this process had in memory so far, in KiB.
fn most_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_lying_registry_costs_little_memory() {
    on_a_machine(|machine| async move {
        let registry = Registry::start().await;
        let tags = lies(&machine, &registry);
        let told = json!({
            "socket": machine.path("c.sock"), "namespace": machine.name(), "mirror": registry.url(),
            "data": machine.path("puller"), "tags": tags,
        });
        let mut child = tokio::process::Command::new(std::env::current_exe().unwrap());
        child
            .args([
                "memory::pulling_process",
                "--exact",
                "--ignored",
                "--nocapture",
            ])
            .env("BARGE_TEST_PULLS", told.to_string())
            // As the agent's unit has it: glibc would keep what was freed.
            .env("MALLOC_MMAP_THRESHOLD_", "1048576")
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let output = tokio::time::timeout(10 * DEADLINE, child.output());
        let output = output.await.expect("an end").unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        let grown = said.lines().find_map(|line| {
            let (_, rest) = line.split_once("grew by ")?;
            rest.split(' ').next()?.parse::<u64>().ok()
        });
        let grown = grown.unwrap_or_else(|| panic!("no answer: {said}{errors}"));
        eprintln!("{IMAGES} images of each kind cost {grown} KiB");
        assert!(grown < MOST, "{grown} KiB");
    });
}

/// Images whose manifests have no end, whose manifests and configurations are as large as they may be, whose configurations
/// have a million variables, and whose layers stall. Answers their tags.
fn lies(machine: &Machine, registry: &Registry) -> Vec<String> {
    let honest = tiny(machine, registry, "honest", ours());
    registry.tag("m:honest", &honest.descriptor);
    let padding = "x".repeat(3_900_000);
    let variables = vec![""; 1_300_000];
    let mut tags = Vec::new();
    for number in 0..IMAGES {
        let (endless, large, many, stalled) = (
            format!("m:endless{number}"),
            format!("m:large{number}"),
            format!("m:many{number}"),
            format!("m:stalled{number}"),
        );
        registry.tag(&endless, &honest.descriptor);
        registry.fault(
            &format!("manifests/endless{number}"),
            Fault::Oversized(64 << 20),
        );

        let config = json!({"os": "linux", "config": {"Env": [padding]}, "n": number,
            "rootfs": {"type": "layers", "diff_ids": []}});
        let config = serde_json::to_vec(&config).unwrap();
        let mut manifest = honest.manifest.clone();
        manifest["config"]["size"] = json!(config.len());
        manifest["config"]["digest"] = json!(registry.blob(config));
        manifest["annotations"] = json!({"padding": padding});
        registry.tag(&large, &registry.document(&manifest));

        let config = json!({"os": "linux", "config": {"Env": variables}, "n": number,
            "rootfs": {"type": "layers", "diff_ids": []}});
        let config = serde_json::to_vec(&config).unwrap();
        let mut manifest = honest.manifest.clone();
        manifest["config"]["size"] = json!(config.len());
        manifest["config"]["digest"] = json!(registry.blob(config));
        registry.tag(&many, &registry.document(&manifest));

        let layer = vec![u8::try_from(number).unwrap(); 8 << 20];
        let mut manifest = honest.manifest.clone();
        manifest["layers"][0]["size"] = json!(layer.len());
        let layer = registry.blob(layer);
        manifest["layers"][0]["digest"] = json!(layer);
        registry.fault(&layer, Fault::Stall);
        registry.tag(&stalled, &registry.document(&manifest));
        tags.extend([endless, large, many, stalled]);
    }
    tags
}
