//! How many streams an agent serves: a share for each sort, of which one pod may have a part, so that no user of one sort takes the place of all others.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use barge_proto::v1::open_stream::What;

/// What a stream is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Sort {
    /// Logs.
    Logs,
    /// `exec`, `attach` and `cp`.
    Programs,
    /// Connections to ports.
    Ports,
    /// What was measured.
    Metrics,
}

impl Sort {
    /// What is not known counts with what is short.
    pub fn of(what: Option<&What>) -> Self {
        match what {
            Some(What::Logs(_) | What::PreviousLogs(_)) => Self::Logs,
            Some(What::Exec(_) | What::Attach(_)) => Self::Programs,
            Some(What::Forward(_)) => Self::Ports,
            Some(What::Metrics(_)) | None => Self::Metrics,
        }
    }

    /// Streams of this sort at a time.
    pub fn most(self) -> usize {
        match self {
            // One person may follow all pods of a node.
            Self::Logs => 128,
            Self::Programs | Self::Ports => 48,
            Self::Metrics => 8,
        }
    }

    /// Of these, those about one pod. `barge port-forward` knows the number.
    pub fn most_of_pod(self) -> usize {
        self.most() / 2
    }

    fn name(self) -> &'static str {
        match self {
            Self::Logs => "streams of logs",
            Self::Programs => "programs and attachments (exec, attach, cp)",
            Self::Ports => "connections to ports (port-forward)",
            Self::Metrics => "questions about metrics",
        }
    }
}

/// The uid of the pod that a stream is about.
fn pod_of(what: Option<&What>) -> &str {
    match what {
        Some(What::Logs(it) | What::PreviousLogs(it)) => &it.pod_uid,
        Some(What::Exec(it)) => &it.pod_uid,
        Some(What::Attach(it)) => &it.pod_uid,
        Some(What::Forward(it)) => &it.pod_uid,
        Some(What::Metrics(_)) | None => "",
    }
}

/// Streams that are served. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Places(Arc<Mutex<HashMap<Sort, HashMap<String, usize>>>>);

impl Places {
    /// A place for a stream, until it is dropped. The error says which bound is reached, and what to do.
    pub fn take(&self, what: Option<&What>) -> Result<Place, String> {
        let (sort, pod) = (Sort::of(what), pod_of(what));
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let pods = taken.entry(sort).or_default();
        if pods.values().sum::<usize>() >= sort.most() {
            return Err(format!(
                "this node serves {} {} already, the most that it does; end some of them",
                sort.most(),
                sort.name()
            ));
        }
        let of_pod = pods.get(pod).copied().unwrap_or_default();
        if !pod.is_empty() && of_pod >= sort.most_of_pod() {
            return Err(format!(
                "this node serves {} {} of this pod already, the most for one pod; end some of them",
                sort.most_of_pod(),
                sort.name()
            ));
        }
        pods.insert(pod.to_owned(), of_pod + 1);
        Ok(Place {
            places: self.clone(),
            sort,
            pod: pod.to_owned(),
        })
    }
}

/// A stream that is served.
#[derive(Debug)]
pub struct Place {
    places: Places,
    sort: Sort,
    pod: String,
}

impl Drop for Place {
    fn drop(&mut self) {
        let taken = &self.places.0;
        let mut taken = taken.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(pods) = taken.get_mut(&self.sort) else {
            return;
        };
        match pods.get_mut(&self.pod) {
            Some(of_pod @ 2..) => *of_pod -= 1,
            _ => drop(pods.remove(&self.pod)),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use barge_proto::v1::{AgentMetricsRequest, ExecOptions, ForwardOptions, LogOptions};

    use super::*;

    fn forward(pod: &str) -> Option<What> {
        Some(What::Forward(ForwardOptions {
            pod_uid: pod.into(),
            port: 80,
        }))
    }

    #[test]
    fn no_sort_and_no_pod_takes_the_places_of_all() {
        let places = Places::default();
        let take = |what: &Option<What>| places.take(what.as_ref());
        let of_one: Vec<_> = (0..24).map(|_| take(&forward("p")).unwrap()).collect();
        let refused = take(&forward("p")).unwrap_err();
        assert!(refused.contains("24 connections to ports"), "{refused}");
        assert!(refused.contains("of this pod"), "{refused}");
        let of_others: Vec<_> = (0..24)
            .map(|pod| take(&forward(&pod.to_string())).unwrap())
            .collect();
        let refused = take(&forward("q")).unwrap_err();
        assert!(
            refused.contains("48 connections to ports (port-forward) already"),
            "{refused}"
        );

        let exec = What::Exec(ExecOptions {
            pod_uid: "p".into(),
            ..Default::default()
        });
        let logs = What::Logs(LogOptions {
            pod_uid: "p".into(),
            ..Default::default()
        });
        let metrics = What::Metrics(AgentMetricsRequest::default());
        for other in [exec, logs, metrics] {
            take(&Some(other)).unwrap();
        }

        drop(of_others);
        assert!(take(&forward("p")).is_err());
        drop(of_one);
        take(&forward("p")).unwrap();
        let taken = places.0.lock().unwrap();
        assert!(taken.values().all(HashMap::is_empty), "{taken:?}");
    }
}
