//! The requests that wait for a slot, in order of arrival: async threads put them in and take them back, the engine's thread
//! takes them out.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::scheduler::{self, Room};
use super::sequence::Sequence;

/// A bounded queue. What a client takes back is gone at once, its prompt and pictures with it, whatever the engine's thread is
/// busy with.
pub(super) struct Queue {
    inner: Mutex<Inner>,
    /// Somebody waits, or nobody will come any more.
    changed: Condvar,
    capacity: usize,
}

#[derive(Default)]
struct Inner {
    waiting: VecDeque<(Ticket, Sequence)>,
    num_tickets: u64,
    is_closed: bool,
}

/// A place in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket(u64);

/// Why a request did not get in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    Full,
    Closed,
}

impl Queue {
    pub fn new(capacity: usize) -> Queue {
        Queue { inner: Mutex::default(), changed: Condvar::new(), capacity }
    }

    /// Adds `sequence` at the end.
    pub fn push(&self, sequence: Sequence) -> Result<Ticket, Refused> {
        let mut inner = self.lock();
        if inner.is_closed {
            return Err(Refused::Closed);
        }
        if inner.waiting.len() >= self.capacity {
            return Err(Refused::Full);
        }
        inner.num_tickets += 1;
        let ticket = Ticket(inner.num_tickets);
        inner.waiting.push_back((ticket, sequence));
        self.changed.notify_one();
        Ok(ticket)
    }

    /// Takes back the request that got `ticket`. `None` where it has left the queue.
    pub fn withdraw(&self, ticket: Ticket) -> Option<Sequence> {
        let mut inner = self.lock();
        let index = inner.waiting.iter().position(|(held, _)| *held == ticket)?;
        inner.waiting.remove(index).map(|(_, sequence)| sequence)
    }

    /// Takes the first requests, as many as there is `room` for.
    pub fn take(&self, room: Room) -> Vec<Sequence> {
        let mut inner = self.lock();
        let count = scheduler::admit(inner.waiting.iter().map(|(_, sequence)| sequence.num_promised()), room);
        inner.waiting.drain(..count).map(|(_, sequence)| sequence).collect()
    }

    /// Blocks until somebody waits. False once the queue is closed and empty.
    pub fn wait(&self) -> bool {
        let is_idle = |inner: &mut Inner| inner.waiting.is_empty() && !inner.is_closed;
        let inner = self.changed.wait_while(self.lock(), is_idle).unwrap_or_else(PoisonError::into_inner);
        !inner.waiting.is_empty()
    }

    pub fn len(&self) -> usize {
        self.lock().waiting.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Lets nobody in any more.
    pub fn close(&self) {
        self.lock().is_closed = true;
        self.changed.notify_one();
    }

    /// Closes the queue and gives up on those that wait: nobody is left to serve them.
    pub fn abandon(&self) {
        self.close();
        let abandoned = std::mem::take(&mut self.lock().waiting);
        drop(abandoned); // after the lock
    }

    /// No code panics while it holds the lock and leaves the queue half changed.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
