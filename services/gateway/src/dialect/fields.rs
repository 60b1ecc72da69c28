//! Reads what clients supply as fields: payloads, bodies and query strings. One mechanism for all of them: a failure
//! names the field as the client wrote it, what kind of value was there and what is allowed, and never repeats the
//! value; `null` is as if the field were absent; a field under two of its names is one field, if the values are the
//! same. Pure.

use std::borrow::Cow;
use std::cell::RefCell;

use serde::de::value::CowStrDeserializer;
use serde::de::{self, Deserialize, DeserializeOwned, DeserializeSeed, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::error::ClientError;

/// A failure of serde, whose text is rewritten before a client sees it.
type Error = serde_json::Error;

/// Reads an object of JSON: `what` it is to the client, its payload or body.
///
/// # Errors
/// It is no object, or a field is missing or has a value that is not allowed.
pub fn object<'de, T: Deserialize<'de>>(what: &str, text: &'de str) -> Result<T, ClientError> {
    match kind(text) {
        Some("an object") => {}
        None => return Err(unreadable(what)),
        Some(kind) => return Err(wrong(what, kind, "an object")),
    }
    let trace = Trace::default();
    T::deserialize(Object { text, trace: &trace }).map_err(|error| trace.failure(what, &error))
}

/// Reads a bare value of JSON.
///
/// # Errors
/// It is not allowed.
pub fn value<'de, T: Deserialize<'de>>(what: &str, text: &'de str) -> Result<T, ClientError> {
    serde_json::from_str(text).map_err(|error| flaw(what, Value::Json(text), &error))
}

/// Reads the pairs of a query string.
///
/// # Errors
/// A field is missing or has a value that is not allowed.
pub fn query<T: DeserializeOwned>(pairs: &[(String, String)]) -> Result<T, ClientError> {
    let trace = Trace::default();
    T::deserialize(Query { pairs, trace: &trace }).map_err(|error| trace.failure("the query string", &error))
}

/// A value as it came.
#[derive(Debug, Clone, Copy)]
enum Value<'de> {
    Json(&'de str),
    /// Of a query string.
    Text(&'de str),
}

impl<'de> Value<'de> {
    fn is_same_as(self, other: Self) -> bool {
        match (self, other) {
            (Self::Text(one), Self::Text(other)) => one == other,
            (Self::Json(one), Self::Json(other)) => {
                let read = serde_json::from_str::<serde_json::Value>;
                one == other || read(one).is_ok_and(|one| read(other).is_ok_and(|other| one == other))
            }
            _ => false,
        }
    }

    fn read<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Error> {
        match self {
            Self::Json(text) => seed.deserialize(&mut serde_json::Deserializer::from_str(text)),
            Self::Text(text) => seed.deserialize(Text(text)),
        }
    }
}

/// Where reading has come to.
#[derive(Debug, Default)]
struct Trace<'de> {
    /// The field that is read, once one is.
    field: RefCell<Option<(Cow<'de, str>, Value<'de>)>>,
    /// A failure that serde has no words for.
    failed: RefCell<Option<ClientError>>,
}

impl Trace<'_> {
    fn failure(&self, what: &str, error: &Error) -> ClientError {
        if let Some(failed) = self.failed.take() {
            return failed;
        }
        let text = error.to_string();
        let named = |start: &str| text.strip_prefix(start).and_then(|rest| rest.split('`').next());
        if let Some(field) = named("missing field `") {
            return ClientError::invalid(format!("{field} is missing"));
        }
        let field = self.field.take();
        if let (Some(field), Some((name, _))) = (named("duplicate field `"), &field) {
            return ClientError::invalid(format!("{field} and {name} are both given; give one of them"));
        }
        match field {
            Some((name, value)) => flaw(&name, value, error),
            None => unreadable(what),
        }
    }
}

/// An object of JSON whose fields are traced.
struct Object<'a, 'de> {
    text: &'de str,
    trace: &'a Trace<'de>,
}

