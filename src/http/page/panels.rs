//! The panels beside the hosts: backups, channels, notifications. Pure.

use std::time::Duration;

use super::format::{about, ago, count};
use super::html::Html;
use super::summary::class_of;
use crate::clock::Wall;
use crate::event::Level;
use crate::http::channel_test::ChannelTest;
use crate::view::cluster::{ClusterView, GONE_SECONDS, NodeState, NodeView};
use crate::view::{
    ChannelState, ChannelView, DeliveryState, ModuleView, NotificationView, PlanView,
};

/// Modules of a plan that are shown.
const MAX_MODULES: usize = 200;
/// A longer text is cut: it is all in the API.
const MAX_TEXT: usize = 300;

/// What could be read, or why it could not.
pub type ReadResult<T> = Result<Vec<T>, String>;

/// A section with its heading.
pub fn section(
    html: &mut Html,
    id: &'static str,
    heading: &'static str,
    body: impl FnOnce(&mut Html),
) {
    html.markup("<section")
        .attribute("id", id)
        .attribute("aria-labelledby", format_args!("{id}-h"));
    html.markup("><h2").attribute("id", format_args!("{id}-h")).markup(">").markup(heading);
    html.markup("</h2>");
    body(html);
    html.markup("</section>");
}

/// A note in place of what could not be read.
pub fn unreadable(html: &mut Html, why: &str) {
    html.markup("<p class=note>This cannot be read at present: ").text(why).markup("</p>");
}

/// A text of others, cut to a length that fits on a page.
pub fn cut(text: &str) -> String {
    match text.char_indices().nth(MAX_TEXT) {
        Some((end, _)) => format!("{}\u{2026}", &text[..end]),
        None => text.to_owned(),
    }
}

/// A moment, which the script translates into the reader's own time.
pub fn moment(html: &mut Html, at: Wall) {
    let text = at.to_string();
    // 2026-11-21T20:12:08.667Z: to the second, and without the year.
    let short = text.get(5..19).unwrap_or_default().replace('T', " ");
    html.markup("<time").attribute("datetime", &text).markup(">").text(short).markup("</time>");
}

pub fn badge(html: &mut Html, class: &'static str, word: &str) {
    html.markup("<b").attribute("class", format_args!("l {class}")).markup(">").text(word);
    html.markup("</b>");
}

/// The backup plans; nothing at all where there are none.
pub fn plans(html: &mut Html, plans: &ReadResult<PlanView>, now: Wall) {
    let list = match plans {
        Ok(list) if list.is_empty() => return,
        Ok(list) => list,
        Err(why) => return section(html, "backups", "Backups", |html| unreadable(html, why)),
    };
    section(html, "backups", "Backups", |html| {
        for plan in list {
            html.markup("<details").attribute("data-k", &plan.plan);
            html.markup(if plan.level > Level::Info { " open" } else { "" }).markup("><summary>");
            badge(html, class_of(plan.level), &plan.outcome.to_lowercase());
            html.markup(" <span class=w>").text(cut(plan.name.as_ref().unwrap_or(&plan.plan)));
            html.markup("</span> <i>").text(ago(now.since(plan.at))).markup("</i></summary>");
            html.markup("<p>").text(cut(&plan.why)).markup("</p>");
            modules(html, plan);
            for said in &plan.repositories {
                html.markup("<p class=i>").text(cut(&said.module)).markup(": ");
                html.text(cut(&said.text)).markup("</p>");
            }
            html.markup("</details>");
        }
    });
}

fn modules(html: &mut Html, plan: &PlanView) {
    if plan.modules.is_empty() {
        return;
    }
    html.markup("<div class=wide tabindex=0 role=group");
    html.attribute(
        "aria-label",
        format_args!("Modules of {}", cut(plan.name.as_ref().unwrap_or(&plan.plan))),
    );
    html.markup("><table><thead><tr><th scope=col>Module<th scope=col>State");
    html.markup(
        "<th scope=col>Ended<th scope=col class=n>Size<th scope=col class=n>Snapshots<tbody>",
    );
    for module in plan.modules.iter().take(MAX_MODULES) {
        self::module(html, module);
    }
    html.markup("</table></div>");
    let hidden = plan.modules.len().saturating_sub(MAX_MODULES);
    if hidden > 0 {
        html.markup("<p class=i>And ").text(count(hidden, "module", "modules")).markup(" more</p>");
    }
}

