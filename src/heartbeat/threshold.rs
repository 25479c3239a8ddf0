//! Thresholds: which limits a metric has, and what a new value means. Pure.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::event::decimal;

/// How a value is compared with a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// `>`
    Above,
    /// `>=`
    AtLeast,
    /// `<`
    Below,
    /// `<=`
    AtMost,
    /// `==`
    Equal,
    /// `!=`
    NotEqual,
}

/// An operator and a number: `> 90`. Prints as messages show it: `> 90.0`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limit {
    /// How to compare.
    pub operator: Operator,
    /// With what.
    pub value: f64,
}

impl Limit {
    /// Whether `value` is beyond this limit: whether the comparison holds.
    pub fn holds(self, value: f64) -> bool {
        match self.operator {
            Operator::Above => value > self.value,
            Operator::AtLeast => value >= self.value,
            Operator::Below => value < self.value,
            Operator::AtMost => value <= self.value,
            Operator::Equal => value == self.value,
            Operator::NotEqual => value != self.value,
        }
    }
}

/// Reads `> 90`, `<=0.5`, `!= 0`; the error says what is wanted.
impl FromStr for Limit {
    type Err = String;

    fn from_str(text: &str) -> Result<Limit, String> {
        let text = text.trim();
        let rest = text.trim_start_matches(['>', '<', '=', '!']);
        let operator = match &text[..text.len() - rest.len()] {
            ">" => Operator::Above,
            ">=" => Operator::AtLeast,
            "<" => Operator::Below,
            "<=" => Operator::AtMost,
            "==" => Operator::Equal,
            "!=" => Operator::NotEqual,
            _ => {
                return Err(format!(
                    "must be an operator (> >= < <= == !=) and a number, such as \"> 80\", not \"{text}\""
                ));
            }
        };
        match rest.trim().parse::<f64>() {
            Ok(value) if value.is_finite() => Ok(Limit { operator, value }),
            _ => Err(format!("must end in a number, such as \"> 80\", not \"{text}\"")),
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let operator = match self.operator {
            Operator::Above => ">",
            Operator::AtLeast => ">=",
            Operator::Below => "<",
            Operator::AtMost => "<=",
            Operator::Equal => "==",
            Operator::NotEqual => "!=",
        };
        write!(f, "{operator} {}", decimal(self.value))
    }
}

/// The limits of the metrics that one pattern matches.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rule {
    /// Beyond it the level is WARNING.
    pub warning: Option<Limit>,
    /// Beyond it the level is CRITICAL.
    pub critical: Option<Limit>,
    /// The way back to OK, where it is not simply "no longer beyond".
    pub clear: Option<Limit>,
    /// How long a value must stay beyond a limit before it counts (`for`).
    pub hold: Duration,
}

/// A threshold set: pattern -> rule. In a pattern `*` matches one path segment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ThresholdSet {
    /// By pattern.
    pub rules: BTreeMap<String, Rule>,
}
