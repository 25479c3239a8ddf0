//! Which waiting deliveries become one message: an alarm and its recovery, or a digest. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::delivery::{Backlog, Delivery, DeliveryId, Digest, SubjectDeliveries};
use super::together;
use crate::btree::InsertAll;
use crate::event::{EventId, Incident, Level, Message, Subject};
use crate::notify::text::{LineBreaks, TextLimit, TextUnit, clean, cut};

/// More deliveries than this for one recipient become a digest.
pub const MAX_SINGLE_MESSAGES: usize = 10;
/// In bytes. The whole title is in the history.
const MAX_TITLE: usize = 250;
/// What a channel may put around a label and its text.
const LINE_OVERHEAD: usize = 8;
/// Space for the title of a digest and for the line that says how many follow.
const HEAD_LENGTH: usize = 180;

/// The head of a subject in which every alarm is followed by its recovery: the longest that fits.
/// Empty when there is none.
pub fn alarm_and_recovery(waiting: &SubjectDeliveries, room: TextLimit) -> Vec<DeliveryId> {
    let mut open = BTreeSet::new();
    let (mut used, mut longest, mut count) = (HEAD_LENGTH, 0, 0);
    for (index, (_, delivery)) in waiting.iter().enumerate() {
        let length = length(delivery, room.unit);
        used += length;
        longest = longest.max(length);
        open.extend(&delivery.opens);
        open.retain(|incident| !delivery.closes.contains(incident));
        // The title holds two of the lines.
        if used + 2 * longest > room.max || (index == 0 && open.is_empty()) {
            break;
        }
        if open.is_empty() && !delivery.closes.is_empty() {
            count = index + 1;
        }
    }
    waiting[..count].iter().map(|(id, _)| *id).collect()
}

/// As many deliveries as fit into one digest, and how many are left out: open critical alarms
/// first, then by age, but never before an earlier delivery about the same subject. None while too
/// few wait.
pub fn select(subjects: &[SubjectDeliveries], room: TextLimit) -> Option<(Vec<DeliveryId>, usize)> {
    let total: usize = subjects.iter().map(Vec::len).sum();
    if total <= MAX_SINGLE_MESSAGES {
        return None;
    }
    let urgent: Vec<Option<usize>> =
        subjects.iter().map(|waiting| last_open_critical(waiting)).collect();
    let turn = |subject: usize, next: usize| {
        let calm = urgent[subject].is_none_or(|last| last < next);
        subjects[subject].get(next).map(|(id, _)| (calm, *id, subject, next))
    };
    let mut turns: BTreeSet<_> =
        (0..subjects.len()).filter_map(|index| turn(index, 0)).insert_all();
    let (mut used, mut members) = (HEAD_LENGTH, Vec::new());
    while let Some((_, id, subject, next)) = turns.pop_first() {
        used += length(subjects[subject][next].1, room.unit);
        if used > room.max {
            break;
        }
        members.push(id);
        turns.extend(turn(subject, next + 1));
    }
    let left = total - members.len();
    (members.len() > 1).then_some((members, left))
}

/// The index of the last critical alarm whose incident is open.
fn last_open_critical(waiting: &SubjectDeliveries) -> Option<usize> {
    let deliveries: Vec<_> = waiting.iter().map(|(_, delivery)| *delivery).collect();
    let recovered = recovered_within(&deliveries);
    (0..waiting.len())
        .rev()
        .find(|&index| !recovered[index] && waiting[index].1.message.level == Level::Critical)
}

/// Which of the deliveries open an incident that another of them closes.
pub fn recovered_within(deliveries: &[&Delivery]) -> Vec<bool> {
    let mut last_end: BTreeMap<&Incident, usize> = BTreeMap::new();
    for (index, delivery) in deliveries.iter().enumerate() {
        last_end.extend(delivery.closes.iter().map(|incident| (incident, index)));
    }
    let recovered = |(index, delivery): (usize, &&Delivery)| {
        delivery
            .opens
            .as_ref()
            .and_then(|incident| last_end.get(incident))
            .is_some_and(|end| *end > index)
    };
    deliveries.iter().enumerate().map(recovered).collect()
}

fn length(delivery: &Delivery, unit: TextUnit) -> usize {
    let (label, text) = detail_line(&delivery.message, true);
    unit.count(&label) + unit.count(&text) + LINE_OVERHEAD
}

/// The line of one event: its time as the label; level, title and event as the text.
fn detail_line(message: &Message, recovered: bool) -> (String, String) {
    let title = cut(&clean(&message.title, LineBreaks::Remove), MAX_TITLE, TextUnit::Bytes);
    let recovered = if recovered { ", over" } else { "" };
    let text = format!("{}{recovered}: {title} [{}]", message.level.name(), message.event);
    (message.at.local().to_string(), text)
}

