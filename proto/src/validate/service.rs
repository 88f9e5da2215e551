//! Services.

use std::{collections::HashSet, net::Ipv4Addr};

use super::{Checker, PROTOCOLS, names};
use crate::v1::{IntOrString, Service, ServicePort, ServiceSpec, int_or_string::Value};

/// The ports that nodes open for Services.
const NODE_PORTS: std::ops::RangeInclusive<i32> = 30000..=32767;

/// For how many seconds a client may stay with an endpoint.
const STAYS: std::ops::RangeInclusive<i32> = 1..=86_400;

/// Whether a text is an IPv4 address and the length of a prefix.
fn is_range(text: &str) -> bool {
    let Some((address, length)) = text.trim().split_once('/') else {
        return false;
    };
    let length = length.parse::<u8>().is_ok_and(|length| length <= 32);
    address.parse::<Ipv4Addr>().is_ok() && length
}

impl Checker {
    pub(super) fn service(&mut self, service: &Service) {
        let Some(spec) = &service.spec else {
            return self.required("spec");
        };
        let headless = spec.cluster_ip == "None";
        if spec.ports.is_empty() && !headless {
            self.violated("spec.ports", "", "at least one port is required");
        }
        self.service_ports(spec);
        self.labels("spec.selector", &spec.selector);
        self.cluster_ips(spec);
        let types = ["ClusterIP", "NodePort", "LoadBalancer"];
        self.one_of("spec.type", &spec.r#type, &types);
        self.policies(spec);
        if headless && spec.has_node_ports() {
            let rule = format!("must not be None in a Service of type {}", spec.r#type);
            self.violated("spec.clusterIP", "", rule);
        }
    }

    /// Who is sent where.
    fn policies(&mut self, spec: &ServiceSpec) {
        self.one_of(
            "spec.sessionAffinity",
            &spec.session_affinity,
            &["None", "ClientIP"],
        );
        if let Some(config) = &spec.session_affinity_config {
            let field = "spec.sessionAffinityConfig.clientIP.timeoutSeconds";
            let seconds = config.client_ip.as_ref().and_then(|it| it.timeout_seconds);
            if spec.session_affinity != "ClientIP" {
                let rule = "must be absent unless sessionAffinity is ClientIP";
                self.violated("spec.sessionAffinityConfig", "", rule);
            } else if let Some(seconds) = seconds.filter(|it| !STAYS.contains(it)) {
                let rule = format!("must be from {} to {} seconds", STAYS.start(), STAYS.end());
                self.violated(field, seconds, rule);
            }
        }
        let policies = ["Cluster", "Local"];
        let outside = &spec.external_traffic_policy;
        self.one_of("spec.externalTrafficPolicy", outside, &policies);
        if !outside.is_empty() && !spec.has_node_ports() {
            let rule = "must be absent unless the type is NodePort or LoadBalancer";
            self.violated(
                "spec.externalTrafficPolicy",
                format_args!("{outside:?}"),
                rule,
            );
        }
        let inside = &spec.internal_traffic_policy;
        self.one_of("spec.internalTrafficPolicy", inside, &policies);
        for (index, range) in spec.load_balancer_source_ranges.iter().enumerate() {
            let field = format!("spec.loadBalancerSourceRanges[{index}]");
            if spec.r#type != "LoadBalancer" {
                let rule = "must be absent unless the type is LoadBalancer";
                return self.violated(field, format_args!("{range:?}"), rule);
            }
            if !is_range(range) {
                let rule = "must be a range of IPv4 addresses like 192.0.2.0/24";
                self.violated(field, format_args!("{range:?}"), rule);
            }
        }
    }

    fn cluster_ips(&mut self, spec: &ServiceSpec) {
        let ip = &spec.cluster_ip;
        if !matches!(ip.as_str(), "" | "None") && ip.parse::<Ipv4Addr>().is_err() {
            let rule = "must be an IPv4 address or None";
            self.violated("spec.clusterIP", format_args!("{ip:?}"), rule);
        }
        match spec.cluster_ips.as_slice() {
            [] => {}
            [only] if only == ip => {}
            ips => {
                let rule = "must be clusterIP and nothing else";
                self.violated("spec.clusterIPs", format_args!("{ips:?}"), rule);
            }
        }
    }

    fn service_ports(&mut self, spec: &ServiceSpec) {
        let mut names = HashSet::new();
        let mut ports = HashSet::new();
        let mut node_ports = HashSet::new();
        for (index, port) in spec.ports.iter().enumerate() {
            let path = format!("spec.ports[{index}]");
            self.service_port(&path, port, spec);
            if !port.name.is_empty() && !names.insert(&port.name) {
                let name = format_args!("{:?}", port.name);
                self.violated(
                    format!("{path}.name"),
                    name,
                    "is the name of another port, too",
                );
            }
            let protocol = match port.protocol.as_str() {
                "" => "TCP",
                protocol => protocol,
            };
            let rule = format!("is there twice for {protocol}");
            if !ports.insert((port.port, protocol)) {
                self.violated(format!("{path}.port"), port.port, rule.clone());
            }
            if port.node_port != 0 && !node_ports.insert((port.node_port, protocol)) {
                self.violated(format!("{path}.nodePort"), port.node_port, rule);
            }
        }
    }

    fn service_port(&mut self, path: &str, port: &ServicePort, spec: &ServiceSpec) {
        let field = format!("{path}.name");
        if !port.name.is_empty() {
            self.text(field, &port.name, names::dns_label(&port.name));
        } else if spec.ports.len() > 1 {
            self.violated(field, "", "is required when there are several ports");
        }
        self.one_of(format!("{path}.protocol"), &port.protocol, PROTOCOLS);
        self.port(format!("{path}.port"), port.port);
        if let Some(target) = &port.target_port {
            self.target_port(format!("{path}.targetPort"), target);
        }
        if port.node_port == 0 {
            return;
        }
        let field = format!("{path}.nodePort");
        if !spec.has_node_ports() {
            let rule = "must be absent unless the type is NodePort or LoadBalancer";
            self.violated(field, port.node_port, rule);
        } else if !NODE_PORTS.contains(&port.node_port) {
            let (first, last) = (NODE_PORTS.start(), NODE_PORTS.end());
            let rule = format!("must be a port from {first} to {last}");
            self.violated(field, port.node_port, rule);
        }
    }

    pub(super) fn target_port(&mut self, field: String, target: &IntOrString) {
        match &target.value {
            Some(Value::Int(port)) => self.port(field, *port),
            Some(Value::String(name)) => self.text(field, name, names::port_name(name)),
            None => self.port(field, 0),
        }
    }
}

impl ServiceSpec {
    fn has_node_ports(&self) -> bool {
        matches!(self.r#type.as_str(), "NodePort" | "LoadBalancer")
    }
}
