//! Origins of web pages, as settings name them and as browsers send them.
//!
//! A setting may spell an origin in any way that means one; it is brought into the form browsers send when the
//! process starts, and what is no origin stops the start. Must not know headers or answers.

use http::{HeaderMap, HeaderName, HeaderValue, header};
use parlance_runtime::config::Invalid;
use reqwest::Url;

/// What a setting allows, to be read after "must be".
const ALLOWED: &str = "an origin: scheme and host without a path, such as https://chat.example, \
                       https://chat.example:8443, https://*.chat.example or http://localhost:*; or the word null";
/// What pages from files and sandboxed frames send.
const NULL: &str = "null";
/// What proxies name the host in that the client asked for.
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// In what browsers themselves say whether a request stays within its origin.
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// Stands for any origin in `cors.origins`.
const ANY: &str = "*";

/// The origins that a setting names by one text.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Pattern {
    Null,
    Pages { scheme: String, host: Host, port: Port },
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Host {
    Is(String),
    /// Ends with this, which begins with a dot, and has at least one label before it.
    Below(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Port {
    Any,
    /// Empty for the scheme's own.
    Is(String),
}

/// Values by the origins they are for. What names one origin goes before what names many.
#[derive(Debug, Clone)]
pub struct OriginMap<T>(Vec<(Pattern, T)>);

/// Which web pages may connect. Requests without Origin are no web pages; they need a token anyway.
#[derive(Debug, Clone)]
pub struct Origins {
    listed: OriginMap<()>,
    any: bool,
}

/// What the Origin of a request means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OriginVerdict {
    /// No page of another origin asks.
    Own,
    /// A page of a listed origin asks; its credentials count too.
    Listed,
    /// A page of any origin may ask, without credentials.
    Any,
    /// A page asks that may not.
    Refused,
}

impl Pattern {
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if text.eq_ignore_ascii_case(NULL) {
            return Some(Self::Null);
        }
        let (scheme, rest) = text.split_once("://")?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (rest, any_port) = match rest.strip_suffix(":*") {
            Some(rest) => (rest, true),
            None => (rest, false),
        };
        let (rest, below) = match rest.strip_prefix("*.") {
            Some(rest) => (rest, true),
            None => (rest, false),
        };
        // Lower-cases, encodes international names and leaves the scheme's own port out, as browsers do.
        let url = Url::parse(&format!("{scheme}://{rest}")).ok()?;
        let bare = url.path().trim_end_matches('/').is_empty()
            && url.query().is_none()
            && url.fragment().is_none()
            && url.username().is_empty()
            && url.password().is_none()
            && !rest.contains(['/', '@', '\\']);
        let host = url.host_str()?.to_ascii_lowercase();
        let is_name = host.parse::<std::net::IpAddr>().is_err() && !host.starts_with('[');
        if !bare || host.is_empty() || host.contains('*') || (below && !is_name) {
            return None;
        }
        Some(Self::Pages {
            scheme: url.scheme().to_owned(),
            host: if below {
                Host::Below(format!(".{host}"))
            } else {
                Host::Is(host)
            },
            port: if any_port {
                Port::Any
            } else {
                Port::Is(url.port().map(|port| port.to_string()).unwrap_or_default())
            },
        })
    }

    fn is_one(&self) -> bool {
        matches!(
            self,
            Self::Null
                | Self::Pages {
                    host: Host::Is(_),
                    port: Port::Is(_),
                    ..
                }
        )
    }

    fn matches(&self, origin: &str) -> bool {
        let Self::Pages { scheme, host, port } = self else {
            return origin == NULL;
        };
        let Some(rest) = origin
            .strip_prefix(scheme.as_str())
            .and_then(|rest| rest.strip_prefix("://"))
        else {
            return false;
        };
        // A colon inside brackets belongs to an IPv6 address.
        let (name, number) = match rest.rsplit_once(':') {
            Some((name, number)) if !number.contains(']') => (name, number),
            _ => (rest, ""),
        };
        let port_fits = match port {
            Port::Any => number.bytes().all(|byte| byte.is_ascii_digit()),
            Port::Is(port) => number == port,
        };
        let is_label = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        port_fits
            && match host {
                Host::Is(host) => name == host,
                Host::Below(end) => name
                    .strip_suffix(end.as_str())
                    .is_some_and(|labels| !labels.is_empty() && labels.bytes().all(is_label)),
            }
    }
}

