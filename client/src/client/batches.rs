//! Splitting objects over several requests.

use barge_proto::limits::{OBJECTS, REQUEST_BYTES};
use prost::Message;

use crate::v1::{Kind, Object};

/// Well below what a manager takes: it writes what it merged with what there was, and answers with that.
const BYTES: usize = REQUEST_BYTES / 4;

/// The objects in as many requests as managers take, each of which is applied whole or not at all; one when that is
/// possible. Namespaces come first, everything else as it is given.
#[must_use]
pub fn batches(mut objects: Vec<Object>) -> Vec<Vec<Object>> {
    let all: usize = objects.iter().map(Message::encoded_len).sum();
    if all <= BYTES && objects.len() <= OBJECTS {
        return vec![objects];
    }
    objects.sort_by_key(|object| object.kind() != Kind::Namespace);
    let mut batches = Vec::new();
    let (mut batch, mut bytes) = (Vec::new(), 0);
    for object in objects {
        let size = object.encoded_len();
        if !batch.is_empty() && (bytes + size > BYTES || batch.len() >= OBJECTS) {
            batches.push(std::mem::take(&mut batch));
            bytes = 0;
        }
        bytes += size;
        batch.push(object);
    }
    batches.push(batch);
    batches
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1::{Namespace, ObjectMeta, Service, object};

    fn meta(name: &str, bytes: usize) -> Option<ObjectMeta> {
        Some(ObjectMeta {
            name: name.to_owned(),
            annotations: [("value".to_owned(), "v".repeat(bytes))].into(),
            ..ObjectMeta::default()
        })
    }

    fn service(name: &str, bytes: usize) -> Object {
        let service = Service {
            metadata: meta(name, bytes),
            ..Service::default()
        };
        Object {
            kind: Some(object::Kind::Service(service)),
        }
    }

    fn namespace(name: &str) -> Object {
        let namespace = Namespace {
            metadata: meta(name, 0),
            ..Namespace::default()
        };
        Object {
            kind: Some(object::Kind::Namespace(namespace)),
        }
    }

    #[test]
    fn what_fits_stays_one_and_as_it_is() {
        let objects = vec![service("a", 10), namespace("n")];
        assert_eq!(batches(objects.clone()), [objects]);
    }

    #[test]
    fn what_does_not_fit_is_split_with_namespaces_first() {
        let mut objects: Vec<_> = (0..50)
            .map(|n| service(&format!("s{n}"), BYTES / 10))
            .collect();
        objects.push(namespace("n"));
        let split = batches(objects);
        assert!(split.len() >= 5, "{}", split.len());
        assert_eq!(split[0][0].name(), "n");
        assert_eq!(split.iter().map(Vec::len).sum::<usize>(), 51);
        for batch in &split {
            let bytes: usize = batch.iter().map(Message::encoded_len).sum();
            assert!(bytes <= BYTES);
        }
        let many = (0..OBJECTS * 2 + 1).map(|n| namespace(&n.to_string()));
        assert_eq!(batches(many.collect()).len(), 3);
    }

    #[test]
    fn one_that_is_too_large_goes_alone_and_is_refused_by_itself() {
        let split = batches(vec![
            service("a", 1),
            service("b", BYTES * 2),
            service("c", 1),
        ]);
        assert_eq!(split.iter().map(Vec::len).collect::<Vec<_>>(), [1, 1, 1]);
    }
}
