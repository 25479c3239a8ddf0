//! HTTP access: certificates, tokens, many connections at once, and `hbd status`.

#[allow(dead_code)]
mod support {
    pub mod certificates;
    pub mod crowd;
    pub mod hbd;
    pub mod http_double;
    pub mod mattermost;
    pub mod signal;
}

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use heartbeat::Config;
use support::certificates::{Pair, certificates};
use support::crowd::{Crowd, Drips, good, trusting};
use support::hbd::{Hbd, TIMEOUT};
use support::mattermost::MattermostDouble;
use support::signal::SignalDouble;

const TOKEN: &str = "a-token-of-some-length";

/// A directory with a configuration, a state, and maybe a certificate.
struct Place(tempfile::TempDir);

impl Place {
    fn new(receiver: &str) -> Place {
        let place = Place(tempfile::tempdir().unwrap());
        let text = format!(
            "notification_channels: {{log: {{type: log}}}}\ndefault_notification_channels: [log]\n\
             state_dir: {}\nheartbeat: {{port: 0}}\nhosts: {{web1: {{watch: true}}}}\n\
             receiver: {{{receiver}}}\n",
            place.path("state").display()
        );
        fs::write(place.config(), text).unwrap();
        place
    }

    fn with(receiver: &str, pair: &Pair) -> Place {
        let tls = "tls: {certificate_file: web.pem, key_file: web.key}";
        let place = Place::new(&format!("{receiver}, {tls}"));
        place.install(&fs::read(&pair.certificate).unwrap(), &fs::read(&pair.key).unwrap());
        place
    }

