//! The cells of bindings.

use barge_client::v1::{RoleRef, Subject};

use super::Cells;
use crate::output::cells::or_none;

pub fn binding(role: Option<&RoleRef>, subjects: &[Subject], name: String, age: String) -> Cells {
    let role = role.map_or_else(String::new, |it| format!("{}/{}", it.kind, it.name));
    let of = |kind: &str| {
        let named = subjects.iter().filter(|subject| subject.kind == kind);
        let named: Vec<_> = named.map(named_in).collect();
        or_none(&named.join(", "))
    };
    (
        vec![name, role, age],
        vec![of("User"), of("Group"), of("ServiceAccount")],
    )
}

fn named_in(subject: &Subject) -> String {
    match subject.namespace.as_str() {
        "" => subject.name.clone(),
        namespace => format!("{namespace}/{}", subject.name),
    }
}
