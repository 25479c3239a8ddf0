//! The report about a plan: from the result of its analysis to an event for people. Pure.

use std::time::Duration;

use super::alert::Alert;
use super::outcome::{Outcome, PlanOutcome};
use super::plan::{BackupRun, Module, ModuleState, Plan};
use super::repo_check::{IntegrityCheck, RepoCheckResult, RepoDetails, RepoState};
use super::restic_output::{RepoError, RepoLock};
use super::schedule::Zone;
use crate::clock::{Wall, format_duration};
use crate::event::{BackupNotice, Event, EventKind, TextTable};

/// The id in a report about all plans together, when none of them is known.
pub const ALL_PLANS: &str = "all";

/// How many modules are in the table, and how many lines in one detail.
const MAX_TABLE_ROWS: usize = 200;
const MAX_DETAIL_LINES: usize = 15;

/// How many locks with a holder that lives are named.
const MAX_NAMED_LOCKS: usize = 5;

/// A snapshot's time that is ahead by this much is that of another clock.
const MAX_CLOCK_SKEW: Duration = Duration::from_secs(300);

const UNREACHABLE_REMEDY: &str = "the destination first: server, network, login, space";

/// How many alerts are quoted.
const MAX_ALERTS: usize = 5;

/// What a report is made of.
#[derive(Clone, Copy, Debug)]
pub struct ReportBuilder<'a> {
    /// The plan; without modules when Redis could not be read.
    pub plan: &'a Plan,
    /// Its outcome.
    pub plan_outcome: &'a PlanOutcome,
    /// The states of its repositories; none when they were not checked.
    pub repositories: Option<&'a [RepoCheckResult]>,
    /// The alerts about it.
    pub alerts: &'a [&'a Alert],
    /// The time of the report.
    pub now: Wall,
}

