//! Open alerts, what is silent and held back, and the forms that silence and acknowledge. Pure.

use super::format::{about, count};
use super::html::Html;
use super::panels::{ReadResult, badge, cut, moment, section, unreadable};
use super::problem::metric_problem;
use super::summary::class_of;
use crate::clock::Wall;
use crate::view::calm::{HeldListView, HeldView, SilenceView, SilencesView};
use crate::view::{AlertView, MetricView};

/// Silences, and things that are held back, that are shown.
const MAX_SHOWN: usize = 50;
/// Alerts that are shown: each has a form, and the page is to stay light.
const MAX_ALERTS: usize = 25;
/// Alerts that are shown without being asked for.
const MAX_OPEN: usize = 8;

/// What is silent, and what that holds back; an error says why it is not known.
pub type CalmResult = Result<(SilencesView, HeldListView), String>;

/// One line that unfolds; nothing at all when nothing is quiet.
pub fn quiet(html: &mut Html, calm: &CalmResult) {
    let (silences, held) = match calm {
        Ok((silences, held)) => (&silences.silences, held),
        Err(why) => {
            html.markup("<p class=note>What is silent cannot be read at present: ").text(why);
            html.markup("</p>");
            return;
        }
    };
    if silences.is_empty() && held.held.is_empty() {
        return;
    }
    html.markup("<section class=quiet aria-label=Silences><details id=quiet><summary>");
    html.text(summary(silences, held)).markup("</summary><ul class=list>");
    for silence in silences.iter().take(MAX_SHOWN) {
        self::silence(html, silence);
    }
    html.markup("</ul>");
    more(
        html,
        silences.len().saturating_sub(MAX_SHOWN),
        "<a href=\"/api/v1/silences\">all as JSON</a></p>",
    );
    held_list(html, &held.held);
    html.markup("</details></section>");
}

/// What is held back, and why.
pub fn held_list(html: &mut Html, held: &[HeldView]) {
    html.markup("<ul class=list>");
    held.iter().take(MAX_SHOWN).for_each(|one| self::held(html, one));
    html.markup("</ul>");
    more(
        html,
        held.len().saturating_sub(MAX_SHOWN),
        "<a href=\"/api/v1/held\">all as JSON</a></p>",
    );
}

fn more(html: &mut Html, hidden: usize, link: &'static str) {
    if hidden > 0 {
        html.markup("<p class=i>And ").text(hidden).markup(" more: ").markup(link);
    }
}

/// `2 silences, 1 host that is down and a storm hold 43 things back`.
fn summary(silences: &[SilenceView], held: &HeldListView) -> String {
    let windows = silences.iter().filter(|one| one.kind == "window").count();
    let silences = silences.len() - windows;
    let (mut parents, mut storm, mut flapping) = (Vec::new(), false, false);
    let lasting = held.held.iter().filter(|one| one.out_at.is_none());
    for reason in lasting.flat_map(|one| &one.reasons) {
        match reason.why {
            "parent" if !parents.contains(&&reason.id) => parents.push(&reason.id),
            "storm" => storm = true,
            "flapping" => flapping = true,
            _ => {}
        }
    }
    let counted = [
        (silences, "silence", "silences"),
        (windows, "window", "windows"),
        (parents.len(), "host that is down", "hosts that are down"),
    ];
    let many = silences + windows + parents.len() + usize::from(storm) + usize::from(flapping) > 1;
    let counted = counted.into_iter().filter(|(number, ..)| *number > 0);
    let mut parts: Vec<String> =
        counted.map(|(number, one, many)| count(number, one, many)).collect();
    parts.extend(storm.then(|| "a storm".into()));
    parts.extend(flapping.then(|| "flapping".into()));
    let Some(last) = parts.pop() else {
        let things = count(held.held.len(), "thing that was", "things that were");
        return format!("{things} held back will be told soon");
    };
    let hold = if many { "hold" } else { "holds" };
    let things = match held.count {
        0 => "nothing".into(),
        number => count(number, "thing", "things"),
    };
    let before = if parts.is_empty() { "" } else { " and " };
    format!("{}{before}{last} {hold} {things} back", parts.join(", "))
}

