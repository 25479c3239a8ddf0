//! Parses the output of a plugin: lines `path value`, or that of a Nagios plugin with performance data
//! (Monitoring Plugins Development Guidelines, "Plugin Output for Nagios" and "Performance data"). Pure.

use crate::agent::collect::metric_name::{MAX_PATH_DEPTH, MAX_PATH_LENGTH};

/// The most metrics of one plugin.
const MAX_METRICS: usize = 64;

/// The metrics in the output of a plugin.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PluginOutput {
    /// Path and value of the lines `path value`.
    pub metrics: Vec<(String, f64)>,
    /// Label and value of performance data; the label may hold what a path may not. None where the
    /// value is unknown: what is called alike is told apart by its place.
    pub perfdata: Vec<(String, Option<f64>)>,
    /// What could not be parsed, for the log.
    pub warning: Option<String>,
}

/// Parses the standard output of a plugin.
///
/// A `|` makes it the output of a Nagios plugin, unless it is in a comment: a line that begins with `#`.
/// Otherwise it is one when not a single line is a path and a value: then it only says how things
/// are, and its exit code tells the rest.
pub fn parse(text: &str) -> PluginOutput {
    // Some editors and programs of Windows put a byte order mark before a text.
    let text = text.replace('\u{feff}', "");
    let content: Vec<&str> = text.lines().filter(|line| !is_comment(line)).collect();
    let is_plugin = content.iter().any(|line| line.contains('|'));
    let mut output = if is_plugin { plugin(&content.join("\n")) } else { lines(&text) };
    let found = output.metrics.len() + output.perfdata.len();
    if found > MAX_METRICS {
        output.warning =
            Some(format!("it printed {found} metrics, the first {MAX_METRICS} are taken"));
        output.metrics.truncate(MAX_METRICS);
        output.perfdata.truncate(MAX_METRICS);
    }
    output
}

/// Parses the beginning of a standard output that was too long. What it ends with may be half a number.
pub fn parse_beginning(text: &str) -> PluginOutput {
    let end = if text.contains('|') { text.rfind(is_blank) } else { text.rfind('\n') };
    let warning = Some("it printed more than 64 kB: the rest is passed over".to_owned());
    PluginOutput { warning, ..parse(&text[..end.unwrap_or(0)]) }
}

fn is_blank(letter: char) -> bool {
    letter.is_ascii_whitespace()
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with('#')
}

fn lines(text: &str) -> PluginOutput {
    let mut output = PluginOutput::default();
    let mut odd = None;
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        match metric(line) {
            _ if line.is_empty() || is_comment(line) => {}
            Some(metric) => output.metrics.push(metric),
            None => odd = odd.or(Some((number, line))),
        }
    }
    if let (Some((number, line)), false) = (odd, output.metrics.is_empty()) {
        let start: String = line.chars().take(60).collect();
        output.warning = Some(format!(
            "line {number} of its output must be a path and a number, such as \"raid.degraded 1\", not {start:?}"
        ));
    }
    output
}

fn metric(line: &str) -> Option<(String, f64)> {
    let (path, value) = line.split_once(char::is_whitespace)?;
    let value = value.trim_start().parse().ok().filter(|value: &f64| value.is_finite())?;
    is_path(path).then(|| (path.to_owned(), value))
}

/// What hbd takes as a path; a `*` would be a pattern there.
fn is_path(path: &str) -> bool {
    path.len() <= MAX_PATH_LENGTH
        && path.split('.').count() <= MAX_PATH_DEPTH
        && !path.split('.').any(str::is_empty)
        && !path.contains(|c: char| c.is_control() || c == '*')
}

/// `TEXT | PERFDATA` on the first line, then more text, from the next `|` on more performance data.
fn plugin(text: &str) -> PluginOutput {
    let (first, rest) = text.split_once('\n').unwrap_or((text, ""));
    let of_first = first.split_once('|').map_or("", |(_, data)| data);
    let of_rest = rest.split_once('|').map_or("", |(_, data)| data);
    let mut output = PluginOutput::default();
    for data in [of_first, of_rest] {
        if let Err(what) = perfdata(data, &mut output.perfdata) {
            output.warning = output.warning.or(Some(what));
        }
    }
    output
}

