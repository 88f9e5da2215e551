//! What a pod requests and may use, from its specification.

use std::collections::BTreeMap;

use barge_proto::{
    quantity::parse_milli,
    v1::{Container, Pod, Quantity},
};

use super::spec::all_containers;
use crate::runtime::{PodResources, QosClass};

const STORAGE: &str = "ephemeral-storage";

/// What a container requests and may use. An amount that is absent or 0 is no request and no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amounts {
    /// In thousandths of a core; the limit unless the container says.
    pub cpu_request: Option<u64>,
    /// In thousandths of a core.
    pub cpu_limit: Option<u64>,
    /// In bytes; the limit unless the container says.
    pub memory_request: Option<u64>,
    /// In bytes.
    pub memory_limit: Option<u64>,
}

/// Reads a container's amounts. The error is a sentence.
pub fn of_container(container: &Container) -> Result<Amounts, String> {
    let Some(resources) = &container.resources else {
        return Ok(Amounts::default());
    };
    let (requests, limits) = (&resources.requests, &resources.limits);
    let bytes = |milli: Option<u64>| milli.map(|milli| milli.div_ceil(1000));
    let cpu_limit = amount(limits, "cpu")?;
    let memory_limit = bytes(amount(limits, "memory")?);
    Ok(Amounts {
        cpu_request: amount(requests, "cpu")?.or(cpu_limit),
        cpu_limit,
        memory_request: bytes(amount(requests, "memory")?).or(memory_limit),
        memory_limit,
    })
}

/// The most bytes of the node's disk that a container may take with its own file system and its log. The error is a sentence.
pub fn storage_limit(container: &Container) -> Result<Option<u64>, String> {
    let limits = container.resources.as_ref().map(|it| &it.limits);
    let milli = limits.map_or(Ok(None), |limits| amount(limits, STORAGE))?;
    Ok(milli.map(|milli| milli.div_ceil(1000)))
}

/// The bytes of the node's disk that a container requests. The error is a sentence.
pub fn storage_request(container: &Container) -> Result<u64, String> {
    let requests = container.resources.as_ref().map(|it| &it.requests);
    let milli = requests.map_or(Ok(None), |requests| amount(requests, STORAGE))?;
    let limit = storage_limit(container)?;
    Ok(milli
        .map(|milli| milli.div_ceil(1000))
        .or(limit)
        .unwrap_or(0))
}

/// Finds what a pod's containers need at most at a time, and its class by Kubernetes' rules. The error is a sentence.
pub fn of_pod(pod: &Pod) -> Result<PodResources, String> {
    let all: Vec<Amounts> = all_containers(pod)
        .map(of_container)
        .collect::<Result<_, _>>()?;
    let limited = !all.is_empty() && all.iter().all(|amounts| amounts.memory_limit.is_some());
    let at_a_time = |amount: fn(Amounts) -> Option<u64>| {
        let of = |container: &Container| of_container(container).ok().and_then(amount).unwrap_or(0);
        let spec = pod.spec.as_ref();
        spec.map_or(0, |spec| spec.at_a_time(of, u64::saturating_add, u64::max))
    };
    Ok(PodResources {
        qos: class(&all),
        cpu_request_milli: at_a_time(|amounts| amounts.cpu_request),
        memory_limit: limited.then(|| at_a_time(|amounts| amounts.memory_limit)),
    })
}

fn class(all: &[Amounts]) -> QosClass {
    let guaranteed = |a: &Amounts| {
        let limited = a.cpu_limit.is_some() && a.memory_limit.is_some();
        limited && a.cpu_request == a.cpu_limit && a.memory_request == a.memory_limit
    };
    if all.iter().all(|amounts| *amounts == Amounts::default()) {
        QosClass::BestEffort
    } else if all.iter().all(guaranteed) {
        QosClass::Guaranteed
    } else {
        QosClass::Burstable
    }
}

/// An amount in thousandths; 0 means none.
fn amount(table: &BTreeMap<String, Quantity>, name: &str) -> Result<Option<u64>, String> {
    let Some(quantity) = table.get(name) else {
        return Ok(None);
    };
    let milli = parse_milli(quantity).map_err(|error| format!("{name}: {error}"))?;
    Ok(u64::try_from(milli).ok().filter(|milli| *milli > 0))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use barge_proto::v1::{PodSpec, ResourceRequirements};

    use super::*;

    type Table<'a> = &'a [(&'a str, &'a str)];

    fn container(requests: Table<'_>, limits: Table<'_>) -> Container {
        let table = |amounts: Table<'_>| {
            let pairs = amounts.iter().map(|(name, value)| {
                let value = (*value).to_owned();
                ((*name).to_owned(), Quantity { value })
            });
            pairs.collect()
        };
        Container {
            resources: Some(ResourceRequirements {
                requests: table(requests),
                limits: table(limits),
            }),
            ..Default::default()
        }
    }

    fn pod(containers: &[Container]) -> Pod {
        Pod {
            spec: Some(PodSpec {
                containers: containers.to_vec(),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    #[test]
    fn classes_are_kubernetes() {
        let full = [("cpu", "1"), ("memory", "1Gi")];
        let guaranteed = container(&full, &full);
        let by_limits_alone = container(&[], &full);
        let burstable = container(&[("cpu", "100m")], &[]);
        let nothing = container(&[("cpu", "0")], &[]);
        let cpu_only = container(&[], &full[..1]);
        for (containers, class) in [
            (vec![], QosClass::BestEffort),
            (vec![Container::default()], QosClass::BestEffort),
            (vec![nothing.clone()], QosClass::BestEffort),
            (vec![guaranteed.clone()], QosClass::Guaranteed),
            (
                vec![guaranteed.clone(), by_limits_alone],
                QosClass::Guaranteed,
            ),
            (
                vec![guaranteed.clone(), nothing.clone()],
                QosClass::Burstable,
            ),
            (vec![cpu_only], QosClass::Burstable),
            (vec![burstable, nothing], QosClass::Burstable),
            (
                vec![container(&[("cpu", "500m")], &full)],
                QosClass::Burstable,
            ),
        ] {
            assert_eq!(
                of_pod(&pod(&containers)).unwrap().qos,
                class,
                "{containers:?}"
            );
        }
    }

    #[test]
    fn a_pod_is_the_sum_of_its_containers() {
        let first = container(&[("cpu", "250m")], &[("memory", "64Mi")]);
        let second = container(&[], &[("cpu", "1"), ("memory", "1500m")]);
        let both = of_pod(&pod(&[first.clone(), second])).unwrap();
        assert_eq!(both.cpu_request_milli, 1250);
        assert_eq!(both.memory_limit, Some((64 << 20) + 2));
        let unlimited = of_pod(&pod(&[first, Container::default()])).unwrap();
        assert_eq!(unlimited.memory_limit, None);
        let error = of_pod(&pod(&[container(&[("cpu", "much")], &[])])).unwrap_err();
        assert!(error.starts_with("cpu: "), "{error}");
    }
}
