//! How REST writes messages, conversations and threads: as the caller's dialect does, or for callers whose dialect
//! nothing names as their prefix does. A [`super::Dialect`] is a representation; two more are [`Older`] and [`Current`].
//! Pure.

use parlance_proto::v1::{Conversation, Message, Thread};
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::chats::Chats;
use super::encrypted::{self, Encrypted};
use super::inbox::Inbox;
use super::journal::{self, Journal};
use super::native::{Native, json as native};
use super::threads::Threads;
use super::{Place, Streams, camel, encode, union, wide};

/// How one kind of caller reads what REST answers with.
pub trait Representation: Send + Sync + std::fmt::Debug {
    /// Whether histories hold the tombstones of deleted messages; a front end that does not know them would show
    /// empty rows.
    fn keeps_tombstones(&self) -> bool {
        false
    }

    /// How a message that streams is shown; `None` with its chunks.
    fn streams(&self) -> Option<Streams>;

    /// Whether messages are written with how far they have come, for which their [`Place`] is needed.
    fn shows_receipts(&self) -> bool {
        false
    }

    /// Whether it is forbidden, instead of not found, what a non-member asks for. Both are said alike of a
    /// conversation that does not exist.
    fn forbids_non_members(&self) -> bool {
        false
    }

    /// Whether the front end knows no roles: the groups it makes are open.
    fn is_without_roles(&self) -> bool {
        false
    }

    /// Whether threads are read beside the main line, which is without their messages.
    fn separates_threads(&self) -> bool {
        false
    }

    /// Writes a message.
    fn message(&self, message: &Message, place: Option<&Place>) -> Box<RawValue>;

    /// Writes a message on the routes of ciphertext.
    fn ciphertext(&self, message: &Message, place: Option<&Place>) -> Box<RawValue> {
        self.message(message, place)
    }

    /// Writes a conversation for one of its participants.
    fn conversation(&self, conversation: &Conversation, viewer: &str) -> Box<RawValue>;

    /// Writes a thread.
    fn thread(&self, thread: &Thread) -> Box<RawValue> {
        encode(&native::thread(thread))
    }
}

/// Under `/api`, where nothing names a dialect: serves the front ends of ciphertext and of threads.
#[derive(Debug)]
pub struct Older(Streams);

impl Older {
    /// With messages that stream shown like that.
    pub fn showing(streams: Streams) -> &'static Self {
        match streams {
            Streams::Edits => &Self(Streams::Edits),
            Streams::Finished => &Self(Streams::Finished),
        }
    }
}

/// Under `/api/v1`, where nothing names a dialect: native, and what a list of conversations needs.
#[derive(Debug)]
pub struct Current;

impl Representation for Older {
    fn streams(&self) -> Option<Streams> {
        Some(self.0)
    }

    fn is_without_roles(&self) -> bool {
        true
    }

    fn separates_threads(&self) -> bool {
        true
    }

    fn forbids_non_members(&self) -> bool {
        true
    }

    fn message(&self, message: &Message, place: Option<&Place>) -> Box<RawValue> {
        encode(&wide::ciphertext(message, place))
    }

    fn conversation(&self, conversation: &Conversation, viewer: &str) -> Box<RawValue> {
        encode(&wide::conversation(conversation, wide::Style::Older { viewer }))
    }

    fn thread(&self, thread: &Thread) -> Box<RawValue> {
        encode(&wide::thread(thread))
    }
}

impl Representation for Current {
    fn keeps_tombstones(&self) -> bool {
        true
    }

    fn streams(&self) -> Option<Streams> {
        None
    }

    fn message(&self, message: &Message, _: Option<&Place>) -> Box<RawValue> {
        encode(&wide::message(message))
    }

    fn ciphertext(&self, message: &Message, place: Option<&Place>) -> Box<RawValue> {
        encode(&wide::ciphertext(message, place))
    }

    fn conversation(&self, conversation: &Conversation, _: &str) -> Box<RawValue> {
        encode(&wide::conversation(conversation, wide::Style::Current))
    }

