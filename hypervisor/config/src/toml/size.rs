//! Sizes as people write them.

/// Reads a size such as `16M`, `64 MiB` or `1 GiB`, in bytes. The units are powers of 1024.
///
/// # Errors
///
/// What is wrong with the text and how to write it.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = (&text[..digits], text[digits..].trim_start());
    let shift = match unit {
        "K" | "KiB" => 10,
        "M" | "MiB" => 20,
        "G" | "GiB" => 30,
        "" => {
            return Err(format!(
                "the size \"{text}\" lacks a unit; write it like \"16M\""
            ));
        }
        "KB" | "MB" | "GB" | "k" | "m" | "g" | "kB" => {
            let unit = unit[..1].to_uppercase();
            return Err(format!(
                "the unit \"{}\" is ambiguous; write {unit} or {unit}iB for the power of 1024",
                &text[digits..].trim_start()
            ));
        }
        _ => {
            return Err(format!(
                "\"{text}\" is not a size; write a whole number and K, M or G, like \"16M\" or \"1 GiB\""
            ));
        }
    };
    let number: u64 = number
        .parse()
        .map_err(|_| format!("\"{text}\" is not a size; write it like \"16M\" or \"1 GiB\""))?;
    number
        .checked_mul(1 << shift)
        .ok_or_else(|| format!("the size \"{text}\" is larger than any machine's memory"))
}

#[cfg(test)]
mod tests {
    use super::parse_size;

    #[test]
    fn sizes_that_people_write() {
        for (text, bytes) in [
            ("16M", 16 << 20),
            ("64 MiB", 64 << 20),
            (" 1 GiB ", 1 << 30),
            ("2G", 2 << 30),
            ("512K", 512 << 10),
            ("4 KiB", 4096),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn sizes_that_are_refused_with_advice() {
        for (text, advice) in [
            ("16", "lacks a unit"),
            ("", "lacks a unit"),
            ("16MB", "write M or MiB"),
            ("16 m", "write M or MiB"),
            ("M", "not a size"),
            ("1.5G", "not a size"),
            ("-1M", "not a size"),
            ("99999999999G", "larger"),
            ("99999999999999999999999G", "not a size"),
            ("16 Mé", "not a size"),
        ] {
            let reason = parse_size(text).unwrap_err();
            assert!(reason.contains(advice), "{text}: {reason}");
        }
    }
}
