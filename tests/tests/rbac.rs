//! Who may do what: people with roles, service accounts, what is not given on, and what a right that ends ends.

// A test that cannot go on says so by panicking.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Output,
    time::Duration,
};

use barge_client::v1::{Kind, WatchResponse, object};
use barge_tests::{Managers, eventually, raw, said};
use tokio::time::timeout;
use tonic::{Code, Status, Streaming};

#[path = "rbac/asked.rs"]
mod asked;

/// A right that ended is noticed by open streams within 5 s.
const SOON: Duration = Duration::from_secs(20);

/// A person or program of these tests, with its credential.
struct As<'a> {
    managers: &'a Managers,
    config: PathBuf,
}

impl As<'_> {
    fn barge(&self, arguments: &[&str]) -> Output {
        self.managers.try_barge_with(&self.config, arguments)
    }

    fn done(&self, arguments: &[&str]) -> String {
        let output = self.barge(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", said(&output));
        said(&output)
    }

    fn refused(&self, arguments: &[&str], why: &str) {
        let output = self.barge(arguments);
        assert_eq!(
            output.status.code(),
            Some(1),
            "{arguments:?}: {}",
            said(&output)
        );
        assert!(
            said(&output).contains(why),
            "{arguments:?}: {}",
            said(&output)
        );
    }

    fn apply(&self, text: &str) -> Output {
        self.barge(&["apply", "-f", text_of(&manifest(self.managers, text))])
    }

    /// The same one, asking only one of the managers.
    fn at(&self, index: usize) -> Self {
        let one: String = fs::read_to_string(&self.config)
            .expect("read a credential")
            .lines()
            .map(|line| match line.trim_start().starts_with("managers") {
                true => format!(
                    "managers = [\"{}\"]\nonly_these_managers = true\n",
                    self.managers.address(index)
                ),
                false => format!("{line}\n"),
            })
            .collect();
        let config = self.config.with_extension(format!("{index}.toml"));
        fs::write(&config, one).expect("write a credential");
        Self {
            managers: self.managers,
            config,
        }
    }
}

fn text_of(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

fn manifest(managers: &Managers, text: &str) -> PathBuf {
    let file = managers.dir().join("manifest.yaml");
    fs::write(&file, text).expect("write a manifest");
    file
}

fn somebody<'a>(managers: &'a Managers, name: &str, flags: &[&str]) -> As<'a> {
    let config = managers.dir().join(format!("{name}.toml"));
    let create = ["credential", "create", name, "--out", text_of(&config)];
    managers.barge(&[&create, flags].concat());
    As { managers, config }
}

fn administrator(managers: &Managers) -> As<'_> {
    As {
        managers,
        config: managers.config(),
    }
}

fn binding(name: &str, subject: &str, role: &str) -> String {
    format!(
        "apiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\nmetadata: {{name: {name}, namespace: shop}}\n\
         subjects: [{subject}]\nroleRef: {{kind: ClusterRole, name: {role}}}\n"
    )
}

const ALICE: &str = "{kind: User, name: alice}";

fn config_map(namespace: &str, name: &str, value: &str) -> String {
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, namespace: {namespace}}}\ndata: {{color: {value}}}\n"
    )
}

const SECRET: &str = "apiVersion: v1\nkind: Secret\nmetadata: {name: db, namespace: shop}\nstringData: {password: hunter2}\n";

/// hunter2
const SECRET_VALUE: &str = "aHVudGVyMg==";

/// Three managers with the namespace shop, and the built-in roles.
fn up() -> Managers {
    let managers = Managers::up(3);
    managers.wait_until_caught_up();
    managers.barge(&[
        "apply",
        "-f",
        text_of(&manifest(
            &managers,
            "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n",
        )),
    ]);
    eventually("the built-in roles are there", || {
        let roles = said(&managers.try_barge(&["get", "clusterroles", "-o", "name"]));
        match ["cluster-admin", "admin", "edit", "view"]
            .iter()
            .all(|name| roles.contains(&format!("clusterrole.rbac.authorization.k8s.io/{name}\n")))
        {
            true => Ok(()),
            false => Err(roles),
        }
    });
    managers
}

