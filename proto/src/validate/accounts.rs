//! ServiceAccounts: the Secrets that they name.

use std::collections::HashSet;

use super::{Checker, names};
use crate::v1::ServiceAccount;

impl Checker {
    pub(super) fn service_account(&mut self, account: &ServiceAccount) {
        let secrets = account.secrets.iter().map(|it| it.name.as_str());
        self.secret_names("secrets", secrets.collect());
        let pull = account.image_pull_secrets.iter();
        self.secret_names(
            "imagePullSecrets",
            pull.map(|it| it.name.as_str()).collect(),
        );
    }

    fn secret_names(&mut self, list: &str, secrets: Vec<&str>) {
        let mut seen = HashSet::new();
        for (index, name) in secrets.into_iter().enumerate() {
            let field = format!("{list}[{index}].name");
            if name.is_empty() {
                self.required(field);
            } else if !seen.insert(name) {
                self.violated(field, format_args!("{name:?}"), "is there twice");
            } else {
                self.text(field, name, names::dns_subdomain(name));
            }
        }
    }
}
