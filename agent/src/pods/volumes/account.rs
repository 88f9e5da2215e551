//! Tokens of a pod's ServiceAccount as files: where a volume asks for one, and in the volume that every container has unless the pod or its account
//! says no (`automountServiceAccountToken`).

use std::time::Duration;

use barge_proto::{
    accounts,
    v1::{Container, Pod, ServiceAccountTokenProjection},
};
use tokio::time::timeout;

use crate::{
    pods::given::Given,
    runtime::{Place, VolumeFile, VolumeFiles, VolumeMount},
    tokens::{TokenRequest, Tokens},
};

/// The volume that a container has without asking. Its name is as Kubernetes', without the random end.
pub const AUTOMATIC: &str = "kube-api-access";
/// Where programs look for it.
const PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// Seconds that its token lives (Kubernetes' WarnOnlyBoundTokenExpirationPeriod).
const SECONDS: u64 = 3607;
/// Of a token that says nothing, in seconds.
const DEFAULT_SECONDS: i64 = 3600;
/// A container starts without the token that it did not ask for after this time: managers that are away hold up nobody.
const PATIENCE: Duration = Duration::from_secs(3);
const MODE: u32 = 0o644;

/// What the files of a pod's account are made of.
#[derive(Clone, Copy)]
pub struct Account<'a> {
    /// The tokens of the node's pods.
    pub tokens: &'a Tokens,
    /// The pod has the automatic volume.
    pub automounts: bool,
    /// The roots that the managers' certificates go back to, in PEM.
    pub roots: &'a str,
}

/// Whether the containers of a pod get a token without asking.
pub fn automounts(pod: &Pod, given: &Given) -> bool {
    let Some(spec) = &pod.spec else {
        return false;
    };
    let taken = spec.volumes.iter().any(|it| it.name == AUTOMATIC);
    // An account that is not known now may say no.
    let account = given.account(pod);
    !taken && account.is_ok_and(|account| accounts::automounts(spec, account))
}

/// The tokens that a pod's files need.
pub fn requests(pod: &Pod, automounts: bool) -> Vec<TokenRequest> {
    let automatic = automounts.then(|| TokenRequest::of(pod, "", SECONDS));
    let volumes = pod.spec.iter().flat_map(|spec| &spec.volumes);
    let projected = volumes.flat_map(|it| &it.projected);
    let sources = projected.flat_map(|it| &it.sources);
    let asked = sources.flat_map(|it| &it.service_account_token);
    let asked = asked.map(|it| request(pod, it));
    automatic.into_iter().chain(asked).collect()
}

/// The token that a volume asks for.
pub fn request(pod: &Pod, source: &ServiceAccountTokenProjection) -> TokenRequest {
    let seconds = source.expiration_seconds.unwrap_or(DEFAULT_SECONDS);
    TokenRequest::of(pod, &source.audience, u64::try_from(seconds).unwrap_or(0))
}

/// Waits a little until the tokens that a pod did not ask for are here, or were refused.
pub async fn arrive(pod: &Pod, account: Account<'_>) {
    let mut changed = account.tokens.changed();
    let waits = async {
        for request in requests(pod, account.automounts) {
            while account.tokens.get(&request).is_none()
                && account.tokens.why_not(&request).is_none()
                && changed.changed().await.is_ok()
            {}
        }
    };
    // What is not here by then comes later.
    let _ = timeout(PATIENCE, waits).await;
}

/// A token's file. One that is not here now is left as it is.
pub fn token(request: &TokenRequest, account: Account<'_>, mode: u32) -> VolumeFile {
    match account.tokens.get(request) {
        Some(token) => VolumeFile::new(token.value.as_bytes().to_vec(), mode),
        None => {
            let why = account.tokens.why_not(request);
            VolumeFile::as_it_is(mode, why.unwrap_or_else(|| "it is under way".to_owned()))
        }
    }
}

