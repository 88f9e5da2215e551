//! Reading an [`Amount`].

use std::str::FromStr;

use super::{Amount, Format, NANO, QuantityError, divide_away_from_zero};

/// What a suffix multiplies by: base to the power of the exponent.
struct Suffix {
    base: i128,
    exponent: i32,
    format: Format,
}

impl Suffix {
    fn parse(text: &str) -> Option<Self> {
        let decimal = |exponent| (10, exponent, Format::DecimalSi);
        let binary = |exponent| (2, exponent, Format::BinarySi);
        let (base, exponent, format) = match text {
            "n" => decimal(-9),
            "u" => decimal(-6),
            "m" => decimal(-3),
            "" => decimal(0),
            "k" => decimal(3),
            "M" => decimal(6),
            "G" => decimal(9),
            "T" => decimal(12),
            "P" => decimal(15),
            "E" => decimal(18),
            "Ki" => binary(10),
            "Mi" => binary(20),
            "Gi" => binary(30),
            "Ti" => binary(40),
            "Pi" => binary(50),
            "Ei" => binary(60),
            _ => (
                10,
                text.strip_prefix(['e', 'E'])?.parse().ok()?,
                Format::DecimalExponent,
            ),
        };
        Some(Self {
            base,
            exponent,
            format,
        })
    }
}

impl FromStr for Amount {
    type Err = QuantityError;

    /// What is finer than a billionth is rounded away from zero.
    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let syntax = || QuantityError::Syntax(text.to_owned());
        let out_of_range = || QuantityError::OutOfRange(text.to_owned());

        let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
        let end = unsigned
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(unsigned.len());
        let (number, suffix) = unsigned.split_at(end);
        let suffix = Suffix::parse(suffix).ok_or_else(syntax)?;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return Err(syntax());
        }

        let fraction = fraction.trim_end_matches('0');
        let digits = format!("{whole}{fraction}");
        let digits = digits.trim_start_matches('0');
        if digits.is_empty() {
            return Ok(Self {
                nano: 0,
                format: suffix.format,
            });
        }
        let mut nano: i128 = digits.parse().map_err(|_| out_of_range())?;
        let fraction = i32::try_from(fraction.len()).map_err(|_| out_of_range())?;
        if suffix.base == 2 {
            nano = nano
                .checked_mul(1 << suffix.exponent)
                .ok_or_else(out_of_range)?;
        }
        let exponent = if suffix.base == 10 {
            suffix.exponent
        } else {
            0
        };
        let nano = exponent
            .checked_sub(fraction)
            .and_then(|exponent| scale(nano, exponent))
            .ok_or_else(out_of_range)?;
        let nano = if text.starts_with('-') { -nano } else { nano };
        Self::checked(nano, suffix.format).ok_or_else(out_of_range)
    }
}

/// `number` times ten to the power of `exponent`, in billionths.
fn scale(number: i128, exponent: i32) -> Option<i128> {
    let exponent = exponent.checked_add(NANO.ilog10().cast_signed())?;
    if exponent >= 0 {
        number.checked_mul(10_i128.checked_pow(exponent.unsigned_abs())?)
    } else {
        // Smaller than any power that fits is still more than nothing.
        let unit = 10_i128
            .checked_pow(exponent.unsigned_abs())
            .unwrap_or(i128::MAX);
        Some(divide_away_from_zero(number, unit))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn canonical_forms_are_kubernetes() {
        // As in the comments and tests of k8s.io/apimachinery/pkg/api/resource.
        for (text, canonical) in [
            ("0", "0"),
            ("0Mi", "0"),
            ("1", "1"),
            ("+1", "1"),
            ("1.", "1"),
            (".5", "500m"),
            ("1.5", "1500m"),
            ("100m", "100m"),
            ("1000m", "1"),
            ("1500m", "1500m"),
            ("1000", "1k"),
            ("1024", "1024"),
            ("1500", "1500"),
            ("1500k", "1500k"),
            ("1.5Gi", "1536Mi"),
            ("1024Ki", "1Mi"),
            ("65536Ki", "64Mi"),
            ("0.1Ki", "102400m"),
            ("512Mi", "512Mi"),
            ("1023Ki", "1023Ki"),
            ("1e3", "1e3"),
            ("1E3", "1e3"),
            ("12e1", "120"),
            ("1.5e6", "1500e3"),
            ("1e-3", "1e-3"),
            ("1E", "1E"),
            ("100u", "100u"),
            ("0.1n", "1n"),
            ("-0.1n", "-1n"),
            ("1.0000000001", "1000000001n"),
            ("-250m", "-250m"),
            ("9223372036854775807", "9223372036854775807"),
            ("0e999999999", "0"),
            ("1e-999", "1e-9"),
        ] {
            let amount: Amount = text.parse().unwrap();
            assert_eq!(amount.to_string(), canonical, "{text}");
        }
    }

    #[test]
    fn what_is_no_quantity_is_refused() {
        for text in [
            "", "m", ".", "-", "1 Mi", "1mi", "1K", "1KiB", "1..2", "1.2.3", "--1", "ten", "1e",
            "1e1.5", "0x10", "1Mi ", "∞", "1_000",
        ] {
            assert_eq!(
                text.parse::<Amount>(),
                Err(QuantityError::Syntax(text.to_owned()))
            );
        }
        for text in [
            "9223372036854775808",
            "8Ei",
            "10E",
            "1e99",
            "1e2147483647",
            "99999999999999999999999999999999999999999999999999",
        ] {
            assert_eq!(
                text.parse::<Amount>(),
                Err(QuantityError::OutOfRange(text.to_owned()))
            );
        }
    }

    #[test]
    fn values_round_up() {
        let amount: Amount = "1.0001".parse().unwrap();
        assert_eq!((amount.milli(), amount.whole()), (Ok(1001), Ok(2)));
        let amount: Amount = "7Ei".parse().unwrap();
        assert_eq!(amount.whole(), Ok(7 << 60));
        assert_eq!(
            amount.milli(),
            Err(QuantityError::OutOfRange("7Ei".to_owned()))
        );
    }
}
