//! Others who change the rules, while the agent's loop runs.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    thread::sleep,
    time::Instant,
};

use barge_proto::v1::EventReport;

use super::*;
use crate::testing::netns::Running;

/// Ten times the second within which the rules are there again, and twice that for the back-off.
const DEADLINE: Duration = Duration::from_secs(20);

fn served_by(pod: &str) -> Endpoints {
    endpoints("web", "p80", &[(pod, 8080)])
}

/// One at which the table is written at once, and then not for a minute.
fn slow() -> Pace {
    let mut pace = Pace::default();
    let a_minute_ago = Instant::now() - Duration::from_secs(60);
    (0..7).for_each(|_| pace.write(a_minute_ago.into()));
    pace
}

/// An `nft` that does this first, in the language of the shell.
fn nft_after(folder: &Path, first: &str) -> PathBuf {
    let program = folder.join("nft");
    let script = format!("#!/bin/sh\n{first}\nexec nft \"$@\"\n");
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    program
}

impl Net {
    /// Runs the agent's loop with one Service. It watches when this returns.
    fn keep(&self, program: &Path) -> Running {
        self.keep_at(Pace::default(), program).0
    }

    /// The same at this pace, and where to say what is assigned.
    fn keep_at(&self, pace: Pace, program: &Path) -> (Running, watch::Sender<Arc<Desired>>) {
        let services = [web()];
        let endpoints = [served_by("10.244.1.2")];
        // For the routes.
        self.assign(&services, &endpoints);
        self.nft("delete table inet barge");
        let desired = Self::desired(&services, &endpoints);
        let recorder = Recorder::new(self.outbox.clone(), Arc::new(SystemClock));
        let network = Network {
            nft: Nft::new(program.into()),
            ..Network::default()
        };
        let pods = self.published.subscribe();
        let mut rules = ServiceRules::new(network, recorder, pods);
        rules.pace = pace;
        let (sender, receiver) = watch::channel(Arc::new(desired));
        let held = sender.clone();
        let running = self.node.spawn(|stop| async move {
            rules.run(receiver, stop).await;
            drop(held);
        });
        self.until("the loop writes the table", || {
            self.tables().contains("inet barge")
        });
        (running, sender)
    }

