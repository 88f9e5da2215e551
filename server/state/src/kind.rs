//! The kinds of records: what they have in common, and a record of any kind.

use std::{borrow::Cow, sync::Arc};

use barge_proto::{
    for_each_kind,
    v1::{
        self, ClusterRecord, ClusterRole, ClusterRoleBinding, ConfigMap, CredentialRecord,
        CustomObject, Deployment, Endpoints, Event, ManagerRecord, Namespace, Node, ObjectMeta,
        OwnerReference, PodDisruptionBudget, PodRecord, PodTombstone, RbacRole, Record, ReplicaSet,
        Revision, RoleBinding, Secret, Service, ServiceAccount, TokenRecord,
        record::Record as Body,
    },
};
use prost::Message;

use crate::{
    kept::{Kept, keep_as_it_is},
    packed::{PackedPod, Pool},
    table::Table,
    tables::Tables,
};

/// What records without metadata answer; the state itself holds none.
static NO_META: ObjectMeta = ObjectMeta {
    name: String::new(),
    namespace: String::new(),
    uid: String::new(),
    resource_version: String::new(),
    generation: 0,
    creation_timestamp: None,
    deletion_timestamp: None,
    deletion_grace_period_seconds: None,
    labels: std::collections::BTreeMap::new(),
    annotations: std::collections::BTreeMap::new(),
    owner_references: Vec::new(),
    finalizers: Vec::new(),
    managed_fields: Vec::new(),
};

/// Why bytes are no record.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// They are no message.
    #[error("decode a record")]
    Malformed(#[from] prost::DecodeError),
    /// They are empty, or of a newer version.
    #[error("a record of an unknown kind")]
    UnknownKind,
}

/// A message that the state keeps records of.
pub trait Kind: Message + Clone + PartialEq + Default + 'static {
    /// Which kind this is.
    const KIND: RecordKind;

    /// As what the state keeps it: the message itself, but for pods.
    type Kept: Kept<Message = Self>;

    /// The metadata; an empty one when the message has none.
    fn meta(&self) -> &ObjectMeta;

    /// The metadata to be changed; added when the message has none.
    fn meta_mut(&mut self) -> &mut ObjectMeta;

    /// The uid.
    fn uid(&self) -> &str {
        &self.meta().uid
    }

    /// Whether it is marked to be deleted, and stays until what belongs to it is dealt with.
    fn is_being_deleted(&self) -> bool {
        self.meta().deletion_timestamp.is_some()
    }

    /// The revision at which this record last changed; 0 for one that is not from the state.
    fn revision(&self) -> u64 {
        self.meta().resource_version.parse().unwrap_or_default()
    }

    /// This message as a record of any kind.
    fn into_record(self) -> Record;

    /// What is kept, among that of all kinds.
    fn stored(kept: Arc<Self::Kept>) -> Stored;

    /// The opposite of [`Kind::stored`]; absent when it is of another kind.
    fn from_stored(stored: &Stored) -> Option<&Arc<Self::Kept>>;

    #[doc(hidden)]
    fn table(tables: &Tables) -> &Table<Self::Kept>;

    #[doc(hidden)]
    fn table_mut(tables: &mut Tables) -> &mut Table<Self::Kept>;
}

/// As what a kind is kept: as its message; but pods, of which there are many more than of all else, are packed.
macro_rules! kept_as {
    (PodRecord) => {
        PackedPod
    };
    ($message:ident) => {
        $message
    };
}

