//! Names that fit into one segment of a metric path, and numbers as they travel. Pure.

/// Two decimals: more would be noise, and costs bytes in every datagram.
pub fn hundredths(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

/// The share of `part` in `whole`, from 0 to 100.
pub fn percent(part: f64, whole: f64) -> f64 {
    (part / whole * 100.0).clamp(0.0, 100.0)
}
