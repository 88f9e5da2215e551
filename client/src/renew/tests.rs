use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use barge_proto::v1::Role;
use rcgen::CertificateSigningRequestParams;

use super::*;
use crate::test_ca::TestCa;

fn signed(ca: &TestCa, csr: &[u8], uid: &str) -> RenewResponse {
    let csr = CertificateSigningRequestParams::from_der(&csr.to_vec().into()).unwrap();
    RenewResponse {
        certificate_chain: vec![ca.sign(Role::Agent, uid, &csr.public_key).to_vec()],
        roots: vec![ca.root.to_vec()],
    }
}

#[test]
fn a_renewal_has_a_key_of_its_own_and_the_same_subject() {
    let ca = TestCa::new();
    let before = ca.issue(Role::Agent, "a");
    let request = Request::new().unwrap();
    let after = request
        .complete(&before, signed(&ca, &request.csr, "a"))
        .unwrap();
    assert_ne!(after.key, before.key);
    assert_ne!(after.chain, before.chain);
    assert_eq!(after.subject().unwrap(), before.subject().unwrap());
}

#[test]
fn what_is_not_ours_is_refused() {
    let ca = TestCa::new();
    let before = ca.issue(Role::Agent, "a");
    let request = Request::new().unwrap();
    let another = request.complete(&before, signed(&ca, &request.csr, "b"));
    assert!(matches!(another, Err(RenewError::Another(uid)) if uid == "b"));
    let other_key = Request::new().unwrap();
    let unusable = request.complete(&before, signed(&ca, &other_key.csr, "a"));
    assert!(matches!(unusable, Err(RenewError::Tls(_))), "{unusable:?}");
    let nothing = request.complete(&before, RenewResponse::default());
    assert!(matches!(nothing, Err(RenewError::Subject(_))));
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_tried_again_until_there_is_a_certificate() {
    let (ca, dir) = (Arc::new(TestCa::new()), tempfile::tempdir().unwrap());
    // In its last moments.
    let now = SystemTime::now();
    let dying = ca.issue_for(Role::Agent, "a", now - LOOK, now + LOOK / 30);
    let kept = KeptIdentity::new(dying.clone(), dir.path().to_owned());
    let tries = Arc::new(AtomicUsize::new(0));
    let issue = {
        let (ca, tries) = (ca.clone(), tries.clone());
        move |identity: Identity| {
            let (ca, tries) = (ca.clone(), tries.clone());
            async move {
                if tries.fetch_add(1, Ordering::Relaxed) < 2 {
                    return Err(RenewError::Refused("no manager answers".to_owned()));
                }
                let request = Request::new()?;
                request.complete(&identity, signed(&ca, &request.csr, "a"))
            }
        }
    };
    let wanted = watch::Sender::new(Wanted::default());
    let mut changes = kept.subscribe();
    let keeping = tokio::spawn(keep(kept.clone(), wanted.subscribe(), issue));
    changes.changed().await.unwrap();
    assert_ne!(kept.current().chain, dying.chain);
    let saved = Identity::load(dir.path()).unwrap().unwrap();
    assert_eq!(saved, *kept.current());
    assert_eq!(tries.load(Ordering::Relaxed), 3);
    keeping.abort();
}

#[tokio::test(start_paused = true)]
async fn other_roots_are_learned_when_they_are_wanted_and_not_before() {
    let (before, after, dir) = (TestCa::new(), TestCa::new(), tempfile::tempdir().unwrap());
    let kept = KeptIdentity::new(before.issue(Role::Agent, "a"), dir.path().to_owned());
    let both = vec![after.root.to_vec(), before.root.to_vec()];
    let (tries, roots) = (Arc::new(AtomicUsize::new(0)), both.clone());
    let issue = {
        let tries = tries.clone();
        let stale = vec![before.root.to_vec()];
        move |identity: Identity| {
            let request = Request::new().unwrap();
            // The first manager that is asked has not heard of it.
            let behind = tries.fetch_add(1, Ordering::Relaxed) == 0;
            let (ca, roots) = match behind {
                true => (&before, stale.clone()),
                false => (&after, roots.clone()),
            };
            let response = RenewResponse {
                roots,
                ..signed(ca, &request.csr, "a")
            };
            std::future::ready(request.complete(&identity, response))
        }
    };
    let wanted = watch::Sender::new(Wanted::default());
    let mut changes = kept.subscribe();
    let keeping = tokio::spawn(keep(kept.clone(), wanted.subscribe(), issue));
    tokio::time::sleep(LOOK * 3).await;
    assert_eq!(tries.load(Ordering::Relaxed), 0, "nothing is due");
    let roots_sha256 = Some(crate::identity::roots_sha256(&both));
    let within = Duration::from_secs(60);
    wanted.send_replace(Wanted {
        roots_sha256,
        within,
    });
    changes.changed().await.unwrap();
    assert_eq!(Some(kept.current().roots_sha256()), roots_sha256);
    assert_eq!(tries.load(Ordering::Relaxed), 2);
    keeping.abort();
}
