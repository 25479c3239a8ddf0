//! The nodes of a cluster, as `hbd status` shows them.

use serde_json::Value as Json;

use super::answer::{field, items};
use super::table::{Style, TableRow, Tone, table};
use super::terminal::{sanitize, wrap};
use crate::event::counted;
use crate::view::cluster::GONE_SECONDS;

/// The lines about the cluster, and whether all is well with it.
pub fn overview(cluster: &Json, style: Style) -> (String, bool) {
    let leader = items(cluster, "nodes").find(|one| field(one, "role") == "leader");
    let right = leader.map(|one| field(one, "configuration"));
    let rows: Vec<TableRow> =
        items(cluster, "nodes").map(|one| row(one, right.as_deref())).collect();
    let trouble = field(cluster, "redis_trouble");
    let tone = rows.iter().map(|(_, tone, _)| *tone).max().unwrap_or(Tone::Good);
    let worst = if trouble.is_empty() && leader.is_some() { tone } else { Tone::Critical };
    let mut text =
        worst.paint(&wrap("", &headline(cluster, rows.len()), style.width, "  "), style.color);
    text.push('\n');
    if !trouble.is_empty() {
        let line = wrap("", &format!("Redis: {}", sanitize(&trouble)), style.width, "  ");
        text.push_str(&format!("{}\n", Tone::Critical.paint(&line, style.color)));
    }
    if !rows.is_empty() {
        let names = ["NODE", "ROLE", "VERSION", "HEARS", "LAST SIGN", "CONFIGURATION"];
        text.push_str(&table(&names, 1, rows, style));
    }
    (text, worst == Tone::Good)
}

fn headline(cluster: &Json, nodes: usize) -> String {
    let leads = match field(cluster, "leader") {
        none if none.is_empty() => "no node leads".to_owned(),
        leader => format!("{leader} leads"),
    };
    let (name, epoch) = (field(cluster, "name"), cluster["epoch"].as_u64().unwrap_or(0));
    format!("cluster {name}: {}, {leads} (epoch {epoch})", counted(nodes, "node"))
}

fn row(node: &Json, right: Option<&str>) -> TableRow {
    let age = node["last_sign_seconds"].as_f64().unwrap_or(0.0);
    let configuration = field(node, "configuration");
    let differs = right.is_some_and(|right| right != configuration);
    let (tone, role) = match (age > GONE_SECONDS, differs) {
        (true, _) => (Tone::Critical, "gone".to_owned()),
        (false, true) => (Tone::Warning, field(node, "role")),
        (false, false) => (Tone::Good, field(node, "role")),
    };
    let mark = if differs { "  differs" } else { "" };
    let cells = vec![
        field(node, "name"),
        role,
        field(node, "version"),
        counted(node["hosts"].as_u64().unwrap_or(0) as usize, "host"),
        format!("{age:.0} s"),
        configuration + mark,
    ];
    (cells, tone, Vec::new())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shown(cluster: &Json) -> (String, bool) {
        overview(cluster, Style { width: 80, color: false, all: false })
    }

    #[test]
    fn nodes_that_are_gone_or_differ_are_not_well() {
        let node = |name: &str, role: &str, age: f64, configuration: &str| {
            json!({"name": name, "role": role, "version": "0.4.0", "hosts": 3,
                   "last_sign_seconds": age, "configuration": configuration})
        };
        let mut cluster = json!({
            "name": "hbd", "leader": "hb1", "epoch": 7,
            "nodes": [node("hb1", "leader", 0.2, "4f2a"), node("hb2", "standby", 1.0, "4f2a")],
        });
        let (text, well) = shown(&cluster);
        assert!(well, "{text}");
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "cluster hbd: 2 nodes, hb1 leads (epoch 7)");
        assert_eq!(lines[3], "hb2   standby  0.4.0    3 hosts  1 s        4f2a");
        cluster["nodes"][1] = node("hb2", "standby", 1.0, "77b0");
        let (text, well) = shown(&cluster);
        assert!(!well && text.contains("77b0  differs"), "{text}");
        cluster["nodes"][1] = node("hb2", "standby", 61.0, "4f2a");
        let (text, well) = shown(&cluster);
        assert!(!well && text.contains("hb2   gone "), "{text}");
        cluster["redis_trouble"] = json!("it does not answer");
        assert!(shown(&cluster).0.contains("\nRedis: it does not answer\n"));
    }
}
