//! What becomes one message when a queue built up: an alarm and its end, or a digest. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::delivery::{Bundle, Delivery, DeliveryId};
use crate::event::{EventId, Incident, Level, Message, Subject};
use crate::notify::text::{Flavour, Room, Unit, clean, cut};

/// More than so many that wait for one recipient become a digest.
const DIGEST_ABOVE: usize = 10;
/// The longest title in a line; the whole of it is in the history.
const LONGEST_TITLE: usize = 250;
/// What a channel may put around a label and its text.
const AROUND: usize = 8;
/// Room for the title of a digest and for the line that says how many follow.
const HEAD: usize = 180;

/// Deliveries about one subject to one recipient that wait, in order.
pub type Waiting<'a> = Vec<(DeliveryId, &'a Delivery)>;

/// The beginning of a sequence that tells of alarms and of the end of each of them: the longest
/// that fits. Empty when there is none.
pub fn over(waiting: &Waiting, room: Room) -> Vec<DeliveryId> {
    let mut open = BTreeSet::new();
    let (mut used, mut longest, mut count) = (HEAD, 0, 0);
    for (index, (_, delivery)) in waiting.iter().enumerate() {
        let length = length(delivery, room.unit);
        used += length;
        longest = longest.max(length);
        open.extend(&delivery.opens);
        open.retain(|trouble| !delivery.closes.contains(trouble));
        // The title holds two of the lines.
        if used + 2 * longest > room.most || (index == 0 && open.is_empty()) {
            break;
        }
        if open.is_empty() && !delivery.closes.is_empty() {
            count = index + 1;
        }
    }
    waiting[..count].iter().map(|(id, _)| *id).collect()
}

/// As many as fit into one digest, and how many more there are: what is critical and goes on
/// first, then by age, but never anything before what happened earlier about the same subject.
/// None while too few wait.
pub fn digest(sequences: &[Waiting], room: Room) -> Option<(Vec<DeliveryId>, usize)> {
    let total: usize = sequences.iter().map(Vec::len).sum();
    if total <= DIGEST_ABOVE {
        return None;
    }
    let urgent: Vec<Option<usize>> = sequences.iter().map(|waiting| last_urgent(waiting)).collect();
    let turn = |sequence: usize, next: usize| {
        let calm = urgent[sequence].is_none_or(|last| last < next);
        sequences[sequence].get(next).map(|(id, _)| (calm, *id, sequence, next))
    };
    let mut turns: BTreeSet<_> = (0..sequences.len()).filter_map(|index| turn(index, 0)).collect();
    let (mut used, mut members) = (HEAD, Vec::new());
    while let Some((_, id, sequence, next)) = turns.pop_first() {
        used += length(sequences[sequence][next].1, room.unit);
        if used > room.most {
            break;
        }
        members.push(id);
        turns.extend(turn(sequence, next + 1));
    }
    let left = total - members.len();
    (members.len() > 1).then_some((members, left))
}

/// Where the last critical alarm stands that is not over.
fn last_urgent(waiting: &Waiting) -> Option<usize> {
    let deliveries: Vec<_> = waiting.iter().map(|(_, delivery)| *delivery).collect();
    let over = ended(&deliveries);
    (0..waiting.len())
        .rev()
        .find(|&index| !over[index] && waiting[index].1.message.level == Level::Critical)
}

/// Which of the deliveries tell of a trouble that ends within them.
pub fn ended(deliveries: &[&Delivery]) -> Vec<bool> {
    let mut last_end: BTreeMap<&Incident, usize> = BTreeMap::new();
    for (index, delivery) in deliveries.iter().enumerate() {
        last_end.extend(delivery.closes.iter().map(|trouble| (trouble, index)));
    }
    let over = |(index, delivery): (usize, &&Delivery)| {
        delivery
            .opens
            .as_ref()
            .and_then(|trouble| last_end.get(trouble))
            .is_some_and(|end| *end > index)
    };
    deliveries.iter().enumerate().map(over).collect()
}

fn length(delivery: &Delivery, unit: Unit) -> usize {
    let (label, text) = line(&delivery.message, true);
    unit.count(&label) + unit.count(&text) + AROUND
}

/// Time, level, title and number of one event.
fn line(message: &Message, over: bool) -> (String, String) {
    let title = cut(&clean(&message.title, Flavour::Line), LONGEST_TITLE, Unit::Bytes);
    let over = if over { ", over" } else { "" };
    let text = format!("{}{over}: {title} [{}]", message.level.name(), message.event);
    (message.at.to_string(), text)
}

/// What is sent in place of the `members` of a bundle.
pub fn whole(bundle: &Bundle, members: &[&Delivery]) -> Option<Delivery> {
    let lead = *members.first()?;
    let over = ended(members);
    let subject = common_subject(members);
    let is_digest = bundle.left > 0 || !all_over(members, &over);
    let events: Vec<EventId> = members.iter().map(|member| member.message.event).collect();
    let mut ends: Vec<EventId> = members.iter().flat_map(|member| &member.ends).copied().collect();
    // What was never sent need not be taken back.
    ends.retain(|event| !events.contains(event));
    let words = bundle.cause.words(&lead.channel);
    let title = if is_digest { digest_title(members, &over, &words) } else { over_title(members) };
    let mut details: Vec<_> =
        members.iter().zip(&over).map(|(member, over)| line(&member.message, *over)).collect();
    if !is_digest {
        details.push(("not told before".into(), words));
    }
    if bundle.left > 0 {
        details.push(("to follow".into(), format!("{} more", bundle.left)));
    }
    let message = Message {
        event: bundle.event,
        at: bundle.at,
        level: level(members, &over),
        thread: common_thread(members).unwrap_or_else(|| format!("digest {}", bundle.event)),
        subject,
        title,
        details,
        table: None,
    };
    let thread = common_thread(members).and(lead.thread.clone());
    let message = message.into();
    Some(Delivery { message, ends, thread, opens: None, bundle: None, ..lead.clone() })
}

/// The highest level of what goes on: nobody is to be woken for what is over.
fn level(members: &[&Delivery], over: &[bool]) -> Level {
    let standing = members.iter().zip(over).filter(|(_, over)| !**over);
    standing.map(|(member, _)| member.message.level).max().unwrap_or(Level::Ok)
}

fn all_over(members: &[&Delivery], over: &[bool]) -> bool {
    let about_one =
        members.iter().all(|member| member.message.subject == members[0].message.subject);
    let open = members.iter().zip(over).any(|(member, over)| member.opens.is_some() && !over);
    about_one && members[0].opens.is_some() && !open
}

fn common_subject(members: &[&Delivery]) -> Subject {
    let first = &members[0].message.subject;
    let same = members.iter().all(|member| member.message.subject == *first);
    if same { first.clone() } else { Subject::Daemon }
}

/// What is about one trouble stays in its thread; anything else begins its own.
fn common_thread(members: &[&Delivery]) -> Option<String> {
    let first = &members[0].message.thread;
    members.iter().all(|member| member.message.thread == *first).then(|| first.clone())
}

fn over_title(members: &[&Delivery]) -> String {
    let title = |member: &Delivery| {
        cut(&clean(&member.message.title, Flavour::Line), LONGEST_TITLE, Unit::Bytes)
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

fn digest_title(members: &[&Delivery], over: &[bool], words: &str) -> String {
    let count = |level: Level| {
        let of_level =
            |(member, over): &(&&Delivery, &bool)| !**over && member.message.level == level;
        members.iter().zip(over).filter(of_level).count()
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
