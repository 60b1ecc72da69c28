//! Builds and parses subjects. No id can form a wildcard or an extra token.

use async_nats::Subject;
use parlance_proto::v1::control;
use parlance_proto::{ConversationId, InvalidId, UserId};

/// To whom an operator speaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Audience {
    /// Every gateway.
    Gateways,
    /// The gateway of this name.
    Gateway(String),
    /// Any persistence replica.
    Persistence,
}

/// Matches every command of a partition.
pub fn partition_filter(partition: u16) -> String {
    format!("chat.cmd.{partition}.*")
}

/// The subject of a conversation's commands.
pub fn command(conversation: ConversationId, partitions: u16) -> String {
    let partition = partition_of(conversation, partitions);
    format!("chat.cmd.{partition}.{conversation}")
}

/// The partition a conversation's commands belong to; fixed as long as `partitions` is.
pub fn partition_of(conversation: ConversationId, partitions: u16) -> u16 {
    // FNV-1a, the function NATS' own `partition()` mapping uses, so that an operator can
    // reproduce it with a subject mapping.
    let mut hash: u32 = 2_166_136_261;
    for byte in conversation.to_string().bytes() {
        hash = (hash ^ u32::from(byte)).wrapping_mul(16_777_619);
    }
    let partition = hash % u32::from(partitions.max(1));
    u16::try_from(partition).unwrap_or_default()
}

/// The subject of a conversation's committed events.
pub fn events(conversation: ConversationId) -> String {
    format!("chat.evt.{conversation}")
}

/// The subject of a conversation's ephemeral events.
pub fn ephemeral(conversation: ConversationId) -> String {
    format!("chat.eph.{conversation}")
}

/// The subject of a user's notices.
pub fn user(user: &UserId) -> String {
    format!("chat.usr.{}", encode_token(user.as_str()))
}

/// The subject of notices that concern several users. It is that of the empty id, which no user has.
pub const SEVERAL_USERS: &str = "chat.usr._";

/// Matches the notices of all users.
pub const ALL_USERS: &str = "chat.usr.*";

/// The subject of a user's changes of presence.
pub fn presence(user: &UserId) -> String {
    format!("chat.prs.{}", encode_token(user.as_str()))
}

/// Matches the changes of presence of all users.
pub const ALL_PRESENCE: &str = "chat.prs.*";

/// The subject of pushes for messages of a conversation.
pub fn push(conversation: ConversationId) -> String {
    format!("chat.push.{conversation}")
}

/// Matches every push.
pub const ALL_PUSH: &str = "chat.push.>";

/// Nobody listens here: a question to it is answered by the server alone, at once.
pub const PROBE: &str = "chat.probe";

/// The subject of a gateway's confirmations.
pub fn confirmations(gateway: &str) -> String {
    format!("chat.cfm.{}", encode_token(gateway))
}

/// Where an answer goes that somebody asks for; none where that is no inbox. NATS checks where one may publish, not where
/// one asks to be answered: without this a role could have another say things on subjects that are closed to itself.
pub(crate) fn inbox(reply: Option<Subject>) -> Option<Subject> {
    let reply = reply?;
    if reply.as_str().starts_with(INBOX) {
        return Some(reply);
    }
    tracing::warn!("a request asks to be answered elsewhere than in an inbox: not answered");
    None
}

/// The subject of what other gateways tell this one.
pub fn gateway(gateway: &str) -> String {
    format!("chat.gw.{}", encode_token(gateway))
}

/// The subject of a kind of query, to one replica or to any.
pub fn query(name: &'static str, replica: Option<&str>) -> String {
    match replica {
        Some(replica) => format!("chat.qry.{name}.{}", encode_token(replica)),
        None => format!("chat.qry.{name}"),
    }
}

/// Matches every query to one replica.
pub fn queries_to(replica: &str) -> String {
    format!("chat.qry.*.{}", encode_token(replica))
}

/// Matches every query that any replica may answer.
pub const ALL_QUERIES: &str = "chat.qry.*";

/// Matches every command.
pub const ALL_COMMANDS: &str = "chat.cmd.>";

/// Matches every committed event.
pub const ALL_EVENTS: &str = "chat.evt.>";

