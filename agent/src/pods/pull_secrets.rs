//! The Secrets with whose credentials a pod's images are pulled.

use std::sync::Arc;

use barge_proto::{
    configuration::{Source, pull_secrets},
    v1::{LocalObjectReference, Pod, Secret},
};

use super::given::Given;
use crate::{
    configuration::Found,
    runtime::{Keyring, PullSecret, PullSecrets, docker_config, dockercfg},
};

/// What a pod brings to get its images, and why some of its Secrets give nothing.
#[derive(Debug, Default)]
pub struct Brought {
    /// For the runtime.
    pub secrets: PullSecrets,
    /// One sentence.
    pub problem: Option<String>,
}

/// What a pod brings: its own Secrets, or those of its service account when it names none. As in Kubernetes, a Secret that is missing, or has no
/// credentials, is passed over: the image may need none.
pub fn brought(pod: &Pod, given: &Given) -> Brought {
    let Some(spec) = &pod.spec else {
        return Brought::default();
    };
    let account = given.account(pod).ok().flatten();
    let of_account: &[LocalObjectReference] = account.map_or(&[], |it| &it.image_pull_secrets);
    let namespace = pod.metadata.as_ref().map_or("", |meta| &meta.namespace);
    let (mut secrets, mut problems) = (Vec::new(), Vec::new());
    for name in pull_secrets(spec, of_account) {
        let secret = |uid: &str, keyring| PullSecret {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            uid: uid.to_owned(),
            keyring,
        };
        match given.find(Source::Secret, name, true) {
            Ok(Some(Found::Secret(found))) => match keyring(found) {
                Ok(keyring) => {
                    let uid = found.metadata.as_ref().map_or("", |meta| &meta.uid);
                    secrets.push(secret(uid, Some(keyring)));
                }
                Err(why) => problems.push(format!("{name} ({why})")),
            },
            Ok(_) => problems.push(format!("{name} (there is no such Secret)")),
            Err(_) => {
                secrets.push(secret("", None));
                problems.push(format!("{name} (it is not known on this node yet)"));
            }
        }
    }
    let problem = (!problems.is_empty()).then(|| {
        format!(
            "Unable to retrieve some image pull secrets: {}; attempting to pull the image may not succeed",
            problems.join(", ")
        )
    });
    Brought {
        secrets: PullSecrets(Arc::new(secrets)),
        problem,
    }
}

/// The credentials of a Secret.
fn keyring(secret: &Secret) -> Result<Keyring, String> {
    let value = |key: &str| secret.data.get(key).map_or(&[][..], Vec::as_slice);
    match secret.r#type.as_str() {
        "kubernetes.io/dockerconfigjson" => docker_config(value(".dockerconfigjson"))
            .map_err(|why| format!(".dockerconfigjson {why}")),
        "kubernetes.io/dockercfg" => {
            dockercfg(value(".dockercfg")).map_err(|why| format!(".dockercfg {why}"))
        }
        _ => Err(
            "its type is neither kubernetes.io/dockerconfigjson nor kubernetes.io/dockercfg"
                .to_owned(),
        ),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use barge_proto::v1::{Assignment, ObjectMeta, ObjectName, PodSpec, ServiceAccount};

    use super::*;
    use crate::desired::Desired;

    fn secret(name: &str, kind: &str, key: &str, value: &str) -> Secret {
        Secret {
            metadata: Some(ObjectMeta {
                name: name.into(),
                namespace: "shop".into(),
                uid: format!("uid-{name}"),
                ..ObjectMeta::default()
            }),
            r#type: kind.into(),
            data: [(key.to_owned(), value.as_bytes().to_vec())].into(),
            ..Secret::default()
        }
    }

    #[test]
    fn what_gives_no_credentials_is_told_and_passed_over() {
        let config = r#"{"auths": {"h.example": {"auth": "bWU6eA=="}}}"#;
        let old = r#"{"h.example": {"auth": "bWU6eA=="}}"#;
        let (new_kind, old_kind) = ("kubernetes.io/dockerconfigjson", "kubernetes.io/dockercfg");
        let assignment = Assignment {
            full: true,
            secrets: vec![
                secret("new", new_kind, ".dockerconfigjson", config),
                secret("old", old_kind, ".dockercfg", old),
                secret("opaque", "Opaque", ".dockerconfigjson", config),
                secret(
                    "bad",
                    new_kind,
                    ".dockerconfigjson",
                    "{\"auths\": \"hunter2\"}",
                ),
            ],
            withheld_secrets: vec![ObjectName {
                namespace: "shop".into(),
                name: "locked".into(),
            }],
            ..Assignment::default()
        };
        let names = ["old", "none", "new", "opaque", "bad", "locked"];
        let references = names.map(|name| LocalObjectReference { name: name.into() });
        let mut pod = Pod {
            metadata: Some(ObjectMeta {
                namespace: "shop".into(),
                ..ObjectMeta::default()
            }),
            spec: Some(PodSpec {
                image_pull_secrets: references.to_vec(),
                ..PodSpec::default()
            }),
            ..Pod::default()
        };
        let (desired, _) = Desired::default().apply(assignment, false).unwrap();
        let brings = brought(&pod, &Given::to(&pod, &desired));
        let secrets = brings.secrets.0.iter();
        let uids: Vec<_> = secrets
            .map(|it| (it.uid.as_str(), it.keyring.is_some()))
            .collect();
        assert_eq!(uids, [("uid-old", true), ("uid-new", true), ("", false)]);
        let problem = brings.problem.unwrap();
        for part in [
            "none (there",
            "opaque (its type",
            "bad (.docker",
            "locked (it is not known",
        ] {
            assert!(problem.contains(part), "{part}: {problem}");
        }
        assert!(!problem.contains("hunter2"), "{problem}");
        pod.spec = Some(PodSpec::default());
        let brings = brought(&pod, &Given::to(&pod, &desired));
        assert!(brings.problem.is_none() && brings.secrets.0.is_empty());
    }
    #[test]
    fn a_pod_without_secrets_brings_those_of_its_account() {
        let account = ServiceAccount {
            metadata: Some(ObjectMeta {
                namespace: "shop".into(),
                name: "ci".into(),
                ..ObjectMeta::default()
            }),
            image_pull_secrets: vec![LocalObjectReference { name: "old".into() }],
            ..ServiceAccount::default()
        };
        let assignment = Assignment {
            full: true,
            withheld_secrets: vec![ObjectName {
                namespace: "shop".into(),
                name: "old".into(),
            }],
            service_accounts: vec![account],
            ..Assignment::default()
        };
        let pod = Pod {
            metadata: Some(ObjectMeta {
                namespace: "shop".into(),
                ..ObjectMeta::default()
            }),
            spec: Some(PodSpec {
                service_account_name: "ci".into(),
                ..PodSpec::default()
            }),
            ..Pod::default()
        };
        let (desired, _) = Desired::default().apply(assignment, false).unwrap();
        let brings = brought(&pod, &Given::to(&pod, &desired));
        let names: Vec<_> = brings.secrets.0.iter().map(|it| it.name.as_str()).collect();
        assert_eq!(names, ["old"]);
    }
}
