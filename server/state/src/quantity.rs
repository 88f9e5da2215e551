//! Amounts of resources.

use barge_proto::v1::Quantity;

/// A quantity in thousandths.
pub fn milli(quantity: &Quantity) -> Result<i64, ()> {
    let text = quantity.value.trim();
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let whole: i128 = whole.parse().map_err(|_| ())?;
    let fraction: i128 = format!("{fraction:0<3.3}").parse().map_err(|_| ())?;
    let factor: i128 = match suffix {
        "m" => return i64::try_from(whole).map_err(|_| ()),
        "" => 1,
        "k" => 1000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "T" => 1_000_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "Ti" => 1 << 40,
        _ => return Err(()),
    };
    i64::try_from((whole * 1000 + fraction) * factor).map_err(|_| ())
}
