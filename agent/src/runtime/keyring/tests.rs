#![allow(clippy::unwrap_used)]
use super::*;

/// Users whose credentials are tried for a repository, in order.
fn users(keyring: &Keyring, host: &str, repository: &str) -> Vec<String> {
    let found = keyring.find(host, repository);
    let users = found.into_iter().map(|(_, login)| match login {
        Login::Password(user, _) => user.clone(),
        Login::Identity(_) => "identity".to_owned(),
    });
    users.collect()
}

fn keyring(places: &[&str]) -> Keyring {
    let auths: serde_json::Map<_, _> = places
        .iter()
        .map(|place| {
            let entry = serde_json::json!({"username": place, "password": "p"});
            ((*place).to_owned(), entry)
        })
        .collect();
    let config = serde_json::json!({ "auths": auths }).to_string();
    docker_config(config.as_bytes()).unwrap()
}

#[test]
fn a_place_names_hosts_a_port_and_the_beginning_of_paths() {
    for (place, host, repository, fits) in [
        ("example.com", "example.com", "a", true),
        ("https://example.com", "example.com", "a", true),
        ("https://example.com/v1/", "example.com", "a", true),
        ("example.com/v2/team", "example.com", "team/a", true),
        ("Example.com", "example.com", "a", true),
        ("example.com", "www.example.com", "a", false),
        ("example.com", "example.com.evil", "a", false),
        ("example.com", "example.com:443", "a", false),
        ("example.com:5000", "example.com:5000", "a", true),
        ("example.com:5000", "example.com", "a", false),
        ("example.com/team", "example.com", "team/a", true),
        ("example.com/team/", "example.com", "team/a", true),
        ("example.com/team", "example.com", "other/a", false),
        ("*.example.com", "a.example.com", "a", true),
        ("*.example.com", "example.com", "a", false),
        ("*.example.com", "a.b.example.com", "a", false),
        ("*.*.example.com", "a.b.example.com", "a", true),
        ("pre*.example.com", "prefix.example.com", "a", true),
        ("pre*x.example.com", "prefiy.example.com", "a", false),
        ("a?.example.com:1", "ab.example.com:1", "a", true),
        ("*", "localhost", "a", true),
        ("*.example.com/team", "a.example.com", "team/x", true),
        ("[::1]:5000", "[::1]:5000", "a", true),
        ("[::1]", "[::1]:5000", "a", false),
        (
            "https://index.docker.io/v1/",
            "docker.io",
            "library/a",
            true,
        ),
        ("docker.io", "docker.io", "library/a", true),
        ("index.docker.io/library", "docker.io", "library/a", true),
        ("index.docker.io/other", "docker.io", "library/a", false),
        ("https://index.docker.io/v1/", "quay.io", "a", false),
    ] {
        let found = users(&keyring(&[place]), host, repository);
        assert_eq!(!found.is_empty(), fits, "{place} for {host}/{repository}");
    }
}

#[test]
fn the_most_specific_place_comes_first() {
    let keyring = keyring(&[
        "*.example.com",
        "a.example.com",
        "a.example.com/team/app",
        "a*.example.com",
        "a.example.com/team",
        "*.example.com/team",
    ]);
    assert_eq!(
        users(&keyring, "a.example.com", "team/app"),
        [
            "a.example.com/team/app",
            "a.example.com/team",
            "a.example.com",
            "*.example.com/team",
            "a*.example.com",
            "*.example.com",
        ]
    );
}

#[test]
fn each_form_of_credentials_is_read() {
    let login = |entry: &str| {
        let text = format!("{{\"auths\": {{\"h.example\": {entry}}}}}");
        let keyring = docker_config(text.as_bytes()).unwrap();
        let found = keyring.find("h.example", "a");
        found.first().map(|(_, login)| login.clone())
    };
    let expected = Some(Login::Password("me".into(), "se:cret".into()));
    assert_eq!(login(r#"{"auth": "bWU6c2U6Y3JldA=="}"#), expected);
    assert_eq!(login(r#"{"auth": "bWU6c2U6Y3JldA"}"#), expected);
    assert_eq!(
        login(r#"{"username": "me", "password": "se:cret", "email": "x"}"#),
        expected
    );
    let identity = Some(Login::Identity("refresh".into()));
    assert_eq!(
        login(r#"{"auth": "PHRva2VuPjo=", "identitytoken": "refresh"}"#),
        identity
    );
    assert_eq!(login("{}"), None);
    let old = dockercfg(br#"{"https://h.example/v1/": {"auth": "bWU6c2U6Y3JldA=="}}"#).unwrap();
    assert_eq!(users(&old, "h.example", "a"), ["me"]);
}

#[test]
fn what_is_wrong_is_told_without_a_value() {
    for (text, says) in [
        ("hunter2", "is not JSON (line 1"),
        (
            r#"{"auths": {"h": "hunter2"}}"#,
            "is not Docker's configuration",
        ),
        (
            r#"{"auths": {"h": {"auth": "!hunter2"}}}"#,
            "auth that is not base64",
        ),
        (
            r#"{"auths": {"h": {"auth": "aHVudGVyMg=="}}}"#,
            "without a colon",
        ),
        (r#"{"auths": {"": {}}}"#, "not a registry's host"),
    ] {
        let why = docker_config(text.as_bytes()).unwrap_err();
        assert!(why.contains(says), "{text}: {why}");
        assert!(!why.contains("hunter2"), "{text}: {why}");
    }
    let login = Login::Password("hunter2".into(), "hunter2".into());
    assert!(!format!("{login:?}").contains("hunter2"));
}

#[test]
fn a_node_leaves_credentials_to_no_program() {
    for field in [r#""credsStore": "x""#, r#""credHelpers": {"h": "x"}"#] {
        let text = format!("{{\"auths\": {{}}, {field}}}");
        let why = docker_config_of_node(text.as_bytes()).unwrap_err();
        assert!(why.contains("runs no programs"), "{why}");
        docker_config(text.as_bytes()).unwrap();
    }
    docker_config_of_node(br#"{"credsStore": "", "credHelpers": {}}"#).unwrap();
}
