//! Identifiers: parsing, derivation and the numeric forms for clients that type ids as JSON numbers.
//!
//! Making a random or time-based id needs a clock and stays with the services.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

use crate::text::is_visible;

/// Namespace of every derived id. Changing it would give every existing message a second identity.
const NAMESPACE: Uuid = Uuid::from_u128(0x8d3f_6b1a_52c7_4e0b_9a64_f1c0_7d2e_9b35);

/// Bits of a message number that hold the seq; the rest of the 53 safe bits holds the conversation number.
const SEQ_BITS: u32 = 25;
const CONVERSATION_BITS: u32 = 53 - SEQ_BITS;

/// Longest user id in characters.
pub const USER_ID_MAX_CHARS: usize = 128;
/// What the ids of services begin with, and of nobody else: no token makes a user of such an id.
pub const SERVICE_PREFIX: &str = "service:";
/// Longest client message id in characters.
pub const CLIENT_MSG_ID_MAX_CHARS: usize = 64;

/// A text that is no id of the expected kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{kind} {problem}")]
pub struct InvalidId {
    /// Which id was expected.
    pub kind: &'static str,
    /// What is wrong with it.
    pub problem: &'static str,
}

/// A user: the subject of a token, 1 to 128 visible characters.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UserId(String);

/// A conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConversationId(Uuid);

/// A message; unique within its conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageId(Uuid);

/// A command; the same across redeliveries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CommandId(Uuid);

impl UserId {
    /// Accepts 1 to 128 characters, none of them white space, control or invisible formatting.
    ///
    /// # Errors
    /// Names what is wrong.
    pub fn parse(text: impl Into<String>) -> Result<Self, InvalidId> {
        let text = text.into();
        let invalid = |problem| InvalidId {
            kind: "user id",
            problem,
        };
        if text.is_empty() {
            return Err(invalid("is empty"));
        }
        if text.chars().count() > USER_ID_MAX_CHARS {
            return Err(invalid("is longer than 128 characters"));
        }
        if !text.chars().all(is_visible) {
            return Err(invalid("has white space, control or invisible characters"));
        }
        Ok(Self(text))
    }

    /// The id of a service by the name that it gives itself, with or without the prefix. Whatever the name, the id is none
    /// that a user can have.
    ///
    /// # Errors
    /// Names what is wrong.
    pub fn of_service(name: &str) -> Result<Self, InvalidId> {
        let name = name.strip_prefix(SERVICE_PREFIX).unwrap_or(name);
        Self::parse(name)?;
        Self::parse(format!("{SERVICE_PREFIX}{name}"))
    }

    /// Whether it is a service's.
    pub fn is_service(&self) -> bool {
        self.0.starts_with(SERVICE_PREFIX)
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl ConversationId {
    /// The one conversation of two users, whoever asks.
    pub fn direct(a: &UserId, b: &UserId) -> Self {
        let (low, high) = if a <= b { (a, b) } else { (b, a) };
        Self(derive(&["direct", low.as_str(), high.as_str()]))
    }

    /// Wraps an id made by the caller.
    pub fn from_uuid(id: Uuid) -> Self {
        Self(id)
    }

    /// The id as UUID.
    pub fn uuid(self) -> Uuid {
        self.0
    }
}

impl MessageId {
    /// The message a client means by its own id: the same on every replica and for ever.
    pub fn derive(conversation: ConversationId, sender: &UserId, client_msg_id: &str) -> Self {
        let conversation = conversation.to_string();
        Self(derive(&[
            "message",
            &conversation,
            sender.as_str(),
            client_msg_id,
        ]))
    }

    /// The message another service means by its own id of it.
    pub fn of_service(conversation: ConversationId, sender: &UserId, own_id: &str) -> Self {
        // A colon cannot stand in a client's own id: no user's message can have this identity.
        Self::derive(conversation, sender, &format!("system:{own_id}"))
    }

    /// The same message sent again in a life of the conversation that began after this seq, where an earlier life has one
    /// with this id: it is another message.
    #[must_use]
    pub fn in_life(self, history_from: u64) -> Self {
        Self(Uuid::new_v5(&self.0, format!("life:{history_from}").as_bytes()))
    }

    /// Wraps an id made by the caller.
    pub fn from_uuid(id: Uuid) -> Self {
        Self(id)
    }

    /// The id as UUID.
    pub fn uuid(self) -> Uuid {
        self.0
    }

    /// The number form of the message with this place: below 2^53, globally unique, and enough to find
    /// the row. `None` beyond 2^28 conversations or 2^25 changes in one conversation.
    pub fn number(conversation_number: i64, seq: u64) -> Option<i64> {
        let conversation = u64::try_from(conversation_number).ok()?;
        if conversation >> CONVERSATION_BITS != 0 || seq >> SEQ_BITS != 0 || seq == 0 {
            return None;
        }
        i64::try_from(conversation << SEQ_BITS | seq).ok()
    }

    /// The conversation number and seq packed into a message number.
    pub fn unpack_number(number: i64) -> Option<(i64, u64)> {
        let packed = u64::try_from(number).ok()?;
        let seq = packed & ((1 << SEQ_BITS) - 1);
        let conversation = packed >> SEQ_BITS;
        if conversation >> CONVERSATION_BITS != 0 || seq == 0 {
            return None;
        }
        Some((i64::try_from(conversation).ok()?, seq))
    }
}

impl CommandId {
    /// Wraps an id made by the caller.
    pub fn from_uuid(id: Uuid) -> Self {
        Self(id)
    }

    /// The id as UUID.
    pub fn uuid(self) -> Uuid {
        self.0
    }
}

/// Checks a client's own message id: 1 to 64 of `A-Z a-z 0-9 _ -`.
///
/// # Errors
/// Names what is wrong.
pub fn check_client_msg_id(text: &str) -> Result<(), InvalidId> {
    let invalid = |problem| InvalidId {
        kind: "client_msg_id",
        problem,
    };
    if text.is_empty() {
        return Err(invalid("is empty"));
    }
    if text.len() > CLIENT_MSG_ID_MAX_CHARS {
        return Err(invalid("is longer than 64 characters"));
    }
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    if !text.bytes().all(allowed) {
        return Err(invalid("has characters other than A-Z a-z 0-9 _ -"));
    }
    Ok(())
}

/// Length-prefixed parts: no choice of parts can collide with another.
fn derive(parts: &[&str]) -> Uuid {
    let mut name = Vec::new();
    for part in parts {
        name.extend_from_slice(&(part.len() as u64).to_be_bytes());
        name.extend_from_slice(part.as_bytes());
    }
    Uuid::new_v5(&NAMESPACE, &name)
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for UserId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

macro_rules! uuid_id {
    ($name:ident, $kind:literal) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                // Only the hyphenated form: one id has one spelling up to case.
                if text.len() != 36 {
                    return Err(InvalidId {
                        kind: $kind,
                        problem: "is not a UUID",
                    });
                }
                Uuid::try_parse(text).map(Self).map_err(|_| InvalidId {
                    kind: $kind,
                    problem: "is not a UUID",
                })
            }
        }
    };
}

