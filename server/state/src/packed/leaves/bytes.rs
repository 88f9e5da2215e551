//! Texts, times and numbers in few bytes. What [`Packer`] writes [`Unpacker`] reads, in the same order.

use std::net::Ipv4Addr;

use barge_proto::v1::Time;

/// How a text is packed.
const PLAIN: u8 = 0;
/// Lower-case hexadecimal digits, two a byte.
const HEX: u8 = 1;
/// An address in four bytes.
const IPV4: u8 = 2;
/// The uid of the pod, and what follows it.
const OWN: u8 = 3;

/// Writes leaves of the pod with a uid.
pub struct Packer<'a> {
    uid: &'a str,
    bytes: Vec<u8>,
    last: Time,
}

impl<'a> Packer<'a> {
    pub fn new(uid: &'a str) -> Packer<'a> {
        Packer {
            uid,
            bytes: Vec::new(),
            last: Time::default(),
        }
    }

    pub fn text(&mut self, text: &str) {
        if let Some(rest) = text.strip_prefix(self.uid).filter(|_| !self.uid.is_empty()) {
            self.bytes.push(OWN);
            self.run(rest.as_bytes());
        } else if let Some(address) = address(text) {
            self.bytes.push(IPV4);
            self.bytes.extend(address.octets());
        } else if let Some(packed) = unhex(text) {
            self.bytes.push(HEX);
            self.run(&packed);
        } else {
            self.bytes.push(PLAIN);
            self.run(text.as_bytes());
        }
    }

    pub fn time(&mut self, time: Time) {
        self.signed(time.seconds.wrapping_sub(self.last.seconds));
        self.signed(i64::from(time.nanos) - i64::from(self.last.nanos));
        self.last = time;
    }

    pub fn finish(self) -> Box<[u8]> {
        self.bytes.into()
    }

    fn run(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.bytes.extend_from_slice(bytes);
    }

    /// Small numbers of either sign are short.
    fn signed(&mut self, number: i64) {
        self.number(((number << 1) ^ (number >> 63)) as u64);
    }

    /// Small numbers are short.
    pub fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.bytes.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.bytes.push(number as u8);
    }
}

/// Reads leaves of the pod with a uid. Past their end there are empty texts and zero times.
pub struct Unpacker<'a> {
    uid: &'a str,
    bytes: &'a [u8],
    last: Time,
}

impl<'a> Unpacker<'a> {
    pub fn new(uid: &'a str, bytes: &'a [u8]) -> Unpacker<'a> {
        Unpacker {
            uid,
            bytes,
            last: Time::default(),
        }
    }

    /// Appends the next text.
    pub fn text(&mut self, to: &mut String) {
        match self.byte() {
            IPV4 => {
                let octets = <[u8; 4]>::try_from(self.take(4)).unwrap_or_default();
                to.push_str(&Ipv4Addr::from(octets).to_string());
            }
            HEX => {
                for byte in self.run() {
                    to.push(digit(byte >> 4));
                    to.push(digit(byte & 15));
                }
            }
            tag => {
                if tag == OWN {
                    to.push_str(self.uid);
                }
                to.push_str(str::from_utf8(self.run()).unwrap_or_default());
            }
        }
    }

    pub fn time(&mut self) -> Time {
        self.last.seconds = self.last.seconds.wrapping_add(self.signed());
        let nanos = i64::from(self.last.nanos).wrapping_add(self.signed());
        self.last.nanos = i32::try_from(nanos).unwrap_or_default();
        self.last
    }

    fn run(&mut self) -> &'a [u8] {
        let length = usize::try_from(self.number()).unwrap_or(usize::MAX);
        self.take(length)
    }

    fn signed(&mut self) -> i64 {
        let number = self.number();
        (number >> 1) as i64 ^ -((number & 1) as i64)
    }

    pub fn number(&mut self) -> u64 {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte();
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        number
    }

    fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or_default()
    }

    fn take(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.bytes.split_at(length.min(self.bytes.len()));
        self.bytes = rest;
        taken
    }
}

/// An address in the one way that it is written.
fn address(text: &str) -> Option<Ipv4Addr> {
    let address: Ipv4Addr = text.parse().ok()?;
    (address.to_string() == text).then_some(address)
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) {
        return None;
    }
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let pairs = text.as_bytes().chunks_exact(2);
    pairs
        .map(|pair| Some(value(*pair.first()?)? << 4 | value(*pair.last()?)?))
        .collect()
}

fn digit(value: u8) -> char {
    char::from(match value {
        0..=9 => b'0' + value,
        _ => b'a' + value - 10,
    })
}
