//! Channels that are away for long, are replaced or are removed: what could not be told is told by
//! those that there are, by hbd as an operator runs it.

#[allow(dead_code, reason = "each test file uses some of them")]
mod support {
    pub mod clock;
    pub mod hbd;
    pub mod http_double;
    pub mod mattermost;
    pub mod preload;
}

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use support::clock::hbd_at;
use support::hbd::Hbd;
use support::mattermost::{MattermostDouble, Mode};

const LONG: Duration = Duration::from_secs(60);
const BEGIN: i64 = 1_795_291_928;

/// A directory with a configuration and a state.
struct Place(tempfile::TempDir);

impl Place {
    fn new(channels: &[(&str, &MattermostDouble)]) -> Place {
        let place = Place(tempfile::tempdir().unwrap());
        place.configure(channels);
        place
    }

    /// These channels, for all.
    fn configure(&self, channels: &[(&str, &MattermostDouble)]) {
        let names: Vec<&str> = channels.iter().map(|(name, _)| *name).collect();
        let definition = |(name, double): &(&str, &MattermostDouble)| {
            let (url, token) = (&double.url, MattermostDouble::TOKEN);
            format!("  {name}: {{type: mattermost, host: '{url}', token: {token}, channel: ops}}\n")
        };
        let text = format!(
            "notification_channels:\n{}default_notification_channels: [{}]\nheartbeat: {{port: 0}}\n\
             receiver: {{port: 0}}\nstate_dir: {}\nhosts: {{web1: {{watch: true}}}}\n",
            channels.iter().map(definition).collect::<String>(),
            names.join(", "),
            self.0.path().join("state").display()
        );
        fs::write(self.config(), text).unwrap();
    }

    fn config(&self) -> PathBuf {
        self.0.path().join("heartbeat.yaml")
    }

    fn start(&self) -> Hbd {
        Hbd::start(&self.config())
    }

    /// Starts hbd with both of its clocks that much ahead.
    fn start_after(&self, hours: i64) -> Hbd {
        let mut command = hbd_at(BEGIN + hours * 3600);
        command.env("BOOT_SHIFT", (hours * 3600).to_string());
        Hbd::start_by(command, &self.config())
    }
}

fn dead() -> MattermostDouble {
    let double = MattermostDouble::start();
    double.set_mode(Mode::Status(503, String::new()));
    double
}

fn send(hbd: &Hbd, datagram: &str) {
    let (status, answer) = hbd.request("POST", "/api/v1/heartbeat", datagram.as_bytes());
    assert_eq!(status, 200, "{datagram}: {answer}");
}

