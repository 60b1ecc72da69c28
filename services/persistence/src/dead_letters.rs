//! Parks what cannot be processed as dead letters, for an operator: each is stored, counted and logged once. Must not decide
//! what is parked: commands, messages of services and pushes have rules of their own.

use std::time::Duration;

use parlance_runtime::backoff::Backoff;

use crate::database::Database;
use crate::error::without_content;
use crate::store::dead_letters::{self as store, DeadLetter};

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Parks a dead letter, for as long as it takes; one that is parked already stays as it is.
pub(crate) async fn park(database: &Database, letter: &DeadLetter) {
    park_all(database, std::slice::from_ref(letter), || true).await;
}

/// Parks dead letters together, for as long as it takes or `ours` says so. Whether they are parked.
pub(crate) async fn park_all(database: &Database, letters: &[DeadLetter], ours: impl Fn() -> bool) -> bool {
    if letters.is_empty() {
        return true;
    }
    let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
    let new = loop {
        let inserted = async {
            let mut connection = database.writes.acquire().await?;
            store::insert(&mut connection, letters).await
        };
        match inserted.await {
            Ok(new) => break new,
            Err(error) => {
                let error = without_content(&error);
                tracing::warn!(error, "dead letters are not stored; trying again");
                if !ours() {
                    return false;
                }
                backoff.pause().await;
            }
        }
    };
    for letter in letters.iter().filter(|letter| new.contains(&letter.id)) {
        let kind = store::kind(&letter.subject);
        metrics::counter!("chat_persistence_dead_letters_total", "kind" => kind).increment(1);
        let command = letter.command_id.as_deref().unwrap_or_default();
        let (subject, cause) = (letter.subject.as_str(), letter.error.as_str());
        if kind == "system" {
            tracing::warn!(dead_letter = %letter.id, command, subject, cause, "parked a service's message that is refused");
        } else {
            tracing::error!(
                dead_letter = %letter.id,
                command,
                subject,
                cause,
                "parked what cannot be processed; see the table dead_letters"
            );
        }
    }
    true
}
