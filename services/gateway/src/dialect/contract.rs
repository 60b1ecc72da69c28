//! What a dialect accepts and emits, for machines: every event with the schema of its payload and of its ack. The
//! schemas are derived from the types that read and write the payloads; `crate::contract` makes documents of
//! them. Pure.

pub mod aliases;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde_json::{Value, json};
use utoipa::ToSchema;

/// A schema with the named schemas it refers to.
#[derive(Debug, Clone)]
pub struct Shape {
    /// JSON Schema 2020-12.
    pub schema: Value,
    /// By name, as `#/components/schemas/<name>` refers to them.
    pub parts: BTreeMap<String, Value>,
}

/// An event a client emits.
#[derive(Debug, Clone)]
pub struct AcceptedEvent {
    /// Its name.
    pub event: &'static str,
    /// What it is for.
    pub summary: &'static str,
    /// The first argument.
    pub payload: Shape,
    /// The argument of the ack callback.
    pub ack: Shape,
}

/// An event the server emits.
#[derive(Debug, Clone)]
pub struct EmittedEvent {
    /// Its name.
    pub event: &'static str,
    /// What it tells.
    pub summary: &'static str,
    /// The one argument.
    pub payload: Shape,
}

/// All events of a dialect.
#[derive(Debug, Clone)]
pub struct Contract {
    /// What kind of front end speaks it.
    pub description: &'static str,
    /// From the client.
    pub accepted: Vec<AcceptedEvent>,
    /// To the client.
    pub emitted: Vec<EmittedEvent>,
}

impl Shape {
    /// The schema of a type.
    pub fn of<T: ToSchema>() -> Self {
        let mut parts = Vec::new();
        T::schemas(&mut parts);
        parts.push((T::name().into_owned(), T::schema()));
        let mut named = BTreeMap::new();
        for (name, schema) in parts {
            let mut schema = value(&schema);
            aliases::soften(&mut schema);
            aliases::complete(&name, &mut schema);
            named.insert(name, schema);
        }
        Self {
            schema: json!({ "$ref": format!("#/components/schemas/{}", T::name()) }),
            parts: named,
        }
    }

    /// A schema that refers to nothing.
    pub fn raw(schema: Value) -> Self {
        Self {
            schema,
            parts: BTreeMap::new(),
        }
    }

    /// Anything, because it is not looked at.
    pub fn anything() -> Self {
        Self::raw(json!({ "description": "Not looked at; may be left out." }))
    }

    /// This or that.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        self.joined("anyOf", other)
    }

    /// Both at once.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        self.joined("allOf", other)
    }

    /// An object in which one of these fields is present, and not null.
    pub fn with_any(fields: &[&str]) -> Self {
        let each = fields.iter().map(
            |field| json!({ "required": [field], "properties": { *field: { "not": { "type": "null" } } } }),
        );
        Self::raw(json!({ "anyOf": each.collect::<Vec<_>>() }))
    }

    /// The same as an answer: `flag` says whether it is good news, and these fields are there.
    #[must_use]
    pub fn answering(self, flag: &str, good: bool, fields: &[&str]) -> Self {
        let required: Vec<_> = std::iter::once(flag).chain(fields.iter().copied()).collect();
        self.and(Self::raw(json!({
            "required": required,
            "properties": { flag: { "const": good } },
        })))
    }

    fn joined(mut self, how: &str, other: Self) -> Self {
        self.parts.extend(other.parts);
        let mut items = Vec::new();
        for schema in [self.schema, other.schema] {
            match schema {
                Value::Object(mut object) if object.len() == 1 && object.contains_key(how) => {
                    if let Some(Value::Array(inner)) = object.remove(how) {
                        items.extend(inner);
                    }
                }
                other => items.push(other),
            }
        }
        self.schema = json!({ how: items });
        self
    }
}

impl Contract {
    /// A dialect without words.
    pub fn new(description: &'static str) -> Self {
        Self {
            description,
            accepted: Vec::new(),
            emitted: Vec::new(),
        }
    }

    /// Adds an event of clients.
    #[must_use]
    pub fn accepts(mut self, event: &'static str, summary: &'static str, payload: Shape, ack: Shape) -> Self {
        self.accepted.push(AcceptedEvent {
            event,
            summary,
            payload,
            ack,
        });
        self
    }

    /// Adds an event of the server.
    #[must_use]
    pub fn emits(mut self, event: &'static str, summary: &'static str, payload: Shape) -> Self {
        self.emitted.push(EmittedEvent {
            event,
            summary,
            payload,
        });
        self
    }
}

/// A schema as JSON; our own types of strings and numbers, so it cannot fail.
fn value(schema: &impl serde::Serialize) -> Value {
    serde_json::to_value(schema).unwrap_or_default()
}
