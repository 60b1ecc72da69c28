//! Pages that are back. A page that connects again names the gateway it was connected to before; that one ends what it
//! still has of the page and stores what the page got there, and only then is the page told what it missed. Without it
//! the page would be told once more what is not stored yet.
//!
//! A gateway that is gone has stored what it could: nobody waits for it. One that hangs is not asked again for a while.
//! Must not look at another user's pages.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use parlance_bus::ErrorKind;
use parlance_proto::UserId;
use socketioxide::extract::SocketRef;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use super::pid::Returning;
use crate::edge::socket::state::SocketState;
use crate::session::page::Page;

/// How long the gateway before may take to answer. After that the page may be told twice what it got last.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long it may take there.
const ENDING: Duration = Duration::from_millis(1_500);
/// Pages of other gateways that are ended at a time.
const AT_ONCE: usize = 1_024;
/// How long a gateway is not asked that did not answer.
const SILENCE: Duration = Duration::from_secs(15);

/// What is known of pages that are back.
#[derive(Debug)]
pub struct Returns {
    /// Gateways that did not answer, and since when.
    silent: Mutex<HashMap<String, Instant>>,
    ending: Semaphore,
}

impl Default for Returns {
    fn default() -> Self {
        Self {
            silent: Mutex::default(),
            ending: Semaphore::new(AT_ONCE),
        }
    }
}

impl Returns {
    fn is_silent(&self, gateway: &str) -> bool {
        let known = self.lock().get(gateway).copied();
        known.is_some_and(|since| since.elapsed() < SILENCE)
    }

    fn note_silence(&self, gateway: &str) {
        let mut silent = self.lock();
        silent.retain(|_, since| since.elapsed() < SILENCE);
        silent.insert(gateway.to_owned(), Instant::now());
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Instant>> {
        self.silent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends what other connections there are of the page that arrives on this socket, if it returns, and says whether it is
/// stored what the page got over them.
pub(super) async fn settle(
    state: &SocketState,
    user: &UserId,
    returning: Option<&Returning>,
    socket: &SocketRef,
) -> bool {
    let Some(returning) = returning else {
        return false;
    };
    let arriving = socket.id.to_string();
    let here = end_here(state, user, returning.page, Some(&arriving));
    let there = end_there(state, user, returning);
    let (here, there) = tokio::join!(here, there);
    let is_settled = here && there;
    let result = if is_settled { "settled" } else { "unsettled" };
    metrics::counter!("chat_gateway_returning_pages_total", "result" => result).increment(1);
    is_settled
}

async fn end_there(state: &SocketState, user: &UserId, returning: &Returning) -> bool {
    let Some(gateway) = &returning.gateway else {
        // It was connected to a gateway of the version before.
        return false;
    };
    if **gateway == *state.relay.ids().owner() {
        return true;
    }
    if state.returns.is_silent(gateway) || !state.core.is_connected() {
        return false;
    }
    match state
        .relay
        .ask_to_end(gateway, user, returning.page, PATIENCE)
        .await
    {
        Ok(is_stored) => is_stored,
        // It is gone. What it did not store then is lost.
        Err(error) if error.kind() == ErrorKind::NoResponders => false,
        Err(error) => {
            if error.kind() == ErrorKind::TimedOut {
                state.returns.note_silence(gateway);
            }
            tracing::debug!(%error, gateway, "what a page got there is not known as it is now");
            false
        }
    }
}

/// Ends the page's sessions here, and says whether it is stored what they got. `arriving` is the engine's id of the
/// connection that the page arrives on.
pub(super) async fn end_here(state: &SocketState, user: &UserId, page: Page, arriving: Option<&str>) -> bool {
    let sessions = state.core.sessions.of_page(user, page);
    for session in &sessions {
        session.end_for_return(arriving);
    }
    let stored = async {
        let Ok(_turn) = state.returns.ending.acquire().await else {
            return;
        };
        for session in sessions {
            session.forgotten().await;
        }
        state.core.stored(user, page).await;
    };
    timeout(ENDING, stored).await.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_gateway_that_hangs_is_not_asked_again_for_a_while() {
        let returns = Returns::default();
        assert!(!returns.is_silent("a"));
        returns.note_silence("a");
        assert!(returns.is_silent("a") && !returns.is_silent("b"));
        tokio::time::advance(SILENCE).await;
        assert!(!returns.is_silent("a"));
        returns.note_silence("b");
        assert_eq!(returns.lock().len(), 1);
    }
}