    fn until_event(&self, what: &str, is_it: impl Fn(&EventReport) -> bool) {
        self.until(what, || {
            let events = self.outbox.take().unwrap_or_default().events;
            events.iter().any(&is_it)
        });
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
    net.until_event("an event", |event| {
        let told = "nft changed the nftables table inet barge";
        event.reason == "ServiceRulesRestored" && event.message.contains(told)
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
        let mut few = Notices::open_for(64 << 10).unwrap();
        let before = notices.writing().unwrap();
        assert_eq!(few.writing().unwrap(), before);
        let elements: Vec<_> = (0..60_000)
            .map(|n| format!("10.{}.{}.{}", n >> 16, (n >> 8) & 255, n & 255))
            .collect();
        let elements = elements.join(", ");
        let fill = |table: &str| {
            format!("table inet {table} {{\nset s {{\ntype ipv4_addr; elements = {{ {elements} }}\n}}\n}}")
        };
        nft.apply(&fill("barge")).await.expect("fill");
        let nobody_else = None;
        assert_eq!(notices.wrote(before).unwrap(), nobody_else);
        assert_eq!(few.wrote(before).unwrap(), nobody_else);
        nft.apply(&fill("other")).await.unwrap();
        assert_eq!(few.found().unwrap(), Some(Found::Unknown));
        assert_eq!(notices.found().unwrap(), None, "a large one fits");
    });
}

#[test]
fn a_fight_costs_little_and_its_end_is_noticed() {
    let net = Net::new();
    let folder = tempfile::tempdir().unwrap();
    let runs = folder.path().join("runs");
    let program = nft_after(folder.path(), &format!("echo run >> {}", runs.display()));
    let start = Instant::now();
    let _running = net.keep(&program);
    let fight = Instant::now();
    while fight.elapsed() < Duration::from_secs(5) {
        net.nft("flush ruleset");
        sleep(Duration::from_millis(100));
    }
    let count = fs::read_to_string(&runs).unwrap().lines().count();
    // At once, and after 1, 3, 7 seconds and so on; a run that finds no table counts, too.
    let most = (start.elapsed().as_secs() + 1).ilog2() as usize + 2;
    assert!((2..=most).contains(&count), "nft ran {count} times");
    net.until("the Service answers again", || net.answers());
}

#[test]
fn a_changed_assignment_does_not_wait_for_the_end_of_a_fight() {
    let net = Net::new();
    let (_running, assigned) = net.keep_at(slow(), "nft".as_ref());
    assert_eq!(net.outside.ask("192.0.2.1:80").unwrap().0, "pod0");
    net.nft("flush map inet barge node_ports");
    net.until("the Service does not answer", || !net.answers());
    // The pod has ended, and another one serves.
    let desired = Net::desired(&[web()], &[served_by("10.244.1.3")]);
    assigned.send_replace(Arc::new(desired));
    net.until("the other pod answers", || {
        let answer = net.outside.ask("192.0.2.1:80");
        answer.is_ok_and(|(name, _)| name == "pod1")
    });
}

#[test]
fn rules_that_cannot_be_written_again_are_told_of() {
    let net = Net::new();
    let folder = tempfile::tempdir().unwrap();
    let broken = folder.path().join("broken");
    let first = format!("test -e {} && echo no room >&2 && exit 1", broken.display());
    let program = nft_after(folder.path(), &first);
    let _running = net.keep(&program);
    fs::write(&broken, "").unwrap();
    net.nft("flush ruleset");
    net.until_event("an event says that they are missing", |event| {
        event.reason == "FailedServiceRules" && event.message.contains("no room")
    });
    fs::remove_file(&broken).unwrap();
    net.until("the Service answers again", || net.answers());
}

#[test]
fn notices_that_fail_again_and_again_are_logged_once() {
    let node = Space::new();
    node.block_on(async {
        let recorder = Recorder::new(Arc::default(), Arc::new(SystemClock));
        let (_published, pods) = watch::channel(Some(Arc::default()));
        let mut rules = ServiceRules::new(Network::default(), recorder, pods);
        let failed = || Err::<(), _>(io::Error::other("it fails"));
        assert!(rules.hear(failed()).is_none() && rules.blind);
        rules.look(Instant::now().into());
        assert!(rules.notices.is_some() && rules.blind, "opened, no more");
        assert!(rules.hear(failed()).is_none() && rules.blind);
        rules.look(Instant::now().into());
        rules.look(Instant::now().into());
        assert!(!rules.blind, "they were read");
    });
}

/// Pods that left the endpoints end when all nodes have told so.
#[test]
fn a_node_tells_a_revision_when_the_kernel_has_its_rules() {
    let net = Net::new();
    let folder = tempfile::tempdir().unwrap();
    let broken = folder.path().join("broken");
    let nft = nft_after(
        folder.path(),
        &format!("[ ! -e {} ] || exit 1", broken.display()),
    );
    let recorder = Recorder::new(net.outbox.clone(), Arc::new(SystemClock));
    let network = Network {
        nft: Nft::new(nft),
        ..Network::default()
    };
    let programmed = network.programmed.clone();
    let rules = ServiceRules::new(network, recorder, net.published.subscribe());
    let at = |network_revision, endpoints: &[Endpoints]| {
        let mut desired = Net::desired(&[web()], endpoints);
        desired.network_revision = network_revision;
        Arc::new(desired)
    };
    let unknown = Desired {
        network_revision: 3,
        ..Desired::default()
    };
    let (desired, receiver) = watch::channel(Arc::new(unknown));
    let _running = net.node.spawn(|stop| rules.run(receiver, stop));
    desired.send_replace(at(5, &[served_by("10.244.1.2")]));
    net.until("the first rules are told", || programmed.here() == 5);
    assert!(net.tables().contains("inet barge"), "and are there");
    // The same rules, of a later revision.
    desired.send_replace(at(6, &[served_by("10.244.1.2")]));
    net.until("it is told", || programmed.here() == 6);
    fs::write(&broken, "").unwrap();
    desired.send_replace(at(7, &[served_by("10.244.1.3")]));
    net.until_event("an event", |event| event.reason == "FailedServiceRules");
    assert_eq!(programmed.here(), 6, "the kernel has the older ones");
    fs::remove_file(&broken).unwrap();
    net.until("it is told", || programmed.here() == 7);
    assert_eq!(net.outside.ask("192.0.2.1:80").unwrap().0, "pod1");
}