    fn thread(&self, thread: &Thread) -> Box<RawValue> {
        encode(&wide::thread(thread))
    }
}

impl Representation for Native {
    fn keeps_tombstones(&self) -> bool {
        true
    }

    fn streams(&self) -> Option<Streams> {
        None
    }

    fn message(&self, message: &Message, _: Option<&Place>) -> Box<RawValue> {
        encode(&native::message(message))
    }

    fn conversation(&self, conversation: &Conversation, _: &str) -> Box<RawValue> {
        encode(&native::conversation(conversation))
    }
}

impl Representation for Journal {
    fn streams(&self) -> Option<Streams> {
        Some(self.0)
    }

    fn shows_receipts(&self) -> bool {
        true
    }

    fn message(&self, message: &Message, place: Option<&Place>) -> Box<RawValue> {
        encode(&journal::message(message, place))
    }

    fn conversation(&self, conversation: &Conversation, _: &str) -> Box<RawValue> {
        encode(&journal::conversation(conversation))
    }
}

impl Representation for Encrypted {
    fn streams(&self) -> Option<Streams> {
        Some(self.0)
    }

    fn shows_receipts(&self) -> bool {
        true
    }

    fn forbids_non_members(&self) -> bool {
        true
    }

    fn message(&self, message: &Message, place: Option<&Place>) -> Box<RawValue> {
        encode(&encrypted::message(message, place))
    }

    fn conversation(&self, conversation: &Conversation, _: &str) -> Box<RawValue> {
        encode(&wide::conversation(conversation, wide::Style::Encrypted))
    }
}

/// The dialects that share the form of [`union`].
macro_rules! shares_union {
    ($($dialect:ident { $($own:item)* })*) => {
        $(impl Representation for $dialect {
            $($own)*

            fn streams(&self) -> Option<Streams> {
                Some(self.0)
            }

            fn message(&self, message: &Message, _: Option<&Place>) -> Box<RawValue> {
                encode(&union::message(message))
            }

            fn conversation(&self, conversation: &Conversation, _: &str) -> Box<RawValue> {
                encode(&union::conversation(conversation, union::Style::$dialect))
            }

            fn thread(&self, thread: &Thread) -> Box<RawValue> {
                encode(&camel::thread(thread))
            }
        })*
    };
}
shares_union!(
    Chats {}
    Threads {
        fn is_without_roles(&self) -> bool {
            true
        }

        fn separates_threads(&self) -> bool {
            true
        }
    }
    Inbox {}
);

/// One object with the fields of both; neither may be empty.
pub fn united(one: &RawValue, other: &impl Serialize) -> Box<RawValue> {
    let other = encode(other);
    let united = one.get().strip_suffix('}').zip(other.get().strip_prefix('{'));
    united
        .and_then(|(one, other)| RawValue::from_string(format!("{one},{other}")).ok())
        .unwrap_or_else(|| one.to_owned())
}

