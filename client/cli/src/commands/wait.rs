//! `barge wait KIND NAME --for CONDITION`

use std::{
    io::{self, Write},
    str::FromStr,
};

use anyhow::{Result, anyhow, bail};
use barge_client::v1::Object;
use clap::Args;
use serde_json::Value;
use tokio::time::{Instant, timeout_at};

use crate::{
    context::Connection,
    duration::Span,
    explain,
    follow::{self, Group},
    jsonpath::{self, EvalError, Template},
    output,
    targets::Which,
};

const EXAMPLES: &str = "\
Examples:
  barge wait pod web-1 --for condition=Ready --timeout 60s
  barge wait pods -l app=web --for delete
  barge wait deployment/web --for jsonpath='{.status.readyReplicas}'=3";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Wait {
    #[command(flatten)]
    which: Which,
    /// condition=TYPE[=STATUS], delete, create, or jsonpath=PATH[=VALUE]
    #[arg(long = "for", value_name = "CONDITION")]
    until: Until,
    /// How long to wait; 0s looks once
    #[arg(long, default_value = "30s", value_name = "DURATION")]
    timeout: Span,
}

/// What is waited for.
#[derive(Debug, Clone, PartialEq)]
enum Until {
    Deleted,
    Created,
    /// The status of a condition, in any case of letters.
    Condition(String, String),
    /// A path that finds something, or nothing but this value.
    Path(Template, Option<String>),
}

impl FromStr for Until {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (word, rest) = text.split_once('=').unwrap_or((text, ""));
        match (word, rest) {
            ("delete", "") => Ok(Self::Deleted),
            ("create", "") => Ok(Self::Created),
            ("condition", rest) if !rest.is_empty() => {
                let (name, status) = rest.split_once('=').unwrap_or((rest, "True"));
                Ok(Self::Condition(name.to_owned(), status.to_owned()))
            }
            ("jsonpath", rest) if !rest.is_empty() => {
                let (path, value) = match rest.find("}=") {
                    Some(at) => (&rest[..=at], Some(&rest[at + 2..])),
                    None if rest.starts_with('{') => (rest, None),
                    None => match rest.split_once('=') {
                        Some((path, value)) => (path, Some(value)),
                        None => (rest, None),
                    },
                };
                let path = Template::path(path).map_err(|error| error.to_string())?;
                Ok(Self::Path(path, value.map(str::to_owned)))
            }
            _ => Err(format!(
                "\"{text}\" should be condition=Ready, delete, create or jsonpath='{{.status.phase}}'=Running"
            )),
        }
    }
}

impl Until {
    /// Whether it is so of an object as it is now, or of one that is not there.
    fn holds(&self, object: Option<&Object>) -> Result<bool> {
        let Some(object) = object else {
            return Ok(*self == Self::Deleted);
        };
        match self {
            Self::Deleted => Ok(false),
            Self::Created => Ok(true),
            Self::Condition(name, status) => Ok(condition(&output::value(object)?, name, status)),
            Self::Path(path, wanted) => {
                let value = output::value(object)?;
                let found = match path.values(&value) {
                    Ok(found) => found,
                    Err(EvalError::Bounds { .. }) => Vec::new(),
                    Err(error) => return Err(error.into()),
                };
                let mut found = found.into_iter().map(jsonpath::shown).peekable();
                Ok(found.peek().is_some()
                    && found.all(|is| wanted.as_ref().is_none_or(|wanted| is == *wanted)))
            }
        }
    }
}

/// Whether a condition has a status, for the object as it is now and not as it was before its last change.
fn condition(object: &Value, name: &str, status: &str) -> bool {
    let same = |value: &Value, text: &str| {
        value
            .as_str()
            .is_some_and(|it| it.eq_ignore_ascii_case(text))
    };
    let conditions = object["status"]["conditions"].as_array();
    let mut conditions = conditions.into_iter().flatten();
    let Some(found) = conditions.find(|it| same(&it["type"], name)) else {
        return false;
    };
    let observed = [
        &found["observedGeneration"],
        &object["status"]["observedGeneration"],
    ];
    let observed = observed.into_iter().find_map(Value::as_i64);
    let generation = object["metadata"]["generation"].as_i64().unwrap_or(0);
    same(&found["status"], status) && observed.is_none_or(|it| it >= generation)
}

