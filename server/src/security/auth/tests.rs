#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
//! Who gets in, over all RPCs and all roles.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

use barge_proto::v1::Role;
use futures::future::BoxFuture;
use http::{HeaderMap, header::AUTHORIZATION};
use sha2::{Digest, Sha256};
use tonic::{Code, Status};

use super::{
    Access, AuthLayer, Bearer, Caller, Directory, Named, PRINCIPAL_METADATA, Principal, TokenBearer,
};
use crate::{
    error::ApiError,
    net::{Peer, Rules},
    pki::Subject,
    security::{
        audit::AuditLog,
        rbac::{Asked, Identity},
    },
};

const CLUSTER: &str = "c1";
const APPLY: &str = "/barge.v1.Api/Apply";
const CONNECT: &str = "/barge.v1.Session/Connect";
const APPEND: &str = "/barge.v1.Raft/Append";
const JOIN: &str = "/barge.v1.Cluster/Join";

/// Knows some, and some more once it was refreshed.
#[derive(Default)]
struct Known {
    now: Mutex<BTreeSet<String>>,
    later: Mutex<BTreeSet<String>>,
    next_raft_id: u64,
    /// How often it was.
    refreshed: Arc<Mutex<usize>>,
}

impl Directory for Known {
    fn cluster_id(&self) -> Option<String> {
        Some(CLUSTER.to_owned())
    }

    fn access(&self, principal: &Principal) -> Option<Access> {
        let known = self.now.lock().unwrap().contains(&principal.to_string());
        let access = match (principal.role, principal.uid.as_str()) {
            (Role::Agent, _) => Access::Nothing,
            (Role::Admin, "bob") => Access::Bound(Arc::new(Identity {
                user: "bob".to_owned(),
                groups: vec![],
            })),
            _ => Access::Everything,
        };
        known.then_some(access)
    }

    /// Whoever is bound may look at tokens.
    fn may(&self, access: &Access, asked: &Asked<'_>) -> bool {
        access.is_everything() || *asked == Asked::of_cluster("list", "tokens")
    }

    fn bearer(&self, uid: &str, secret_sha256: &[u8]) -> Bearer {
        let admin = Principal {
            role: Role::Admin,
            uid: uid.to_owned(),
        };
        match (
            self.knows(&admin),
            secret_sha256 == Sha256::digest("s").as_slice(),
        ) {
            (true, true) => {
                let access = self.access(&admin).unwrap();
                Bearer::Holder(admin, access)
            }
            (false, true) if uid == "old" => Bearer::Expired,
            _ => Bearer::Unknown,
        }
    }

    /// A token "x.UID.SIGNATURE", good when its signature is "good".
    fn token(&self, token: &str) -> TokenBearer {
        let parts: Vec<_> = token.split('.').collect();
        let holder = Principal {
            role: Role::Admin,
            uid: format!("sa:{}", parts[1]),
        };
        match (parts[2], self.access(&holder)) {
            ("good", Some(access)) => TokenBearer::Holder(holder, access, i64::MAX),
            ("good", None) => TokenBearer::Unknown("it is gone".to_owned()),
            _ => TokenBearer::Refused("it is forged".to_owned()),
        }
    }

    fn node_was_deleted(&self, uid: &str) -> bool {
        uid == "deleted"
    }

    fn name_of(&self, principal: &Principal) -> Option<Named> {
        Some(Named {
            name: format!("the {}", principal.uid),
            user: None,
        })
    }

    fn next_raft_id(&self) -> u64 {
        self.next_raft_id
    }

    fn refresh(&self) -> BoxFuture<'_, Result<(), ApiError>> {
        *self.refreshed.lock().unwrap() += 1;
        let later = self.later.lock().unwrap().clone();
        self.now.lock().unwrap().extend(later);
        Box::pin(std::future::ready(Ok(())))
    }
}

fn known(names: &[&str]) -> Known {
    Known {
        now: Mutex::new(names.iter().map(|name| (*name).to_owned()).collect()),
        next_raft_id: 10,
        ..Known::default()
    }
}

