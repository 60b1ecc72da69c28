//! Pages that are back. A page that connects again names the gateway it was connected to before; that one ends what it
//! still has of the page and stores what the page got there, and only then is the page told what it missed. Without it
//! the page would be told once more what is not stored yet.
//!
//! A gateway that is gone has stored what it could: nobody waits for it. Must not look at another user's pages.

use std::time::Duration;

use parlance_bus::ErrorKind;
use parlance_proto::UserId;

use super::page::{Page, Returning};
use crate::app::Shared;

/// How long the gateway before may take. After that the page is told what is known to be missing, maybe twice.
const PATIENCE: Duration = Duration::from_secs(2);

/// Waits until it is stored what the page got where it was connected before.
pub(super) async fn settle(shared: &Shared, user: &UserId, returning: &Returning) {
    let Some(gateway) = &returning.gateway else {
        return;
    };
    if **gateway == *shared.relay.ids().owner() {
        drop(tokio::time::timeout(PATIENCE, end_here(shared, user, returning.page)).await);
        return;
    }
    match shared
        .relay
        .tell_returned(gateway, user, returning.page, PATIENCE)
        .await
    {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::NoResponders => {}
        Err(error) => {
            tracing::debug!(%error, gateway, "what a page was emitted there is not known as it is now");
        }
    }
}

/// Ends the page's sessions here, and waits until it is stored what they got.
pub(super) async fn end_here(shared: &Shared, user: &UserId, page: Page) {
    for session in shared.sessions.of_page(user, page) {
        session.page_is_back();
        session.let_go().await;
    }
    shared.served.stored(user, page).await;
}