    fn install(&self, certificate: &[u8], key: &[u8]) {
        fs::write(self.path("web.pem"), certificate).unwrap();
        fs::write(self.path("web.key"), key).unwrap();
        fs::set_permissions(self.path("web.key"), fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn config(&self) -> PathBuf {
        self.path("heartbeat.yaml")
    }

    /// All that is said of the configuration.
    fn said(&self) -> String {
        let said = match Config::load(self.config()) {
            Ok(config) => config.warnings.to_string(),
            Err(problems) => problems.to_string(),
        };
        said.replace(&format!("{}/", self.0.path().display()), "")
    }
}

fn openssl(directory: &Path, arguments: &str) {
    let output = Command::new("openssl")
        .args(arguments.split_whitespace())
        .current_dir(directory)
        .output()
        .unwrap();
    assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn what_is_wrong_with_a_certificate_is_said_with_its_remedy() {
    let (good, other) = (&certificates().good, &certificates().other);
    let text = |path: &Path| fs::read(path).unwrap();
    let authority = text(&certificates().authority.certificate);
    let place = Place::with("port: 0", good);
    assert_eq!(place.said(), "");
    let chain = [text(&good.certificate), authority.clone()].concat();
    place.install(&chain, &text(&good.key));
    assert_eq!(place.said(), "", "a certificate with its issuer");
    openssl(place.0.path(), "pkey -in web.key -aes256 -passout pass:x -out encrypted.key");
    openssl(place.0.path(), "genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:1024 -out small.key");
    let turned = [authority.clone(), text(&good.certificate)].concat();
    let stranger = [text(&good.certificate), text(&other.certificate)].concat();
    let (encrypted, small) = (text(&place.path("encrypted.key")), text(&place.path("small.key")));
    for (certificate, key, words) in [
        (text(&good.certificate), text(&other.key), "key_file: the key in web.key does not belong"),
        (
            turned,
            text(&good.key),
            "certificate_file: the key belongs to certificate 2 of web.pem: put that one first",
        ),
        (
            stranger,
            text(&good.key),
            "warning: receiver.tls.certificate_file: certificate 2 of the file did not issue",
        ),
        (
            text(&certificates().expired.certificate),
            text(&certificates().expired.key),
            "warning: receiver.tls.certificate_file: expired at 2020-02-01T00:00:00.000Z",
        ),
        (b"rubbish".to_vec(), text(&good.key), "web.pem holds no certificate in PEM form"),
        (
            b"-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n".to_vec(),
            text(&good.key),
            "the first certificate cannot be read",
        ),
        (
            text(&good.certificate),
            text(&good.certificate),
            "web.key holds no private key in PEM form",
        ),
        (text(&good.certificate), encrypted, "web.key is encrypted, and nobody is there to type"),
        (text(&good.certificate), small, "is of a kind that is not known here"),
    ] {
        place.install(&certificate, &key);
        let said = place.said();
        assert!(said.contains(words), "{words}: {said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    place.install(&chain, &text(&good.key));
    fs::set_permissions(place.path("web.key"), fs::Permissions::from_mode(0o644)).unwrap();
    assert!(place.said().contains("key_file: others can read web.key: chmod o-r"));
    fs::remove_file(place.path("web.key")).unwrap();
    assert!(place.said().contains("receiver.tls.key_file: cannot read web.key: No such file"));
}

/// Status and head of what a client at `from` is answered.
fn ask(hbd: &Hbd, from: [u8; 4], token: &str) -> (String, String) {
    let headers = format!("Authorization: Bearer {token}\r\n");
    exchange(hbd, from, &format!("GET /metrics HTTP/1.0\r\n{headers}\r\n"))
}

/// Status and head of the answer to a request from `from`.
fn exchange(hbd: &Hbd, from: [u8; 4], request: &str) -> (String, String) {
    let (any, tcp) = (socket2::Domain::IPV4, socket2::Type::STREAM);
    let socket = socket2::Socket::new(any, tcp, None).unwrap();
    socket.bind(&SocketAddr::from((from, 0)).into()).unwrap();
    socket.connect(&hbd.address.into()).unwrap();
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    (answer.split(' ').nth(1).unwrap_or_default().to_owned(), answer)
}

/// A post with this token that came through a proxy, of the client that it says.
fn forwarded(target: &str, token: &str, forwarded_for: &str) -> String {
    let headers = format!("Authorization: Bearer {token}\r\nX-Forwarded-For: {forwarded_for}");
    format!("POST {target} HTTP/1.1\r\n{headers}\r\nContent-Length: 2\r\n\r\n{{}}")
}

#[test]
fn the_right_token_was_refused_where_others_guessed_from_its_address() {
    let place = Place::new(&format!("port: 0, token: {TOKEN}"));
    let hbd = Hbd::start(&place.config());
    let guesser = [127, 0, 0, 2];
    for _ in 0..30 {
        assert_eq!(ask(&hbd, guesser, "last-years-token").0, "401");
    }
    let answers: Vec<_> = (0..20).map(|n| ask(&hbd, guesser, &format!("guess-{n}"))).collect();
    let (status, answer) = answers.last().unwrap();
    assert_eq!(status, "429", "{answer}");
    assert!(answer.contains("\r\nRetry-After: "), "{answer}");
    hbd.wait_log("127.0.0.2 has shown many wrong tokens");
    assert!(hbd.logged("127.0.0.2 has shown many wrong tokens") == 1);
    assert_eq!(ask(&hbd, guesser, TOKEN).0, "200", "another client may share the address");
    let beat = |token| exchange(&hbd, guesser, &forwarded("/api/v1/heartbeat", token, "")).0;
    assert_eq!((beat(TOKEN).as_str(), beat("guess").as_str()), ("400", "429"));
    for target in ["/alert", "/alert/", "/alert?x"] {
        let (status, answer) = exchange(&hbd, guesser, &forwarded(target, "guess", ""));
        assert_eq!(status, "503", "an Alertmanager does not repeat what was 429: {answer}");
    }
    hbd.stop();
}

#[test]
fn behind_a_trusted_proxy_each_client_guesses_for_itself() {
    let proxies = "trusted_proxies: [127.0.0.2, 10.0.0.0/8]";
    let place = Place::new(&format!("port: 0, token: {TOKEN}, {proxies}"));
    let hbd = Hbd::start(&place.config());
    let (proxy, stranger) = ([127, 0, 0, 2], [127, 0, 0, 3]);
    let guess = |from, number: usize, client: &str| {
        exchange(&hbd, from, &forwarded("/nothing", &format!("guess-{number}"), client)).0
    };
    for number in 0..20 {
        // What stands on the left is the client's own word.
        let written = format!("203.0.113.{number}, 198.51.100.1, 10.0.0.7");
        let expected = if number < 10 { "401" } else { "429" };
        assert_eq!(guess(proxy, number, &written), expected);
        let address = format!("2001:db8::{number}");
        assert_eq!(guess(proxy, number, &address), expected, "a network of IPv6 is one guesser");
        assert_eq!(guess(stranger, number, &address), expected, "no proxy that is trusted");
    }
    assert_eq!(guess(proxy, 99, "198.51.100.2"), "401");
    assert_eq!(guess(proxy, 99, "2001:db8:0:1::1"), "401");
    assert!(hbd.logged("198.51.100.1 has shown many wrong tokens") == 1);
    hbd.stop();
}

#[test]
fn a_browser_that_visits_another_site_reloads_nothing() {
    let place = Place::new(&format!("port: 0, token: {TOKEN}"));
    let hbd = Hbd::start(&place.config());
    let own = hbd.address;
    for (headers, status) in [
        (format!("Origin: http://{own}\r\nSec-Fetch-Site: same-origin"), "200"),
        ("Accept: */*".into(), "200"),
        ("Origin: http://evil.example".into(), "403"),
        ("Origin: null".into(), "403"),
        ("Sec-Fetch-Site: cross-site".into(), "403"),
        ("Sec-Fetch-Site: same-site".into(), "403"),
    ] {
        let mut stream = TcpStream::connect(own).unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        // The browser knows the token as a password and shows it whatever page asks.
        let basic = "Authorization: Basic OmEtdG9rZW4tb2Ytc29tZS1sZW5ndGg=";
        let head = format!("POST /-/reload HTTP/1.1\r\nHost: {own}\r\n{basic}\r\n{headers}");
        write!(stream, "{head}\r\nContent-Length: 0\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert_eq!(answer.split(' ').nth(1), Some(status), "{headers}: {answer}");
    }
    assert_eq!(hbd.logged("the configuration was reloaded"), 2);
    hbd.stop();
}

#[test]
fn a_crowd_keeps_nobody_waiting_and_costs_a_bounded_number_of_threads_and_bytes() {
    let tls = trusting(&certificates().authority.certificate);
    for encrypted in [false, true] {
        let place = match encrypted {
            true => Place::with("port: 0", &certificates().good),
            false => Place::new("port: 0"),
        };
        let hbd = Hbd::start(&place.config());
        let tls = encrypted.then_some(&tls);
        good(hbd.address, tls);
        let before = hbd.memory();
        let crowd = Crowd::gather(hbd.address, encrypted, true);
        let times = crowd.times(hbd.address, tls, 100);
        let (median, p99) = (times.percentile(50), times.percentile(99));
        let (threads, memory) = (hbd.threads(), hbd.memory() - before);
        println!("TLS {encrypted}: {median:?}, p99 {p99:?}, {threads} threads, {memory} kB more");
        assert!(p99 < Duration::from_secs(3), "{p99:?}");
        assert!(threads < 400, "{threads} threads");
        assert!(memory < 64 * 1024, "{memory} kB");
        drop(crowd);
        hbd.stop();
    }
}

#[test]
fn bodies_that_drip_kept_good_clients_waiting() {
    let tls = trusting(&certificates().authority.certificate);
    for (encrypted, token, count) in
        [(false, true, 1_500), (false, true, 3_000), (false, false, 3_000), (true, true, 500)]
    {
        let receiver = if token { format!("port: 0, token: {TOKEN}") } else { "port: 0".into() };
        let place = match encrypted {
            true => Place::with(&receiver, &certificates().good),
            false => Place::new(&receiver),
        };
        let hbd = Hbd::start(&place.config());
        let tls = encrypted.then_some(&tls);
        good(hbd.address, tls);
        let drips = Drips::gather(hbd.address, tls, count);
        let mut times: Vec<_> = (0..200).map(|_| good(hbd.address, tls)).collect();
        times.sort();
        let (median, p99) = (times[100], times[197]);
        let threads = hbd.threads();
        println!(
            "{count}, TLS {encrypted}, token {token}: {median:?}, p99 {p99:?}, {threads} threads"
        );
        // How fast it is on a quiet machine is for the measurements.
        assert!(p99 < Duration::from_secs(1), "{p99:?}");
        drop(drips);
        hbd.stop();
    }
}

/// Whether something came, or the other side has closed.
fn is_over(client: &TcpStream) -> bool {
    client.set_nonblocking(true).unwrap();
    !matches!(client.peek(&mut [0]), Err(why) if why.kind() == ErrorKind::WouldBlock)
}

#[test]
fn strangers_used_up_the_descriptors_of_channels_and_store() {
    const LIMIT: u64 = 256;
    let place = Place::new("port: 0");
    let hbd = Hbd::start(&place.config());
    let limit = libc::rlimit { rlim_cur: LIMIT, rlim_max: LIMIT };
    // SAFETY: the pointer is to a live rlimit, and no old one is asked for.
    let set = unsafe {
        let (pid, no_old) = (hbd.child.id() as i32, std::ptr::null_mut());
        libc::prlimit(pid, libc::RLIMIT_NOFILE, &limit, no_old)
    };
    assert_eq!(set, 0);
    let mut clients = Vec::new();
    for number in 0..400 {
        let mut stream = TcpStream::connect(hbd.address).unwrap();
        let body = "POST /alert HTTP/1.1\r\nContent-Length: 999\r\n\r\n{";
        let begun = ["", "GET /-/hea", body][number % 3];
        let _ = stream.write_all(begun.as_bytes());
        clients.push(stream);
    }
    let used = |hbd: &Hbd| fs::read_dir(format!("/proc/{}/fd", hbd.child.id())).unwrap().count();
    hbd.wait_until("strangers are let in", |hbd| used(hbd) > 100);
    // Before that the next one may be among those for which there is no descriptor.
    hbd.wait_until("those beyond the limit are sent away", |_| {
        clients.iter().filter(|client| is_over(client)).count() >= clients.len() - LIMIT as usize
    });
    for _ in 0..10 {
        good(hbd.address, None);
        // More are only on their way to be closed.
        hbd.wait_until("some are left", |hbd| used(hbd) < LIMIT as usize - 16);
    }
    hbd.stop();
}

#[test]
fn strangers_that_held_all_that_could_be_opened_held_up_the_alarms() {
    for (limit, token) in [(64, false), (96, true), (200, false)] {
        let receiver = if token { format!("port: 0, token: {TOKEN}") } else { "port: 0".into() };
        let (place, chat, phone) =
            (Place::new(&receiver), MattermostDouble::start(), SignalDouble::start());
        let channels = format!(
            "{{chat: {{type: mattermost, host: \"{}\", token: {}, channel: ops}}, \
             phone: {{type: signal, cli_path: \"{}\", user: \"+12025550100\", \
             recipient: \"+12025550101\"}}}}",
            chat.url,
            chat.token,
            phone.cli_path.display()
        );
        let text = fs::read_to_string(place.config()).unwrap();
        let text = text.replace("{log: {type: log}}", &channels);
        fs::write(place.config(), text.replace("[log]", "[chat, phone]")).unwrap();
        let mut command = Command::new("sh");
        let start = format!("ulimit -n {limit}; exec \"$0\" \"$@\"");
        command.args(["-c", &start, env!("CARGO_BIN_EXE_hbd")]);
        let hbd = Hbd::start_by(command, &place.config());
        assert_eq!(hbd.logged(&format!("hbd may have {limit} files")), 1, "{:?}", hbd.log());
        let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = hbd.last_address("heartbeats on UDP ");
        let mut clients = Vec::new();
        for number in 0..3 * limit {
            let mut stream = TcpStream::connect(hbd.address).unwrap();
            let body = "POST /alert HTTP/1.1\r\nHost: x\r\nContent-Length: 999\r\n\r\n{";
            let begun = ["", "GET /-/hea", body, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"][number % 4];
            let _ = stream.write_all(begun.as_bytes());
            clients.push(stream);
            if number % limit == limit / 2 {
                let message =
                    format!(r#"{{"host":"web1","event":"message","message":"n{number}"}}"#);
                udp.send_to(message.as_bytes(), to).unwrap();
            }
        }
        let begun = Instant::now();
        let arrived = || [chat.received().len(), phone.received().len()];
        // signal-cli is run six times a minute.
        while arrived()[0] < 3 || arrived()[1] < 1 {
            assert!(
                begun.elapsed() < Duration::from_secs(20),
                "{limit}: {:?} {:#?}",
                arrived(),
                hbd.log()
            );
            std::thread::yield_now();
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "{limit}: {:?}", begun.elapsed());
        println!("{limit}: {:?}", begun.elapsed());
        assert_eq!((chat.violations(), phone.violations()), (Vec::new(), Vec::new()));
        assert!(hbd.logged("cannot be accepted") <= 1, "{:?}", hbd.log());
        hbd.stop();
    }
}

#[test]
fn a_silent_client_of_the_tls_port_is_closed_after_three_seconds() {
    let place = Place::with("port: 0", &certificates().good);
    let hbd = Hbd::start(&place.config());
    for beginning in [&b""[..], b"\x16\x03\x01"] {
        let mut stream = TcpStream::connect(hbd.address).unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        stream.write_all(beginning).unwrap();
        let before = std::time::Instant::now();
        // At most an alert.
        assert!(stream.read_to_end(&mut Vec::new()).unwrap_or(0) < 16);
        let time = before.elapsed();
        assert!(time > Duration::from_secs(2) && time < Duration::from_secs(20), "{time:?}");
    }
    hbd.stop();
}

fn status(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hbd"));
    command.arg("status").args(arguments).env_remove("HBD_CONFIG").env_remove("HBD_TOKEN");
    command.envs(environment.iter().copied()).output().unwrap()
}

/// A configuration that says where the daemon really listens.
fn known(place: &Place, address: SocketAddr) -> String {
    let text = fs::read_to_string(place.config()).unwrap();
    let file = place.path("known.yaml");
    let port = format!("receiver: {{port: {}", address.port());
    fs::write(&file, text.replace("receiver: {port: 0", &port)).unwrap();
    file.display().to_string()
}

#[test]
fn status_shows_what_is_wrong_and_says_it_by_its_exit_code() {
    let place = Place::new(&format!("port: 0, token: {TOKEN}"));
    let hbd = Hbd::start(&place.config());
    let config = known(&place, hbd.address);
    let shown = |output: &Output| String::from_utf8(output.stdout.clone()).unwrap();
    let never = status(&["--config", &config], &[]);
    assert_eq!(never.status.code(), Some(1), "{never:?}");
    assert!(shown(&never).contains("1 of 1 host is not well"), "{}", shown(&never));
    // For the health check of a container, a host that is down is no reason to start hbd again.
    let alive = status(&["--config", &config, "--alive"], &[]);
    assert_eq!((alive.status.code(), shown(&alive)), (Some(0), String::new()), "{alive:?}");
    let beat = |body: &str| {
        let mut stream = TcpStream::connect(hbd.address).unwrap();
        let length = body.len();
        let head = "POST /api/v1/heartbeat HTTP/1.0\r\nAuthorization: Bearer";
        write!(stream, "{head} {TOKEN}\r\nContent-Length: {length}\r\n\r\n{body}").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.contains(" 200 "), "{answer}");
    };
    beat(r#"{"host":"web1"}"#);
    let well = status(&["--config", &config], &[]);
    assert_eq!(well.status.code(), Some(0), "{well:?}");
    assert!(shown(&well).starts_with("1 host, all well\n"), "{}", shown(&well));
    beat(r#"{"host":"web1","metrics":{"disk_monitor":{"root":{"percent":97.5}}}}"#);
    let url = format!("http://{}", hbd.address);
    let ill = status(&["--url", &url, "--json"], &[("HBD_TOKEN", TOKEN)]);
    assert_eq!(ill.status.code(), Some(1), "{ill:?}");
    let answer: serde_json::Value = serde_json::from_slice(&ill.stdout).unwrap();
    assert_eq!((&answer["ok"], &answer["hosts"][0]["name"]), (&false.into(), &"web1".into()));
    let colored = status(&["--config", &config, "--color=always"], &[]);
    assert!(shown(&colored).contains("\u{1b}[1;31m"), "{}", shown(&colored));
    let page = shown(&status(&["web1", "--config", &config], &[]));
    assert!(page.contains("disk_monitor.root.percent  critical  97.5 %  > 95.0"), "{page}");
    for (arguments, code) in [
        (&["--url", &url][..], 3),
        (&["nobody", "--config", &config], 1),
        (&["--url", "http://127.0.0.1:1"], 3),
        (&["--url", "http://127.0.0.1:1", "--alive"], 3),
        (&["--url", &url, "--config", &config], 2),
        (&["--config", "/nowhere"], 78),
    ] {
        assert_eq!(status(arguments, &[]).status.code(), Some(code), "{arguments:?}");
    }
    hbd.stop();
}

#[test]
fn status_over_tls_believes_the_configured_certificate_and_no_other() {
    // Of another name, as a server's certificate is when it is asked on 127.0.0.1.
    let receiver = format!("port: 0, token: {TOKEN}");
    let place = Place::with(&receiver, &certificates().wrong_name);
    let hbd = Hbd::start(&place.config());
    let config = known(&place, hbd.address);
    let output = status(&["--config", &config], &[]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let other = &certificates().good;
    place.install(&fs::read(&other.certificate).unwrap(), &fs::read(&other.key).unwrap());
    let output = status(&["--config", &config], &[]);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("it shows another certificate than receiver.tls names"), "{said}");
    hbd.stop();
    let hbd = Hbd::start(&place.config());
    let url = format!("https://localhost:{}", hbd.address.port());
    let authority = certificates().authority.certificate.display().to_string();
    let token = [("HBD_TOKEN", TOKEN)];
    let trusted = status(&["--url", &url, "--ca-file", &authority], &token);
    assert_eq!(trusted.status.code(), Some(1), "{trusted:?}");
    let untrusted = status(&["--url", &url], &token);
    assert_eq!(untrusted.status.code(), Some(3), "{untrusted:?}");
    let said = String::from_utf8(untrusted.stderr).unwrap();
    assert!(said.contains("--ca-file"), "{said}");
    assert_eq!(hbd.address.ip(), IpAddr::V4(Ipv4Addr::LOCALHOST));
    hbd.stop();
}