fn granted(managers: &Managers, text: &str) {
    let output = administrator(managers).apply(text);
    assert!(output.status.success(), "{}", said(&output));
}

#[test]
fn a_person_does_in_a_namespace_what_its_role_allows() {
    let managers = up();
    let alice = somebody(&managers, "alice", &[]);
    // Nothing was given yet.
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    for (what, code) in runtime.block_on(asked::of_objects(&alice.config, &managers.address(0))) {
        assert_eq!(code, Some(Code::PermissionDenied), "{what}");
    }
    alice.refused(
        &["get", "configmaps", "-n", "shop"],
        "alice may not list configmaps in namespace shop",
    );
    alice.refused(
        &["cluster", "status"],
        "alice may not get cluster.barge.dev",
    );
    alice.refused(
        &["token", "create", "--role", "agent"],
        "alice may not create tokens.barge.dev",
    );
    let who = alice.done(&["auth", "whoami"]);
    assert!(
        who.contains("alice") && who.contains("system:authenticated"),
        "{who}"
    );
    assert!(!who.contains("system:masters"), "{who}");

    granted(&managers, &binding("edit", ALICE, "edit"));
    let done = alice.apply(&config_map("shop", "web", "blue"));
    assert!(done.status.success(), "{}", said(&done));
    for index in 0..3 {
        let shown = alice
            .at(index)
            .done(&["get", "configmap", "web", "-n", "shop", "-o", "yaml"]);
        assert!(shown.contains("color: blue"), "{shown}");
    }
    let both = [
        config_map("default", "a", "red"),
        config_map("shop", "b", "red"),
        SECRET.replace("shop", "default"),
    ];
    let refused = said(&alice.apply(&both.join("---\n")));
    let all = "alice may not create or patch configmaps in namespace default; \
               alice may not create or patch secrets in namespace default";
    assert!(refused.contains(all), "{refused}");
    alice.refused(&["get", "configmap", "b", "-n", "shop"], "not found");
    alice.refused(&["get", "nodes"], "alice may not list nodes");
    alice.refused(
        &["get", "configmaps", "-A"],
        "alice may not list configmaps",
    );
    alice.refused(
        &["delete", "namespace", "shop"],
        "alice may not delete namespaces",
    );

    for (asked, answer) in [
        (&["patch", "deployments/web", "-n", "shop"][..], "yes"),
        (&["patch", "deployments", "-n", "default"], "no"),
        (
            &["get", "pods", "--subresource", "log", "-n", "shop"],
            "yes",
        ),
        (&["list", "secrets", "-A"], "no"),
        (&["create", "credentials"], "no"),
    ] {
        let output = alice.barge(&[&["auth", "can-i"], asked].concat());
        assert_eq!(said(&output).trim(), answer, "{asked:?}");
        assert_eq!(output.status.success(), answer == "yes", "{asked:?}");
    }
    let list = alice.done(&["auth", "can-i", "--list", "-n", "shop"]);
    assert!(list.contains("deployments.apps"), "{list}");

    // The audit log names who was refused.
    eventually("the refusal is written down", || {
        let read = |index| fs::read_to_string(managers.data_dir(index).join("audit.log"));
        let all: String = (0..3).filter_map(|index| read(index).ok()).collect();
        let fits =
            |line: &&str| line.contains("\"name\":\"alice\"") && line.contains("PERMISSION_DENIED");
        all.lines().find(fits).map(drop).ok_or(all.clone())
    });
}

