//! Receiving live messages, decoded, in order per subscription.

use std::marker::PhantomData;

use async_nats::Subscriber;
use futures::StreamExt;
use parlance_proto::ConversationId;
use parlance_proto::v1::{ConfirmationBatch, Ephemeral, EventBatch, Presence, UserNotice};

use crate::connection::Bus;
use crate::error::{Error, ErrorKind};
use crate::subject;

pub use crate::subject::System as SystemTarget;

/// Live messages of one subject. Dropping it unsubscribes.
pub struct Subscription<T> {
    subscriber: Subscriber,
    message: PhantomData<fn() -> T>,
}

impl<T: prost::Message + Default> Subscription<T> {
    /// The next message; `None` when the connection is closed for good. A payload that is not a `T`
    /// is logged and passed over: only a service with our account can have sent it.
    pub async fn next(&mut self) -> Option<T> {
        loop {
            let message = self.subscriber.next().await?;
            match T::decode(message.payload) {
                Ok(decoded) => return Some(decoded),
                Err(error) => {
                    tracing::error!(subject = %message.subject, %error, "dropped a malformed message");
                }
            }
        }
    }
}

impl Bus {
    /// The committed events of a conversation.
    ///
    /// # Errors
    /// The connection is closed.
    pub async fn subscribe_events(
        &self,
        conversation: ConversationId,
    ) -> Result<Subscription<EventBatch>, Error> {
        self.subscribe(subject::events(conversation)).await
    }

    /// The ephemeral events of a conversation.
    ///
    /// # Errors
    /// The connection is closed.
    pub async fn subscribe_ephemeral(
        &self,
        conversation: ConversationId,
    ) -> Result<Subscription<Ephemeral>, Error> {
        self.subscribe(subject::ephemeral(conversation)).await
    }

    /// The notices of all users.
    ///
    /// # Errors
    /// The connection is closed.
    pub async fn subscribe_users(&self) -> Result<Subscription<UserNotice>, Error> {
        self.subscribe(subject::ALL_USERS.to_owned()).await
    }

    /// The changes of presence of all users.
    ///
    /// # Errors
    /// The connection is closed.
    pub async fn subscribe_presence(&self) -> Result<Subscription<Presence>, Error> {
        self.subscribe(subject::ALL_PRESENCE.to_owned()).await
    }

    /// The confirmations of the commands a gateway sent.
    ///
    /// # Errors
    /// The connection is closed.
    pub async fn subscribe_confirmations(
        &self,
        gateway: &str,
    ) -> Result<Subscription<ConfirmationBatch>, Error> {
        self.subscribe(subject::confirmations(gateway)).await
    }

    async fn subscribe<T>(&self, subject: String) -> Result<Subscription<T>, Error> {
        let subscriber = self
            .client
            .subscribe(subject)
            .await
            .map_err(|e| Error::with(ErrorKind::Disconnected, "cannot subscribe", e))?;
        Ok(Subscription {
            subscriber,
            message: PhantomData,
        })
    }
}