/// `s17 web1 until ..., ann: kernel update, holds 2 things back [End]`.
fn silence(html: &mut Html, silence: &SilenceView) {
    html.markup("<li").attribute("data-k", &silence.id).markup("><b class=w>").text(&silence.id);
    html.markup("</b> <span class=w>").text(cut(&silence.scope)).markup("</span> until ");
    moment(html, silence.until);
    html.markup(" <i>");
    match (&silence.by, &silence.comment) {
        (Some(by), Some(comment)) => drop(html.text(cut(by)).markup(": ").text(cut(comment))),
        (Some(by), None) => drop(html.text(cut(by))),
        (None, _) => drop(html.markup("maintenance window")),
    }
    if let Some(unless) = silence.unless {
        html.markup(", unless ").text(unless.name());
    }
    if silence.holds > 0 {
        html.markup(", holds ").text(count(silence.holds, "thing", "things")).markup(" back");
    }
    html.markup("</i>");
    if silence.by.is_some() {
        html.markup("<form method=post action=/unsilence><input type=hidden name=id");
        html.attribute("value", &silence.id).markup("><button");
        html.attribute("aria-label", format_args!("End {}", silence.id))
            .markup(">End</button></form>");
    }
}

fn held(html: &mut Html, held: &HeldView) {
    html.markup("<li><span class=w>").text(cut(&held.text)).markup("</span> <i>since ");
    moment(html, held.since);
    held_reasons(html, held, None);
    html.markup("</i>");
}

/// Finds the metric that an alert is about.
pub type FindMetric<'a> = &'a dyn Fn(&AlertView) -> Option<MetricView>;

/// What is wrong at present; nothing at all when nothing is. The first ones stand open: below them is
/// the list of hosts, which is not to be pushed off the screen.
pub fn alerts(html: &mut Html, alerts: &ReadResult<AlertView>, find: FindMetric, now: Wall) {
    let list = match alerts {
        Ok(list) if list.is_empty() => return,
        Ok(list) => list,
        Err(why) => return section(html, "alerts", "Open alerts", |html| unreadable(html, why)),
    };
    section(html, "alerts", "Open alerts", |html| {
        let shown = &list[..list.len().min(MAX_ALERTS)];
        let (first, rest) = shown.split_at(shown.len().min(MAX_OPEN));
        html.markup("<ul class=list>");
        first.iter().for_each(|one| alert(html, one, find, now));
        html.markup("</ul>");
        if !rest.is_empty() {
            html.markup("<details data-k=rest><summary>And ");
            html.text(list.len() - first.len()).markup(" more</summary><ul class=list>");
            rest.iter().for_each(|one| alert(html, one, find, now));
            html.markup("</ul></details>");
        }
        more(html, list.len() - shown.len(), "<a href=\"/api/v1/alerts\">all as JSON</a></p>");
    });
}

fn alert(html: &mut Html, alert: &AlertView, find: FindMetric, now: Wall) {
    html.markup("<li");
    if let Some(scope) = &alert.scope {
        html.attribute("data-k", scope);
    }
    html.markup(">");
    badge(html, class_of(alert.level), alert.level.name());
    html.markup(" <span class=w>");
    match &alert.host {
        Some(host) => {
            html.markup("<a").link("/hosts/", host).markup(">").text(host).markup("</a>");
        }
        None => drop(html.text(&alert.subject)),
    }
    let name = alert.host.as_deref().unwrap_or_default();
    let metric = find(alert);
    html.markup(": ");
    match &metric {
        Some(metric) => html.text(cut(&metric_problem(metric))),
        None => html.text(cut(alert.text.strip_prefix(name).unwrap_or(&alert.text).trim_start())),
    };
    html.markup("</span> <i>").text(alert_details(alert, now));
    if let Some(held) = &alert.held {
        held_reasons(html, held, Some(flapping(&held.text)));
    }
    html.markup("</i>");
    html.markup("<div class=sub>");
    if let Some(metric) = &metric {
        html.markup("<span class=\"i w\">").text(cut(&metric.path)).markup("</span>");
    }
    if let Some(scope) = &alert.scope {
        let told = !alert.channels.is_empty();
        CalmForm { scope, host: None, acknowledged: alert.acknowledged, told }.render(html);
    }
    html.markup("</div>");
}

