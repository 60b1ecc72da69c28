//! Metadata as Postgres keeps it, so that an event shows it as history will. Pure.

use std::borrow::Cow;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// JSON with the fields of its objects in the order of `jsonb`, shorter names first, and of two fields of one name the
/// last. What is in that order passes unchanged.
pub fn as_stored(json: &str) -> Cow<'_, str> {
    let (mut text, mut has_changed) = (String::with_capacity(json.len()), false);
    match write(json, &mut text, &mut has_changed) {
        Ok(()) if has_changed => Cow::Owned(text),
        _ => Cow::Borrowed(json),
    }
}

fn write(json: &str, text: &mut String, has_changed: &mut bool) -> Result<(), serde_json::Error> {
    let json = json.trim();
    match json.as_bytes().first() {
        Some(b'{') => {
            let Fields(mut fields) = serde_json::from_str(json)?;
            let rank = |name: &str| (name.len(), name.to_owned());
            *has_changed |= !fields.is_sorted_by(|(one, _), (other, _)| rank(one) < rank(other));
            // The sort is stable, so the last of equals is the last that was written.
            fields.sort_by_key(|(name, _)| rank(name));
            let mut fields = fields.iter().peekable();
            text.push('{');
            while let Some((name, value)) = fields.next() {
                if fields.peek().is_some_and(|(next, _)| next == name) {
                    continue;
                }
                text.push_str(&serde_json::to_string(name)?);
                text.push(':');
                write(value.get(), text, has_changed)?;
                if fields.peek().is_some() {
                    text.push(',');
                }
            }
            text.push('}');
        }
        Some(b'[') => {
            let items: Vec<&RawValue> = serde_json::from_str(json)?;
            text.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                write(item.get(), text, has_changed)?;
            }
            text.push(']');
        }
        _ => text.push_str(json),
    }
    Ok(())
}

/// The fields of an object as they were written.
struct Fields<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FieldsVisitor;
        impl<'de> Visitor<'de> for FieldsVisitor {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(FieldsVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_come_in_the_order_they_are_kept_in() {
        for (sent, kept) in [
            ("{}", "{}"),
            (r#"{"a": 1.50, "bb": [ 1 ]}"#, r#"{"a": 1.50, "bb": [ 1 ]}"#),
            (r#"{"zeta":1,"a":2}"#, r#"{"a":2,"zeta":1}"#),
            (
                r#"{"bb":1,"a":[{"y":1,"x":1.50}]}"#,
                r#"{"a":[{"x":1.50,"y":1}],"bb":1}"#,
            ),
            // In bytes, not in characters.
            (r#"{"ü":1,"z":2,"ab":3}"#, r#"{"z":2,"ab":3,"ü":1}"#),
            (r#"{"a":1,"b":{"c":1,"c":2},"a":3}"#, r#"{"a":3,"b":{"c":2}}"#),
            (
                r#"{"b\"":"\u00e9\n","a":"\ud83d\ude00"}"#,
                r#"{"a":"\ud83d\ude00","b\"":"\u00e9\n"}"#,
            ),
        ] {
            assert_eq!(as_stored(sent), kept, "{sent}");
        }
    }
}
