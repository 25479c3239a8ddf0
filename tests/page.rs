//! The status page in a real browser: readable, usable, quick, and proof against what strangers
//! call their metrics.

use std::io::Write;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::json;

#[allow(dead_code, reason = "each test file uses some of it")]
mod support {
    pub mod browser;
    pub mod hbd;
    pub mod http_double;
    pub mod show;
}

use heartbeat::view::EventView;
use support::browser::{self, Browser};
use support::hbd::Hbd;
use support::show::{self, EVIL, Show, Site};

const TAB: &str = "\u{e004}";
const ENTER: &str = "\u{e007}";

const SCREENS: [(u32, u32, bool, &str); 4] = [
    (1280, 900, false, "wide-light"),
    (1280, 900, true, "wide-dark"),
    (390, 844, false, "phone-light"),
    (390, 844, true, "phone-dark"),
];

/// Browsers need memory: one at a time.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A real daemon with a directory of its own.
struct Real {
    hbd: Hbd,
    udp: SocketAddr,
    socket: UdpSocket,
    _place: tempfile::TempDir,
}

impl Real {
    /// With these lines under `hosts`.
    fn start(hosts: &str) -> Real {
        let place = tempfile::tempdir().unwrap();
        let config: PathBuf = place.path().join("heartbeat.yaml");
        let text = format!(
            "notification_channels: {{log: {{type: log}}}}\n\
             default_notification_channels: [log]\n\
             heartbeat: {{port: 0, grace: 1s}}\nreceiver: {{port: 0}}\nstate_dir: {}\nhosts:\n{hosts}",
            place.path().join("state").display()
        );
        std::fs::write(&config, text).unwrap();
        let hbd = Hbd::start(&config);
        let ready = hbd.wait_log("is ready: ");
        let (_, rest) = ready.split_once("UDP ").unwrap();
        let udp = rest.split(',').next().unwrap().parse().unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        Real { hbd, udp, socket, _place: place }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.hbd.address)
    }

    /// Sends a datagram and waits until it is believed; says how long that took.
    fn send(&self, mut beat: serde_json::Value) -> Duration {
        beat["ack"] = json!(true);
        beat["time"] = json!(1);
        // An answer is never longer than the question.
        beat["padding"] = json!(" ".repeat(80));
        let begun = Instant::now();
        self.socket.send_to(beat.to_string().as_bytes(), self.udp).unwrap();
        self.socket.recv(&mut [0; 1000]).expect("an answer");
        begun.elapsed()
    }
}

