//! Others who change the rules, while the agent's loop runs.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, thread::sleep, time::Instant};

use super::*;
use crate::testing::netns::Running;

/// Ten times the second within which the rules are there again, and twice that for the back-off.
const DEADLINE: Duration = Duration::from_secs(20);

impl Net {
    /// Runs the agent's loop with one Service. It watches when this returns.
    fn keep(&self, program: &Path) -> Running {
        let services = [web()];
        let endpoints = [endpoints("web", "p80", &[("10.244.1.2", 8080)])];
        // For the routes.
        self.assign(&services, &endpoints);
        self.nft("delete table inet barge");
        let desired = Self::desired(&services, &endpoints);
        let recorder = Recorder::new(self.outbox.clone(), Arc::new(SystemClock));
        let rules = ServiceRules::new(Nft::new(program.into()), recorder, true);
        let running = self.node.spawn(|stop| async move {
            let (_sender, receiver) = watch::channel(Arc::new(desired));
            rules.run(receiver, stop).await;
        });
        self.until("the loop writes the table", || {
            self.tables().contains("inet barge")
        });
        running
    }

    fn until(&self, what: &str, mut is_so: impl FnMut() -> bool) {
        let start = Instant::now();
        while !is_so() {
            assert!(start.elapsed() < DEADLINE, "{what}");
            sleep(Duration::from_millis(20));
        }
    }

    fn answers(&self) -> bool {
        self.outside.ask("192.0.2.1:80").is_ok()
    }

    fn nft(&self, command: &str) {
        self.node.sh("nft", command);
    }

    fn tables(&self) -> String {
        self.node.sh("nft", "list tables")
    }
}

#[test]
fn a_flushed_ruleset_is_back_and_an_event_says_so() {
    let net = Net::new();
    let _running = net.keep("nft".as_ref());
    assert!(net.answers());
    net.nft("flush ruleset");
    net.until("the Service answers again", || net.answers());
    net.until("an event", || {
        let events = net.outbox.take().unwrap_or_default().events;
        let told = "nft changed the nftables table inet barge";
        let is_it = |e: &barge_proto::v1::EventReport| {
            e.reason == "ServiceRulesRestored" && e.message.contains(told)
        };
        events.iter().any(is_it)
    });
    // A part of it is missed, too.
    net.nft("flush map inet barge node_ports");
    net.nft("flush map inet barge cluster_ports");
    net.until("the Service answers again", || net.answers());
}

#[test]
fn what_others_do_in_their_tables_is_left_alone() {
    let node = Space::new();
    node.block_on(async {
        let nft = Nft::default();
        let mut notices = Notices::open().unwrap();
        assert_eq!(notices.found().unwrap(), Some(Found::Unknown));
        let before = notices.writing().unwrap();
        nft.apply("table inet barge {\nchain a {\n}\n}")
            .await
            .unwrap();
        assert_eq!(notices.wrote(before).unwrap(), None);
        nft.apply("add table inet other").await.unwrap();
        nft.apply("add table ip barge").await.unwrap();
        notices.wait().await;
        assert_eq!(notices.found().unwrap(), None);
        let before = notices.writing().unwrap();
        nft.apply("add chain inet barge b").await.unwrap();
        nft.apply("add table inet third").await.unwrap();
        assert_eq!(notices.wrote(before).unwrap(), None);
        nft.apply("delete chain inet barge b").await.unwrap();
        let by_nft = Some(Found::Changed("nft".to_owned()));
        assert_eq!(notices.found().unwrap(), by_nft);
        let before = notices.writing().unwrap();
        nft.apply("add chain inet barge b").await.unwrap();
        nft.apply("flush ruleset").await.unwrap();
        assert_eq!(notices.wrote(before).unwrap(), by_nft);
    });
}

#[test]
fn more_notices_than_the_kernel_keeps_are_known_to_be_missing() {
    let node = Space::new();
    node.block_on(async {
        let nft = Nft::default();
        let mut notices = Notices::open().unwrap();
        let before = notices.writing().unwrap();
        let elements: Vec<_> = (0..60_000)
            .map(|n| format!("10.{}.{}.{}", n >> 16, (n >> 8) & 255, n & 255))
            .collect();
        let elements = elements.join(", ");
        let fill = |table: &str| {
            format!("table inet {table} {{\nset s {{\ntype ipv4_addr; elements = {{ {elements} }}\n}}\n}}")
        };
        nft.apply(&fill("barge")).await.expect("fill");
        assert_eq!(notices.wrote(before).unwrap(), None, "nobody else was there");
        nft.apply(&fill("other")).await.unwrap();
        assert_eq!(notices.found().unwrap(), Some(Found::Unknown));
    });
}

#[test]
fn a_fight_costs_little_and_its_end_is_noticed() {
    let net = Net::new();
    let folder = tempfile::tempdir().unwrap();
    let (program, runs) = (folder.path().join("nft"), folder.path().join("runs"));
    let script = format!(
        "#!/bin/sh\necho run >> {}\nexec nft \"$@\"\n",
        runs.display()
    );
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let _running = net.keep(&program);
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(5) {
        net.nft("flush ruleset");
        sleep(Duration::from_millis(100));
    }
    let count = fs::read_to_string(&runs).unwrap().lines().count();
    // The first one, and after 1, 3 and perhaps 7 seconds; a run that finds no table counts, too.
    assert!((2..=5).contains(&count), "nft ran {count} times");
    net.until("the Service answers again", || net.answers());
}
