#![allow(clippy::unwrap_used)]

use barge_proto::v1::Role;

use super::*;
use crate::config::RunFlags;

fn config(folder: &Path, token: Option<PathBuf>) -> Config {
    let flags = RunFlags {
        data_dir: Some(folder.to_owned()),
        join: vec!["127.0.0.1:1".into()],
        token_file: token,
        ..Default::default()
    };
    Config::load(flags, "host").unwrap()
}

fn identity() -> Identity {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::default().self_signed(&key);
    let certificate = certificate.unwrap().der().clone();
    Identity {
        cluster_id: "c1".into(),
        role: Role::Agent,
        uid: "n1".into(),
        key: key.serialize_pem(),
        chain: vec![certificate.clone()],
        roots: vec![certificate],
        members: vec!["10.0.0.1:7101".into()],
    }
}

#[test]
fn a_second_agent_is_told_so() {
    let folder = tempfile::tempdir().unwrap();
    let first = DataFolder::take(folder.path()).unwrap();
    let error = DataFolder::take(folder.path()).unwrap_err().to_string();
    assert!(error.contains("another barge-agent"), "{error}");
    drop(first);
    DataFolder::take(folder.path()).unwrap();
}

#[tokio::test]
async fn without_token_or_with_nonsense_it_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let data = DataFolder::take(folder.path()).unwrap();
    let error = data
        .join(&config(folder.path(), None), "10.0.0.2")
        .await
        .unwrap_err();
    assert!(error.to_string().contains("--token-file"), "{error}");
    let token = folder.path().join("token");
    fs::write(&token, "nonsense\n").unwrap();
    let error = data
        .join(&config(folder.path(), Some(token)), "10.0.0.2")
        .await
        .unwrap_err();
    assert!(matches!(error, MembershipError::Token { .. }), "{error}");
}

#[tokio::test]
async fn a_token_of_another_cluster_is_refused_and_the_one_joined_with_ignored() {
    let folder = tempfile::tempdir().unwrap();
    let data = DataFolder::take(folder.path()).unwrap();
    identity().save(&data.identity()).unwrap();
    let pin = |digit: &str| digit.repeat(64);
    fs::write(data.joined_with(), pin("a")).unwrap();
    let token = folder.path().join("token");
    let config = config(folder.path(), Some(token.clone()));
    // Gone, as after an installation: nothing to compare.
    data.join(&config, "10.0.0.2").await.unwrap();
    fs::write(&token, format!("barge1-{}-abcdef-0123456789", pin("a"))).unwrap();
    data.join(&config, "10.0.0.2").await.unwrap();
    fs::write(&token, format!("barge1-{}-abcdef-0123456789", pin("b"))).unwrap();
    let error = data.join(&config, "10.0.0.2").await.unwrap_err();
    assert!(
        matches!(error, MembershipError::OtherCluster { .. }),
        "{error}"
    );
}
