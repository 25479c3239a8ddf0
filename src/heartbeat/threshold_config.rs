//! The section `threshold_configs`, and the four sets that need not be written.

use std::collections::BTreeMap;
use std::time::Duration;

use super::threshold::{Limit, Operator, Rule, ThresholdSet};
use crate::config_file::{NameSet, Section};
use crate::problem::Severity;

/// The names of the built-in sets, in the order of the columns below.
const BUILT_IN: [&str; 4] = ["default", "high_sensitivity", "low_sensitivity", "database"];

/// A metric, how long its value must stay, and warning and critical limits by set.
type Row = (&'static str, u64, [Option<(f64, f64)>; 4]);

/// What a rule looks like.
const RULE: &str = "must be such as {warning: \"> 80\", critical: \"> 90\"}, or off";

/// No critical limit at all.
const NONE: f64 = f64::INFINITY;

const TABLE: [Row; 8] = [
    ("cpu_monitor.cpu_percent", 60, same([(80., 90.), (60., 75.), (90., 98.), (80., 90.)])),
    ("cpu_monitor.iowait_percent", 60, same([(30., 50.), (15., 30.), (50., 80.), (15., 30.)])),
    ("load_monitor.per_core", 60, same([(2., 4.), (1., 2.), (4., 8.), (1.5, 3.)])),
    ("memory_monitor.percent", 0, same([(85., 95.), (75., 85.), (92., 98.), (90., 96.)])),
    ("swap_monitor.percent", 0, same([(50., 80.), (25., 50.), (80., 95.), (10., 30.)])),
    ("disk_monitor.*.percent", 0, same([(85., 95.), (75., 85.), (92., 98.), (75., 85.)])),
    ("disk_monitor.*.inodes_percent", 0, same([(85., 95.), (75., 85.), (92., 98.), (75., 85.)])),
    (
        "systemd_monitor.failed_units",
        0,
        [Some((0., NONE)), Some((0., NONE)), None, Some((0., NONE))],
    ),
];

const fn same(limits: [(f64, f64); 4]) -> [Option<(f64, f64)>; 4] {
    [Some(limits[0]), Some(limits[1]), Some(limits[2]), Some(limits[3])]
}

/// The built-in sets by name.
pub fn built_in() -> BTreeMap<String, ThresholdSet> {
    let set = |column: usize| {
        let rules = TABLE.iter().filter_map(|(metric, hold, limits)| {
            let (warning, critical) = limits[column]?;
            let above = |value: f64| Limit { operator: Operator::Above, value };
            let rule = Rule {
                warning: Some(above(warning)),
                critical: critical.is_finite().then(|| above(critical)),
                clear: None,
                hold: Duration::from_secs(*hold),
            };
            Some(((*metric).to_owned(), rule))
        });
        ThresholdSet { rules: rules.collect() }
    };
    BUILT_IN.iter().enumerate().map(|(column, name)| ((*name).to_owned(), set(column))).collect()
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
        .collect();
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
        warning: limit(section, "warning"),
        critical: limit(section, "critical"),
        clear: limit(section, "clear"),
        hold: section.duration("for").unwrap_or_default(),
    };
    if !section.given("warning") && !section.given("critical") {
        section.error("", "needs warning or critical, such as {warning: \"> 80\"}");
    }
    check_order(section, &rule);
    rule
}

fn limit(section: &mut Section, key: &'static str) -> Option<Limit> {
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
    let first = rule.warning.or(rule.critical);
    if let (Some(first), Some(clear)) = (first, rule.clear) {
        let (up, back) = (upward(first), upward(clear));
        let beyond = match up {
            Some(true) => clear.value > first.value,
            Some(false) => clear.value < first.value,
            None => false,
        };
        if up.is_some() && (up == back || beyond) {
            let what = format!("must lie on the other side of the limit ({first}), not {clear}");
            section.error("clear", what);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_sets_are_the_table_of_the_contract() {
        let sets = built_in();
        let minute = Duration::from_secs(60);
        // Section 4 of the contract: default, high_sensitivity, low_sensitivity, database.
        let table = [
            ("cpu_monitor.cpu_percent", minute, ["80/90", "60/75", "90/98", "80/90"]),
            ("cpu_monitor.iowait_percent", minute, ["30/50", "15/30", "50/80", "15/30"]),
            ("load_monitor.per_core", minute, ["2/4", "1/2", "4/8", "1.5/3"]),
            ("memory_monitor.percent", Duration::ZERO, ["85/95", "75/85", "92/98", "90/96"]),
            ("swap_monitor.percent", Duration::ZERO, ["50/80", "25/50", "80/95", "10/30"]),
            ("disk_monitor.*.percent", Duration::ZERO, ["85/95", "75/85", "92/98", "75/85"]),
            ("disk_monitor.*.inodes_percent", Duration::ZERO, ["85/95", "75/85", "92/98", "75/85"]),
            ("systemd_monitor.failed_units", Duration::ZERO, ["0/-", "0/-", "-/-", "0/-"]),
        ];
        for (metric, hold, columns) in table {
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
                assert!(rule.is_none_or(|rule| rule.hold == hold), "{set} {metric}");
            }
        }
        let counts = BUILT_IN.map(|set| sets[set].rules.len());
        assert_eq!(counts, [8, 8, 7, 8], "and no more");
    }

    #[test]
    fn a_star_stands_for_one_whole_part_of_a_path() {
        assert!(is_pattern("disk_monitor.*.percent") && is_pattern("load"));
        assert!(!is_pattern("disk*.percent") && !is_pattern("a..b") && !is_pattern(""));
    }
}
