//! Decimal numbers that are compared exactly as they are written. No I/O.

use std::cmp::Ordering;
use std::fmt;

/// Most significant digits of a number; a double has 17.
const MOST_DIGITS: u32 = 38;

/// `mantissa * 10^exponent`, without trailing zeros in the mantissa, so that equal numbers are equal values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Decimal {
    mantissa: i128,
    exponent: i32,
}

/// Why a text is no number that can be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoDecimal {
    /// No number of JSON.
    Form,
    /// No double is as large.
    Size,
    /// More significant digits than are compared.
    Digits,
}

impl Decimal {
    /// Reads a number as JSON writes it.
    pub(crate) fn parse(text: &str) -> Result<Self, NoDecimal> {
        let (coefficient, exponent) = match text.split_once(['e', 'E']) {
            Some((coefficient, exponent)) => (coefficient, Some(exponent)),
            None => (text, None),
        };
        let (negative, unsigned) = coefficient.strip_prefix('-').map_or((false, coefficient), |rest| (true, rest));
        let (whole, fraction) = match unsigned.split_once('.') {
            Some((whole, fraction)) => (whole, Some(fraction)),
            None => (unsigned, None),
        };
        let are_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let is_whole = are_digits(whole) && (whole == "0" || !whole.starts_with('0'));
        let exponent_digits = exponent.map(|text| text.strip_prefix(['+', '-']).unwrap_or(text));
        if !is_whole || !fraction.is_none_or(are_digits) || !exponent_digits.is_none_or(are_digits) {
            return Err(NoDecimal::Form);
        }
        if !text.parse::<f64>().is_ok_and(f64::is_finite) {
            return Err(NoDecimal::Size);
        }
        let fraction = fraction.unwrap_or_default();
        let digits = format!("{whole}{fraction}");
        let kept = digits.trim_end_matches('0');
        let mantissa = kept.trim_start_matches('0');
        if mantissa.is_empty() {
            return Ok(Self { mantissa: 0, exponent: 0 });
        }
        if mantissa.len() > MOST_DIGITS as usize {
            return Err(NoDecimal::Digits);
        }
        let mantissa: i128 = mantissa.parse().map_err(|_| NoDecimal::Digits)?;
        let written: i64 = exponent.map_or(Ok(0), str::parse).map_err(|_| NoDecimal::Digits)?;
        let length = |text: &str| i64::try_from(text.len()).unwrap_or(i64::MAX);
        let moved = length(&digits) - length(kept) - length(fraction);
        let exponent = i32::try_from(written.saturating_add(moved)).map_err(|_| NoDecimal::Digits)?;
        Ok(Self { mantissa: if negative { -mantissa } else { mantissa }, exponent })
    }

    pub(crate) fn is_negative(self) -> bool {
        self.mantissa < 0
    }

    /// `None` when the numbers are so far apart that the result has too many digits.
    pub(crate) fn plus(self, other: Self) -> Option<Self> {
        if self.mantissa == 0 || other.mantissa == 0 {
            return Some(if self.mantissa == 0 { other } else { self });
        }
        let exponent = self.exponent.min(other.exponent);
        let sum = self.mantissa_at(exponent)?.checked_add(other.mantissa_at(exponent)?)?;
        Some(Self::without_zeros(sum, exponent))
    }

    /// See [`Decimal::plus`].
    pub(crate) fn minus(self, other: Self) -> Option<Self> {
        self.plus(Self { mantissa: -other.mantissa, exponent: other.exponent })
    }

    /// The mantissa with a smaller exponent.
    fn mantissa_at(self, exponent: i32) -> Option<i128> {
        let zeros = u32::try_from(self.exponent.checked_sub(exponent)?).ok()?;
        self.mantissa.checked_mul(10_i128.checked_pow(zeros)?)
    }

    fn without_zeros(mut mantissa: i128, mut exponent: i32) -> Self {
        if mantissa == 0 {
            return Self { mantissa, exponent: 0 };
        }
        while mantissa % 10 == 0 {
            mantissa /= 10;
            exponent += 1;
        }
        Self { mantissa, exponent }
    }

    /// Position of the first digit: 1 for 5, 0 for 0.5.
    fn magnitude(self) -> i64 {
        i64::from(self.mantissa.unsigned_abs().ilog10()) + 1 + i64::from(self.exponent)
    }
}

impl Ord for Decimal {
    fn cmp(&self, other: &Self) -> Ordering {
        let signs = self.mantissa.signum().cmp(&other.mantissa.signum());
        if signs.is_ne() || self.mantissa == 0 {
            return signs;
        }
        let sizes = self.magnitude().cmp(&other.magnitude()).then_with(|| {
            // Of equal magnitude: with a common exponent, both have as many digits as the longer one.
            let exponent = self.exponent.min(other.exponent);
            let size = |number: &Self| number.mantissa_at(exponent).unwrap_or(number.mantissa).unsigned_abs();
            size(self).cmp(&size(other))
        });
        if self.mantissa < 0 { sizes.reverse() } else { sizes }
    }
}

impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.mantissa.unsigned_abs().to_string();
        let sign = if self.mantissa < 0 { "-" } else { "" };
        match usize::try_from(self.exponent) {
            Ok(zeros) if zeros < 20 => write!(f, "{sign}{digits}{}", "0".repeat(zeros)),
            Err(_) if self.magnitude() > -6 => {
                let places = self.exponent.unsigned_abs() as usize;
                let padded = format!("{digits:0>width$}", width = places + 1);
                let (whole, fraction) = padded.split_at(padded.len() - places);
                write!(f, "{sign}{whole}.{fraction}")
            }
            _ => write!(f, "{sign}{digits}e{}", self.exponent),
        }
    }
}

