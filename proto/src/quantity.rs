//! Amounts of a resource: parsing with Kubernetes' suffixes, exact arithmetic, canonical form.
//!
//! ```
//! use barge_proto::quantity::Amount;
//!
//! let half: Amount = "0.5".parse()?;
//! assert_eq!(half.milli()?, 500);
//! assert_eq!(half.to_string(), "500m");
//! # Ok::<_, barge_proto::quantity::QuantityError>(())
//! ```

mod parse;

use std::{cmp::Ordering, fmt, hash};

use crate::v1::Quantity;

/// Units in one: amounts are exact to a billionth, as in Kubernetes.
const NANO: i128 = 1_000_000_000;

/// The largest whole amount, either side of zero.
const MAX_WHOLE: i128 = i64::MAX as i128;

/// Why a quantity is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// Not a number with a known suffix.
    #[error(
        "{0:?} is not a quantity: expected a number, maybe with a suffix n, u, m, k, M, G, T, P, E, \
         Ki, Mi, Gi, Ti, Pi or Ei, such as \"250m\", \"1.5\" or \"64Mi\""
    )]
    Syntax(String),
    /// More than Kubernetes can hold (2^63 - 1), or more than the unit that was asked for.
    #[error("the quantity {0} is out of range")]
    OutOfRange(String),
}

/// How an amount was written, and is written again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// m, k, M, …
    DecimalSi,
    /// Ki, Mi, …
    BinarySi,
    /// e3, e6, …
    DecimalExponent,
}

/// An amount, exact to a billionth, between -(2^63 - 1) and 2^63 - 1. Compared by value, whatever its format.
#[derive(Debug, Clone, Copy)]
pub struct Amount {
    nano: i128,
    format: Format,
}

impl Amount {
    /// Nothing.
    pub const ZERO: Self = Self {
        nano: 0,
        format: Format::DecimalSi,
    };

    /// Thousandths, such as millicores: `from_milli(1500)` is "1500m".
    pub fn from_milli(milli: i64) -> Self {
        Self {
            nano: i128::from(milli) * (NANO / 1000),
            format: Format::DecimalSi,
        }
    }

    /// A count: `from_whole(110)` is "110".
    pub fn from_whole(whole: i64) -> Self {
        // i64::MIN has no positive counterpart.
        let whole = i128::from(whole).max(-MAX_WHOLE);
        Self {
            nano: whole * NANO,
            format: Format::DecimalSi,
        }
    }

    /// Bytes, written with binary suffixes: `from_bytes(65536)` is "64Ki".
    pub fn from_bytes(bytes: i64) -> Self {
        Self {
            format: Format::BinarySi,
            ..Self::from_whole(bytes)
        }
    }

    /// In thousandths, rounded away from zero.
    pub fn milli(self) -> Result<i64, QuantityError> {
        self.scaled(NANO / 1000)
    }

    /// In ones, rounded away from zero.
    pub fn whole(self) -> Result<i64, QuantityError> {
        self.scaled(NANO)
    }

    fn scaled(self, unit: i128) -> Result<i64, QuantityError> {
        i64::try_from(divide_away_from_zero(self.nano, unit))
            .map_err(|_| QuantityError::OutOfRange(self.to_string()))
    }

    /// The sum, in the format of `self`; nothing when it is out of range.
    pub fn checked_add(self, other: Self) -> Option<Self> {
        Self::checked(self.nano.checked_add(other.nano)?, self.format)
    }

    /// The difference, in the format of `self`; nothing when it is out of range.
    pub fn checked_sub(self, other: Self) -> Option<Self> {
        Self::checked(self.nano.checked_sub(other.nano)?, self.format)
    }

    /// True below zero.
    pub fn is_negative(self) -> bool {
        self.nano < 0
    }

    /// True for nothing.
    pub fn is_zero(self) -> bool {
        self.nano == 0
    }

    /// True when it is a multiple of one.
    pub fn is_whole(self) -> bool {
        self.nano % NANO == 0
    }

    /// True when it is a multiple of a thousandth.
    pub fn is_milli(self) -> bool {
        self.nano % (NANO / 1000) == 0
    }

    fn checked(nano: i128, format: Format) -> Option<Self> {
        (nano.unsigned_abs() <= (MAX_WHOLE * NANO).unsigned_abs()).then_some(Self { nano, format })
    }
}

fn divide_away_from_zero(value: i128, unit: i128) -> i128 {
    let rest = value % unit;
    value / unit + if rest == 0 { 0 } else { rest.signum() }
}

impl PartialEq for Amount {
    fn eq(&self, other: &Self) -> bool {
        self.nano == other.nano
    }
}

impl Eq for Amount {}

impl PartialOrd for Amount {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Amount {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nano.cmp(&other.nano)
    }
}

impl hash::Hash for Amount {
    fn hash<H: hash::Hasher>(&self, state: &mut H) {
        self.nano.hash(state);
    }
}

/// Canonical form as Kubernetes': no precision lost, no fraction, the largest suffix possible.
impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const BINARY: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
        const DECIMAL: [&str; 10] = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];

        // Small and broken amounts would lose precision or be confusing with a binary suffix.
        if self.format == Format::BinarySi && self.is_whole() && self.nano.abs() >= 1024 * NANO {
            let (number, power) = strip(self.nano / NANO, 1024, BINARY.len() - 1);
            return write!(f, "{number}{}", BINARY[power]);
        }
        let (number, power) = strip(self.nano, 1000, DECIMAL.len() - 1);
        match self.format {
            _ if self.nano == 0 => f.write_str("0"),
            // The fourth suffix, for ones, is empty.
            Format::DecimalExponent if power != 3 => {
                // Powers count from nano.
                let exponent = 3 * i64::try_from(power).map_err(|_| fmt::Error)? - 9;
                write!(f, "{number}e{exponent}")
            }
            _ => write!(f, "{number}{}", DECIMAL[power]),
        }
    }
}

/// Divides by `base` as often as possible without rest, at most `limit` times: what is left, and how often.
fn strip(mut number: i128, base: i128, limit: usize) -> (i128, usize) {
    let mut power = 0;
    while power < limit && number != 0 && number % base == 0 {
        number /= base;
        power += 1;
    }
    (number, power)
}

impl From<Amount> for Quantity {
    fn from(amount: Amount) -> Self {
        Self {
            value: amount.to_string(),
        }
    }
}

impl TryFrom<&Quantity> for Amount {
    type Error = QuantityError;

    fn try_from(quantity: &Quantity) -> Result<Self, QuantityError> {
        quantity.value.parse()
    }
}

/// Thousandths of a quantity, rounded up: millicores of a cpu quantity.
pub fn parse_milli(quantity: &Quantity) -> Result<i64, QuantityError> {
    Amount::try_from(quantity)?.milli()
}

/// A quantity in ones, rounded up: bytes of a memory quantity, a count of pods.
pub fn parse_whole(quantity: &Quantity) -> Result<i64, QuantityError> {
    Amount::try_from(quantity)?.whole()
}
