//! Keeps secrets out of error lines. Owns the decision which setting is a secret by its name, and
//! how a URL is shown. It must err on the side of showing too little.

/// Parts of a key's last segment that mark its value as a secret.
const SECRET_WORDS: [&str; 7] = [
    "secret",
    "password",
    "passwd",
    "token",
    "credential",
    "seed",
    "passphrase",
];

/// Whether the value of the setting `key` (a dotted path) must never be shown.
#[must_use]
pub fn is_secret(key: &str) -> bool {
    let name = key.rsplit('.').next().unwrap_or(key).to_ascii_lowercase();
    name.ends_with("key") || SECRET_WORDS.iter().any(|word| name.contains(word))
}

/// `text` as it may be shown: without the user part of a URL and without its query, which may
/// both hold a password. Text that is no URL and holds no `@` comes back unchanged.
///
/// ```
/// use parlance_runtime::config::without_credentials;
/// assert_eq!(without_credentials("nats://ann:s3cret@bus:4222"), "nats://***@bus:4222");
/// ```
#[must_use]
pub fn without_credentials(text: &str) -> String {
    let mut items: Vec<String> = Vec::new();
    for part in text.split(',') {
        match items.last_mut() {
            // A comma that belongs to a password must not save what stands before it.
            Some(url) if url.contains("://") && !url.contains('@') && !part.contains("://") => {
                url.push(',');
                url.push_str(part);
            }
            _ => items.push(part.to_owned()),
        }
    }
    let shown: Vec<_> = items.iter().map(|item| one_without_credentials(item)).collect();
    shown.join(",")
}

fn one_without_credentials(text: &str) -> String {
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme, rest)) => (format!("{scheme}://"), rest),
        None => (String::new(), text),
    };
    // An unescaped `/`, `?` or `@` inside a password is a usual mistake, so everything up to the
    // last `@` counts as the user part, wherever a strict parser would have ended it.
    let (user, rest) = match rest.rsplit_once('@') {
        Some((_, rest)) => ("***@", rest),
        None => ("", rest),
    };
    match rest.split_once('?') {
        Some((rest, _)) if !scheme.is_empty() => format!("{scheme}{user}{rest}?***"),
        _ => format!("{scheme}{user}{rest}"),
    }
}

/// `value` of the setting `key` as it may be shown in an error line: quoted, on one line, short.
pub(super) fn shown(key: &str, value: &str) -> String {
    const LONGEST: usize = 80;
    if is_secret(key) {
        return "(hidden)".to_owned();
    }
    let visible = without_credentials(value);
    let mut short: String = visible.chars().take(LONGEST).collect();
    if short.len() < visible.len() {
        short.push('…');
    }
    format!("{short:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_recognised_by_name() {
        for key in [
            "jwt.secret",
            "db.password",
            "nats.token",
            "nats.nkey_seed",
            "tls.private_key",
        ] {
            assert!(is_secret(key), "{key}");
        }
        for key in [
            "jwt.public_key_file",
            "database.url",
            "secret.size",
            "limits.content_bytes",
        ] {
            assert!(!is_secret(key), "{key}");
        }
    }

    #[test]
    fn urls_lose_user_part_and_query() {
        for (given, expected) in [
            ("postgres://u:p@db/chat", "postgres://***@db/chat"),
            ("postgres://u:p/x?@y@db/chat", "postgres://***@db/chat"),
            ("postgres:///chat?host=/run&password=x", "postgres:///chat?***"),
            ("u:p@bus:4222", "***@bus:4222"),
            ("nats://ann:pa,ss@bus", "nats://***@bus"),
            ("nats://x:1,y:2", "nats://x:1,y:2"),
            ("nats://a:b@x:1,nats://c:d@y:2", "nats://***@x:1,nats://***@y:2"),
            ("what?", "what?"),
            ("info,parlance=debug", "info,parlance=debug"),
        ] {
            assert_eq!(without_credentials(given), expected);
        }
    }

    #[test]
    fn shown_values_are_short_and_on_one_line() {
        assert_eq!(shown("a.b", "x\ny"), "\"x\\ny\"");
        assert_eq!(shown("a.secret", "hunter2"), "(hidden)");
        assert!(shown("a.b", &"é".repeat(500)).chars().count() < 90);
        assert!(!shown("bus.url", "nats://ann:pa,ss@bus").contains("pa"));
    }
}
