//! The life of a container: whether it stays, what is done at its two ends, where it leaves its last word.

use super::{Checker, probe};
use crate::v1::{Container, LifecycleHandler};

/// Where a container leaves its last word unless it says otherwise.
const TERMINATION_LOG: &str = "/dev/termination-log";

/// Signals by name, without SIG; the real-time ones besides.
const SIGNALS: &[&str] = &[
    "ABRT", "ALRM", "BUS", "CHLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "KILL", "PIPE",
    "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP", "TTIN", "TTOU",
    "URG", "USR1", "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ",
];
/// How many real-time signals the C library leaves to programs, besides the first.
const REAL_TIME: u32 = 30;

/// Fills in what a container's hooks leave out. What says the default is kept as absent, so that templates of before these fields stay the same.
pub(super) fn default(container: &mut Container) {
    if let Some(lifecycle) = &mut container.lifecycle {
        let hooks = [&mut lifecycle.post_start, &mut lifecycle.pre_stop];
        let requests = hooks.into_iter().flatten().flat_map(|it| &mut it.http_get);
        requests.for_each(probe::default_http);
    }
    if container.termination_message_path == TERMINATION_LOG {
        container.termination_message_path.clear();
    }
    if container.termination_message_policy == "File" {
        container.termination_message_policy.clear();
    }
}

/// A container's hooks with their names.
pub(super) fn hooks(container: &Container) -> Vec<(&'static str, &LifecycleHandler)> {
    let lifecycle = container.lifecycle.iter();
    let named = lifecycle.flat_map(|it| [("postStart", &it.post_start), ("preStop", &it.pre_stop)]);
    named
        .filter_map(|(name, hook)| Some((name, hook.as_ref()?)))
        .collect()
}

fn is_signal(name: &str) -> bool {
    let Some(name) = name.strip_prefix("SIG") else {
        return false;
    };
    let offset = |text: &str| text.parse().is_ok_and(|offset: u32| offset <= REAL_TIME);
    SIGNALS.contains(&name)
        || matches!(name, "RTMIN" | "RTMAX")
        || name.strip_prefix("RTMIN+").is_some_and(offset)
        || name.strip_prefix("RTMAX-").is_some_and(offset)
}

impl Checker {
    pub(super) fn life(&mut self, path: &str, container: &Container, init: bool) {
        let policy = container.restart_policy.as_str();
        let sidecar = init && policy == "Always";
        if !policy.is_empty() && !sidecar {
            let rule = match init {
                true => {
                    "must be Always, or absent: an init container runs to its end, or it is a sidecar"
                }
                false => "must be absent: the pod's restartPolicy holds for its containers",
            };
            self.violated(
                format!("{path}.restartPolicy"),
                format_args!("{policy:?}"),
                rule,
            );
        }
        if init && !sidecar {
            self.ends(path, container);
        } else {
            self.probes(path, container);
            self.hooks(path, container);
        }
        self.last_word(path, container);
    }

    /// An init container that runs to its end has no use for what accompanies a life.
    fn ends(&mut self, path: &str, container: &Container) {
        let given = [
            ("lifecycle", container.lifecycle.is_some()),
            ("livenessProbe", container.liveness_probe.is_some()),
            ("readinessProbe", container.readiness_probe.is_some()),
            ("startupProbe", container.startup_probe.is_some()),
        ];
        for (field, _) in given.into_iter().filter(|(_, given)| *given) {
            let rule = "must be absent for an init container, unless its restartPolicy is Always";
            self.violated(format!("{path}.{field}"), "", rule);
        }
    }

    fn hooks(&mut self, path: &str, container: &Container) {
        for (name, hook) in hooks(container) {
            self.hook(&format!("{path}.lifecycle.{name}"), hook);
        }
        let signal = container
            .lifecycle
            .as_ref()
            .map_or("", |it| it.stop_signal.as_str());
        if !signal.is_empty() && !is_signal(signal) {
            let rule = "is no signal of Linux (\"SIGTERM\", \"SIGUSR1\", \"SIGRTMIN+1\")";
            let field = format!("{path}.lifecycle.stopSignal");
            self.violated(field, format_args!("{signal:?}"), rule);
        }
    }

    fn hook(&mut self, path: &str, hook: &LifecycleHandler) {
        let ways = [
            hook.exec.is_some(),
            hook.http_get.is_some(),
            hook.sleep.is_some(),
        ];
        if ways.into_iter().filter(|it| *it).count() != 1 {
            let rule = "must have exactly one of exec, httpGet and sleep";
            self.violated(path, "", rule);
        }
        if let Some(exec) = &hook.exec
            && exec.command.is_empty()
        {
            self.required(format!("{path}.exec.command"));
        }
        if let Some(get) = &hook.http_get {
            self.http_get(&format!("{path}.httpGet"), get);
        }
        if let Some(sleep) = &hook.sleep {
            self.at_least(format!("{path}.sleep.seconds"), sleep.seconds, 0);
        }
    }

    fn last_word(&mut self, path: &str, container: &Container) {
        let file = &container.termination_message_path;
        if !file.is_empty() && (!file.starts_with('/') || file.split('/').any(|it| it == "..")) {
            let rule = "must be an absolute path without \"..\"";
            let field = format!("{path}.terminationMessagePath");
            self.violated(field, format_args!("{file:?}"), rule);
        }
        let policy = &container.termination_message_policy;
        if !policy.is_empty() {
            let policies = ["File", "FallbackToLogsOnError"];
            self.one_of(
                format!("{path}.terminationMessagePolicy"),
                policy,
                &policies,
            );
        }
    }
}
