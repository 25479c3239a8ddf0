//! The recipients of a channel that sends to each of them on its own: what the provider last said
//! about each, and which of them wait because of it. Pure.

use std::collections::BTreeMap;

use super::delivery::DeliveryId;
use crate::clock::Mono;

/// A recipient; none where a channel is sent to as a whole.
pub type Recipient = Option<String>;

/// What the provider last said about a recipient.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Standing {
    /// Nothing yet.
    #[default]
    Untried,
    /// It took a message for it.
    Accepted,
    /// It does not take a message for it now.
    Deferred,
    /// It does not take messages from us for it.
    Refused,
    /// It dropped a message for it for good.
    Rejected,
}

#[derive(Debug, Default)]
struct RecipientState {
    standing: Standing,
    failures: u32,
    why: Option<String>,
    not_before: Option<Mono>,
    backlog: bool,
    skip_once: Option<DeliveryId>,
    last_attempt: u64,
}

/// The state of each recipient that was tried.
#[derive(Debug, Default)]
pub struct RecipientStates {
    states: BTreeMap<Recipient, RecipientState>,
    attempts: u64,
}

impl RecipientStates {
    fn state(&mut self, of: &Recipient) -> &mut RecipientState {
        self.states.entry(of.clone()).or_default()
    }

    /// An attempt for a recipient starts.
    pub fn start_attempt(&mut self, of: &Recipient) {
        self.attempts += 1;
        let attempts = self.attempts;
        let state = self.state(of);
        state.last_attempt = attempts;
        state.skip_once = None;
    }

    /// The number of the last attempt for a recipient: those who wait longest have the lowest.
    pub fn last_attempt(&self, of: &Recipient) -> u64 {
        self.states.get(of).map_or(0, |state| state.last_attempt)
    }

    /// An attempt for a recipient ended well, or with the end of its message.
    pub fn on_answer(&mut self, of: &Recipient, standing: Standing) {
        let state = self.state(of);
        *state = RecipientState {
            standing,
            backlog: state.backlog,
            skip_once: state.skip_once,
            last_attempt: state.last_attempt,
            ..RecipientState::default()
        };
    }

    /// A recipient is deferred or refused; returns how often in a row.
    pub fn on_failure(&mut self, of: &Recipient, standing: Standing, why: &str) -> u32 {
        let state = self.state(of);
        if state.standing != standing {
            (state.standing, state.failures) = (standing, 0);
        }
        state.failures += 1;
        state.why = Some(why.to_owned());
        state.backlog = true;
        state.failures
    }

    /// Tries nothing for a recipient before `until`.
    pub fn pause(&mut self, of: &Recipient, until: Mono) {
        self.state(of).not_before = Some(until);
    }

    /// Ends all pauses.
    pub fn release(&mut self) {
        self.states.values_mut().for_each(|state| state.not_before = None);
    }

    /// When something may be tried for a recipient; none for at once.
    pub fn not_before(&self, of: &Recipient) -> Option<Mono> {
        self.states.get(of)?.not_before
    }

    /// Whether the provider takes nothing for any of `all`, now or for good.
    pub fn all_fail(&self, all: &[Recipient]) -> bool {
        self.all_are(all, &[Standing::Deferred, Standing::Refused, Standing::Rejected])
    }

    /// Whether the provider refuses every one of `all`.
    pub fn all_refused(&self, all: &[Recipient]) -> bool {
        self.all_are(all, &[Standing::Refused, Standing::Rejected])
    }

    fn all_are(&self, all: &[Recipient], standings: &[Standing]) -> bool {
        all.iter()
            .all(|of| self.states.get(of).is_some_and(|state| standings.contains(&state.standing)))
    }

    /// What the provider last said about a recipient.
    pub fn standing(&self, of: &Recipient) -> Standing {
        self.states.get(of).map_or(Standing::Untried, |state| state.standing)
    }

    /// Why nothing could be sent to a recipient the last time.
    pub fn last_failure(&self, of: &Recipient) -> Option<&str> {
        self.states.get(of)?.why.as_deref()
    }

    /// Whether a backlog built up while a recipient was deferred or refused.
    pub fn has_backlog(&self, of: &Recipient) -> bool {
        self.states.get(of).is_some_and(|state| state.backlog)
    }

    /// Nothing waits for a recipient any more.
    pub fn clear_backlog(&mut self, of: &Recipient) {
        if let Some(state) = self.states.get_mut(of) {
            state.backlog = false;
        }
    }

    /// The delivery to skip once, so that it does not block the others for its recipient.
    pub fn set_skip_once(&mut self, of: &Recipient, id: DeliveryId) {
        self.state(of).skip_once = Some(id);
    }

    /// See [`RecipientStates::set_skip_once`].
    pub fn is_skipped(&self, of: &Recipient, id: DeliveryId) -> bool {
        self.states.get(of).is_some_and(|state| state.skip_once == Some(id))
    }
}
