//! The JSON form of a service's message: the field names of `SystemMessage` or what protobuf's own JSON mapping makes of
//! them, enum values by name or number. As in protobuf, what is not known is ignored, and `null` is nothing.

use parlance_proto::v1::{MessageType, SenderKind, StreamStep, SystemMessage};
use serde::Deserialize;
use serde_json::Value;

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
    } = serde_json::from_slice(payload).map_err(|_| problem(payload))?;
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

/// Fields that hold text, in both spellings.
const TEXTS: [[&str; 2]; 5] = [
    ["sender_id", "senderId"],
    ["sender_name", "senderName"],
    ["content", "content"],
    ["metadata_json", "metadataJson"],
    ["reply_to", "replyTo"],
];
/// Fields that hold an enum value, in both spellings.
const ENUMS: [[&str; 2]; 3] = [
    ["sender_kind", "senderKind"],
    ["type", "type"],
    ["stream", "stream"],
];

/// Why a payload is not a message: the field, or the position where it stops being JSON. The text of a serde error may quote
/// the payload; this does not.
fn problem(payload: &[u8]) -> String {
    let fields = match serde_json::from_slice(payload) {
        Ok(Value::Object(fields)) => fields,
        Ok(_) => return "the payload is not a JSON object".to_owned(),
        Err(error) => {
            let (line, column) = (error.line(), error.column());
            return format!("the payload is not JSON (line {line}, column {column})");
        }
    };
    let is_text = |value: &Value| value.is_string() || value.is_null();
    let is_enum = |value: &Value| is_text(value) || value.as_i64().is_some_and(|n| i32::try_from(n).is_ok());
    for [name, alias] in TEXTS {
        if [name, alias]
            .iter()
            .any(|name| fields.get(*name).is_some_and(|value| !is_text(value)))
        {
            let holds = if name == "metadata_json" {
                " that holds a JSON object"
            } else {
                ""
            };
            return format!("{name} must be a string{holds}");
        }
    }
    for [name, alias] in ENUMS {
        if [name, alias]
            .iter()
            .any(|name| fields.get(*name).is_some_and(|value| !is_enum(value)))
        {
            return format!("{name} must be the name or the number of an enum value");
        }
    }
    let is_offset = |value: &Value| value.is_u64() || value.is_null();
    if fields.get("offset").is_some_and(|value| !is_offset(value)) {
        return "offset must be a whole number from 0 on".to_owned();
    }
    "a field is set more than once".to_owned()
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
    fn a_refusal_names_the_field() {
        for (payload, problem) in [
            (r#"{"content":{"a":1}}"#, "content must be a string"),
            (
                r#"{"metadata_json":{"a":1}}"#,
                "metadata_json must be a string that holds",
            ),
            (r#"{"metadataJson":[]}"#, "metadata_json must be"),
            (r#"{"senderId":7}"#, "sender_id must be a string"),
            (r#"{"replyTo":7}"#, "reply_to must be a string"),
            (r#"{"type":true}"#, "type must be the name or the number"),
            (
                r#"{"senderKind":1e9}"#,
                "sender_kind must be the name or the number",
            ),
            (r#"{"type":4294967296}"#, "type must be the name or the number"),
            (r#"{"sender_id":"a","senderId":"b"}"#, "more than once"),
            (r#"{"content":"a","content":"b"}"#, "more than once"),
            ("[]", "not a JSON object"),
            (r#"["a"]"#, "not a JSON object"),
            (r#"{"content":"x",}"#, "not JSON (line 1, column 16)"),
            ("", "not JSON"),
        ] {
            let error = parse(payload.as_bytes()).unwrap_err();
            assert!(error.contains(problem), "{payload}: {error}");
        }
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
