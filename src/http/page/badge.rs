//! The state of a host as a small picture (SVG 1.1) for pages of others. Pure.

use crate::escape;
use crate::event::Level;
use crate::http::response::Response;
use crate::view::{HostState, HostView};

/// A longer name is cut; all of it is in the picture's title.
const MAX_NAME: usize = 40;
/// How wide a letter is drawn, and what is left free beside words.
const LETTER: usize = 7;
const MARGIN: usize = 6;

/// A picture runs no scripts and loads nothing.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; sandbox";

const GREEN: &str = "#2e7d32";
const AMBER: &str = "#8a5a00";
const RED: &str = "#b3261e";
const GREY: &str = "#5f6368";

/// The picture of a host.
pub fn badge(host: &HostView) -> Response {
    let (word, color) = state_word(host);
    Response::svg(draw(&host.name, word, color)).with_header("Content-Security-Policy", POLICY)
}

/// The word and the colour of its state.
fn state_word(host: &HostView) -> (&'static str, &'static str) {
    let worst = host.metrics.iter().filter_map(|metric| metric.level).max();
    let missed = host.connections.iter().any(|connection| connection.state == HostState::Overdue);
    match host.state {
        HostState::New => ("never heard", GREY),
        HostState::Shutdown => ("shutdown", GREY),
        HostState::Overdue => ("overdue", RED),
        HostState::Up if worst == Some(Level::Critical) => ("critical", RED),
        HostState::Up if worst == Some(Level::Warning) || missed => ("warning", AMBER),
        HostState::Up => ("up", GREEN),
    }
}

fn draw(name: &str, word: &str, color: &str) -> String {
    let full = escape::html(name);
    let count = name.chars().count();
    let label = if count > MAX_NAME {
        let front: String = name.chars().take(MAX_NAME - 1).collect();
        escape::html(&front) + "\u{2026}"
    } else {
        full.clone()
    };
    let left = count.min(MAX_NAME) * LETTER + 2 * MARGIN;
    let right = word.chars().count() * LETTER + 2 * MARGIN;
    let (width, middle) = (left + right, left + right / 2);
    let half = left / 2;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"20\" role=\"img\" \
         aria-label=\"{full}: {word}\"><title>{full}: {word}</title>\
         <rect width=\"{left}\" height=\"20\" fill=\"#3c4043\"/>\
         <rect x=\"{left}\" width=\"{right}\" height=\"20\" fill=\"{color}\"/>\
         <g fill=\"#fff\" text-anchor=\"middle\" font-family=\"DejaVu Sans,Verdana,sans-serif\" \
         font-size=\"11\"><text x=\"{half}\" y=\"14\">{label}</text>\
         <text x=\"{middle}\" y=\"14\">{word}</text></g></svg>\n"
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::view::{ConnectionView, MetricView};

    fn host(state: HostState, connections: &[HostState], level: Option<Level>) -> HostView {
        let connection = |state: &HostState| ConnectionView {
            name: "ipv4".into(),
            state: *state,
            since: None,
            last_seen: None,
            interval: Duration::from_secs(10),
            address: None,
            old_key: false,
        };
        let (path, limit) = ("m".into(), None);
        HostView {
            state,
            connections: connections.iter().map(connection).collect(),
            metrics: vec![MetricView {
                path,
                value: 1.0,
                level,
                since: None,
                limit,
                text: None,
                at: None,
                stale: false,
            }],
            ..HostView::named("web1")
        }
    }

    #[test]
    fn the_word_says_what_the_colour_shows() {
        use HostState::{New, Overdue, Shutdown, Up};
        for (view, expected) in [
            (host(Up, &[Up], Some(Level::Ok)), ("up", GREEN)),
            (host(Up, &[Up], None), ("up", GREEN)),
            (host(Up, &[Up, Overdue], None), ("warning", AMBER)),
            (host(Up, &[Up], Some(Level::Warning)), ("warning", AMBER)),
            (host(Up, &[Up], Some(Level::Critical)), ("critical", RED)),
            (host(Overdue, &[Overdue], None), ("overdue", RED)),
            (host(Shutdown, &[Shutdown], None), ("shutdown", GREY)),
            (host(New, &[], None), ("never heard", GREY)),
        ] {
            assert_eq!(state_word(&view), expected);
        }
    }

    #[test]
    fn a_name_is_only_a_name() {
        let picture = draw("<script>alert(\"1\")&'\u{1}\u{ffff}</script>", "up", GREEN);
        assert!(!picture.contains("<script") && !picture.contains('\u{1}'), "{picture}");
        assert!(picture.contains("&lt;script&gt;alert(&quot;1&quot;)&amp;&#39;"));
        let long = draw(&"w".repeat(253), "up", GREEN);
        assert!(long.len() < 1500 && long.contains("width=\"318\""), "{long}");
        assert_eq!(long.matches(&"w".repeat(253)).count(), 2, "all of it is in the title");
    }
}
