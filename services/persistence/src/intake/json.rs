//! The JSON form of a service's message: the field names of `SystemMessage` or what protobuf's own JSON mapping makes of
//! them, enum values by name or number. As in protobuf, what is not known is ignored, and `null` is nothing.

use parlance_proto::v1::{MessageType, SenderKind, StreamStep, SystemMessage};
use serde::Deserialize;

#[derive(Deserialize)]
struct JsonMessage {
    #[serde(alias = "senderId")]
    sender_id: Option<String>,
    #[serde(alias = "senderName")]
    sender_name: Option<String>,
    #[serde(alias = "senderKind")]
    sender_kind: Option<Name>,
    #[serde(rename = "type")]
    message_type: Option<Name>,
    content: Option<String>,
    #[serde(alias = "metadataJson")]
    metadata_json: Option<String>,
    #[serde(alias = "replyTo")]
    reply_to: Option<String>,
    stream: Option<Name>,
    offset: Option<u64>,
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
        stream,
        offset,
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
    let stream = number(stream, "STREAM_STEP_", |name| {
        StreamStep::from_str_name(name).map(i32::from)
    })
    .ok_or("stream must be START, APPEND, FINISH or CANCEL")?;
    Ok(SystemMessage {
        sender_id: sender_id.unwrap_or_default(),
        sender_name: sender_name.unwrap_or_default(),
        sender_kind: kind,
        r#type: message_type,
        content: content.unwrap_or_default(),
        metadata_json: metadata_json.unwrap_or_default(),
        reply_to,
        stream,
        offset,
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
    fn fields_are_read_as_protobuf_writes_them_and_unknown_ones_ignored() {
        let message = parse(
            br##"{"senderId":"bot","senderName":null,"metadataJson":"{}","replyTo":"#7","content":"x","later":[1]}"##,
        )
        .unwrap();
        let SystemMessage {
            sender_id,
            sender_name,
            metadata_json,
            reply_to,
            ..
        } = message;
        assert_eq!(
            (
                sender_id.as_str(),
                sender_name.as_str(),
                metadata_json.as_str(),
                reply_to.as_deref()
            ),
            ("bot", "", "{}", Some("#7"))
        );
    }

    #[test]
    fn what_cannot_be_read_is_refused_without_quoting() {
        for payload in [
            r#"{"sender_id":"bot","type":"s3cret"}"#,
            r#"{"sender_id":["s3cret"]}"#,
            "s3cret",
        ] {
            let error = parse(payload.as_bytes()).unwrap_err();
            assert!(!error.contains("s3cret"), "{error}");
        }
    }
}