macro_rules! define {
    ($($variant:ident($message:ident) $table:ident = $number:literal [$($object:ident($shown:ident))?]
        { level $level:literal, rules [$($rules:tt)*], about [$($about:ident)?], ends_with_owner $ends:literal },)*) => {
        /// The kind of a record; its number is that of its field in `Record`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum RecordKind {
            $(#[doc = stringify!($message)] $variant = $number,)*
        }

        impl RecordKind {
            /// All kinds, by number.
            pub const ALL: &[RecordKind] = &[$(RecordKind::$variant,)*];

            /// The kind with this number.
            pub fn from_number(number: u32) -> Option<RecordKind> {
                match number {
                    $($number => Some(RecordKind::$variant),)*
                    _ => None,
                }
            }

            /// The number that `RecordRef` uses.
            pub fn number(self) -> u32 {
                self as u32
            }

            /// The kind of the records behind a kind of objects; none for `KIND_UNSPECIFIED`.
            pub fn of(kind: v1::Kind) -> Option<RecordKind> {
                match kind {
                    $($(v1::Kind::$object => Some(RecordKind::$object),)?)*
                    v1::Kind::Unspecified => None,
                }
            }

            /// The level that a transaction needs in which there is a record of this kind. An older manager would find a record
            /// without content there, and refuse what the others apply.
            pub fn level(self) -> u32 {
                match self {
                    $(RecordKind::$variant => $level,)*
                }
            }

            /// Whether such a record is nothing without its owner, and goes with it even when what that one owns is to stay.
            pub(crate) fn ends_with_owner(self) -> bool {
                match self {
                    $(RecordKind::$variant => $ends,)*
                }
            }

            /// Whether such a record is found by the object that it is about, which it outlives.
            pub(crate) fn is_about(self) -> bool {
                match self {
                    $(RecordKind::$variant => !stringify!($($about)?).is_empty(),)*
                }
            }

            /// The name that messages use ("Deployment").
            pub fn name(self) -> &'static str {
                match self {
                    $(RecordKind::$variant => stringify!($variant),)*
                }
            }
        }

        /// A record of any kind, shared with the state: cloning it is cheap.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Stored {
            $(#[doc = stringify!($message)] $variant(Arc<<$message as Kind>::Kept>),)*
        }

        impl Stored {
            /// The kind.
            pub fn kind(&self) -> RecordKind {
                match self {
                    $(Stored::$variant(_) => RecordKind::$variant,)*
                }
            }

            /// The uid.
            pub fn uid(&self) -> &str {
                match self {
                    $(Stored::$variant(record) => Kept::uid(record.as_ref()),)*
                }
            }

            /// The namespace; empty for kinds that have none.
            pub fn namespace(&self) -> &str {
                match self {
                    $(Stored::$variant(record) => Kept::namespace(record.as_ref()),)*
                }
            }

            /// The name.
            pub fn name(&self) -> &str {
                match self {
                    $(Stored::$variant(record) => Kept::name(record.as_ref()),)*
                }
            }

            /// What it belongs to.
            pub fn owners(&self) -> &[OwnerReference] {
                match self {
                    $(Stored::$variant(record) => Kept::owners(record.as_ref()),)*
                }
            }

            /// What has to be done before it may go.
            pub fn finalizers(&self) -> &[String] {
                match self {
                    $(Stored::$variant(record) => Kept::finalizers(record.as_ref()),)*
                }
            }

            /// All of the metadata.
            pub fn meta(&self) -> Cow<'_, ObjectMeta> {
                match self {
                    $(Stored::$variant(record) => match record.message() {
                        Cow::Borrowed(message) => Cow::Borrowed(message.meta()),
                        Cow::Owned(mut message) => Cow::Owned(std::mem::take(message.meta_mut())),
                    },)*
                }
            }

            /// A copy with other metadata.
            pub(crate) fn with_meta(
                &self,
                pool: &mut Pool,
                change: impl FnOnce(&mut ObjectMeta),
            ) -> Stored {
                match self {
                    $(Stored::$variant(record) => {
                        let mut copy = record.message().into_owned();
                        change(copy.meta_mut());
                        Stored::$variant(Arc::new(Kept::keep(copy, pool)))
                    })*
                }
            }

            /// The same, with what it has in common with others shared.
            pub(crate) fn shared(self, pool: &mut Pool) -> Stored {
                match self {
                    Stored::Pod(pod) => {
                        Stored::Pod(Arc::new(pool.share(Arc::unwrap_or_clone(pod))))
                    }
                    other => other,
                }
            }

            /// Encodes it as a `Record`.
            pub fn encode(&self) -> Vec<u8> {
                let mut bytes = Vec::new();
                self.encode_to(&mut bytes);
                bytes
            }

            /// As [`Stored::encode`], behind what is in `bytes` already.
            pub fn encode_to(&self, bytes: &mut Vec<u8>) {
                match self {
                    $(Stored::$variant(record) => {
                        let message = record.message();
                        let length = prost::encoding::message::encoded_len($number, &*message);
                        bytes.reserve(length);
                        prost::encoding::message::encode($number, &*message, bytes);
                    })*
                }
            }

            /// Nearly what it takes in memory, in bytes.
            pub fn size(&self) -> usize {
                match self {
                    $(Stored::$variant(record) => Kept::size(record.as_ref()),)*
                }
            }

            /// A copy as the message.
            pub fn to_record(&self) -> Record {
                match self {
                    $(Stored::$variant(record) => record.message().into_owned().into_record(),)*
                }
            }

            /// Reads what [`Stored::encode`] wrote.
            ///
            /// # Errors
            /// When the bytes are no record, or one of a kind that this version does not know.
            pub fn decode(bytes: &[u8]) -> Result<Stored, DecodeError> {
                let record = Record::decode(bytes)?;
                Stored::from_record(record).ok_or(DecodeError::UnknownKind)
            }

            /// Takes a message's record; absent when the message is empty.
            pub fn from_record(record: Record) -> Option<Stored> {
                Some(match record.record? {
                    $(Body::$variant(record) => {
                        Stored::$variant(Arc::new(Kept::unshared(record)))
                    })*
                })
            }
        }

        $(impl Kind for $message {
            const KIND: RecordKind = RecordKind::$variant;

            type Kept = kept_as!($message);

            fn meta(&self) -> &ObjectMeta {
                self.metadata.as_ref().unwrap_or(&NO_META)
            }

            fn meta_mut(&mut self) -> &mut ObjectMeta {
                self.metadata.get_or_insert_default()
            }

            fn into_record(self) -> Record {
                Record { record: Some(Body::$variant(self)) }
            }

            fn stored(kept: Arc<Self::Kept>) -> Stored {
                Stored::$variant(kept)
            }

            fn from_stored(stored: &Stored) -> Option<&Arc<Self::Kept>> {
                match stored {
                    Stored::$variant(record) => Some(record),
                    _ => None,
                }
            }

            fn table(tables: &Tables) -> &Table<Self::Kept> {
                &tables.$table
            }

            fn table_mut(tables: &mut Tables) -> &mut Table<Self::Kept> {
                &mut tables.$table
            }
        }
        keep_as_it_is!($message $(, $about)?);)*
    };
}
for_each_kind!(define);
