//! The contract for machines: OpenAPI of the routes, AsyncAPI of each dialect, and a page that shows them. All of
//! it is made from the handlers and payload types; nothing here decides what they do.
//!
//! The documents are checked in under `services/gateway/contract`; `tests/contract.rs` holds them.

mod asyncapi;
mod http;
mod openapi;
mod page;

use serde_json::Value;

use crate::dialect::DIALECTS;

pub use http::routes;

/// All documents, by path below `contract/` and `/docs/`.
pub fn documents() -> Vec<(String, Value)> {
    let events = DIALECTS.iter().map(|dialect| {
        (
            format!("asyncapi/{}.json", dialect.name()),
            asyncapi::document(*dialect),
        )
    });
    [("openapi.json".to_owned(), openapi::document())]
        .into_iter()
        .chain(events)
        .collect()
}

/// A document as it is checked in and served.
pub fn written(document: &Value) -> String {
    let mut text = format!("{document:#}");
    text.push('\n');
    text
}
