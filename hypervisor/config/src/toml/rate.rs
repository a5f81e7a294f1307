//! Rates as people write them.

/// Reads a rate such as `10 Mbit/s` or `1Gbit/s`, in bits a second. The units are powers of 1000.
///
/// # Errors
///
/// How to write it.
pub(super) fn parse_rate(text: &str) -> Result<u64, &'static str> {
    const ADVICE: &str = "write a whole number and kbit/s, Mbit/s or Gbit/s, like \"10 Mbit/s\"";
    let text = text.trim();
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit: u64 = match unit.trim_start() {
        "kbit/s" => 1_000,
        "Mbit/s" => 1_000_000,
        "Gbit/s" => 1_000_000_000,
        _ => return Err(ADVICE),
    };
    let number: u64 = number.parse().map_err(|_| ADVICE)?;
    number.checked_mul(unit).ok_or(ADVICE)
}

#[cfg(test)]
mod tests {
    use super::parse_rate;

    #[test]
    fn rates() {
        assert_eq!(parse_rate("64kbit/s"), Ok(64_000));
        assert_eq!(parse_rate(" 10 Mbit/s"), Ok(10_000_000));
        assert_eq!(parse_rate("1 Gbit/s"), Ok(1_000_000_000));
        for text in [
            "",
            "10",
            "10M",
            "10 MB/s",
            "Mbit/s",
            "-1 kbit/s",
            "99999999999999999999 kbit/s",
            "18446744073709551615 Gbit/s",
        ] {
            assert!(parse_rate(text).is_err(), "{text}");
        }
    }
}