pub async fn run(to: &Connection, wait: Wait) -> Result<()> {
    let deadline = Instant::now() + wait.timeout.0;
    let until = &wait.until;
    let targets = match until {
        // What "barge delete" with the same words leaves alone stays.
        Until::Deleted => wait.which.changeable(to).await?,
        _ => wait.which.targets(to).await?,
    };
    if targets.is_empty() {
        return match until {
            Until::Deleted => Ok(()),
            _ => bail!(
                "no {} found that could be waited for; \"barge get\" with the same words shows what there is",
                wait.which.what.join(" ")
            ),
        };
    }
    let client = to.client()?;
    let once = wait.timeout.0.is_zero();
    let mut failures = Vec::new();
    let named = targets
        .iter()
        .map(|it| (it.kind.kind, it.namespace.as_str(), it.name.as_str()));
    for mut group in follow::groups(named) {
        let Some(kind) = group.kind.info() else {
            continue;
        };
        // Named, but neither there nor to come.
        let mut missing = Vec::new();
        let followed = group.follow(&client, once, |name, object| {
            if object.is_none() && matches!(until, Until::Condition(..) | Until::Path(..)) {
                missing.push(name.to_owned());
                return Ok(true);
            }
            let holds = until.holds(object)?;
            if holds {
                writeln!(io::stdout(), "{}/{name} condition met", kind.qualified())?;
            }
            Ok(holds)
        });
        let done = match once {
            true => followed.await,
            false => timeout_at(deadline, followed).await.unwrap_or(Ok(())),
        };
        failures.extend(done.err());
        failures.extend(missing.iter().map(|name| {
            let (singular, namespace) = (&kind.singular, &group.namespace);
            anyhow!("{singular} \"{name}\" is not there (any more) in namespace \"{namespace}\"")
        }));
        failures.extend(late(&group, &wait));
    }
    explain::all(failures)
}

/// What has not come about in time.
fn late(group: &Group, wait: &Wait) -> Vec<anyhow::Error> {
    let plural = group.kind.info().map_or("objects", |kind| &*kind.plural);
    let late = |name: &String| {
        anyhow!(
            "timed out waiting for the condition on {plural}/{name}; a longer --timeout than {:.0} s waits on",
            wait.timeout.0.as_secs_f64()
        )
    };
    group.names.iter().map(late).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use barge_client::v1::{Condition, ObjectMeta, Pod, PodStatus};

    fn until(text: &str) -> Until {
        text.parse().unwrap()
    }

    fn pod(phase: &str, ready: &str, observed: i64) -> Object {
        Pod {
            metadata: Some(ObjectMeta {
                generation: 2,
                ..ObjectMeta::default()
            }),
            status: Some(PodStatus {
                phase: phase.into(),
                conditions: vec![Condition {
                    r#type: "Ready".into(),
                    status: ready.into(),
                    observed_generation: observed,
                    ..Condition::default()
                }],
                ..PodStatus::default()
            }),
            ..Pod::default()
        }
        .into()
    }

    #[test]
    fn conditions_are_judged_of_the_present_generation() {
        let ready = until("condition=ready");
        assert!(ready.holds(Some(&pod("Running", "True", 2))).unwrap());
        assert!(!ready.holds(Some(&pod("Running", "False", 2))).unwrap());
        assert!(!ready.holds(Some(&pod("Running", "True", 1))).unwrap());
        let not = until("condition=Ready=false");
        assert!(not.holds(Some(&pod("Running", "False", 2))).unwrap());
        assert!(!ready.holds(None).unwrap());
    }

    #[test]
    fn paths_find_something_or_this_value() {
        let running = pod("Running", "True", 2);
        for (text, holds) in [
            ("jsonpath={.status.phase}", true),
            ("jsonpath={.status.phase}=Running", true),
            ("jsonpath=.status.phase=Running", true),
            ("jsonpath={.status.phase}=Pending", false),
            ("jsonpath={.status.podIP}", false),
            ("jsonpath={.status.conditions[3].type}", false),
            (
                "jsonpath={.status.conditions[?(@.type==\"Ready\")].status}=True",
                true,
            ),
            ("create", true),
            ("delete", false),
        ] {
            assert_eq!(until(text).holds(Some(&running)).unwrap(), holds, "{text}");
        }
        assert!(until("delete").holds(None).unwrap());
    }

    #[test]
    fn a_wrong_condition_is_told_with_right_ones() {
        for text in ["ready", "condition=", "jsonpath=", "delete=now"] {
            let error = text.parse::<Until>().unwrap_err();
            assert!(error.contains("condition=Ready"), "{error}");
        }
        let error = "jsonpath={.a".parse::<Until>().unwrap_err();
        assert!(error.contains("at character"), "{error}");
    }
}
