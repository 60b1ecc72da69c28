//! `/docs`: the contract over HTTP, for everyone. Serves only what is made once from the code; no scripts.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use axum::Router;
use axum::extract::Path;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use http::{HeaderValue, header};
use parlance_proto::v1::ErrorCode;

use super::{documents, page, written};
use crate::error::ClientError;

/// Nothing but our own style sheet may be loaded, by nobody but the page itself.
const POLICY: &str =
    "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Everything below `/docs/` by its path, with its type.
static FILES: LazyLock<BTreeMap<String, (&str, String)>> = LazyLock::new(|| {
    let documents = documents();
    let page = page::html(&documents);
    let mut files: BTreeMap<_, _> = documents
        .iter()
        .map(|(path, document)| (path.clone(), ("application/json", written(document))))
        .collect();
    files.insert(String::new(), ("text/html; charset=utf-8", page));
    let style = include_str!("style.css").to_owned();
    files.insert("style.css".to_owned(), ("text/css; charset=utf-8", style));
    files
});

/// The page and the documents.
pub fn routes() -> Router {
    Router::new()
        .route("/docs", get(async || file("")))
        .route("/docs/", get(async || file("")))
        .route("/docs/{*path}", get(async |Path(path): Path<String>| file(&path)))
}

fn file(path: &str) -> Response {
    let Some((kind, text)) = FILES.get(path) else {
        return ClientError::new(ErrorCode::NotFound, "no such document").into_response();
    };
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(kind)),
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        (
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        ),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    ];
    (headers, text.as_str()).into_response()
}
