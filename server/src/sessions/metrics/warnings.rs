//! What is missing in an answer, in few sentences however much it is.

use std::collections::{BTreeMap, BTreeSet};

/// Names in a sentence; the others are counted.
const NAMED: usize = 10;

/// What is missing.
#[derive(Debug, Default)]
pub struct Warnings {
    /// Nodes, by what their agents did.
    silent: BTreeMap<String, BTreeSet<String>>,
    /// Pods and nodes that are known and not measured yet.
    pods: BTreeSet<String>,
    nodes: BTreeSet<String>,
    others: Vec<String>,
}

impl Warnings {
    /// A sentence of its own.
    pub fn say(&mut self, sentence: String) {
        self.others.push(sentence);
    }

    /// The agent of a node did not answer: `what` it did instead.
    pub fn silent(&mut self, what: &str, node: &str) {
        let nodes = self.silent.entry(what.to_owned()).or_default();
        nodes.insert(node.to_owned());
    }

    /// The node of a pod has not measured it.
    pub fn no_samples_of_pod(&mut self, namespace: &str, name: &str) {
        self.pods.insert(format!("{namespace}/{name}"));
    }

    /// A node has not measured itself.
    pub fn no_samples_of_node(&mut self, name: &str) {
        self.nodes.insert(name.to_owned());
    }

    /// All of it.
    pub fn sentences(self) -> Vec<String> {
        let silent = self
            .silent
            .iter()
            .map(|(what, nodes)| format!("{} {what}", named("node", nodes)));
        let mut sentences: Vec<_> = silent.collect();
        if !self.nodes.is_empty() {
            let nodes = named("node", &self.nodes);
            sentences.push(format!(
                "no samples of {nodes} yet: the agent was started a moment ago"
            ));
        }
        if !self.pods.is_empty() {
            let pods = named("pod", &self.pods);
            sentences.push(format!(
                "no samples of {pods} yet: containers are measured from a second after their start on"
            ));
        }
        sentences.extend(self.others);
        sentences
    }
}

fn named(what: &str, names: &BTreeSet<String>) -> String {
    let shown: Vec<_> = names.iter().take(NAMED).map(String::as_str).collect();
    let plural = if names.len() == 1 { "" } else { "s" };
    let more = match names.len() - shown.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("{what}{plural} {}{more}", shown.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_names_are_counted() {
        let mut warnings = Warnings::default();
        for node in 10..5000 {
            warnings.silent("did not answer within 3 s", &format!("n{node}"));
        }
        warnings.silent("answers nonsense", "n1");
        warnings.no_samples_of_pod("shop", "web");
        warnings.no_samples_of_pod("shop", "web");
        let sentences = warnings.sentences();
        assert_eq!(sentences.len(), 3);
        assert_eq!(sentences[0], "node n1 answers nonsense");
        assert!(sentences[1].ends_with("n1007 and 4980 more did not answer within 3 s"));
        assert!(sentences[2].starts_with("no samples of pod shop/web yet"));
    }
}