impl<T> OriginMap<T> {
    /// Reads the origins of a setting.
    ///
    /// # Errors
    /// The first text that is no origin; names the setting and the text.
    pub fn new<'a>(setting: &str, entries: impl IntoIterator<Item = (&'a str, T)>) -> Result<Self, Invalid> {
        let read = entries.into_iter().map(|(text, value)| {
            let pattern = Pattern::parse(text).ok_or_else(|| Invalid::new(setting, text, ALLOWED))?;
            Ok((pattern, value))
        });
        let mut patterns = read.collect::<Result<Vec<_>, _>>()?;
        patterns.sort_by_key(|(pattern, _)| !pattern.is_one());
        Ok(Self(patterns))
    }

    /// The value for an origin as a browser sends it.
    pub fn get(&self, origin: &str) -> Option<&T> {
        let found = self.0.iter().find(|(pattern, _)| pattern.matches(origin));
        found.map(|(_, value)| value)
    }
}

impl Origins {
    /// Reads `cors.origins`; `*` allows any.
    ///
    /// # Errors
    /// The first text that is no origin.
    pub fn new(allowed: &[String]) -> Result<Self, Invalid> {
        let is_any = |text: &&String| text.trim() == ANY;
        let named = allowed.iter().filter(|text| !is_any(text));
        let listed = OriginMap::new("cors.origins", named.map(|text| (text.as_str(), ()))).map_err(
            |Invalid { key, value, allowed }| {
                Invalid::new(key, value, format!("{allowed}; or {ANY} for any"))
            },
        )?;
        Ok(Self {
            listed,
            any: allowed.iter().any(|text| is_any(&text)),
        })
    }

