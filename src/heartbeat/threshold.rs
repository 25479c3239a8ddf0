//! Thresholds: the limits of a metric, the level that follows from a new value, the section
//! `threshold_configs`, and the built-in sets. Pure.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::btree::InsertAll;
use crate::clock::Mono;
use crate::config_file::{NameSet, Section};
use crate::event::{Level, decimal};
use crate::problem::Severity;

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
    /// The way back from CRITICAL to WARNING, likewise.
    pub clear_critical: Option<Limit>,
    /// How long a value must stay beyond a limit before it counts (`for`).
    pub for_duration: Duration,
    /// How long a value must stay on the way back before its level comes down.
    pub clear_for: Duration,
}

/// A threshold set: pattern -> rule. In a pattern `*` matches one path segment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ThresholdSet {
    /// By pattern.
    pub rules: BTreeMap<String, Rule>,
}

impl ThresholdSet {
    /// The pattern that `path` falls under, with its rule: the one with the most literal segments
    /// (an exact one has them all), and of those the first by alphabet.
    pub fn rule(&self, path: &str) -> Option<(&str, &Rule)> {
        if let Some((pattern, rule)) = self.rules.get_key_value(path) {
            return Some((pattern, rule));
        }
        let mut best = None;
        let mut most = 0;
        for (pattern, rule) in &self.rules {
            match literals(pattern, path) {
                Some(count) if best.is_none() || count > most => {
                    best = Some((pattern.as_str(), rule));
                    most = count;
                }
                Some(_) | None => {}
            }
        }
        best
    }
}

/// How many segments of `path` the pattern names literally; none when it does not match.
fn literals(pattern: &str, path: &str) -> Option<usize> {
    let mut wanted = pattern.split('.');
    let mut count = 0;
    for segment in path.split('.') {
        match wanted.next()? {
            "*" => {}
            literal if literal == segment => count += 1,
            _ => return None,
        }
    }
    wanted.next().is_none().then_some(count)
}

/// The level of a metric, and since when its value has been beyond each limit without a break.
///
/// ```text
///                      warning, for long enough        critical, for long enough
///     OK ───────────────────────────────▶ WARNING ────────────────────────▶ CRITICAL
///     ▲ │                                 │     ▲                            │ │  ▲
///     │ └── critical, for long enough ────┼─────┼────────────────────────────┼─┼──┘
///     ├─────────── cleared ───────────────┘     └── no longer critical ──────┘ │
///     └─────────── cleared ────────────────────────────────────────────────────┘
/// ```
///
/// Cleared: beyond neither limit, and `clear` holds where there is one. No longer critical: not beyond
/// that limit, and `clear_critical` holds where there is one. Either for as long as `clear_for`, and a
/// level is left only for the one that the present value leads to: no WARNING shows a value that is OK.
/// A rule without a warning limit goes from CRITICAL to OK only.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ThresholdState {
    /// `Ok`, `Warning` or `Critical`.
    pub level: Level,
    warning_since: Option<Mono>,
    critical_since: Option<Mono>,
    /// Since when the value would have its level come down, to whichever; and since when to OK, where
    /// `i64::MAX` says that it would not.
    way_back: Option<(Mono, Mono)>,
}

impl ThresholdState {
    /// A metric at `level` whose value is not known to be beyond anything.
    pub fn new(level: Level) -> ThresholdState {
        ThresholdState { level, warning_since: None, critical_since: None, way_back: None }
    }

    /// Since when the value has been beyond the limits of WARNING and of CRITICAL.
    pub fn pending_since(&self) -> (Option<Mono>, Option<Mono>) {
        (self.warning_since, self.critical_since)
    }

    /// Whether the value would have its level come down, and has not for long enough.
    pub fn is_on_way_back(&self) -> bool {
        self.way_back.is_some()
    }

    /// Since when the value would have its level come down, and since when to OK; none where it would not.
    pub fn way_back(&self) -> (Option<Mono>, Option<Mono>) {
        let (lower, cleared) = self.way_back.unzip();
        (lower, cleared.filter(|since| *since < Mono(i64::MAX)))
    }

