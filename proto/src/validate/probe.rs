//! Probes of containers: Kubernetes' defaults and rules.

use super::{Checker, defaults::fill, lifecycle, names};
use crate::v1::{Container, HttpGetAction, Probe};

/// Fills in what a container's probes leave out.
pub(super) fn default(container: &mut Container) {
    let probes = [
        &mut container.liveness_probe,
        &mut container.readiness_probe,
        &mut container.startup_probe,
    ];
    for probe in probes.into_iter().flatten() {
        for (field, default) in [
            (&mut probe.timeout_seconds, 1),
            (&mut probe.period_seconds, 10),
            (&mut probe.success_threshold, 1),
            (&mut probe.failure_threshold, 3),
        ] {
            if *field == 0 {
                *field = default;
            }
        }
        if let Some(get) = &mut probe.http_get {
            default_http(get);
        }
        if let Some(grpc) = &mut probe.grpc {
            grpc.service.get_or_insert_default();
        }
    }
}

/// Fills in what an HTTP request leaves out.
pub(super) fn default_http(get: &mut HttpGetAction) {
    fill(&mut get.path, "/");
    fill(&mut get.scheme, "HTTP");
}

/// The hosts that a container's probes and hooks name, with their fields ("livenessProbe.httpGet.host").
pub(super) fn hosts(container: &Container) -> Vec<(String, String)> {
    let probes = [
        ("livenessProbe", &container.liveness_probe),
        ("readinessProbe", &container.readiness_probe),
        ("startupProbe", &container.startup_probe),
    ];
    let mut found = Vec::new();
    for (name, probe) in probes {
        let Some(probe) = probe else { continue };
        let http = probe.http_get.as_ref().map(|it| ("httpGet", &it.host));
        let tcp = probe.tcp_socket.as_ref().map(|it| ("tcpSocket", &it.host));
        for (way, host) in [http, tcp].into_iter().flatten() {
            if !host.is_empty() {
                found.push((format!("{name}.{way}.host"), host.clone()));
            }
        }
    }
    for (name, handler) in lifecycle::hooks(container) {
        let get = handler.http_get.iter();
        for get in get.filter(|get| !get.host.is_empty()) {
            found.push((format!("lifecycle.{name}.httpGet.host"), get.host.clone()));
        }
    }
    found
}

impl Checker {
    /// The probes of a container that is there to stay.
    pub(super) fn probes(&mut self, path: &str, container: &Container) {
        if let Some(probe) = &container.liveness_probe {
            let path = format!("{path}.livenessProbe");
            self.probe(&path, probe);
            self.succeeds_once(&path, probe);
        }
        if let Some(probe) = &container.readiness_probe {
            let path = format!("{path}.readinessProbe");
            self.probe(&path, probe);
            if let Some(seconds) = probe.termination_grace_period_seconds {
                let rule = "must be absent: a readiness probe ends no container; set it on the liveness or startup probe";
                self.violated(
                    format!("{path}.terminationGracePeriodSeconds"),
                    seconds,
                    rule,
                );
            }
        }
        if let Some(probe) = &container.startup_probe {
            let path = format!("{path}.startupProbe");
            self.probe(&path, probe);
            self.succeeds_once(&path, probe);
        }
    }

    fn probe(&mut self, path: &str, probe: &Probe) {
        let ways = [
            probe.exec.is_some(),
            probe.http_get.is_some(),
            probe.tcp_socket.is_some(),
            probe.grpc.is_some(),
        ];
        if ways.into_iter().filter(|it| *it).count() != 1 {
            let rule = "must have exactly one of exec, grpc, httpGet and tcpSocket";
            self.violated(path, "", rule);
        }
        if let Some(exec) = &probe.exec
            && exec.command.is_empty()
        {
            self.required(format!("{path}.exec.command"));
        }
        if let Some(get) = &probe.http_get {
            self.http_get(&format!("{path}.httpGet"), get);
        }
        if let Some(tcp) = &probe.tcp_socket {
            let port = tcp.port.clone().unwrap_or_default();
            self.target_port(format!("{path}.tcpSocket.port"), &port);
        }
        if let Some(grpc) = &probe.grpc {
            self.port(format!("{path}.grpc.port"), grpc.port);
        }
        for (field, value) in [
            ("initialDelaySeconds", probe.initial_delay_seconds),
            ("timeoutSeconds", probe.timeout_seconds),
            ("periodSeconds", probe.period_seconds),
            ("successThreshold", probe.success_threshold),
            ("failureThreshold", probe.failure_threshold),
        ] {
            self.at_least(format!("{path}.{field}"), value, 0);
        }
        if let Some(seconds) = probe.termination_grace_period_seconds {
            let field = format!("{path}.terminationGracePeriodSeconds");
            self.at_least(field, seconds, 1);
        }
    }

    pub(super) fn http_get(&mut self, path: &str, get: &HttpGetAction) {
        let port = get.port.clone().unwrap_or_default();
        self.target_port(format!("{path}.port"), &port);
        self.one_of(format!("{path}.scheme"), &get.scheme, &["HTTP", "HTTPS"]);
        for (index, header) in get.http_headers.iter().enumerate() {
            let field = format!("{path}.httpHeaders[{index}]");
            let name = names::header_name(&header.name);
            self.text(format_args!("{field}.name"), &header.name, name);
            let value = names::header_value(&header.value);
            self.text(format_args!("{field}.value"), &header.value, value);
        }
    }

    fn succeeds_once(&mut self, path: &str, probe: &Probe) {
        if probe.success_threshold > 1 {
            let rule = "must be 1 for liveness and startup probes";
            let field = format!("{path}.successThreshold");
            self.violated(field, probe.success_threshold, rule);
        }
    }
}
