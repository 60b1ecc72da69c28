//! What is too large for the bus, cut down to what still says what happened. Nothing should be: limits on members,
//! contents and ranges keep what is sent below. But what is committed must reach a final outcome whatever it holds, so
//! the rest is left out, counted and logged. Pure but for the count.

use parlance_bus::MAX_PAYLOAD;
use parlance_proto::v1::{self, Confirmation, confirmation};
use prost::Message;

/// Bytes that the batch around an item may take.
const AROUND: usize = 64;

/// An event that fits: without its body it keeps its place in the sequence, and who needs more reads it.
pub fn cut_event(event: v1::Event) -> v1::Event {
    if fits(&event) {
        return event;
    }
    cut("event", &event.conversation_id, event.encoded_len());
    v1::Event { body: None, ..event }
}

/// A confirmation that fits: what was stored is named by its ids and place.
pub fn cut_confirmation(confirmation: Confirmation) -> Confirmation {
    if fits(&confirmation) {
        return confirmation;
    }
    cut(
        "confirmation",
        &confirmation.command_id,
        confirmation.encoded_len(),
    );
    Confirmation {
        result: confirmation.result.map(bare),
        ..confirmation
    }
}

/// Whether a notice can be sent. One that cannot is left out: it is repaired by `memberships_version` like any that
/// is lost.
pub fn is_sendable(notice: &v1::UserNotice) -> bool {
    let fits = fits(notice);
    if !fits {
        cut("notice", &notice.user_id, notice.encoded_len());
    }
    fits
}

fn fits(message: &impl Message) -> bool {
    message.encoded_len() + AROUND <= MAX_PAYLOAD
}

fn cut(what: &'static str, of: &str, bytes: usize) {
    metrics::counter!("chat_persistence_oversized_total", "what" => what).increment(1);
    tracing::error!(what, of, bytes, "too large for the bus; sent without its content");
}

/// What was stored without anything that can be large.
fn bare(result: confirmation::Result) -> confirmation::Result {
    use confirmation::Result;
    match result {
        Result::Message(message) => Result::Message(v1::Message {
            content: String::new(),
            metadata_json: String::new(),
            reactions: Vec::new(),
            ..message
        }),
        Result::Conversation(conversation) => Result::Conversation(v1::Conversation {
            participants: Vec::new(),
            last_message: None,
            metadata_json: String::new(),
            ..conversation
        }),
        Result::Journal(journal) => Result::Journal(v1::JournalEdited {
            update: Vec::new(),
            ..journal
        }),
        Result::Receipt(receipt) => Result::Receipt(v1::ReceiptUpdated {
            user_id: receipt.user_id,
            version: receipt.version,
            head_seq: receipt.head_seq,
            user_number: receipt.user_number,
            delivered_seq: receipt.delivered_seq,
            unread: receipt.unread,
            at_ms: receipt.at_ms,
            ..Default::default()
        }),
        Result::Thread(thread) => Result::Thread(thread),
        Result::Error(error) => Result::Error(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_large_keeps_its_place_and_its_ids_and_fits() {
        let large = "x".repeat(MAX_PAYLOAD);
        let message = v1::Message {
            id: "m".into(),
            seq: 7,
            content: large.clone(),
            ..Default::default()
        };
        let body = v1::event::Body::MessageCreated(v1::MessageCreated {
            message: Some(message.clone()),
        });
        let small = cut_event(v1::Event {
            conversation_id: "c".into(),
            seq: 7,
            body: Some(body),
            ..Default::default()
        });
        assert_eq!(
            (small.conversation_id.as_str(), small.seq, small.body),
            ("c", 7, None)
        );
        let answer = cut_confirmation(Confirmation {
            command_id: "k".into(),
            repeated: false,
            result: Some(confirmation::Result::Message(message)),
        });
        let Some(confirmation::Result::Message(stored)) = &answer.result else {
            panic!("a message")
        };
        assert_eq!(
            (answer.command_id.as_str(), stored.id.as_str(), stored.seq),
            ("k", "m", 7)
        );
        assert!(fits(&answer));
        let hidden = v1::UserNotice {
            user_id: "u".into(),
            body: Some(v1::user_notice::Body::ConversationRemoved(large)),
            ..Default::default()
        };
        assert!(!is_sendable(&hidden) && is_sendable(&v1::UserNotice::default()));
    }

    #[test]
    fn what_fits_is_left_alone() {
        let whole = v1::Event {
            conversation_id: "x".repeat(MAX_PAYLOAD / 2),
            ..Default::default()
        };
        assert_eq!(cut_event(whole.clone()), whole);
    }
}