    /// Judges the page that a request comes from.
    pub fn judge(&self, headers: &HeaderMap) -> OriginVerdict {
        let text = |name| {
            headers
                .get(name)
                .and_then(|value| HeaderValue::to_str(value).ok())
        };
        let Some(origin) = text(header::ORIGIN) else {
            return if headers.contains_key(header::ORIGIN) {
                OriginVerdict::Refused
            } else {
                OriginVerdict::Own
            };
        };
        let host = origin.split_once("://").map(|(_, host)| host);
        // A proxy may have replaced Host. Pages can send neither of the other two to another origin unasked.
        let is_own = host.is_some()
            && (host == text(header::HOST)
                || host == text(FORWARDED_HOST)
                || text(FETCH_SITE) == Some("same-origin"));
        if self.listed.get(origin).is_some() {
            OriginVerdict::Listed
        } else if is_own {
            OriginVerdict::Own
        } else if self.any {
            OriginVerdict::Any
        } else {
            OriginVerdict::Refused
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origins(allowed: &[&str]) -> Origins {
        let allowed: Vec<_> = allowed.iter().map(|&text| text.to_owned()).collect();
        Origins::new(&allowed).unwrap()
    }

    fn judged(origins: &Origins, origin: &str, host: &str) -> OriginVerdict {
        let mut headers = HeaderMap::new();
        headers.insert(header::ORIGIN, origin.parse().unwrap());
        headers.insert(header::HOST, host.parse().unwrap());
        origins.judge(&headers)
    }

    #[test]
    fn an_origin_in_another_spelling_is_the_same_origin() {
        for (spelled, sent) in [
            ("https://a.example/", "https://a.example"),
            ("HTTPS://A.Example", "https://a.example"),
            ("https://a.example:443", "https://a.example"),
            ("http://a.example:80/", "http://a.example"),
            ("https://a.example:8443", "https://a.example:8443"),
            (" https://a.example ", "https://a.example"),
            ("https://bücher.example", "https://xn--bcher-kva.example"),
            ("http://[::1]:3000", "http://[::1]:3000"),
            ("http://127.0.0.1", "http://127.0.0.1"),
            ("capacitor://localhost", "capacitor://localhost"),
            ("chrome-extension://abcdef", "chrome-extension://abcdef"),
            ("null", "null"),
        ] {
            assert_eq!(
                judged(&origins(&[spelled]), sent, "chat"),
                OriginVerdict::Listed,
                "{spelled}"
            );
        }
    }

    #[test]
    fn what_is_no_origin_is_named_with_its_setting() {
        for text in [
            "a.example",
            "localhost:3000",
            "https:a.example",
            "https://",
            "https://a.example/chat",
            "https://a.example?x",
            "https://a.example#x",
            "https://me:secret@a.example",
            "https://a.example:http",
            "https://*",
            "https://a.*.example",
            "https://*a.example",
            "https://*.10.0.0.1",
            "http://*:3000",
            "file:///index.html",
            "https://a example",
            "",
        ] {
            let error = Origins::new(&[text.to_owned()]).unwrap_err();
            assert_eq!((error.key.as_str(), error.value.as_str()), ("cors.origins", text));
            let error = OriginMap::new("dialect.origins", [(text, ())]).unwrap_err();
            assert_eq!(error.key, "dialect.origins");
        }
        assert!(OriginMap::new("dialect.origins", [("*", ())]).is_err());
    }

    #[test]
    fn a_star_stands_for_labels_before_a_name_and_for_nothing_else() {
        let origins = origins(&["https://*.a.example", "http://*.b.example:*"]);
        for (origin, verdict) in [
            ("https://x.a.example", OriginVerdict::Listed),
            ("https://x.y-1.a.example", OriginVerdict::Listed),
            ("https://a.example", OriginVerdict::Refused),
            ("https://.a.example", OriginVerdict::Refused),
            ("https://evil-a.example", OriginVerdict::Refused),
            ("https://eviL.example/.a.example", OriginVerdict::Refused),
            ("https://x.a.example.evil.example", OriginVerdict::Refused),
            ("http://x.a.example", OriginVerdict::Refused),
            ("https://x.a.example:8443", OriginVerdict::Refused),
            ("http://x.b.example:8443", OriginVerdict::Listed),
            ("http://x.b.example:evil", OriginVerdict::Refused),
        ] {
            assert_eq!(judged(&origins, origin, "chat"), verdict, "{origin}");
        }
    }

    #[test]
    fn pages_of_this_machine_have_any_port() {
        let origins = origins(&["http://localhost:*", "http://127.0.0.1:*", "http://[::1]:*"]);
        for (origin, verdict) in [
            ("http://localhost", OriginVerdict::Listed),
            ("http://localhost:5173", OriginVerdict::Listed),
            ("http://127.0.0.1:3000", OriginVerdict::Listed),
            ("http://[::1]:3000", OriginVerdict::Listed),
            ("http://[::1]", OriginVerdict::Listed),
            ("https://localhost:5173", OriginVerdict::Refused),
            ("http://localhost.evil.example", OriginVerdict::Refused),
            ("http://localhost:3000.evil.example", OriginVerdict::Refused),
            ("http://[::2]:3000", OriginVerdict::Refused),
        ] {
            assert_eq!(judged(&origins, origin, "chat"), verdict, "{origin}");
        }
    }

    #[test]
    fn credentials_are_for_listed_origins_only() {
        let both = origins(&["*", "https://a.example"]);
        assert_eq!(judged(&both, "https://a.example", "chat"), OriginVerdict::Listed);
        assert_eq!(judged(&both, "https://b.example", "chat"), OriginVerdict::Any);
        assert_eq!(judged(&both, "https://chat", "chat"), OriginVerdict::Own);
        assert_eq!(judged(&origins(&[]), "null", "chat"), OriginVerdict::Refused);
        assert_eq!(both.judge(&HeaderMap::new()), OriginVerdict::Own);
    }

    #[test]
    fn the_own_origin_is_known_behind_a_proxy_that_replaces_the_host() {
        let origins = origins(&[]);
        let judged = |name: HeaderName, value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ORIGIN, HeaderValue::from_static("https://chat.example"));
            headers.insert(header::HOST, HeaderValue::from_static("gateway:4004"));
            headers.insert(name, value.parse().unwrap());
            origins.judge(&headers)
        };
        assert_eq!(judged(header::HOST, "chat.example"), OriginVerdict::Own);
        assert_eq!(judged(FORWARDED_HOST, "chat.example"), OriginVerdict::Own);
        assert_eq!(judged(FETCH_SITE, "same-origin"), OriginVerdict::Own);
        for site in ["same-site", "cross-site", "none"] {
            assert_eq!(judged(FETCH_SITE, site), OriginVerdict::Refused, "{site}");
        }
        assert_eq!(judged(FORWARDED_HOST, "evil.example"), OriginVerdict::Refused);
    }

    #[test]
    fn one_origin_goes_before_many() {
        let entries = [("https://*.example", "inbox"), ("https://a.example", "chats")];
        let map = OriginMap::new("dialect.origins", entries).unwrap();
        assert_eq!(map.get("https://a.example"), Some(&"chats"));
        assert_eq!(map.get("https://b.example"), Some(&"inbox"));
        assert_eq!(map.get("https://example"), None);
    }
}
