//! The tasks that wait for room in the redistributor's channel, in order. A task is merged into the last one if
//! possible.
//!
//! The number of waiting tasks is bounded by what the links may hold. Sending never blocks.

use std::collections::VecDeque;
use std::time::Duration;

use crossbeam_channel::{Sender, TrySendError};

use crate::base::id::MessageId;
use crate::lane::tasks::{CommitTask, Task};
use crate::ledger::Returned;

pub(super) struct TaskQueue {
    waiting: VecDeque<Task>,
    tasks: Sender<Task>,
    /// The memory of all results whose recording has not been confirmed.
    result_bytes: usize,
}

impl TaskQueue {
    pub(super) fn new(tasks: Sender<Task>) -> TaskQueue {
        TaskQueue { waiting: VecDeque::new(), tasks, result_bytes: 0 }
    }

    pub(super) fn push(&mut self, task: Task) {
        self.waiting.push_back(task);
    }

    /// Whether none waits for room in the channel.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Adds a message that came back without a result.
    pub(super) fn push_returned(&mut self, returned: Returned, delay: Option<Duration>) {
        match self.waiting.back_mut() {
            Some(Task::Returned(waiting)) => waiting.push((returned, delay)),
            _ => self.push(Task::Returned(vec![(returned, delay)])),
        }
    }

    /// Adds a delivery to be counted.
    pub(super) fn push_count(&mut self, id: MessageId, delivery: u16) {
        match self.waiting.back_mut() {
            Some(Task::Count(waiting)) => waiting.push((id, delivery)),
            _ => self.push(Task::Count(vec![(id, delivery)])),
        }
    }

    /// Adds results to be recorded. Their memory counts until [`confirm_commit`](TaskQueue::confirm_commit).
    pub(super) fn push_commit(&mut self, task: CommitTask) {
        self.result_bytes += task.bytes;
        match self.waiting.back_mut() {
            Some(Task::Commit(waiting)) if waiting.link == task.link && waiting.serial == task.serial => {
                waiting.commits.extend(task.commits);
                waiting.bytes += task.bytes;
                waiting.adopted |= task.adopted;
            }
            _ => self.push(Task::Commit(task)),
        }
    }

    /// Results of this size have been recorded.
    pub(super) fn confirm_commit(&mut self, bytes: usize) {
        self.result_bytes -= bytes;
    }

    /// The memory of all results that are waiting to be recorded or being recorded.
    pub(super) fn result_bytes(&self) -> usize {
        self.result_bytes
    }

    /// Replaces a list of consumers that has not been sent: only the newest one counts.
    pub(super) fn set_members(&mut self, members: Vec<String>) {
        self.waiting.retain(|task| !matches!(task, Task::Members(_)));
        self.push(Task::Members(members));
    }

    /// Sends as many tasks as the redistributor has room for.
    pub(super) fn pass_on(&mut self) {
        while let Some(task) = self.waiting.pop_front() {
            match self.tasks.try_send(task) {
                Ok(()) => {}
                Err(TrySendError::Full(task)) => {
                    self.waiting.push_front(task);
                    return;
                }
                // The redistributor has ended, and the term with it.
                Err(TrySendError::Disconnected(_)) => return,
            }
        }
    }
}
