//! The names in the DNS that follow their hosts. Pure.

use super::html::Html;
use super::panels::{badge, cut, moment, section};
use crate::clock::Wall;
use crate::view::{DyndnsState, DyndnsView, DynrecordView};

/// How each name stands, with its addresses; nothing where none is kept.
pub fn names(html: &mut Html, names: &[DyndnsView]) {
    if names.is_empty() {
        return;
    }
    section(html, "names", "Names", |html| {
        html.markup("<ul class=list>");
        for name in names {
            html.markup("<li").attribute("data-k", &name.name).markup(">");
            let class = match name.state {
                DyndnsState::Kept => "good",
                DyndnsState::Unknown | DyndnsState::Waiting => "dim",
                DyndnsState::Failing | DyndnsState::Refused => "bad",
            };
            badge(html, class, name.state.name());
            html.markup(" <span class=w>").text(&name.name).markup(" <i>(").text(&name.host);
            html.markup(")</i></span>");
            name.records.iter().for_each(|one| record(html, one));
            if let Some(failure) = &name.last_failure {
                html.markup("<p class=i>last error");
                at(html, failure.at);
                html.markup(": ").text(cut(&failure.why)).markup("</p>");
            }
        }
        html.markup("</ul>");
    });
}

/// `A 192.0.2.7, since 3 h ago`, and the host's address where that is another one.
fn record(html: &mut Html, record: &DynrecordView) {
    html.markup("<p class=i>").text(record.record).markup(" ");
    match record.written {
        Some(written) => html.text(written.to_string()),
        None => html.markup("not written yet"),
    };
    if record.last_update.is_some() {
        html.markup(", written");
        at(html, record.last_update);
    }
    if let Some(address) = record.address.filter(|address| Some(*address) != record.written) {
        html.markup("; the host is at ").text(address.to_string());
    }
    html.markup("</p>");
}

fn at(html: &mut Html, time: Option<Wall>) {
    if let Some(time) = time {
        html.markup(" ");
        moment(html, time);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_shows_its_address_its_record_and_what_keeps_it_back() {
        let mut html = Html::default();
        names(&mut html, &[]);
        assert!(html.as_str().is_empty());
        let record = DynrecordView {
            record: "A",
            address: Some([192, 0, 2, 8].into()),
            written: Some([192, 0, 2, 7].into()),
            last_update: Some(Wall(0)),
        };
        let one = DyndnsView {
            host: "home".into(),
            name: "home.dyn.example".into(),
            method: "rfc2136",
            server: "ns1".into(),
            state: DyndnsState::Failing,
            records: vec![record],
            failing_since: Some(Wall(0)),
            last_failure: Some(crate::view::FailureView { at: None, why: "<b>REFUSED</b>".into() }),
            next_attempt: None,
        };
        names(&mut html, &[one]);
        let page = html.as_str();
        for wanted in ["home.dyn.example", "192.0.2.7", "the host is at 192.0.2.8", "&lt;b&gt;"] {
            assert!(page.contains(wanted), "{wanted}: {page}");
        }
    }
}
