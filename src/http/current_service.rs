//! Who answers the requests: the daemon, or a node that stands by and may take over at any moment.

use std::sync::Mutex;

use super::service::Service;
use crate::thread::lock;

/// Who answers at present. A node that takes over answers every request from then on.
pub struct CurrentService(Mutex<Service>);

impl CurrentService {
    /// This one, for the time being.
    pub fn new(service: Service) -> CurrentService {
        CurrentService(Mutex::new(service))
    }

    /// Who answers now.
    pub fn get(&self) -> Service {
        lock(&self.0).clone()
    }

    /// Another one answers from the next request on.
    pub fn replace(&self, service: Service) {
        *lock(&self.0) = service;
    }
}