#[test]
fn who_only_looks_sees_no_secret() {
    let managers = up();
    granted(&managers, SECRET);
    let view = somebody(&managers, "alice", &["--group", "auditors"]);
    granted(
        &managers,
        &binding("view", "{kind: Group, name: auditors}", "view"),
    );
    view.done(&["get", "configmaps", "-n", "shop"]);
    for arguments in [
        &["get", "secrets", "-n", "shop"][..],
        &["get", "secret", "db", "-n", "shop"],
    ] {
        view.refused(arguments, "secrets in namespace shop");
    }
    view.refused(
        &["describe", "secret", "db", "-n", "shop"],
        "secrets in namespace shop",
    );
    // Who may list and change them, and not get them, sees their names and keys.
    let role = "apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {name: keys, namespace: shop}\n\
                rules: [{verbs: [list, watch, patch], apiGroups: [''], resources: [secrets]}]\n---\n";
    let bound = binding("keys", "{kind: Group, name: auditors}", "keys")
        .replace("kind: ClusterRole", "kind: Role");
    granted(&managers, &format!("{role}{bound}"));
    let listed = view.done(&["get", "secrets", "-n", "shop", "-o", "yaml"]);
    assert!(
        listed.contains("name: db") && !listed.contains(SECRET_VALUE),
        "{listed}"
    );
    // Nor do answers to what they change, or would change, show more.
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    for dry_run in [true, false] {
        let changed = runtime
            .block_on(asked::labelled(&view.config, &managers.address(0), dry_run))
            .expect("apply");
        let Some(object::Kind::Secret(secret)) = changed.kind else {
            panic!("another kind: {changed}");
        };
        let values: Vec<_> = secret.data.values().collect();
        assert!(
            values.iter().all(|value| value.is_empty()),
            "dry run: {dry_run}"
        );
    }
    let kept = administrator(&managers).done(&["get", "secret", "db", "-n", "shop", "-o", "yaml"]);
    assert!(kept.contains(SECRET_VALUE), "{kept}");
}

#[test]
fn nobody_gives_what_they_do_not_have() {
    let managers = up();
    let alice = somebody(&managers, "alice", &[]);
    granted(&managers, &binding("admin", ALICE, "admin"));
    // What one has is given on.
    let bob = "{kind: User, name: bob}";
    let done = alice.apply(&binding("bob", bob, "edit"));
    assert!(done.status.success(), "{}", said(&done));
    let mine = alice.apply(&binding("mine", ALICE, "cluster-admin"));
    assert!(
        said(&mine).contains("alice does not have"),
        "{}",
        said(&mine)
    );
    let role = "apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {name: nodes, namespace: shop}\n\
                rules: [{verbs: [get], apiGroups: [''], resources: [nodes]}]\n";
    let nodes = alice.apply(role);
    assert!(
        said(&nodes).contains("alice does not have (get nodes)"),
        "{}",
        said(&nodes)
    );
    let wide = alice.apply(
        &binding("wide", ALICE, "view")
            .replace("RoleBinding", "ClusterRoleBinding")
            .replace(", namespace: shop", ""),
    );
    assert!(
        said(&wide).contains("may not create or patch clusterrolebindings"),
        "{}",
        said(&wide)
    );
    // A binding's role never changes, whoever asks.
    let changed = administrator(&managers).apply(&binding("bob", bob, "view"));
    assert!(
        said(&changed).contains("roleRef: cannot change"),
        "{}",
        said(&changed)
    );
    // Nor does a credential make one somebody else.
    let credentials = "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {name: issuer}\n\
        rules: [{verbs: ['*'], apiGroups: [barge.dev], resources: [credentials]}]\n---\n\
        apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRoleBinding\nmetadata: {name: issuer}\n\
        subjects: [{kind: User, name: alice}]\nroleRef: {kind: ClusterRole, name: issuer}\n";
    granted(&managers, credentials);
    let out = managers.dir().join("root.toml");
    for flags in [&["--admin"][..], &[]] {
        let create = ["credential", "create", "root", "--out", text_of(&out)];
        alice.refused(
            &[&create, flags].concat(),
            "alice may not impersonate users named root",
        );
    }
    assert!(
        alice
            .done(&["credential", "list"])
            .contains("system:masters")
    );
    // The built-in roles come back.
    managers.barge(&["delete", "clusterrole", "view"]);
    eventually("the role is made again", || {
        let shown = managers.try_barge(&["get", "clusterrole", "view"]);
        shown.status.success().then_some(()).ok_or(said(&shown))
    });
}

