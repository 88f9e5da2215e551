//! Catches panics, which are faults of Barge, around the smallest piece of work, so that a panic costs this piece and nothing else.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
};

/// What a panic said.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("panic: {0}")]
pub struct Panicked(pub String);

impl From<Box<dyn Any + Send>> for Panicked {
    fn from(payload: Box<dyn Any + Send>) -> Self {
        let text = payload
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned());
        let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
        Self(text.unwrap_or_else(|| "without a message".to_owned()))
    }
}

/// Does a piece of work. What it may leave half done is for the caller to throw away; plans only read, so nothing is.
///
/// # Errors
/// [`Panicked`] when it panics.
pub fn catch<T>(work: impl FnOnce() -> T) -> Result<T, Panicked> {
    catch_unwind(AssertUnwindSafe(work)).map_err(Panicked::from)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::panic)]
    use super::*;

    #[test]
    fn the_message_is_kept() {
        let said = |work: fn()| catch(work).map_err(|panicked| panicked.0);
        assert_eq!(said(|| panic!("fixed")), Err("fixed".to_owned()));
        assert_eq!(said(|| panic!("number {}", 7)), Err("number 7".to_owned()));
        assert_eq!(said(|| {}), Ok(()));
    }
}
