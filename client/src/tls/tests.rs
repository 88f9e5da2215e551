//! Real handshakes over an in-memory pipe.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use barge_proto::v1::Role;
use rustls::{
    ClientConfig, ServerConfig,
    pki_types::{CertificateDer, ServerName},
    server::WebPkiClientVerifier,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;
use crate::{channel::root_cause, identity::Identity, test_ca::TestCa, token::ca_digest};

fn server(identity: &Identity, chain: Vec<CertificateDer<'static>>) -> TlsAcceptor {
    let roots = Arc::new(root_store(&identity.roots).unwrap());
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider())
        .allow_unauthenticated()
        .build()
        .unwrap();
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, identity.key_der().unwrap())
        .unwrap();
    config.alpn_protocols = vec![ALPN.to_vec()];
    Arc::new(config).into()
}

/// The client's view of a handshake: whether the server saw a certificate, or what went wrong.
async fn handshake(server: TlsAcceptor, client: Arc<ClientConfig>) -> Result<bool, String> {
    let (near, far) = tokio::io::duplex(1 << 16);
    let accept = tokio::spawn(async move { server.accept(far).await });
    let name = ServerName::try_from(SERVER_NAME).unwrap();
    // Open until the server has finished, too.
    let _connected = TlsConnector::from(client)
        .connect(name, near)
        .await
        .map_err(|error| root_cause(&error))?;
    let accepted = accept.await.unwrap().map_err(|error| error.to_string())?;
    Ok(accepted.get_ref().1.peer_certificates().is_some())
}

#[tokio::test]
async fn identity_meets_its_cluster() {
    let ca = TestCa::new();
    let manager = ca.issue(Role::Manager, "m");
    let client = client_config(&ca.issue(Role::Agent, "a")).unwrap();
    let met = handshake(server(&manager, manager.presented_chain()), client).await;
    assert_eq!(met, Ok(true));
}

#[tokio::test]
async fn identity_refuses_another_cluster() {
    let manager = TestCa::new().issue(Role::Manager, "m");
    let client = client_config(&TestCa::new().issue(Role::Admin, "a")).unwrap();
    let error = handshake(server(&manager, manager.presented_chain()), client)
        .await
        .unwrap_err();
    assert!(error.contains("belongs to another cluster"), "{error}");
}

#[tokio::test]
async fn identity_refuses_an_agent_that_poses_as_a_manager() {
    let ca = TestCa::new();
    let agent = ca.issue(Role::Agent, "x");
    let client = client_config(&ca.issue(Role::Admin, "a")).unwrap();
    let error = handshake(server(&agent, agent.presented_chain()), client)
        .await
        .unwrap_err();
    assert!(error.contains("not valid for name"), "{error}");
}

#[tokio::test]
async fn pin_accepts_the_root_it_names() {
    let ca = TestCa::new();
    let manager = ca.issue(Role::Manager, "m");
    let client = pinned_config(ca_digest(&ca.root)).unwrap();
    let met = handshake(server(&manager, manager.presented_chain()), client).await;
    assert_eq!(met, Ok(false));
}

#[tokio::test]
async fn pin_refuses_another_root_and_a_missing_one() {
    let ca = TestCa::new();
    let other = TestCa::new().issue(Role::Manager, "m");
    let manager = ca.issue(Role::Manager, "m");
    for (identity, chain) in [
        (&other, other.presented_chain()),
        (&manager, manager.chain.clone()),
    ] {
        let client = pinned_config(ca_digest(&ca.root)).unwrap();
        let error = handshake(server(identity, chain), client)
            .await
            .unwrap_err();
        assert!(error.contains("presents another cluster's CA"), "{error}");
    }
}

#[tokio::test]
async fn pin_refuses_a_leaf_that_the_root_did_not_sign() {
    let ca = TestCa::new();
    // Somebody who saw the public root shows it behind a leaf of a CA of their own.
    let attacker = TestCa::new().issue(Role::Manager, "m");
    let chain = vec![attacker.chain[0].clone(), ca.root.clone()];
    let client = pinned_config(ca_digest(&ca.root)).unwrap();
    let error = handshake(server(&attacker, chain), client)
        .await
        .unwrap_err();
    assert!(
        error.contains("not a manager's of the pinned CA"),
        "{error}"
    );
}

#[tokio::test]
async fn pin_refuses_an_agent_of_the_right_cluster() {
    let ca = TestCa::new();
    let agent = ca.issue(Role::Agent, "x");
    let client = pinned_config(ca_digest(&ca.root)).unwrap();
    let error = handshake(server(&agent, agent.presented_chain()), client)
        .await
        .unwrap_err();
    assert!(
        error.contains("not a manager's of the pinned CA"),
        "{error}"
    );
}

#[tokio::test]
async fn a_certificate_that_the_clock_does_not_fall_into_is_told_with_its_times() {
    let (ca, now) = (TestCa::new(), SystemTime::now());
    let hour = Duration::from_secs(3600);
    let expired = ca.issue_for(Role::Manager, "m", now - 2 * hour, now - hour);
    let early = ca.issue_for(Role::Manager, "m", now + hour, now + 2 * hour);
    for manager in [expired, early] {
        for client in [
            client_config(&ca.issue(Role::Agent, "a")).unwrap(),
            pinned_config(ca_digest(&ca.root)).unwrap(),
        ] {
            let error = handshake(server(&manager, manager.presented_chain()), client)
                .await
                .unwrap_err();
            assert!(
                error.contains("valid from") && error.contains("this machine's clock says"),
                "{error}"
            );
        }
    }
}

#[tokio::test]
async fn a_replaced_certificate_is_shown_by_the_same_configuration() {
    let ca = TestCa::new();
    let (manager, other) = (ca.issue(Role::Manager, "m"), TestCa::new());
    // Of a CA that the manager does not know, and that does not know the manager.
    let live = LiveTls::new(&other.issue(Role::Agent, "a")).unwrap();
    let config = live.config();
    let refused = handshake(server(&manager, manager.presented_chain()), config.clone()).await;
    assert!(refused.is_err());
    live.replace(&ca.issue(Role::Agent, "a")).unwrap();
    let met = handshake(server(&manager, manager.presented_chain()), config).await;
    assert_eq!(met, Ok(true));
}
