//! One connection of a client, which the sessions of several namespaces may share, as the engine keeps it: what was
//! received on it, and what it is to learn.

use std::sync::{Arc, PoisonError};

use socketioxide::extract::SocketRef;

use super::admission::{Ticket, TicketHolder};
use super::packets::Packets;
use super::pid::Introductions;
use crate::session::send_queue::SendQueue;

/// What is known of one connection. Put into the extensions of the request that opens it, which the
/// engine keeps for the life of the connection.
#[derive(Default)]
pub struct Connection {
    /// What its client has sent.
    pub packets: Packets,
    /// The pages its client is to learn of.
    pub introductions: Introductions,
    /// Held until its first session has begun.
    pub ticket: TicketHolder,
    /// What its sessions share.
    pub send_queue: Arc<SendQueue>,
}

impl Connection {
    /// The connection under a socket.
    pub fn of(socket: &SocketRef) -> Arc<Self> {
        let shared = socket.req_parts().extensions.get::<Arc<Self>>();
        shared.map(Arc::clone).unwrap_or_default()
    }

    /// The ticket of the client, where its session is the first here: it is on its way in no longer once that is dropped.
    pub fn take_ticket(&self) -> Option<Ticket> {
        self.ticket.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}