/// `'label'=value[UOM];[warn];[crit];[min];[max]` and blanks between them: no other ones, since a unit
/// may begin with a no-break space.
fn perfdata(data: &str, found: &mut Vec<(String, Option<f64>)>) -> Result<(), String> {
    let mut rest = data.trim_start();
    let mut result = Ok(());
    while !rest.is_empty() {
        let Some((label, behind)) = label(rest) else {
            let start: String = rest.chars().take(60).collect();
            return Err(format!(
                "its performance data must be 'label'=value, separated by blanks, not {start:?}"
            ));
        };
        let (item, next) = behind.split_once(is_blank).unwrap_or((behind, ""));
        let value = number(item);
        if value.is_err() {
            result =
                Err(format!("the value of {label:?} in its performance data must be a number"));
        }
        found.push((label, value.unwrap_or_default()));
        rest = next.trim_start();
    }
    result
}

/// The label and what is behind its `=`. In single quotes it may hold anything; two of them are one.
fn label(text: &str) -> Option<(String, &str)> {
    let Some(mut rest) = text.strip_prefix('\'') else {
        let (label, rest) = text.split_once('=')?;
        let plain = !label.is_empty() && !label.contains(is_blank);
        return plain.then(|| (label.to_owned(), rest));
    };
    let mut label = String::new();
    loop {
        let (part, behind) = rest.split_once('\'')?;
        label.push_str(part);
        match behind.strip_prefix('\'') {
            Some(quoted) => {
                label.push('\'');
                rest = quoted;
            }
            None => return Some((label, behind.strip_prefix('=')?)),
        }
    }
}

/// The number, as the plugin printed it, whatever its unit; none when it is `U`, unknown. Some
/// plugins print a decimal comma.
fn number(item: &str) -> Result<Option<f64>, ()> {
    let value = item.split(';').next().unwrap_or_default();
    if value == "U" {
        return Ok(None);
    }
    let (value, unit) = split_unit(value);
    // In Latin-1 a no-break space is no letter.
    let inner =
        unit.trim_start_matches(|c: char| c.is_whitespace() || c == char::REPLACEMENT_CHARACTER);
    let is_grouped = inner.starts_with(|c: char| c.is_ascii_digit());
    let is_hexadecimal = value == "0" && unit.starts_with(['x', 'X']);
    if unit.starts_with(['.', ',', '\'', ':', '+', '-', '_', '=']) || is_hexadecimal || is_grouped {
        return Err(());
    }
    let value: f64 = value.replace(',', ".").parse().map_err(drop)?;
    if value.is_finite() { Ok(Some(value)) } else { Err(()) }
}

