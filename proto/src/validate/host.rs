//! What a pod is called, and what it calls others: `/etc/hostname`, `/etc/hosts`, `/etc/resolv.conf`.

use std::{collections::HashSet, net::IpAddr};

use super::{Checker, names};
use crate::v1::{PodDnsConfig, PodSpec};

/// What the C library reads of `/etc/resolv.conf` (resolv.conf(5)).
const NAMESERVERS: usize = 3;
/// As in Kubernetes: domains of the search list, and characters in all of them.
const SEARCHES: (usize, usize) = (32, 2048);

impl Checker {
    pub(super) fn host(&mut self, path: &str, spec: &PodSpec) {
        for (field, name) in [("hostname", &spec.hostname), ("subdomain", &spec.subdomain)] {
            if !name.is_empty() {
                self.text(format!("{path}.{field}"), name, names::dns_label(name));
            }
        }
        let mut seen = HashSet::new();
        for (index, alias) in spec.host_aliases.iter().enumerate() {
            let path = format!("{path}.hostAliases[{index}]");
            self.address(format!("{path}.ip"), &alias.ip);
            if !seen.insert(&alias.ip) {
                let shown = format_args!("{:?}", alias.ip);
                self.violated(
                    format!("{path}.ip"),
                    shown,
                    "has an entry already: put its names there",
                );
            }
            for (index, name) in alias.hostnames.iter().enumerate() {
                let result = names::dns_subdomain(name);
                self.text(format!("{path}.hostnames[{index}]"), name, result);
            }
        }
        let policies = ["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"];
        if !spec.dns_policy.is_empty() {
            self.one_of(format!("{path}.dnsPolicy"), &spec.dns_policy, &policies);
        }
        if let Some(config) = &spec.dns_config {
            self.dns_config(&format!("{path}.dnsConfig"), config);
        }
        let servers = spec
            .dns_config
            .as_ref()
            .map_or(0, |config| config.nameservers.len());
        if spec.dns_policy == "None" && servers == 0 {
            let field = format!("{path}.dnsConfig.nameservers");
            self.violated(field, "", "needs at least one, because dnsPolicy is None");
        }
    }

    fn dns_config(&mut self, path: &str, config: &PodDnsConfig) {
        if config.nameservers.len() > NAMESERVERS {
            let rule = format!("are more than the {NAMESERVERS} that programs read");
            self.violated(
                format!("{path}.nameservers"),
                config.nameservers.len(),
                rule,
            );
        }
        for (index, server) in config.nameservers.iter().enumerate() {
            self.address(format!("{path}.nameservers[{index}]"), server);
        }
        let characters: usize = config.searches.iter().map(|domain| domain.len() + 1).sum();
        if config.searches.len() > SEARCHES.0 || characters > SEARCHES.1 {
            let rule = format!(
                "are more than {} domains, or than {} characters in all",
                SEARCHES.0, SEARCHES.1
            );
            self.violated(format!("{path}.searches"), config.searches.len(), rule);
        }
        for (index, domain) in config.searches.iter().enumerate() {
            let field = format!("{path}.searches[{index}]");
            // One dot at the end, or alone, is usual here.
            let plain = domain.strip_suffix('.').unwrap_or(domain);
            if domain != "." {
                self.text(field, domain, names::dns_subdomain(plain));
            }
        }
        for (index, option) in config.options.iter().enumerate() {
            let words = [Some(&option.name), option.value.as_ref()];
            let one_word =
                |word: &&String| !word.contains(|c: char| c.is_whitespace() || c.is_control());
            let field = format!("{path}.options[{index}].name");
            if option.name.is_empty() {
                self.required(field);
            } else if !words.iter().flatten().all(one_word) {
                self.violated(
                    field,
                    format_args!("{:?}", option.name),
                    "and its value must be words",
                );
            }
        }
    }

    fn address(&mut self, field: String, text: &str) {
        if text.parse::<IpAddr>().is_err() {
            self.violated(field, format_args!("{text:?}"), "must be an IP address");
        }
    }
}
