//! One host: what beats, boots, goodbyes and silence mean for it. Pure.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Mono, Now, Wall};
use crate::event::{Event, EventKind, Incident};
use crate::heartbeat::connection::{Connection, Promise};
use crate::heartbeat::datagram::{Datagram, Kind};
use crate::heartbeat::diary::Diary;
use crate::heartbeat::gauge::Gauge;
use crate::heartbeat::profile::{Common, Profile};
use crate::view::State;

/// The most connections that a host may have.
pub const MAX_CONNECTIONS: usize = 16;
/// Within this time a second boot without a `boot_id` is the same boot, told over another
/// connection or repeated by a careful sender.
const SAME_BOOT: Duration = Duration::from_secs(120);

/// A machine that has been up for longer, in seconds, has not just booted.
const JUST_BOOTED: f64 = 600.0;

/// A host of the fleet.
#[derive(Debug)]
pub struct Host {
    /// Its name under `hosts`, or as it called itself.
    pub name: Arc<str>,
    /// What the configuration says about it.
    pub profile: Arc<Profile>,
    /// In the order in which they were first heard.
    pub connections: Vec<Connection>,
    /// Its metrics, in the order in which they were first heard.
    pub gauges: Vec<Gauge>,
    /// The ids of its boots; none when it never told one.
    pub boots: Option<Box<Boots>>,
    /// When its last boot was told, unless it said goodbye since.
    pub booted: Option<Mono>,
    /// Whether that boot had an id.
    pub named: bool,
    /// How it fared since the last account; none when it is not configured.
    pub diary: Option<Box<Diary>>,
    /// The best state of its connections.
    pub state: State,
    /// Since when it is in that state; when it never was heard: since when it is configured.
    pub since: Wall,
    /// When it was first configured, or first heard.
    pub configured: Wall,
    /// Its machine was told to stop, and with it the daemon, which runs there: its next boot is
    /// announced.
    pub leaving: bool,
    /// It was reported as never heard, and was not heard since.
    pub reported: bool,
    /// Something changed that must be stored at once.
    pub changed: bool,
    /// Something changed since its row was last taken, be it only that it was heard.
    pub unsaved: bool,
    /// It waits among the changed ones.
    pub listed: bool,
}

/// Other watched hosts that are overdue.
#[derive(Debug, Default)]
pub struct Others {
    /// Some of them.
    pub names: Vec<String>,
    /// How many there are in all.
    pub count: usize,
}

/// The boots of a host that tells their ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Boots {
    /// The boot that is running.
    pub current: Box<str>,
    /// The one before: late datagrams of it are no boot.
    pub previous: Option<Box<str>>,
}

impl Host {
    /// A host that was never heard.
    pub fn new(name: Arc<str>, profile: Arc<Profile>, now: Now) -> Host {
        Host {
            name,
            profile,
            connections: Vec::new(),
            gauges: Vec::new(),
            boots: None,
            booted: None,
            named: false,
            diary: None,
            state: State::New,
            since: now.wall,
            configured: now.wall,
            leaving: false,
            reported: false,
            changed: false,
            unsaved: false,
            listed: false,
        }
    }

    /// Whether it ever sent a beat.
    pub fn heard(&self) -> bool {
        self.connections.iter().any(|connection| connection.state != State::New)
    }

    /// The place of a connection.
    pub fn place(&self, connection: &str) -> Option<usize> {
        self.connections.iter().position(|known| *known.name == *connection)
    }

    /// The place of a connection that is added when it is new.
    pub fn connect(&mut self, name: Arc<str>, now: Now) -> usize {
        // Nearly all hosts have one connection: room for four would be paid for 100,000 times.
        self.connections.reserve_exact(1);
        self.connections.push(Connection::new(name, now));
        self.connections.len() - 1
    }

    /// Applies an accepted datagram; the events that it causes.
    pub fn hear(
        &mut self,
        place: usize,
        datagram: &Datagram,
        from: IpAddr,
        common: &Common,
        now: Now,
    ) -> Vec<Event> {
        let connection = &mut self.connections[place];
        connection.address = Some(from);
        match datagram.event {
            Kind::Beat | Kind::Boot => {
                if let Some(interval) = datagram.interval {
                    connection.interval = u32::try_from(interval.as_millis()).unwrap_or(u32::MAX);
                }
                self.beat(place, datagram, common, now)
            }
            Kind::Shutdown => self.goodbye(place, datagram, now).into_iter().collect(),
            Kind::Message => {
                let text = datagram.message.as_deref().unwrap_or_default().to_owned();
                let kind = EventKind::Said { host: self.name.as_ref().into(), text };
                vec![Event::new(now.wall, kind)]
            }
        }
    }

