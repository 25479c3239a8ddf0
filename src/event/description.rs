//! What a kind of event means to the rest of the program, and how that is put together. Pure.

use super::message::TextTable;
use super::{Incident, IncidentChange, Level, Subject};

/// What a kind of event means to the rest of the program.
#[derive(Clone, Debug, PartialEq)]
pub struct EventDescription {
    /// What programs call it, in the API and in the history. It never changes.
    pub name: &'static str,
    /// How much it matters.
    pub level: Level,
    /// What its deliveries are kept in order by.
    pub subject: Subject,
    /// Whether it is notified only for hosts with `watch: true`.
    pub watched_only: bool,
    /// Whether it goes to the channels for backups, though it is not about a plan.
    pub for_backups: bool,
    /// Whether it is news also at the level OK, and not only the end of an incident.
    pub ok_is_news: bool,
    /// Whether it repeats what was notified before.
    pub is_reminder: bool,
    /// Whether it is only recorded: no channel gets it.
    pub history_only: bool,
    /// What it does to incidents.
    pub incident: IncidentChange,
    /// One line: the exact text of the contract.
    pub title: String,
    /// What more there is to say, as label and text.
    pub details: Vec<(String, String)>,
    /// What is best shown in rows and columns.
    pub table: Option<TextTable>,
}

impl EventDescription {
    pub(super) fn new(
        name: &'static str,
        level: Level,
        subject: Subject,
        title: String,
    ) -> EventDescription {
        EventDescription {
            name,
            level,
            subject,
            watched_only: false,
            for_backups: false,
            ok_is_news: false,
            is_reminder: false,
            history_only: false,
            incident: IncidentChange::None,
            title,
            details: Vec::new(),
            table: None,
        }
    }

    pub(super) fn of_host(
        name: &'static str,
        level: Level,
        host: &str,
        title: String,
    ) -> EventDescription {
        EventDescription::new(name, level, Subject::Host(host.to_owned()), title)
    }

    pub(super) fn of_channel(
        name: &'static str,
        level: Level,
        channel: &str,
        title: String,
    ) -> EventDescription {
        let incident = Incident::Channel { channel: channel.to_owned() };
        EventDescription::new(name, level, Subject::Channel(channel.to_owned()), title)
            .about(incident)
    }

    pub(super) fn of_daemon(name: &'static str, level: Level, title: &str) -> EventDescription {
        EventDescription::new(name, level, Subject::Daemon, title.to_owned())
    }

    pub(super) fn watched_only(self) -> EventDescription {
        EventDescription { watched_only: true, ..self }
    }

    pub(super) fn reminder(self, is_reminder: bool) -> EventDescription {
        EventDescription { is_reminder, ..self }
    }

    /// The incident is over when the level is OK, else it is open.
    pub(super) fn about(self, incident: Incident) -> EventDescription {
        let incident = match self.level {
            Level::Ok => IncidentChange::Closes(vec![incident]),
            Level::Info | Level::Warning | Level::Critical => IncidentChange::Opens(incident),
        };
        EventDescription { incident, ..self }
    }

    pub(super) fn closes(self, over: Vec<Incident>) -> EventDescription {
        EventDescription { incident: IncidentChange::Closes(over), ..self }
    }

    pub(super) fn detail(mut self, label: &str, text: impl Into<String>) -> EventDescription {
        self.details.push((label.to_owned(), text.into()));
        self
    }

    pub(super) fn body(
        self,
        details: &[(String, String)],
        table: Option<&TextTable>,
    ) -> EventDescription {
        EventDescription { details: details.to_vec(), table: table.cloned(), ..self }
    }

    pub(super) fn detail_if(self, label: &str, text: Option<String>) -> EventDescription {
        match text {
            Some(text) => self.detail(label, text),
            None => self,
        }
    }
}
