//! The largest request and object, in bytes. Managers refuse larger ones, and clients split their requests accordingly.

/// A request, encoded.
pub const REQUEST_BYTES: usize = 4 << 20;

/// An object, encoded: with what goes around it, it has to fit into one entry of the log.
pub const OBJECT_BYTES: usize = 3 << 19;

/// Objects that are applied at once.
pub const OBJECTS: usize = 1000;