impl serde::Serialize for Decimal {
    /// A number of JSON; a text where a double, as which most programs read it, would be another number.
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = self.to_string();
        if let Ok(whole) = text.parse::<i64>()
            && whole.unsigned_abs() < 1 << f64::MANTISSA_DIGITS
        {
            return serializer.serialize_i64(whole);
        }
        match text.parse::<f64>() {
            Ok(double) if Self::parse(&format!("{double:e}")) == Ok(*self) => serializer.serialize_f64(double),
            _ => serializer.serialize_str(&text),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use test_case::test_case;

    use super::*;

    fn decimal(text: &str) -> Decimal {
        Decimal::parse(text).unwrap()
    }

    #[test_case("0.8", "0.8" => Ordering::Equal; "the same")]
    #[test_case("0.80", "8e-1" => Ordering::Equal; "the same in another form")]
    #[test_case("0.79999999999", "0.8" => Ordering::Less; "a little less")]
    #[test_case("0.79999999999999999999999999999", "0.8" => Ordering::Less; "less than a double can tell")]
    #[test_case("1e300", "0.8" => Ordering::Greater; "far apart")]
    #[test_case("1e-300", "0" => Ordering::Greater; "almost nothing")]
    #[test_case("-0", "0" => Ordering::Equal; "no negative zero")]
    #[test_case("-2", "-10" => Ordering::Greater; "both negative")]
    #[test_case("-1", "0" => Ordering::Less; "negative")]
    #[test_case("100", "99.9" => Ordering::Greater; "more digits")]
    fn numbers_are_compared_as_written(left: &str, right: &str) -> Ordering {
        decimal(left).cmp(&decimal(right))
    }

    #[test_case("" => NoDecimal::Form; "nothing")]
    #[test_case("01" => NoDecimal::Form; "a leading zero")]
    #[test_case(".5" => NoDecimal::Form; "without a whole part")]
    #[test_case("1." => NoDecimal::Form; "without a fraction")]
    #[test_case("+1" => NoDecimal::Form; "a plus")]
    #[test_case("1e" => NoDecimal::Form; "without an exponent")]
    #[test_case("0x10" => NoDecimal::Form; "hexadecimal")]
    #[test_case("NaN" => NoDecimal::Form; "not a number")]
    #[test_case("80%" => NoDecimal::Form; "percent")]
    #[test_case("1e999" => NoDecimal::Size; "no double is as large")]
    #[test_case("-1e999999999999999999999" => NoDecimal::Size; "an exponent without end")]
    #[test_case("0.123456789012345678901234567890123456789" => NoDecimal::Digits; "39 digits")]
    fn what_is_no_number_is_told(text: &str) -> NoDecimal {
        Decimal::parse(text).unwrap_err()
    }

    #[test]
    fn differences_are_exact() {
        let limit = decimal("0.8").minus(decimal("0.01")).unwrap();
        assert_eq!(limit, decimal("0.79"));
        assert_eq!(decimal("5").minus(decimal("5.0")), Some(decimal("0")));
        assert_eq!(decimal("0").minus(decimal("0.5")), Some(decimal("-0.5")));
        assert_eq!(decimal("1e300").minus(decimal("1e-300")), None);
        assert_eq!(decimal("0.91").plus(decimal("0.09")), Some(decimal("1")));
    }

    #[test]
    fn numbers_are_shown_for_people() {
        let shown = ["0.8", "-0.05", "1200", "1e300", "5e-30", "0", "12.5"].map(|text| decimal(text).to_string());
        assert_eq!(shown, ["0.8", "-0.05", "1200", "1e300", "5e-30", "0", "12.5"]);
        let json = serde_json::to_string(&["0.8", "3", "1e300"].map(decimal)).unwrap();
        assert_eq!(json, "[0.8,3,1e+300]");
        let exact = ["0.79999999999999999999", "9007199254740993", "-9007199254740993", "1e-400"].map(decimal);
        let json = serde_json::to_string(&exact).unwrap();
        assert_eq!(json, r#"["0.79999999999999999999","9007199254740993","-9007199254740993","1e-400"]"#);
    }

    proptest! {
        #[test]
        fn doubles_keep_their_order(left: f64, right: f64) {
            prop_assume!(left.is_finite() && right.is_finite());
            let [a, b] = [left, right].map(|number| decimal(&format!("{number:e}")));
            prop_assert_eq!(a.cmp(&b), left.partial_cmp(&right).unwrap());
            let (shown, expected) = (a.to_string(), if left == 0.0 { 0.0 } else { left });
            prop_assert!(shown.parse::<f64>().unwrap().total_cmp(&expected).is_eq(), "{shown}");
        }

        #[test]
        fn sums_are_those_of_integers(left in -1_000_000_i64..1_000_000, right in -1_000_000_i64..1_000_000, shift in 0_i32..9) {
            let of = |number: i64| decimal(&format!("{number}e-{shift}"));
            prop_assert_eq!(of(left).plus(of(right)), Some(of(left + right)));
            prop_assert_eq!(of(left).minus(of(right)), Some(of(left - right)));
        }
    }
}
