//! OpenAPI 3.1 from the routes' own documentation: adds what holds for all of them.

use http::Method;
use parlance_proto::ErrorCodeExt as _;
use parlance_proto::v1::ErrorCode;
use serde_json::{Map, Value, json};
use utoipa::ToSchema as _;

use crate::dialect::contract::Shape;
use crate::dialect::contract::aliases;
use crate::edge::rest;
use crate::error::Problem;

const DESCRIPTION: &str = "The routes of a gateway. Everything under `/api/v1` is served under `/api` as well, \
for front ends of older routes: there \
`POST /api/conversations/direct` without `ensure` answers 409 with the conversation that exists. An unknown route is \
404, a known one with another method 405.\n\nIds are accepted as UUID, number or numeric text. Bodies are JSON whatever \
their content type says; unknown fields are ignored. Outcomes are three: a 2xx is stored; a failure with a code other than \
`unknown` surely is not; after 504 `unknown`, repeat with the same \
`Idempotency-Key`, or send a message with the same `client_msg_id`.\n\nA changing request with the header `Idempotency-Key` is \
carried out once: the same request of the same user with the same key, through any gateway and within an hour, has the same \
effect and ids, and is answered as before, with the header `Idempotency-Replayed: true`. Refusals are answered again too; after \
429, 500, 503 and 504 a repeat goes on with the change. Of an answer of more than 16 KiB only ids, numbers and short texts are \
kept, with `repeated: true`. The same key for another request is `invalid`; while the first is still under way, a repeat is 409 with \
`retry: true`. A user has at most 8 such requests under way at a gateway, and claims 10,000 keys in an hour. `PATCH /users/me`, and \
`participants` of a conversation, refuse a key as `invalid`: they cannot keep this promise.\n\nMessages, conversations and threads \
are written as the caller's dialect has them: the one named by `?dialect=`, else by the header `X-Parlance-Dialect`, by the \
token's claim, by the page's origin, or the configured default. Where none of these names one, `/api` answers a form \
that serves the front ends of ciphertext and of threads, and `/api/v1` the native one with what a list of conversations needs. \
No text may hold NUL characters. A field may be given under several of its names, if the values are the same; `null` is as \
if a field were absent.";

const TAGS: &[(&str, &str)] = &[
    ("conversations", "Direct and group conversations."),
    ("participants", "Who belongs to a conversation, and as what."),
    ("presence", "Who is here."),
    ("messages", "Messages of a conversation."),
    ("receipts", "What was delivered and read."),
    ("threads", "Threads of a conversation."),
    ("journals", "Documents that several users write."),
    ("encrypted", "Messages as ciphertext with delivery statuses."),
    ("probes", "For orchestrators and people."),
    ("documentation", "This contract."),
];

/// The header of an answer that was given before.
const REPLAYED: &str = "Idempotency-Replayed";

/// Routes that make what has an id of its own: it may be taken.
const CLIENT_NAMED: &[&str] = &["/messages", "/threads", "/threads/{tid}"];

/// The document.
pub(super) fn document() -> Value {
    let routes = serde_json::to_value(rest::openapi()).unwrap_or_default();
    let mut paths = take(&routes, "/paths");
    let mut schemas = take(&routes, "/components/schemas");
    aliases::complete_all(&mut schemas);
    schemas.extend(Shape::of::<Problem<'_>>().parts);
    for (path, item) in &mut paths {
        for (method, operation) in item.as_object_mut().into_iter().flatten() {
            aliases::soften(operation);
            unrequire(operation);
            if path.starts_with("/api/") {
                refuse(path, method, operation);
                repeat(path, method, operation);
            }
        }
    }
    paths.extend(others());
    let tags = TAGS
        .iter()
        .map(|(name, description)| json!({ "name": name, "description": description }));
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Parlance",
            "version": env!("CARGO_PKG_VERSION"),
            "description": DESCRIPTION,
            "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
        },
        "servers": [{ "url": "/", "description": "The gateway that serves this document." }],
        "security": [{ "token": [] }],
        "tags": tags.collect::<Vec<_>>(),
        "paths": paths,
        "components": {
            "schemas": schemas,
            "responses": problems(),
            "parameters": { "idempotency_key": {
                "name": "Idempotency-Key",
                "in": "header",
                "required": false,
                "description": "The client's own name for this change: a repeat with it is harmless.",
                "schema": { "type": "string", "minLength": 1, "maxLength": 128, "pattern": "^[!-~]+$" },
            } },
            "securitySchemes": { "token": {
                "type": "http",
                "scheme": "bearer",
                "bearerFormat": "JWT",
                "description": "The same tokens as on sockets.",
            } },
        },
    })
}

fn take(document: &Value, place: &str) -> Map<String, Value> {
    let found = document.pointer(place).and_then(Value::as_object);
    found.cloned().unwrap_or_default()
}

/// A body that may be missing is not a body that may be null.
fn unrequire(operation: &mut Value) {
    let Some(body) = operation.get_mut("requestBody") else {
        return;
    };
    let schema = &mut body["content"]["application/json"]["schema"];
    let Some(Value::Array(variants)) = schema.get_mut("anyOf") else {
        return;
    };
    let before = variants.len();
    variants.retain(|variant| *variant != json!({ "type": "null" }));
    if let (true, [only]) = (variants.len() < before, &variants[..]) {
        *schema = only.clone();
        body["required"] = json!(false);
    }
}

