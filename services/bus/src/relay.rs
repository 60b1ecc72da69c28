//! What one gateway tells another about the requests of a client that reached the wrong one.
//!
//! Must not know what is relayed.

use std::time::Duration;

use async_nats::{HeaderMap, Subject, Subscriber};
use futures::StreamExt;
use parlance_proto::v1::{Relay, RelayReceipt};
use prost::Message as _;

use crate::connection::Bus;
use crate::error::{Error, ErrorKind};
use crate::subject;

/// Most bytes of a body in one [`Relay`].
pub const MAX_PART: usize = 768 * 1024;

/// What other gateways tell this one. Dropping it unsubscribes: others learn at once that nobody is here.
pub struct Relays {
    bus: Bus,
    subscriber: Subscriber,
}

/// One message of another gateway, to be answered with [`IncomingRelay::receipt`].
pub struct IncomingRelay {
    /// What it says.
    pub relay: Relay,
    bus: Bus,
    reply: Option<Subject>,
}

impl Bus {
    /// Tells another gateway something and waits until it says whether it was of use.
    ///
    /// # Errors
    /// [`ErrorKind::NoResponders`]: there is no such gateway any more. [`ErrorKind::TimedOut`]: it does not answer.
    pub async fn relay(
        &self,
        gateway: &str,
        relay: &Relay,
        timeout: Duration,
    ) -> Result<RelayReceipt, Error> {
        let subject = subject::gateway(gateway);
        let message = self
            .ask(subject, HeaderMap::new(), relay.encode_to_vec().into(), timeout)
            .await?;
        RelayReceipt::decode(message.payload)
            .map_err(|e| Error::with(ErrorKind::Malformed, "unreadable receipt", e))
    }

    /// Begins to hear what other gateways tell the one of this name.
    ///
    /// # Errors
    /// The connection is closed.
    pub async fn subscribe_relays(&self, gateway: &str) -> Result<Relays, Error> {
        let subscriber = self.client.subscribe(subject::gateway(gateway)).await;
        Ok(Relays {
            bus: self.clone(),
            subscriber: subscriber
                .map_err(|e| Error::with(ErrorKind::Disconnected, "cannot subscribe", e))?,
        })
    }
}

impl Relays {
    /// The next message; `None` when the connection is closed for good. What cannot be read is logged and passed
    /// over: only a service with our account can have sent it.
    pub async fn next(&mut self) -> Option<IncomingRelay> {
        loop {
            let message = self.subscriber.next().await?;
            match Relay::decode(message.payload) {
                Ok(relay) => {
                    return Some(IncomingRelay {
                        relay,
                        bus: self.bus.clone(),
                        reply: subject::inbox(message.reply),
                    });
                }
                Err(error) => tracing::error!(%error, "dropped a malformed message of a gateway"),
            }
        }
    }
}

impl IncomingRelay {
    /// Says whether it was of use.
    pub async fn receipt(&self, receipt: &RelayReceipt) {
        let Some(reply) = self.reply.clone() else {
            return;
        };
        // Fails only when the client is closed for good, and then the other one hears of that by itself.
        drop(
            self.bus
                .client
                .publish(reply, receipt.encode_to_vec().into())
                .await,
        );
    }
}
