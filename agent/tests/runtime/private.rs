//! Images that registries give to some only.

use std::{
    fs,
    process::{Child, Command, Stdio},
    sync::Arc,
};

use barge_agent::runtime::{
    Image, Options, PullPolicy, PullSecret, PullSecrets, Registry as Settings, Runtime,
    RuntimeError, certificates, containerd::Containerd, docker_config,
};
use serde_json::json;
use tokio::time::timeout;

use super::{
    image,
    lying::{ours, tiny},
    machine::{DEADLINE, Machine, on_a_machine, until},
    registry::Registry,
};

/// "me:secret" and "you:other", as basic authentication sends them.
const ME: &str = "Basic bWU6c2VjcmV0";
const YOU: &str = "Basic eW91Om90aGVy";
const CHALLENGE: &str = "Basic realm=\"r\"";
/// The password "secret" of "me", as htpasswd keeps it.
const HTPASSWD: &str = "me:$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";

/// A pull secret of this name for a host.
fn secret(name: &str, host: &str, user: &str, password: &str) -> PullSecrets {
    let config = json!({"auths": {host: {"username": user, "password": password}}}).to_string();
    secrets(PullSecret {
        namespace: "shop".into(),
        name: name.into(),
        uid: format!("uid-{name}"),
        keyring: Some(docker_config(config.as_bytes()).unwrap()),
    })
}

fn secrets(one: PullSecret) -> PullSecrets {
    PullSecrets(Arc::new(vec![one]))
}

fn runtime(machine: &Machine, change: impl FnOnce(&mut Options)) -> Containerd {
    let mut options = machine.options();
    change(&mut options);
    Containerd::new(options).unwrap()
}

/// As a pod's worker does it: what may be used is used, else it is pulled.
async fn get(
    runtime: &Containerd,
    image: &str,
    policy: PullPolicy,
    secrets: &PullSecrets,
) -> Result<Image, RuntimeError> {
    let get = async {
        let found = runtime.find_image(image, secrets).await?;
        match found.filter(|_| policy != PullPolicy::Always) {
            Some(image) => Ok(image),
            None => runtime.pull(image, policy, secrets).await,
        }
    };
    timeout(DEADLINE, get).await.expect("an end")
}

