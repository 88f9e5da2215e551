//! Deployments.

use super::Checker;
use crate::{
    configuration::ROLL,
    selector::Selector,
    v1::{
        Deployment, DeploymentStrategy, IntOrString, LabelSelector, PodTemplateSpec,
        int_or_string::Value,
    },
};

impl Checker {
    pub(super) fn deployment(&mut self, deployment: &Deployment) {
        let Some(spec) = &deployment.spec else {
            return self.required("spec");
        };
        let annotations = deployment.metadata.as_ref().map(|it| &it.annotations);
        let asked = annotations.and_then(|annotations| annotations.get(ROLL));
        if let Some(asked) = asked.filter(|asked| !matches!(asked.as_str(), "true" | "false")) {
            let field = format!("metadata.annotations[{ROLL}]");
            self.violated(
                field,
                format_args!("{asked:?}"),
                "must be \"true\" or \"false\"",
            );
        }
        self.at_least("spec.replicas", spec.replicas.unwrap_or(1), 0);
        self.selector_and_template("Deployment", spec.selector.as_ref(), spec.template.as_ref());
        if let Some(strategy) = &spec.strategy {
            self.strategy(strategy);
        }
        self.at_least("spec.minReadySeconds", spec.min_ready_seconds, 0);
        let limit = spec.revision_history_limit.unwrap_or(10);
        self.at_least("spec.revisionHistoryLimit", limit, 0);
        if let Some(deadline) = spec.progress_deadline_seconds
            && deadline <= spec.min_ready_seconds
        {
            let rule = format!(
                "must be more than minReadySeconds, {}",
                spec.min_ready_seconds
            );
            self.violated("spec.progressDeadlineSeconds", deadline, rule);
        }
    }

    /// Of an owner of this kind, whose pods are there to stay.
    pub(super) fn selector_and_template(
        &mut self,
        owner: &str,
        selector: Option<&LabelSelector>,
        template: Option<&PodTemplateSpec>,
    ) {
        let selector = match selector {
            None => {
                self.required("spec.selector");
                None
            }
            Some(selector) => self.selector("spec.selector", selector),
        };
        let Some(template) = template else {
            return self.required("spec.template");
        };
        self.template(owner, template);
        let labels = template.metadata.clone().unwrap_or_default().labels;
        if let Some(selector) = selector.filter(|selector| !selector.matches(&labels)) {
            let found = Selector::equal_to(&labels).to_string();
            let rule = format!("must match spec.selector ({selector})");
            self.violated(
                "spec.template.metadata.labels",
                format_args!("{found:?}"),
                rule,
            );
        }
    }

    /// The selector, if it is one that selects something in particular.
    fn selector(&mut self, path: &str, selector: &LabelSelector) -> Option<Selector> {
        let selector = self.requirements(path, selector)?;
        if selector.is_empty() {
            self.violated(path, "", "must not be empty: it would select everything");
            return None;
        }
        Some(selector)
    }

    /// The selector, whatever it selects.
    pub(super) fn requirements(
        &mut self,
        path: &str,
        selector: &LabelSelector,
    ) -> Option<Selector> {
        self.labels(format_args!("{path}.matchLabels"), &selector.match_labels);
        for (index, requirement) in selector.match_expressions.iter().enumerate() {
            let field = format!("{path}.matchExpressions[{index}]");
            let result = super::names::label_key(&requirement.key);
            self.text(format!("{field}.key"), &requirement.key, result);
            for (index, value) in requirement.values.iter().enumerate() {
                let result = super::names::label_value(value);
                self.text(format!("{field}.values[{index}]"), value, result);
            }
        }
        match Selector::try_from(selector) {
            Ok(selector) => Some(selector),
            Err(error) => {
                self.violated(path, "", error.to_string());
                None
            }
        }
    }

    fn template(&mut self, owner: &str, template: &PodTemplateSpec) {
        if let Some(metadata) = &template.metadata {
            self.metadata("spec.template.metadata", metadata);
        }
        let Some(spec) = &template.spec else {
            return self.required("spec.template.spec");
        };
        self.pod_spec("spec.template.spec", spec);
        if matches!(spec.restart_policy.as_str(), "OnFailure" | "Never") {
            let rule = format!("must be Always in a {owner}");
            let value = format_args!("{:?}", spec.restart_policy);
            self.violated("spec.template.spec.restartPolicy", value, rule);
        }
        if let Some(seconds) = spec.active_deadline_seconds {
            let rule = format!("must be absent in a {owner}: its pods are there to stay");
            self.violated("spec.template.spec.activeDeadlineSeconds", seconds, rule);
        }
        if !spec.node_name.is_empty() {
            let rule = format!("must be empty in a {owner}: its pods are scheduled");
            let value = format_args!("{:?}", spec.node_name);
            self.violated("spec.template.spec.nodeName", value, rule);
        }
    }

    fn strategy(&mut self, strategy: &DeploymentStrategy) {
        let types = ["RollingUpdate", "Recreate"];
        self.one_of("spec.strategy.type", &strategy.r#type, &types);
        let Some(rolling) = &strategy.rolling_update else {
            return;
        };
        let path = "spec.strategy.rollingUpdate";
        if strategy.r#type == "Recreate" {
            return self.violated(path, "", "must be absent when the type is Recreate");
        }
        let unavailable = rolling.max_unavailable.as_ref();
        let surge = rolling.max_surge.as_ref();
        self.at_most_all(&format!("{path}.maxUnavailable"), unavailable);
        let unavailable = self.share(&format!("{path}.maxUnavailable"), unavailable);
        let surge = self.share(&format!("{path}.maxSurge"), surge);
        if (unavailable, surge) == (Some(0), Some(0)) {
            let rule = "must not be 0 while maxSurge is 0, too: nothing could be replaced";
            self.violated(format!("{path}.maxUnavailable"), "", rule);
        }
    }

    /// The number or percentage, if it is one; it defaults to 25%.
    pub(super) fn share(&mut self, field: &str, value: Option<&IntOrString>) -> Option<i32> {
        let Some(value) = value else { return Some(25) };
        let number = match &value.value {
            Some(Value::Int(number)) => Some(*number),
            Some(Value::String(text)) => text
                .strip_suffix('%')
                .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))
                .and_then(|digits| digits.parse().ok()),
            None => Some(0),
        };
        match number {
            Some(number) if number >= 0 => Some(number),
            _ => {
                let rule = "must be a whole number of at least 0 or a percentage such as \"25%\"";
                self.violated(field, value, rule);
                None
            }
        }
    }
}
