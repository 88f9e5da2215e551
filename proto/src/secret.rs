//! [`Secret`]: its `Debug` form shows keys and sizes, never values.

use std::{collections::BTreeMap, fmt};

use crate::v1::Secret;

impl Secret {
    /// Moves what manifests have in `stringData` to `data`, over what is there. Safe to repeat.
    pub fn fold_string_data(&mut self) {
        let texts = std::mem::take(&mut self.string_data).into_iter();
        self.data
            .extend(texts.map(|(key, text)| (key, text.into_bytes())));
    }
}

/// Keys and sizes, no values: this is for logs and reports.
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = |(key, value): (&String, usize)| (key.clone(), value);
        let data: BTreeMap<_, _> = self.data.iter().map(|(k, v)| size((k, v.len()))).collect();
        let texts = self.string_data.iter();
        let texts: BTreeMap<_, _> = texts.map(|(k, v)| size((k, v.len()))).collect();
        f.debug_struct("Secret")
            .field("metadata", &self.metadata)
            .field("type", &self.r#type)
            .field("data_bytes", &data)
            .field("string_data_bytes", &texts)
            .field("immutable", &self.immutable)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn plain_text_wins_over_data_and_is_gone() {
        let mut secret = Secret {
            data: BTreeMap::from([("a".into(), b"1".to_vec()), ("b".into(), b"2".to_vec())]),
            string_data: BTreeMap::from([("b".into(), "3".into())]),
            ..Secret::default()
        };
        secret.fold_string_data();
        assert_eq!(secret.data["a"], b"1");
        assert_eq!(secret.data["b"], b"3");
        assert!(secret.string_data.is_empty());
    }

    #[test]
    fn debugging_shows_no_value() {
        let secret = Secret {
            data: BTreeMap::from([("password".into(), b"hunter2".to_vec())]),
            string_data: BTreeMap::from([("pin".into(), "4711".into())]),
            ..Secret::default()
        };
        let text = format!("{secret:?}");
        assert!(text.contains("\"password\": 7"), "{text}");
        assert!(!text.contains("4711") && !text.contains("104"), "{text}");
    }
}
