//! What Engine.IO asks of a request before there is a session: which requests are valid, and how the others are
//! refused. Messages and codes are those of the reference server, because clients and their authors know them.

use axum::body::Body;
use axum::response::IntoResponse as _;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};

use crate::query::query_value;

/// How a client exchanges packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// HTTP long polling.
    Polling,
    /// WebSocket, at once or as an upgrade.
    Websocket,
}

/// Why a request is refused, with the reference server's code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// `transport` is missing or neither `polling` nor `websocket`.
    UnknownTransport,
    /// No such session, or it has ended: stock clients connect again.
    UnknownSession,
    /// A session begins with GET.
    BadMethod,
    /// The session cannot take this request: stock clients that tried to upgrade go on polling.
    BadRequest,
    /// A WebSocket handshake without the headers of one.
    NoUpgrade,
    /// An Engine.IO version that is not served.
    UnsupportedProtocol,
}

impl Refusal {
    fn code(self) -> u8 {
        match self {
            Self::UnknownTransport => 0,
            Self::UnknownSession => 1,
            Self::BadMethod => 2,
            Self::BadRequest | Self::NoUpgrade => 3,
            Self::UnsupportedProtocol => 5,
        }
    }

    fn message(self) -> &'static str {
        match self {
            Self::UnknownTransport => "Transport unknown",
            Self::UnknownSession => "Session ID unknown",
            Self::BadMethod => "Bad handshake method",
            Self::BadRequest => "Bad request",
            Self::NoUpgrade => {
                "Bad request: a WebSocket handshake needs the headers Connection and Upgrade; a proxy may have \
                 removed them"
            }
            Self::UnsupportedProtocol => {
                "Unsupported protocol version: EIO must be 4. Clients of Socket.IO 1 and 2 send 3: upgrade \
                 socket.io-client to version 4"
            }
        }
    }

    /// As clients read it.
    pub fn into_response(self) -> Response<Body> {
        let kind = [(header::CONTENT_TYPE, "application/json")];
        let body = serde_json::json!({ "code": self.code(), "message": self.message() });
        (StatusCode::BAD_REQUEST, kind, body.to_string()).into_response()
    }

    /// Why the engine refused a request that was valid when it came.
    pub fn of_engine(body: &[u8]) -> Self {
        let unknown = Self::UnknownSession.message().as_bytes();
        if body.windows(unknown.len()).any(|part| part == unknown) {
            Self::UnknownSession
        } else {
            Self::BadRequest
        }
    }
}

/// The transport of a valid request.
///
/// # Errors
/// The request is none of Engine.IO 4.
pub fn transport<B>(request: &Request<B>) -> Result<Transport, Refusal> {
    let transport = match query_value(request.uri(), "transport=") {
        Some("polling") => Transport::Polling,
        Some("websocket") => Transport::Websocket,
        _ => return Err(Refusal::UnknownTransport),
    };
    let begins = query_value(request.uri(), "sid=").is_none();
    if begins && request.method() != Method::GET {
        return Err(Refusal::BadMethod);
    }
    if query_value(request.uri(), "EIO=") != Some("4") {
        return Err(if begins {
            Refusal::UnsupportedProtocol
        } else {
            Refusal::BadRequest
        });
    }
    // A proxy that does not pass `Upgrade` on would pass frames on even less.
    let upgrades = request.method() == Method::GET && is_upgrade(request.headers());
    if transport == Transport::Websocket && !upgrades {
        return Err(Refusal::NoUpgrade);
    }
    Ok(transport)
}

fn is_upgrade(headers: &HeaderMap) -> bool {
    let lists = |name, wanted: &str| {
        headers
            .get_all(name)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .any(|token| token.trim().eq_ignore_ascii_case(wanted))
    };
    lists(header::CONNECTION, "upgrade")
        && lists(header::UPGRADE, "websocket")
        && lists(header::SEC_WEBSOCKET_VERSION, "13")
        && headers.contains_key(header::SEC_WEBSOCKET_KEY)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(method: Method, query: &str, headers: &[(&str, &str)]) -> Result<Transport, Refusal> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("/socket.io/?{query}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        transport(&request.body(()).unwrap())
    }

    #[test]
    fn valid_requests_have_a_transport() {
        let upgrade = [
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        for query in ["EIO=4&transport=polling", "EIO=4&transport=polling&sid=a"] {
            assert_eq!(asked(Method::GET, query, &[]), Ok(Transport::Polling));
        }
        let post = asked(Method::POST, "EIO=4&transport=polling&sid=a", &[]);
        assert_eq!(post, Ok(Transport::Polling));
        for query in ["EIO=4&transport=websocket", "EIO=4&transport=websocket&sid=a"] {
            assert_eq!(asked(Method::GET, query, &upgrade), Ok(Transport::Websocket));
            for missing in 0..upgrade.len() {
                let mut stripped = upgrade.to_vec();
                stripped.remove(missing);
                assert_eq!(asked(Method::GET, query, &stripped), Err(Refusal::NoUpgrade));
            }
        }
    }

    #[test]
    fn others_are_refused_as_by_the_reference_server() {
        for (method, query, refusal) in [
            (Method::GET, "EIO=4", Refusal::UnknownTransport),
            (
                Method::GET,
                "EIO=4&transport=webtransport",
                Refusal::UnknownTransport,
            ),
            (Method::POST, "EIO=4&transport=polling", Refusal::BadMethod),
            (
                Method::GET,
                "EIO=3&transport=polling",
                Refusal::UnsupportedProtocol,
            ),
            (
                Method::GET,
                "EIO=3&transport=websocket",
                Refusal::UnsupportedProtocol,
            ),
            (Method::GET, "transport=polling", Refusal::UnsupportedProtocol),
            (Method::GET, "EIO=3&transport=polling&sid=a", Refusal::BadRequest),
            (Method::GET, "EIO=4&transport=websocket", Refusal::NoUpgrade),
        ] {
            assert_eq!(asked(method, query, &[]), Err(refusal), "{query}");
        }
    }

    #[tokio::test]
    async fn codes_are_numbers() {
        let response = Refusal::UnknownSession.into_response();
        assert_eq!(response.status(), StatusCode::BAD_REQUEST);
        let body = axum::body::to_bytes(response.into_body(), 1024).await.unwrap();
        assert_eq!(body, r#"{"code":1,"message":"Session ID unknown"}"#);
    }

    #[test]
    fn the_engines_refusals_are_known() {
        let unknown = br#"{"code":"1","message":"Session ID unknown"}"#;
        assert_eq!(Refusal::of_engine(unknown), Refusal::UnknownSession);
        let mismatch = br#"{"code":"3","message":"Bad request"}"#;
        assert_eq!(Refusal::of_engine(mismatch), Refusal::BadRequest);
    }
}
