//! The conversation something happens in, and the forms ids take: what every dialect needs to name things.
//! Pure.

use std::borrow::Cow;

use parlance_proto::v1::{ConversationKind, Message, Participant};
use parlance_proto::{ConversationId, InvalidId, MessageId, UserId};
use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};
use uuid::Uuid;

use super::{ConversationRef, MessageRef};

/// Largest integer a JSON number holds exactly in every client.
pub const SAFE_INTEGER: i64 = (1 << 53) - 1;

/// Most participants that one event lists.
pub const LISTED: usize = 100;

/// A conversation as its room knows it.
#[derive(Debug, Clone, PartialEq)]
pub struct Place {
    /// UUID.
    pub id: ConversationId,
    /// Unique number.
    pub number: i64,
    /// Direct, group or journal.
    pub kind: ConversationKind,
    /// Empty for direct.
    pub title: String,
    /// Current participants: all of them, or none where the group is too large to be held here.
    pub participants: Vec<Participant>,
    /// How many there are.
    pub participant_count: u64,
    /// The seq of the latest durable change: of the very one that is being told.
    pub head_seq: u64,
}

impl Place {
    /// A conversation of which nothing but its names is known.
    pub fn unknown(id: ConversationId, number: i64) -> Self {
        Self {
            id,
            number,
            kind: ConversationKind::Unspecified,
            title: String::new(),
            participants: Vec::new(),
            participant_count: 0,
            head_seq: 0,
        }
    }

    /// Whether all participants are held here.
    pub fn is_whole(&self) -> bool {
        self.participants.len() as u64 >= self.participant_count
    }

    /// The participants that an event lists; `None` where they are not held here.
    pub fn listed(&self) -> Option<&[Participant]> {
        let most = self.participants.len().min(LISTED);
        self.is_whole().then(|| &self.participants[..most])
    }

    /// Whether an event lists all participants.
    pub fn lists_all(&self) -> bool {
        self.is_whole() && self.participants.len() <= LISTED
    }

    /// The other participant of a direct conversation.
    pub fn other_than(&self, user: &str) -> Option<&Participant> {
        let direct = self.kind == ConversationKind::Direct;
        self.participants
            .iter()
            .find(|participant| direct && participant.user_id != user)
    }

    /// The participant of that id.
    pub fn participant(&self, user: &str) -> Option<&Participant> {
        self.participants
            .iter()
            .find(|participant| participant.user_id == user)
    }
}

/// The number form of a user: the id itself where it is a JS-safe integer in plain decimal, else the
/// negative of the user's own unique number, so that the two never meet.
pub fn user_number(id: &str, number: i64) -> i64 {
    match id.parse::<i64>() {
        Ok(own) if own.to_string() == id && (0..=SAFE_INTEGER).contains(&own) => own,
        _ => -number,
    }
}

/// The number form of a message; 0 beyond what numbers can hold.
pub fn message_number(message: &Message) -> i64 {
    MessageId::number(message.conversation_number, message.seq).unwrap_or_default()
}

/// What ids may be, for people.
const ID: &str = "a UUID, or a number from 1 to 9007199254740991";

/// An id as clients write it: UUID, number or numeric string.
struct AnyId<'de> {
    text: Cow<'de, str>,
    is_number: bool,
}

impl<'de> Deserialize<'de> for AnyId<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnyIdVisitor;
        impl<'de> Visitor<'de> for AnyIdVisitor {
            type Value = AnyId<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(ID)
            }

            fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(AnyId {
                    text: Cow::Borrowed(text),
                    is_number: false,
                })
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(AnyId {
                    text: Cow::Owned(text.to_owned()),
                    is_number: false,
                })
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Self::Value, E> {
                Ok(AnyId {
                    text: Cow::Owned(number.to_string()),
                    is_number: true,
                })
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Self::Value, E> {
                Ok(AnyId {
                    text: Cow::Owned(number.to_string()),
                    is_number: true,
                })
            }

            fn visit_f64<E: de::Error>(self, number: f64) -> Result<Self::Value, E> {
                // 5.0 is 5 in JavaScript; anything else is no id.
                Ok(AnyId {
                    text: Cow::Owned(number.to_string()),
                    is_number: true,
                })
            }
        }
        deserializer.deserialize_any(AnyIdVisitor)
    }
}

