//! Debian's exim as a throw-away mail server: its own configuration and spool in a temporary
//! directory, started for each connection as inetd would, so that no port is ever guessed.

use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use super::certificates::Pair;

const CONFIGURATION: &str = r#"
primary_hostname = mail.test
spool_directory = DIR/spool
log_file_path = DIR/log/%slog
tls_advertise_hosts = *
tls_certificate = DIR/mail.pem
tls_privatekey = DIR/mail.key
smtputf8_advertise_hosts = *
keep_environment =
host_lookup =
rfc1413_query_timeout = 0s
acl_smtp_rcpt = check_rcpt
acl_smtp_data = check_data
begin acl
check_rcpt:
  deny !authenticated = *
       message = log in first
  deny domains = elsewhere.example
       message = relay not permitted
  deny local_parts = nobody
       message = nobody of that name here
  accept
check_data:
  deny condition = ${if match{$h_subject:}{full form only}{${if match{$h_content-type:}{multipart}}}}
       message = no HTML today
  accept
begin routers
everybody:
  driver = accept
  transport = file
begin transports
file:
  driver = appendfile
  file = DIR/mail/last
  envelope_to_add
  check_string =
  user = Debian-exim
  message_prefix =
  message_suffix =
begin authenticators
plain:
  driver = plaintext
  public_name = PLAIN
  server_prompts = :
  server_condition = ${if and{{eq{$auth2}{ops}}{eq{$auth3}{correct-horse}}}}
  server_advertise_condition = ${if def:tls_in_cipher}
"#;

/// A running exim.
pub struct Exim {
    dir: tempfile::TempDir,
    pub port: u16,
    ended: Receiver<()>,
}

impl Exim {
    /// Needs the package `exim4-daemon-light`, and root: exim serves a socket on its standard input
    /// for no other user.
    pub fn start(tls: &Pair, implicit: bool) -> Exim {
        // SAFETY: geteuid(2) takes nothing and cannot fail.
        let root = unsafe { libc::geteuid() } == 0;
        assert!(root, "exim lets only root run it as inetd would: run the tests as root");
        let program = program().expect("exim is installed: apt-get install exim4-daemon-light");
        let dir = tempfile::tempdir().unwrap();
        set_up(dir.path(), tls);
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (tx, ended) = channel();
        let configuration = dir.path().join("exim.conf");
        std::thread::Builder::new()
            .name("exim".into())
            .spawn(move || serve(&listener, &program, &configuration, implicit, &tx))
            .unwrap();
        Exim { dir, port, ended }
    }

    /// What was delivered through the next connection, when that has ended.
    pub fn mail(&self) -> Vec<u8> {
        self.ended.recv_timeout(Duration::from_secs(30)).expect("exim ends with its connection");
        let file = self.dir.path().join("mail/last");
        let mail = std::fs::read(&file).unwrap_or_else(|error| panic!("{error}\n{}", self.log()));
        std::fs::remove_file(file).unwrap();
        mail
    }

    fn log(&self) -> String {
        let logs = std::fs::read_dir(self.dir.path().join("log")).unwrap();
        logs.map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap_or_default()).collect()
    }
}

fn program() -> Option<PathBuf> {
    ["/usr/sbin/exim4", "/usr/sbin/exim"].iter().map(PathBuf::from).find(|path| path.exists())
}

/// exim switches to a user of its own, which must be able to read and write its files.
fn set_up(dir: &Path, tls: &Pair) {
    let open = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    open(dir, 0o755);
    for name in ["spool", "log", "mail"] {
        std::fs::create_dir(dir.join(name)).unwrap();
        open(&dir.join(name), 0o777);
    }
    std::fs::copy(&tls.certificate, dir.join("mail.pem")).unwrap();
    std::fs::copy(&tls.key, dir.join("mail.key")).unwrap();
    open(&dir.join("mail.key"), 0o644);
    let configuration = CONFIGURATION.replace("DIR", &dir.display().to_string());
    std::fs::write(dir.join("exim.conf"), configuration).unwrap();
    open(&dir.join("exim.conf"), 0o644);
}

fn serve(
    listener: &TcpListener,
    program: &Path,
    configuration: &Path,
    implicit: bool,
    ended: &Sender<()>,
) {
    for stream in listener.incoming() {
        let stdin: TcpStream = stream.unwrap();
        let stdout = stdin.try_clone().unwrap();
        let mut command = Command::new(program);
        // -odf: delivered before the connection ends.
        command.arg("-C").arg(configuration).args(["-bs", "-odf"]);
        if implicit {
            command.arg("-tls-on-connect");
        }
        let status = command
            .stdin(Stdio::from(OwnedFd::from(stdin)))
            .stdout(Stdio::from(OwnedFd::from(stdout)))
            .stderr(Stdio::null())
            .status();
        status.expect("exim runs");
        if ended.send(()).is_err() {
            return;
        }
    }
}