impl<'de> Object<'_, 'de> {
    fn visit<V: Visitor<'de>>(self, known: &'static [&'static str], visitor: V) -> Result<V::Value, Error> {
        let mut json = serde_json::Deserializer::from_str(self.text);
        let value = json.deserialize_map(Outer {
            known,
            visitor,
            trace: self.trace,
        })?;
        if json.end().is_err() {
            // The fields were good, so the failure is none of theirs.
            self.trace.field.take();
            return Err(de::Error::custom("more than an object"));
        }
        Ok(value)
    }
}

impl<'de> Deserializer<'de> for Object<'_, 'de> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.visit(&[], visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.visit(fields, visitor)
    }

    // A body that may be absent is there.
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

/// Passes the fields of an object on, traced.
struct Outer<'a, 'de, V> {
    known: &'static [&'static str],
    visitor: V,
    trace: &'a Trace<'de>,
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Outer<'_, 'de, V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<V::Value, A::Error> {
        let next = || {
            let entry = map.next_entry::<Name<'de>, &'de RawValue>();
            let entry = entry.map_err(de::Error::custom)?;
            Ok(entry.map(|(Name(name), value)| (name, Value::Json(value.get()))))
        };
        let fields = Fields::new(self.known, self.trace, next);
        self.visitor.visit_map(fields).map_err(de::Error::custom)
    }
}

/// The pairs of a query string.
struct Query<'a, 'de> {
    pairs: &'de [(String, String)],
    trace: &'a Trace<'de>,
}

impl<'de> Deserializer<'de> for Query<'_, 'de> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_struct("", &[], visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let mut pairs = self.pairs.iter();
        let next = || {
            let pair = pairs.next();
            Ok(pair.map(|(name, value)| (Cow::Borrowed(name.as_str()), Value::Text(value.as_str()))))
        };
        visitor.visit_map(Fields::new(fields, self.trace, next))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

/// Fields one by one: none that is `null`, each of the known ones once.
struct Fields<'a, 'de, F> {
    known: &'static [&'static str],
    trace: &'a Trace<'de>,
    next: F,
    seen: Vec<(String, Value<'de>)>,
    value: Option<Value<'de>>,
}

impl<'a, 'de, F> Fields<'a, 'de, F>
where
    F: FnMut() -> Result<Option<(Cow<'de, str>, Value<'de>)>, Error>,
{
    fn new(known: &'static [&'static str], trace: &'a Trace<'de>, next: F) -> Self {
        Self {
            known,
            trace,
            next,
            seen: Vec::new(),
            value: None,
        }
    }

    /// Whether a field is to be read; not, where it was read under another of its names.
    fn is_first(&mut self, name: &str, value: Value<'de>) -> Result<bool, Error> {
        if !self.known.contains(&name) {
            return Ok(true);
        }
        let Some((before, other)) = self.seen.iter().find(|(before, _)| is_same_field(before, name)) else {
            self.seen.push((name.to_owned(), value));
            return Ok(true);
        };
        if value.is_same_as(*other) {
            return Ok(false);
        }
        let message = if before == name {
            format!("{name} is given twice, with values that differ")
        } else {
            format!("{before} and {name} differ: they name one field")
        };
        *self.trace.failed.borrow_mut() = Some(ClientError::invalid(message));
        Err(de::Error::custom("two values of one field"))
    }
}

impl<'de, F> MapAccess<'de> for Fields<'_, 'de, F>
where
    F: FnMut() -> Result<Option<(Cow<'de, str>, Value<'de>)>, Error>,
{
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        loop {
            // Until the next one is there, a failure is none of the one before.
            self.trace.field.take();
            let Some((name, value)) = (self.next)()? else {
                return Ok(None);
            };
            if matches!(value, Value::Json("null")) || !self.is_first(&name, value)? {
                continue;
            }
            self.value = Some(value);
            // What is not ours to name may hold anything.
            let shown = if self.known.contains(&&*name) {
                name.clone()
            } else {
                Cow::Borrowed("a field")
            };
            *self.trace.field.borrow_mut() = Some((shown, value));
            let name: CowStrDeserializer<'_, Error> = de::IntoDeserializer::into_deserializer(name);
            return seed.deserialize(name).map(Some);
        }
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Error> {
        match self.value.take() {
            Some(value) => value.read(seed),
            None => Err(de::Error::custom("a value without a field")),
        }
    }
}

