//! The ways to an image: at each place that may have it, with each credential that names the place.

use sha2::{Digest, Sha256};

use super::{endpoint::Endpoint, name::Name};
use crate::runtime::{
    keyring::{Keyring, Login},
    secrets::PullSecrets,
};

/// Credentials that are tried at one place; further ones are not.
const MOST: usize = 16;

/// One way.
#[derive(Debug, Clone)]
pub struct Way {
    /// Where, and as whom.
    pub endpoint: Endpoint,
    /// By which secret of the pod; `None` for what every pod of the node may use: the node's own credentials, or none.
    pub ticket: Option<Ticket>,
}

/// A credential of a pod's pull secret, and which Secret that is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket {
    /// The credential.
    pub login: Login,
    /// Namespace of the Secret.
    pub namespace: String,
    /// Name of the Secret.
    pub name: String,
    /// Uid of the Secret.
    pub uid: String,
}

/// For each place the ways to ask there, in Kubernetes' order: the credentials of the pod's secrets that name the place, the most specific one first, then
/// the node's; nobody's when none names it.
pub fn ways(
    places: Vec<Endpoint>,
    image: &Name,
    secrets: &PullSecrets,
    node: &Keyring,
) -> Vec<Vec<Way>> {
    let places = places.into_iter();
    places
        .map(|place| of_place(&place, image, secrets, node))
        .collect()
}

fn of_place(place: &Endpoint, image: &Name, secrets: &PullSecrets, node: &Keyring) -> Vec<Way> {
    let repository = format!("{}{}", place.prefix, image.repository);
    let mut of_pod = Vec::new();
    for secret in secrets.0.iter() {
        let keyring = secret.keyring.iter();
        let found = keyring.flat_map(|keyring| keyring.find(place.host(), &repository));
        of_pod.extend(found.map(|(at, login)| {
            let ticket = Ticket {
                login: login.clone(),
                namespace: secret.namespace.clone(),
                name: secret.name.clone(),
                uid: secret.uid.clone(),
            };
            (at.rank(), ticket)
        }));
    }
    of_pod.sort_by(|(one, _), (other, _)| one.cmp(other));
    let found = node.find(place.host(), &repository).into_iter();
    let mut of_node: Vec<Login> = found.map(|(_, login)| login.clone()).collect();
    of_node.extend(place.login.clone());
    // What the node has, too, binds the image to no secret.
    let of_pod = of_pod.into_iter().map(|(_, ticket)| {
        let login = Some(ticket.login.clone());
        (
            login,
            Some(ticket).filter(|it| !of_node.contains(&it.login)),
        )
    });
    let of_pod: Vec<_> = of_pod.collect();
    let of_node = of_node.into_iter().map(|login| (Some(login), None));
    let mut ways: Vec<Way> = Vec::new();
    for (login, ticket) in of_pod.into_iter().chain(of_node) {
        let is_new = ways.iter().all(|way| way.endpoint.login != login);
        if is_new && ways.len() < MOST {
            let endpoint = Endpoint {
                login,
                ..place.clone()
            };
            ways.push(Way { endpoint, ticket });
        }
    }
    if ways.is_empty() {
        ways.push(Way {
            endpoint: place.clone(),
            ticket: None,
        });
    }
    ways
}

/// The tickets among ways.
pub fn tickets(ways: &[Vec<Way>]) -> impl Iterator<Item = &Ticket> {
    let ways = ways.iter().flatten();
    ways.filter_map(|way| way.ticket.as_ref())
}

/// What tells apart pods that bring different credentials; empty for those that bring none. It is not kept.
pub fn fingerprint(ways: &[Vec<Way>]) -> String {
    let mut digest = Sha256::new();
    let mut any = false;
    for ticket in tickets(ways) {
        any = true;
        for part in ticket.login.parts().into_iter().chain(ticket.coordinates()) {
            digest.update((part.len() as u64).to_le_bytes());
            digest.update(part);
        }
    }
    match any {
        true => format!("{:x}", digest.finalize()),
        false => String::new(),
    }
}

