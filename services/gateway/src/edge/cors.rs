//! Cross-origin requests: which pages may read answers, and what their requests may carry.
//!
//! Judges the Origin of every request, Socket.IO and REST alike, before anything else looks at it.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use parlance_proto::v1::ErrorCode;

use super::gate::Gate;
use super::headers::AllowedHeaders;
use super::origins::OriginVerdict;
use super::refusals::Refused;
use crate::error::ClientError;

/// The setting that decides which pages may connect.
const SETTING: &str = "cors.origins";
/// What a page that may not connect is answered.
const REFUSAL: &str = "pages of this Origin may not connect here: the setting cors.origins \
                       (PARLANCE_CORS_ORIGINS) must list it";
/// Methods of the routes.
const METHODS: HeaderValue = HeaderValue::from_static("GET, POST, PUT, PATCH, DELETE");
/// Headers of answers that pages may read.
const EXPOSED: HeaderValue = HeaderValue::from_static("idempotency-replayed, retry-after, www-authenticate");
/// How long browsers may remember a preflight, in seconds.
const MAX_AGE: HeaderValue = HeaderValue::from_static("600");
const TRUE: HeaderValue = HeaderValue::from_static("true");

/// Answers preflights, refuses pages that may not connect, and lets the others read their answers.
pub async fn apply(State(gate): State<Gate>, request: Request, next: Next) -> Response {
    let verdict = gate.origins.judge(request.headers());
    let origin = request.headers().get(header::ORIGIN).cloned();
    let asked = preflight(&request);
    let mut response = match (verdict, asked) {
        (OriginVerdict::Refused, _) => refuse(&gate, &request),
        (OriginVerdict::Listed | OriginVerdict::Any, Some(asked)) => allow(&gate.allowed_headers, asked),
        _ => next.run(request).await,
    };
    let headers = response.headers_mut();
    if let (OriginVerdict::Listed | OriginVerdict::Any, Some(origin)) = (verdict, origin) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
        if verdict == OriginVerdict::Listed {
            headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, TRUE);
        }
    }
    vary(headers, "origin");
    response
}

/// The headers that a preflight asks for; `None` where the request is none.
fn preflight(request: &Request) -> Option<Option<HeaderValue>> {
    let headers = request.headers();
    let asks =
        request.method() == Method::OPTIONS && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    asks.then(|| headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS).cloned())
}

fn allow(allowed: &AllowedHeaders, asked: Option<HeaderValue>) -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, METHODS);
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, MAX_AGE);
    let names = match allowed {
        AllowedHeaders::Listed(names) => Some(names.clone()),
        AllowedHeaders::Any => {
            vary(headers, "access-control-request-headers");
            asked
        }
    };
    if let Some(names) = names {
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, names);
    }
    response
}

fn refuse(gate: &Gate, request: &Request) -> Response {
    let origin = request.headers().get(header::ORIGIN);
    gate.refusals.note(&Refused {
        kind: "origin",
        value: origin.and_then(|origin| origin.to_str().ok()),
        reason: "the Origin is not listed",
        setting: Some(SETTING),
    });
    let error = ClientError::new(ErrorCode::Forbidden, REFUSAL);
    if gate.endpoints.find(request.uri().path()).is_some() {
        metrics::counter!("chat_gateway_connects_total", "result" => error.code).increment(1);
    }
    error.into_response()
}

/// Adds a name to the one header that says what an answer depends on.
fn vary(headers: &mut HeaderMap, name: &str) {
    let values = headers.get_all(header::VARY);
    let mut names: Vec<String> = values
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|name| name.trim().to_ascii_lowercase())
        .collect();
    names.push(name.to_owned());
    names.sort_unstable();
    names.dedup();
    if let Ok(value) = HeaderValue::try_from(names.join(", ")) {
        headers.insert(header::VARY, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(more: &[&str], asked: &'static str) -> (String, HeaderMap) {
        let more: Vec<_> = more.iter().map(|&name| name.to_owned()).collect();
        let allowed = AllowedHeaders::new(&more).unwrap();
        let response = allow(&allowed, Some(HeaderValue::from_static(asked)));
        let headers = response.headers().clone();
        let names = headers[header::ACCESS_CONTROL_ALLOW_HEADERS].to_str().unwrap();
        (names.to_owned(), headers)
    }

    #[test]
    fn headers_of_the_setting_are_allowed_besides_those_of_the_routes() {
        let (names, headers) = allowed(&["X-Request-Id"], "x-anything");
        assert_eq!(
            names,
            "authorization, content-type, idempotency-key, x-parlance-dialect, x-requested-with, x-request-id"
        );
        assert!(headers.get(header::VARY).is_none());
        let (names, headers) = allowed(&["x-a", "*"], "x-anything");
        assert_eq!(names, "x-anything");
        assert_eq!(headers[header::VARY], "access-control-request-headers");
        let error = AllowedHeaders::new(&["no header".to_owned()]).unwrap_err();
        assert_eq!(
            (error.key.as_str(), error.value.as_str()),
            ("cors.headers", "no header")
        );
    }

    #[test]
    fn there_is_one_vary_whatever_was_there() {
        let mut headers = HeaderMap::new();
        headers.append(header::VARY, HeaderValue::from_static("Accept-Encoding, Origin"));
        headers.append(header::VARY, HeaderValue::from_static("accept"));
        vary(&mut headers, "origin");
        let all: Vec<_> = headers.get_all(header::VARY).iter().collect();
        assert_eq!(all, ["accept, accept-encoding, origin"]);
    }
}
