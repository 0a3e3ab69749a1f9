//! PostgreSQL's NUMERIC: a sign, a scale and digits in base 10,000.

use std::error::Error as StdError;

use bytes::{BufMut, BytesMut};
use rust_decimal::Decimal;

const BASE: u128 = 10_000;
/// Decimal digits in a digit of the base.
const WIDTH: u32 = 4;
const POSITIVE: u16 = 0x0000;
const NEGATIVE: u16 = 0x4000;

/// Writes `value`: number of digits, weight of the first, sign, scale, digits.
pub(super) fn encode(value: Decimal, out: &mut BytesMut) {
    let scale = value.scale(); // at most 28
    // The digits of the base sit on both sides of the decimal point, so the fraction is filled up to whole ones.
    let padding = (WIDTH - scale % WIDTH) % WIDTH;
    let mut rest = value.mantissa().unsigned_abs() * 10_u128.pow(padding); // below 2^96 * 10^3: fits in 128 bits
    let fraction_digits = (scale + padding) / WIDTH;
    let mut digits = Vec::new(); // least significant first
    while rest > 0 {
        digits.push((rest % BASE) as u16);
        rest /= BASE;
    }
    let weight = digits.len() as i32 - fraction_digits as i32 - 1;
    let trailing = digits.iter().take_while(|digit| **digit == 0).count();
    let digits = &digits[trailing..];
    out.put_u16(digits.len() as u16);
    out.put_i16(if digits.is_empty() { 0 } else { weight as i16 });
    out.put_u16(if value.is_sign_negative() && !digits.is_empty() { NEGATIVE } else { POSITIVE });
    out.put_u16(scale as u16);
    for digit in digits.iter().rev() {
        out.put_u16(*digit);
    }
}

/// Reads a number of up to 28 digits, with the scale it was stored with.
pub(super) fn decode(raw: &[u8]) -> Result<Decimal, Box<dyn StdError + Sync + Send>> {
    let mut words = raw.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
    let mut next = || words.next().ok_or("a NUMERIC that is cut off");
    let (count, weight, sign, scale) = (next()?, next()? as i16, next()?, next()?);
    let negative = match sign {
        POSITIVE => false,
        NEGATIVE => true,
        _ => return Err("NaN and infinity are no decimal numbers: cast to double precision or text".into()),
    };
    let too_big = "more digits than the 28 of a decimal number: cast to text, or round in the statement";
    let mut mantissa: u128 = 0;
    let mut exponent = i32::from(weight) + 1; // of the base, after the digits read so far
    for _ in 0..count {
        let digit = u128::from(next()?);
        mantissa = mantissa.checked_mul(BASE).and_then(|big| big.checked_add(digit)).ok_or(too_big)?;
        exponent -= 1;
    }
    // mantissa * 10000^exponent, to be written with `scale` decimals.
    let shift = exponent * WIDTH as i32 + i32::from(scale);
    let power = 10_u128.checked_pow(shift.unsigned_abs()).ok_or(too_big);
    if mantissa == 0 {
        return Ok(Decimal::try_new(0, u32::from(scale).min(Decimal::MAX_SCALE))?);
    }
    let mantissa = if shift >= 0 { mantissa.checked_mul(power?).ok_or(too_big)? } else { mantissa / power? };
    let mantissa = i128::try_from(mantissa).map_err(|_| too_big)?;
    let signed = if negative { -mantissa } else { mantissa };
    Ok(Decimal::try_from_i128_with_scale(signed, scale.into()).map_err(|_| too_big)?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The largest there is: 96 bits.
    const MAX: i128 = (1 << 96) - 1;

    fn round_trip(value: Decimal) -> Decimal {
        let mut out = BytesMut::new();
        encode(value, &mut out);
        decode(&out).unwrap()
    }

    #[test]
    fn extremes_and_scales_survive() {
        for text in [
            "0",
            "0.00",
            "1",
            "-1",
            "10000",
            "0.0001",
            "0.00010",
            "1234567.89",
            "-0.5",
            "79228162514264337593543950335",
            "-79228162514264337593543950335",
            "7.9228162514264337593543950335",
            "0.0000000000000000000000000001",
        ] {
            let value: Decimal = text.parse().unwrap();
            assert_eq!(round_trip(value).to_string(), text);
        }
    }

    #[test]
    fn what_is_no_decimal_is_an_error() {
        assert!(decode(&[0, 0, 0, 0, 0xc0, 0, 0, 0]).is_err()); // NaN
        assert!(decode(&[0, 1, 0x7f, 0xff, 0, 0, 0, 0, 0, 1]).is_err()); // far too big
        assert!(decode(&[0, 1]).is_err());
    }

    proptest! {
        #[test]
        fn every_decimal_survives(mantissa in -MAX..=MAX, scale in 0_u32..=28) {
            let value = Decimal::from_i128_with_scale(mantissa, scale);
            prop_assert_eq!(round_trip(value), value);
            prop_assert_eq!(round_trip(value).scale(), scale);
        }
    }
}
