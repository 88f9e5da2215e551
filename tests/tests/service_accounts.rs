//! Tokens of service accounts: who gets them, what they open, and when they end.

// A test that cannot go on says so by panicking.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    fs,
    path::{Path, PathBuf},
};

use barge_client::{
    channel::{ChannelOptions, channel},
    config::Config,
    identity::Identity,
    tls,
    v1::{
        BoundPod, RequestTokenRequest, RequestTokenResponse,
        service_accounts_client::ServiceAccountsClient,
    },
};
use barge_tests::{Cluster, Managers, cluster::name, eventually, said};
use tonic::{Code, Status};

const CI: &str = "apiVersion: v1
kind: ServiceAccount
metadata: {name: ci, namespace: shop}
automountServiceAccountToken: false
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: ci, namespace: shop}
subjects: [{kind: ServiceAccount, name: ci, namespace: shop}]
roleRef: {kind: ClusterRole, name: view}
";

/// A credential file like `like` with a token in place of its certificate.
fn config_with(like: &Path, token: &str, to: &Path) -> PathBuf {
    let mut config = Config::load(like).expect("read a credential");
    for context in &mut config.contexts {
        context.certificate.clear();
        context.key.clear();
        token.trim().clone_into(&mut context.token);
    }
    config.save(to).expect("write a credential");
    to.to_owned()
}

fn text_of(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

fn apply(managers: &Managers, text: &str) {
    let file = managers.dir().join("manifest.yaml");
    fs::write(&file, text).expect("write a manifest");
    managers.barge(&["apply", "-f", text_of(&file)]);
}

fn token(managers: &Managers, flags: &[&str]) -> String {
    let create = ["service-account", "token", "ci", "-n", "shop"];
    let arguments = [&create, flags].concat();
    eventually("the leader has made a key, and a token is made", || {
        let output = managers.try_barge(&arguments);
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned()),
            false => Err(said(&output)),
        }
    })
}

#[test]
fn a_token_is_a_user_with_the_rights_of_its_account() {
    let mut managers = Managers::up(3);
    managers.wait_until_caught_up();
    apply(
        &managers,
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n",
    );
    apply(&managers, CI);
    let first = token(&managers, &[]);
    let keys = managers.barge(&["service-account", "keys"]);
    assert!(keys.contains("\"kty\":\"EC\""), "{keys}");
    let (path, to) = (
        managers.config_of(&[0, 1, 2]),
        managers.dir().join("token.toml"),
    );
    let config = |token: &str| config_with(&path, token, &to);

    // Every manager knows the account and its rights.
    let mine = config(&first);
    let who = said(&managers.try_barge_with(&mine, &["auth", "whoami"]));
    for expected in [
        "system:serviceaccount:shop:ci",
        "system:serviceaccounts, system:serviceaccounts:shop, system:authenticated",
    ] {
        assert!(who.contains(expected), "{who}");
    }
    eventually("the role is there", || {
        let listed = managers.try_barge_with(&mine, &["get", "configmaps", "-n", "shop"]);
        listed.status.success().then_some(()).ok_or(said(&listed))
    });
    for refused in [
        ["get", "secrets", "-n", "shop"],
        ["get", "pods", "-n", "default"],
    ] {
        let output = managers.try_barge_with(&mine, &refused);
        let said = said(&output);
        assert!(
            said.contains("system:serviceaccount:shop:ci may not"),
            "{said}"
        );
    }

    // What is forged, for others, or out of bounds is refused.
    let (head, signature) = first.rsplit_once('.').unwrap();
    let swapped: String = signature.chars().rev().collect();
    let forged =
        managers.try_barge_with(&config(&format!("{head}.{swapped}")), &["auth", "whoami"]);
    assert!(
        said(&forged).contains("the token is not valid"),
        "{}",
        said(&forged)
    );
    let other = token(&managers, &["--audience", "vault"]);
    let foreign = managers.try_barge_with(&config(&other), &["auth", "whoami"]);
    assert!(
        said(&foreign).contains("the token is for vault"),
        "{}",
        said(&foreign)
    );
    let file = managers.dir().join("other.jwt");
    fs::write(&file, &other).unwrap();
    let review = ["service-account", "review", text_of(&file)];
    assert!(!managers.try_barge(&review).status.success());
    let reviewed = managers.barge(&[&review[..], &["--audience", "vault"]].concat());
    assert!(
        reviewed.contains("system:serviceaccount:shop:ci"),
        "{reviewed}"
    );
    let create = ["service-account", "token", "ci", "-n", "shop", "--duration"];
    let long = managers.try_barge(&[&create[..], &["25h"]].concat());
    assert!(
        said(&long).contains("expiration_seconds: 90000"),
        "{}",
        said(&long)
    );
    let absent = managers.try_barge(&["service-account", "token", "nobody", "-n", "shop"]);
    assert!(
        said(&absent).contains("error looking up service account shop/nobody"),
        "{}",
        said(&absent)
    );

    // Another leader has the same keys; a rotation keeps the old one as long as its tokens live.
    managers.kill(managers.leader());
    let barge = |arguments: &[&str]| {
        let output = managers.try_barge_with(&path, arguments);
        assert!(output.status.success(), "{}", said(&output));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    eventually("another leader answers, and the token is good", || {
        let output = managers.try_barge_with(&config(&first), &["get", "configmaps", "-n", "shop"]);
        output.status.success().then_some(()).ok_or(said(&output))
    });
    assert_eq!(barge(&["service-account", "keys"]), keys);
    barge(&["service-account", "rotate-key"]);
    let rotated = barge(&["service-account", "keys"]);
    assert_eq!(rotated.matches("\"kty\"").count(), 2, "{rotated}");
    let again = managers.try_barge_with(&path, &["service-account", "rotate-key"]);
    assert!(
        said(&again).contains("rotate again after that"),
        "{}",
        said(&again)
    );
    let listed = managers.try_barge_with(&config(&first), &["get", "configmaps", "-n", "shop"]);
    assert!(listed.status.success(), "{}", said(&listed));

    // A token ends with its account; one that is made anew is another user.
    barge(&["delete", "serviceaccount", "ci", "-n", "shop"]);
    let file = managers.dir().join("manifest.yaml");
    fs::write(&file, CI).expect("write a manifest");
    barge(&["apply", "-f", text_of(&file)]);
    let ended = managers.try_barge_with(&config(&first), &["auth", "whoami"]);
    assert!(said(&ended).contains("shop/ci is gone"), "{}", said(&ended));
}

const WEB: &str = r#"apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      serviceAccount: web
      terminationGracePeriodSeconds: 1
      containers:
      - name: main
        image: my-app:1.0
        command: [sh, -c, "exec busybox httpd -f -p 8080 -h /www"]
        env:
        - {name: ACCOUNT, valueFrom: {fieldRef: {fieldPath: spec.serviceAccountName}}}
"#;

/// Asks as the agent of a node does.
fn ask_as_agent(
    cluster: &Cluster,
    request: &RequestTokenRequest,
) -> Result<RequestTokenResponse, Status> {
    let agents = cluster.dir().join("agents");
    let folder = fs::read_dir(agents)
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let identity = find(&folder, "identity").expect("the agent's identity");
    let identity = Identity::load(&identity).unwrap().unwrap();
    let manager = cluster.layout().managers[0].address.clone();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let tls = tls::client_config(&identity).unwrap();
        let channel = channel(&manager, tls, &ChannelOptions::default()).unwrap();
        let mut client = ServiceAccountsClient::new(channel);
        let answer = client.request_token(request.clone()).await;
        answer.map(tonic::Response::into_inner)
    })
}