fn layer(directory: Known) -> AuthLayer {
    let rules = Rules::load().unwrap();
    AuthLayer::new(rules, CLUSTER, Arc::new(directory), AuditLog::off())
}

fn everybody() -> AuthLayer {
    layer(known(&["manager/m", "agent/n", "admin/a"]))
}

fn subject(role: Role, uid: &str, raft_id: Option<u64>) -> Subject {
    Subject {
        cluster_id: CLUSTER.to_owned(),
        role,
        uid: uid.to_owned(),
        raft_id,
    }
}

fn manager() -> Subject {
    subject(Role::Manager, "m", Some(1))
}

fn agent() -> Subject {
    subject(Role::Agent, "n", None)
}

fn admin() -> Subject {
    subject(Role::Admin, "a", None)
}

async fn ask(
    layer: &AuthLayer,
    path: &str,
    subject: Option<Subject>,
    claimed: Option<&str>,
) -> Result<Caller, Status> {
    let peer = Peer {
        address: "127.0.0.1:1".parse().unwrap(),
        subject: subject.map(Arc::new),
    };
    let mut headers = HeaderMap::new();
    if let Some(claimed) = claimed {
        headers.insert(PRINCIPAL_METADATA, claimed.parse().unwrap());
    }
    layer.authorise(path, peer, &headers).await
}

async fn code(
    layer: &AuthLayer,
    path: &str,
    subject: Option<Subject>,
    claimed: Option<&str>,
) -> Code {
    match ask(layer, path, subject, claimed).await {
        Ok(_) => Code::Ok,
        Err(status) => status.code(),
    }
}

#[tokio::test]
async fn every_rpc_admits_the_roles_it_declares_and_no_other() {
    let layer = everybody();
    let rules = Rules::load().unwrap();
    let mut seen = 0;
    for (path, rule) in rules.iter() {
        let open = rule.roles.contains(&Role::Anyone);
        for subject in [manager(), agent(), admin()] {
            let expected = match open || rule.roles.contains(&subject.role) {
                true => Code::Ok,
                false => Code::PermissionDenied,
            };
            let role = subject.role;
            let got = code(&layer, path, Some(subject), None).await;
            assert_eq!(got, expected, "{path} as {role:?}");
        }
        let expected = match open {
            true => Code::Ok,
            false => Code::Unauthenticated,
        };
        assert_eq!(code(&layer, path, None, None).await, expected, "{path}");
        seen += 1;
    }
    assert!(seen > 25, "only {seen} RPCs are known");
}

#[tokio::test]
async fn only_join_and_health_are_open() {
    let rules = Rules::load().unwrap();
    let open: Vec<_> = rules
        .iter()
        .filter(|(_, rule)| rule.roles.contains(&Role::Anyone))
        .map(|(path, _)| path)
        .filter(|path| !path.starts_with("/grpc.health.v1.Health/"))
        .collect();
    assert_eq!(open, [JOIN]);
}

#[tokio::test]
async fn what_is_not_declared_does_not_exist() {
    let layer = everybody();
    for path in ["/barge.v1.Api/Nothing", "/", ""] {
        assert_eq!(
            code(&layer, path, Some(admin()), None).await,
            Code::Unimplemented
        );
    }
}

#[tokio::test]
async fn a_forged_principal_is_refused() {
    let layer = everybody();
    for (path, subject) in [
        (APPLY, Some(agent())),
        (APPLY, Some(admin())),
        (CONNECT, Some(agent())),
        (JOIN, None),
        (APPLY, None),
    ] {
        assert_eq!(
            code(&layer, path, subject, Some("admin/a")).await,
            Code::PermissionDenied
        );
    }
}

