//! How silences meet channels that give messages up, or are called otherwise, and the notes of hosts.

use super::*;

impl TestOverlay {
    fn rename_mail(&mut self) -> &mut TestOverlay {
        self.rename("mail", "post")
    }

    /// A reload that calls a channel otherwise.
    pub(super) fn rename(&mut self, from: &str, to: &str) -> &mut TestOverlay {
        let route = self.routes.channels.remove(from).unwrap();
        self.routes.channels.insert(to.into(), route);
        self.routes.default = vec![to.into(), "pager".into()];
        self.routes.backups = vec![to.into()];
        let own = self.routes.hosts.values_mut().filter_map(|host| host.channels.as_mut());
        own.flatten().filter(|name| *name == from).for_each(|name| *name = to.into());
        let queues = queues(&self.routes);
        self.outbox.reconfigure(queues, &self.routes, 7, self.now);
        self.overlay.readdress(&self.outbox, &self.routes, self.now);
        self.turn()
    }

    /// Notices of what was given up are not of interest here.
    fn told_alarms(&mut self) -> Vec<String> {
        let told = self.told();
        told.into_iter().filter(|title| !title.contains("given up")).collect()
    }
}

#[test]
fn an_alarm_that_was_given_up_counted_as_told_at_the_end_of_a_silence() {
    for restarts in [false, true] {
        let mut test = TestOverlay::new();
        test.metric(Level::Warning).told();
        test.refuses = true;
        test.metric(Level::Critical);
        test.refuses = false;
        test.silence("web1", HOUR).metric(Level::Warning).metric(Level::Critical);
        test.told();
        if restarts {
            test.restart();
        }
        test.wait(HOUR + INTERVAL);
        // The pager knows nothing else than what the notice says.
        assert_eq!(test.told_alarms(), [of_metric("CRITICAL")]);
        assert_eq!(test.calm_rows(), 0);
        test.metric(Level::Ok);
        assert_eq!(test.told_alarms().len(), 2);
    }
}

#[test]
fn an_alarm_that_is_given_up_within_a_silence_is_over_for_whoever_read_that() {
    let mut test = TestOverlay::new();
    test.works = false;
    test.overdue("web1").silence("web1", HOUR);
    (test.works, test.refuses) = (true, true);
    test.turn();
    test.refuses = false;
    test.wait(MINUTE);
    test.told();
    test.back("web1").wait(2 * HOUR);
    let told = test.told();
    assert!(told.iter().all(|title| title.ends_with("web1 ipv4 is back")), "{told:?}");
    assert_eq!(test.held() + test.calm_rows(), 0);
}

#[test]
fn what_is_held_comes_out_on_the_channels_that_there_are_then() {
    let mut test = TestOverlay::new();
    test.silence("web1", HOUR).overdue("web1").rename_mail();
    assert_eq!(test.told(), NONE);
    test.wait(HOUR + PATIENCE);
    assert_eq!(test.told(), ["pager web1 ipv4 overdue", "post web1 ipv4 overdue"]);
    test.back("web1");
    assert_eq!(test.told(), ["pager web1 ipv4 is back", "post web1 ipv4 is back"]);
}

#[test]
fn what_was_told_before_and_is_held_comes_out_on_a_channel_that_is_called_otherwise() {
    let mut test = TestOverlay::new();
    test.metric(Level::Warning).silence("web1", HOUR).metric(Level::Critical).told();
    test.rename_mail();
    assert_eq!(test.told(), NONE);
    test.wait(HOUR + INTERVAL);
    let critical = of_metric("CRITICAL");
    let told = ["pager", "post"].map(|name| critical.replace("mail", name));
    assert_eq!(test.told(), told);
    test.metric(Level::Ok);
    assert_eq!(test.told().len(), 2);
}

#[test]
fn what_is_wrong_otherwise_was_not_told_to_a_channel_that_took_over() {
    let mut test = TestOverlay::new();
    test.metric(Level::Warning).silence("web1", HOUR).missing().told();
    test.rename_mail().wait(HOUR + INTERVAL);
    assert_eq!(test.told(), ["post web1 metric m is missing"]);
}

#[test]
fn an_acknowledgement_outlasts_the_name_of_a_channel() {
    let mut test = TestOverlay::new();
    test.metric(Level::Critical).told();
    test.try_acknowledge("web1", None).unwrap();
    test.rename_mail();
    test.threshold("web1", Level::Critical, true);
    assert_eq!(test.told(), NONE);
    test.metric(Level::Ok);
    assert_eq!(test.told().len(), 2, "the end reaches both");
}

#[test]
fn the_flood_of_a_host_that_is_not_watched_was_told_to_nobody_after_a_silence() {
    let mut test = TestOverlay::new();
    test.silence("--all", HOUR);
    let flood = EventKind::TooManyMessages { host: "quiet".into(), limit: 60, count: 3 };
    test.accept(event(test.now, flood));
    assert_eq!((test.told(), test.calm_rows()), (vec![], 2));
    test.wait(HOUR);
    assert_eq!(test.told(), ["mail quiet: 1 message came while it was silenced"]);
}

#[test]
fn a_note_that_nothing_holds_back_waited_for_a_lesser_one() {
    let mut test = TestOverlay::new();
    let new = NewSilence {
        scope: CalmScope::Hosts("web1".into()),
        length: 2 * HOUR,
        by: "ann".into(),
        comment: None,
        unless: Some(Level::Warning),
        origin: Origin::Command,
    };
    test.overlay.handle(CalmRequest::Silence(new), &mut test.outbox, test.now).unwrap();
    test.silence("web1", HOUR).booted("web1", true, &[]).said("web1", "raid: sdb failed");
    test.wait(HOUR);
    assert_eq!(test.told(), ["mail web1: 1 message came while it was silenced"]);
    assert_eq!(test.messages[0].details[0].1, "web1 raid: sdb failed");
    test.wait(HOUR);
    assert_eq!(test.told().len(), 1, "the boot");
    assert_eq!(test.calm_rows(), 0);
}
