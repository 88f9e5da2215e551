//! Secrets and ConfigMaps. No value is ever part of a message.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Checker, names};
use crate::v1::{ConfigMap, Secret};

/// What `kubectl apply` leaves in objects: the whole manifest, values and all, where anybody may read them.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

impl Checker {
    pub(super) fn secret(&mut self, secret: &Secret) {
        for key in secret.data.keys() {
            self.text(format!("data[{key}]"), key, names::data_key(key));
        }
        for key in secret.string_data.keys() {
            self.text(format!("stringData[{key}]"), key, names::data_key(key));
        }
        self.keys_of_type(&secret.r#type, &secret.data);
        let metadata = secret.metadata.as_ref();
        if metadata.is_some_and(|metadata| metadata.annotations.contains_key(LAST_APPLIED)) {
            let field = format!("metadata.annotations[{LAST_APPLIED}]");
            let rule = "holds the values in clear, and annotations are not sealed: leave it out";
            self.violated(field, "", rule);
        }
    }

    /// The keys that some types demand, so that programs that use such a Secret find them.
    fn keys_of_type(&mut self, kind: &str, data: &BTreeMap<String, Vec<u8>>) {
        let all: &[&str] = match kind {
            "kubernetes.io/tls" => &["tls.crt", "tls.key"],
            "kubernetes.io/ssh-auth" => &["ssh-privatekey"],
            "kubernetes.io/dockercfg" => &[".dockercfg"],
            "kubernetes.io/dockerconfigjson" => &[".dockerconfigjson"],
            "kubernetes.io/basic-auth" => {
                if !data.contains_key("username") && !data.contains_key("password") {
                    let rule =
                        format!("username or password is required in a Secret of type {kind}");
                    self.violated("data", "", rule);
                }
                &[]
            }
            "kubernetes.io/service-account-token" => {
                let rule = "is not possible: Barge keeps no token in a Secret; `barge service-account token` makes one, and pods get theirs in a volume";
                self.violated("type", format_args!("{kind:?}"), rule);
                &[]
            }
            _ => &[],
        };
        for key in all {
            let field = format!("data[{key}]");
            match data.get(*key) {
                None => self.violated(field, "", format!("is required in a Secret of type {kind}")),
                Some(value) if key.starts_with(".docker") => {
                    if serde_json::from_slice::<Value>(value).is_err() {
                        self.violated(field, "", "must be JSON");
                    }
                }
                Some(_) => {}
            }
        }
    }

    pub(super) fn config_map(&mut self, map: &ConfigMap) {
        for key in map.data.keys() {
            self.text(format!("data[{key}]"), key, names::data_key(key));
        }
        for key in map.binary_data.keys() {
            let field = format!("binaryData[{key}]");
            self.text(field.clone(), key, names::data_key(key));
            if map.data.contains_key(key) {
                self.violated(
                    field,
                    "",
                    "is in data too: a key can be in one of them only",
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use crate::{
        v1::{ConfigMap, Object, ObjectMeta, Secret},
        validate::{validate, validate_update},
    };

    fn metadata() -> Option<ObjectMeta> {
        Some(ObjectMeta {
            name: "it".into(),
            ..ObjectMeta::default()
        })
    }

    fn secret(kind: &str, data: &[(&str, &str)]) -> Secret {
        let data = data.iter();
        Secret {
            metadata: metadata(),
            r#type: kind.into(),
            data: data
                .map(|(key, value)| ((*key).into(), value.as_bytes().to_vec()))
                .collect(),
            ..Secret::default()
        }
    }

    fn broken(object: impl Into<Object>) -> String {
        let broken = validate(&object.into()).err().unwrap_or_default();
        let broken: Vec<_> = broken.iter().map(ToString::to_string).collect();
        broken.join("\n")
    }

    #[test]
    fn keys_are_names_of_files() {
        for good in ["a", "tls.crt", ".hidden", "A_b-c.9", "...a.."] {
            let result = broken(secret("", &[(good, "x")]));
            assert_eq!(
                result.is_empty(),
                !good.starts_with(".."),
                "{good}: {result}"
            );
        }
        for bad in ["", ".", "..", "..a", "a/b", "a b", "é", &"a".repeat(254)] {
            let text = broken(secret("", &[(bad, "hunter2")]));
            assert!(text.starts_with(&format!("data[{bad}]")), "{bad}: {text}");
            assert!(!text.contains("hunter2"), "{text}");
        }
    }

    #[test]
    fn types_demand_their_keys() {
        let text = broken(secret("kubernetes.io/tls", &[("tls.crt", "")]));
        assert_eq!(
            text,
            "data[tls.key]: is required in a Secret of type kubernetes.io/tls"
        );
        assert!(!broken(secret("kubernetes.io/basic-auth", &[])).is_empty());
        assert!(broken(secret("kubernetes.io/basic-auth", &[("username", "")])).is_empty());
        let docker = |text| {
            secret(
                "kubernetes.io/dockerconfigjson",
                &[(".dockerconfigjson", text)],
            )
        };
        assert_eq!(broken(docker("{\"auths\":{}}")), "");
        assert_eq!(
            broken(docker("hunter2")),
            "data[.dockerconfigjson]: must be JSON"
        );
        assert!(!broken(secret("kubernetes.io/service-account-token", &[])).is_empty());
        assert_eq!(broken(secret("example.com/mine", &[])), "");
    }

    #[test]
    fn values_in_an_annotation_are_refused() {
        let mut it = secret("Opaque", &[]);
        let annotations = &mut it.metadata.get_or_insert_default().annotations;
        annotations.insert(super::LAST_APPLIED.into(), "hunter2".into());
        let text = broken(it);
        assert!(
            text.contains("leave it out") && !text.contains("hunter2"),
            "{text}"
        );
    }

    #[test]
    fn a_key_is_text_or_bytes() {
        let map = ConfigMap {
            metadata: metadata(),
            data: [("a".to_owned(), "1".to_owned())].into(),
            binary_data: [("a".to_owned(), b"1".to_vec())].into(),
            ..ConfigMap::default()
        };
        let text = broken(map);
        assert!(text.starts_with("binaryData[a]: is in data too"), "{text}");
    }

    #[test]
    fn what_is_immutable_stays() {
        let update = |old: &Secret, new: &Secret| {
            let broken = validate_update(&old.clone().into(), &new.clone().into());
            let broken = broken.err().unwrap_or_default();
            broken.into_iter().map(|v| v.field).collect::<Vec<_>>()
        };
        let open = secret("Opaque", &[("a", "1")]);
        let fixed = Secret {
            immutable: Some(true),
            ..open.clone()
        };
        let mut labelled = fixed.clone();
        let labels = &mut labelled.metadata.get_or_insert_default().labels;
        labels.insert("app".into(), "web".into());
        assert!(update(&open, &secret("Opaque", &[])).is_empty());
        assert!(update(&open, &fixed).is_empty());
        assert!(update(&fixed, &labelled).is_empty());
        assert_eq!(update(&fixed, &open), ["immutable"]);
        let other = Secret {
            immutable: Some(true),
            ..secret("other", &[("a", "2")])
        };
        assert_eq!(update(&fixed, &other), ["type", "data"]);
    }
}