/// The number that a text begins with, and what is behind it.
fn split_unit(text: &str) -> (&str, &str) {
    let digits = |from: usize| text[from..].bytes().take_while(u8::is_ascii_digit).count();
    let mut end = usize::from(text.starts_with(['+', '-']));
    end += digits(end);
    if text[end..].starts_with(['.', ',']) {
        end += 1 + digits(end + 1);
    }
    // An exponent looks like a unit until a digit follows.
    if text[end..].starts_with(['e', 'E']) {
        let sign = usize::from(text[end + 1..].starts_with(['+', '-']));
        let exponent = digits(end + 1 + sign);
        end += if exponent > 0 { 1 + sign + exponent } else { 0 };
    }
    text.split_at(end)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::heartbeat::datagram;
    use crate::heartbeat::encode::OutgoingDatagram;

    fn shown(metrics: &[(String, f64)]) -> String {
        let one = |(name, value): &(String, f64)| format!("{name}={value}");
        metrics.iter().map(one).collect::<Vec<_>>().join(" ")
    }

    /// The performance data whose value is known.
    fn known(output: &PluginOutput) -> String {
        let known =
            output.perfdata.iter().filter_map(|(label, value)| Some((label.clone(), (*value)?)));
        shown(&known.collect::<Vec<_>>())
    }

    #[test]
    fn lines_are_paths_and_values() {
        let output = parse("# raid\nraid_monitor.md0.degraded 1\n\n  load 2.5e-1 \ncold\t-7\n");
        assert_eq!(shown(&output.metrics), "raid_monitor.md0.degraded=1 load=0.25 cold=-7");
        assert_eq!((output.perfdata, output.warning), (vec![], None));
    }

    #[test]
    fn a_bar_in_a_comment_made_a_plugin_of_lines_and_all_was_lost() {
        let output = parse("# total | used\nraid.degraded 1\n  #|\nodd\n");
        assert_eq!(shown(&output.metrics), "raid.degraded=1");
        assert_eq!(output.perfdata, []);
        let warning = output.warning.unwrap();
        assert!(warning.starts_with("line 4 of its output"), "as the operator counts: {warning}");
        let output = parse("# total | used\nOK | one=1\nmore\n# more | of it\nyet more | two=2\n");
        assert_eq!(known(&output), "one=1 two=2");
        assert_eq!((output.metrics, output.warning), (vec![], None));
    }

    #[test]
    fn a_line_among_them_that_is_none_is_told() {
        for line in
            ["raid degraded 1", "a..b 1", "a.b", "a nan", "a inf", "a.* 1", "a 1 2", "a 1,5"]
        {
            let output = parse(&format!("good 1\n{line}\n"));
            assert_eq!(shown(&output.metrics), "good=1", "{line}");
            let warning = output.warning.unwrap();
            assert!(
                warning.starts_with("line 2 of its output must be a path and a number"),
                "{warning}"
            );
            assert!(warning.contains(line), "{warning}");
        }
        for path in ["y".repeat(MAX_PATH_LENGTH + 1), vec!["y"; MAX_PATH_DEPTH + 1].join(".")] {
            assert!(parse(&format!("{path} 1\nx 1\n")).warning.is_some());
        }
    }

    #[test]
    fn a_plugin_without_performance_data_says_how_things_are() {
        for text in ["OK - all is well\n", "", "CRITICAL: mirror broken\nmore about it\n"] {
            assert_eq!(parse(text), PluginOutput::default(), "{text}");
        }
    }

    #[test]
    fn performance_data_is_read_as_the_guidelines_have_it() {
        for (text, metrics) in [
            ("OK - all fine | used=5%;80;90", "used=5"),
            ("OK | used=5%;80;90;0;100 free=95%", "used=5 free=95"),
            ("DISK OK - free space: / 3326 MB (56%); | /=2643MB;5948;5958;0;5968", "/=2643"),
            (
                "x|'label with spaces'=1.5MB;;;; 'it''s'=2s 'a=b'=3c",
                "label with spaces=1.5 it's=2 a=b=3",
            ),
            (
                "PING OK - rta 0.80 ms|rta=0.800000ms;3000.000000;5000.000000;0.000000 pl=0%;80;100;0",
                "rta=0.8 pl=0",
            ),
            ("x | unknown=U;1;2 known=-.5", "known=-0.5"),
            ("x | exp=1e3 range=5;10:20;@5:6 comma=1,5s", "exp=1000 range=5 comma=1.5"),
            ("x | t=21.5°C micro=7µs", "t=21.5 micro=7"),
            ("no pipe in the first line\nbut | late=1\nlater=2 last=3", "late=1 later=2 last=3"),
            ("OK | one=1\nlong text\nmore | two=2\nthree=3", "one=1 two=2 three=3"),
            ("OK |", ""),
            ("OK | \n\n", ""),
        ] {
            let output = parse(text);
            assert_eq!(known(&output), metrics, "{text}");
            assert_eq!((output.metrics, output.warning), (vec![], None), "{text}");
        }
    }

    #[test]
    fn a_unit_that_is_no_word_cost_the_value() {
        for (value, number) in [
            ("5b/s", "5"),
            ("1.5MB/s", "1.5"),
            ("12m\u{b2}", "12"),
            ("3m3/h", "3"),
            ("9,99\u{20ac}", "9.99"),
            ("-1.5e-3\u{b5}g/m\u{b3}", "-0.0015"),
            ("21.5\u{fffd}C", "21.5"),
            ("21\u{ba}C", "21"),
            ("2\u{2030}", "2"),
            ("7$", "7"),
            ("1e", "1"),
            ("2E+3#", "2000"),
            ("100rpm;;;0", "100"),
            ("5\u{a0}GB", "5"),
            ("5\u{202f}%", "5"),
        ] {
            let output = parse(&format!("OK | a={value} b=1"));
            assert_eq!(known(&output), format!("a={number} b=1"), "{value}");
            assert_eq!(output.warning, None, "{value}");
        }
        for value in [
            "12:30",
            "1.2.3",
            "1'000",
            "1\u{a0}000",
            "1\u{202f}000\u{a0}GB",
            "1\u{fffd}000",
            "5-10",
            "0x1F",
            "-",
            "e5",
            "1,000,000",
        ] {
            let output = parse(&format!("OK | a={value} b=1"));
            assert_eq!(known(&output), "b=1", "{value}");
            assert!(output.warning.unwrap().contains("the value of \"a\""), "{value}");
        }
    }

    #[test]
    fn a_byte_order_mark_was_part_of_the_first_path() {
        let output = parse("\u{feff}raid.degraded 1\n\u{feff}load 2\n");
        assert_eq!(
            (shown(&output.metrics), output.warning),
            ("raid.degraded=1 load=2".into(), None)
        );
        assert_eq!(known(&parse("\u{feff}OK | a=1")), "a=1");
        assert_eq!(shown(&parse("\u{feff}# a | b\nc 1\n").metrics), "c=1");
    }

    #[test]
    fn the_last_number_of_an_output_that_is_cut_was_half_of_itself() {
        for (text, metrics, perfdata) in [
            ("a 1\nb 2\nc 3", "a=1 b=2", ""),
            ("a 1", "", ""),
            ("OK | a=1 b=2 c=3", "", "a=1 b=2"),
            ("OK | a=1 'b c=3", "", "a=1"),
            ("OK | a=1 b=1\u{a0}0", "", "a=1"),
            ("", "", ""),
        ] {
            let output = parse_beginning(text);
            assert_eq!((&*shown(&output.metrics), &*known(&output)), (metrics, perfdata));
            assert!(output.warning.unwrap().starts_with("it printed more than 64 kB"), "{text}");
        }
    }

    #[test]
    fn performance_data_that_is_none_is_told() {
        for (text, metrics, what) in [
            ("x | a=1 nonsense", "a=1", "must be 'label'=value"),
            ("x | 'open=1", "", "must be 'label'=value"),
            ("x | =1", "", "must be 'label'=value"),
            ("x | a=many b=2", "b=2", "the value of \"a\""),
            ("x | a= b=2", "b=2", "the value of \"a\""),
            ("x | a=nan", "", "the value of \"a\""),
        ] {
            let output = parse(text);
            assert_eq!(known(&output), metrics, "{text}");
            let warning = output.warning.unwrap();
            assert!(warning.contains(what), "{text}: {warning}");
        }
    }

    #[test]
    fn a_program_that_prints_without_end_is_cut() {
        let text: String = (0..1000).map(|n| format!("a{n} 1\n")).collect();
        let output = parse(&text);
        assert_eq!(output.metrics.len(), MAX_METRICS);
        assert_eq!(output.warning.unwrap(), "it printed 1000 metrics, the first 64 are taken");
    }

    proptest! {
        #[test]
        fn what_is_taken_hbd_takes_too(path in "(\\PC|[.a*\"]){1,40}|(a\\.){10,20}a|y{195,205}") {
            if let [(path, value)] = &parse(&format!("{path} 1.5"))
                .metrics[..]
            {
                let metrics = [(path.clone(), *value)].into();
                let json = OutgoingDatagram { host: "w".into(), metrics, ..OutgoingDatagram::default() }.json();
                let heard = datagram::parse(&json).unwrap();
                prop_assert_eq!(heard.metrics.iter().collect::<Vec<_>>(), [(path.as_str(), 1.5)]);
            }
        }

        #[test]
        fn junk_gives_no_panic_and_no_odd_number(text in "(\\PC|[|='; \n\t.a1U%]){0,80}") {
            let output = parse(&text);
            let of_lines = output.metrics.iter().map(|(_, value)| *value);
            let mut values = of_lines.chain(output.perfdata.iter().filter_map(|(_, value)| *value));
            prop_assert!(values.all(f64::is_finite), "{output:?}");
            prop_assert!(output.metrics.iter().all(|(path, _)| is_path(path)));
        }
    }
}
