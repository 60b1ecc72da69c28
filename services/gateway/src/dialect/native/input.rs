//! What a client supplies, in any dialect and over REST: checked against every limit before anything else
//! happens, and told what is wrong without having its content repeated.

use std::fmt::{self, Formatter};

use parlance_proto::ids;
use serde::de::value::MapDeserializer;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::message_type;
use crate::dialect::{ConversationRef, MessageRef, SendAction};
use crate::error::ClientError;
use crate::limits::Limits;

/// The parts of a message a client supplies, by socket or REST, in any dialect.
#[derive(Debug, Default)]
pub struct MessageInput<'a> {
    /// See [`ids::check_client_msg_id`].
    pub client_msg_id: Option<String>,
    /// Name of the type.
    pub kind: Option<String>,
    /// Byte-exact.
    pub content: String,
    /// The content is ciphertext.
    pub encrypted: bool,
    /// A JSON object.
    pub metadata: Option<&'a RawValue>,
    /// The message it answers.
    pub reply_to: Option<MessageRef>,
    /// The thread it belongs to.
    pub thread: Option<Uuid>,
}

impl MessageInput<'_> {
    /// Checks what a client wants to send against every limit.
    ///
    /// # Errors
    /// The first limit that is broken.
    pub fn check(self, conversation: ConversationRef, limits: &Limits) -> Result<SendAction, ClientError> {
        if let Some(id) = &self.client_msg_id {
            ids::check_client_msg_id(id)?;
        }
        limits.content(&self.content)?;
        Ok(SendAction {
            conversation,
            client_msg_id: self.client_msg_id,
            kind: message_type(self.kind.as_deref())?,
            metadata: limits.metadata(self.metadata)?,
            content: self.content,
            encrypted: self.encrypted,
            reply_to: self.reply_to,
            thread: self.thread,
        })
    }
}

/// Reads an object. A field that is `null` is as if it were absent.
///
/// # Errors
/// It is no object, or a field is missing or of the wrong type.
pub fn read<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, serde_json::Error> {
    let Fields(fields) = serde_json::from_str(text)?;
    T::deserialize(MapDeserializer::new(fields.into_iter()))
}

/// The fields of an object that are not `null`.
struct Fields<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FieldsVisitor;
        impl<'de> Visitor<'de> for FieldsVisitor {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
                let mut fields = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, &RawValue>()? {
                    if value.get() != "null" {
                        fields.push((name, value));
                    }
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(FieldsVisitor)
    }
}

/// A payload or body that is not the documented JSON. Says what and where, never repeats values.
pub fn unreadable(error: &serde_json::Error) -> ClientError {
    if error.is_data() {
        // "missing field `x` at line …" and "invalid type: …, expected …": the first may be told, the
        // second repeats a value unless cut down to what was expected.
        let text = error.to_string();
        if let Some(field) = text
            .strip_prefix("missing field `")
            .and_then(|t| t.split('`').next())
        {
            return ClientError::invalid(format!("{field} is missing"));
        }
        let place = text
            .rsplit_once(" at line")
            .map_or(text.as_str(), |(before, _)| before);
        if let Some((_, expected)) = place.rsplit_once("expected ") {
            return ClientError::invalid(format!("a field is of the wrong type: expected {expected}"));
        }
        if place.len() < 80 {
            return ClientError::invalid(place);
        }
        return ClientError::invalid("a field has a wrong value");
    }
    ClientError::invalid("not valid JSON, nested too deeply, or a number or character out of range")
}
