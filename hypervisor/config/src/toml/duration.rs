//! Durations as people write them.

/// Reads a duration such as `10 ms` or `500us`, in microseconds.
///
/// # Errors
///
/// How to write it.
pub(super) fn parse_duration(text: &str) -> Result<u32, &'static str> {
    const ADVICE: &str = "write a whole number and us, ms or s, like \"10 ms\"";
    let text = text.trim();
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit: u32 = match unit.trim_start() {
        "us" => 1,
        "ms" => 1_000,
        "s" => 1_000_000,
        _ => return Err(ADVICE),
    };
    let number: u32 = number.parse().map_err(|_| ADVICE)?;
    number.checked_mul(unit).ok_or(ADVICE)
}

#[cfg(test)]
mod tests {
    use super::parse_duration;

    #[test]
    fn durations() {
        assert_eq!(parse_duration("10ms"), Ok(10_000));
        assert_eq!(parse_duration(" 500 us"), Ok(500));
        assert_eq!(parse_duration("2 s"), Ok(2_000_000));
        for text in ["", "10", "ms", "1.5 s", "-1 ms", "10 min", "9999999 s"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }
}
