//! Events, as simply as possible.

use barge_proto::v1::Event;
use barge_state::{Kind, RecordKind, Stored, limits::EVICTED};

use super::{Model, at, edit};

impl Model {
    pub fn events(&self, wanted: impl Fn(&Event) -> bool) -> Vec<Stored> {
        let events = self.records.iter().filter_map(Event::from_stored);
        let mut events: Vec<_> = events.filter(|event| wanted(event)).cloned().collect();
        events.sort_by_key(|event| (at(event.last_timestamp), event.uid().to_owned()));
        events.into_iter().map(Stored::Event).collect()
    }

    pub fn record_event(&mut self, event: &Event) {
        let about = |other: &Event| {
            other.involved_object.as_ref().unwrap().uid
                == event.involved_object.as_ref().unwrap().uid
        };
        let same = |other: &Event| about(other) && other.message == event.message;
        if let Some(known) = self.events(same).first() {
            self.set(edit(known, |known: &mut Event| {
                known.count += 1;
                if at(event.last_timestamp) > at(known.last_timestamp) {
                    known.last_timestamp = event.last_timestamp;
                }
            }));
            return;
        }
        if self.get(RecordKind::Event, event.uid()).is_some() {
            return;
        }
        while self.events(about).len() >= self.limits.events_per_object {
            let oldest = self.events(about).remove(0);
            self.delete(&oldest);
        }
        if self.ordered {
            // All are of one namespace, which is the fullest.
            for bound in [self.limits.events_per_namespace, self.limits.events] {
                for _ in 0..EVICTED {
                    if self.events(|_| true).len() >= bound {
                        let oldest = self.events(|_| true).remove(0);
                        self.delete(&oldest);
                    }
                }
            }
        }
        while !self.ordered && self.events(|_| true).len() >= self.limits.events {
            let oldest = self.events(|_| true).remove(0);
            self.delete(&oldest);
        }
        let mut new = event.clone();
        new.first_timestamp = event.last_timestamp;
        new.count = 1;
        let meta = new.metadata.as_mut().unwrap();
        meta.name = format!(
            "{}.{}",
            event.involved_object.as_ref().unwrap().name,
            meta.uid
        );
        meta.namespace = "default".to_owned();
        meta.creation_timestamp = Some(self.now);
        self.set(Stored::Event(new.into()));
    }
}