#[test]
fn a_right_that_ends_ends_at_once_and_everywhere() {
    let managers = up();
    let alice = somebody(&managers, "alice", &[]);
    granted(&managers, &binding("view", ALICE, "view"));
    alice.done(&["get", "configmaps", "-n", "shop"]);
    let carol = somebody(&managers, "carol", &["--admin"]);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let watch = |by: &As<'_>, index: usize| {
        let address = managers.address(index);
        runtime.block_on(async {
            let channels = raw::channels(&by.config, &address, 1);
            let channel = channels.expect("connect").remove(0);
            let watch = raw::watch(channel, Kind::ConfigMap, "shop").await;
            watch.expect("watch")
        })
    };
    let watches: Vec<_> = (0..3).map(|index| watch(&alice, index)).collect();
    let of_carol = watch(&carol, 1);
    managers.barge(&["delete", "rolebinding", "view", "-n", "shop"]);
    managers.barge(&["credential", "revoke", "carol"]);
    for index in 0..3 {
        let alice = alice.at(index);
        alice.refused(
            &["get", "configmaps", "-n", "shop"],
            "alice may not list configmaps in namespace shop",
        );
    }
    // What changes from now on is not shown to who had a binding, and the watches end.
    granted(&managers, &config_map("shop", "late", "red"));
    for watch in watches {
        let (status, shown) = runtime.block_on(end(watch));
        assert_eq!(
            (status.code(), shown),
            (Code::PermissionDenied, 0),
            "{status}"
        );
    }
    // Of who may do everything it is asked from time to time.
    let (status, _) = runtime.block_on(end(of_carol));
    assert_eq!(status.code(), Code::Unauthenticated, "{status}");
}

/// How a watch ends, and how many objects it shows before.
async fn end(mut watch: Streaming<WatchResponse>) -> (Status, usize) {
    let mut shown = 0;
    let ended = async {
        loop {
            match watch.message().await {
                Ok(Some(message)) => shown += usize::from(message.object.is_some()),
                Ok(None) => panic!("a right that ends is no clean end"),
                Err(status) => return status,
            }
        }
    };
    let status = timeout(SOON, ended).await.expect("the watch ends");
    (status, shown)
}

#[test]
fn a_service_account_has_credentials_that_end_with_it() {
    let managers = up();
    let account = "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: ci, namespace: shop}\n";
    granted(&managers, account);
    granted(
        &managers,
        &binding(
            "ci",
            "{kind: ServiceAccount, name: ci, namespace: shop}",
            "edit",
        ),
    );
    let ci = somebody(
        &managers,
        "ci",
        &["--bearer", "--service-account", "shop/ci"],
    );
    let who = ci.done(&["auth", "whoami"]);
    assert!(who.contains("system:serviceaccount:shop:ci"), "{who}");
    assert!(who.contains("system:serviceaccounts:shop"), "{who}");
    for index in 0..3 {
        let done = ci
            .at(index)
            .apply(&config_map("shop", &format!("by-ci-{index}"), "blue"));
        assert!(done.status.success(), "{}", said(&done));
    }
    ci.refused(
        &["get", "nodes"],
        "system:serviceaccount:shop:ci may not list nodes",
    );
    // Deleted and made anew, it is another one.
    managers.barge(&["delete", "serviceaccount", "ci", "-n", "shop"]);
    granted(&managers, account);
    for index in 0..3 {
        ci.at(index)
            .refused(&["get", "configmaps", "-n", "shop"], "any more");
    }
    let none = managers.dir().join("none.toml");
    let create = [
        "credential",
        "create",
        "none",
        "--service-account",
        "shop/none",
    ];
    let refused = managers.try_barge(&[&create[..], &["--out", text_of(&none)]].concat());
    assert!(
        said(&refused).contains("does not exist"),
        "{}",
        said(&refused)
    );
}
