//! Values with a unit, as people write them.

/// A number of bytes: plain, or with a unit: `48GiB`, `1.5 Gi`, `800MB`. Units of a thousand and of 1024 mean what they say; one
/// that tools read differently (`G`) is refused.
pub(super) fn bytes(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, u64); 11] = [
        ("", 1),
        ("b", 1),
        ("kb", 1000),
        ("mb", 1_000_000),
        ("gb", 1_000_000_000),
        ("kib", 1 << 10),
        ("ki", 1 << 10),
        ("mib", 1 << 20),
        ("mi", 1 << 20),
        ("gib", 1 << 30),
        ("gi", 1 << 30),
    ];
    let text = text.trim();
    let number_len = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(number_len);
    let unit = unit.trim().to_ascii_lowercase();
    let factor = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor);
    match (number.parse::<f64>(), factor) {
        (Ok(number), Some(factor)) => Ok((number * factor as f64) as u64),
        _ => Err("expected a number of bytes such as 48GiB, 800MB or 1073741824".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn bytes_are_read_with_and_without_units() {
        assert_eq!(bytes("1073741824"), Ok(1 << 30));
        assert_eq!(bytes("48GiB"), Ok(48 << 30));
        assert_eq!(bytes("1.5 Gi"), Ok(3 << 29));
        assert_eq!(bytes("800MB"), Ok(800_000_000));
        assert_eq!(bytes("64kib"), Ok(65_536));
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in ["", "GiB", "-1", "16G", "1.2.3", "many", "1TiBs"] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }
}