#[test]
fn every_page_is_sound_on_every_screen() {
    let _alone = alone();
    let browser = Browser::start();
    let sites = [
        ("none", Site::open(Show::default()), "/"),
        ("three", Site::open(Show::with(3)), "/"),
        ("twenty-five", Site::open(Show::mixed(25)), "/"),
        ("hundreds", Site::open(Show::mixed(300)), "/?sort=group"),
        ("public", Site::open_public(Show::mixed(25), &["web", "db"]), "/public"),
        ("ugly", Site::open(Show::ugly()), "/"),
        ("thousand", Site::open(Show::with(1000)), "/"),
        ("host", Site::open(Show::ugly()), "/hosts/web7"),
        ("first", Site::open(Show::ugly()), "/hosts/shy"),
        ("nobody", Site::open(Show::ugly()), "/hosts/nobody"),
        ("graph", Site::open(Show::ugly()), "/hosts/web7/graph?metric=memory_monitor.percent"),
        (
            "bytes",
            Site::open(Show::ugly()),
            "/hosts/web7/graph?metric=disk_monitor.root.free_bytes&span=7d",
        ),
        ("events", Site::open(Show::ugly()), "/events?q=web&level=critical,warning"),
    ];
    let mut broken = Vec::new();
    for (name, site, path) in &sites {
        for (width, height, dark, screen) in SCREENS {
            browser.screen(width, height, dark);
            browser.open(&format!("{}{path}", site.url));
            browser.picture(&format!("{name}-{screen}"));
            let wide = browser.value("document.documentElement.scrollWidth").as_u64().unwrap();
            if wide > u64::from(width) {
                broken.push(format!("{name}-{screen} scrolls sideways: {wide}"));
            }
            // Contrast goes by the colours, the rest by the width.
            if dark == (width > 600) {
                continue;
            }
            let complaints = browser.axe();
            broken.extend(complaints.into_iter().map(|words| format!("{name}-{screen}: {words}")));
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
    let console: Vec<_> =
        browser.console().into_iter().filter(|line| !line.contains("404")).collect();
    assert!(console.is_empty(), "{console:#?}");
}

#[test]
fn a_host_that_falls_silent_turns_red_within_five_seconds() {
    let _alone = alone();
    let names = ["web1", "web2", "web3"];
    let hosts: String = names.iter().map(|name| format!("  {name}: {{watch: true}}\n")).collect();
    // All of them in one storm would be told later.
    let real = Real::start(&(hosts + "calm: {storm: off}\n"));
    for name in names {
        real.send(json!({"host": name, "interval": 3600}));
    }
    let browser = Browser::start();
    browser.screen(1280, 900, false);
    browser.open(&real.url("/"));
    assert_eq!(browser.value("document.querySelector('h1').innerText"), "All is well");
    // Others load the machine, too: the best of three counts.
    let mut times = Vec::new();
    for name in names {
        real.send(json!({"host": name, "interval": 0.1}));
        real.hbd.wait_log(&format!("{name} ipv4 overdue"));
        let row = format!("document.querySelector('tr[data-k={name}]').className === 'bad'");
        times.push(browser.wait_for(&row, browser::TIMEOUT));
    }
    println!("red after {times:?}");
    assert!(times.iter().min() < Some(&Duration::from_secs(5)), "{times:?}");
    let red = "getComputedStyle(document.querySelector('tr.bad td b')).color";
    assert_eq!(browser.value(red), "rgb(179, 33, 26)");
    assert_eq!(browser.value("document.querySelector('h1').innerText"), "3 hosts are overdue");
    assert_eq!(browser.value("document.title"), "(3) Heartbeat");
    browser.picture("red");
    assert_eq!(browser.console(), Vec::<String>::new());
}

#[test]
fn what_strangers_call_things_does_nothing() {
    let _alone = alone();
    let real = Real::start("  web1: {watch: true}\n");
    let metrics = json!({EVIL: {EVIL: 99.5}, "cpu_monitor": {"cpu_percent": 99.5}});
    real.send(json!({"host": "web1", "metrics": metrics}));
    real.send(json!({"host": "web1", "event": "message", "message": EVIL}));
    let browser = Browser::start();
    for path in [
        "/",
        "/hosts/web1",
        "/hosts/%3Cscript%3Ealert(1)%3C%2Fscript%3E",
        "/?q=%22%3E%3Cscript%3Ealert(1)%3C/script%3E&state=%22%3E%3Cscript%3Ealert(1)%3C/script%3E&page=%3Cscript%3E",
    ] {
        browser.open(&real.url(path));
        browser.wait("document.querySelector('#live').textContent !== ''");
        let found = browser.value(
            "[...document.querySelectorAll('main script, main img, main [onerror]')].length",
        );
        assert_eq!(found, 0, "{path}");
        let title = browser.value("document.title");
        assert!(title.as_str().unwrap().ends_with("Heartbeat"), "{path}: {title}");
    }
    browser.open(&real.url("/hosts/web1"));
    let text = browser.value("document.querySelector('main').innerText");
    assert!(text.as_str().unwrap().contains("<script>"), "it is shown as what it is: {text}");
    let console: Vec<_> =
        browser.console().into_iter().filter(|line| !line.contains("404")).collect();
    assert_eq!(console, Vec::<String>::new());
    // The policy holds even where markup got in.
    browser.run(
        "document.querySelector('main').innerHTML = '<img src=x onerror=\"document.title=1\">'",
    );
    browser.wait("document.title.endsWith('Heartbeat')");
    let refused = browser.console().join("\n");
    assert!(refused.contains("Content Security Policy"), "{refused}");
}

#[test]
fn a_refresh_disturbs_nobody() {
    let _alone = alone();
    let site = Site::open(Show::ugly());
    let browser = Browser::start();
    browser.screen(1280, 700, false);
    browser.open(&site.url);
    browser.run("document.querySelector('#backups details').open = true; scrollTo(0, 400)");
    browser.run("document.querySelector('[data-k=web20] a').focus({preventScroll: true})");
    let scroll = browser.value("scrollY");
    site.daemon.show().hosts[30].metrics[0].value = 77.0;
    browser.wait("document.querySelector('[data-k=web30]').innerText.includes('77')");
    // It moves to the top, and the focus with it.
    let mut gone = site.daemon.show();
    show::overdue(&mut gone.hosts[20], heartbeat::clock::Wall(0));
    drop(gone);
    browser.wait("document.querySelector('[data-k=web20]').className === 'bad'");
    assert_eq!(browser.value("document.activeElement.textContent"), "web20");
    assert_eq!(browser.value("document.querySelector('#backups details').open"), true);
    assert!(browser.value("scrollY").as_f64() >= scroll.as_f64(), "it did not jump to the top");
    assert_eq!(browser.console(), Vec::<String>::new());
}

#[test]
fn the_filter_works_at_once_and_survives_a_refresh() {
    let _alone = alone();
    let site = Site::open(Show::with(1000));
    let browser = Browser::start();
    browser.open(&site.url);
    let rows =
        "[...document.querySelectorAll('.hosts tbody tr')].filter(row => !row.hidden).length";
    assert_eq!(browser.value(rows), 200, "no more than a page");
    let pager = browser.value("document.querySelector('.pager').innerText");
    assert!(pager.as_str().unwrap().contains("1 to 200 of 1000 hosts"), "{pager}");
    browser.run("document.querySelector('#q').focus()");
    browser.press("web99");
    // 99 and 990 to 999: most of them are on other pages.
    browser.wait(&format!("{rows} === 11"));
    assert_eq!(browser.value("location.search"), "?q=web99");
    site.daemon.show().hosts[999].metrics[0].value = 66.0;
    browser.wait("document.querySelector('[data-k=web999]').innerText.includes('66')");
    assert_eq!(browser.value("document.activeElement.id + document.activeElement.value"), "qweb99");
    show::overdue(&mut site.daemon.show().hosts[995], heartbeat::clock::Wall(0));
    browser.run(
        "const state = document.querySelector('#state'); state.value = 'overdue';
        state.dispatchEvent(new Event('input', {bubbles: true}))",
    );
    browser.wait(&format!("{rows} === 1"));
    assert_eq!(browser.value("location.search"), "?q=web99&state=overdue");
    assert_eq!(browser.console(), Vec::<String>::new());
}

#[test]
fn no_line_of_the_list_is_wrapped_and_the_worst_come_first() {
    let _alone = alone();
    let browser = Browser::start();
    browser.screen(1280, 900, false);
    for (name, show, path) in [
        ("3", Show::with(3), "/"),
        ("25", Show::mixed(25), "/"),
        ("300", Show::mixed(300), "/?sort=group"),
        ("ugly", Show::ugly(), "/"),
    ] {
        let site = Site::open(show);
        browser.open(&format!("{}{path}", site.url));
        let high = "[...document.querySelectorAll('.hosts tbody tr:not(.group)')]
            .filter(row => row.offsetHeight > 40).map(row => row.innerText)";
        assert_eq!(browser.value(high), json!([]), "{name}");
        let wide = browser.value("document.querySelector('.hosts th').offsetWidth");
        assert!(wide.as_u64() > Some(150), "{name}: {wide}");
        // What a column has no room for is cut, and none of that is a number.
        let cut = "[...document.querySelectorAll('.hosts td')]
            .filter(cell => cell.scrollWidth > cell.clientWidth).map(cell => cell.innerText)";
        assert_eq!(browser.value(cut), json!([]), "{name}");
    }
    let site = Site::open(Show::ugly());
    browser.open(&site.url);
    let states = browser.value(
        "[...document.querySelectorAll('.hosts tbody td:nth-child(2) b')].map(one => one.innerText)",
    );
    let mut expected = vec!["overdue", "overdue", "critical", "degraded", "degraded"];
    expected.extend(["silent", "shut down", "never heard", "up"]);
    assert_eq!(states.as_array().unwrap()[..9], expected, "{states}");
}

#[test]
fn the_list_is_sorted_by_its_heads_without_a_script() {
    let _alone = alone();
    let mut show = Show::mixed(25);
    show.hosts[11].metrics.clear();
    let site = Site::open(show);
    let browser = Browser::start();
    browser.scripts(false);
    browser.open(&format!("{}/?q=web&state=up", site.url));
    let sorted = "document.querySelector('[aria-sort]').innerText.trim() + ' ' +
        document.querySelector('[aria-sort]').getAttribute('aria-sort')";
    assert_eq!(browser.value(sorted), "State descending");
    let column = "[...document.querySelectorAll('.hosts tbody td:nth-child(4)')]
        .map(cell => parseInt(cell.innerText))";
    let press = |head: &str| {
        browser.run(&format!(
            "[...document.querySelectorAll('.hosts thead a')].find(a => a.innerText.startsWith('{head}')).click()"
        ));
    };
    press("CPU");
    browser.wait("location.search === '?q=web&state=up&sort=cpu'");
    assert_eq!(browser.value(sorted), "CPU descending");
    let busiest = browser.value(column);
    let mut values: Vec<i64> =
        busiest.as_array().unwrap().iter().filter_map(serde_json::Value::as_i64).collect();
    let fell = values.clone();
    values.sort_unstable_by(|a, b| b.cmp(a));
    assert_eq!(fell, values);
    let last = "[...document.querySelectorAll('.hosts tbody tr')].pop().dataset.k";
    assert_eq!(browser.value(last), "web11", "what is not known comes last");
    press("CPU");
    browser.wait("location.search === '?q=web&state=up&sort=-cpu'");
    assert_eq!(browser.value(sorted), "CPU ascending");
    assert_eq!(browser.value(last), "web11");
    // A filter keeps the order, and a group is one link away.
    browser.run("document.querySelector('#filter button').click()");
    browser.wait("location.search === '?q=web&state=up&sort=-cpu'");
    browser.run(
        "[...document.querySelectorAll('.groups a')].find(a => a.innerText.startsWith('db')).click()",
    );
    browser.wait("location.search.includes('group=db')");
    let rows =
        browser.value("[...document.querySelectorAll('.hosts tbody th')].map(r => r.innerText)");
    let rows = rows.as_array().unwrap();
    assert!(
        !rows.is_empty() && rows.iter().all(|row| row.as_str().unwrap().contains("db")),
        "{rows:?}"
    );
}

#[test]
fn a_host_shows_what_people_wrote_about_it_and_an_alert_reads_as_people_say_it() {
    let site = Site::open(Show::ugly());
    let page = site.get("/");
    let link = "href=\"https://wiki.example/web9?a=b&amp;c\"";
    assert!(page.contains(link) && page.contains("rack 3, &lt;script"), "{page}");
    assert!(page.contains("disk / 97\u{a0}% full, limit 95\u{a0}%"), "{page}");
    assert!(page.contains("<span class=\"i w\">disk_monitor.root.percent</span>"), "{page}");
    let own = site.get("/hosts/web9");
    assert!(own.contains(link) && own.contains("href=\"/?group=web\""), "{own}");
}

#[test]
fn a_channel_is_tested_by_its_button_and_only_from_the_page_itself() {
    let _alone = alone();
    let site = Site::open(Show::ugly());
    let browser = Browser::start();
    browser.scripts(false);
    browser.open(&site.url);
    for (channel, words) in [("mail", "test sent"), ("oncall", "test failed")] {
        browser.run(&format!("document.querySelector('[data-k={channel}] button').click()"));
        let said = format!("document.querySelector('#channels [data-k={channel}]').innerText");
        browser.wait(&format!("{said}.includes('{words}')"));
        assert_eq!(browser.value("location.pathname + location.hash"), "/#channels");
    }
    let said = browser.value("document.querySelector('#channels [data-k=oncall]').innerText");
    assert!(said.as_str().unwrap().contains("signal-cli says <script>"), "{said}");
    assert_eq!(site.daemon.show().sent.len(), 2);
    let post = |kind: &str, origin: &str, body: &str| {
        let request = ureq::post(format!("{}/test", site.url)).header("Content-Type", kind);
        let request = request.config().max_redirects(0).http_status_as_error(false).build();
        let request = if origin.is_empty() { request } else { request.header("Origin", origin) };
        request.send(body).unwrap().status().as_u16()
    };
    let form = "application/x-www-form-urlencoded";
    assert_eq!(post(form, "http://evil.example", "channel=mail"), 403);
    assert_eq!(post("application/json", "", "{\"channel\":\"mail\"}"), 415);
    assert_eq!(post(form, "", "channel=nobody"), 400);
    assert_eq!(post(form, "", "chanel=mail"), 400);
    assert_eq!(site.daemon.show().sent.len(), 2, "nothing more was sent");
    assert_eq!(post(form, "", "channel=mail"), 303);
}

#[test]
fn everybody_may_see_the_states_of_the_public_groups_and_nothing_else() {
    let mut show = Show::ugly();
    show.hosts[9].name = "shop<1>".into();
    let site = Site::open_public(show, &["web"]);
    let get = |target: &str, host: &str| {
        let request = ureq::get(format!("{}{target}", site.url)).header("Host", host);
        let mut answer = request.config().http_status_as_error(false).build().call().unwrap();
        (answer.status().as_u16(), answer.body_mut().read_to_string().unwrap())
    };
    let (status, page) = get("/public", "status.example");
    assert_eq!(status, 200, "{page}");
    for shown in ["shop&lt;1&gt;", "web10", "web7", "24 hours", "degraded"] {
        assert!(page.contains(shown), "{shown}: {page}");
    }
    // Of these three hosts one is degraded.
    assert!(page.contains("<title>(1) Heartbeat</title>"), "{page}");
    for secret in [
        "db-primary",
        "web11",
        "rack 3",
        "customer",
        "wiki.example",
        "192.0.2.1",
        "CPU",
        "oncall",
        "/hosts/",
        "/api/",
        "<form",
        "all groups",
        "signal",
        "hbd 0",
        "web, ",
    ] {
        let body = page.split_once("<body>").unwrap().1.split("<script>").next().unwrap();
        assert!(!body.contains(secret), "{secret}: {body}");
    }
    assert_eq!(get("/public?part=1&q=x&state=wrong&sort=cpu", "a").0, 200);
    let badge = |name: &str| get(&format!("/api/v1/hosts/{name}/badge.svg"), "status.example").0;
    assert_eq!((badge("web10"), badge("shop%3C1%3E")), (200, 200));
    assert_eq!((badge("web11"), badge("db-primary"), badge("nobody")), (401, 401, 401));
    for target in [
        "/",
        "/?public",
        "/public/",
        "/public/x",
        "/Public",
        "//public",
        "/public%2f",
        "/hosts/web10",
        "/api/v1/hosts",
        "/api/v1/hosts/web10",
        "/api/v1/hosts/web10/history",
        "/metrics",
        "/api/v1/hosts/web10/badge.svg/",
        "/favicon.ico",
        "/-/ready",
    ] {
        assert_eq!(get(target, "127.0.0.1").0, 401, "{target}");
    }
    let post = ureq::post(format!("{}/public", site.url));
    let post = post.config().http_status_as_error(false).build().send("").unwrap();
    assert_eq!(post.status(), 401);
    let none = Site::open_public(Show::ugly(), &[]);
    let request = ureq::get(format!("{}/public", none.url));
    let answer = request.config().http_status_as_error(false).build().call().unwrap();
    assert_eq!(answer.status(), 401, "off is as if there were no such thing");
}

#[test]
fn without_a_script_it_is_all_there() {
    let _alone = alone();
    let site = Site::open(Show::with(300));
    show::overdue(&mut site.daemon.show().hosts[77], heartbeat::clock::Wall(0));
    let browser = Browser::start();
    browser.scripts(false);
    browser.open(&site.url);
    let text = browser.value("document.querySelector('main').innerText");
    assert!(text.as_str().unwrap().contains("1 to 200 of 300 hosts"), "{text}");
    assert_eq!(browser.value("document.body.className"), "", "no script ran");
    assert_eq!(browser.value("document.querySelectorAll('meta[http-equiv=refresh]').length"), 1);
    browser.run("document.querySelector('#q').focus()");
    browser.press(&format!("web77{ENTER}"));
    browser.wait("document.querySelectorAll('.hosts tbody tr').length === 1");
    assert_eq!(browser.value("location.search"), "?q=web77&state=");
    assert_eq!(browser.value("document.title"), "(1) Heartbeat");
    browser.run("document.querySelector('.hosts tbody a').focus()");
    browser.press(ENTER);
    browser.wait("location.pathname === '/hosts/web77'");
    assert_eq!(browser.value("document.querySelector('h1').innerText"), "web77 overdue");
}

#[test]
fn alarms_are_silenced_and_acknowledged_with_and_without_a_script() {
    let _alone = alone();
    let real = Real::start("  web1: {watch: true}\n");
    real.send(json!({"host": "web1", "interval": 0.1}));
    real.hbd.wait_log("web1 ipv4 overdue");
    let silences = || {
        let mut answer = ureq::get(real.url("/api/v1/silences")).call().unwrap();
        let text = answer.body_mut().read_to_string().unwrap();
        serde_json::from_str::<serde_json::Value>(&text).unwrap()["silences"].clone()
    };
    let until = |button: &str| {
        format!(
            "[...document.querySelectorAll('main button')].find(one => one.innerText === '{button}').click()"
        )
    };
    let browser = Browser::start();
    browser.screen(390, 844, false);
    for scripts in [false, true] {
        browser.scripts(scripts);
        browser.open(&real.url("/"));
        let shown = browser.value("document.querySelectorAll('#alerts details.calm').length");
        assert_eq!(shown, 1);
        browser.run("document.querySelector('#alerts .calm').open = true");
        let eight = browser.value("getComputedStyle(document.querySelector('.eight')).display");
        assert_eq!(eight != "none", scripts, "only a script knows the reader's clock");
        browser.run("document.querySelector('#alerts [name=comment]').focus()");
        browser.press("on my way");
        browser.run(&until("Acknowledge"));
        browser.wait("document.querySelector('#alerts').innerText.includes(', acknowledged')");
        browser.run("document.querySelector('#alerts .calm').open = true");
        browser.run(&until("Not acknowledged"));
        browser.wait("!document.querySelector('#alerts').innerText.includes(', acknowledged')");
        browser.open(&real.url("/hosts/web1"));
        browser.run("document.querySelector('.calm').open = true");
        browser.run(&until(if scripts { "until tomorrow 8:00" } else { "4 h" }));
        browser.wait("document.querySelector('.head').innerText.includes('Silent by s')");
        assert_eq!(browser.value("location.pathname"), "/hosts/web1");
        let silence = silences()[0].clone();
        assert_eq!((&silence["scope"], &silence["kind"]), (&json!("web1"), &json!("silence")));
        if scripts {
            let hour = format!(
                "(at => at.getHours() * 60 + at.getMinutes())(new Date(new Date('{}').getTime() + 30000))",
                silence["until"].as_str().unwrap()
            );
            assert_eq!(browser.value(&hour), 480, "{silence}");
        }
        browser.open(&real.url("/"));
        let line = browser.value("document.querySelector('#quiet summary').innerText");
        assert_eq!(line, "1 silence holds nothing back");
        browser.run("document.querySelector('#quiet').open = true");
        browser.picture(&format!("quiet-{scripts}"));
        browser.run(&until("End"));
        browser.wait("!document.querySelector('#quiet')");
        assert_eq!(silences(), json!([]));
    }
    assert_eq!(browser.console(), Vec::<String>::new());
}

const TIP: &str = "document.querySelector('#tip:not([hidden])')?.textContent";

/// Moves the pointer to a share of the width of what is found.
fn hover(browser: &Browser, selector: &str, share: f64) {
    browser.run(&format!(
        "const found = document.querySelector('{selector}'), box = found.getBoundingClientRect();
        found.dispatchEvent(new PointerEvent('pointermove',
            {{bubbles: true, clientX: box.left + box.width * {share}, clientY: box.top + 2}}))"
    ));
}

#[test]
fn a_bar_says_which_hour_how_long_and_why_to_pointer_and_keyboard() {
    let _alone = alone();
    let site = Site::open(Show::ugly());
    let browser = Browser::start();
    browser.screen(1280, 900, false);
    browser.open(&format!("{}/hosts/web7", site.url));
    let row =
        "[...document.querySelectorAll('#hours tbody tr')].find(row => row.cells[2].textContent)";
    let place = browser.value(&format!("+{row}.dataset.i")).as_u64().unwrap() as usize;
    let said = browser.value(&format!("[...{row}.cells].slice(1, 3).map(one => one.textContent)"));
    let (said, why) = (said[0].as_str().unwrap(), said[1].as_str().unwrap());
    let is_said = format!("{TIP}?.endsWith(': {said}: {why}')");
    hover(&browser, "svg.h", (place as f64 + 0.5) / 24.0);
    browser.wait(&is_said);
    browser.picture("tip");
    hover(&browser, "h1", 0.5);
    browser.wait(&format!("{TIP} === undefined"));
    // The same by the keyboard, from the present back.
    browser.run("document.querySelector('svg.h').focus()");
    browser.press(&format!("\u{e010}{}", "\u{e012}".repeat(23 - place)));
    browser.wait(&is_said);
    let value = "document.activeElement.getAttribute('aria-valuetext')";
    assert_eq!(browser.value(value), browser.value(TIP));
    browser.press("\u{e010}");
    browser.wait("document.activeElement.ariaValueNow === '23'");
    browser.press(TAB);
    browser.press("\u{e011}");
    browser.wait(&format!("{TIP}?.includes(': ')"));
    let complaints = browser.axe();
    assert!(complaints.is_empty(), "{complaints:?}");
    assert_eq!(browser.console(), Vec::<String>::new());
}

#[test]
fn a_bar_in_the_table_asks_for_the_reasons_and_arrows_lead_from_host_to_host() {
    let _alone = alone();
    let site = Site::open(Show::ugly());
    let browser = Browser::start();
    browser.screen(1280, 900, false);
    browser.open(&site.url);
    let bar = "[data-k=web7] svg.h";
    browser.open(&format!("{}/hosts/web7", site.url));
    let row = "document.querySelector('#hours tbody tr')";
    let place = browser.value(&format!("+{row}.dataset.i")).as_f64().unwrap();
    let said = browser.value(&format!("{row}.cells[1].textContent"));
    let said = said.as_str().unwrap().to_owned();
    browser.open(&site.url);
    browser.run(&format!("document.querySelector('{bar}').scrollIntoView({{block: 'center'}})"));
    hover(&browser, bar, (place + 0.5) / 24.0);
    browser.wait(&format!("{TIP}?.includes('{said}')"));
    // One row is on the way of the Tab key.
    let stops = "document.querySelectorAll('.hosts svg[tabindex=\"0\"]').length";
    browser.wait(&format!("{stops} === 2"));
    browser.run(&format!("document.querySelector('{bar}').focus()"));
    browser.press("\u{e015}\u{e015}\u{e013}");
    browser.wait("document.activeElement.closest('tr').dataset.k === 'web8'");
    browser.wait(&format!("{stops} === 2 && document.activeElement.tabIndex === 0"));
    // It is the same hour of the other host, and a refresh leaves both the place and the words.
    browser.press("\u{e012}");
    let before = format!("{}", place - 1.0);
    browser.wait(&format!("document.activeElement.ariaValueNow === '{before}'"));
    site.daemon.show().hosts[30].metrics[0].value = 77.0;
    browser.wait("document.querySelector('[data-k=web30]').innerText.includes('77')");
    assert_eq!(browser.value("document.activeElement.ariaValueNow"), before.as_str());
    browser.wait(&format!("typeof {TIP} === 'string'"));
    assert_eq!(browser.console(), Vec::<String>::new());
}

#[test]
fn a_graph_enlarges_and_each_of_its_values_can_be_read() {
    let _alone = alone();
    let site = Site::open(Show::ugly());
    let browser = Browser::start();
    browser.screen(1280, 900, false);
    browser.open(&format!("{}/hosts/web7", site.url));
    browser.run("document.querySelector('[data-k=\"memory_monitor.percent\"] a').focus()");
    browser.press(ENTER);
    browser.wait("location.pathname === '/hosts/web7/graph'");
    let count = browser.value("document.querySelectorAll('#points tbody tr').length");
    assert_eq!(count, 132);
    let newest =
        "[...document.querySelector('#points tbody tr').cells].map(one => one.textContent)";
    let newest = browser.value(newest);
    browser.run("document.querySelector('svg.z').focus()");
    let words = format!("{}: {}, {} to {}", newest[0], newest[2], newest[1], newest[3]);
    let words = words.replace('"', "");
    browser.wait(&format!("{TIP}?.startsWith('{words}')"));
    browser.press("\u{e011}");
    browser.wait(&format!("!{TIP}?.startsWith('{words}')"));
    let mark = "document.querySelector('#marks [data-x] .w')";
    assert_eq!(browser.value(&format!("{mark}.textContent")), "web7 ipv4 is back");
    let x = browser.value("+document.querySelector('#marks [data-x]').dataset.x").as_f64();
    hover(&browser, "svg.z", (x.unwrap() + 0.3) / 1000.0);
    browser.wait(&format!("{TIP}?.endsWith('web7 ipv4 is back')"));
    browser.picture("graph-tip");
    // Another metric at once, the span stays; and another span by a link.
    browser.run(
        "const metric = document.querySelector('#metric'); metric.value = 'cpu_monitor.cpu_percent';
        metric.dispatchEvent(new Event('input', {bubbles: true}))",
    );
    browser.wait("document.querySelector('h1').innerText === 'cpu'");
    browser.run("[...document.querySelectorAll('.spans a')][1].focus()");
    browser.press(ENTER);
    browser.wait("location.search === '?metric=cpu_monitor.cpu_percent&span=7d'");
    assert_eq!(browser.console(), Vec::<String>::new());
}

#[test]
fn what_happened_is_filtered_and_paged_with_and_without_a_script() {
    let _alone = alone();
    let mut show = Show::with(3);
    let first = show.events[0].clone();
    let at = |n: u64| heartbeat::clock::Wall(first.at.0 - n as i64 * 60_000);
    show.events = (0..250)
        .map(|n| EventView {
            id: format!("{:014x}", at(n).0),
            at: at(n),
            host: Some(format!("web{}", n % 2)),
            kind: if n % 5 == 0 { "booted" } else { "overdue" }.into(),
            text: format!("web{} number {n}", n % 2),
            ..first.clone()
        })
        .collect();
    let site = Site::open(show);
    let browser = Browser::start();
    let count = "document.querySelectorAll('.log li').length";
    for scripts in [false, true] {
        browser.scripts(scripts);
        browser.open(&site.url);
        browser.run("document.querySelector('#events .pager a').click()");
        browser.wait(&format!("location.pathname === '/events' && {count} === 100"));
        browser.run("document.querySelector('#q').focus()");
        browser.press("WEB1");
        browser.run("document.querySelector('#kind').value = 'presence'");
        browser.run(
            "document.querySelector('#kind').dispatchEvent(new Event('input', {bubbles: true}))",
        );
        if !scripts {
            browser.run("document.querySelector('#filter button').click()");
        }
        browser.wait(&format!("location.search.includes('q=WEB1') && {count} === 100"));
        browser
            .wait("document.querySelector('.log li:last-child').innerText.includes('number 249')");
        assert_eq!(browser.value("document.querySelectorAll('[rel=next]').length"), 0);
        browser.open(&format!("{}/events?q=web&kind=presence", site.url));
        browser.run("document.querySelector('[rel=next]').click()");
        browser.wait("location.search.includes('before=')");
        browser.wait(&format!("{count} === 100"));
        assert_eq!(browser.value("document.querySelector('#q').value"), "web");
        assert_eq!(browser.value("document.querySelector('#kind').value"), "presence");
        let all = browser.value("document.querySelector('.log').innerText");
        assert!(!all.as_str().unwrap().contains("number 0\n"), "{all}");
    }
    assert_eq!(browser.console(), Vec::<String>::new());
}

#[test]
fn the_keyboard_reaches_everything_and_shows_where_it_is() {
    let _alone = alone();
    let site = Site::open(Show::ugly());
    let browser = Browser::start();
    browser.screen(1280, 900, false);
    browser.open(&site.url);
    browser.press(TAB);
    assert_eq!(browser.value("document.activeElement.textContent"), "Skip to the content");
    let outline = "getComputedStyle(document.activeElement).outlineStyle";
    assert_eq!(browser.value(outline), "solid");
    browser.press(ENTER);
    browser.wait("document.activeElement.id === 'main'");
    let mut reached = Vec::new();
    for _ in 0..30 {
        browser.press(TAB);
        let name = browser.value("document.activeElement.id || document.activeElement.textContent");
        assert_eq!(browser.value(outline), "solid", "{name}");
        reached.push(name.as_str().unwrap().to_owned());
    }
    for wanted in ["40 hosts", "db-primary", "q", "state", "db-primary"] {
        assert!(reached.iter().any(|name| name == wanted), "{wanted}: {reached:?}");
    }
    browser.run("document.querySelector('#backups summary').focus()");
    let open = "document.querySelector('#backups details').open";
    let before = browser.value(open);
    browser.press(ENTER);
    assert_ne!(browser.value(open), before);
}

#[test]
fn a_daemon_that_is_away_is_missed_and_found_again() {
    let _alone = alone();
    let site = Site::open(Show::with(3));
    let browser = Browser::start();
    browser.open(&site.url);
    browser.wait("document.querySelector('#live').textContent === 'live'");
    let address = site.close();
    browser.wait("document.querySelector('#live').textContent.startsWith('No answer since ')");
    assert_eq!(browser.value("document.body.classList.contains('away')"), true);
    let mut show = Show::with(3);
    show::overdue(&mut show.hosts[1], heartbeat::clock::Wall(0));
    let _site = Site::open_at(address, show, None);
    browser.wait("document.querySelector('#live').textContent === 'live'");
    assert_eq!(browser.value("document.querySelector('h1').innerText"), "1 host is overdue");
}

#[test]
fn with_a_token_the_page_asks_for_it_once_and_goes_on() {
    let _alone = alone();
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    let site = Site::open_at(address, Show::with(3), Some("s3cret"));
    assert!(matches!(ureq::get(&site.url).call(), Err(ureq::Error::StatusCode(401))));
    let browser = Browser::start();
    browser.open(&site.url.replace("http://", "http://me:s3cret@"));
    browser.wait("document.querySelector('#live').textContent === 'live'");
    site.daemon.show().hosts[1].metrics[0].value = 77.0;
    browser.wait("document.querySelector('[data-k=web1]').innerText.includes('77')");
    assert_eq!(browser.console(), Vec::<String>::new());
}

#[test]
fn a_host_that_is_taken_out_while_its_page_is_open_is_gone() {
    let _alone = alone();
    let site = Site::open(Show::with(3));
    let browser = Browser::start();
    browser.open(&format!("{}/hosts/web2", site.url));
    browser.wait("document.querySelector('h1').innerText === 'web2 up'");
    site.daemon.show().hosts.pop();
    browser.wait("document.querySelector('h1').innerText === 'No such host'");
}

#[test]
fn what_cannot_be_read_is_not_taken_for_well() {
    let site = Site::open(Show { slow: true, ..Show::with(3) });
    let page = site.get("/");
    assert!(
        page.contains(">The open alerts cannot be read, the backups cannot be read</h1>"),
        "{page}"
    );
    assert_eq!(page.matches("the disk is slow").count(), 4);
    assert_eq!(site.get("/hosts/web1").matches("the disk is slow").count(), 4);
}

#[test]
fn fifty_hosts_are_light_and_nothing_new_is_nothing() {
    let site = Site::open(Show::with(50));
    let page = site.get("/");
    let many = Site::open(Show::mixed(1000)).get("/");
    println!("50 hosts: {} bytes, 1000 hosts: {} bytes", page.len(), many.len());
    assert!(page.len() < 60_000, "{}", page.len());
    assert!(many.len() < 200_000, "{}", many.len());
    assert_eq!(page.matches("<tr").count(), 51);
    for head in ["Host", "State", "Last heard", "CPU", "Memory", "Disk", "Load"] {
        assert!(page.contains(&format!(">{head}</a>")), "{head}: {page}");
    }
    assert!(page.contains("<th scope=col>24 hours<th scope=col>90 days<"), "{page}");
    let get = |tag: &str| {
        ureq::get(format!("{}/?part=1", site.url)).header("If-None-Match", tag).call().unwrap()
    };
    let mut fresh = get("\"x\"");
    let tag = fresh.headers()["etag"].to_str().unwrap().to_owned();
    assert!(page.contains(&tag.replace('"', "&quot;")), "the page knows its own tag");
    assert!(fresh.body_mut().read_to_string().unwrap().starts_with("<main"));
    assert_eq!(get(&tag).status(), 304);
    let headers = ureq::get(&site.url).call().unwrap().headers().clone();
    let policy = headers["content-security-policy"].to_str().unwrap();
    for part in
        ["default-src 'none'", "frame-ancestors 'none'", "form-action 'self'", "base-uri 'none'"]
    {
        assert!(policy.contains(part), "{policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    assert_eq!(headers["x-frame-options"], "DENY");
}

#[test]
fn a_thousand_hosts_are_shown_without_keeping_datagrams_waiting() {
    let hosts: String =
        (0..1000).map(|number| format!("  web{number}: {{watch: true}}\n")).collect();
    let real = Real::start(&hosts);
    for number in 0..1000 {
        let metrics =
            json!({"cpu_monitor": {"cpu_percent": 12.5}, "memory_monitor": {"percent": 40}});
        real.send(json!({"host": format!("web{number}"), "interval": 3600, "metrics": metrics}));
    }
    let url = real.url("/");
    let viewers: Vec<_> = (0..2)
        .map(|_| {
            let url = url.clone();
            std::thread::spawn(move || {
                let begun = Instant::now();
                let mut loads = 0;
                while begun.elapsed() < Duration::from_secs(3) {
                    let page = ureq::get(&url).call().unwrap().body_mut().read_to_string().unwrap();
                    assert!(page.contains("1 to 200 of 1000 hosts"), "{page}");
                    loads += 1;
                }
                loads
            })
        })
        .collect();
    let mut waits = Vec::new();
    while viewers.iter().any(|viewer| !viewer.is_finished()) {
        waits.push(real.send(json!({"host": "web1", "interval": 3600})));
    }
    let loads: usize = viewers.into_iter().map(|viewer| viewer.join().unwrap()).sum();
    waits.sort();
    let worst = waits[waits.len() - 1];
    println!(
        "{} beats during {loads} loads: median {:?}, p99 {:?}, worst {worst:?}",
        waits.len(),
        waits[waits.len() / 2],
        waits[waits.len() * 99 / 100]
    );
    assert!(waits[waits.len() / 2] < Duration::from_millis(50), "{worst:?}");
    assert!(worst < Duration::from_secs(1), "{worst:?}");
}

/// How many threads of this process are at pages.
fn page_threads() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
    names.filter(|name| name.trim() == "http-page").count()
}

#[test]
fn those_who_ask_for_a_page_and_do_not_read_it_are_few() {
    let _alone = alone();
    let site = Site::open(Show::with(1000));
    let address = site.url.strip_prefix("http://").unwrap().to_owned();
    let ask = || {
        let mut stream = TcpStream::connect(&address).unwrap();
        // What does not fit waits in the daemon.
        socket2::SockRef::from(&stream).set_recv_buffer_size(4096).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        stream
    };
    let greedy: Vec<TcpStream> = (0..40).map(|_| ask()).collect();
    let begun = Instant::now();
    // Those that were sent away have their answer.
    while page_threads() > 8 || begun.elapsed() < Duration::from_secs(1) {
        assert!(begun.elapsed() < browser::TIMEOUT, "{} threads", page_threads());
        std::thread::yield_now();
    }
    assert!(site.get("/-/healthy").contains("ok"));
    drop(greedy);
    let begun = Instant::now();
    while ureq::get(&site.url).call().is_err() {
        assert!(begun.elapsed() < browser::TIMEOUT, "nobody sees the page any more");
    }
}