impl AnyId<'_> {
    fn read<T, E: de::Error>(&self, parse: impl Fn(&str) -> Result<T, InvalidId>) -> Result<T, E> {
        let there = de::Unexpected::Other(if self.is_number { "integer" } else { "text" });
        parse(&self.text).map_err(|_| E::invalid_value(there, &ID))
    }
}

/// An id that is none of the forms there are.
fn no_id(kind: &'static str) -> InvalidId {
    InvalidId {
        kind,
        problem: "is neither a UUID nor a number from 1 to 9007199254740991",
    }
}

impl ConversationRef {
    /// Reads a conversation id in any of its forms.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(text: &str) -> Result<Self, InvalidId> {
        match number(text) {
            Some(number) => Ok(Self::Number(number)),
            None => text.parse().map(Self::Id).map_err(|_| no_id("conversation id")),
        }
    }
}

impl MessageRef {
    /// Reads a message id in any of its forms.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(text: &str) -> Result<Self, InvalidId> {
        match number(text) {
            Some(number) => Ok(Self::Number(number)),
            None => text.parse().map(Self::Id).map_err(|_| no_id("message id")),
        }
    }
}

impl<'de> Deserialize<'de> for ConversationRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        AnyId::deserialize(deserializer)?.read(Self::parse)
    }
}

impl<'de> Deserialize<'de> for MessageRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        AnyId::deserialize(deserializer)?.read(Self::parse)
    }
}

/// A user as clients name them: the id as text, or as a number where it is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserRef(pub UserId);

impl<'de> Deserialize<'de> for UserRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let AnyId { text, is_number } = AnyId::deserialize(deserializer)?;
        if is_number && text != "0" && number(&text).is_none() {
            // Negative ones are how users without a number of their own are shown, beyond 2^53 others are meant.
            return Err(de::Error::custom(
                "a user id as number is whole, not negative and below 2^53",
            ));
        }
        UserId::parse(text).map(Self).map_err(de::Error::custom)
    }
}

/// A positive number below 2^53 in plain decimal.
fn number(text: &str) -> Option<i64> {
    let number = text.parse::<i64>().ok()?;
    ((1..=SAFE_INTEGER).contains(&number) && number.to_string() == text).then_some(number)
}

/// A thread id in a payload.
pub fn thread_id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Uuid>, D::Error> {
    let text = Option::<Cow<'de, str>>::deserialize(deserializer)?;
    let none = || de::Error::invalid_value(de::Unexpected::Other("text"), &"a UUID");
    let parse = |text: Cow<'_, str>| Uuid::try_parse(&text).map_err(|_| none());
    text.map(parse).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_in_every_form() {
        let uuid = "0190a6e0-0000-7000-8000-000000000001";
        let read = |json: &str| serde_json::from_str::<ConversationRef>(json).ok();
        assert_eq!(read("7"), Some(ConversationRef::Number(7)));
        assert_eq!(read("7.0"), Some(ConversationRef::Number(7)));
        assert_eq!(read("\"7\""), Some(ConversationRef::Number(7)));
        assert_eq!(
            read(&format!("\"{uuid}\"")),
            Some(ConversationRef::Id(uuid.parse().unwrap()))
        );
        for bad in [
            "0",
            "-1",
            "\"07\"",
            "1.5",
            "1e300",
            "9007199254740992",
            "\"x\"",
            "null",
            "[]",
            "{}",
        ] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_user_is_named_by_text_or_by_a_whole_number() {
        let read = |json: &str| {
            serde_json::from_str::<UserRef>(json)
                .ok()
                .map(|UserRef(id)| id.to_string())
        };
        for (json, id) in [
            ("7", "7"),
            ("7.0", "7"),
            ("0", "0"),
            ("\"7\"", "7"),
            ("\"-7\"", "-7"),
            ("9007199254740991", "9007199254740991"),
            ("\"alice\"", "alice"),
        ] {
            assert_eq!(read(json).as_deref(), Some(id), "{json}");
        }
        for bad in [
            "-7",
            "1.5",
            "9007199254740992",
            "1e300",
            "\"\"",
            "\"a b\"",
            "true",
            "null",
            "[7]",
            "{}",
        ] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn numbers_of_users_never_meet() {
        assert_eq!(user_number("42", 7), 42);
        assert_eq!(user_number("alice", 42), -42);
        assert_eq!(user_number("042", 7), -7);
        assert_eq!(user_number("-5", 7), -7);
        assert_eq!(user_number("9007199254740992", 7), -7);
    }
}
