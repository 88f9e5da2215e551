//! Secrets that are told once, and the lines with which people describe what they are for.

use rand::Rng;

use crate::error::ApiError;

/// The longest description, in bytes.
const MAX_DESCRIPTION: usize = 256;

/// A description is a line for people.
///
/// # Errors
/// INVALID when it is too long or has control characters.
pub fn check_description(text: &str) -> Result<(), ApiError> {
    match text.len() <= MAX_DESCRIPTION && !text.contains(char::is_control) {
        true => Ok(()),
        false => Err(ApiError::invalid(
            "description",
            format!("one line of at most {MAX_DESCRIPTION} bytes is expected"),
        )),
    }
}

/// A word of lower-case letters and digits, which is also a DNS-1123 name.
pub fn word<const N: usize>() -> String {
    const LETTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyz";
    const ALL: &[u8] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    let mut rng = rand::rng();
    (0..N)
        .map(|at| {
            let set = if at == 0 { LETTERS } else { ALL };
            char::from(set[rng.random_range(0..set.len())])
        })
        .collect()
}

/// 26 characters of 36: more than 128 random bits.
pub fn secret() -> String {
    word::<26>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_names() {
        let word = word::<10>();
        assert!(word.starts_with(|c: char| c.is_ascii_lowercase()));
        assert_eq!(word.len(), 10);
    }
}
