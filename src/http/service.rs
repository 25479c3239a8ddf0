//! What the web asks the daemon for. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::metrics::Figures;
use super::query::{EventsWanted, Notice, SeriesWanted, Wanted};
use crate::problem::Problems;
use crate::view::{
    AlertView, ChannelView, DyndnsView, EventView, HostView, NotificationView, PastView, PlanView,
    SeriesView,
};

/// The daemon, as the web knows it. Called from several threads at once.
pub trait House: Send + Sync {
    /// Whether the daemon does its work; else what keeps it from it.
    fn ready(&self) -> Result<(), String>;

    /// At most `count` hosts, beginning with the one at index `from`; none means that there are
    /// no more. The order stays from call to call and newcomers come last: a list is read in
    /// several calls, and a host that appeared twice in it would spoil a scrape.
    fn hosts(&self, from: usize, count: usize) -> Vec<HostView>;

    /// The host of that name.
    fn host(&self, name: &str) -> Option<HostView>;

    /// A datagram that came over HTTP.
    fn hear(&self, body: &[u8], peer: IpAddr) -> Taken;

    /// What an Alertmanager sent.
    fn alert(&self, body: &[u8]) -> Taken;

    /// The figures of `/metrics`.
    fn figures(&self) -> Figures;

    /// How the names in the DNS stand that follow their hosts, by host.
    fn dyndns(&self) -> Vec<DyndnsView> {
        Vec::new()
    }

    /// How every channel stands.
    fn channels(&self) -> Vec<ChannelView>;

    /// What was sent and what waits, the newest first, and where to go on.
    fn notifications(
        &self,
        wanted: &Wanted,
    ) -> Result<(Vec<NotificationView>, Option<u64>), String>;

    /// How each of these hosts fared, in their order; none where nothing is recorded of it. This
    /// and the four below may wait for the disk, some seconds at most: they are for a thread that
    /// has time. An error is a sentence.
    fn pasts(&self, hosts: &[&str]) -> Result<Vec<Option<PastView>>, String>;

    /// How one host fared.
    fn past(&self, host: &str) -> Result<Option<PastView>, String> {
        Ok(self.pasts(&[host])?.pop().flatten())
    }

    /// The metrics of a host over time, by path; none when there is no such host.
    fn series(&self, host: &str, wanted: &SeriesWanted) -> Result<Option<Vec<SeriesView>>, String>;

    /// What happened, the newest first, and where to go on.
    fn events(&self, wanted: &EventsWanted) -> Result<(Vec<EventView>, Option<u64>), String>;

    /// What is wrong at present, the worst first.
    fn alerts(&self) -> Result<Vec<AlertView>, String>;

    /// How the backup plans fared when they were last looked into, by id.
    fn plans(&self) -> Result<Vec<PlanView>, String>;

    /// Something to be told at once: what there is to do, for a thread that has time.
    fn notify(&self, notice: Notice) -> Result<Sending, NotSent>;

    /// Has the configuration read again, and waits for what became of it: less than half a minute.
    fn reload(&self) -> Reloaded;
}

/// What became of a reload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reloaded {
    /// The new configuration is in use.
    Taken {
        /// What is different from before, a sentence each.
        changes: Vec<String>,
        /// What looks wrong with it.
        warnings: Problems,
    },
    /// Everything is as it was, because of these.
    Refused(Problems),
    /// It could not be tried: a sentence.
    NotTried(String),
}

/// Sends, and says what became of it. It takes less than half a minute: what has not ended by then
/// is said not to have arrived. An error means that nothing was begun.
pub type Sending = Box<dyn FnOnce() -> Result<SentNow, NotSent> + Send>;

/// What became of something that was told at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SentNow {
    /// By channel, whether it took the message.
    pub results: BTreeMap<String, bool>,
    /// By channel, why it did not.
    pub why: BTreeMap<String, String>,
}

/// Why nothing was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotSent {
    /// There is nobody of that name to tell.
    Nobody(String),
    /// Too much is being sent just now.
    Busy(String),
}

/// What somebody sent was taken in; the answer may have to wait for the disk.
pub enum Taken {
    /// It need not.
    Now(Answer),
    /// Waits for the disk, for a few seconds at most from now on. One thread asks all of these, in
    /// the order in which they were taken in.
    Later(Box<dyn FnOnce() -> Answer + Send>),
}

/// What became of something that was sent over HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It was accepted, and what it caused is stored.
    Stored,
    /// It is no datagram.
    Malformed(String),
    /// It has no signature where one is needed.
    Unsigned(String),
    /// Its signature is wrong, or its time is.
    Forbidden(String),
    /// Its host is not known here.
    UnknownHost(String),
    /// It could not be stored; it should be sent again later.
    Unavailable(String),
}
