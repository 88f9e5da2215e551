//! The form in which the state keeps a message: the message itself, or a smaller form without loss.

use std::{borrow::Cow, fmt::Debug};

use barge_proto::v1::{OwnerReference, PodRecord};

use crate::{
    kind::Kind,
    packed::{PackedPod, Pool},
};

/// What tables hold: found by uid, name and owners.
pub trait Kept: Clone + PartialEq + Debug + 'static {
    /// What it says.
    type Message: Kind<Kept = Self>;

    /// Keeps a message, by itself.
    fn unshared(message: Self::Message) -> Self;

    /// Keeps a message beside others.
    fn keep(message: Self::Message, _pool: &mut Pool) -> Self {
        Self::unshared(message)
    }

    /// The message.
    fn message(&self) -> Cow<'_, Self::Message>;

    /// The uid.
    fn uid(&self) -> &str;

    /// The namespace; empty for kinds that have none.
    fn namespace(&self) -> &str;

    /// The name.
    fn name(&self) -> &str;

    /// What it belongs to.
    fn owners(&self) -> &[OwnerReference];

    /// What has to be done before it may go.
    fn finalizers(&self) -> &[String];

    /// Uids that it is found by in [`crate::State::owned`].
    fn owner_uids(&self) -> Vec<&str> {
        let owners = self.owners().iter();
        owners.map(|owner| owner.uid.as_str()).collect()
    }

    /// Nearly what it takes in memory, in bytes.
    fn size(&self) -> usize;
}

/// The counts beside a record that is shared.
pub(crate) const ARC: usize = 2 * size_of::<usize>();

macro_rules! keep_as_it_is {
    (PodRecord) => {};
    ($message:ident $(, $about:ident)?) => {
        impl Kept for $message {
            type Message = $message;

            fn unshared(mut message: $message) -> $message {
                // Lists have room for four when they have one, and these hardly ever grow.
                let meta = message.meta_mut();
                meta.managed_fields.shrink_to_fit();
                meta.owner_references.shrink_to_fit();
                meta.finalizers.shrink_to_fit();
                message
            }

            fn message(&self) -> Cow<'_, $message> {
                Cow::Borrowed(self)
            }

            fn uid(&self) -> &str {
                &self.meta().uid
            }

            fn namespace(&self) -> &str {
                &self.meta().namespace
            }

            fn name(&self) -> &str {
                &self.meta().name
            }

            fn owners(&self) -> &[OwnerReference] {
                &self.meta().owner_references
            }

            fn finalizers(&self) -> &[String] {
                &self.meta().finalizers
            }

            $(fn owner_uids(&self) -> Vec<&str> {
                let owners = self.owners().iter().map(|owner| owner.uid.as_str());
                let about = self.$about.iter().map(|object| object.uid.as_str());
                owners.chain(about).collect()
            })?

            fn size(&self) -> usize {
                $crate::kept::ARC + size_of::<$message>() + barge_proto::Heap::heap(self)
            }
        }
    };
}
pub(crate) use keep_as_it_is;

impl Kept for PackedPod {
    type Message = PodRecord;

    fn unshared(message: PodRecord) -> PackedPod {
        PackedPod::new(message)
    }

    fn keep(message: PodRecord, pool: &mut Pool) -> PackedPod {
        pool.share(PackedPod::new(message))
    }

    fn message(&self) -> Cow<'_, PodRecord> {
        Cow::Owned(self.record())
    }

    fn uid(&self) -> &str {
        PackedPod::uid(self)
    }

    fn namespace(&self) -> &str {
        PackedPod::namespace(self)
    }

    fn name(&self) -> &str {
        PackedPod::name(self)
    }

    fn owners(&self) -> &[OwnerReference] {
        PackedPod::owners(self)
    }

    fn finalizers(&self) -> &[String] {
        PackedPod::finalizers(self)
    }

    fn size(&self) -> usize {
        ARC + PackedPod::size(self) + self.unshared_size()
    }
}