    /// Restores since when it was on its way back before a restart.
    pub fn restore_way_back(&mut self, lower: Option<Mono>, cleared: Option<Mono>) {
        self.way_back = lower.map(|lower| (lower, cleared.unwrap_or(Mono(i64::MAX))));
    }

    /// Takes back that its level came down from `before`: the next value may have it do so at once.
    pub fn put_off(&mut self, before: ThresholdState) {
        (self.level, self.way_back) = (before.level, before.way_back);
    }

    /// Restores what was pending before a restart.
    pub fn restore_pending(&mut self, warning_since: Option<Mono>, critical_since: Option<Mono>) {
        (self.warning_since, self.critical_since) = (warning_since, critical_since);
    }

    /// Forgets for how long the value has been beyond its limits: it was not known meanwhile.
    pub fn reset_pending(&mut self) {
        *self = ThresholdState::new(self.level);
    }
}

impl Rule {
    /// Evaluates a new value; the new level when that changed.
    pub fn evaluate(&self, state: &mut ThresholdState, value: f64, now: Mono) -> Option<Level> {
        let beyond = |limit: Option<Limit>| limit.is_some_and(|limit| limit.holds(value));
        let critical = beyond(self.critical);
        let warning = self.warning.is_some() && (critical || beyond(self.warning));
        let held = |since: &mut Option<Mono>, beyond: bool| {
            *since = if beyond { since.or(Some(now)) } else { None };
            since.is_some_and(|since| now.since(since) >= self.for_duration)
        };
        let critical_held = held(&mut state.critical_since, critical);
        let warning_held = held(&mut state.warning_since, warning);
        let cleared = !critical && !warning && self.clear.is_none_or(|clear| clear.holds(value));
        let stays_critical =
            critical || self.clear_critical.is_some_and(|clear| !clear.holds(value));
        let level = match state.level {
            _ if critical_held => Level::Critical,
            Level::Critical if stays_critical => Level::Critical,
            Level::Critical if self.warning.is_none() && !cleared => Level::Critical,
            Level::Critical | Level::Warning if !cleared => Level::Warning,
            Level::Ok | Level::Info if warning_held => Level::Warning,
            Level::Ok | Level::Info | Level::Warning | Level::Critical => Level::Ok,
        };
        let level = self.come_down(state, level, now);
        let changed = level != state.level;
        state.level = level;
        changed.then_some(level)
    }

    /// The level that the value leads to, `level` unless it is lower and not for long enough.
    fn come_down(&self, state: &mut ThresholdState, level: Level, now: Mono) -> Level {
        let way_back = state.way_back.take();
        if level >= state.level {
            return level;
        }
        let (lower, cleared) = way_back.unwrap_or((now, Mono(i64::MAX)));
        let is_ok = level == Level::Ok;
        let cleared = if is_ok { cleared.min(now) } else { Mono(i64::MAX) };
        if now.since(if is_ok { cleared } else { lower }) >= self.clear_for {
            return level;
        }
        state.way_back = Some((lower, cleared));
        state.level
    }

    /// Whether an alert of `level` may go on under this rule: one that is CRITICAL may come down
    /// to WARNING, one that is WARNING needs a limit of its own.
    pub fn allows(&self, level: Level) -> bool {
        match level {
            Level::Critical => self.critical.is_some() || self.warning.is_some(),
            Level::Warning => self.warning.is_some(),
            Level::Info | Level::Ok => true,
        }
    }

    /// The limit that a message of `level` shows: its own; for OK the first one on the way up.
    pub fn limit(&self, level: Level) -> Option<Limit> {
        match level {
            Level::Critical => self.critical.or(self.warning),
            Level::Warning | Level::Info | Level::Ok => self.warning.or(self.critical),
        }
    }
}

/// The names of the built-in sets, in the order of the columns below.
const BUILT_IN: [&str; 4] = ["default", "high_sensitivity", "low_sensitivity", "database"];

/// How much better than its limit a value must be for its level to come down.
#[derive(Clone, Copy)]
enum Margin {
    /// It need only be no longer beyond it.
    None,
    /// By so many points.
    Points(f64),
    /// By a fifth of the limit.
    Fifth,
}

