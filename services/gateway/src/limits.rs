//! What a client may ask for in size, shape and rate. Pure checks; nothing passes to the bus before them.

use std::num::NonZeroU32;

use governor::clock::DefaultClock;
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter};
use parlance_proto::UserId;
use parlance_proto::text::shown;
use parlance_proto::v1::ErrorCode;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::error::ClientError;
use crate::metadata::as_stored;

/// Longest comment of a report in characters, the same in persistence.
const COMMENT_CHARS: usize = 1_000;

/// Sizes and rates; see `defaults.toml`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitSettings {
    /// UTF-8 bytes.
    pub content_bytes: usize,
    /// UTF-8 bytes.
    pub journal_bytes: usize,
    /// Bytes of JSON.
    pub metadata_bytes: usize,
    /// Characters.
    pub title_chars: usize,
    /// Users.
    pub participants: usize,
    /// Conversations.
    pub sync_conversations: usize,
    /// Users.
    pub presence_users: usize,
    /// Events.
    pub events_per_second: u32,
    /// Events.
    pub events_burst: u32,
    /// Bytes of events and request bodies.
    pub bytes_per_second: u32,
    /// Bytes.
    pub bytes_burst: u32,
}

/// The configured limits and the running allowances of users.
pub struct Limits {
    settings: LimitSettings,
    events: Rates,
    bytes: Rates,
}

type Rates = RateLimiter<UserId, HashMapStateStore<UserId>, DefaultClock>;