/// A message as the caller's dialect writes it; without one the first.
#[derive(ToSchema)]
#[serde(untagged)]
#[schema(as = AnyMessage)]
pub enum AnyMessage<'a> {
    /// No dialect is named.
    Wide(wide::MessageJson<'a>),
    /// `native`.
    Native(native::MessageJson<'a>),
    /// `journal`.
    Journal(journal::MessageJson<'a>),
    /// `encrypted`.
    Encrypted(encrypted::MessageJson<'a>),
    /// `chats`, `threads` and `inbox`.
    Union(union::MessageJson<'a>),
}

/// A conversation as the caller's dialect writes it; without one, and in `encrypted`, the first.
#[derive(ToSchema)]
#[serde(untagged)]
#[schema(as = AnyConversation)]
#[expect(clippy::large_enum_variant, reason = "only its schema is used")]
pub enum AnyConversation<'a> {
    /// No dialect is named, or `encrypted`.
    Wide(wide::ConversationJson<'a>),
    /// `native`.
    Native(native::ConversationJson<'a>),
    /// `journal`.
    Journal(journal::ConversationJson<'a>),
    /// `chats`, `threads` and `inbox`.
    Union(union::ConversationJson<'a>),
}

/// A thread as the caller's dialect writes it; without one the first.
#[derive(ToSchema)]
#[serde(untagged)]
#[schema(as = AnyThread)]
pub enum AnyThread<'a> {
    /// No dialect is named.
    Wide(wide::ThreadJson<'a>),
    /// `native`, `journal` and `encrypted`.
    Native(native::ThreadJson<'a>),
    /// `chats`, `threads` and `inbox`.
    Camel(camel::ThreadJson<'a>),
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::super::{DIALECTS, samples};
    use super::*;

    fn read(raw: &RawValue) -> Value {
        serde_json::from_str(raw.get()).unwrap()
    }

    #[test]
    fn under_api_both_kinds_of_front_ends_find_their_fields() {
        let (text, cipher) = (samples::text(), samples::ciphertext());
        let message = read(&Older(Streams::Finished).message(text, None));
        for key in [
            "_id",
            "id",
            "conversation_id",
            "conversationId",
            "sender_id",
            "senderId",
            "senderType",
            "message_type",
            "messageType",
            "created_at",
            "createdAt",
            "content",
            "content_encrypted",
        ] {
            assert!(!message[key].is_null(), "{key} is missing in {message}");
        }
        let conversation = Conversation {
            last_message: Some(cipher.clone()),
            ..samples::conversation().clone()
        };
        let row = read(&Older(Streams::Finished).conversation(&conversation, "viewer"));
        assert_eq!(row["type"], row["kind"]);
        assert!(row["participants"][0].is_string(), "{row}");
        assert_eq!(row["members"][0]["user_id"], row["participants"][0]);
        let [viewer, other] = &conversation.participants[..] else {
            panic!("a direct conversation is one of two");
        };
        let row = read(&Older(Streams::Finished).conversation(&conversation, &viewer.user_id));
        assert_eq!(row["title"], other.username);
        for last in ["last_message", "lastMessage"] {
            assert_eq!(row[last]["content_encrypted"], cipher.content);
            assert_eq!(row[last]["content"], cipher.content);
            assert!(row[last]["sender_id"].is_string());
        }
    }

    #[test]
    fn under_api_v1_a_row_has_a_preview_and_a_timestamp_beside_the_native_fields() {
        let conversation = Conversation {
            last_message: Some(samples::text().clone()),
            ..samples::conversation().clone()
        };
        let (row, native) = (
            read(&Current.conversation(&conversation, "viewer")),
            read(&Native.conversation(&conversation, "viewer")),
        );
        assert_eq!(row["lastMessage"], samples::text().content);
        assert_eq!(row["timestamp"], native["last_message"]["created_at"]);
        for (key, value) in native.as_object().unwrap() {
            if key == "last_message" {
                continue;
            }
            assert_eq!(&row[key], value, "{key}");
        }
        for (key, value) in native["last_message"].as_object().unwrap() {
            assert_eq!(&row["last_message"][key], value, "{key}");
        }
        assert!(row["last_message"].get("content_encrypted").is_none());
    }

    #[test]
    fn a_dialect_writes_over_rest_what_it_writes_over_sockets() {
        use crate::dialect::Answer;
        let place = samples::direct();
        for dialect in DIALECTS {
            let answer = read(&dialect.answer(Ok(&Answer::Message(samples::text().clone())), Some(place)));
            let message = read(&dialect.message(samples::text(), Some(place)));
            assert_eq!(answer["message"], message, "{}", dialect.name());
            let answer = dialect.answer(
                Ok(&Answer::Conversation(samples::conversation().clone())),
                Some(place),
            );
            let joined = read(&answer)["conversation"].clone();
            // The dialect that joins nothing by hand is not answered with a conversation.
            if !joined.is_null() {
                let conversation = read(&dialect.conversation(samples::conversation(), "viewer"));
                assert_eq!(joined, conversation, "{}", dialect.name());
            }
        }
    }
}
