//! How much memory an agent's answer would take: counted before it is decoded.
//!
//! A message that says nothing has two bytes on the way and a hundred in memory. An agent that lies could fill a manager's memory with few bytes.

use barge_proto::v1::AgentMetricsResponse;
use bytes::Buf;
use prost::{
    DecodeError, Message,
    encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field},
};

/// Pods and containers in an answer. A node with 500 containers has at most a thousand.
const MOST: usize = 16_384;
/// The numbers of what there may be many of: pods, in which each value is a message with containers.
const MANY: [u32; 3] = [1, 2, 4];

/// Decodes an answer that has no more parts than a node has containers.
pub fn decode(bytes: &[u8]) -> Result<AgentMetricsResponse, String> {
    let is_none = |error| format!("answers what is none: {error}");
    if count(bytes, &MANY, MOST).map_err(is_none)? > MOST {
        return Err(format!("answers with more than {MOST} pods and containers"));
    }
    AgentMetricsResponse::decode(bytes).map_err(is_none)
}

/// The messages below a message, by a path of fields; no more than one above `most` are counted.
fn count(mut message: &[u8], path: &[u32], most: usize) -> Result<usize, DecodeError> {
    let Some((field, below)) = path.split_first() else {
        return Ok(0);
    };
    let mut found = 0;
    while message.has_remaining() && found <= most {
        let (number, kind) = decode_key(&mut message)?;
        if number != *field || kind != WireType::LengthDelimited {
            skip_field(kind, number, &mut message, DecodeContext::default())?;
            continue;
        }
        let length = decode_varint(&mut message)?;
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        // One that is cut short is an error when it is decoded.
        let (inner, rest) = message.split_at(length.min(message.len()));
        found += 1 + count(inner, below, most - found)?;
        message = rest;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use barge_proto::v1::{ContainerMetrics, PodMetrics};

    use super::*;

    #[test]
    fn few_bytes_that_would_take_much_memory_are_refused() {
        let pod = |containers| PodMetrics {
            containers: vec![ContainerMetrics::default(); containers],
            ..PodMetrics::default()
        };
        let answer = |pods: usize, containers| AgentMetricsResponse {
            pods: (0..pods)
                .map(|uid| (uid.to_string(), pod(containers)))
                .collect(),
            node: None,
        };
        let honest = answer(1_000, 5);
        assert_eq!(decode(&honest.encode_to_vec()), Ok(honest));
        for lie in [answer(1, 1 << 20), answer(20_000, 0), answer(4_000, 4)] {
            let refused = decode(&lie.encode_to_vec()).unwrap_err();
            assert!(refused.contains("more than 16384"), "{refused}");
        }
        assert!(decode(&[0x0a, 0x7f]).unwrap_err().contains("is none"));
    }
}