impl Limits {
    /// Limits with full allowances.
    pub fn new(settings: LimitSettings) -> Self {
        let rates = |per_second, burst| {
            let at_least_one = |n| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN);
            let quota = Quota::per_second(at_least_one(per_second)).allow_burst(at_least_one(burst));
            RateLimiter::hashmap(quota)
        };
        Self {
            events: rates(settings.events_per_second, settings.events_burst),
            bytes: rates(settings.bytes_per_second, settings.bytes_burst),
            settings,
        }
    }

    /// Counts one event of a user, with so many bytes.
    ///
    /// # Errors
    /// One of the two allowances is used up.
    pub fn admit(&self, user: &UserId, bytes: usize) -> Result<(), ClientError> {
        let refused = |message: &str| ClientError::new(ErrorCode::RateLimited, message);
        let events = self.events.check_key(user);
        events.map_err(|_| refused("too many events; slow down"))?;
        self.admit_bytes(user, bytes)
    }

    /// Counts bytes of a user.
    ///
    /// # Errors
    /// The allowance is used up.
    pub fn admit_bytes(&self, user: &UserId, bytes: usize) -> Result<(), ClientError> {
        // One event that is larger than all that may come at once takes all of that.
        let bytes = u32::try_from(bytes)
            .unwrap_or(u32::MAX)
            .min(self.settings.bytes_burst);
        let Some(bytes) = NonZeroU32::new(bytes) else {
            return Ok(());
        };
        match self.bytes.check_key_n(user, bytes) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(ClientError::new(
                ErrorCode::RateLimited,
                "too many bytes; slow down",
            )),
        }
    }

    /// Forgets users whose allowance is full again.
    pub fn forget_idle(&self) {
        self.events.retain_recent();
        self.bytes.retain_recent();
    }

    /// The content of a message: not empty, not too large, storable byte for byte.
    ///
    /// # Errors
    /// Says which limit is broken.
    pub fn content(&self, content: &str) -> Result<(), ClientError> {
        if content.is_empty() {
            return Err(ClientError::invalid("content is empty"));
        }
        self.fits("content", content.len(), self.settings.content_bytes)?;
        no_nul("content", content)
    }

    /// What is said with a report; it may be empty.
    ///
    /// # Errors
    /// Says which limit is broken.
    pub fn comment(&self, comment: &str) -> Result<(), ClientError> {
        if comment.chars().count() > COMMENT_CHARS {
            let message = format!("comment is longer than {COMMENT_CHARS} characters");
            return Err(ClientError::new(ErrorCode::TooLarge, message));
        }
        no_nul("comment", comment)
    }

    /// The whole text of a journal; unlike a message's it may be empty.
    ///
    /// # Errors
    /// Says which limit is broken.
    pub fn journal(&self, content: &str) -> Result<(), ClientError> {
        self.fits("content", content.len(), self.settings.journal_bytes)?;
        no_nul("content", content)
    }

    /// A change of a journal as a CRDT update, which holds a little more than the text it brings.
    ///
    /// # Errors
    /// Too large.
    pub fn journal_update(&self, update: &[u8]) -> Result<(), ClientError> {
        let most = self.settings.journal_bytes;
        self.fits("update", update.len(), most + most / 8)
    }

    /// What a client knows of a journal as a state vector.
    ///
    /// # Errors
    /// Too large.
    pub fn state_vector(&self, state_vector: &[u8]) -> Result<(), ClientError> {
        self.fits("state_vector", state_vector.len(), self.settings.journal_bytes)
    }

    /// The metadata of a message: a JSON object that Postgres can hold. Returns it as text, in the order Postgres keeps.
    ///
    /// # Errors
    /// Says which limit is broken.
    pub fn metadata(&self, metadata: Option<&RawValue>) -> Result<String, ClientError> {
        let Some(raw) = metadata.map(RawValue::get).filter(|raw| *raw != "null") else {
            return Ok(String::new());
        };
        self.fits("metadata", raw.len(), self.settings.metadata_bytes)?;
        let value: serde_json::Value = serde_json::from_str(raw)
            .map_err(|_| ClientError::invalid("metadata holds JSON that cannot be stored"))?;
        if !value.is_object() {
            return Err(ClientError::invalid("metadata is not a JSON object"));
        }
        if holds_nul(&value) {
            return Err(ClientError::invalid("metadata holds a NUL character"));
        }
        Ok(as_stored(raw).into_owned())
    }

    /// The title of a group.
    ///
    /// # Errors
    /// Says which limit is broken.
    pub fn title(&self, title: &str) -> Result<(), ClientError> {
        no_nul("title", title)?;
        // As persistence keeps it.
        let title = shown(title);
        if title.is_empty() {
            return Err(ClientError::invalid("title is empty"));
        }
        let most = self.settings.title_chars;
        if title.chars().count() > most {
            let message = format!("title is longer than {most} characters");
            return Err(ClientError::new(ErrorCode::TooLarge, message));
        }
        Ok(())
    }

    /// The mark on a message: not empty, at most 64 bytes, storable.
    ///
    /// # Errors
    /// Says which limit is broken.
    pub fn emoji(&self, emoji: &str) -> Result<(), ClientError> {
        if emoji.is_empty() {
            return Err(ClientError::invalid("emoji is empty"));
        }
        self.fits("emoji", emoji.len(), 64)?;
        no_nul("emoji", emoji)
    }

    /// How many users a conversation may be created with.
    ///
    /// # Errors
    /// Too many.
    pub fn participants(&self, count: usize) -> Result<(), ClientError> {
        self.count("participant_ids", count, self.settings.participants)
    }

    /// The most users that one request names of a conversation.
    pub fn most_participants(&self) -> usize {
        self.settings.participants
    }

    /// How many users may be asked for at once.
    ///
    /// # Errors
    /// Too many.
    pub fn watched(&self, count: usize) -> Result<(), ClientError> {
        self.count("user_ids", count, self.settings.presence_users)
    }

    /// How many conversations one sync may name.
    ///
    /// # Errors
    /// Too many.
    pub fn sync(&self, count: usize) -> Result<(), ClientError> {
        self.count("conversations", count, self.settings.sync_conversations)
    }

    /// How many messages one receipt may name: as many as a page of history holds, tenfold.
    ///
    /// # Errors
    /// Too many.
    pub fn receipts(&self, count: usize) -> Result<(), ClientError> {
        self.count("message_ids", count, 1_000)
    }

    fn fits(&self, field: &str, bytes: usize, most: usize) -> Result<(), ClientError> {
        if bytes <= most {
            return Ok(());
        }
        let message = format!("{field} is larger than {most} bytes");
        Err(ClientError::new(ErrorCode::TooLarge, message))
    }

    fn count(&self, field: &str, count: usize, most: usize) -> Result<(), ClientError> {
        if count <= most {
            return Ok(());
        }
        let message = format!("{field} has more than {most} entries");
        Err(ClientError::new(ErrorCode::TooLarge, message))
    }
}

/// A page size: the default where none is asked, never above the most.
///
/// # Errors
/// None is asked for.
pub fn page_size(asked: Option<u32>) -> Result<u32, ClientError> {
    match asked {
        None => Ok(50),
        Some(0) => Err(ClientError::invalid("limit is 0; it must be 1 or more")),
        Some(limit) => Ok(limit.min(100)),
    }
}

/// Postgres cannot hold NUL in text, and dropping it would alter what was sent.
fn no_nul(field: &str, text: &str) -> Result<(), ClientError> {
    if text.contains('\0') {
        return Err(ClientError::invalid(format!("{field} holds a NUL character")));
    }
    Ok(())
}

