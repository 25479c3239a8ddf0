//! The workers of the courier, and the queue that they take their tasks from.

use std::collections::BTreeMap;
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, unbounded};

use super::Input;
use crate::notify::channel::{Channel, SharedState};
use crate::notify::worker::{self, SendPermit, Task, TaskKind};

/// The workers.
pub struct DeliveryPool {
    tasks: Sender<Task>,
    queue: Receiver<Task>,
    results: Sender<Input>,
    count: usize,
    state: Arc<SharedState>,
    permit: SendPermit,
}

impl DeliveryPool {
    /// Without workers yet. What they did goes to `results`.
    pub fn new(
        results: Sender<Input>,
        state: Arc<SharedState>,
        permit: SendPermit,
    ) -> DeliveryPool {
        let (tasks, queue) = unbounded();
        DeliveryPool { tasks, queue, results, count: 0, state, permit }
    }

    /// One worker for each channel, and one more for each whose receipts are polled: a provider
    /// that hangs blocks no other channel. A reload with more channels adds workers; one with fewer
    /// leaves them idle, which costs a stack each: ending one of many that wait on one queue would
    /// need a command of its own.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn grow(&mut self, channels: &BTreeMap<String, Arc<Channel>>) -> std::io::Result<()> {
        let polled = channels.values().filter(|channel| channel.gives_receipts()).count();
        while self.count < channels.len() + polled {
            let (state, permit) = (Arc::clone(&self.state), Arc::clone(&self.permit));
            let (queue, results) = (self.queue.clone(), self.results.clone());
            worker::spawn(self.count + 1, state, permit, queue, results)?;
            self.count += 1;
        }
        Ok(())
    }

    /// Has workers do something through these channels.
    pub fn start(&self, tasks: Vec<TaskKind>, channels: &BTreeMap<String, Arc<Channel>>) {
        for kind in tasks {
            if let Some(channel) = channels.get(kind.channel()) {
                let _ = self.tasks.send(Task { channel: Arc::clone(channel), kind });
            }
        }
    }
}
