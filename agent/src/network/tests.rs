#![allow(clippy::unwrap_used)]

use std::net::TcpStream;

use super::*;
use crate::{services::sysctl, testing::netns::Space};

const NEEDS: Needs = Needs {
    range: match Ipv4Net::new(Ipv4Addr::new(10, 244, 1, 0), 24) {
        Ok(range) => range,
        Err(_) => panic!("a range"),
    },
    vxlan: Some(7102),
};

fn look(space: &Space) -> String {
    space.block_on(async { firewalls::look(&Nft::default(), NEEDS).await.unwrap() })
}

/// Does what the sentence says, in a shell.
fn follow(space: &Space, said: &str) {
    for part in said.split("at each boot: ").skip(1) {
        let commands = part.split(". ").next().unwrap();
        let mut shell = std::process::Command::new("sh");
        shell.args(["-ec", commands]);
        let output = space.run(move || shell.output().unwrap());
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{commands}: {error}");
    }
}

#[test]
fn a_firewall_that_drops_pods_is_named_and_what_it_says_to_do_helps() {
    let docker = "table ip filter { chain DOCKER-USER { }; \
                  chain FORWARD { type filter hook forward priority 0; policy drop; jump DOCKER-USER; }; }";
    let other = "table inet fw { chain f { type filter hook forward priority 0; policy drop; }; \
                 chain i { type filter hook input priority 0; policy drop; ct state established accept; }; }";
    for (rules, says) in [(docker, "DOCKER-USER"), (other, "inet fw f")] {
        let (node, pods) = (Space::new(), [Space::new(), Space::new()]);
        node.run(|| sysctl::prepare("/proc/sys".as_ref()).unwrap());
        node.wire(&pods[0], "10.244.1.2");
        node.wire(&pods[1], "10.244.1.3");
        pods[1].serve(8080, "pod");
        node.serve(53, "names");
        assert_eq!(look(&node), "");
        node.nft(rules);
        let reaches = |to: &'static str| {
            pods[0].run(move || {
                let to = to.parse().unwrap();
                TcpStream::connect_timeout(&to, Duration::from_millis(700)).is_ok()
            })
        };
        assert!(!reaches("10.244.1.3:8080"));
        let said = look(&node);
        assert!(said.contains(says) && said.contains("bp-"), "{said}");
        node.ip("address add 10.96.0.10/32 dev lo");
        assert_eq!(reaches("10.96.0.10:53"), !rules.contains("input"));
        assert_eq!(said.contains("7102"), rules.contains("input"), "{said}");
        follow(&node, &said);
        assert!(reaches("10.244.1.3:8080") && reaches("10.96.0.10:53"));
        assert_eq!(look(&node), "");
    }
}

#[test]
fn whose_rules_they_are_is_told() {
    for (rules, says, helps) in [
        (
            "table ip filter { chain ufw-user-forward { }; chain FORWARD { type filter hook forward priority 0; policy drop; jump ufw-user-forward; }; \
             chain INPUT { type filter hook input priority 0; policy drop; }; }",
            ["ufw route allow from POD_CIDR", "ufw allow 7102/udp"],
            "add rule ip filter ufw-user-forward ip saddr 10.244.0.0/16 udp dport 7102 accept",
        ),
        (
            "table inet firewalld { chain filter_FORWARD { type filter hook forward priority 10; reject; }; \
             chain filter_INPUT { type filter hook input priority 10; reject; }; }",
            [
                "--zone=trusted --add-source=POD_CIDR",
                "--add-port=7102/udp",
            ],
            "insert rule inet firewalld filter_INPUT ip saddr 10.244.0.0/16 udp dport 7102 accept",
        ),
    ] {
        let space = Space::new();
        space.nft(rules);
        let said = look(&space);
        assert!(says.iter().all(|part| said.contains(part)), "{said}");
        space.nft(helps);
        assert_eq!(look(&space), "");
    }
    // What accepts, and what looks at other packets, is no matter.
    let space = Space::new();
    space.nft("table ip filter { chain FORWARD { type filter hook forward priority 0; policy accept; }; chain o { type filter hook output priority 0; policy drop; }; }");
    assert_eq!(look(&space), "");
}

#[tokio::test]
async fn a_configuration_of_the_user_s_own_is_told_as_a_condition() {
    let folder = tempfile::tempdir().unwrap();
    let told = || async {
        let (plugins, condition) = own(Some(folder.path().to_owned())).await;
        assert_eq!(condition.status == "True", plugins == Some(false));
        // Only a configuration that plugins can use takes the ways to other nodes from the agent.
        let is_used = condition.reason == "OwnConfiguration";
        assert_eq!(is_used, plugins == Some(true));
        condition
    };
    assert_eq!(told().await.reason, "AgentWiresPods");
    let file = folder.path().join("10-own.conflist");
    std::fs::write(&file, "{").unwrap();
    let broken = told().await;
    assert_eq!(broken.reason, "OwnConfigurationUnusable");
    assert!(
        broken.message.contains("10-own.conflist"),
        "{}",
        broken.message
    );
    let text = r#"{"cniVersion": "1.0.0", "name": "own", "plugins": [{"type": "ptp"}]}"#;
    std::fs::write(&file, text).unwrap();
    let own = told().await;
    assert_eq!(own.reason, "OwnConfiguration");
    assert!(own.message.contains("NetworkPolicies"), "{}", own.message);
}

#[tokio::test]
async fn a_folder_that_cannot_be_read_says_nothing_of_who_wires_pods() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let (plugins, condition) = own(Some(file.path().to_owned())).await;
    assert_eq!(plugins, None, "{condition:?}");
    assert_eq!(condition.status, "False");
}
