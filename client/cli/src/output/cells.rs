//! Cells that several kinds' columns use.

use std::{
    collections::BTreeMap,
    time::{SystemTime, UNIX_EPOCH},
};

use barge_client::v1::{Condition, LabelSelector, ObjectMeta, Time};

use crate::duration;

pub const NONE: &str = "<none>";

/// Seconds since the Unix epoch.
pub fn now() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
        })
}

/// A number of bytes, to three digits or so.
pub fn size(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    match unit {
        0 => format!("{bytes} B"),
        _ => format!("{value:.1} {}", units[unit]),
    }
}

/// How long ago a time was.
pub fn age(time: Option<&Time>, now: i64) -> String {
    match time {
        Some(time) => duration::human(now.saturating_sub(time.seconds)),
        None => "<unknown>".to_owned(),
    }
}

/// How long until something ends: "in 3d", or "expired".
pub fn until(time: Time, now: i64) -> String {
    match time.seconds.saturating_sub(now) {
        ..0 => "expired".to_owned(),
        left => format!("in {}", duration::human(left)),
    }
}

pub fn age_of(metadata: &ObjectMeta, now: i64) -> String {
    age(metadata.creation_timestamp.as_ref(), now)
}

/// The text, or a sign that there is none.
pub fn or_none(text: &str) -> String {
    if text.is_empty() { NONE } else { text }.to_owned()
}

/// "a=1,b=2"
pub fn pairs(pairs: &BTreeMap<String, String>) -> String {
    let pairs: Vec<_> = pairs
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    or_none(&pairs.join(","))
}

pub fn selector(selector: Option<&LabelSelector>) -> String {
    let Some(selector) = selector else {
        return NONE.to_owned();
    };
    let mut parts: Vec<_> = selector
        .match_labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    for expression in &selector.match_expressions {
        let (key, values) = (&expression.key, expression.values.join(","));
        parts.push(match expression.operator.as_str() {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "DoesNotExist" => format!("!{key}"),
            _ => key.clone(),
        });
    }
    or_none(&parts.join(","))
}

/// The condition of a type.
pub fn condition<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.r#type == kind)
}