/// Matches every message of another service.
pub const ALL_SYSTEM: &str = "chat.system.>";

/// Matches every order to the gateways.
pub const ALL_CONTROL: &str = "chat.control.>";

/// The subject of an order to the gateways: what it is about, so that a later order takes its place.
pub fn control(body: &control::Body) -> String {
    let (kind, name) = match body {
        control::Body::DisconnectUser(order) => ("disconnect", &order.user_id),
        control::Body::RevokeToken(order) => ("token", &order.jti),
        control::Body::RevokeUserTokens(order) => ("user", &order.user_id),
    };
    format!("chat.control.{kind}.{}", encode_token(name))
}

/// Where operators reach these.
pub fn operations(audience: &Audience) -> String {
    match audience {
        Audience::Gateways => "chat.ops.gateways".to_owned(),
        Audience::Gateway(name) => format!("chat.ops.gateway.{}", encode_token(name)),
        Audience::Persistence => "chat.ops.persistence".to_owned(),
    }
}

/// The subject of a service's message.
pub fn system(target: &System) -> String {
    match target {
        System::Conversation(id) => format!("chat.system.{id}"),
        System::User(user) => format!("chat.system.user.{}", encode_token(user.as_str())),
    }
}

/// Where a service learns that a reader wants one of its messages to stream no further. `service` is as it calls itself.
pub fn stop(service: &str) -> String {
    format!("chat.stop.{}", encode_token(service))
}

/// Where a system message is to appear.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum System {
    /// In a conversation.
    Conversation(ConversationId),
    /// In the user's own conversation with the sending service.
    User(UserId),
}

/// Reads the target out of a `chat.system.…` subject. A user is accepted in the encoded form.
///
/// # Errors
/// The subject names no valid id.
pub fn parse_system(subject: &str) -> Result<System, InvalidId> {
    let rest = subject.strip_prefix("chat.system.").unwrap_or_default();
    match rest.strip_prefix("user.") {
        Some(token) => {
            let id = decode_token(token).ok_or(InvalidId {
                kind: "user id",
                problem: "is not encoded as described in proto/README.md",
            })?;
            UserId::parse(id).map(System::User)
        }
        None => rest.parse().map(System::Conversation),
    }
}

/// What all inboxes begin with.
const INBOX: &str = "_INBOX.";

/// What the inboxes begin with at which services learn what became of their messages.
pub const SERVICE_INBOX: &str = "_INBOX.emitter";
const SERVICE_REPLY_MAX_BYTES: usize = 256;

/// Whether the outcome of a service's message may be published there: an inbox below [`SERVICE_INBOX`], and nothing else,
/// so that no service has persistence publish what is closed to itself, nor answer another role.
pub fn is_service_reply(subject: &str) -> bool {
    let below = subject.strip_prefix(SERVICE_INBOX);
    subject.len() <= SERVICE_REPLY_MAX_BYTES
        && below.is_some_and(|rest| rest.starts_with('.'))
        && is_inbox_prefix(subject)
}

/// Whether a text can stand before the inboxes of a role: `_INBOX` and any further tokens, without wildcards, of
/// characters that need no escape anywhere. Nobody is answered elsewhere.
pub fn is_inbox_prefix(subject: &str) -> bool {
    let safe = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let mut tokens = subject.split('.');
    tokens.next() == Some("_INBOX") && tokens.all(|token| !token.is_empty() && token.bytes().all(safe))
}

/// Writes any text as one subject token: ASCII letters, digits and `-` stay, every other byte becomes
/// `_` and two upper-case hex digits. Injective; the empty text becomes a lone `_`.
pub fn encode_token(text: &str) -> String {
    if text.is_empty() {
        return "_".to_owned();
    }
    let mut token = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || byte == b'-' {
            token.push(char::from(byte));
        } else {
            token.push('_');
            for digit in [byte >> 4, byte & 15] {
                token.push(char::from(b"0123456789ABCDEF"[usize::from(digit)]));
            }
        }
    }
    token
}

