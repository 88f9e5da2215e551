use super::*;

const NAMED: &str = "
apiVersion: v1
kind: Pod
metadata: {name: web}
spec:
  hostname: web
  subdomain: shop
  hostAliases:
  - {ip: 10.0.0.1, hostnames: [db, db.example.com]}
  - {ip: 'fd00::1', hostnames: [six]}
  dnsPolicy: None
  dnsConfig:
    nameservers: [10.0.0.2]
    searches: [example.com., .]
    options: [{name: ndots, value: '2'}, {name: edns0}]
  containers: [{name: web, image: nginx:1}]
";

#[test]
fn names_of_a_pod_have_rules() {
    check(
        NAMED,
        &[
            (
                "hostname: web",
                "hostname: Web",
                "spec.hostname: \"Web\" must be",
            ),
            (
                "subdomain: shop",
                "subdomain: a.b",
                "spec.subdomain: \"a.b\" must be",
            ),
            (
                "ip: 10.0.0.1",
                "ip: ten",
                "spec.hostAliases[0].ip: \"ten\" must be an IP address",
            ),
            (
                "ip: 'fd00::1'",
                "ip: 10.0.0.1",
                "spec.hostAliases[1].ip: \"10.0.0.1\" has an entry already",
            ),
            (
                "[six]",
                "[Six]",
                "spec.hostAliases[1].hostnames[0]: \"Six\" must be",
            ),
            (
                "dnsPolicy: None",
                "dnsPolicy: Some",
                "spec.dnsPolicy: \"Some\" must be",
            ),
            (
                "[10.0.0.2]",
                "[]",
                "spec.dnsConfig.nameservers: needs at least one",
            ),
            (
                "[10.0.0.2]",
                "[dns]",
                "spec.dnsConfig.nameservers[0]: \"dns\" must be an IP address",
            ),
            (
                "[10.0.0.2]",
                "[1.1.1.1, 1.1.1.2, 1.1.1.3, 1.1.1.4]",
                "spec.dnsConfig.nameservers: 4 are more",
            ),
            (
                "{name: edns0}",
                "{name: 'a b'}",
                "spec.dnsConfig.options[1].name: \"a b\" and its value",
            ),
            (
                "{name: edns0}",
                "{value: a}",
                "spec.dnsConfig.options[1].name: is required",
            ),
        ],
    );
}

#[test]
fn the_usual_policy_is_no_policy() {
    let usual = NAMED.replace("dnsPolicy: None", "dnsPolicy: ClusterFirst");
    let absent = NAMED.replace("  dnsPolicy: None\n", "");
    assert_eq!(read(&usual), read(&absent));
    let linked = absent.replace("spec:\n", "spec:\n  enableServiceLinks: true\n");
    assert!(linked.contains("enableServiceLinks"));
    assert_eq!(read(&linked), read(&absent));
}

#[test]
fn pull_secrets_are_names_and_each_is_there_once() {
    check(
        "
apiVersion: v1
kind: Pod
metadata: {name: web}
spec:
  imagePullSecrets: [{name: one}, {name: two}]
  containers: [{name: web, image: nginx:1}]
",
        &[
            (
                "name: two",
                "name: Two",
                "spec.imagePullSecrets[1].name: \"Two\" must be",
            ),
            (
                "{name: two}",
                "{}",
                "spec.imagePullSecrets[1].name: is required",
            ),
            (
                "name: two",
                "name: one",
                "spec.imagePullSecrets[1].name: \"one\" is in the list already",
            ),
        ],
    );
}