/// A metric, how long its value must stay beyond a limit and how long on the way back, in seconds, how
/// far that is, and warning and critical limits by set.
type BuiltInRule = (&'static str, (u64, u64), Margin, [Option<(f64, f64)>; 4]);

/// What a rule looks like.
const RULE: &str = "must be such as {warning: \"> 80\", critical: \"> 90\"}, or off";

/// No warning limit at all, or no critical one.
const NONE: f64 = f64::INFINITY;

/// What goes up and down by itself: a minute to rise, and a quarter of an hour to come down, so that a
/// machine that works around a limit is told of once and not with every wave.
const NOISY: (u64, u64) = (60, 900);

const TABLE: [BuiltInRule; 10] = [
    (
        "cpu_monitor.cpu_percent",
        NOISY,
        Margin::Points(5.),
        same([(80., 90.), (60., 75.), (90., 98.), (80., 90.)]),
    ),
    (
        "cpu_monitor.iowait_percent",
        NOISY,
        Margin::Points(5.),
        same([(30., 50.), (15., 30.), (50., 80.), (15., 30.)]),
    ),
    (
        "load_monitor.per_core",
        NOISY,
        Margin::Fifth,
        same([(2., 4.), (1., 2.), (4., 8.), (1.5, 3.)]),
    ),
    (
        "memory_monitor.percent",
        (0, NOISY.1),
        Margin::Points(5.),
        same([(85., 95.), (75., 85.), (92., 98.), (90., 96.)]),
    ),
    (
        "swap_monitor.percent",
        (0, 0),
        Margin::Points(5.),
        same([(50., 80.), (25., 50.), (80., 95.), (10., 30.)]),
    ),
    ("disk_monitor.*.percent", (0, 0), Margin::Points(2.), DISKS),
    ("disk_monitor.*.inodes_percent", (0, 0), Margin::Points(2.), DISKS),
    (
        "systemd_monitor.failed_units",
        (0, 0),
        Margin::None,
        [Some((0., NONE)), Some((0., NONE)), None, Some((0., NONE))],
    ),
    // As a plugin of Nagios has it: 1 is a warning, and what is above, critical or unknown.
    ("own_monitor.*.exit_code", (0, 0), Margin::None, same([(0., 1.); 4])),
    // A job that fails has failed.
    ("job_monitor.*.exit_code", (0, 0), Margin::None, same([(NONE, 0.); 4])),
];

const DISKS: [Option<(f64, f64)>; 4] = same([(85., 95.), (75., 85.), (92., 98.), (75., 85.)]);

const fn same(limits: [(f64, f64); 4]) -> [Option<(f64, f64)>; 4] {
    [Some(limits[0]), Some(limits[1]), Some(limits[2]), Some(limits[3])]
}

/// The built-in sets by name.
pub fn built_in() -> BTreeMap<String, ThresholdSet> {
    let set = |column: usize| {
        let rules = TABLE.iter().filter_map(|(metric, (rise, fall), margin, limits)| {
            let (warning, critical) = limits[column]?;
            let limit =
                |operator, value: f64| value.is_finite().then_some(Limit { operator, value });
            let back = |value: f64| match margin {
                Margin::None => None,
                Margin::Points(points) => limit(Operator::Below, value - points),
                Margin::Fifth => limit(Operator::Below, value - value / 5.),
            };
            let rule = Rule {
                warning: limit(Operator::Above, warning),
                critical: limit(Operator::Above, critical),
                clear: back(warning),
                clear_critical: back(critical),
                for_duration: Duration::from_secs(*rise),
                clear_for: Duration::from_secs(*fall),
            };
            Some(((*metric).to_owned(), rule))
        });
        ThresholdSet { rules: rules.insert_all() }
    };
    BUILT_IN.iter().enumerate().map(|(column, name)| ((*name).to_owned(), set(column))).insert_all()
}

/// A set as written, before what it extends is added.
struct Draft {
    extends: Option<String>,
    line: Option<usize>,
    /// None drops what is inherited.
    rules: Vec<(String, Option<Rule>)>,
}

/// Reads the section of the top level: all sets, the built-in ones and the file's own. A rule replaces
/// the inherited one of the same path as a whole.
pub fn read(top: &mut Section) -> BTreeMap<String, ThresholdSet> {
    let mut known = top.names_in("threshold_configs");
    known.extend(BUILT_IN.map(String::from));
    let drafts: BTreeMap<String, Draft> = top
        .entries("threshold_configs", |_, section| Draft::read(section, &known))
        .into_iter()
        .insert_all();
    let built_in = built_in();
    let mut sets = built_in.clone();
    for name in drafts.keys() {
        let set = resolve(name, &drafts, &built_in).unwrap_or_else(|circle| {
            let path = format!("threshold_configs.{name}.extends");
            let what = format!("goes round in a circle: {}", circle.join(", "));
            top.context().report(Severity::Error, drafts[name].line, path, what);
            ThresholdSet::default()
        });
        sets.insert(name.clone(), set);
    }
    sets
}

/// A set with all that it extends; the error is the circle in which it does.
fn resolve(
    name: &str,
    drafts: &BTreeMap<String, Draft>,
    built_in: &BTreeMap<String, ThresholdSet>,
) -> Result<ThresholdSet, Vec<String>> {
    let mut chain = vec![name];
    let mut set = ThresholdSet::default();
    while let Some(parent) = drafts[chain[chain.len() - 1]].extends.as_deref() {
        let own = parent == chain[chain.len() - 1] && built_in.contains_key(parent);
        if own || !drafts.contains_key(parent) {
            set = built_in.get(parent).cloned().unwrap_or_default();
            break;
        }
        let again = chain.contains(&parent);
        chain.push(parent);
        if again {
            return Err(chain.into_iter().map(str::to_owned).collect());
        }
    }
    for name in chain.into_iter().rev() {
        for (pattern, rule) in &drafts[name].rules {
            match rule {
                Some(rule) => set.rules.insert(pattern.clone(), *rule),
                None => set.rules.remove(pattern),
            };
        }
    }
    Ok(set)
}

impl Draft {
    fn read(section: &mut Section, known: &NameSet) -> Draft {
        let extends = section.name("extends", "threshold set", known);
        let rules = section.others(RULE, |pattern, rule| {
            let section = rule?;
            if !is_pattern(pattern) {
                section.error("", "must be a metric's path, such as cpu_monitor.cpu_percent; * stands for one part of it");
            }
            Some(read_rule(section))
        });
        Draft { extends, line: section.line_of("extends"), rules }
    }
}

fn is_pattern(text: &str) -> bool {
    text.split('.').all(|part| {
        part == "*" || !part.is_empty() && !part.contains(|c: char| c == '*' || c.is_whitespace())
    })
}

fn read_rule(section: &mut Section) -> Rule {
    let rule = Rule {
        warning: read_limit(section, "warning"),
        critical: read_limit(section, "critical"),
        clear: read_limit(section, "clear"),
        clear_critical: read_limit(section, "clear_critical"),
        for_duration: section.duration("for").unwrap_or_default(),
        clear_for: section.duration("clear_for").unwrap_or_default(),
    };
    if !section.given("warning") && !section.given("critical") {
        section.error("", "needs warning or critical, such as {warning: \"> 80\"}");
    }
    check_order(section, &rule);
    rule
}

fn read_limit(section: &mut Section, key: &'static str) -> Option<Limit> {
    let text = section.text(key)?;
    text.parse().map_err(|what: String| section.error(key, what)).ok()
}

/// Which way a limit points: up for `>`, down for `<`.
fn upward(limit: Limit) -> Option<bool> {
    match limit.operator {
        Operator::Above | Operator::AtLeast => Some(true),
        Operator::Below | Operator::AtMost => Some(false),
        Operator::Equal | Operator::NotEqual => None,
    }
}

fn check_order(section: &Section, rule: &Rule) {
    if let (Some(warning), Some(critical)) = (rule.warning, rule.critical) {
        let up = upward(warning);
        let hidden = up == upward(critical)
            && (up == Some(true) && critical.value <= warning.value
                || up == Some(false) && critical.value >= warning.value);
        if hidden {
            section.warning(
                "",
                format!("warning ({warning}) can never be seen before critical ({critical})"),
            );
        }
    }
    check_way_back(section, "clear", rule.warning.or(rule.critical), rule.clear);
    check_way_back(section, "clear_critical", rule.critical, rule.clear_critical);
    let both = rule.warning.is_some() && rule.critical.is_some();
    if rule.clear_critical.is_some() && !both {
        let what = "is the way from critical to warning, and needs both: the way to OK is clear";
        section.error("clear_critical", what);
    }
}

/// The way back lies on the other side of the limit.
fn check_way_back(section: &Section, key: &str, limit: Option<Limit>, clear: Option<Limit>) {
    if let (Some(limit), Some(clear)) = (limit, clear) {
        let (up, back) = (upward(limit), upward(clear));
        let beyond = match up {
            Some(true) => clear.value > limit.value,
            Some(false) => clear.value < limit.value,
            None => false,
        };
        if up.is_some() && (up == back || beyond) {
            let what = format!("must lie on the other side of the limit ({limit}), not {clear}");
            section.error(key, what);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Level::{Critical, Ok, Warning};

    fn limit(text: &str) -> Option<Limit> {
        Some(text.parse().unwrap())
    }

    fn high() -> Rule {
        Rule { warning: limit("> 80"), critical: limit("> 90"), ..Rule::default() }
    }

    /// The levels that a row of samples, ten seconds apart, leads to.
    fn levels(rule: Rule, values: &[f64]) -> Vec<Level> {
        let mut standing = ThresholdState::new(Ok);
        let judged = values.iter().enumerate().map(|(turn, value)| {
            rule.evaluate(&mut standing, *value, Mono(turn as i64 * 10_000));
            standing.level
        });
        judged.collect()
    }

    #[test]
    fn levels_rise_and_fall_with_the_values() {
        assert_eq!(
            levels(high(), &[80.0, 81.0, 91.0, 85.0, 80.0, 99.0, 1.0]),
            [Ok, Warning, Critical, Warning, Ok, Critical, Ok]
        );
        let only_critical = Rule { critical: limit("< 5"), ..Rule::default() };
        assert_eq!(levels(only_critical, &[4.0, 5.0]), [Critical, Ok]);
        let only_warning = Rule { warning: limit("!= 0"), ..Rule::default() };
        assert_eq!(levels(only_warning, &[2.0, 0.0]), [Warning, Ok]);
        assert_eq!(levels(Rule::default(), &[2.0]), [Ok]);
    }

    #[test]
    fn the_way_back_has_its_own_limit() {
        let rule = Rule { clear: limit("< 75"), ..high() };
        assert_eq!(
            levels(rule, &[78.0, 91.0, 78.0, 75.0, 74.9, 78.0]),
            [Ok, Critical, Warning, Warning, Ok, Ok]
        );
        let only_critical = Rule { warning: None, ..rule };
        assert_eq!(levels(only_critical, &[91.0, 78.0, 74.0]), [Critical, Critical, Ok]);
    }

    #[test]
    fn a_value_must_stay_beyond_each_limit_for_its_time() {
        let rule = Rule { for_duration: Duration::from_secs(20), ..high() };
        assert_eq!(levels(rule, &[85.0, 85.0, 70.0, 85.0, 85.0]), [Ok; 5]);
        assert_eq!(
            levels(rule, &[85.0, 95.0, 95.0, 95.0, 85.0, 70.0]),
            [Ok, Ok, Warning, Critical, Warning, Ok]
        );
        assert_eq!(levels(rule, &[95.0, 95.0, 95.0]), [Ok, Ok, Critical]);
    }

    #[test]
    fn the_most_literal_pattern_wins() {
        let patterns = [
            "disk_monitor./.percent",
            "disk_monitor.*.percent",
            "*.*.percent",
            "*.x.percent",
            "disk_monitor.*.*",
            "*",
        ];
        let rules = patterns.map(|pattern| (pattern.to_owned(), high())).into();
        let set = ThresholdSet { rules };
        for (path, pattern) in [
            ("disk_monitor./.percent", Some("disk_monitor./.percent")),
            ("disk_monitor./var.percent", Some("disk_monitor.*.percent")),
            ("disk_monitor./var.inodes", Some("disk_monitor.*.*")),
            ("disk_monitor.x.percent", Some("*.x.percent")),
            ("a.b.percent", Some("*.*.percent")),
            ("load", Some("*")),
            ("disk_monitor.percent", None),
            ("disk_monitor.a.b.percent", None),
        ] {
            assert_eq!(set.rule(path).map(|(pattern, _)| pattern), pattern, "{path}");
        }
    }

    #[test]
    fn a_message_shows_the_limit_of_its_own_level() {
        let shown = |rule: Rule, level| rule.limit(level).unwrap().to_string();
        assert_eq!(shown(high(), Critical), "> 90.0");
        assert_eq!(shown(high(), Warning), "> 80.0");
        assert_eq!(shown(high(), Ok), "> 80.0");
        assert_eq!(shown(Rule { warning: None, ..high() }, Ok), "> 90.0");
    }

    #[test]
    fn the_built_in_sets_are_the_table_of_the_contract() {
        let sets = built_in();
        // Section 4 of the contract: default, high_sensitivity, low_sensitivity, database.
        let disks = ["85/95", "75/85", "92/98", "75/85"];
        let table = [
            ("cpu_monitor.cpu_percent", (60, 900), ["80/90", "60/75", "90/98", "80/90"]),
            ("cpu_monitor.iowait_percent", (60, 900), ["30/50", "15/30", "50/80", "15/30"]),
            ("load_monitor.per_core", (60, 900), ["2/4", "1/2", "4/8", "1.5/3"]),
            ("memory_monitor.percent", (0, 900), ["85/95", "75/85", "92/98", "90/96"]),
            ("swap_monitor.percent", (0, 0), ["50/80", "25/50", "80/95", "10/30"]),
            ("disk_monitor.*.percent", (0, 0), disks),
            ("disk_monitor.*.inodes_percent", (0, 0), disks),
            ("systemd_monitor.failed_units", (0, 0), ["0/-", "0/-", "-/-", "0/-"]),
            ("own_monitor.*.exit_code", (0, 0), ["0/1"; 4]),
            ("job_monitor.*.exit_code", (0, 0), ["-/0"; 4]),
        ];
        for (metric, (rise, fall), columns) in table {
            for (set, limits) in BUILT_IN.into_iter().zip(columns) {
                let rule = sets[set].rules.get(metric);
                let shown = |limit: Option<Limit>| {
                    limit.map_or("-".into(), |limit| {
                        assert_eq!(limit.operator, Operator::Above);
                        limit.value.to_string()
                    })
                };
                let limits_of = |rule: &Rule| (shown(rule.warning), shown(rule.critical));
                let (warning, critical) = rule.map_or(("-".into(), "-".into()), limits_of);
                assert_eq!(format!("{warning}/{critical}"), limits, "{set} {metric}");
                let times = |rule: &Rule| (rule.for_duration.as_secs(), rule.clear_for.as_secs());
                assert!(rule.is_none_or(|rule| times(rule) == (rise, fall)), "{set} {metric}");
            }
        }
        let counts = BUILT_IN.map(|set| sets[set].rules.len());
        assert_eq!(counts, [10, 10, 9, 10], "and no more");
        let clears = |set: &str, metric: &str| {
            let rule = sets[set].rules[metric];
            [rule.clear, rule.clear_critical].map(|limit| limit.map(|limit| limit.to_string()))
        };
        let some = |limits: [&str; 2]| limits.map(|limit| Some(limit.to_owned()));
        assert_eq!(clears("default", "cpu_monitor.cpu_percent"), some(["< 75.0", "< 85.0"]));
        assert_eq!(clears("database", "load_monitor.per_core"), some(["< 1.2", "< 2.4"]));
        assert_eq!(clears("default", "disk_monitor.*.percent"), some(["< 83.0", "< 93.0"]));
        assert_eq!(clears("default", "job_monitor.*.exit_code"), [None, None]);
    }

    /// How many changes of level six days of samples cause that waver around `mean`, every ten
    /// seconds: each keeps `memory` of how far the one before was off.
    fn changes(rule: Rule, mean: f64, spread: f64, memory: f64) -> usize {
        let (mut state, mut off, mut random) = (ThresholdState::new(Ok), 0.0, 1_u64);
        let mut noise = || {
            // The sum of twelve even numbers is nearly a normal one (Irwin-Hall).
            let even = |_| {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (random >> 33) as f64 / (1_u64 << 31) as f64
            };
            (0..12).map(even).sum::<f64>() - 6.0
        };
        let turns = (0..6 * 24 * 360).filter(|turn| {
            off = memory * off + (1.0 - memory * memory).sqrt() * noise();
            rule.evaluate(&mut state, mean + spread * off, Mono(turn * 10_000)).is_some()
        });
        turns.count()
    }

    #[test]
    fn a_machine_around_its_limit_was_told_154_times_in_six_days() {
        let default = &built_in()["default"];
        for (metric, spread) in [
            ("cpu_monitor.cpu_percent", 2.5),
            ("cpu_monitor.iowait_percent", 2.5),
            ("load_monitor.per_core", 0.2),
            ("memory_monitor.percent", 2.0),
        ] {
            let rule = default.rules[metric];
            let plain =
                Rule { clear: None, clear_critical: None, clear_for: Duration::ZERO, ..rule };
            let around = [rule.warning.unwrap().value, rule.critical.unwrap().value];
            for (limit, memory) in around.iter().flat_map(|limit| [(*limit, 0.0), (*limit, 0.85)]) {
                for mean in [limit - spread, limit - spread / 2.0, limit, limit + spread] {
                    let told = changes(rule, mean, spread, memory);
                    assert!(told <= 12, "{metric} around {mean}, {memory}: {told}");
                }
                assert!(changes(plain, limit, spread, memory) > 154, "{metric} {memory}");
            }
        }
    }

    #[test]
    fn a_level_comes_down_only_when_it_stays_on_the_way_back() {
        let rule = Rule { clear_critical: limit("< 85"), clear: limit("< 75"), ..high() };
        assert_eq!(
            levels(rule, &[91.0, 89.0, 85.0, 84.9, 78.0, 74.9]),
            [Critical, Critical, Critical, Warning, Warning, Ok]
        );
        let rule = Rule { clear_for: Duration::from_secs(20), ..rule };
        assert_eq!(
            levels(rule, &[91.0, 70.0, 70.0, 86.0, 70.0, 70.0, 70.0]),
            [Critical, Critical, Critical, Critical, Critical, Critical, Ok],
            "a value that is worse again begins the time anew"
        );
        assert_eq!(
            levels(rule, &[91.0, 78.0, 70.0, 70.0, 70.0, 70.0]),
            [Critical, Critical, Critical, Critical, Ok, Ok],
            "it goes through the band of WARNING, and no WARNING is told of a value that is OK"
        );
        assert_eq!(
            levels(rule, &[91.0, 78.0, 70.0, 78.0, 70.0, 70.0, 70.0]),
            [Critical, Critical, Critical, Warning, Warning, Warning, Ok],
            "the value was OK, but not for long enough, and leads to WARNING now"
        );
        assert_eq!(
            levels(rule, &[91.0, 70.0, 78.0, 70.0, 70.0, 70.0]),
            [Critical, Critical, Critical, Critical, Critical, Ok],
            "to OK it counts from when it was OK without a break"
        );
        let failed = built_in()["default"].rules["job_monitor.*.exit_code"];
        assert_eq!(levels(failed, &[3.0, 1.0, 0.0]), [Critical, Critical, Ok]);
        let plugin = built_in()["default"].rules["own_monitor.*.exit_code"];
        assert_eq!(
            levels(plugin, &[1.0, 2.0, 3.0, 1.0, 0.0]),
            [Warning, Critical, Critical, Warning, Ok]
        );
    }

    #[test]
    fn a_star_stands_for_one_whole_part_of_a_path() {
        assert!(is_pattern("disk_monitor.*.percent") && is_pattern("load"));
        assert!(!is_pattern("disk*.percent") && !is_pattern("a..b") && !is_pattern(""));
    }
}
