//! The payload of a log entry: a batch of transactions, encoded once and compressed if that pays.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use barge_proto::v1::{Batch, Transaction};
use barge_state::COMPRESSION;
use bytes::Bytes;
use lz4_flex::block;
use prost::Message;

/// Messages between managers may have this many bytes: an append is cut near 1 MiB, but a single entry is never cut.
pub const MAX_MESSAGE: usize = 4 << 20;

/// Fewer bytes are not worth the time.
const COMPRESSED_FROM: usize = 1 << 10;

/// Room is made for no more transactions before they are seen.
const EXPECTED: usize = 1 << 10;

/// A buffer with more bytes is given back after use.
const KEPT: usize = 2 << 20;

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

    /// What was proposed; only the first call gets it.
    fn take_proposed(&self) -> Option<Decoded> {
        let proposed = self.proposed.as_ref()?;
        proposed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }
}

/// Makes commands, each in the memory of the one before.
#[derive(Default)]
pub struct Encoder {
    plain: Vec<u8>,
    compressed: Vec<u8>,
}

impl Encoder {
    /// A command of transactions, to be applied in order. Compressed when all managers of a cluster at this feature level
    /// understand that, and a quarter or more is gained by it.
    pub fn command(&mut self, transactions: Vec<Transaction>, feature_level: u32) -> Command {
        let batch = Batch {
            transactions,
            ..Batch::default()
        };
        let size = batch.encoded_len();
        self.plain.clear();
        self.plain.reserve(size);
        // A Vec grows, so there is always room.
        batch.encode_raw(&mut self.plain);
        let compressed = match feature_level >= COMPRESSION {
            true => self.compressed(),
            false => None,
        };
        let encoded = compressed.unwrap_or_else(|| self.plain.clone());
        give_back_large(&mut self.plain);
        give_back_large(&mut self.compressed);
        Command {
            encoded: encoded.into(),
            proposed: Some(Arc::new(Mutex::new(Some((batch.transactions, size))))),
        }
    }

    /// A batch that holds the plain one compressed, encoded, if that is worth it.
    fn compressed(&mut self) -> Option<Vec<u8>> {
        let plain = &self.plain;
        if !(COMPRESSED_FROM..=MAX_MESSAGE).contains(&plain.len()) {
            return None;
        }
        let size = u32::try_from(plain.len()).ok()?;
        self.compressed
            .resize(block::get_maximum_output_size(plain.len()), 0);
        // There is room for whatever comes out.
        let length = block::compress_into(plain, &mut self.compressed).ok()?;
        let is_worth_it = length <= plain.len() / 4 * 3;
        let compressed = self.compressed.get(..length).filter(|_| is_worth_it)?;
        let batch = Batch {
            compressed: Bytes::copy_from_slice(compressed),
            size,
            ..Batch::default()
        };
        Some(batch.encode_to_vec())
    }
}

/// Reads commands, each in the memory of the one before.
#[derive(Default)]
pub struct Decoder {
    plain: Vec<u8>,
    /// How many transactions the one before had: the next one is likely to have as many.
    transactions: usize,
}

impl Decoder {
    /// The transactions of a command, and how many bytes they have, encoded and not compressed. Where it was proposed, the first
    /// call takes what was proposed; all others decode.
    ///
    /// # Errors
    /// For bytes that are no batch of transactions.
    pub fn transactions(&mut self, command: &Command) -> Result<Decoded, CommandError> {
        if let Some(proposed) = command.take_proposed() {
            return Ok(proposed);
        }
        let batch = Batch::decode(command.encoded.clone())?;
        if batch.compressed.is_empty() {
            return Ok((batch.transactions, command.encoded.len()));
        }
        let size = usize::try_from(batch.size).unwrap_or(usize::MAX);
        let decoded = self.decompressed(&batch.compressed, size);
        give_back_large(&mut self.plain);
        Ok((decoded?, size))
    }

    fn decompressed(
        &mut self,
        compressed: &[u8],
        said: usize,
    ) -> Result<Vec<Transaction>, CommandError> {
        if said > MAX_MESSAGE {
            return Err(CommandError::TooLarge(said));
        }
        self.plain.resize(said, 0);
        let found = block::decompress_into(compressed, &mut self.plain)?;
        if found != said {
            return Err(CommandError::Size { found, said });
        }
        let mut batch = Batch {
            transactions: Vec::with_capacity(self.transactions.min(EXPECTED)),
            ..Batch::default()
        };
        batch.merge(self.plain.as_slice())?;
        if !batch.compressed.is_empty() {
            return Err(CommandError::Nested);
        }
        self.transactions = batch.transactions.len();
        Ok(batch.transactions)
    }
}

/// Hardly any command needs so much.
fn give_back_large(buffer: &mut Vec<u8>) {
    if buffer.capacity() > KEPT {
        *buffer = Vec::new();
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

    fn encode(transactions: &[Transaction], feature_level: u32) -> Command {
        Encoder::default().command(transactions.to_vec(), feature_level)
    }

    /// As another manager sees it.
    fn sent(command: &Command) -> Command {
        Command::from_encoded(command.encoded.clone())
    }

    fn decode(command: &Command) -> Result<Decoded, CommandError> {
        Decoder::default().transactions(command)
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
        let plain = encode(&transactions, COMPRESSION - 1);
        assert!(plain.encoded.len() > 2 << 20, "not all managers read it");
        let command = encode(&transactions, COMPRESSION);
        assert!(command.encoded.len() < 20 << 10, "{command}");
        let decoded = decode(&sent(&command)).unwrap();
        assert_eq!(decoded, decode(&sent(&plain)).unwrap());
        assert_eq!(decoded, (transactions, plain.encoded.len()));
    }

    #[test]
    fn what_would_not_become_smaller_stays_as_it_is() {
        let mut random = vec![0; 64 << 10];
        rand::rng().fill_bytes(&mut random);
        for payloads in [vec![random], vec![vec![7; 100]], Vec::new()] {
            let transactions = transactions(&payloads);
            let command = encode(&transactions, COMPRESSION);
            assert_eq!(command, encode(&transactions, 0));
            assert_eq!(decode(&sent(&command)).unwrap().0, transactions);
        }
    }

    #[test]
    fn what_was_proposed_is_taken_once_and_decoded_from_then_on() {
        let transactions = transactions(&[vec![7; 10 << 10], Vec::new()]);
        let command = encode(&transactions, COMPRESSION);
        let kept = command.clone();
        let first = decode(&command).unwrap();
        assert_eq!(first.0, transactions);
        let proposed = kept.proposed.as_ref().unwrap();
        assert!(proposed.lock().unwrap().is_none());
        assert_eq!(decode(&kept).unwrap(), first);
    }

    #[test]
    fn one_command_leaves_nothing_in_the_next() {
        let (mut encoder, mut decoder) = (Encoder::default(), Decoder::default());
        for payload in [
            vec![7; 3 << 20],
            vec![8; 2 << 10],
            vec![9],
            vec![7; 5 << 10],
        ] {
            let transactions = transactions(&[payload]);
            let command = encoder.command(transactions.clone(), COMPRESSION);
            assert_eq!(command, encode(&transactions, COMPRESSION));
            let decoded = decoder.transactions(&sent(&command)).unwrap();
            assert_eq!(decoded.0, transactions);
        }
        for buffer in [&encoder.plain, &encoder.compressed, &decoder.plain] {
            assert!(buffer.capacity() <= KEPT, "a large one is given back");
        }
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
            let found = decode(&command).unwrap_err().to_string();
            assert!(found.contains(error), "{found}");
        }
    }
}
