//! Labels and annotations of pods.
//!
//! A pod has those of its template, and its record says only in what it differs. So nearly all pods say nothing, and their labels are
//! compared once per template. The few that differ are in an index of their own.

use std::{borrow::Cow, sync::Arc};

use barge_proto::{
    selector::Labels,
    v1::{PodTemplateSpec, Revision},
};

use crate::{kind::Kind as _, packed::PackedPod, state::State};

static NONE: Labels = Labels::new();

/// In what labels, or annotations, of a pod differ from those of its template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Own<'a> {
    /// Those that the template lacks, or has with another value.
    pub set: &'a Labels,
    /// Keys of those that only the template has.
    pub removed: &'a [String],
}

impl<'a> Own<'a> {
    /// Whether they do not differ.
    pub fn is_none(self) -> bool {
        self.set.is_empty() && self.removed.is_empty()
    }

    /// All of them, over those of the template.
    pub fn over<'t>(self, template: &'t Labels) -> Cow<'t, Labels> {
        if self.is_none() {
            return Cow::Borrowed(template);
        }
        let mut all = template.clone();
        for key in self.removed {
            all.remove(key);
        }
        let own = self.set.iter();
        all.extend(own.map(|(key, value)| (key.clone(), value.clone())));
        Cow::Owned(all)
    }

    /// What `pod` has to say beside `template`: what it sets, and the keys that it removes.
    pub fn between(template: &Labels, pod: &Labels) -> (Labels, Vec<String>) {
        let differs = |(key, value): &(&String, &String)| template.get(*key) != Some(*value);
        let set = pod.iter().filter(differs);
        let set = set.map(|(key, value)| (key.clone(), value.clone()));
        let removed = template.keys().filter(|key| !pod.contains_key(*key));
        (set.collect(), removed.cloned().collect())
    }
}

/// The labels of a template: those of its pods that say nothing else.
pub fn labels_of(template: Option<&PodTemplateSpec>) -> &Labels {
    let metadata = template.and_then(|template| template.metadata.as_ref());
    metadata.map_or(&NONE, |metadata| &metadata.labels)
}

/// The labels of a pod that is made from this template.
pub fn of_pod<'t>(pod: &PackedPod, template: Option<&'t Revision>) -> Cow<'t, Labels> {
    let template = template.and_then(|revision| revision.template.as_ref());
    pod.own_labels().over(labels_of(template))
}

impl State {
    /// The labels of a pod. Whoever selects pods goes by these.
    pub fn labels(&self, pod: &PackedPod) -> Cow<'_, Labels> {
        of_pod(pod, self.template(pod).map(Arc::as_ref))
    }

    /// The pods of a namespace whose labels fit, each with its template. Labels are compared once per template, and once for each pod
    /// that has its own: a namespace may have many more pods than those that fit.
    pub fn pods_labelled<'a>(
        &'a self,
        namespace: &str,
        fit: impl Fn(&Labels) -> bool + Copy + 'a,
    ) -> impl Iterator<Item = (&'a Arc<Revision>, &'a Arc<PackedPod>)> {
        let templates = self.list::<Revision>(Some(namespace));
        let fitting = templates.filter(move |template| fit(labels_of(template.template.as_ref())));
        let as_template = fitting.flat_map(move |template| {
            let pods = self.pods_of(template.uid());
            let pods = pods.filter(|pod| pod.own_labels().is_none());
            pods.map(move |pod| (template, pod))
        });
        let own = self.tables.pods_with_own_labels.get(namespace);
        let own = own.filter_map(move |pod| Some((self.template(pod)?, pod)));
        as_template.chain(own.filter(move |(template, pod)| fit(&of_pod(pod, Some(template)))))
    }

    /// The pods of a namespace whose labels are not those of their template, by uid.
    pub fn pods_with_own_labels(
        &self,
        namespace: &str,
    ) -> impl Iterator<Item = &Arc<PackedPod>> + use<'_> {
        self.tables.pods_with_own_labels.get(namespace)
    }

    /// The pods of a namespace that no owner counts as its own, by uid.
    pub fn pods_without_controller(
        &self,
        namespace: &str,
    ) -> impl Iterator<Item = &Arc<PackedPod>> + use<'_> {
        self.tables.pods_without_controller.get(namespace)
    }
}
