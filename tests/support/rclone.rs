//! `rclone serve restic`, the gateway that NethServer 8 puts before its destinations.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

/// User and password of the gateway.
pub const LOGIN: (&str, &str) = ("node", "p@ss:ü/1");

/// The gateway before one destination; it ends with it.
pub struct Gateway {
    child: Child,
    /// Its address with a slash at the end, without a login.
    pub url: String,
}

impl Gateway {
    /// Before a directory of this machine.
    pub fn of_directory(directory: &std::path::Path) -> Gateway {
        Gateway::start(&[directory.to_str().unwrap()])
    }

    /// Before a WebDAV server.
    pub fn of_webdav(url: &str) -> Gateway {
        Gateway::start(&["--webdav-url", url, "--webdav-vendor", "other", ":webdav:"])
    }

    /// Before an S3 server.
    pub fn of_s3(url: &str) -> Gateway {
        let key = ["--s3-access-key-id", "key", "--s3-secret-access-key", "secret"];
        let place = ["--s3-provider", "Other", "--s3-endpoint", url, ":s3:bucket"];
        Gateway::start(&[&key[..], &place[..]].concat())
    }

    fn start(arguments: &[&str]) -> Gateway {
        let mut child = Command::new("rclone")
            .args(["serve", "restic", "--addr", "127.0.0.1:0", "--config", "/dev/null"])
            .env_remove("AWS_CA_BUNDLE")
            .args(["--low-level-retries", "1", "--retries", "1"])
            .args(["--user", LOGIN.0, "--pass", LOGIN.1])
            .args(arguments)
            .stderr(Stdio::piped())
            .spawn()
            .expect("rclone can be started: apt-get install rclone");
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let serving = lines.by_ref().map(Result::unwrap).find(|line| line.contains("Serving"));
        let serving = serving.expect("rclone serves");
        let url = &serving[serving.find("http://").unwrap()..];
        let url = url.trim_end_matches(']').to_owned();
        // It must not block on a full pipe.
        std::thread::spawn(move || lines.count());
        Gateway { child, url }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