#[tokio::test]
async fn a_forwarded_call_is_authorised_for_whom_it_is() {
    let layer = everybody();
    let caller = ask(&layer, APPLY, Some(manager()), Some("admin/a")).await;
    let caller = caller.unwrap();
    assert_eq!(caller.name(), "admin/a");
    assert!(caller.forwarded);
    // A manager may not apply, neither for itself nor for an agent or a stranger.
    for (claimed, expected) in [
        (None, Code::PermissionDenied),
        (Some("agent/n"), Code::PermissionDenied),
        (Some("manager/m"), Code::PermissionDenied),
        (Some("admin/gone"), Code::Unauthenticated),
        (Some("nonsense"), Code::InvalidArgument),
        (Some("anyone"), Code::InvalidArgument),
    ] {
        assert_eq!(
            code(&layer, APPLY, Some(manager()), claimed).await,
            expected,
            "{claimed:?}"
        );
    }
    let joining = ask(&layer, JOIN, Some(manager()), Some("anyone"))
        .await
        .unwrap();
    assert!(joining.forwarded && joining.principal.is_none());
}

#[tokio::test]
async fn an_identity_that_is_not_in_the_state_is_refused() {
    let layer = layer(known(&[]));
    assert_eq!(
        code(&layer, APPLY, Some(admin()), None).await,
        Code::Unauthenticated
    );
    // The agent's session ends for good.
    assert_eq!(
        code(&layer, CONNECT, Some(agent()), None).await,
        Code::FailedPrecondition
    );
    // Raft id 1 was given out before 10, and is not there any more.
    assert_eq!(
        code(&layer, APPEND, Some(manager()), None).await,
        Code::Unauthenticated
    );
}

#[tokio::test]
async fn who_joined_a_moment_ago_is_found() {
    let directory = known(&[]);
    directory.later.lock().unwrap().insert("agent/n".to_owned());
    let layer = layer(directory);
    assert_eq!(code(&layer, CONNECT, Some(agent()), None).await, Code::Ok);
}

#[tokio::test]
async fn a_manager_that_joined_after_our_last_entry_may_lead_us() {
    let layer = layer(known(&[]));
    let newer = subject(Role::Manager, "newer", Some(10));
    assert_eq!(code(&layer, APPEND, Some(newer), None).await, Code::Ok);
}

#[tokio::test]
async fn a_certificate_of_another_cluster_is_refused() {
    let mut other = admin();
    other.cluster_id = "c2".to_owned();
    assert_eq!(
        code(&everybody(), APPLY, Some(other), None).await,
        Code::Unauthenticated
    );
}

#[tokio::test]
async fn who_is_bound_may_call_what_bindings_allow() {
    let layer = layer(known(&["manager/m", "admin/bob"]));
    let bob = || Some(subject(Role::Admin, "bob", None));
    let rules = Rules::load().unwrap();
    for (path, rule) in rules.iter() {
        let free = rule.without_binding || rule.is_by_object() || rule.needs_no_certificate();
        let allowed = rule.allows(Role::Admin) && (free || path.ends_with("/ListTokens"));
        let expected = match allowed {
            true => Code::Ok,
            false => Code::PermissionDenied,
        };
        assert_eq!(code(&layer, path, bob(), None).await, expected, "{path}");
        // What a manager passes on is decided by whom it is for.
        if rule.roles == [Role::Admin] {
            let passed_on = code(&layer, path, Some(manager()), Some("admin/bob")).await;
            assert_eq!(passed_on, expected, "{path}");
        }
    }
    let create = "/barge.v1.Cluster/CreateToken";
    let refused = ask(&layer, create, bob(), None).await.unwrap_err();
    assert_eq!(refused.message(), "bob may not create tokens.barge.dev");
}

async fn with_bearer(
    layer: &AuthLayer,
    path: &str,
    subject: Option<Subject>,
    value: &str,
) -> Result<Caller, Status> {
    let peer = Peer {
        address: "127.0.0.1:1".parse().unwrap(),
        subject: subject.map(Arc::new),
    };
    let mut headers = HeaderMap::new();
    headers.insert(AUTHORIZATION, value.parse().unwrap());
    layer.authorise(path, peer, &headers).await
}