fn module(html: &mut Html, module: &ModuleView) {
    let class = match module.state.as_str() {
        "success" => "good",
        "running" | "pending" => "warn",
        _ => "bad",
    };
    html.markup("<tr").attribute("class", class).markup("><th scope=row>").text(cut(&module.name));
    if let Some(label) = &module.label {
        html.markup(" <i>").text(cut(label)).markup("</i>");
    }
    html.markup("<td><b>").text(cut(&module.state)).markup("</b>");
    if let Some(errors) = module.errors.filter(|errors| *errors > 0) {
        html.markup(" ").text(count(errors as usize, "error", "errors"));
    }
    if let Some(error) = &module.error {
        html.markup(" <i>").text(cut(error)).markup("</i>");
    }
    html.markup("<td>");
    if let Some(end) = module.end {
        moment(html, end);
    }
    html.markup("<td class=n>").text(module.size.map(bytes).unwrap_or_default());
    html.markup("<td class=n>").text(module.snapshots.map(|n| n.to_string()).unwrap_or_default());
}

/// `1.4 GB`.
fn bytes(size: u64) -> String {
    const UNITS: [(u64, &str); 4] =
        [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match UNITS.iter().find(|(unit, _)| size >= *unit) {
        Some((unit, name)) => format!("{:.1}\u{a0}{name}", size as f64 / *unit as f64),
        None => format!("{size}\u{a0}B"),
    }
}

/// The nodes of the cluster; nothing at all where there is none.
pub fn nodes(html: &mut Html, cluster: Option<&ClusterView>) {
    let Some(cluster) = cluster else { return };
    let leader = cluster.nodes.iter().find(|node| node.role == NodeState::Leader);
    section(html, "nodes", "Nodes", |html| {
        if let Some(why) = &cluster.redis_trouble {
            html.markup("<p class=note>Redis cannot be asked: ").text(cut(why)).markup("</p>");
        }
        html.markup("<ul class=list>");
        for node in &cluster.nodes {
            html.markup("<li").attribute("data-k", &node.name).markup(">");
            let is_gone = node.last_sign_seconds > GONE_SECONDS;
            let differs = leader.is_some_and(|leader| leader.configuration != node.configuration);
            let (class, word) = match node.role {
                _ if is_gone => ("bad", "gone"),
                NodeState::Leader => ("good", "leads"),
                NodeState::Standby => ("good", "stands by"),
                NodeState::Receiver => ("good", "hears only"),
            };
            badge(html, if differs && !is_gone { "warn" } else { class }, word);
            html.markup(" <span class=w>").text(&node.name).markup(" <i>(").text(&node.version);
            html.markup(")</i></span> <i>").text(node_details(node)).markup("</i>");
            if differs {
                html.markup(
                    "<p class=note>Its configuration is not that of the node that leads.</p>",
                );
            }
            html.markup("</li>");
        }
        html.markup("</ul>");
    });
}

/// `hears 12 hosts, last sign 2 s ago`.
fn node_details(node: &NodeView) -> String {
    let sign = Duration::try_from_secs_f64(node.last_sign_seconds).unwrap_or_default();
    let hosts = usize::try_from(node.hosts).unwrap_or(usize::MAX);
    if node.last_sign_seconds > GONE_SECONDS {
        return format!("last sign {}", ago(sign));
    }
    format!("hears {}, last sign {}", count(hosts, "host", "hosts"), ago(sign))
}

/// The state of the channels, each with a button that sends a test message.
pub fn channels(html: &mut Html, channels: &[ChannelView], tests: &[ChannelTest], now: Wall) {
    section(html, "channels", "Channels", |html| {
        if channels.is_empty() {
            html.markup("<p class=note>There are none: nobody will be told of anything.</p>");
            return;
        }
        html.markup("<ul class=list>");
        for channel in channels {
            html.markup("<li").attribute("data-k", &channel.name).markup(">");
            let (class, word) = match channel.state {
                ChannelState::Works => ("good", "works"),
                ChannelState::Failing => ("bad", "failing"),
                ChannelState::Refused => ("bad", "refused"),
            };
            badge(html, class, word);
            html.markup(" <span class=w>").text(&channel.name).markup(" <i>(").text(channel.kind);
            html.markup(")</i></span> <i>").text(channel_details(channel, now)).markup("</i>");
            html.markup("<form method=post action=/test><input type=hidden name=channel");
            html.attribute("value", &channel.name).markup("><button");
            html.attribute("aria-label", format_args!("Send a test message to {}", channel.name));
            html.markup(">Send a test</button></form>");
            if let Some(failure) = &channel.last_failure {
                html.markup("<p class=i>last error");
                if let Some(at) = failure.at {
                    html.markup(" ");
                    moment(html, at);
                }
                html.markup(": ").text(cut(&failure.why)).markup("</p>");
            }
            if let Some(test) = tests.iter().find(|test| test.channel == channel.name) {
                channel_test(html, test);
            }
        }
        html.markup("</ul>");
    });
}

/// `test sent Nov 21 20:12:08`, or why it was not.
fn channel_test(html: &mut Html, test: &ChannelTest) {
    match &test.why {
        None => {
            html.markup("<p class=good><b>test sent</b> ");
            moment(html, test.at);
        }
        Some(why) => {
            html.markup("<p class=bad><b>test failed</b> ");
            moment(html, test.at);
            html.markup(": ").text(cut(why));
        }
    }
    html.markup("</p>");
}

/// `2 waiting, the oldest for 5 min, last sent 3 h ago`, or `nothing waits, last sent 3 h ago`.
fn channel_details(channel: &ChannelView, now: Wall) -> String {
    let mut parts = Vec::new();
    if channel.waiting > 0 {
        parts.push(format!("{} waiting", channel.waiting));
        let age = channel.oldest_age_seconds.and_then(|age| Duration::try_from_secs_f64(age).ok());
        parts.extend(age.map(|age| format!("the oldest for {}", about(age))));
    } else {
        parts.push("nothing waits".into());
    }
    if channel.unacknowledged > 0 {
        parts.push(format!("{} not acknowledged", channel.unacknowledged));
    }
    parts.push(match channel.last_success {
        Some(at) => format!("last sent {}", ago(now.since(at))),
        None => "nothing sent yet".into(),
    });
    parts.join(", ")
}

/// What was sent about a host.
pub fn notifications(html: &mut Html, notifications: &ReadResult<NotificationView>) {
    section(html, "told", "Who was told", |html| {
        let list = match notifications {
            Ok(list) => list,
            Err(why) => return unreadable(html, why),
        };
        if list.is_empty() {
            html.markup("<p class=i>Nobody was told anything.</p>");
            return;
        }
        html.markup("<ol class=\"list log\">");
        for one in list {
            html.markup("<li").attribute("data-k", &one.id).markup(">");
            if let Some(at) = one.finished.or(one.accepted) {
                moment(html, at);
            }
            let (class, word) = match one.state {
                DeliveryState::Delivered => ("good", "delivered"),
                DeliveryState::Failed => ("bad", "failed"),
                DeliveryState::Waiting => ("warn", "waiting"),
            };
            html.markup(" ");
            badge(html, class, word);
            html.markup(" <span class=w>").text(cut(&one.title)).markup("</span> <i>to ");
            html.text(&one.channel);
            if let Some(recipient) = &one.recipient {
                html.markup(", ").text(cut(recipient));
            }
            if let Some(why) = &one.why {
                html.markup(": ").text(cut(why));
            }
            html.markup("</i>");
        }
        html.markup("</ol>");
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_is_gone_or_differs_is_said_and_without_a_cluster_there_is_no_panel() {
        let mut html = Html::default();
        nodes(&mut html, None);
        assert_eq!(html.as_str(), "");
        let node = |name: &str, role, last_sign_seconds, configuration: &str| NodeView {
            name: name.into(),
            role,
            version: "0.4.0".into(),
            url: None,
            last_sign_seconds,
            hosts: 1,
            configuration: configuration.into(),
        };
        let view = ClusterView {
            now: Wall(0),
            name: "hbd".into(),
            node: "hb1".into(),
            role: NodeState::Leader,
            leader: Some("hb1".into()),
            leader_url: None,
            epoch: 7,
            takeovers: 1,
            connections: 1,
            redis_trouble: Some("it <hangs>".into()),
            nodes: vec![
                node("hb1", NodeState::Leader, 0.2, "4f2a"),
                node("hb2", NodeState::Standby, 1.0, "77b0"),
                node("hb3", NodeState::Receiver, 61.0, "4f2a"),
            ],
        };
        let mut html = Html::default();
        nodes(&mut html, Some(&view));
        let page = html.as_str();
        for part in [
            "Redis cannot be asked: it &lt;hangs",
            "<b class=\"l good\">leads</b> <span class=w>hb1",
            "hears 1 host, last sign",
            "<b class=\"l warn\">stands by</b> <span class=w>hb2",
            "Its configuration is not that of the node that leads.",
            "<b class=\"l bad\">gone</b> <span class=w>hb3",
        ] {
            assert!(page.contains(part), "{part}: {page}");
        }
        assert_eq!(page.matches("hears 1 host").count(), 2);
    }
}