    fn beat(&mut self, place: usize, datagram: &Datagram, common: &Common, now: Now) -> Vec<Event> {
        let mut events = Vec::new();
        if std::mem::take(&mut self.reported) {
            let connection = self.connections[place].name.as_ref().into();
            let kind = EventKind::FirstHeard { host: self.name.as_ref().into(), connection };
            events.push(Event::new(now.wall, kind));
        }
        if self.boots(datagram, now) {
            events.push(self.boot(now));
            self.cover(place, common, now);
        } else if self.connections[place].in_trouble() {
            let connection = &self.connections[place];
            let kind = EventKind::Back {
                host: self.name.as_ref().into(),
                connection: connection.name.as_ref().into(),
                gone: now.mono.since(connection.seen.mono),
            };
            events.push(Event::new(now.wall, kind));
        }
        // A power cut from now on is no announced boot, even if the daemon has just started.
        self.changed |= std::mem::take(&mut self.leaving);
        self.changed |= self.connections[place].rise(now);
        self.settle(now);
        events
    }

    /// Whether a beat tells a boot that was not told before; notes its id.
    fn boots(&mut self, datagram: &Datagram, now: Now) -> bool {
        let says_boot = datagram.event == Kind::Boot;
        let recent = self.booted.is_some_and(|booted| now.mono.since(booted) < SAME_BOOT);
        let Some(id) = datagram.boot_id.as_deref() else {
            let boots = says_boot && !recent;
            self.named &= !boots;
            return boots;
        };
        let previous = match self.boots.take() {
            Some(boots) if boots.is_known(id) => {
                self.boots = Some(boots);
                return false;
            }
            Some(boots) => Some(boots.current),
            None => None,
        };
        // The first id of a host that beats is no boot: it only began to tell ids. Neither is that
        // of an agent that begins to speak long after its machine did.
        let just = datagram.uptime.is_none_or(|uptime| uptime < JUST_BOOTED);
        let new = previous.is_some() || says_boot && just;
        self.boots = Some(Box::new(Boots { current: id.into(), previous }));
        let told = recent && !self.named;
        self.named = true;
        self.changed = true;
        new && !told
    }

    fn boot(&mut self, now: Now) -> Event {
        let known = self.heard();
        let said_goodbye = |c: &Connection| c.state == State::Shutdown && !c.covered;
        let announced = !known || self.leaving || self.connections.iter().any(said_goodbye);
        let returned = self.connections.iter().filter(|connection| connection.in_trouble());
        let heard = self.connections.iter().filter(|connection| connection.state != State::New);
        let kind = EventKind::Booted {
            host: self.name.as_ref().into(),
            announced,
            returned: returned.map(|connection| connection.name.as_ref().into()).collect(),
            gone: heard.map(|connection| now.mono.since(connection.seen.mono)).min(),
        };
        self.booted = Some(now.mono);
        self.changed = true;
        Event::new(now.wall, kind)
    }

    /// The trouble of the other connections was told as over: they have to prove it in time.
    fn cover(&mut self, place: usize, common: &Common, now: Now) {
        let profile = self.profile.clone();
        for (other, connection) in self.connections.iter_mut().enumerate() {
            if other != place && connection.in_trouble() {
                connection.cover(connection.promise(&profile, common), now);
            }
        }
    }

    fn goodbye(&mut self, place: usize, datagram: &Datagram, now: Now) -> Option<Event> {
        let late = |boots: &Boots| boots.previous.as_deref() == datagram.boot_id.as_deref();
        if datagram.boot_id.is_some() && self.boots.as_deref().is_some_and(late) {
            return None;
        }
        self.booted = None;
        let connection = &mut self.connections[place];
        let told = connection.state == State::Shutdown && !connection.covered;
        if told || connection.state == State::New {
            return None;
        }
        connection.seen = now;
        connection.covered = false;
        connection.granted = None;
        connection.turn(State::Shutdown, now);
        self.changed = true;
        let connection = connection.name.as_ref().into();
        self.settle(now);
        let kind = EventKind::Shutdown { host: self.name.as_ref().into(), connection };
        Some(Event::new(now.wall, kind))
    }

