//! The labels that every node has, so that pods can be placed by them without anybody having labelled a machine.

use barge_proto::v1::Node;
use barge_state::Kind;
use std::collections::BTreeMap;

const HOST_NAME: &str = "kubernetes.io/hostname";
const OS: &str = "kubernetes.io/os";
const ARCHITECTURE: &str = "kubernetes.io/arch";

/// A node's labels with those that say what its machine is: its name, and what its agent reports. What people wrote in these is replaced.
pub fn with_machine(node: &Node) -> BTreeMap<String, String> {
    let info = node
        .status
        .as_ref()
        .and_then(|status| status.node_info.clone());
    let info = info.unwrap_or_default();
    let facts = [
        (HOST_NAME, node.meta().name.clone()),
        (OS, info.operating_system),
        (ARCHITECTURE, info.architecture),
    ];
    let mut labels = node.meta().labels.clone();
    // What is not known is left as it is. A name of a node may be longer than a label's value.
    let known =
        |value: &str| !value.is_empty() && barge_proto::validate::label_value(value).is_ok();
    let facts = facts.into_iter().filter(|(_, value)| known(value));
    labels.extend(facts.map(|(key, value)| (key.to_owned(), value)));
    labels
}
