//! Descriptors as far as the registry needs them: prost's own drop extensions, where the options are.

use prost::Message;

use super::PACKAGE;

#[derive(Clone, PartialEq, Message)]
pub struct DescriptorSet {
    #[prost(message, repeated, tag = "1")]
    files: Vec<File>,
}

#[derive(Clone, PartialEq, Message)]
struct File {
    #[prost(message, repeated, tag = "4")]
    messages: Vec<Descriptor>,
    #[prost(message, repeated, tag = "5")]
    enumerations: Vec<Enumeration>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Descriptor {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(message, repeated, tag = "2")]
    pub fields: Vec<Field>,
    #[prost(message, optional, tag = "7")]
    pub options: Option<MessageOptions>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Field {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(int32, tag = "3")]
    pub number: i32,
    #[prost(int32, tag = "5")]
    pub r#type: i32,
    #[prost(string, tag = "6")]
    type_name: String,
    #[prost(message, optional, tag = "8")]
    options: Option<FieldOptions>,
    #[prost(string, tag = "10")]
    pub json_name: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct Enumeration {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, repeated, tag = "2")]
    values: Vec<EnumValue>,
}

#[derive(Clone, PartialEq, Message)]
struct EnumValue {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(int32, tag = "2")]
    number: i32,
}

// The numbers of the extensions in kinds.proto.
#[derive(Clone, PartialEq, Message)]
pub struct MessageOptions {
    #[prost(message, optional, tag = "50004")]
    pub api_kind: Option<KindOptions>,
}

#[derive(Clone, PartialEq, Message)]
struct FieldOptions {
    #[prost(message, optional, tag = "50005")]
    stored: Option<RecordOptions>,
}

#[derive(Clone, PartialEq, Message)]
pub struct KindOptions {
    #[prost(string, tag = "1")]
    pub api_version: String,
    #[prost(string, tag = "2")]
    pub name: String,
    #[prost(string, tag = "3")]
    pub plural: String,
    #[prost(string, tag = "4")]
    pub singular: String,
    #[prost(string, repeated, tag = "5")]
    pub short: Vec<String>,
    #[prost(bool, tag = "6")]
    pub cluster_scoped: bool,
    #[prost(bool, tag = "7")]
    pub kept_by_managers: bool,
    #[prost(string, repeated, tag = "8")]
    pub parts: Vec<String>,
    #[prost(int32, tag = "9")]
    pub read: i32,
    #[prost(int32, tag = "10")]
    pub write: i32,
    #[prost(string, repeated, tag = "11")]
    pub selectable: Vec<String>,
    #[prost(string, repeated, tag = "12")]
    pub spec: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
pub struct RecordOptions {
    #[prost(uint32, tag = "1")]
    pub level: u32,
    #[prost(string, tag = "2")]
    pub about: String,
    #[prost(bool, tag = "3")]
    pub ends_with_owner: bool,
    #[prost(bool, tag = "4")]
    pub own_rules: bool,
}

impl DescriptorSet {
    /// # Errors
    /// When the bytes are no `FileDescriptorSet`.
    pub fn read(bytes: &[u8]) -> Result<Self, String> {
        Self::decode(bytes).map_err(|error| error.to_string())
    }

    /// # Errors
    /// When there is no message of this name.
    pub fn message(&self, name: &str) -> Result<&Descriptor, String> {
        let mut messages = self.files.iter().flat_map(|file| &file.messages);
        messages
            .find(|message| message.name == name)
            .ok_or_else(|| format!("there is no message {name}"))
    }

    /// # Errors
    /// When there is no enumeration of this name.
    pub fn enumeration(&self, name: &str) -> Result<&Enumeration, String> {
        let mut all = self.files.iter().flat_map(|file| &file.enumerations);
        all.find(|one| one.name == name)
            .ok_or_else(|| format!("there is no enumeration {name}"))
    }
}

impl Enumeration {
    pub fn number(&self, name: &str) -> Option<i32> {
        let mut values = self.values.iter();
        values
            .find(|value| value.name == name)
            .map(|value| value.number)
    }
}

impl Field {
    /// The name of its message.
    pub fn message(&self) -> String {
        self.type_name.trim_start_matches(PACKAGE).to_owned()
    }

    pub fn stored(&self) -> RecordOptions {
        let options = self.options.as_ref();
        options
            .and_then(|options| options.stored.clone())
            .unwrap_or_default()
    }
}
