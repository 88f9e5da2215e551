//! Docker's configuration files, as Secrets and nodes have them. No message has any of their values.

use std::collections::BTreeMap;

use base64::{
    Engine as _,
    prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD},
};
use serde::Deserialize;
use serde_json::{Value, error::Category};

use super::{Keyring, Login, MOST_ENTRIES, Place};

#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
    #[serde(default, rename = "credsStore")]
    store: Option<Value>,
    #[serde(default, rename = "credHelpers")]
    helpers: Option<Value>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
    /// User name and password, joined by a colon, in base64.
    #[serde(default)]
    auth: String,
    #[serde(default)]
    identitytoken: String,
}

/// Reads `.dockerconfigjson`, the value of a Secret.
///
/// # Errors
/// A sentence's end that says what is wrong with it.
pub fn docker_config(bytes: &[u8]) -> Result<Keyring, String> {
    let config: Config = serde_json::from_slice(bytes).map_err(|error| unreadable(&error))?;
    keyring(config.auths)
}

/// Reads the configuration file of a node. Unlike a Secret it must not leave credentials to programs, because the agent runs none.
///
/// # Errors
/// A sentence's end that says what is wrong with it.
pub fn docker_config_of_node(bytes: &[u8]) -> Result<Keyring, String> {
    let config: Config = serde_json::from_slice(bytes).map_err(|error| unreadable(&error))?;
    for (field, value) in [
        ("credsStore", config.store),
        ("credHelpers", config.helpers),
    ] {
        if value.is_some_and(|value| !is_empty(&value)) {
            return Err(format!(
                "has {field}, and the agent runs no programs that keep credentials: take {field} out, and put the credentials into \"auths\""
            ));
        }
    }
    keyring(config.auths)
}

/// Reads `.dockercfg`, the value of a Secret of the older kind.
///
/// # Errors
/// A sentence's end that says what is wrong with it.
pub fn dockercfg(bytes: &[u8]) -> Result<Keyring, String> {
    let entries = serde_json::from_slice(bytes).map_err(|error| unreadable(&error))?;
    keyring(entries)
}

fn keyring(entries: BTreeMap<String, Entry>) -> Result<Keyring, String> {
    if entries.len() > MOST_ENTRIES {
        return Err(format!("has more than {MOST_ENTRIES} registries"));
    }
    let mut taken = Vec::new();
    for (name, entry) in entries {
        let place = Place::parse(&name)
            .ok_or_else(|| format!("names {name:?}, which is not a registry's host"))?;
        if let Some(login) = entry.login().map_err(|why| format!("{why} for {name:?}"))? {
            taken.push((place, login));
        }
    }
    Ok(Keyring::new(taken))
}

impl Entry {
    /// `None` for an entry that says nothing.
    fn login(self) -> Result<Option<Login>, &'static str> {
        if !self.identitytoken.is_empty() {
            return Ok(Some(Login::Identity(self.identitytoken)));
        }
        if !self.auth.is_empty() {
            let padded = self.auth.trim_end_matches('=');
            let decoded = BASE64_STANDARD_NO_PAD
                .decode(padded)
                .or_else(|_| BASE64_STANDARD.decode(&self.auth));
            let text = decoded.ok().and_then(|bytes| String::from_utf8(bytes).ok());
            let text = text.ok_or("has an auth that is not base64 of text")?;
            let (user, password) = text
                .split_once(':')
                .ok_or("has an auth without a colon between user name and password")?;
            // Docker pads them.
            let password = password.trim_end_matches('\0');
            return Ok(Some(Login::Password(user.to_owned(), password.to_owned())));
        }
        let empty = self.username.is_empty() && self.password.is_empty();
        Ok((!empty).then_some(Login::Password(self.username, self.password)))
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}

/// Where, and not what: the parser's own words may hold a value.
fn unreadable(error: &serde_json::Error) -> String {
    let (line, column) = (error.line(), error.column());
    let what = match error.classify() {
        Category::Data => "is not Docker's configuration",
        _ => "is not JSON",
    };
    format!("{what} (line {line}, column {column})")
}
