//! What the generator says to a server: the dialects it can speak, as JSON by hand.
//!
//! Must not know frames or connections.

use clap::ValueEnum;

/// A dialect of the generator. The peer speaks `chats`; Parlance speaks either.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Dialect {
    /// Conversations are joined by hand.
    Native,
    /// All conversations of a user are joined at connect.
    Chats,
}

impl Dialect {
    /// What CONNECT carries. `since` is a JSON object of positions by conversation, empty for none.
    #[must_use]
    pub fn auth(self, token: &str, since: &str) -> String {
        let name = match self {
            Self::Native => "native",
            Self::Chats => "chats",
        };
        let since = if since.is_empty() { "{}" } else { since };
        format!(r#"{{"token":"{token}","dialect":"{name}","since":{since}}}"#)
    }

    /// Event and payload that join a conversation.
    #[must_use]
    pub fn join(self, conversation: &str) -> (&'static str, String) {
        match self {
            Self::Native => (
                "conversation:join",
                format!(r#"{{"conversation_id":"{conversation}"}}"#),
            ),
            Self::Chats => ("chat:join", format!(r#"{{"chatId":"{conversation}"}}"#)),
        }
    }

    /// Event and payload that send a message. Content and id need no escapes.
    #[must_use]
    pub fn send(self, conversation: &str, client_id: &str, content: &str) -> (&'static str, String) {
        let payload = match self {
            Self::Native => format!(
                r#"{{"conversation_id":"{conversation}","client_msg_id":"{client_id}","content":"{content}"}}"#
            ),
            Self::Chats => format!(
                r#"{{"chatId":"{conversation}","clientMsgId":"{client_id}","content":"{content}","messageType":"text"}}"#
            ),
        };
        ("message:send", payload)
    }

    /// Event and payload that mark a message as read.
    #[must_use]
    pub fn read(self, conversation: &str, message: &str) -> (&'static str, String) {
        match self {
            Self::Native => ("receipt:read", format!(r#"{{"message_ids":["{message}"]}}"#)),
            Self::Chats => (
                "message:read",
                format!(r#"{{"chatId":"{conversation}","messageId":"{message}"}}"#),
            ),
        }
    }

    /// Whether an acknowledgement is positive.
    #[must_use]
    pub fn accepts(self, ack: &str) -> bool {
        match self {
            Self::Native => ack.starts_with(r#"{"ok":true"#),
            Self::Chats => ack.contains(r#""success":true"#),
        }
    }

    /// The event that delivers a message.
    #[must_use]
    pub fn delivery(self) -> &'static str {
        "message:new"
    }

    /// The conversation that a delivered message names.
    #[must_use]
    pub fn conversation(self, message: &str) -> Option<&str> {
        let field = match self {
            Self::Native => r#""conversation_id":""#,
            Self::Chats => r#""chat_id":""#,
        };
        let (_, rest) = message.split_once(field)?;
        rest.split_once('"').map(|(id, _)| id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_sent_is_json() {
        for dialect in [Dialect::Native, Dialect::Chats] {
            let payloads = [
                dialect.auth("token", ""),
                dialect.join("c").1,
                dialect.send("c", "m-1", "hello").1,
                dialect.read("c", "m").1,
            ];
            for payload in payloads {
                serde_json::from_str::<serde_json::Value>(&payload).unwrap();
            }
        }
    }

    #[test]
    fn a_message_names_its_conversation_and_an_ack_its_outcome() {
        assert_eq!(
            Dialect::Native.conversation(r#"{"id":"m","conversation_id":"c"}"#),
            Some("c")
        );
        assert_eq!(
            Dialect::Chats.conversation(r#"{"id":"m","chat_id":"c"}"#),
            Some("c")
        );
        assert!(Dialect::Native.accepts(r#"{"ok":true}"#));
        assert!(!Dialect::Native.accepts(r#"{"ok":false,"error":{}}"#));
        assert!(!Dialect::Chats.accepts(r#"{"success":false}"#));
    }
}