uuid_id!(ConversationId, "conversation id");
uuid_id!(MessageId, "message id");
uuid_id!(CommandId, "command id");

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_id_of_a_service_is_none_that_a_user_can_have() {
        let shop = UserId::of_service("shop").unwrap();
        assert_eq!(shop.as_str(), "service:shop");
        assert_eq!(UserId::of_service("service:shop"), Ok(shop.clone()));
        assert!(shop.is_service() && !UserId::parse("shop").unwrap().is_service());
        for bad in ["", "service:", "a b", &"x".repeat(121)] {
            assert!(UserId::of_service(bad).is_err(), "{bad}");
        }
    }

    fn user(text: &str) -> UserId {
        UserId::parse(text).unwrap()
    }

    #[test]
    fn a_direct_conversation_does_not_depend_on_who_asks() {
        let (alice, bob) = (user("alice"), user("bob"));
        assert_eq!(
            ConversationId::direct(&alice, &bob),
            ConversationId::direct(&bob, &alice)
        );
        assert_ne!(
            ConversationId::direct(&alice, &bob),
            ConversationId::direct(&alice, &alice)
        );
    }

    #[test]
    fn derivation_keeps_parts_apart() {
        assert_ne!(
            ConversationId::direct(&user("ab"), &user("c")),
            ConversationId::direct(&user("a"), &user("bc"))
        );
    }

    #[test]
    fn derived_ids_are_pinned() {
        let conversation = ConversationId::direct(&user("alice"), &user("bob"));
        let message = MessageId::derive(conversation, &user("alice"), "m-1");
        assert_eq!(
            (conversation.to_string(), message.to_string()),
            (PINNED.0.to_owned(), PINNED.1.to_owned())
        );
    }

    /// A change here orphans every stored message: see [`NAMESPACE`].
    const PINNED: (&str, &str) = (
        "f6250e1d-6ad7-5190-ad23-399e751c684e",
        "336d4c7b-aac8-5bef-9df5-34c87e941e70",
    );

    #[test]
    fn user_ids_refuse_what_cannot_be_seen() {
        for bad in [
            "",
            " ",
            "a b",
            "a\0",
            "a\n",
            "a\u{202E}b",
            "a\u{200B}",
            &"x".repeat(129),
        ] {
            assert!(UserId::parse(bad).is_err(), "{bad:?}");
        }
        for good in ["a", "42", "auth0|5f7", "ünïcode", "a.b*c>d", "😀"] {
            assert!(UserId::parse(good).is_ok(), "{good:?}");
        }
    }

    proptest! {
        #[test]
        fn message_numbers_round_trip_below_2_pow_53(c in 0i64..1 << 28, s in 1u64..1 << 25) {
            let number = MessageId::number(c, s).unwrap();
            prop_assert!(number < 1 << 53);
            prop_assert_eq!(MessageId::unpack_number(number), Some((c, s)));
        }

        #[test]
        fn any_number_unpacks_to_itself_or_nothing(n in any::<i64>()) {
            if let Some((c, s)) = MessageId::unpack_number(n) {
                prop_assert_eq!(MessageId::number(c, s), Some(n));
            }
        }
    }
}
