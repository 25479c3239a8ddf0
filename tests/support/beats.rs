//! Many hosts that beat from one thread and one socket, each at its own absolute times, so that a
//! simulator that is late once does not drift.
#![allow(dead_code)]

use std::collections::BTreeSet;
use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::http_double::lock;

struct State {
    to: SocketAddr,
    silent: BTreeSet<String>,
    over: bool,
}

/// Hosts that beat as long as it lives.
pub struct Beats {
    state: Arc<(Mutex<State>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

impl Beats {
    /// The hosts of these names, each every `interval`, evenly spread over it.
    pub fn start(to: SocketAddr, names: &[String], interval: Duration) -> Beats {
        let state = State { to, silent: BTreeSet::new(), over: false };
        let state = Arc::new((Mutex::new(state), Condvar::new()));
        let (shared, names) = (Arc::clone(&state), names.to_vec());
        let thread = thread::spawn(move || beat(&shared, &names, interval));
        Beats { state, thread: Some(thread) }
    }

    /// From now on nothing is heard of hosts of which this holds.
    pub fn cut(&self, names: &[String]) {
        lock(&self.state.0).silent.extend(names.iter().cloned());
    }

    /// All beat again but these.
    pub fn heal_all_but(&self, names: &[String]) {
        lock(&self.state.0).silent = names.iter().cloned().collect();
    }

    /// All beat again.
    pub fn heal(&self) {
        self.heal_all_but(&[]);
    }

    /// They beat at another address, as after a restart of the daemon.
    pub fn redirect(&self, to: SocketAddr) {
        lock(&self.state.0).to = to;
    }
}

impl Drop for Beats {
    fn drop(&mut self) {
        lock(&self.state.0).over = true;
        self.state.1.notify_all();
        let _ = self.thread.take().unwrap().join();
    }
}

fn beat(shared: &(Mutex<State>, Condvar), names: &[String], interval: Duration) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let start = Instant::now();
    let count = u32::try_from(names.len()).unwrap();
    let mut state = lock(&shared.0);
    for round in 0.. {
        for (number, name) in (0..).zip(names) {
            let at = start + interval * round + interval * number / count;
            while let Some(left) = at.checked_duration_since(Instant::now()) {
                if state.over {
                    return;
                }
                state = shared.1.wait_timeout(state, left).unwrap().0;
            }
            if state.over {
                return;
            }
            if !state.silent.contains(name) {
                // A daemon that is down hears nothing.
                let _ = socket.send_to(format!(r#"{{"host":"{name}"}}"#).as_bytes(), state.to);
            }
        }
    }
}