#[test]
fn what_a_secret_brought_is_for_no_pod_that_the_registry_refuses() {
    on_a_machine(|machine| async move {
        let registry = Registry::start().await;
        let host = registry.address.to_string();
        registry.tag(
            "app:1",
            &tiny(&machine, &registry, "private", ours()).descriptor,
        );
        registry.guard(ME, CHALLENGE);
        let plain = |options: &mut Options| {
            options.registries = vec![Settings {
                host: host.clone(),
                plain_http: true,
                ..Settings::default()
            }];
        };
        let agent = runtime(&machine, plain);
        let name = format!("{host}/x/app:1");
        let (cached, never) = (PullPolicy::IfNotPresent, PullPolicy::Never);
        let nobody = PullSecrets::default();
        let me = secret("mine", &host, "me", "secret");
        let elsewhere = secret("mine", "example.com", "me", "secret");
        for secrets in [&nobody, &elsewhere] {
            let error = get(&agent, &name, cached, secrets).await.unwrap_err();
            assert_eq!(error.reason, "ErrImagePull");
            assert!(error.message.contains("name a Secret"), "{error}");
        }
        let asked = registry.seen();
        assert!(asked.iter().all(|seen| seen.authorization.is_none()));
        let image = get(&agent, &name, cached, &me).await.unwrap();
        // Another pod, which finds it there.
        for secrets in [&nobody, &elsewhere, &secret("other", &host, "me", "wrong")] {
            let error = get(&agent, &name, cached, secrets).await.unwrap_err();
            assert_eq!(error.reason, "ErrImagePull");
            assert!(
                error
                    .message
                    .contains("a secret that this pod does not have"),
                "{error}"
            );
            assert!(error.message.contains("demands credentials"), "{error}");
            assert!(!error.message.contains("wrong"), "{error}");
            let error = get(&agent, &name, never, secrets).await.unwrap_err();
            assert_eq!(error.reason, "ErrImageNeverPull");
            assert!(error.message.contains("does not have"), "{error}");
        }
        // The same credential, or the same Secret: the registry need not be asked.
        let before = registry.seen().len();
        for secrets in [
            &secret("copy", &host, "me", "secret"),
            &secret("mine", &host, "me", "new"),
        ] {
            assert_eq!(
                get(&agent, &name, cached, secrets).await.unwrap().id,
                image.id
            );
        }
        assert_eq!(registry.seen().len(), before);
        // Another credential, once the registry takes it, and by the digest.
        registry.guard(YOU, CHALLENGE);
        let you = secret("yours", &host, "you", "other");
        get(&agent, &name, cached, &you).await.unwrap();
        let asked = registry.seen().split_off(before);
        let digest = image.id.split_once('@').unwrap().1;
        assert!(!asked.is_empty() && asked.iter().all(|seen| seen.path.ends_with(digest)));
        // All that outlives the agent, and the registry.
        drop(registry);
        let agent = runtime(&machine, plain);
        for secrets in [&me, &you] {
            get(&agent, &name, cached, secrets).await.unwrap();
            get(&agent, &name, never, secrets).await.unwrap();
        }
        let unknown = |name: &str| {
            secrets(PullSecret {
                namespace: "shop".into(),
                name: name.into(),
                uid: String::new(),
                keyring: None,
            })
        };
        get(&agent, &name, cached, &unknown("mine")).await.unwrap();
        let late = secret("late", &host, "you", "late");
        for secrets in [&nobody, &late, &unknown("late")] {
            let error = get(&agent, &name, cached, secrets).await.unwrap_err();
            assert!(error.message.contains("cannot be reached"), "{error}");
            assert_eq!((error.reason, error.retryable), ("ErrImagePull", true));
        }
        // Somebody gives it to all.
        machine.ctr(&["images", "tag", &name, "shared.test/x/app:1"]);
        get(&agent, "shared.test/x/app:1", never, &nobody)
            .await
            .unwrap();
    });
}

#[test]
fn pods_with_different_secrets_share_no_pull() {
    on_a_machine(|machine| async move {
        let registry = Registry::start().await;
        let host = registry.address.to_string();
        registry.tag(
            "app:1",
            &tiny(&machine, &registry, "private", ours()).descriptor,
        );
        registry.guard(ME, CHALLENGE);
        let agent = runtime(&machine, |options| {
            options.registries = vec![Settings {
                host: host.clone(),
                plain_http: true,
                ..Settings::default()
            }];
        });
        let name = format!("{host}/x/app:1");
        let (me, wrong) = (
            secret("a", &host, "me", "secret"),
            secret("b", &host, "me", "wrong"),
        );
        let nobody = PullSecrets::default();
        for policy in [PullPolicy::IfNotPresent, PullPolicy::Always] {
            let (good, bad, none) = tokio::join!(
                get(&agent, &name, policy, &me),
                get(&agent, &name, policy, &wrong),
                get(&agent, &name, policy, &nobody),
            );
            good.unwrap();
            bad.unwrap_err();
            none.unwrap_err();
        }
        // Of two credentials the second one is good.
        let both = [&wrong, &me].map(|secrets| secrets.0[0].clone());
        let both = PullSecrets(Arc::new(both.to_vec()));
        get(&agent, &name, PullPolicy::Always, &both).await.unwrap();
        // What nobody needs a secret for is for all.
        let open = Registry::start().await;
        open.tag("app:1", &tiny(&machine, &open, "open", ours()).descriptor);
        let host = open.address.to_string();
        let agent = runtime(&machine, |options| {
            options.registries = vec![Settings {
                host: host.clone(),
                plain_http: true,
                ..Settings::default()
            }];
        });
        let name = format!("{host}/x/app:1");
        get(&agent, &name, PullPolicy::Always, &me).await.unwrap();
        get(&agent, &name, PullPolicy::Never, &nobody)
            .await
            .unwrap();
    });
}