/// The message that is sent in place of the `members` of a digest.
pub fn render(digest: &Digest, members: &[&Delivery]) -> Option<Delivery> {
    let first = *members.first()?;
    let recovered = recovered_within(members);
    let subject = common_subject(members);
    let is_digest = digest.left_out > 0 || !is_alarm_and_recovery(members, &recovered);
    let events: Vec<EventId> = members.iter().map(|member| member.message.event).collect();
    let mut ends: Vec<EventId> =
        members.iter().flat_map(|member| &member.recovered_events).copied().collect();
    // What was never sent needs no recovery.
    ends.retain(|event| !events.contains(event));
    let words = digest.cause.describe(&first.channel);
    let lines = members.iter().zip(&recovered);
    let lines = lines.map(|(member, recovered)| detail_line(&member.message, *recovered));
    let (title, mut details) = match digest.cause {
        Backlog::Together => (together::titles(members), together::details(members)),
        _ if is_digest => (digest_title(members, &recovered, &words), lines.collect()),
        _ => {
            let words = ("not told before".to_owned(), words);
            (recovery_title(members), lines.chain([words]).collect())
        }
    };
    if digest.left_out > 0 {
        details.push(("to follow".into(), format!("{} more", digest.left_out)));
    }
    let message = Message {
        event: digest.event,
        at: digest.at,
        level: highest_open_level(members, &recovered),
        thread: common_thread(members).unwrap_or_else(|| format!("digest {}", digest.event)),
        subject,
        title,
        details,
        // They are about one host.
        link: first.message.link.clone().filter(|_| digest.cause == Backlog::Together),
        table: None,
    };
    let thread = common_thread(members).and(first.thread.clone());
    let message = message.into();
    Some(Delivery {
        message,
        recovered_events: ends,
        thread,
        opens: None,
        digest: None,
        ..first.clone()
    })
}

/// The highest level of what is open: what has recovered must not ring a phone.
fn highest_open_level(members: &[&Delivery], recovered: &[bool]) -> Level {
    let standing = members.iter().zip(recovered).filter(|(_, recovered)| !**recovered);
    standing.map(|(member, _)| member.message.level).max().unwrap_or(Level::Ok)
}

fn is_alarm_and_recovery(members: &[&Delivery], recovered: &[bool]) -> bool {
    let about_one =
        members.iter().all(|member| member.message.subject == members[0].message.subject);
    let open = members
        .iter()
        .zip(recovered)
        .any(|(member, recovered)| member.opens.is_some() && !recovered);
    about_one && members[0].opens.is_some() && !open
}

fn common_subject(members: &[&Delivery]) -> Subject {
    let first = &members[0].message.subject;
    let same = members.iter().all(|member| member.message.subject == *first);
    if same { first.clone() } else { Subject::Daemon }
}

/// A digest about one thread stays in it; any other starts its own.
fn common_thread(members: &[&Delivery]) -> Option<String> {
    let first = &members[0].message.thread;
    members.iter().all(|member| member.message.thread == *first).then(|| first.clone())
}

fn recovery_title(members: &[&Delivery]) -> String {
    let title = |member: &Delivery| {
        cut(&clean(&member.message.title, LineBreaks::Remove), MAX_TITLE, TextUnit::Bytes)
    };
    let alarms = members.iter().filter(|member| member.opens.is_some());
    let worst = alarms.rev().max_by_key(|member| member.message.level);
    let (first, last) = (worst.unwrap_or(&members[0]), members[members.len() - 1]);
    let more = match members.len() {
        2 => String::new(),
        count => format!(" ({count} events in all)"),
    };
    format!("{}, then {}{more}", title(first), title(last))
}

fn digest_title(members: &[&Delivery], recovered: &[bool], words: &str) -> String {
    let count = |level: Level| {
        let of_level = |(member, recovered): &(&&Delivery, &bool)| {
            !**recovered && member.message.level == level
        };
        members.iter().zip(recovered).filter(of_level).count()
    };
    let mut parts: Vec<String> = [Level::Critical, Level::Warning]
        .into_iter()
        .map(|level| (count(level), level.name()))
        .filter(|(count, _)| *count > 0)
        .map(|(count, name)| format!("{count} {name}"))
        .collect();
    if parts.is_empty() {
        parts.push("nothing that goes on".into());
    }
    format!("{} events {words}: {}", members.len(), parts.join(", "))
}
