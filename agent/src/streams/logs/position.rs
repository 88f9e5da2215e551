//! Where a reader of a container's output is, in bytes that others only carry.

use jiff::Timestamp;
use prost::Message;

use crate::carrier::logs::Place;

/// Behind a piece of output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Of the container: each has a log of its own.
    pub attempt: u32,
    /// In its log.
    pub place: Place,
    /// By channel: the next piece goes on with a line.
    pub inside: [bool; 3],
}

#[derive(Clone, PartialEq, Message)]
struct Encoded {
    #[prost(uint32, tag = "1")]
    attempt: u32,
    #[prost(uint64, tag = "2")]
    inode: u64,
    #[prost(uint64, tag = "3")]
    offset: u64,
    #[prost(int64, tag = "4")]
    seconds: i64,
    #[prost(int32, tag = "5")]
    nanos: i32,
    /// A bit for each channel.
    #[prost(uint32, tag = "6")]
    inside: u32,
}

impl Position {
    /// As bytes.
    pub fn encode(&self) -> Vec<u8> {
        let Place {
            inode,
            offset,
            time,
        } = self.place;
        let bits = self.inside.iter().enumerate();
        Encoded {
            attempt: self.attempt,
            inode,
            offset,
            seconds: time.as_second(),
            nanos: time.subsec_nanosecond(),
            inside: bits.map(|(at, inside)| u32::from(*inside) << at).sum(),
        }
        .encode_to_vec()
    }

    /// Out of bytes; absent when they are none of ours.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let encoded = Encoded::decode(bytes).ok()?;
        Some(Self {
            attempt: encoded.attempt,
            place: Place {
                inode: encoded.inode,
                offset: encoded.offset,
                time: Timestamp::new(encoded.seconds, encoded.nanos).ok()?,
            },
            inside: [0, 1, 2].map(|at| encoded.inside >> at & 1 == 1),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn survives_its_bytes() {
        let position = Position {
            attempt: 3,
            place: Place {
                inode: 7,
                offset: 1 << 40,
                time: "2026-01-02T15:04:05.123456789Z".parse().unwrap(),
            },
            inside: [false, true, false],
        };
        assert_eq!(Position::decode(&position.encode()), Some(position));
        assert_eq!(Position::decode(b"\xff\xff"), None);
    }
}
