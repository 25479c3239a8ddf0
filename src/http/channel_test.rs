//! Test messages to a channel, by a button of the page, and what became of the last one of each.

use std::sync::{Arc, Mutex};

use super::calm_request::RequestFields;
use super::exchange::{ApiRequest, Deferral, Handled, is_of_type};
use super::query::{NotifyRequest, Recipients};
use super::response::Response;
use super::service::{Daemon, SendResponse};
use crate::clock::{Now, Wall};
use crate::event::Level;
use crate::thread::lock;

const FORM: &str = "application/x-www-form-urlencoded";
const MESSAGE: &str =
    "This is a test: this channel works. Somebody pressed the button of the status page.";
/// Of so many channels the last test is remembered.
const MAX_REMEMBERED: usize = 200;

/// The last test of each channel since the start.
#[derive(Clone, Debug, Default)]
pub struct ChannelTests(Arc<Mutex<Vec<ChannelTest>>>);

/// A test message, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelTest {
    /// The channel.
    pub channel: String,
    /// When it ended.
    pub at: Wall,
    /// Why it did not arrive; none when it did.
    pub why: Option<String>,
}

impl ChannelTests {
    /// All of them.
    pub fn results(&self) -> Vec<ChannelTest> {
        lock(&self.0).clone()
    }

    fn record(&self, test: ChannelTest) {
        let mut tests = lock(&self.0);
        tests.retain(|known| known.channel != test.channel);
        if tests.len() >= MAX_REMEMBERED {
            tests.remove(0);
        }
        tests.push(test);
    }
}

/// Sends a test message to the channel that the form names, and leads back to the page, which shows
/// what became of it.
pub fn handle(daemon: &Arc<dyn Daemon>, tests: &ChannelTests, request: &ApiRequest) -> Handled {
    let target = request.target.to_owned();
    if !is_of_type(request.content_type, FORM) {
        let why = format!("the Content-Type must be {FORM}");
        return Handled::Ready(Response::error(&target, 415, &why));
    }
    let fields = RequestFields::from_form(request.body, request.peer);
    let channel = match fields.and_then(RequestFields::channel) {
        Ok(channel) => channel,
        Err(why) => return Handled::Ready(Response::error(&target, 400, &why)),
    };
    let message = NotifyRequest {
        recipients: Recipients::Channels(vec![channel.clone()]),
        message: MESSAGE.into(),
        level: Some(Level::Info),
    };
    let tests = tests.clone();
    match daemon.notify(message) {
        Err(why) => Handled::Ready(Response::not_sent(&target, why)),
        Ok(send) => Handled::deferred(Deferral::Wait, move || match send() {
            Ok(SendResponse { results, mut why }) => {
                let why = why.remove(&channel);
                let failed = || Some("it did not arrive".into());
                let why =
                    if results.get(&channel) == Some(&true) { None } else { why.or_else(failed) };
                tests.record(ChannelTest { channel, at: Now::read().wall, why });
                Response::text(303, "done").with_header("Location", "/#channels")
            }
            Err(why) => Response::not_sent(&target, why),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_test_of_each_channel_is_remembered() {
        let tests = ChannelTests::default();
        let test = |channel: &str, at, why: Option<&str>| ChannelTest {
            channel: channel.into(),
            at: Wall(at),
            why: why.map(str::to_owned),
        };
        tests.record(test("chat", 1, Some("no answer")));
        tests.record(test("mail", 2, None));
        tests.record(test("chat", 3, None));
        assert_eq!(tests.results(), [test("mail", 2, None), test("chat", 3, None)]);
        (0..1000).for_each(|n| tests.record(test(&format!("c{n}"), n, None)));
        assert_eq!(tests.results().len(), MAX_REMEMBERED);
    }
}
