//! Servers and programs that stand in for the real ones: they keep the providers' contracts and
//! refuse what those refuse. Each test file uses some of them.
#![allow(dead_code)]

pub mod http_double;
pub mod mattermost;
pub mod pushover;
pub mod signal;
pub mod smtp;
pub mod tls_front;
pub mod torture;
