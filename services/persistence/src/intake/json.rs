//! The JSON form of a service's message: the field names of `SystemMessage`, enum values by name or number.

use parlance_proto::v1::{MessageType, SenderKind, SystemMessage};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonMessage {
    sender_id: String,
    #[serde(default)]
    sender_name: String,
    #[serde(default)]
    sender_kind: Option<Name>,
    #[serde(default, rename = "type")]
    message_type: Option<Name>,
    #[serde(default)]
    content: String,
    #[serde(default)]
    metadata_json: String,
    #[serde(default)]
    reply_to: Option<String>,
}

/// An enum value: `"AGENT"`, `"SENDER_KIND_AGENT"`, `"agent"` or `2`.
#[derive(Deserialize)]
#[serde(untagged)]
enum Name {
    Number(i32),
    Text(String),
}

/// Reads a message.
///
/// # Errors
/// What is wrong, without content.
pub(super) fn parse(payload: &[u8]) -> Result<SystemMessage, String> {
    let JsonMessage {
        sender_id,
        sender_name,
        sender_kind,
        message_type,
        content,
        metadata_json,
        reply_to,
    } = serde_json::from_slice(payload).map_err(|error| {
        // The text of a serde error may quote the payload; its place does not.
        format!(
            "the payload is no JSON SystemMessage (line {}, column {})",
            error.line(),
            error.column()
        )
    })?;
    let kind = number(sender_kind, "SENDER_KIND_", |name| {
        SenderKind::from_str_name(name).map(i32::from)
    })
    .ok_or("sender_kind must be AGENT or SYSTEM")?;
    let message_type = number(message_type, "MESSAGE_TYPE_", |name| {
        MessageType::from_str_name(name).map(i32::from)
    })
    .ok_or("type is not a known message type")?;
    Ok(SystemMessage {
        sender_id,
        sender_name,
        sender_kind: kind,
        r#type: message_type,
        content,
        metadata_json,
        reply_to,
    })
}

fn number(name: Option<Name>, prefix: &str, find: impl Fn(&str) -> Option<i32>) -> Option<i32> {
    match name {
        None => Some(0),
        Some(Name::Number(number)) => Some(number),
        Some(Name::Text(text)) => {
            let upper = text.to_ascii_uppercase();
            find(&upper).or_else(|| find(&format!("{prefix}{upper}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_in_every_spelling() {
        for kind in ["\"AGENT\"", "\"agent\"", "\"SENDER_KIND_AGENT\"", "2"] {
            let payload = format!(r#"{{"sender_id":"bot","sender_kind":{kind},"content":"x"}}"#);
            assert_eq!(
                parse(payload.as_bytes()).unwrap().sender_kind(),
                SenderKind::Agent,
                "{kind}"
            );
        }
    }

    #[test]
    fn unknown_fields_and_values_are_refused_without_quoting() {
        for payload in [
            r#"{"sender_id":"bot","secret":"s3cret"}"#,
            r#"{"sender_id":"bot","type":"s3cret"}"#,
            r#"{"content":"s3cret"}"#,
            "s3cret",
        ] {
            let error = parse(payload.as_bytes()).unwrap_err();
            assert!(!error.contains("s3cret"), "{error}");
        }
    }
}