fn holds_nul(value: &serde_json::Value) -> bool {
    match value {
        serde_json::Value::String(text) => text.contains('\0'),
        serde_json::Value::Array(items) => items.iter().any(holds_nul),
        serde_json::Value::Object(fields) => fields
            .iter()
            .any(|(name, value)| name.contains('\0') || holds_nul(value)),
        _ => false,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn small() -> Limits {
        Limits::new(LimitSettings {
            content_bytes: 10,
            journal_bytes: 16,
            metadata_bytes: 40,
            title_chars: 5,
            participants: 3,
            sync_conversations: 2,
            presence_users: 8,
            events_per_second: 1,
            events_burst: 3,
            bytes_per_second: 1,
            bytes_burst: 100,
        })
    }

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_owned()).unwrap()
    }

    #[test]
    fn content_is_bounded_and_storable() {
        let limits = small();
        assert!(limits.content("1234567890").is_ok());
        assert_eq!(limits.content("12345678901").unwrap_err().code, "too_large");
        assert_eq!(limits.content("").unwrap_err().code, "invalid");
        assert_eq!(limits.content("a\0b").unwrap_err().code, "invalid");
    }

    #[test]
    fn the_text_of_a_journal_may_be_empty() {
        let limits = small();
        assert!(limits.journal("").is_ok());
        assert!(limits.journal("1234567890123456").is_ok());
        assert_eq!(limits.journal("12345678901234567").unwrap_err().code, "too_large");
        assert_eq!(limits.journal("a\0b").unwrap_err().code, "invalid");
        assert!(limits.journal_update(&[0; 18]).is_ok());
        assert_eq!(limits.journal_update(&[0; 19]).unwrap_err().code, "too_large");
    }

    #[test]
    fn metadata_passes_unchanged_or_not_at_all() {
        let limits = small();
        assert_eq!(
            limits.metadata(Some(&raw(r#"{"a": 1.50}"#))).unwrap(),
            r#"{"a": 1.50}"#
        );
        assert_eq!(limits.metadata(None).unwrap(), "");
        assert_eq!(limits.metadata(Some(&raw("null"))).unwrap(), "");
        for bad in [
            "[]",
            "1",
            r#"{"a":"\u0000"}"#,
            r#"{"\u0000":1}"#,
            r#"{"a":"\ud800"}"#,
            r#"{"a":1e400}"#,
        ] {
            assert_eq!(
                limits.metadata(Some(&raw(bad))).unwrap_err().code,
                "invalid",
                "{bad}"
            );
        }
        let large = format!("{{\"a\":\"{}\"}}", "x".repeat(40));
        assert_eq!(limits.metadata(Some(&raw(&large))).unwrap_err().code, "too_large");
    }

    #[test]
    fn deep_metadata_is_refused_without_recursion() {
        let limits = Limits::new(LimitSettings {
            metadata_bytes: 100_000,
            ..small().settings
        });
        let deep = format!("{{\"a\":{}1{}}}", "[".repeat(10_000), "]".repeat(10_000));
        assert_eq!(limits.metadata(Some(&raw(&deep))).unwrap_err().code, "invalid");
    }

    #[test]
    fn a_title_counts_as_it_is_kept() {
        let limits = small();
        assert!(limits.title("\u{202E}12345\n").is_ok());
        assert_eq!(limits.title("123456").unwrap_err().code, "too_large");
        for empty in ["", " \t", "\u{200B}\u{2066}"] {
            assert_eq!(
                limits.title(empty).unwrap_err().message,
                "title is empty",
                "{empty:?}"
            );
        }
    }

    #[test]
    fn an_allowance_belongs_to_one_user() {
        let limits = small();
        let (alice, bob) = (UserId::parse("alice").unwrap(), UserId::parse("bob").unwrap());
        assert!((0..3).all(|_| limits.admit(&alice, 0).is_ok()));
        assert_eq!(limits.admit(&alice, 0).unwrap_err().code, "rate_limited");
        assert!(limits.admit(&bob, 0).is_ok());
    }

    #[test]
    fn bytes_have_an_allowance_of_their_own() {
        let limits = small();
        let [alice, bob, carol] = ["alice", "bob", "carol"].map(|id| UserId::parse(id).unwrap());
        assert!(limits.admit(&alice, 60).is_ok());
        let error = limits.admit(&alice, 60).unwrap_err();
        assert_eq!((error.code, error.retry), ("rate_limited", true));
        assert!(error.message.contains("bytes"), "{}", error.message);
        // What is larger than the whole allowance is let through once, and then nothing.
        assert!(limits.admit(&bob, usize::MAX).is_ok() && limits.admit(&bob, 50).is_err());
        assert!(limits.admit(&carol, 60).is_ok());
    }
}