impl ReportBuilder<'_> {
    /// The event: one line, details for every channel, a table for those that can show one.
    pub fn event(&self) -> Event {
        let kind = EventKind::Backup {
            plan: self.plan.id.clone(),
            notice: BackupNotice::Report,
            level: self.plan_outcome.outcome.level(),
            title: self.title(),
            details: self.details(),
            table: self.table(),
        };
        Event::new(self.now, kind)
    }

    /// The title of the message.
    pub fn title(&self) -> String {
        let name = self.plan.name.as_ref().unwrap_or(&self.plan.id);
        format!("backup {name} {}: {}", self.plan_outcome.outcome.name(), self.plan_outcome.why)
    }

    fn details(&self) -> Vec<(String, String)> {
        let mut details = Vec::new();
        let mut add = |label: &str, lines: Vec<String>| {
            if !lines.is_empty() {
                details.push((label.to_owned(), limit_lines(lines)));
            }
        };
        for state in [
            ModuleState::Failed,
            ModuleState::Missing,
            ModuleState::Unreadable,
            ModuleState::Running,
            ModuleState::Pending,
        ] {
            let modules = self.plan.modules.iter().filter(|module| module.state == state);
            add(state.name(), modules.map(|module| self.module(module)).collect());
        }
        if let Some(repositories) = self.repositories {
            let line = |repository: &RepoCheckResult| {
                let state = describe_state(&repository.state, self.now, &self.plan.zone);
                format!("{}: {state}", repository.module)
            };
            add("repositories", repositories.iter().map(line).collect());
        }
        add("look at", self.next_steps());
        add("plan", vec![self.describe_plan()]);
        add("alert", self.describe_alerts());
        details
    }

    /// `mail1 (Post office): 2 errors, ended 2026-11-21 20:12 UTC after 7 min`.
    fn module(&self, module: &Module) -> String {
        let mut parts: Vec<String> = Vec::new();
        // What there is to say of a pending one is in its reason.
        if let Some(run) = module.run.as_ref().filter(|_| module.state != ModuleState::Pending) {
            let minute = |at| self.plan.zone.format_minute(at);
            parts.extend(
                run.errors.filter(|errors| *errors > 0).map(|errors| count(errors, "error")),
            );
            if module.state == ModuleState::Running {
                parts.extend(run.start.map(|start| format!("began {}", minute(start))));
            } else {
                parts.extend(run.end.map(|end| format!("ended {}", minute(end))));
                parts.extend(run_duration(run).map(|took| format!("after {took}")));
            }
        }
        let why_known = module.state == ModuleState::Missing && module.run.is_some();
        parts.extend(module.why.clone().filter(|_| !why_known));
        format!("{}: {}", module_name(module), parts.join(", "))
    }

    fn describe_plan(&self) -> String {
        let plan = self.plan;
        let mut parts = vec![format!("id {}", plan.id)];
        parts.extend(plan.schedule.as_ref().map(|schedule| format!("runs {schedule}")));
        if plan.enabled == Some(false) {
            parts.push("is switched off".into());
        }
        if let Some(destination) = &plan.destination {
            let name = destination.name.as_ref().unwrap_or(&destination.id);
            let provider = destination.provider.as_ref();
            let provider = provider.map_or(String::new(), |provider| format!(" ({provider})"));
            parts.push(format!("to {name}{provider}"));
        }
        parts.join(", ")
    }

    fn describe_alerts(&self) -> Vec<String> {
        let mut lines: Vec<String> = Vec::new();
        for alert in self.alerts.iter().take(MAX_ALERTS) {
            let text = alert.quoted().join(" ");
            let minute = |at| self.plan.zone.format_minute(at);
            let since = alert.starts_at.map(|at| format!(" (firing since {})", minute(at)));
            let since = since.unwrap_or_default();
            let text = if text.is_empty() { text } else { format!(": {text}") };
            let line = format!("{}{since}{text}", alert.name);
            if !lines.contains(&line) {
                lines.push(line);
            }
        }
        let more = self.alerts.len().saturating_sub(MAX_ALERTS);
        lines.extend((more > 0).then(|| format!("and {more} more")));
        lines
    }

    /// What to look at next, each once, in the order in which it should be looked at.
    fn next_steps(&self) -> Vec<String> {
        let mut steps: Vec<String> = Vec::new();
        let mut step = |what: String| {
            if !steps.contains(&what) {
                steps.push(what);
            }
        };
        if self.plan_outcome.outcome == Outcome::Unknown && self.plan.modules.is_empty() {
            let plan = if self.plan.id == ALL_PLANS { "--all" } else { &self.plan.id };
            step(format!("why this is not known; then: hbd backup {plan}"));
        }
        if self.plan.enabled == Some(false) {
            step("whether the plan was switched off on purpose".into());
        }
        for repository in self.repositories.into_iter().flatten() {
            for what in remedies(&repository.state) {
                step(what.into());
            }
        }
        for module in &self.plan.modules {
            let node =
                module.node.as_ref().map_or(String::new(), |node| format!(" on node {node}"));
            match module.state {
                ModuleState::Failed => step(format!("the log of {}{node}", module.id)),
                ModuleState::Missing => {
                    step(format!("whether the backup was started at all{node}"));
                }
                ModuleState::Unreadable => step(format!("what Redis holds about {}", module.id)),
                ModuleState::Success | ModuleState::Running | ModuleState::Pending => {}
            }
        }
        steps
    }

    fn table(&self) -> Option<TextTable> {
        let modules = &self.plan.modules;
        if modules.is_empty() {
            return None;
        }
        let nodes = modules.iter().any(|module| module.node != modules[0].node);
        let mut head: Vec<&str> =
            vec!["module", "state", "errors", "size", "files", "snapshots", "start", "end", "took"];
        head.extend(nodes.then_some("node"));
        let mut ordered: Vec<&Module> = modules.iter().collect();
        ordered.sort_unstable_by_key(|module| {
            let state = module.state;
            (state == ModuleState::Success, state.is_open(), &module.id)
        });
        let mut rows: Vec<_> = ordered
            .into_iter()
            .take(MAX_TABLE_ROWS)
            .map(|module| table_row(module, nodes, &self.plan.zone))
            .collect();
        if modules.len() > MAX_TABLE_ROWS {
            rows.push(vec![format!("and {} more", modules.len() - MAX_TABLE_ROWS)]);
        }
        Some(TextTable { head: head.into_iter().map(str::to_owned).collect(), rows })
    }
}

