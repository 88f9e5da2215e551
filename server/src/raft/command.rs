//! What an entry of the log carries.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use barge_proto::v1::{Batch, Transaction};
use barge_state::COMPRESSION;
use bytes::Bytes;
use lz4_flex::block;
use prost::Message;

use super::MAX_MESSAGE;

/// Fewer bytes are not worth the time.
const COMPRESSED_FROM: usize = 1 << 10;

/// An encoded [`Batch`]. It is encoded and compressed once, where it is proposed: log and network pass the bytes on, and so do the
/// followers' logs.
#[derive(Clone)]
pub struct Command {
    encoded: Bytes,
    /// What was encoded, where it was: the leader need not decode it. Whoever applies it takes it, so that it does not take memory for
    /// as long as the entry stays at hand.
    proposed: Option<Arc<Mutex<Option<Decoded>>>>,
}

/// Transactions, and how many bytes they have, encoded and not compressed.
type Decoded = (Vec<Transaction>, usize);

/// A command that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// Not protobuf.
    #[error(transparent)]
    Decode(#[from] prost::DecodeError),
    /// Not LZ4.
    #[error("decompress it: {0}")]
    Compressed(#[from] block::DecompressError),
    /// What would be decompressed is larger than any entry of the log.
    #[error("it is said to have {0} bytes decompressed, at most {MAX_MESSAGE} are possible")]
    TooLarge(usize),
    /// Something is missing.
    #[error("it has {found} bytes decompressed, and was said to have {said}")]
    Size {
        /// In bytes.
        found: usize,
        /// In bytes.
        said: usize,
    },
    /// No version writes that.
    #[error("what was compressed is compressed again")]
    Nested,
}

impl Command {
    /// A command of transactions, to be applied in order. Compressed when all managers of a cluster at this feature level
    /// understand that, and a quarter or more is gained by it.
    pub fn of(transactions: Vec<Transaction>, feature_level: u32) -> Self {
        let batch = Batch {
            transactions,
            ..Batch::default()
        };
        let plain = batch.encode_to_vec();
        let decoded = (batch.transactions, plain.len());
        let compressed = match feature_level >= COMPRESSION {
            true => compressed(&plain),
            false => None,
        };
        Self {
            encoded: compressed.unwrap_or(plain).into(),
            proposed: Some(Arc::new(Mutex::new(Some(decoded)))),
        }
    }

    /// As it came out of the log, or from the leader.
    pub fn from_encoded(encoded: Bytes) -> Self {
        Self {
            encoded,
            proposed: None,
        }
    }

    /// As it goes into the log, and to the others.
    pub fn encoded(&self) -> &Bytes {
        &self.encoded
    }

    /// Its transactions, and how many bytes they have, encoded and not compressed. Where it was proposed, the first call takes what was
    /// proposed; all others decode.
    ///
    /// # Errors
    /// For bytes that are no batch of transactions.
    pub fn transactions(&self) -> Result<Decoded, CommandError> {
        if let Some(proposed) = &self.proposed
            && let Some(decoded) = proposed
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take()
        {
            return Ok(decoded);
        }
        let mut batch = Batch::decode(self.encoded.clone())?;
        let mut size = self.encoded.len();
        if !batch.compressed.is_empty() {
            size = usize::try_from(batch.size).unwrap_or(usize::MAX);
            batch = Batch::decode(decompress(&batch.compressed, size)?.as_slice())?;
            if !batch.compressed.is_empty() {
                return Err(CommandError::Nested);
            }
        }
        Ok((batch.transactions, size))
    }
}

/// A batch that holds a compressed one, encoded, if that is worth it.
fn compressed(plain: &[u8]) -> Option<Vec<u8>> {
    if !(COMPRESSED_FROM..=MAX_MESSAGE).contains(&plain.len()) {
        return None;
    }
    let size = u32::try_from(plain.len()).ok()?;
    let compressed = block::compress(plain);
    let is_worth_it = compressed.len() <= plain.len() / 4 * 3;
    is_worth_it.then(|| {
        let batch = Batch {
            compressed: compressed.into(),
            size,
            ..Batch::default()
        };
        batch.encode_to_vec()
    })
}

fn decompress(compressed: &[u8], size: usize) -> Result<Vec<u8>, CommandError> {
    if size > MAX_MESSAGE {
        return Err(CommandError::TooLarge(size));
    }
    let plain = block::decompress(compressed, size)?;
    match plain.len() == size {
        true => Ok(plain),
        false => Err(CommandError::Size {
            found: plain.len(),
            said: size,
        }),
    }
}

impl PartialEq for Command {
    fn eq(&self, other: &Self) -> bool {
        self.encoded == other.encoded
    }
}

impl Eq for Command {}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Command({} bytes)", self.encoded.len())
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use rand::RngCore;

    use super::*;

    fn transactions(payloads: &[Vec<u8>]) -> Vec<Transaction> {
        let transactions = payloads.iter().map(|payload| Transaction {
            id: payload.clone(),
            ..Transaction::default()
        });
        transactions.collect()
    }

    /// As another manager sees it.
    fn sent(command: &Command) -> Command {
        Command::from_encoded(command.encoded.clone())
    }

    fn of(compressed: Vec<u8>, size: u32) -> Command {
        let batch = Batch {
            compressed: compressed.into(),
            size,
            ..Batch::default()
        };
        Command::from_encoded(batch.encode_to_vec().into())
    }

    #[test]
    fn what_repeats_itself_is_compressed_and_comes_back() {
        let transactions = transactions(&[vec![7; 1 << 20], Vec::new(), vec![8; 1 << 20]]);
        let plain = Command::of(transactions.clone(), COMPRESSION - 1);
        assert!(plain.encoded.len() > 2 << 20, "not all managers read it");
        let command = Command::of(transactions.clone(), COMPRESSION);
        assert!(command.encoded.len() < 20 << 10, "{command}");
        let decoded = sent(&command).transactions().unwrap();
        assert_eq!(decoded, sent(&plain).transactions().unwrap());
        assert_eq!(decoded, (transactions, plain.encoded.len()));
    }

    #[test]
    fn what_would_not_become_smaller_stays_as_it_is() {
        let mut random = vec![0; 64 << 10];
        rand::rng().fill_bytes(&mut random);
        for payloads in [vec![random], vec![vec![7; 100]], Vec::new()] {
            let transactions = transactions(&payloads);
            let command = Command::of(transactions.clone(), COMPRESSION);
            assert_eq!(command, Command::of(transactions.clone(), 0));
            assert_eq!(sent(&command).transactions().unwrap().0, transactions);
        }
    }

    #[test]
    fn what_was_proposed_is_taken_once_and_decoded_from_then_on() {
        let transactions = transactions(&[vec![7; 10 << 10], Vec::new()]);
        let command = Command::of(transactions.clone(), COMPRESSION);
        let kept = command.clone();
        let first = command.transactions().unwrap();
        assert_eq!(first.0, transactions);
        let proposed = kept.proposed.as_ref().unwrap();
        assert!(proposed.lock().unwrap().is_none());
        assert_eq!(kept.transactions().unwrap(), first);
    }

    #[test]
    fn what_is_damaged_is_refused() {
        let plain = vec![7; 4 << 10];
        let whole = block::compress(&plain);
        let cut = whole[..whole.len() - 1].to_vec();
        let once = of(whole.clone(), 4 << 10).encoded;
        for (command, error) in [
            (of(cut, 4 << 10), "decompress it: "),
            // More than is said, and less.
            (of(whole.clone(), 4 << 9), "decompress it: "),
            (of(whole.clone(), 4 << 11), "said to have 8192"),
            (of(whole.clone(), u32::MAX), "at most 4194304"),
            // The bytes are as they were, and are no batch.
            (of(whole, 4 << 10), "failed to decode"),
            (
                of(block::compress(&once), once.len() as u32),
                "compressed again",
            ),
        ] {
            let found = command.transactions().unwrap_err().to_string();
            assert!(found.contains(error), "{found}");
        }
    }
}
