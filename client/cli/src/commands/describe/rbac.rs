//! Roles and bindings in words.

use barge_client::v1::{PolicyRule, RoleRef, Subject};

use super::text::Text;

pub fn rules(text: &mut Text, rules: &[PolicyRule]) {
    text.section("Rules", |text| {
        for rule in rules {
            let groups = rule.api_groups.iter().map(|group| match group.as_str() {
                "" => "core",
                group => group,
            });
            let groups: Vec<_> = groups.collect();
            text.field("Verbs", rule.verbs.join(", "));
            text.field("  Resources", rule.resources.join(", "));
            text.field("  API Groups", groups.join(", "));
            text.field("  Names", rule.resource_names.join(", "));
        }
    });
}

pub fn binding(text: &mut Text, role: Option<&RoleRef>, subjects: &[Subject]) {
    if let Some(role) = role {
        text.field("Role", format!("{}/{}", role.kind, role.name));
    }
    let subjects = subjects.iter().map(|subject| {
        let place = match subject.namespace.as_str() {
            "" => String::new(),
            namespace => format!("{namespace}/"),
        };
        format!("{} {place}{}", subject.kind, subject.name)
    });
    text.list("Subjects", subjects);
}