fn table_row(module: &Module, nodes: bool, zone: &Zone) -> Vec<String> {
    let none = BackupRun::default();
    let run = module.run.as_ref().unwrap_or(&none);
    let number = |number: Option<u64>| number.map_or(String::new(), |number| number.to_string());
    let time = |at: Option<Wall>| at.map(|at| zone.format_minute(at)).unwrap_or_default();
    let mut row = vec![
        module_name(module),
        module.state.name().to_owned(),
        number(run.errors),
        run.size.map(format_bytes).unwrap_or_default(),
        number(run.files),
        number(run.snapshots),
        time(run.start),
        time(run.end),
        run_duration(run).unwrap_or_default(),
    ];
    row.extend(nodes.then(|| module.node.clone().unwrap_or_default()));
    row
}

/// `mail1 (Post office)`.
fn module_name(module: &Module) -> String {
    match &module.ui_name {
        Some(name) => format!("{} ({name})", module.id),
        None => module.id.clone(),
    }
}

fn run_duration(run: &BackupRun) -> Option<String> {
    let (start, end) = (run.start?, run.end?);
    (start <= end).then(|| format_duration(end.since(start)))
}

/// `1 error`, `2 errors`.
pub(super) fn count(number: u64, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// The state of a repository, in half a line.
pub(super) fn describe_state(state: &RepoState, now: Wall, zone: &Zone) -> String {
    match state {
        RepoState::Open(details) => describe_details(details, now, zone),
        RepoState::Refused(RepoError::NotFound) => "there is no repository at this place".into(),
        RepoState::Refused(RepoError::WrongPassword) => {
            "the password is wrong, or no key of it is left".into()
        }
        RepoState::Refused(RepoError::Unreachable(why)) => format!("cannot be reached: {why}"),
        RepoState::Refused(RepoError::Damaged(why)) => format!("is damaged: {why}"),
        RepoState::Refused(RepoError::Failed(why)) => format!("restic cannot open it: {why}"),
        RepoState::TimedOut(why) => format!("did not answer in time ({why})"),
        RepoState::NotChecked(why) => format!("could not be asked: {why}"),
    }
}

fn describe_details(details: &RepoDetails, now: Wall, zone: &Zone) -> String {
    let mut parts = vec![describe_newest(details, now, zone)];
    parts.extend(details.unreadable_snapshots.clone());
    parts.extend(details.size.map(|size| format!("it holds {}", format_bytes(size))));
    let other_damage = details.damage.as_ref().filter(|_| details.unreadable_snapshots.is_none());
    parts.extend(other_damage.map(|what| format!("it is damaged: {what}")));
    parts.extend(describe_locks(&details.locks, zone));
    parts.extend(match details.damaged_locks {
        0 => None,
        1 => Some("1 lock cannot be read: a newer restic does not back up beside it".into()),
        count => Some(format!(
            "{count} locks cannot be read: a newer restic does not back up beside them"
        )),
    });
    parts.extend(details.locks_unknown.as_ref().map(|why| format!("locks not known: {why}")));
    parts.extend(details.check.as_ref().map(|check| match check {
        IntegrityCheck::Sound => "restic check found no errors".into(),
        IntegrityCheck::Damaged(what) => format!("restic check found damage: {what}"),
        IntegrityCheck::Undecided(why) => format!("restic check came to no result: {why}"),
    }));
    parts.join(", ")
}

fn describe_newest(details: &RepoDetails, now: Wall, zone: &Zone) -> String {
    let all_read = details.unreadable_snapshots.is_none();
    match (details.newest, &details.newest_unknown) {
        (_, Some(why)) => format!("its newest snapshot is not known: {why}"),
        (Some(at), None) => {
            let what = if all_read { "newest snapshot" } else { "newest readable snapshot" };
            let age = match at > now + MAX_CLOCK_SKEW {
                true => "in the future".into(),
                false => format!("{} old", format_duration(now.since(at))),
            };
            format!("{what} {} ({age})", zone.format_minute(at))
        }
        (None, None) if all_read => "no snapshot yet".into(),
        (None, None) => "no readable snapshot".into(),
    }
}

/// The locks of which somebody lives each, as far as there is room; the stale ones together.
fn describe_locks(locks: &[RepoLock], zone: &Zone) -> Vec<String> {
    let (stale, live): (Vec<&RepoLock>, Vec<&RepoLock>) = locks.iter().partition(|lock| lock.stale);
    let mut parts: Vec<String> =
        live.iter().take(MAX_NAMED_LOCKS).map(|lock| describe_lock(lock, zone)).collect();
    let more = live.len().saturating_sub(MAX_NAMED_LOCKS);
    parts.extend((more > 0).then(|| format!("and by {more} more")));
    match stale[..] {
        [] => {}
        [one] => parts.push(format!("{} (stale)", describe_lock(one, zone))),
        [newest, ..] => parts.push(format!(
            "{} stale locks, the newest by {}{}",
            stale.len(),
            newest.holder,
            lock_time(newest, zone)
        )),
    }
    parts
}

fn describe_lock(lock: &RepoLock, zone: &Zone) -> String {
    format!("locked by {}{}", lock.holder, lock_time(lock, zone))
}

fn lock_time(lock: &RepoLock, zone: &Zone) -> String {
    lock.since.map_or(String::new(), |since| format!(" since {}", zone.format_minute(since)))
}

/// What to do about the state of a repository.
fn remedies(state: &RepoState) -> Vec<&'static str> {
    let details = match state {
        RepoState::Open(details) => details,
        RepoState::Refused(error) => return vec![error_remedy(error)],
        RepoState::TimedOut(_) => return vec![UNREACHABLE_REMEDY],
        RepoState::NotChecked(_) => return Vec::new(),
    };
    let is_damaged =
        details.damage.is_some() || matches!(details.check, Some(IntegrityCheck::Damaged(_)));
    let mut remedies = Vec::new();
    if is_damaged {
        remedies.push("the damaged repository: restic check, then restic repair");
    }
    if details.damaged_locks > 0 {
        remedies.push(
            "the lock that cannot be read: when no backup runs any more, restic unlock --remove-all",
        );
    }
    if details.locks.iter().any(|lock| !lock.stale) {
        remedies.push("who holds the repository's lock: another run may still go on");
    } else if !details.locks.is_empty() {
        remedies.push("the stale lock: if its holder no longer runs, restic unlock");
    }
    remedies
}

