//! Fields that are read under several names, as `#[serde(alias)]` says where they are declared; schemas derived
//! from types know only the first name. A test compares this table with the sources.

use serde_json::{Map, Value, json};

/// Schema, field, further names.
pub const ALIASES: &[(&str, &str, &[&str])] = &[
    ("ConversationCreation", "kind", &["type"]),
    (
        "ConversationCreation",
        "participant_ids",
        &["participantIds", "participants"],
    ),
    (
        "ConversationUpdate",
        "participants",
        &["participant_ids", "participantIds"],
    ),
    ("ConversationUpdate", "read_only", &["readOnly"]),
    ("DirectCreation", "user_id", &["userId"]),
    (
        "EncryptedMessageEdit",
        "content_encrypted",
        &["contentEncrypted", "content"],
    ),
    ("EncryptedMessageToSend", "client_msg_id", &["clientMsgId"]),
    (
        "EncryptedMessageToSend",
        "content_encrypted",
        &["contentEncrypted"],
    ),
    ("EncryptedMessageToSend", "conversation_id", &["conversationId"]),
    ("EncryptedMessageToSend", "message_type", &["messageType", "type"]),
    ("EncryptedMessageToSend", "reply_to", &["replyTo"]),
    ("EncryptedMessageToSend", "thread_id", &["threadId"]),
    ("EncryptedSendPayload", "clientMessageId", &["client_message_id"]),
    ("EncryptedSendPayload", "clientMsgId", &["client_msg_id"]),
    ("EncryptedSendPayload", "contentEncrypted", &["content_encrypted"]),
    ("EncryptedSendPayload", "conversationId", &["conversation_id"]),
    ("EncryptedSendPayload", "messageType", &["message_type", "type"]),
    ("EncryptedSendPayload", "replyTo", &["reply_to"]),
    (
        "GroupCreation",
        "participant_ids",
        &["participantIds", "participants"],
    ),
    ("JournalJournalPayload", "journalId", &["journal_id"]),
    ("JournalSenderPayload", "senderId", &["sender_id"]),
    ("JournalShare", "user_id", &["userId"]),
    ("JournalUpdate", "base_version", &["baseVersion"]),
    ("MessageParts", "clientMsgId", &["client_msg_id"]),
    ("MessageParts", "messageType", &["message_type", "type"]),
    ("MessageParts", "replyTo", &["reply_to"]),
    ("MessageParts", "threadId", &["thread_id"]),
    ("MessageToSend", "client_msg_id", &["clientMsgId"]),
    ("MessageToSend", "reply_to", &["replyTo"]),
    ("MessageToSend", "thread_id", &["threadId"]),
    ("MessageToSend", "type", &["messageType", "message_type"]),
    ("ParticipantAddition", "user_id", &["userId"]),
    (
        "ParticipantAddition",
        "user_ids",
        &["userIds", "participant_ids", "participantIds"],
    ),
    ("ReadParts", "messageId", &["message_id"]),
    ("ReadParts", "messageIds", &["message_ids"]),
    ("ReadParts", "upTo", &["up_to", "upToSeq", "up_to_seq"]),
    ("Reading", "message_ids", &["messageIds"]),
    ("Reading", "up_to_seq", &["upToSeq", "up_to"]),
    ("ThreadCreation", "parent_thread_id", &["parentThreadId"]),
    ("ThreadCreation", "root_message_id", &["rootMessageId"]),
    (
        "ThreadsCreateThreadPayload",
        "parentThreadId",
        &["parent_thread_id"],
    ),
    (
        "ThreadsCreateThreadPayload",
        "rootMessageId",
        &["root_message_id"],
    ),
    ("ThreadsDeletePayload", "messageId", &["message_id"]),
    ("ThreadsEditPayload", "messageId", &["message_id"]),
    ("ThreadsReactPayload", "messageId", &["message_id"]),
    ("ThreadsSwitchThreadPayload", "threadId", &["thread_id"]),
    ("TypingParts", "isTyping", &["is_typing"]),
    ("Whereabouts", "chatId", &["chat_id"]),
    ("Whereabouts", "conversationId", &["conversation_id"]),
];

/// Adds to a derived schema what its type reads beyond it: a field under each of its names, and one of the names
/// where the field is required.
pub fn complete(name: &str, schema: &mut Value) {
    let Some(object) = schema.as_object_mut() else {
        return;
    };
    let mut choices = Vec::new();
    for (_, field, others) in ALIASES.iter().filter(|(schema, ..)| *schema == name) {
        let properties = object.entry("properties").or_insert_with(|| json!({}));
        let same = json!({ "description": format!("The same as `{field}`."), "allOf": [properties[*field]] });
        for other in *others {
            properties[*other] = same.clone();
        }
        if let Some(Value::Array(required)) = object.get_mut("required") {
            let before = required.len();
            required.retain(|required| required != field);
            if required.len() < before {
                choices.push(choice([field].into_iter().chain(*others)));
            }
        }
    }
    if object
        .get("required")
        .is_some_and(|required| *required == json!([]))
    {
        object.remove("required");
    }
    if !choices.is_empty() {
        object.insert("allOf".to_owned(), choices.into());
    }
}

fn choice<'a>(names: impl Iterator<Item = &'a &'a str>) -> Value {
    let each: Vec<_> = names.map(|name| json!({ "required": [name] })).collect();
    json!({ "anyOf": each })
}

/// Says `anyOf` for `oneOf`: variants of an untagged type may well overlap.
pub fn soften(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            if let Some(variants) = object.remove("oneOf") {
                object.insert("anyOf".to_owned(), variants);
            }
            object.values_mut().for_each(soften);
        }
        Value::Array(items) => items.iter_mut().for_each(soften),
        _ => {}
    }
}

/// The named schemas of a document, as far as they are ours to complete.
pub fn complete_all(schemas: &mut Map<String, Value>) {
    for (name, schema) in schemas {
        soften(schema);
        complete(name, schema);
    }
}
