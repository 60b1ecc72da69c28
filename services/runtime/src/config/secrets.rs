//! Secrets that everybody knows: those that stand in the repository so that a try-out needs no preparation.

use std::net::IpAddr;

use super::Invalid;

/// What is part of every such secret.
const PUBLIC: &str = "dev-only-";

/// Whether only this machine reaches what listens on `host`.
#[must_use]
pub fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Refuses secrets that everybody knows, unless only this machine reaches the process, or `development` says that
/// nothing is at stake. `listeners` are the hosts it listens on, `secrets` pairs of a setting and its value.
///
/// # Errors
/// Names the first such setting, never its value.
pub fn refuse_public_secrets(
    development: bool,
    listeners: &[&str],
    secrets: &[(&str, &str)],
) -> Result<(), Invalid> {
    if development || listeners.iter().all(|host| is_loopback(host)) {
        return Ok(());
    }
    match secrets.iter().find(|(_, value)| value.contains(PUBLIC)) {
        Some((key, _)) => Err(Invalid::hidden(
            *key,
            format!(
                "a secret of your own: the {PUBLIC} one is public. For a try-out set PARLANCE_DEVELOPMENT=true, or let \
                 every listener have a loopback address"
            ),
        )),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &[(&str, &str)] = &[
        ("nats.password", "a password of our own"),
        (
            "database.url",
            "postgres://parlance:dev-only-postgres@postgres/parlance",
        ),
    ];

    #[test]
    fn a_public_secret_is_refused_where_others_can_connect() {
        let error = refuse_public_secrets(false, &["127.0.0.1", "0.0.0.0"], KNOWN).unwrap_err();
        assert_eq!((error.key.as_str(), error.value.as_str()), ("database.url", ""));
        assert!(
            error.allowed.contains("PARLANCE_DEVELOPMENT"),
            "{}",
            error.allowed
        );
    }

    #[test]
    fn it_is_accepted_on_this_machine_alone_or_for_development() {
        for (development, listeners) in [
            (true, &["0.0.0.0"][..]),
            (false, &["127.0.0.1", "::1", "localhost"]),
        ] {
            refuse_public_secrets(development, listeners, KNOWN).unwrap();
        }
        refuse_public_secrets(false, &["0.0.0.0"], &KNOWN[..1]).unwrap();
    }
}