/// A file or folder of this name below a folder.
fn find(folder: &Path, wanted: &str) -> Option<PathBuf> {
    let direct = folder.join(wanted);
    if direct.exists() {
        return Some(direct);
    }
    let folders = fs::read_dir(folder).ok()?.flatten().map(|it| it.path());
    folders
        .filter(|it| it.is_dir())
        .find_map(|it| find(&it, wanted))
}

#[test]
fn a_pod_waits_for_its_account_and_its_tokens_end_with_it() {
    let cluster = Cluster::up("service-accounts", 1, 1);
    let manifest = cluster.write("web.yaml", WEB);
    cluster.barge(&["apply", "-f", text_of(&manifest)]);
    eventually("the pod says that its account is not there", || {
        let pods = cluster.list("pods", "app=web");
        let pod = pods.first().ok_or("no pod")?;
        let waiting = &pod["status"]["containerStatuses"][0]["state"]["waiting"];
        let message = waiting["message"].as_str().unwrap_or_default();
        match message.contains("error looking up service account default/web") {
            true => Ok(()),
            false => Err(pod["status"].to_string()),
        }
    });
    cluster.apply("apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: web}\n");
    let pod = cluster.ready_pods("app=web", 1).remove(0);
    assert_eq!(pod["spec"]["serviceAccountName"], "web");
    let agent = cluster.layout().agents.remove(0);
    let [(_, pid)] = cluster.container_pids(&agent).try_into().unwrap();
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap();
    assert!(String::from_utf8_lossy(&environment).contains("ACCOUNT=web"));

    // The node gets tokens for its pod and the pod's account, and for nothing else.
    let request = |account: &str, uid: &str| RequestTokenRequest {
        namespace: "default".to_owned(),
        name: account.to_owned(),
        bound_pod: Some(BoundPod {
            name: name(&pod).to_owned(),
            uid: uid.to_owned(),
        }),
        ..RequestTokenRequest::default()
    };
    let uid = pod["metadata"]["uid"].as_str().unwrap();
    let made = ask_as_agent(&cluster, &request("web", uid)).unwrap();
    assert_eq!(made.bound_pod.as_ref().unwrap().uid, uid);
    for (account, uid, code) in [
        ("default", uid, Code::PermissionDenied),
        (
            "web",
            "11111111-2222-3333-4444-555555555555",
            Code::NotFound,
        ),
    ] {
        let refused = ask_as_agent(&cluster, &request(account, uid)).unwrap_err();
        assert_eq!(refused.code(), code, "{refused}");
    }

    let to = cluster.write("token.toml", "");
    let mine = config_with(cluster.config(), &made.token, &to);
    let whoami = || {
        let mut command = cluster.command(&["auth", "whoami"]);
        said(&command.env("BARGE_CONFIG", &mine).output().unwrap())
    };
    let who = whoami();
    assert!(who.contains("system:serviceaccount:default:web"), "{who}");
    cluster.barge(&["delete", "deployment", "web"]);
    eventually("the token ends with the pod", || {
        let said = whoami();
        said.contains("is gone").then_some(()).ok_or(said)
    });
}