/// `for 5 min, told oncall`.
fn alert_details(alert: &AlertView, now: Wall) -> String {
    let mut parts: Vec<String> =
        alert.since.iter().map(|since| format!("for {}", about(now.since(*since)))).collect();
    parts.push(match alert.channels.as_slice() {
        [] => "nobody was told".into(),
        channels => format!("told {}", channels.join(", ")),
    });
    parts.extend(alert.acknowledged.map(|_| "acknowledged".into()));
    parts.join(", ")
}

/// `flapping: 14 changes in 52 min`, of `web1 ipv4 is flapping: 14 changes in 52 min`.
fn flapping(text: &str) -> &str {
    text.find("flapping: ").map_or("flapping", |at| &text[at..])
}

/// `, held back by s17 until ..., router, which is down`, after what is held back; with how it flaps,
/// where that is not said yet.
fn held_reasons(html: &mut Html, held: &HeldView, flapping: Option<&str>) {
    if let Some(at) = held.out_at {
        html.markup(", to be told at ");
        moment(html, at);
        return;
    }
    let mut by = ", held back by ";
    for reason in &held.reasons {
        match reason.why {
            "flapping" => {
                if let Some(flapping) = flapping {
                    html.markup(", ").text(cut(flapping));
                }
                html.markup(", told again if it is quiet");
            }
            "storm" => drop(html.markup(by).markup("the storm")),
            "parent" => drop(html.markup(by).text(cut(&reason.id)).markup(", which is down")),
            _ => drop(html.markup(by).text(cut(&reason.id))),
        }
        if let Some(until) = reason.until {
            html.markup(" until ");
            moment(html, until);
        }
        if reason.why != "flapping" {
            by = ", ";
        }
    }
}

/// What a form is about, and where it stands.
#[derive(Clone, Copy, Debug)]
pub struct CalmForm<'a> {
    /// The scope of what it silences and acknowledges.
    pub scope: &'a str,
    /// The host whose page it stands on; none: the page of everything.
    pub host: Option<&'a str>,
    /// When the alarm was acknowledged.
    pub acknowledged: Option<Wall>,
    /// Whether there is, or may be, an alarm that was told.
    pub told: bool,
}

