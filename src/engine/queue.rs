//! The requests that wait for a slot, in order of arrival: async threads put them in and take them back, the engine's threads
//! take them out.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::scheduler::{self, Room};
use super::sequence::Sequence;

/// A bounded queue before the replicas of the model. What a client takes back is gone at once, its prompt and pictures with
/// it, whatever the engine's threads are busy with.
pub(super) struct Queue {
    inner: Mutex<Inner>,
    /// Another waits, another is the first, there is more room for it, or nobody will come any more.
    changed: Condvar,
    capacity: usize,
}

struct Inner {
    waiting: VecDeque<(Ticket, Sequence)>,
    num_tickets: u64,
    is_closed: bool,
    /// What each replica had free when it last looked; nothing before it serves and after it has left.
    rooms: Vec<Room>,
    /// Replicas that have not left.
    num_serving: usize,
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

impl Inner {
    /// The first one, if `replica` is where it should start.
    fn is_for(&self, replica: usize) -> bool {
        let first = self.waiting.front();
        let wants = first.map(|(_, sequence)| (sequence.num_promised(), sequence.prefix()));
        wants.and_then(|(promised, prefix)| scheduler::choose(promised, prefix, &self.rooms)) == Some(replica)
    }
}

impl Queue {
    pub fn new(capacity: usize, num_replicas: usize) -> Queue {
        let inner = Inner {
            waiting: VecDeque::new(),
            num_tickets: 0,
            is_closed: false,
            rooms: vec![Room::default(); num_replicas],
            num_serving: num_replicas,
        };
        Queue { inner: Mutex::new(inner), changed: Condvar::new(), capacity }
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
        self.changed.notify_all();
        Ok(ticket)
    }

    /// Takes back the request that got `ticket`. `None` where it has left the queue.
    pub fn withdraw(&self, ticket: Ticket) -> Option<Sequence> {
        let mut inner = self.lock();
        let index = inner.waiting.iter().position(|(held, _)| *held == ticket)?;
        let sequence = inner.waiting.remove(index).map(|(_, sequence)| sequence);
        self.changed.notify_all();
        sequence
    }

    /// Takes the first request, where there is `room` for it and no other replica is the better place.
    pub fn take(&self, replica: usize, room: Room) -> Option<Sequence> {
        let mut inner = self.look(replica, room);
        let (_, sequence) = inner.is_for(replica).then(|| inner.waiting.pop_front()).flatten()?;
        self.changed.notify_all();
        Some(sequence)
    }

    /// Whether [`Queue::take`] would find a request.
    pub fn has_one(&self, replica: usize, room: Room) -> bool {
        self.look(replica, room).is_for(replica)
    }

    /// Blocks until [`Queue::take`] would find a request. False once the queue is closed and empty.
    pub fn wait(&self, replica: usize, room: Room) -> bool {
        let is_over = |inner: &Inner| inner.is_closed && inner.waiting.is_empty();
        let is_idle = |inner: &mut Inner| !(inner.is_for(replica) || is_over(inner));
        let inner = self.look(replica, room);
        let inner = self.changed.wait_while(inner, is_idle).unwrap_or_else(PoisonError::into_inner);
        !inner.waiting.is_empty()
    }

    /// Notes what `replica` has free; another may have become the better place for who waits.
    fn look(&self, replica: usize, room: Room) -> MutexGuard<'_, Inner> {
        let mut inner = self.lock();
        if inner.rooms[replica] != room {
            inner.rooms[replica] = room;
            self.changed.notify_all();
        }
        inner
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
        self.changed.notify_all();
    }

    /// `replica` serves no longer. The last one gives up on those that wait: nobody is left to serve them.
    pub fn leave(&self, replica: usize) {
        let mut inner = self.look(replica, Room::default());
        inner.num_serving -= 1;
        let abandoned = if inner.num_serving == 0 {
            inner.is_closed = true;
            std::mem::take(&mut inner.waiting)
        } else {
            VecDeque::new()
        };
        drop(inner);
        drop(abandoned); // after the lock
    }

    /// No code panics while it holds the lock and leaves the queue half changed.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