fn error_remedy(error: &RepoError) -> &'static str {
    match error {
        RepoError::NotFound => {
            "whether the destination was moved or emptied: a repository is not there"
        }
        RepoError::WrongPassword => {
            "the repository's password: it was changed, or repo_check has another one"
        }
        RepoError::Unreachable(_) => UNREACHABLE_REMEDY,
        RepoError::Damaged(_) => {
            "the damaged repository: whether the destination's disk was full; its files config and keys \
             come back from a copy only"
        }
        RepoError::Failed(_) => "what restic says about the repository",
    }
}

fn limit_lines(mut lines: Vec<String>) -> String {
    let more = lines.len().saturating_sub(MAX_DETAIL_LINES);
    lines.truncate(MAX_DETAIL_LINES);
    lines.extend((more > 0).then(|| format!("and {more} more")));
    lines.join("\n")
}

/// A size in units of a thousand: `1.2 GB`.
pub(super) fn format_bytes(size: u64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if size < 1000 {
        return format!("{size} B");
    }
    #[allow(clippy::cast_precision_loss, reason = "two digits are shown")]
    let mut value = size as f64 / 1000.0;
    let mut unit = 0;
    while value >= 999.95 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::backup::plan::Destination;
    use crate::backup::schedule::Zones;
    use crate::event::{EventId, Level, Message};

    const NOW: Wall = Wall(1_795_291_928_000);

    fn module(id: &str, state: ModuleState, ran: bool) -> Module {
        let end = NOW - Duration::from_secs(600);
        Module {
            id: id.into(),
            ui_name: (id == "mail1").then(|| "Post office".into()),
            uuid: None,
            image: None,
            node: Some("1".into()),
            state,
            why: None,
            run: ran.then(|| BackupRun {
                start: Some(end - Duration::from_secs(420)),
                end: Some(end),
                errors: Some(u64::from(state == ModuleState::Failed) * 2),
                size: Some(1_234_567_890),
                files: Some(4321),
                snapshots: Some(7),
            }),
        }
    }

    fn plan() -> Plan {
        Plan {
            id: "1".into(),
            name: Some("Nightly".into()),
            enabled: Some(true),
            schedule: Some("daily".into()),
            destination: Some(Destination {
                id: "d1".into(),
                name: Some("Box".into()),
                provider: None,
            }),
            modules: vec![
                module("cloud2", ModuleState::Success, true),
                module("mail1", ModuleState::Failed, true),
                module("samba3", ModuleState::Missing, false),
            ],
            zone: Zone::default(),
            why: None,
            configured: None,
            not_due: BTreeSet::new(),
        }
    }

    fn alert() -> Alert {
        let text = |name: &str, text: &str| (name.to_owned(), text.to_owned());
        Alert {
            name: "BackupFailed".into(),
            fingerprint: "f".into(),
            starts_at: Some(NOW),
            labels: BTreeMap::new(),
            annotations: BTreeMap::from([
                text("summary_en", "Backup job Nightly (ID: 1) has failed."),
                text("summary_it", "Backup Nightly (ID: 1) fallito."),
            ]),
            may_repeat: false,
        }
    }

    fn told(plan: &Plan, repositories: Option<&[RepoCheckResult]>) -> (Event, Message) {
        let plan_outcome = PlanOutcome::of(plan);
        let alert = alert();
        let report = ReportBuilder {
            plan,
            plan_outcome: &plan_outcome,
            repositories,
            alerts: &[&alert, &alert],
            now: NOW,
        };
        let event = report.event();
        let message = event.message(EventId(1));
        (event, message)
    }

    fn detail<'a>(message: &'a Message, label: &str) -> &'a str {
        let found = message.details.iter().find(|(name, _)| name == label);
        found.map_or("", |(_, text)| text)
    }

    #[test]
    fn one_line_says_what_matters_and_the_details_say_the_rest() {
        let details = RepoDetails {
            newest: Some(NOW - Duration::from_secs(2 * 86_400)),
            locks: vec![RepoLock {
                holder: "root at web1 (process 7)".into(),
                since: Some(NOW - Duration::from_secs(3 * 86_400)),
                exclusive: false,
                stale: true,
            }],
            ..RepoDetails::default()
        };
        let repositories = [
            RepoCheckResult { module: "mail1".into(), state: RepoState::Open(details) },
            RepoCheckResult {
                module: "samba3".into(),
                state: RepoState::Refused(RepoError::WrongPassword),
            },
        ];
        let (event, message) = told(&plan(), Some(&repositories));
        assert_eq!(event.level, Level::Critical);
        assert_eq!(message.title, "backup Nightly PARTIAL: 1 of 3 modules failed, 1 missing");
        for (label, text) in [
            ("failed", "mail1 (Post office): 2 errors, ended 2026-11-21 20:02 UTC, after 7 min"),
            (
                "repositories",
                "mail1: newest snapshot 2026-11-19 20:12 UTC (2 d old), locked by root at web1 \
                 (process 7) since 2026-11-18 20:12 UTC (stale)\nsamba3: the password is wrong, or no key of it is left",
            ),
            (
                "look at",
                "the stale lock: if its holder no longer runs, restic unlock\n\
                 the repository's password: it was changed, or repo_check has another one\n\
                 the log of mail1 on node 1\n\
                 whether the backup was started at all on node 1",
            ),
            ("plan", "id 1, runs daily, to Box"),
            (
                "alert",
                "BackupFailed (firing since 2026-11-21 20:12 UTC): \
                 Backup job Nightly (ID: 1) has failed.",
            ),
        ] {
            assert_eq!(detail(&message, label), text);
        }
    }

    fn lock(pid: u32, minutes: u64) -> RepoLock {
        RepoLock {
            holder: format!("root at web1 (process {pid})"),
            since: Some(NOW - Duration::from_secs(minutes * 60)),
            exclusive: false,
            stale: minutes > 30,
        }
    }

    #[test]
    fn live_locks_are_named_and_stale_ones_counted() {
        for (locks, text) in [
            (vec![], vec![]),
            (
                vec![lock(1, 2), lock(2, 40)],
                vec![
                    "locked by root at web1 (process 1) since 2026-11-21 20:10 UTC",
                    "locked by root at web1 (process 2) since 2026-11-21 19:32 UTC (stale)",
                ],
            ),
            (
                vec![lock(1, 40), lock(2, 50), lock(3, 60)],
                vec![
                    "3 stale locks, the newest by root at web1 (process 1) since 2026-11-21 19:32 UTC",
                ],
            ),
        ] {
            assert_eq!(describe_locks(&locks, &Zone::default()), text);
        }
        let many: Vec<RepoLock> = (0..8).map(|pid| lock(pid, 1)).collect();
        assert_eq!(describe_locks(&many, &Zone::default()).last().unwrap(), "and by 3 more");
    }

    #[test]
    fn what_is_damaged_or_not_known_is_told_with_its_remedy() {
        let newest = Some(NOW - Duration::from_secs(3600));
        let unread = "1 snapshot cannot be read: invalid data returned".to_owned();
        let open = RepoState::Open;
        let ahead = Some(NOW + Duration::from_secs(7200));
        let repair = "the damaged repository: restic check, then restic repair";
        for (state, text, remedy) in [
            (
                open(RepoDetails {
                    newest,
                    unreadable_snapshots: Some(unread.clone()),
                    damage: Some(unread.clone()),
                    ..RepoDetails::default()
                }),
                "newest readable snapshot 2026-11-21 19:12 UTC (1 h old), 1 snapshot cannot be read: \
                 invalid data returned",
                repair,
            ),
            (
                open(RepoDetails { unreadable_snapshots: Some(unread), ..RepoDetails::default() }),
                "no readable snapshot, 1 snapshot cannot be read: invalid data returned",
                "",
            ),
            (
                open(RepoDetails { newest, damage: Some("x".into()), ..RepoDetails::default() }),
                "newest snapshot 2026-11-21 19:12 UTC (1 h old), it is damaged: x",
                repair,
            ),
            (
                open(RepoDetails { newest_unknown: Some("x".into()), ..RepoDetails::default() }),
                "its newest snapshot is not known: x",
                "",
            ),
            (
                open(RepoDetails { newest: ahead, ..RepoDetails::default() }),
                "newest snapshot 2026-11-21 22:12 UTC (in the future)",
                "",
            ),
            (
                open(RepoDetails { damaged_locks: 2, ..RepoDetails::default() }),
                "no snapshot yet, 2 locks cannot be read: a newer restic does not back up beside them",
                "the lock that cannot be read: when no backup runs any more, restic unlock --remove-all",
            ),
            (
                RepoState::Refused(RepoError::Damaged("x".into())),
                "is damaged: x",
                "the damaged repository: whether the destination's disk was full; its files config and \
                 keys come back from a copy only",
            ),
            (
                RepoState::Refused(RepoError::Failed("x".into())),
                "restic cannot open it: x",
                "what restic says about the repository",
            ),
            (
                RepoState::NotChecked("not asked again: x".into()),
                "could not be asked: not asked again: x",
                "",
            ),
        ] {
            assert_eq!(describe_state(&state, NOW, &Zone::default()), text);
            assert_eq!(remedies(&state).join("\n"), remedy);
        }
    }

    #[test]
    fn the_table_has_every_module_and_the_worst_first() {
        let table = told(&plan(), None).1.table.unwrap();
        let mail = "mail1 (Post office)|failed|2|1.2 GB|4321|7|2026-11-21 19:55 UTC|\
                    2026-11-21 20:02 UTC|7 min";
        assert_eq!(table.rows[0].join("|"), mail);
        assert_eq!(table.rows[1].join("|"), "samba3|missing|||||||");
        assert_eq!(table.rows[2][0], "cloud2");
        assert!(table.rows.iter().all(|row| row.len() == table.head.len()));
    }

    #[test]
    fn what_could_not_be_found_out_is_said() {
        let plan = Plan { id: "7".into(), ..Plan::default() };
        let plan_outcome = PlanOutcome::unknown("Redis at 127.0.0.1:6379: Connection refused");
        let report = ReportBuilder {
            plan: &plan,
            plan_outcome: &plan_outcome,
            repositories: None,
            alerts: &[],
            now: NOW,
        };
        let message = report.event().message(EventId(1));
        assert_eq!(message.title, "backup 7 UNKNOWN: Redis at 127.0.0.1:6379: Connection refused");
        assert_eq!(detail(&message, "look at"), "why this is not known; then: hbd backup 7");
        assert_eq!(message.table, None);
    }

    #[test]
    fn what_has_not_had_its_turn_is_told_in_local_time_and_blamed_for_nothing() {
        let yesterday = "last success yesterday 22:52, not yet run tonight";
        let pending = |id: &str| Module {
            why: Some(yesterday.into()),
            ..module(id, ModuleState::Pending, true)
        };
        let modules = vec![
            pending("cloud2"),
            module("mail1", ModuleState::Failed, true),
            pending("samba3"),
            module("web4", ModuleState::Success, true),
        ];
        let zone = Zones::with_local("Europe/Rome").unwrap().local().clone();
        let message = told(&Plan { modules, zone, ..plan() }, None).1;
        assert_eq!(message.title, "backup Nightly PARTIAL: 1 of 4 modules failed, 2 not yet run");
        for (label, text) in [
            ("failed", "mail1 (Post office): 2 errors, ended 2026-11-21 21:02 CET, after 7 min"),
            ("pending", &format!("cloud2: {yesterday}\nsamba3: {yesterday}")),
            ("look at", "the log of mail1 on node 1"),
            ("missing", ""),
            (
                "alert",
                "BackupFailed (firing since 2026-11-21 21:12 CET): \
                 Backup job Nightly (ID: 1) has failed.",
            ),
        ] {
            assert_eq!(detail(&message, label), text, "{label}");
        }
        let rows = message.table.unwrap().rows;
        let order: Vec<&str> = rows.iter().map(|row| row[0].as_str()).collect();
        assert_eq!(order, ["mail1 (Post office)", "cloud2", "samba3", "web4"]);
        assert_eq!(rows[0][7], "2026-11-21 21:02 CET");
        assert!(!rows.concat().concat().contains("UTC"));
    }

    #[test]
    fn sizes_are_in_human_units() {
        for (size, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (999_960, "1.0 MB"),
            (123_456_789, "123.5 MB"),
            (u64::MAX, "18.4 EB"),
        ] {
            assert_eq!(format_bytes(size), text);
        }
    }
}
