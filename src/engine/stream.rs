//! The events of one sequence, as its client gets them.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::timeout_at;

use super::handle::Event;
use super::queue::Ticket;
use super::shared::Shared;
use crate::error::Overload;

/// The events of one sequence. Dropping it cancels the sequence: one that waits is gone at once, one that runs frees its slot
/// at the next step.
pub struct TokenStream {
    events: UnboundedReceiver<Event>,
    /// Until the sequence is known to have left the queue.
    place: Option<Place>,
}

/// A place in the queue, and when the client stops waiting for it.
struct Place {
    shared: Arc<Shared>,
    ticket: Ticket,
    deadline: Option<Instant>,
}

impl TokenStream {
    pub(super) fn new(
        events: UnboundedReceiver<Event>,
        shared: Arc<Shared>,
        ticket: Ticket,
        deadline: Option<Instant>,
    ) -> TokenStream {
        TokenStream { events, place: Some(Place { shared, ticket, deadline }) }
    }

    /// The next event; `None` after the last, or where the engine has died. A sequence that still waits at its deadline is
    /// taken back here, as the engine's thread may be in the middle of a long step.
    pub async fn recv(&mut self) -> Option<Event> {
        if let Some(deadline) = self.place.as_ref().and_then(|place| place.deadline) {
            match timeout_at(deadline.into(), self.events.recv()).await {
                Ok(event) => return self.has_left(event),
                Err(_is_late) => {
                    if let Some(late) = self.place.take().and_then(|place| place.give_up()) {
                        return Some(late);
                    }
                }
            }
        }
        let event = self.events.recv().await;
        self.has_left(event)
    }

    /// Whoever hears something does not wait any more.
    fn has_left(&mut self, event: Option<Event>) -> Option<Event> {
        self.place = None;
        event
    }
}

impl Place {
    /// Takes the sequence back, if it has not left the queue.
    fn give_up(&self) -> Option<Event> {
        let late = self.shared.overloaded(Overload::DeadlinePassed);
        self.shared.queue.withdraw(self.ticket).map(|_| Event::Failed(late))
    }
}

impl Drop for TokenStream {
    fn drop(&mut self) {
        if let Some(place) = &self.place {
            place.shared.queue.withdraw(place.ticket);
        }
    }
}