/// Debian's registry, which has the images of the machine's other one, asks for a password and has a certificate of a private authority.
struct Guarded {
    child: Child,
    ca: Vec<u8>,
}

impl Guarded {
    const HOST: &str = "127.0.0.1:5443";

    fn start(machine: &Machine) -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut parameters = rcgen::CertificateParams::new(Vec::new()).unwrap();
        parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let ca = rcgen::CertifiedIssuer::self_signed(parameters, key).unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let parameters = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let certificate = parameters.signed_by(&key, &ca).unwrap();
        let at = |name: &str| machine.path(name).display().to_string();
        fs::write(at("tls.crt"), certificate.pem()).unwrap();
        fs::write(at("tls.key"), key.serialize_pem()).unwrap();
        fs::write(at("htpasswd"), HTPASSWD).unwrap();
        let config = format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\n\
             auth:\n  htpasswd:\n    realm: barge\n    path: {}\n\
             http:\n  addr: {}\n  tls:\n    certificate: {}\n    key: {}\n",
            at("registry"),
            at("htpasswd"),
            Self::HOST,
            at("tls.crt"),
            at("tls.key")
        );
        fs::write(at("guarded.yml"), config).unwrap();
        let child = Command::new("docker-registry")
            .args(["serve", &at("guarded.yml")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("docker-registry has to be installed");
        until("the guarded registry serves", || {
            std::net::TcpStream::connect(Self::HOST).ok()
        });
        let ca = ca.pem().into_bytes();
        Self { child, ca }
    }

    /// Settings that trust the private authority for a host.
    fn trusted_for(&self, host: &str) -> Settings {
        Settings {
            host: host.into(),
            ca: certificates(&self.ca).unwrap(),
            ..Settings::default()
        }
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_registry_with_a_private_authority_and_passwords() {
    on_a_machine(|machine| async move {
        image::push(&machine, "private:1", json!({})).await;
        image::push(&machine, "common:1", json!({})).await;
        let registry = Guarded::start(&machine);
        let host = Guarded::HOST;
        let (private, common) = (
            format!("{host}/library/private:1"),
            format!("{host}/library/common:1"),
        );
        let cached = PullPolicy::IfNotPresent;
        let (nobody, me) = (PullSecrets::default(), secret("mine", host, "me", "secret"));
        // An authority is trusted for the host that it is set for, and for no other.
        for settings in [Settings::default(), registry.trusted_for("127.0.0.1:5444")] {
            let agent = runtime(&machine, |options| options.registries = vec![settings]);
            let error = get(&agent, &private, cached, &me).await.unwrap_err();
            assert!(error.message.contains("cannot be reached"), "{error}");
            assert!(error.message.contains("ertificate"), "{error}");
        }
        let file = machine.path("config.json");
        let agent = runtime(&machine, |options| {
            options.registries = vec![registry.trusted_for(host)];
            options.registry_config = Some(file.clone());
        });
        let error = get(&agent, &private, cached, &nobody).await.unwrap_err();
        assert!(error.message.contains("demands credentials"), "{error}");
        assert!(
            error.message.contains("config.json does not exist"),
            "{error}"
        );
        let wrong = secret("wrong", host, "me", "hunter2");
        let error = get(&agent, &private, cached, &wrong).await.unwrap_err();
        assert!(!error.message.contains("hunter2"), "{error}");
        get(&agent, &private, cached, &me).await.unwrap();
        get(&agent, &private, cached, &nobody).await.unwrap_err();
        // The node's own credentials, which come later, are for every pod: of this image, and of others.
        let config = json!({"auths": {"https://127.0.0.1:5443": {"auth": "bWU6c2VjcmV0"}}});
        fs::write(&file, config.to_string()).unwrap();
        get(&agent, &common, cached, &nobody).await.unwrap();
        get(&agent, &private, cached, &nobody).await.unwrap();
        fs::remove_file(&file).unwrap();
        get(&agent, &private, PullPolicy::Never, &nobody)
            .await
            .unwrap();
    });
}
