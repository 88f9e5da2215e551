//! Resource requests of pods, and the free resources of nodes.

use std::{collections::BTreeMap, sync::Arc};

use barge_proto::{
    host_ports::HostPort,
    quantity::{QuantityError, parse_milli, parse_whole},
    v1::{Container, Node, PodSpec, Quantity, Revision},
};

use crate::{
    kind::Kind,
    packed::PackedPod,
    ports::{self, PortsInUse},
};

/// Reads a quantity in the unit that is counted.
type Parse = fn(&Quantity) -> Result<i64, QuantityError>;

/// Amounts of what the scheduler reserves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Usage {
    /// Thousandths of a processor.
    pub cpu_milli: i64,
    /// Bytes of memory.
    pub memory_bytes: i64,
    /// Bytes of the node's disk (`ephemeral-storage`).
    pub storage_bytes: i64,
    /// Pods.
    pub pods: i64,
}

impl Usage {
    /// The sum; saturating, because quantities may be as large as anybody writes them.
    #[must_use]
    pub fn plus(self, other: Usage) -> Usage {
        Usage {
            cpu_milli: self.cpu_milli.saturating_add(other.cpu_milli),
            memory_bytes: self.memory_bytes.saturating_add(other.memory_bytes),
            storage_bytes: self.storage_bytes.saturating_add(other.storage_bytes),
            pods: self.pods.saturating_add(other.pods),
        }
    }

    /// The difference; negative where there is less than was taken.
    #[must_use]
    pub fn minus(self, other: Usage) -> Usage {
        Usage {
            cpu_milli: self.cpu_milli.saturating_sub(other.cpu_milli),
            memory_bytes: self.memory_bytes.saturating_sub(other.memory_bytes),
            storage_bytes: self.storage_bytes.saturating_sub(other.storage_bytes),
            pods: self.pods.saturating_sub(other.pods),
        }
    }

    /// What one pod of this spec reserves: what its containers request at most at a time; requests default to limits. A quantity that cannot
    /// be read counts as more than any node has.
    pub fn of_spec(spec: &PodSpec) -> Usage {
        Usage {
            pods: 1,
            ..spec.at_a_time(Usage::of_container, Usage::plus, Usage::max_of_each)
        }
    }

    fn of_container(container: &Container) -> Usage {
        let Some(resources) = &container.resources else {
            return Usage::default();
        };
        let request = |name, parse: Parse| {
            let quantity = resources.requests.get(name).or(resources.limits.get(name));
            quantity.map_or(0, |quantity| parse(quantity).unwrap_or(i64::MAX).max(0))
        };
        Usage {
            cpu_milli: request("cpu", parse_milli),
            memory_bytes: request("memory", parse_whole),
            storage_bytes: request("ephemeral-storage", parse_whole),
            pods: 0,
        }
    }

    fn max_of_each(self, other: Usage) -> Usage {
        Usage {
            cpu_milli: self.cpu_milli.max(other.cpu_milli),
            memory_bytes: self.memory_bytes.max(other.memory_bytes),
            storage_bytes: self.storage_bytes.max(other.storage_bytes),
            pods: self.pods.max(other.pods),
        }
    }

    /// What pods may use of a node: its `status.allocatable`, zero for what it does not name.
    pub fn allocatable(node: &Node) -> Usage {
        let amount = |name, parse: Parse| {
            let quantity = node
                .status
                .as_ref()
                .and_then(|status| status.allocatable.get(name));
            quantity
                .and_then(|quantity| parse(quantity).ok())
                .unwrap_or(0)
        };
        Usage {
            cpu_milli: amount("cpu", parse_milli),
            memory_bytes: amount("memory", parse_whole),
            storage_bytes: amount("ephemeral-storage", parse_whole),
            pods: amount("pods", parse_whole),
        }
    }

    /// The first resource of which there is not enough in `free`, as a sentence for people.
    pub fn lacking_in(self, free: Usage) -> Option<&'static str> {
        if self.pods > free.pods {
            Some("too many pods")
        } else if self.cpu_milli > 0 && self.cpu_milli > free.cpu_milli {
            Some("insufficient cpu")
        } else if self.memory_bytes > 0 && self.memory_bytes > free.memory_bytes {
            Some("insufficient memory")
        } else if self.storage_bytes > 0 && self.storage_bytes > free.storage_bytes {
            Some("insufficient ephemeral-storage")
        } else {
            None
        }
    }
}