/// The files of the automatic volume. No container waits for its token.
pub fn automatic(pod: &Pod, account: Account<'_>) -> VolumeFiles {
    let namespace = pod.metadata.as_ref().map_or("", |meta| &meta.namespace);
    let request = TokenRequest::of(pod, "", SECONDS);
    let token = VolumeFile {
        may_be_missing: true,
        ..token(&request, account, MODE)
    };
    let file = |text: &str| VolumeFile::new(text.as_bytes().to_vec(), MODE);
    [
        ("token".to_owned(), token),
        ("ca.crt".to_owned(), file(account.roots)),
        ("namespace".to_owned(), file(namespace)),
    ]
    .into()
}

/// Where a container has the automatic volume; `None` when it has something else there.
pub fn mount(container: &Container) -> Option<VolumeMount> {
    let taken = |path: &str| path.trim_end_matches('/') == PATH;
    let mut own = container.volume_mounts.iter();
    (!own.any(|it| taken(&it.mount_path))).then(|| VolumeMount {
        volume: AUTOMATIC.to_owned(),
        place: Place::Files,
        path: PATH.to_owned(),
        sub_path: String::new(),
        read_only: true,
        sees_mounts: false,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeMap;

    use barge_proto::v1::{ObjectMeta, PodSpec, ProjectedVolumeSource, Volume, VolumeProjection};

    use super::*;
    use crate::pods::{environment::Around, volumes::of_pod};

    fn pod(said: Option<bool>) -> Pod {
        let asked = ServiceAccountTokenProjection {
            audience: "vault".into(),
            expiration_seconds: Some(600),
            path: "vault/token".into(),
        };
        let source = VolumeProjection {
            service_account_token: Some(asked),
            ..VolumeProjection::default()
        };
        Pod {
            metadata: Some(ObjectMeta {
                namespace: "shop".into(),
                ..ObjectMeta::default()
            }),
            spec: Some(PodSpec {
                automount_service_account_token: said,
                volumes: vec![Volume {
                    name: "tokens".into(),
                    projected: Some(ProjectedVolumeSource {
                        sources: vec![source],
                        ..ProjectedVolumeSource::default()
                    }),
                    ..Volume::default()
                }],
                ..PodSpec::default()
            }),
            ..Pod::default()
        }
    }

    #[test]
    fn a_pod_has_the_tokens_that_it_asks_for_and_one_unless_it_says_no() {
        let given = Given::default();
        assert!(automounts(&pod(None), &given));
        assert!(!automounts(&pod(Some(false)), &given));
        let audiences = |automounts| -> Vec<_> {
            let requests = requests(&pod(None), automounts).into_iter();
            requests
                .map(|it| (it.audience, it.expiration_seconds))
                .collect()
        };
        let vault = ("vault".to_owned(), 600);
        assert_eq!(audiences(false), std::slice::from_ref(&vault));
        assert_eq!(audiences(true), [(String::new(), 3607), vault]);
    }

    #[tokio::test]
    async fn a_token_that_is_not_here_is_left_as_it_is() {
        let (tokens, pod, given) = (Tokens::default(), pod(None), Given::default());
        let account = Account {
            tokens: &tokens,
            automounts: true,
            roots: "PEM",
        };
        let around = Around {
            allocatable: &BTreeMap::new(),
            pod: &pod,
            given: &given,
            host_ip: "",
            ips: &[],
        };
        let volumes = of_pod(&pod, around, account).0.volumes;
        let file = |volume: &str, path: &str| match &volumes[volume] {
            crate::runtime::VolumeSource::Files(files) => files[path].clone(),
            _ => unreachable!(),
        };
        let asked = file("tokens", "vault/token");
        assert!(asked.unknown.is_some() && !asked.may_be_missing);
        let automatic = file(AUTOMATIC, "token");
        assert!(automatic.unknown.is_some() && automatic.may_be_missing);
        assert_eq!(file(AUTOMATIC, "ca.crt").bytes, b"PEM");
        assert_eq!(file(AUTOMATIC, "namespace").bytes, b"shop");
    }

    #[test]
    fn what_a_container_has_there_already_stays() {
        let own = barge_proto::v1::VolumeMount {
            mount_path: format!("{PATH}/"),
            ..Default::default()
        };
        let container = Container {
            volume_mounts: vec![own],
            ..Container::default()
        };
        assert!(mount(&container).is_none());
        assert_eq!(mount(&Container::default()).unwrap().path, PATH);
    }
}