/// The name of a field, borrowed where it can be.
struct Name<'de>(Cow<'de, str>);

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameVisitor;
        impl<'de> Visitor<'de> for NameVisitor {
            type Value = Name<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a name")
            }

            fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Borrowed(name)))
            }

            fn visit_str<E>(self, name: &str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Owned(name.to_owned())))
            }
        }
        deserializer.deserialize_str(NameVisitor)
    }
}

/// A value of a query string, which is a number where one is wanted.
struct Text<'de>(&'de str);

/// Numbers as text.
macro_rules! numbers {
    ($($method:ident $visit:ident)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            match self.0.parse() {
                Ok(number) => visitor.$visit(number),
                Err(_) => Err(de::Error::invalid_value(de::Unexpected::Other("text"), &visitor)),
            }
        })*
    };
}

impl<'de> Deserializer<'de> for Text<'de> {
    type Error = Error;

    numbers!(deserialize_u32 visit_u32  deserialize_u64 visit_u64  deserialize_i64 visit_i64  deserialize_bool visit_bool);

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_borrowed_str(self.0)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    serde::forward_to_deserialize_any! {
        i8 i16 i32 i128 u8 u16 u128 f32 f64 char str string bytes byte_buf unit unit_struct newtype_struct seq tuple
        tuple_struct map struct enum identifier ignored_any
    }
}

/// Whether two names of fields are spellings of one: in either casing, or as front ends call the same.
fn is_same_field(one: &str, other: &str) -> bool {
    let plain = |name| {
        let name = match name {
            "type" | "kind" | "messageType" => "message_type",
            "participants" | "participant_ids" | "participantIds" => "user_ids",
            "upTo" | "up_to" => "up_to_seq",
            name => name,
        };
        let letters = name.bytes().filter(|byte| *byte != b'_');
        letters.map(|byte| byte.to_ascii_lowercase())
    };
    plain(one).eq(plain(other))
}

/// What kind of JSON a text begins with.
fn kind(text: &str) -> Option<&'static str> {
    Some(match text.trim_start().bytes().next()? {
        b'{' => "an object",
        b'[' => "a list",
        b'"' => "text",
        b't' | b'f' => "true or false",
        b'n' => "null",
        b'-' | b'0'..=b'9' => "a number",
        _ => return None,
    })
}

fn unreadable(what: &str) -> ClientError {
    ClientError::invalid(format!("{what} is not an object of valid JSON"))
}

fn wrong(field: &str, kind: &str, allowed: &str) -> ClientError {
    ClientError::invalid(format!("{field} is {kind}; it must be {allowed}"))
}

/// What is wrong with a field, in the client's words.
fn flaw(field: &str, value: Value<'_>, error: &Error) -> ClientError {
    let text = error.to_string();
    let text = text.rsplit_once(" at line").map_or(&*text, |(before, _)| before);
    let there = match value {
        Value::Json(json) => kind(json),
        Value::Text(_) => None,
    };
    // "invalid type: string "…", expected u64": what is there is repeated, what is expected are words of ours.
    let found = text
        .strip_prefix("invalid type: ")
        .or_else(|| text.strip_prefix("invalid value: "))
        .or_else(|| text.strip_prefix("invalid length "));
    if let Some((found, expected)) = found.and_then(|found| found.rsplit_once(", expected ")) {
        let (found, allowed) = (found_kind(found), allowed(expected));
        return match there {
            None => ClientError::invalid(format!("{field} in the query string must be {allowed}")),
            Some(there @ ("a list" | "an object")) if there != found => {
                wrong(&format!("something in {field}"), found, allowed)
            }
            Some(there) => wrong(field, there, allowed),
        };
    }
    let sentence = match text {
        _ if ["surrogate", "unicode", "hex escape"]
            .iter()
            .any(|word| text.contains(word)) =>
        {
            "holds half of a character"
        }
        _ if text.starts_with("recursion") => "is nested too deeply",
        _ if text.starts_with("number out of range") => "holds a number that is out of range",
        _ if error.is_syntax() || error.is_eof() => "is not valid JSON",
        // Words of ours.
        _ if text.len() < 80 => return ClientError::invalid(format!("{field}: {text}")),
        _ => "is not allowed",
    };
    ClientError::invalid(format!("{field} {sentence}"))
}

