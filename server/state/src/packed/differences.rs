//! In what labels and annotations of a pod differ from those of its template.

use std::mem;

use barge_proto::{Heap as _, selector::Labels, v1::PodRecord};

use crate::labels::Own;

/// What a record says of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Differences {
    labels: Labels,
    annotations: Labels,
    removed_labels: Vec<String>,
    removed_annotations: Vec<String>,
}

impl Differences {
    /// Takes it out of a record; `None` when there is nothing.
    pub fn take(record: &mut PodRecord) -> Option<Box<Differences>> {
        let mut taken = Differences {
            removed_labels: mem::take(&mut record.removed_labels),
            removed_annotations: mem::take(&mut record.removed_annotations),
            ..Differences::default()
        };
        if let Some(meta) = &mut record.metadata {
            taken.labels = mem::take(&mut meta.labels);
            taken.annotations = mem::take(&mut meta.annotations);
        }
        let is_none = taken.labels().is_none() && taken.annotations().is_none();
        (!is_none).then(|| Box::new(taken))
    }

    /// Puts it back.
    pub fn give(&self, record: &mut PodRecord) {
        record.removed_labels.clone_from(&self.removed_labels);
        record
            .removed_annotations
            .clone_from(&self.removed_annotations);
        if let Some(meta) = &mut record.metadata {
            meta.labels.clone_from(&self.labels);
            meta.annotations.clone_from(&self.annotations);
        }
    }

    /// That of the labels.
    pub fn labels(&self) -> Own<'_> {
        Own {
            set: &self.labels,
            removed: &self.removed_labels,
        }
    }

    /// That of the annotations.
    pub fn annotations(&self) -> Own<'_> {
        Own {
            set: &self.annotations,
            removed: &self.removed_annotations,
        }
    }

    /// Nearly what it takes in memory, in bytes.
    pub fn size(&self) -> usize {
        let maps = self.labels.heap() + self.annotations.heap();
        let lists = self.removed_labels.heap() + self.removed_annotations.heap();
        size_of::<Differences>() + maps + lists
    }
}