impl Ticket {
    /// Which Secret it is of.
    pub fn coordinates(&self) -> [&str; 3] {
        [&self.namespace, &self.name, &self.uid]
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use super::*;
    use crate::runtime::{
        images::endpoint::endpoints, keyring::docker_config, options::Registry, secrets::PullSecret,
    };

    fn secret(name: &str, places: &[(&str, &str)]) -> PullSecret {
        PullSecret {
            namespace: "shop".into(),
            name: name.into(),
            uid: format!("uid-{name}"),
            keyring: Some(keyring(places)),
        }
    }

    fn keyring(places: &[(&str, &str)]) -> Keyring {
        let entry = |user: &str| serde_json::json!({"username": user, "password": "p"});
        let auths: serde_json::Map<_, _> = places
            .iter()
            .map(|(place, user)| ((*place).to_owned(), entry(user)))
            .collect();
        docker_config(serde_json::json!({ "auths": auths }).to_string().as_bytes()).unwrap()
    }

    /// Host, user, and the name of the secret.
    fn told(secrets: Vec<PullSecret>, node: &Keyring) -> Vec<(String, String, String)> {
        let settings = [Registry {
            host: "docker.io".into(),
            mirrors: vec!["https://m.example/cache".into()],
            credentials: Some(("settings".into(), "p".into())),
            ..Registry::default()
        }];
        let name = Name::parse("docker.io/team/app:1").unwrap();
        let places = endpoints(&name.host, &settings).unwrap();
        let secrets = PullSecrets(Arc::new(secrets));
        let ways = ways(places, &name, &secrets, node);
        let told = ways.into_iter().flatten().map(|way| {
            let user = match &way.endpoint.login {
                Some(Login::Password(user, _)) => user.clone(),
                _ => String::new(),
            };
            let secret = way.ticket.map(|it| it.name).unwrap_or_default();
            (way.endpoint.host().to_owned(), user, secret)
        });
        told.collect()
    }

    fn row(host: &str, user: &str, secret: &str) -> (String, String, String) {
        (host.into(), user.into(), secret.into())
    }

    #[test]
    fn a_credential_goes_where_it_names_and_nowhere_else() {
        let secrets = vec![
            secret("hub", &[("https://index.docker.io/v1/", "hub")]),
            secret(
                "deep",
                &[("docker.io/team", "deep"), ("other.example", "other")],
            ),
            secret("mirror", &[("m.example/cache/team", "mirror")]),
        ];
        let node = keyring(&[("docker.io", "node"), ("*.example", "all")]);
        assert_eq!(
            told(secrets, &node),
            [
                row("m.example", "mirror", "mirror"),
                row("m.example", "all", ""),
                row("docker.io", "deep", "deep"),
                row("docker.io", "hub", "hub"),
                row("docker.io", "node", ""),
                row("docker.io", "settings", ""),
            ]
        );
        // A mirror that nothing names is asked as nobody.
        assert_eq!(
            told(Vec::new(), &Keyring::default()),
            [row("m.example", "", ""), row("docker.io", "settings", "")]
        );
    }

    #[test]
    fn what_the_node_has_too_binds_to_no_secret() {
        let secrets = vec![secret("same", &[("docker.io", "node")])];
        let node = keyring(&[("docker.io", "node")]);
        assert_eq!(told(secrets, &node)[1], row("docker.io", "node", ""));
    }

    #[test]
    fn pods_with_other_credentials_have_another_fingerprint() {
        let print = |secrets: Vec<PullSecret>| {
            let name = Name::parse("docker.io/team/app:1").unwrap();
            let places = endpoints(&name.host, &[]).unwrap();
            let secrets = PullSecrets(Arc::new(secrets));
            fingerprint(&ways(places, &name, &secrets, &Keyring::default()))
        };
        let one = print(vec![secret("a", &[("docker.io", "me")])]);
        assert_eq!(
            one,
            print(vec![secret("a", &[("docker.io", "me"), ("quay.io", "x")])])
        );
        assert_ne!(one, print(vec![secret("a", &[("docker.io", "you")])]));
        assert_ne!(one, print(vec![secret("b", &[("docker.io", "me")])]));
        assert_eq!(print(vec![secret("a", &[("quay.io", "me")])]), "");
        assert_eq!(print(Vec::new()), "");
    }
}
