//! Answers leave from the address that was asked: a virtual address answers as itself. A machine with
//! several addresses on one interface, in network namespaces.

use std::path::Path;
use std::process::Command;

mod support {
    pub mod hbd;
    #[allow(dead_code, reason = "hbd.rs takes one word of it")]
    pub mod http_double;
    pub mod network;
}

use support::hbd::Hbd;
use support::network::{LAN, Network};

fn configure(network: &Network, host: &str) -> std::path::PathBuf {
    let file = network.directory().join("heartbeat.yaml");
    let text = format!(
        "notification_channels: {{log: {{type: log}}}}\n\
         default_notification_channels: [log]\n\
         hosts: {{web1: {{watch: true}}}}\n\
         receiver: {{port: 0}}\n\
         state_dir: {}\n\
         heartbeat: {{host: '{host}', port: 9097, accept_unsigned: true}}\n",
        network.directory().join("state").display(),
    );
    std::fs::write(&file, text).unwrap();
    file
}

fn start(network: &Network, config: &Path) -> Hbd {
    Hbd::start_by(network.on_the_server(env!("CARGO_BIN_EXE_hbd")), config)
}

/// What `hbc send --wait` says to a server, and its exit code.
fn ask(mut hbc: Command, server: &str) -> (Option<i32>, String) {
    hbc.args(["send", "--server", server, "--host", "web1", "--wait", "5s"]);
    let output = hbc.output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn an_answer_from_another_address_than_the_virtual_one_was_dropped() {
    let network = Network::new();
    let mut asked = vec![network.servers[LAN].clone()];
    if network.is_private() {
        // A second address and a virtual one, as keepalived adds them, of either family.
        for (server, client) in [
            ("10.77.0.11/24", None),
            ("10.77.0.200/32", None),
            ("2001:db8:77::1/64", Some("2001:db8:77::2/64")),
            ("2001:db8:77::11/64", None),
            ("2001:db8:77::200/128", None),
            ("fe80::77:1/64", Some("fe80::77:2/64")),
            ("fe80::77:200/128", None),
        ] {
            network.add_addresses(LAN, server, client);
            let (address, _) = server.split_once('/').unwrap();
            asked.push(match address {
                local if local.starts_with("fe80") => format!("{local}%lan"),
                address => address.to_owned(),
            });
        }
    } else {
        // Every address of 127.0.0.0/8 is this machine's.
        asked.push("127.0.0.77".into());
    }
    for host in ["0.0.0.0", "::"] {
        let hbd = start(&network, &configure(&network, host));
        for address in &asked {
            let is_v6 = address.contains(':');
            if is_v6 && host == "0.0.0.0" {
                continue;
            }
            let server =
                if is_v6 { format!("[{address}]:9097") } else { format!("{address}:9097") };
            let hbc = network.on_the_client(env!("CARGO_BIN_EXE_hbc"));
            assert_eq!(ask(hbc, &server).0, Some(0), "{server} of a hbd on {host}");
        }
        drop(hbd);
    }
}

/// The fast path: such a socket does not ask what a datagram came to.
#[test]
fn a_daemon_on_one_address_answers_from_that() {
    let network = Network::new();
    let own = network.servers[LAN].clone();
    let _hbd = start(&network, &configure(&network, &own));
    let hbc = network.on_the_client(env!("CARGO_BIN_EXE_hbc"));
    assert_eq!(ask(hbc, &format!("{own}:9097")).0, Some(0));
}