/// The text of a token made by [`encode_token`]; `None` for any other.
pub fn decode_token(token: &str) -> Option<String> {
    if token == "_" {
        return Some(String::new());
    }
    let mut bytes = Vec::with_capacity(token.len());
    let mut rest = token.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'_' {
            let high = char::from(rest.next()?).to_digit(16)?;
            let low = char::from(rest.next()?).to_digit(16)?;
            bytes.push(u8::try_from(high << 4 | low).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    let text = String::from_utf8(bytes).ok()?;
    // Only the spelling we write ourselves, so that one id has one subject.
    (encode_token(&text) == token).then_some(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn conversation() -> ConversationId {
        "0190a6e0-0000-7000-8000-000000000001".parse().unwrap()
    }

    #[test]
    fn a_conversation_stays_in_its_partition() {
        assert_eq!(partition_of(conversation(), 16), partition_of(conversation(), 16));
        assert!(partition_of(conversation(), 16) < 16);
        assert_eq!(partition_of(conversation(), 1), 0);
    }

    #[test]
    fn system_subjects_name_their_target() {
        let target = parse_system(&format!("chat.system.{}", conversation()));
        assert_eq!(target, Ok(System::Conversation(conversation())));
        let user = UserId::parse("auth0|a.b").unwrap();
        let subject = format!("chat.system.user.{}", encode_token(user.as_str()));
        assert_eq!(parse_system(&subject), Ok(System::User(user)));
        for bad in [
            "chat.system.x",
            "chat.system.user.a.b",
            "chat.system.user.a_2",
            "other",
        ] {
            assert!(parse_system(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn inboxes_have_neither_wildcards_nor_empty_tokens() {
        for good in ["_INBOX", "_INBOX.gateway", "_INBOX.c_d.7"] {
            assert!(is_inbox_prefix(good), "{good}");
        }
        for bad in [
            "",
            ".",
            "_INBOX.",
            "_INBOX..b",
            "_INBOX.*",
            ">",
            "_INBOX.a b",
            "$JS.API",
            "chat.evt",
        ] {
            assert!(!is_inbox_prefix(bad), "{bad}");
        }
    }

    #[test]
    fn nobody_is_answered_outside_an_inbox() {
        let answered = |reply: &str| inbox(Some(reply.into())).is_some();
        assert!(answered("_INBOX.gateway.x") && inbox(None).is_none());
        for elsewhere in [
            "chat.evt.0190a6e0-0000-7000-8000-000000000001",
            "_INBOX",
            "chat.cfm.gw-1",
        ] {
            assert!(!answered(elsewhere), "{elsewhere}");
        }
    }

    #[test]
    fn outcomes_of_services_messages_go_below_the_inbox_of_services_alone() {
        for good in ["_INBOX.emitter.x", "_INBOX.emitter.shop.aB3-_.7"] {
            assert!(is_service_reply(good), "{good}");
        }
        let long = format!("_INBOX.emitter.{}", "x".repeat(300));
        for bad in [
            "",
            "_INBOX.emitter",
            "_INBOX.emitter.",
            "_INBOX.emitters.x",
            "_INBOX.gateway.x",
            "_INBOX.x",
            "chat.evt.0190a6e0-0000-7000-8000-000000000001",
            "$JS.API.STREAM.DELETE.EVENTS",
            "_INBOX.emitter.*",
            "_INBOX.emitter.>",
            "_INBOX.emitter.a b",
            "_INBOX.emitter.a\r\nPUB x",
            &long,
        ] {
            assert!(!is_service_reply(bad), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_text_can_leave_its_token(text in any::<String>()) {
            let token = encode_token(&text);
            let safe = token.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
            prop_assert!(safe && !token.is_empty());
            prop_assert_eq!(decode_token(&token), Some(text));
        }

        #[test]
        fn no_user_can_leave_their_subject(text in "\\PC{1,40}") {
            if let Ok(id) = UserId::parse(text) {
                let subject = user(&id);
                prop_assert_eq!(subject.split('.').count(), 3);
                prop_assert!(!subject.contains(['*', '>', ' ', '\r', '\n']));
            }
        }

        #[test]
        fn different_texts_have_different_tokens(a in any::<String>(), b in any::<String>()) {
            prop_assert_eq!(a == b, encode_token(&a) == encode_token(&b));
        }
    }
}
