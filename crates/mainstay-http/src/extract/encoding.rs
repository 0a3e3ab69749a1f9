//! Percent-encoding, taken at its word.
//!
//! The parsers behind our extractors repair what is broken: `%zz` stays as it is, and bytes that are not UTF-8 become
//! U+FFFD. Then a handler works with something that its caller never sent.

/// Why `text` is no percent-encoded UTF-8, or `None` if it is.
pub(super) fn mistake(text: &str) -> Option<&'static str> {
    let mut rest = text.as_bytes();
    let mut decoded = Vec::new(); // the escapes that stand side by side
    while let Some(&byte) = rest.first() {
        if byte != b'%' {
            if std::str::from_utf8(&decoded).is_err() {
                return Some(NOT_UTF8);
            }
            decoded.clear();
            rest = &rest[1..];
            continue;
        }
        let digit = |index: usize| rest.get(index).and_then(|&digit| char::from(digit).to_digit(16));
        let (Some(high), Some(low)) = (digit(1), digit(2)) else { return Some(NO_ESCAPE) };
        decoded.push((high * 16 + low) as u8); // two hexadecimal digits: below 256
        rest = &rest[3..];
    }
    std::str::from_utf8(&decoded).is_err().then_some(NOT_UTF8)
}

const NO_ESCAPE: &str = "a % without two hexadecimal digits behind it; a percent sign itself is written %25";
const NOT_UTF8: &str = "not UTF-8 after percent-decoding";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_well_encoded_passes() {
        for text in ["", "plain", "a+b=c&d", "%C3%A4", "x%20y", "%e2%82%ac%41", "ä", "100%25"] {
            assert_eq!(mistake(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_not_is_told() {
        for text in ["%", "%4", "%zz", "a%2", "%+1", "%%41", "%4ä"] {
            assert_eq!(mistake(text), Some(NO_ESCAPE), "{text}");
        }
        for text in ["%ff", "%C3", "%C3x%A4", "%ED%A0%80", "a%80b"] {
            assert_eq!(mistake(text), Some(NOT_UTF8), "{text}");
        }
    }
}
