//! Quantities as Kubernetes spells them (`apimachinery/pkg/api/resource/quantity.go`): `500m`, `2`, `1.5Gi`, `1e3`.

/// Binary and decimal suffixes, as what to multiply with and what to divide by: both are exact.
const SUFFIXES: [(&str, f64, f64); 16] = [
    ("Ki", 1024.0, 1.0),
    ("Mi", 1_048_576.0, 1.0),
    ("Gi", 1_073_741_824.0, 1.0),
    ("Ti", 1_099_511_627_776.0, 1.0),
    ("Pi", 1_125_899_906_842_624.0, 1.0),
    ("Ei", 1_152_921_504_606_846_976.0, 1.0),
    ("n", 1.0, 1e9),
    ("u", 1.0, 1e6),
    ("m", 1.0, 1e3),
    ("k", 1e3, 1.0),
    ("M", 1e6, 1.0),
    ("G", 1e9, 1.0),
    ("T", 1e12, 1.0),
    ("P", 1e15, 1.0),
    ("E", 1e18, 1.0),
    ("", 1.0, 1.0),
];

/// The number that a quantity stands for, in base units; `None` if it is none.
pub fn parse(text: &str) -> Option<f64> {
    // `1E` is an exa, `1E3` a power of ten.
    let exponent = |b: u8| text.ends_with(|c: char| c.is_ascii_digit()) && matches!(b, b'e' | b'E');
    let (digits, times, by) =
        SUFFIXES.iter().find_map(|(suffix, times, by)| Some((text.strip_suffix(suffix)?, *times, *by)))?;
    let is_number = |b: u8| b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'+') || exponent(b);
    let number: f64 = digits.parse().ok().filter(|_| digits.bytes().all(is_number))?;
    Some(number * times / by).filter(|number| number.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling() {
        for (text, number) in [
            ("0", 0.0),
            ("2", 2.0),
            ("500m", 0.5),
            ("1500m", 1.5),
            ("0.1", 0.1),
            ("1Ki", 1024.0),
            ("1.5Gi", 1_610_612_736.0),
            ("128974848", 128_974_848.0),
            ("129e6", 129e6),
            ("129M", 129e6),
            ("1E3", 1000.0),
            ("1E", 1e18),
            ("2Ei", 2.0 * 1_152_921_504_606_846_976.0),
            ("100n", 1e-7),
            ("-5", -5.0),
            ("+1k", 1000.0),
        ] {
            assert_eq!(parse(text), Some(number), "{text}");
        }
        for text in ["", "m", "1 Gi", "Gi", "1KiB", "abc", "inf", "nan", "1e999", "--1", "1eM"] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }
}