fn say(hbd: &Hbd, text: &str) {
    send(hbd, &format!(r#"{{"host":"web1","event":"message","message":"{text}"}}"#));
}

/// How many posts have these words.
fn count(double: &MattermostDouble, words: &str) -> usize {
    double.received().iter().filter(|post| post.text.contains(words)).count()
}

const FULL: &str = r#"{"host":"web1","metrics":{"disk_monitor":{"root":{"percent":99}}}}"#;

#[test]
fn what_waited_for_a_dead_channel_was_dropped_when_an_operator_replaced_it() {
    for reloads in [true, false] {
        let (mm, chat) = (dead(), MattermostDouble::start());
        let place = Place::new(&[("mm", &mm)]);
        let mut hbd = place.start();
        say(&hbd, "raid failed");
        send(&hbd, FULL);
        hbd.wait_log("Failed to send notification to mm");
        let said = "notification_channels.mm: is gone, 2 messages that waited for it go to chat";
        if reloads {
            // One that is refused moves nothing.
            fs::write(place.config(), "nothing: of use\n").unwrap();
            assert_eq!(hbd.request("POST", "/-/reload", b"").0, 400);
            assert_eq!(hbd.metric("hbd_outbox_deliveries"), 2.0);
            place.configure(&[("chat", &chat)]);
            let (status, answer) = hbd.request("POST", "/-/reload", b"");
            assert!(status == 200 && answer.contains(said), "{answer}");
        } else {
            hbd.stop();
            place.configure(&[("chat", &chat)]);
            hbd = place.start();
        }
        hbd.wait_log(said);
        let texts: Vec<String> = chat.wait_for(2, LONG).into_iter().map(|post| post.text).collect();
        hbd.wait_until("all is told", |hbd| hbd.metric("hbd_outbox_deliveries") == 0.0);
        assert!(texts[0].contains("web1 raid failed"), "{texts:?}");
        assert!(
            texts[1].contains("CRITICAL: web1 - disk_monitor.root.percent = 99.0"),
            "{texts:?}"
        );
        assert_eq!(chat.received().len(), 2, "{reloads}");
        let (_, events) = hbd.request("GET", "/api/v1/notifications?channel=mm", b"");
        assert!(events.contains("no longer configured: it goes to chat"), "{events}");
        hbd.stop();
    }
}

#[test]
fn messages_that_expired_while_a_channel_was_away_were_never_spoken_of() {
    let (mm, chat) = (dead(), MattermostDouble::start());
    let place = Place::new(&[("mm", &mm), ("chat", &chat)]);
    let hbd = place.start_after(0);
    for text in ["raid failed", "raid failed", "raid failed", "fan stopped"] {
        say(&hbd, text);
    }
    chat.wait_for(4, LONG);
    hbd.kill();

    let title = "4 messages were given up while mm could not be reached: \
                 web1 raid failed (3 times), web1 fan stopped";
    let hbd = place.start_after(7);
    hbd.wait_until("the other hears at once", |_| count(&chat, title) == 1);
    let (_, events) = hbd.request("GET", "/api/v1/events?kind=given_up", b"");
    assert!(events.contains("4 messages were given up"), "{events}");
    hbd.kill();

    mm.set_mode(Mode::Normal);
    let hbd = place.start_after(30);
    hbd.wait_until("it hears when it is back", |_| count(&mm, title) == 1);
    hbd.wait_until("that is all", |hbd| hbd.metric("hbd_outbox_deliveries") == 0.0);
    assert_eq!((count(&mm, "given up"), count(&chat, "given up")), (1, 1));
    let post = mm.received().into_iter().find(|post| post.text.contains(title)).unwrap();
    assert_eq!(post.text.matches("warning: web1 raid failed").count(), 3, "{}", post.text);
    hbd.stop();
}

#[test]
fn a_channel_that_is_renamed_twice_and_back_under_kill_9_tells_each_once() {
    let (mm, chat) = (dead(), dead());
    let place = Place::new(&[("mm", &mm)]);
    let hbd = place.start_after(0);
    say(&hbd, "raid failed");
    hbd.wait_log("Failed to send notification to mm");
    hbd.kill();
    // It expires, and waits as a notice.
    let hbd = place.start_after(7);
    hbd.wait_log("given up after");
    send(&hbd, FULL);
    for channels in [&[("chat", &chat)][..], &[], &[("mm", &mm)], &[("chat", &chat)]] {
        place.configure(channels);
        let (status, answer) = hbd.request("POST", "/-/reload", b"");
        assert_eq!(status, 200, "{answer}");
    }
    hbd.kill();
    place.configure(&[("mm", &mm)]);
    let hbd = place.start_after(8);
    place.configure(&[]);
    assert_eq!(hbd.request("POST", "/-/reload", b"").0, 200);
    mm.set_mode(Mode::Normal);
    place.configure(&[("mm", &mm)]);
    assert_eq!(hbd.request("POST", "/-/reload", b"").0, 200);
    let given_up = "1 message was given up while mm could not be reached: web1 raid failed";
    // The clock was moved to the hour of the first reminder.
    let once = |words: &str| {
        let arrived = mm.received().into_iter().filter(|post| matches!(post.mode, Mode::Normal));
        let posts = arrived.filter(|post| post.text.contains(words));
        posts.filter(|post| !post.text.contains("reminder:")).count()
    };
    for words in [given_up, "CRITICAL: web1 - disk_monitor.root.percent = 99.0"] {
        hbd.wait_until(words, |_| once(words) >= 1);
    }
    hbd.wait_until("that is all", |hbd| hbd.metric("hbd_outbox_deliveries") == 0.0);
    assert_eq!((once(given_up), once("CRITICAL: web1")), (1, 1));
    hbd.stop();
}