impl CalmForm<'_> {
    /// Writes it, folded up. It works without a script, but for the time until tomorrow.
    pub fn render(&self, html: &mut Html) {
        let verb = if self.told { "Acknowledge or silence" } else { "Silence" };
        html.markup("<details class=calm").attribute("data-k", format_args!("calm {}", self.scope));
        html.markup("><summary")
            .attribute("aria-label", format_args!("{verb} {}", cut(self.scope)));
        html.markup(">").text(verb).markup("</summary><form method=post action=");
        html.markup(if self.told { "/ack" } else { "/silence" });
        html.markup("><input type=hidden name=scope").attribute("value", self.scope).markup(">");
        if let Some(host) = self.host {
            let page = crate::escape::PercentEncoded(host);
            html.markup("<input type=hidden name=back");
            html.attribute("value", format_args!("/hosts/{page}")).markup(">");
        }
        html.markup("<input name=comment maxlength=500 placeholder=Comment");
        html.attribute("aria-label", format_args!("Comment on {}", cut(self.scope))).markup(">");
        if self.told {
            html.markup(match self.acknowledged {
                None => "<button>Acknowledge</button>",
                Some(_) => "<button name=undo value=1>Not acknowledged</button>",
            });
        }
        html.markup(
            "<button formaction=/silence name=seconds value=3600>Silence 1 h</button>\
             <button formaction=/silence name=seconds value=14400>4 h</button>\
             <button formaction=/silence name=seconds value=0 class=eight>until tomorrow 8:00</button>\
             </form></details>",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Level;
    use crate::view::calm::ReasonView;

    fn view(kind: &'static str) -> SilenceView {
        SilenceView {
            id: "s1".into(),
            kind,
            scope: "web1".into(),
            from: Wall(0),
            until: Wall(0),
            by: None,
            comment: None,
            unless: None,
            holds: 0,
        }
    }

    fn held(reasons: &[(&'static str, &str, Option<Wall>)]) -> HeldView {
        let reason = |(why, id, until): &(&'static str, &str, Option<Wall>)| ReasonView {
            why,
            id: (*id).into(),
            until: *until,
            channels: Vec::new(),
        };
        HeldView {
            subject: "host web1".into(),
            text: "web1 ipv4 overdue".into(),
            level: Level::Critical,
            since: Wall(0),
            reasons: reasons.iter().map(reason).collect(),
            out_at: None,
        }
    }

    #[test]
    fn the_line_counts_hosts_that_are_down_and_names_storms_and_flapping() {
        let parent = |name| held(&[("parent", name, None)]);
        let (storm, flapping) =
            (held(&[("storm", "storm", None)]), held(&[("flapping", "", None)]));
        let both = held(&[("silence", "s1", None), ("parent", "router", None)]);
        let out = HeldView { out_at: Some(Wall(0)), ..parent("router") };
        for (kinds, held, line) in [
            (vec![], vec![parent("router"); 2], "1 host that is down holds 2 things back"),
            (vec![], vec![storm.clone(); 3], "a storm holds 3 things back"),
            (vec![], vec![flapping.clone()], "flapping holds 1 thing back"),
            (
                vec!["silence"],
                vec![both, parent("wan1"), storm, flapping],
                "1 silence, 2 hosts that are down, a storm and flapping hold 4 things back",
            ),
            (vec![], vec![out], "1 thing that was held back will be told soon"),
        ] {
            let silences: Vec<_> = kinds.into_iter().map(view).collect();
            let count = held.len();
            assert_eq!(summary(&silences, &HeldListView { held, count }), line);
        }
    }

    #[test]
    fn each_kind_of_reason_has_its_words() {
        let until = Some(Wall(0));
        for (reasons, words) in [
            (vec![("parent", "router", None)], ", held back by router, which is down"),
            (vec![("storm", "storm", None)], ", held back by the storm"),
            (vec![("flapping", "flapping", None)], ", flapping, told again if it is quiet"),
            (
                vec![("silence", "s1", until), ("storm", "storm", None), ("flapping", "", until)],
                ", held back by s1 until AT, the storm, flapping, told again if it is quiet until AT",
            ),
            (
                vec![("flapping", "", None), ("window", "<b>", None), ("parent", "a", None)],
                ", flapping, told again if it is quiet, held back by &lt;b&gt;, a, which is down",
            ),
        ] {
            let (mut html, mut at) = (Html::default(), Html::default());
            held_reasons(&mut html, &held(&reasons), Some("flapping"));
            moment(&mut at, Wall(0));
            assert_eq!(html.as_str().replace(at.as_str(), "AT"), words);
        }
        let mut html = Html::default();
        held_reasons(&mut html, &held(&[("flapping", "", None)]), None);
        assert_eq!(html.as_str(), ", told again if it is quiet");
        let title = "web1 ipv4 is flapping: 14 changes in 52 min";
        assert_eq!(flapping(title), "flapping: 14 changes in 52 min");
        assert_eq!(flapping("web1 ipv4 overdue"), "flapping");
    }

    #[test]
    fn the_line_counts_silences_windows_and_things() {
        for (kinds, count, line) in [
            (vec!["silence", "window", "host"], 3, "2 silences and 1 window hold 3 things back"),
            (vec!["silence"], 1, "1 silence holds 1 thing back"),
            (vec!["window", "window"], 0, "2 windows hold nothing back"),
        ] {
            let silences: Vec<_> = kinds.into_iter().map(view).collect();
            assert_eq!(summary(&silences, &HeldListView { held: Vec::new(), count }), line);
        }
    }
}