/// The kind of value that serde found.
fn found_kind(found: &str) -> &'static str {
    match found.split([' ', ',']).next().unwrap_or_default() {
        "integer" | "floating" => "a number",
        "map" => "an object",
        "sequence" => "a list",
        "boolean" => "true or false",
        "null" | "unit" | "Option" => "null",
        _ => "text",
    }
}

/// What serde expected; what is none of its own words is ours.
fn allowed(expected: &str) -> &str {
    match expected {
        "a string" | "a borrowed string" | "string" | "str" => "text",
        "a boolean" | "bool" => "true or false",
        "u64" | "u32" | "usize" => "a whole number, 0 or more",
        "i64" | "i32" => "a whole number",
        "a sequence" => "a list",
        "a map" => "an object",
        _ if expected.starts_with("struct ") => "an object",
        _ => expected,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{ConversationRef, MessageRef};
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[expect(dead_code, reason = "some fields are there only to be refused")]
    struct Sample<'a> {
        #[serde(alias = "conversationId")]
        conversation_id: ConversationRef,
        #[serde(rename = "type", alias = "messageType", alias = "message_type")]
        kind: Option<String>,
        #[serde(borrow)]
        metadata: Option<&'a RawValue>,
        #[serde(alias = "messageIds")]
        message_ids: Option<Vec<MessageRef>>,
        limit: Option<u32>,
        #[serde(default)]
        encrypted: bool,
    }

    fn read(text: &str) -> Result<Sample<'_>, String> {
        object("the body", text).map_err(|error| error.message)
    }

    fn failure(text: &str) -> String {
        read(text).err().unwrap_or_default()
    }

    #[test]
    fn a_failure_names_the_field_as_written_what_was_there_and_what_is_allowed() {
        const ID: &str = "a UUID, or a number from 1 to 9007199254740991";
        for (text, expected) in [
            ("[1]", "the body is a list; it must be an object".to_owned()),
            ("\"s3cret\"", "the body is text; it must be an object".to_owned()),
            ("null", "the body is null; it must be an object".to_owned()),
            ("", "the body is not an object of valid JSON".to_owned()),
            ("s3cret", "the body is not an object of valid JSON".to_owned()),
            (
                r#"{"conversation_id":7"#,
                "the body is not an object of valid JSON".to_owned(),
            ),
            (
                r#"{"conversation_id":7} {}"#,
                "the body is not an object of valid JSON".to_owned(),
            ),
            ("{}", "conversation_id is missing".to_owned()),
            (
                r#"{"conversationId":-1}"#,
                format!("conversationId is a number; it must be {ID}"),
            ),
            (
                r#"{"conversation_id":"s3cret, expected s3cret"}"#,
                format!("conversation_id is text; it must be {ID}"),
            ),
            (
                r#"{"conversation_id":["s3cret"]}"#,
                format!("conversation_id is a list; it must be {ID}"),
            ),
            (
                r#"{"conversation_id":7,"messageType":5}"#,
                "messageType is a number; it must be text".to_owned(),
            ),
            (
                r#"{"conversation_id":7,"limit":"s3cret"}"#,
                "limit is text; it must be a whole number, 0 or more".to_owned(),
            ),
            (
                r#"{"conversation_id":7,"limit":-1}"#,
                "limit is a number; it must be a whole number, 0 or more".to_owned(),
            ),
            (
                r#"{"conversation_id":7,"encrypted":1}"#,
                "encrypted is a number; it must be true or false".to_owned(),
            ),
            (
                r#"{"conversation_id":7,"message_ids":{}}"#,
                "message_ids is an object; it must be a list".to_owned(),
            ),
            (
                r#"{"conversation_id":7,"message_ids":[1,true]}"#,
                format!("something in message_ids is true or false; it must be {ID}"),
            ),
            (
                r#"{"conversation_id":7,"type":"\ud800s3cret"}"#,
                "type holds half of a character".to_owned(),
            ),
            (
                r#"{"conversation_id":1e400}"#,
                "conversation_id holds a number that is out of range".to_owned(),
            ),
        ] {
            assert_eq!(failure(text), expected, "{text}");
        }
    }

    #[test]
    fn two_names_of_one_field_with_one_value_are_one_field() {
        for text in [
            r#"{"conversationId":7,"conversation_id":7,"type":"text","messageType":"text","message_type":"text"}"#,
            r#"{"conversation_id":7,"type":"text","conversation_id":7,"conversationId":null}"#,
            r#"{"s3cret":1,"conversationId":7,"s3cret":2,"messageType":"text","type":null}"#,
        ] {
            let one = read(text).unwrap();
            assert_eq!(
                (one.conversation_id, one.kind.as_deref()),
                (ConversationRef::Number(7), Some("text"))
            );
        }
        assert_eq!(
            failure(r#"{"conversationId":7,"conversation_id":8}"#),
            "conversationId and conversation_id differ: they name one field"
        );
        assert_eq!(
            failure(r#"{"conversation_id":7,"type":"a","type":"b"}"#),
            "type is given twice, with values that differ"
        );
    }

    #[test]
    fn null_is_as_if_absent_and_metadata_is_as_it_came() {
        let sample =
            read(r#"{"conversation_id":7,"type":null,"metadata":{"a": 1.50},"limit":null}"#).unwrap();
        assert_eq!((sample.kind, sample.limit), (None, None));
        assert_eq!(sample.metadata.unwrap().get(), r#"{"a": 1.50}"#);
        assert_eq!(
            failure(r#"{"conversation_id":null}"#),
            "conversation_id is missing"
        );
    }

    #[test]
    fn a_query_string_is_read_and_refused_alike() {
        #[derive(Debug, serde::Deserialize, PartialEq)]
        struct Asked {
            limit: Option<u32>,
            #[serde(default)]
            ensure: bool,
            #[serde(
                alias = "threadId",
                default,
                deserialize_with = "super::super::place::thread_id"
            )]
            thread_id: Option<uuid::Uuid>,
            #[serde(default)]
            cursor: String,
        }
        let read = |text: &[(&str, &str)]| {
            let pairs: Vec<_> = text
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect();
            query::<Asked>(&pairs).map_err(|error| error.message)
        };
        let asked = read(&[
            ("limit", "7"),
            ("ensure", "true"),
            ("cursor", "5"),
            ("s3cret", "x"),
        ])
        .unwrap();
        assert_eq!((asked.limit, asked.ensure, &*asked.cursor), (Some(7), true, "5"));
        let number = "limit in the query string must be a whole number, 0 or more";
        for bad in ["-1", "s3cret", "1.5", "99999999999"] {
            assert_eq!(read(&[("limit", bad)]), Err(number.to_owned()), "{bad}");
        }
        assert_eq!(
            read(&[("ensure", "maybe")]),
            Err("ensure in the query string must be true or false".to_owned())
        );
        assert_eq!(
            read(&[("limit", "1"), ("limit", "2")]),
            Err("limit is given twice, with values that differ".to_owned())
        );
        let error = read(&[("threadId", "s3cret")]).unwrap_err();
        assert!(
            error.starts_with("threadId") && error.contains("UUID") && !error.contains("s3cret"),
            "{error}"
        );
    }

    #[test]
    fn further_names_of_a_field_are_known_to_be_the_same() {
        for (schema, field, others) in super::super::contract::aliases::ALIASES {
            for other in *others {
                // Two things, of which a client sends one.
                if *other != "content" {
                    assert!(is_same_field(field, other), "{schema}: {field} and {other}");
                }
            }
        }
        assert!(!is_same_field("client_msg_id", "client_message_id"));
        assert!(!is_same_field("user_id", "user_ids"));
    }
}