/// Adds how an operation can fail.
fn refuse(path: &str, method: &str, operation: &mut Value) {
    let has_body = operation.get("requestBody").is_some();
    let mut codes = vec![
        ErrorCode::Unauthenticated,
        ErrorCode::RateLimited,
        ErrorCode::Internal,
        ErrorCode::Unavailable,
    ];
    if has_body || operation.get("parameters").is_some() {
        codes.push(ErrorCode::Invalid);
    }
    if path.contains('{') {
        codes.push(ErrorCode::NotFound);
    }
    // The encrypted front end is not told whether there is a conversation.
    if method != "get" || path.contains('{') {
        codes.push(ErrorCode::Forbidden);
    }
    if method != "get" {
        codes.extend([ErrorCode::Unprocessable, ErrorCode::Unknown]);
    }
    if method == "post" && CLIENT_NAMED.iter().any(|end| path.ends_with(end)) {
        codes.push(ErrorCode::Conflict);
    }
    if has_body {
        codes.push(ErrorCode::TooLarge);
    }
    for code in codes {
        let reference = format!("#/components/responses/{}", code.name());
        operation["responses"][code.http_status().to_string()] = json!({ "$ref": reference });
    }
}

/// Adds the key by which a change may be repeated.
fn repeat(path: &str, method: &str, operation: &mut Value) {
    let is_change = Method::from_bytes(method.to_uppercase().as_bytes())
        .is_ok_and(|method| rest::takes_key(&method, path));
    if !is_change {
        return;
    }
    let reference = json!({ "$ref": "#/components/parameters/idempotency_key" });
    match operation.get_mut("parameters") {
        Some(Value::Array(parameters)) => parameters.push(reference),
        _ => operation["parameters"] = json!([reference]),
    }
    for code in [ErrorCode::Invalid, ErrorCode::Conflict] {
        let reference = format!("#/components/responses/{}", code.name());
        operation["responses"][code.http_status().to_string()] = json!({ "$ref": reference });
    }
    for (status, response) in operation["responses"].as_object_mut().into_iter().flatten() {
        if status.starts_with('2') {
            response["headers"][REPLAYED] = json!({
                "description": "`true` where this is the answer to an earlier request with the same key.",
                "schema": { "type": "string", "const": "true" },
            });
        }
    }
}

/// A response for each error code.
fn problems() -> Map<String, Value> {
    let code = |number| ErrorCode::try_from(number).ok();
    let problem = |code: ErrorCode| {
        let mut response = json!({
            "description": meaning(code),
            "content": { "application/problem+json": {
                "schema": { "$ref": format!("#/components/schemas/{}", Problem::name()) },
            } },
        });
        if matches!(code.http_status(), 429 | 503) {
            let seconds = json!({ "description": "Seconds to wait.", "schema": { "type": "integer" } });
            response["headers"] = json!({ "Retry-After": seconds });
        }
        (code.name().to_owned(), response)
    };
    (1..)
        .map_while(code)
        // The one is of sockets alone, the other has the status of what is unprocessable.
        .filter(|code| !matches!(code, ErrorCode::UnknownEvent | ErrorCode::TooCostly))
        .map(problem)
        .collect()
}

fn meaning(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::Invalid => {
            "The path, query or body is malformed, misses a field or breaks a limit of its shape."
        }
        ErrorCode::Unauthenticated => "No valid token.",
        ErrorCode::Forbidden => "The caller may see the thing but not do this to it.",
        ErrorCode::NotFound => "There is no such thing, or the caller may not know that there is.",
        ErrorCode::Conflict => {
            "The thing exists already in another form; with `retry: true`, a request with the same key is under way."
        }
        ErrorCode::TooLarge => "A field or the whole body is larger than the configured limit.",
        ErrorCode::RateLimited => "The caller sends faster than its allowance.",
        ErrorCode::UnknownEvent => "The event is not part of the dialect.",
        ErrorCode::Unavailable => "A dependency is away; nothing was stored.",
        ErrorCode::Unknown => "The outcome is not known: repeat with the same id or key.",
        ErrorCode::Unprocessable => {
            "The database refused the data, or merging it would take more work than is allowed; nothing was stored."
        }
        ErrorCode::TooCostly => "Merging the change of a journal would take more work than is allowed.",
        ErrorCode::Internal | ErrorCode::Unspecified => "A defect on our side.",
    }
}

/// Routes of the public port that are not the front ends' to use.
fn others() -> Map<String, Value> {
    let plain = |id: &str, tag: &str, summary: &str, kind: &str| {
        json!({ "get": {
            "operationId": id,
            "tags": [tag],
            "summary": summary,
            "security": [],
            "responses": { "200": { "description": "It is so.", "content": { kind: {} } } },
        } })
    };
    let mut events = plain(
        "asyncapi_document",
        "documentation",
        "AsyncAPI of a dialect.",
        "application/json",
    );
    events["get"]["parameters"] = json!([{
        "name": "dialect",
        "in": "path",
        "required": true,
        "schema": { "type": "string", "enum": crate::dialect::DIALECTS.iter().map(|d| d.name()).collect::<Vec<_>>() },
    }]);
    events["get"]["responses"]["404"] = json!({ "$ref": "#/components/responses/not_found" });
    let all = [
        (
            "/docs",
            plain("docs", "documentation", "This contract for people.", "text/html"),
        ),
        (
            "/docs/openapi.json",
            plain(
                "openapi_document",
                "documentation",
                "This document.",
                "application/json",
            ),
        ),
        ("/docs/asyncapi/{dialect}.json", events),
    ];
    all.into_iter()
        .map(|(path, item)| (path.to_owned(), item))
        .collect()
}