/// Whether a pod has ended for good: its resources are free.
pub fn is_finished(pod: &PackedPod) -> bool {
    matches!(pod.phase(), "Succeeded" | "Failed")
}

/// What the pods of each node reserve, kept up to date with each change.
#[derive(Debug, Default)]
pub struct Capacity {
    per_template: BTreeMap<String, Usage>,
    per_node: BTreeMap<String, Usage>,
    /// Only of templates that claim ports of their nodes.
    template_ports: BTreeMap<String, Vec<HostPort>>,
    /// Only of nodes that have pods of these.
    node_ports: BTreeMap<String, PortsInUse>,
}

impl Capacity {
    /// Follows a change of a template. Pods of it are not counted again: it never changes its containers.
    pub fn swap_template(&mut self, before: Option<&Arc<Revision>>, after: Option<&Arc<Revision>>) {
        match (before, after) {
            (_, Some(after)) => {
                let spec = after
                    .template
                    .as_ref()
                    .and_then(|template| template.spec.as_ref());
                let usage = spec.map_or(
                    Usage {
                        pods: 1,
                        ..Usage::default()
                    },
                    Usage::of_spec,
                );
                self.per_template.insert(after.uid().to_owned(), usage);
                let ports = spec.map(ports::claimed).unwrap_or_default();
                if !ports.is_empty() {
                    self.template_ports.insert(after.uid().to_owned(), ports);
                }
            }
            (Some(before), None) => {
                self.per_template.remove(before.uid());
                self.template_ports.remove(before.uid());
            }
            (None, None) => {}
        }
    }

    /// Follows a change of a pod.
    pub fn swap_pod(&mut self, before: Option<&Arc<PackedPod>>, after: Option<&Arc<PackedPod>>) {
        let (before, after) = (before.and_then(reserving), after.and_then(reserving));
        if let (Some(before), Some(after)) = (before, after)
            && before.node_uid() == after.node_uid()
            && before.template_uid() == after.template_uid()
        {
            return;
        }
        if let Some(before) = before {
            let usage = self.template(before.template_uid());
            if let Some(sum) = self.per_node.get_mut(before.node_uid()) {
                *sum = sum.minus(usage);
                if sum.pods == 0 {
                    self.per_node.remove(before.node_uid());
                }
            }
            if let Some(ports) = self.template_ports.get(before.template_uid())
                && let Some(in_use) = self.node_ports.get_mut(before.node_uid())
            {
                in_use.remove(ports);
                if in_use.is_empty() {
                    self.node_ports.remove(before.node_uid());
                }
            }
        }
        if let Some(after) = after {
            let usage = self.template(after.template_uid());
            let sum = self
                .per_node
                .entry(after.node_uid().to_owned())
                .or_default();
            *sum = sum.plus(usage);
            if let Some(ports) = self.template_ports.get(after.template_uid()) {
                let node = after.node_uid().to_owned();
                self.node_ports.entry(node).or_default().add(ports);
            }
        }
    }

    /// What one pod of a template reserves.
    pub fn template(&self, uid: &str) -> Usage {
        self.per_template.get(uid).copied().unwrap_or(Usage {
            pods: 1,
            ..Usage::default()
        })
    }

    /// Whether a node has free what one pod of a template claims of its ports.
    pub fn has_free_ports(&self, template_uid: &str, node_uid: &str) -> bool {
        let Some(ports) = self.template_ports.get(template_uid) else {
            return true;
        };
        let in_use = self.node_ports.get(node_uid);
        in_use.is_none_or(|in_use| in_use.has_room(ports))
    }

    /// The ports that the pods of a node claim.
    pub fn ports(&self, uid: &str) -> Option<&PortsInUse> {
        self.node_ports.get(uid)
    }

    /// What the pods of a node reserve together.
    pub fn node(&self, uid: &str) -> Usage {
        self.per_node.get(uid).copied().unwrap_or_default()
    }
}

/// The pod, when it takes something of its node.
fn reserving(pod: &Arc<PackedPod>) -> Option<&Arc<PackedPod>> {
    Some(pod).filter(|pod| pod.is_bound() && !is_finished(pod))
}