#[tokio::test]
async fn a_bearer_token_is_as_good_as_its_holder() {
    let layer = everybody();
    let caller = with_bearer(&layer, APPLY, None, "Bearer bargeb1.a.s").await;
    let caller = caller.unwrap();
    assert_eq!(
        (caller.name().as_str(), caller.forwarded),
        ("admin/a", false)
    );
    // What an admin may not, its token may not.
    let refused = with_bearer(&layer, CONNECT, None, "Bearer bargeb1.a.s").await;
    assert_eq!(refused.unwrap_err().code(), Code::PermissionDenied);
    // The certificate says who an agent is, whatever it sends.
    let agent = with_bearer(&layer, APPLY, Some(agent()), "Bearer bargeb1.a.s").await;
    assert_eq!(agent.unwrap_err().code(), Code::PermissionDenied);
}

#[tokio::test]
async fn a_bearer_token_that_is_none_is_refused() {
    let layer = everybody();
    for (value, word) in [
        ("Bearer bargeb1.a.wrong", "not valid"),
        ("Bearer bargeb1.gone.s", "not valid"),
        ("Bearer bargeb1.old.s", "expired"),
        ("Bearer nonsense", "not a bearer token"),
        ("Basic bargeb1.a.s", "not a bearer token"),
    ] {
        let refused = with_bearer(&layer, APPLY, None, value).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated, "{value}");
        assert!(refused.message().contains(word), "{value}: {refused}");
    }
}

#[tokio::test]
async fn what_changes_something_is_audited_and_nothing_else() {
    let rules = Rules::load().unwrap();
    let audited: Vec<_> = rules
        .iter()
        .map(|(path, _)| path)
        .filter(|path| rules.audited(path).is_some())
        .collect();
    for path in audited.iter() {
        assert!(
            !path.contains("Raft") && !path.contains("/Get") && !path.contains("/List"),
            "{path}"
        );
    }
    for path in [
        APPLY,
        JOIN,
        "/barge.v1.Api/Delete",
        "/barge.v1.Api/Scale",
        "/barge.v1.Cluster/CreateToken",
        "/barge.v1.Cluster/RevokeToken",
        "/barge.v1.Credentials/CreateCredential",
        "/barge.v1.Credentials/RevokeCredential",
    ] {
        assert!(audited.contains(&path), "{path}");
    }
}

#[tokio::test]
async fn a_token_of_a_service_account_is_as_good_as_its_pod() {
    let directory = known(&["manager/m", "admin/sa:ci:pod"]);
    let refreshed = directory.refreshed.clone();
    *directory.later.lock().unwrap() = ["admin/sa:ci:new".to_owned()].into();
    let layer = layer(directory);
    let caller = with_bearer(&layer, APPLY, None, "Bearer x.ci:pod.good").await;
    let caller = caller.unwrap();
    assert_eq!(caller.name(), "admin/sa:ci:pod");
    assert_eq!(caller.until, Some(i64::MAX));
    caller.check_time().unwrap();
    let ended = Caller {
        until: Some(1),
        ..caller.clone()
    };
    let refused = ended.check_time().unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    assert!(layer.access_now(&ended).await.is_err());
    // It travels on in the name of a manager.
    let forwarded = ask(&layer, APPLY, Some(manager()), Some("admin/sa:ci:pod")).await;
    assert_eq!(forwarded.unwrap().name(), caller.name());

    // What is forged is refused without a question to anybody.
    let forged = with_bearer(&layer, APPLY, None, "Bearer x.ci:pod.bad").await;
    let forged = forged.unwrap_err();
    assert_eq!(forged.code(), Code::Unauthenticated);
    assert_eq!(forged.message(), "it is forged");
    assert_eq!(*refreshed.lock().unwrap(), 0);
    // One that this manager does not know yet is looked for once.
    let new = with_bearer(&layer, APPLY, None, "Bearer x.ci:new.good").await;
    assert!(new.is_ok());
    assert_eq!(*refreshed.lock().unwrap(), 1);
    let gone = with_bearer(&layer, APPLY, None, "Bearer x.ci:gone.good").await;
    assert_eq!(gone.unwrap_err().message(), "it is gone");
    let agents = with_bearer(&layer, CONNECT, None, "Bearer x.ci:pod.good").await;
    assert_eq!(agents.unwrap_err().code(), Code::PermissionDenied);
}