    /// A connection's deadline has passed: the event that says so.
    pub fn fall_silent(
        &mut self,
        place: usize,
        promise: Promise,
        others: Others,
        now: Now,
    ) -> Event {
        let told = self.connections.iter().any(Connection::in_trouble);
        let connection = &mut self.connections[place];
        let was_up = connection.state == State::Up;
        connection.covered = false;
        connection.granted = None;
        connection.turn(State::Overdue, now);
        self.changed = true;
        self.settle(now);
        // One that was excused counts as the last one when nothing was told of the host so far.
        let last = self.state != State::Up && (was_up || !told);
        let connection = &self.connections[place];
        let kind = EventKind::Overdue {
            host: self.name.as_ref().into(),
            connection: connection.name.as_ref().into(),
            last_seen: connection.seen.wall,
            promised: connection.seen.wall + promise.interval,
            others_down: others.names,
            others_count: others.count,
            last,
        };
        Event::new(now.wall, kind)
    }

    /// It is watched from now on: nobody was told what is overdue already. It has as long as after
    /// a beat to come back, and is told then. The troubles that must be forgotten until then.
    pub fn tell_anew(&mut self, common: &Common, now: Now) -> Vec<Incident> {
        let (name, profile) = (self.name.clone(), self.profile.clone());
        let overdue = |c: &&mut Connection| c.state == State::Overdue && c.in_trouble();
        let told = self.connections.iter_mut().filter(overdue).map(|connection| {
            connection.cover(connection.promise(&profile, common), now);
            Incident::Connection {
                host: name.as_ref().into(),
                connection: connection.name.as_ref().into(),
            }
        });
        told.collect()
    }

    /// Goes by what the configuration says of its vouched connections now: where nobody vouches any
    /// more, the connection is forgotten, and the trouble about it; else it holds its new promise.
    pub fn review_vouched(&mut self, now: Now) -> Vec<Incident> {
        let mut ended = Vec::new();
        for place in (0..self.connections.len()).rev() {
            let connection = &mut self.connections[place];
            if !connection.is_vouched() {
                continue;
            }
            match self.profile.vouched(&connection.name) {
                Some(promise) => self.changed |= connection.promise_anew(promise, now),
                None => ended.extend(self.disconnect(place, now)),
            }
        }
        ended
    }

    /// Forgets a connection; the trouble that ends without a word.
    fn disconnect(&mut self, place: usize, now: Now) -> Option<Incident> {
        let gone = self.connections.remove(place);
        self.gauges.iter_mut().for_each(|gauge| gauge.presence.connection_gone(place));
        self.changed = true;
        self.settle(now);
        if self.connections.is_empty() {
            // Whoever has to beat now has as long as a host that was just configured.
            self.configured = now.wall;
        }
        gone.in_trouble().then(|| Incident::Connection {
            host: self.name.as_ref().into(),
            connection: gone.name.as_ref().into(),
        })
    }

    /// Takes the state that follows from its connections. While it is not up nobody looks at its
    /// metrics: for how long they were beyond their limits is forgotten.
    pub fn settle(&mut self, now: Now) {
        let has = |state| self.connections.iter().any(|connection| connection.state == state);
        let state = [State::Up, State::Overdue, State::Shutdown].into_iter().find(|s| has(*s));
        let state = state.unwrap_or(State::New);
        if state == self.state {
            return;
        }
        if self.state == State::Up {
            let watched = self.gauges.iter_mut().filter_map(|gauge| gauge.watched.as_deref_mut());
            watched.for_each(|watched| watched.standing.restart());
        }
        self.state = state;
        self.since = now.wall;
    }

    /// Everything that people were told is wrong with it.
    pub fn troubles(&self) -> Vec<Incident> {
        let name = || self.name.as_ref().to_owned();
        let mut troubles: Vec<Incident> =
            self.gauges.iter().filter_map(|gauge| gauge.trouble(&self.name)).collect();
        let down = self.connections.iter().filter(|connection| connection.in_trouble());
        troubles.extend(down.map(|connection| Incident::Connection {
            host: name(),
            connection: connection.name.as_ref().into(),
        }));
        if self.reported {
            troubles.push(Incident::NeverSeen { host: name() });
        }
        troubles
    }
}

impl Boots {
    fn is_known(&self, id: &str) -> bool {
        *self.current == *id || self.previous.as_deref() == Some(id)
    }
}
