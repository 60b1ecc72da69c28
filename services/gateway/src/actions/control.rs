//! Orders of other services to all gateways: ends connections and voids tokens, here and on every replica.
//!
//! What the stream `CONTROL` holds is asked of persistence before this replica is ready and again after every loss of NATS, so that no
//! replica misses what was revoked. Must not decide what a token says: `auth` does.

mod json;

use std::time::{Duration, SystemTime};

use parlance_bus::control::Order;
use parlance_bus::{Bus, subject};
use parlance_proto::UserId;
use parlance_proto::v1::{Control, DisconnectUser, RevokeToken, RevokeUserTokens, control};
use parlance_runtime::backoff::Backoff;
use parlance_runtime::health::Condition;
use tokio_util::sync::CancellationToken;

use super::core::Core;
use crate::auth::Revocations;
use crate::clock::now;
use crate::error::ClientError;
use crate::session::sessions::Sessions;

pub use json::parse as parse_json;

/// Pauses before orders that could not be read are asked for again.
const PAUSES: (Duration, Duration) = (Duration::from_millis(300), Duration::from_secs(2));
/// Longest token id, as tokens are read.
const TOKEN_ID_MAX_CHARS: usize = 128;

/// An order that has been checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Checked {
    /// See the message of that name.
    DisconnectUser {
        /// Whose connections.
        user: UserId,
        /// They shall not come again by themselves.
        for_good: bool,
    },
    /// See the message of that name.
    RevokeToken {
        /// Which.
        token_id: String,
        /// Its own end, if known.
        expires_at: Option<i64>,
    },
    /// See the message of that name.
    RevokeUserTokens {
        /// Whose.
        user: UserId,
        /// Seconds since 1970.
        issued_before: i64,
    },
}

/// Obeys orders until `stop`. `condition` is met once all that was ordered before is known.
///
/// # Errors
/// The subscription cannot be made or has ended.
pub async fn follow(core: Core, condition: Condition, stop: CancellationToken) -> anyhow::Result<()> {
    let followed = stop.run_until_cancelled(obey(&core, &condition)).await;
    followed.unwrap_or(Ok(()))
}

async fn obey(core: &Core, condition: &Condition) -> anyhow::Result<()> {
    let bus: &Bus = &core.bus;
    let mut link = bus.link();
    let mut orders = bus.subscribe_control().await?;
    loop {
        bus.connected().await;
        link.borrow_and_update();
        // Live orders wait meanwhile; obeying one twice does no harm.
        let mut backoff = Backoff::new(PAUSES.0, PAUSES.1);
        while let Err(error) = catch_up(core).await {
            tracing::warn!(error = error.message, "cannot read what was revoked yet");
            backoff.pause().await;
        }
        core.auth.revocations().set_read();
        condition.set_ready();
        loop {
            tokio::select! {
                order = orders.next() => match order {
                    Some(order) => take(core, &order),
                    None => anyhow::bail!("the connection to NATS is closed"),
                },
                // Another connection, or orders were dropped: some may be missing.
                changed = link.changed() => {
                    changed?;
                    break;
                }
            }
        }
    }
}

/// Obeys every order that the stream holds, oldest first. Those that come meanwhile may be among them.
async fn catch_up(core: &Core) -> Result<(), ClientError> {
    let mut after_seq = 0;
    loop {
        let page = core.backend.control(None, after_seq).await?;
        for order in page.orders {
            take(core, &order.into());
        }
        if !page.more {
            return Ok(());
        }
        after_seq = page.last_seq;
    }
}

fn take(core: &Core, order: &Order) {
    let kind = match read(order) {
        Ok(checked) => {
            carry_out(core.auth.revocations(), &core.sessions, &checked, order.stored_at);
            checked.kind()
        }
        Err(problem) => {
            tracing::warn!(problem, "ignored a malformed order on chat.control");
            "malformed"
        }
    };
    metrics::counter!("chat_gateway_control_total", "kind" => kind).increment(1);
}

/// Reads an order, and checks that its subject says the same.
fn read(order: &Order) -> Result<Checked, &'static str> {
    let json = order.content_type.as_deref();
    let control = if json.is_some_and(|kind| kind.starts_with("application/json")) {
        parse_json(&order.payload)?
    } else {
        let control = order.control();
        control.map_err(|_| "the payload is no Control; for JSON set Content-Type")?
    };
    let body = control.body.as_ref().ok_or("it says nothing")?;
    // Else it would take the place of another order in the stream, or share its place with one.
    if subject::control(body) != order.subject {
        return Err("the subject is not the one for what it says");
    }
    Checked::of(control)
}

fn carry_out(revocations: &Revocations, sessions: &Sessions, order: &Checked, stored_at: Option<SystemTime>) {
    match order {
        Checked::DisconnectUser { user, for_good } => {
            // First: a session that its client knows of may not be among them yet.
            sessions.send_away(user, *for_good, stored_at);
            let meant = sessions.all().into_iter().filter(|session| {
                // Whoever came after an order that is read again has obeyed it already.
                session.user == *user && stored_at.is_none_or(|at| session.since <= at)
            });
            for session in meant {
                session.send_away(*for_good);
            }
            return;
        }
        Checked::RevokeToken { token_id, expires_at } => {
            revocations.revoke_token(token_id.clone(), *expires_at, now().timestamp())
        }
        Checked::RevokeUserTokens { user, issued_before } => {
            revocations.revoke_user(user.clone(), *issued_before);
        }
    }
    for session in sessions.all() {
        if session.is_revoked(revocations) {
            tracing::info!(user = %session.user, "the token of a connection was revoked");
            session.dismiss();
        }
    }
}

impl Checked {
    /// What an order says, if it makes sense.
    ///
    /// # Errors
    /// What is wrong, without content.
    pub fn of(control: Control) -> Result<Self, &'static str> {
        let user = |id: String| UserId::parse(id).map_err(|_| "user_id is not valid");
        match control.body.ok_or("it says nothing")? {
            control::Body::DisconnectUser(DisconnectUser { user_id, for_good }) => Ok(Self::DisconnectUser {
                user: user(user_id)?,
                for_good,
            }),
            control::Body::RevokeToken(RevokeToken { jti, expires_at }) => {
                if jti.is_empty() || jti.chars().count() > TOKEN_ID_MAX_CHARS {
                    return Err("jti is empty or longer than 128 characters");
                }
                Ok(Self::RevokeToken {
                    token_id: jti,
                    expires_at: Some(expires_at).filter(|end| *end > 0),
                })
            }
            control::Body::RevokeUserTokens(RevokeUserTokens {
                user_id,
                issued_before,
            }) => {
                if issued_before <= 0 {
                    return Err("issued_before is missing");
                }
                Ok(Self::RevokeUserTokens {
                    user: user(user_id)?,
                    issued_before,
                })
            }
        }
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::DisconnectUser { .. } => "disconnect_user",
            Self::RevokeToken { .. } => "revoke_token",
            Self::RevokeUserTokens { .. } => "revoke_user_tokens",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(subject: &str, content_type: Option<&str>, payload: impl Into<Vec<u8>>) -> Order {
        Order {
            subject: subject.to_owned(),
            content_type: content_type.map(str::to_owned),
            payload: payload.into().into(),
            stored_at: None,
        }
    }

    #[test]
    fn protobuf_and_json_say_the_same() {
        // Field 2 holds text 1 and number 2.
        let protobuf = b"\x12\x08\x0a\x04a.b*\x10\x07";
        let subject = "chat.control.token.a_2Eb_2A";
        let expected = Ok(Checked::RevokeToken {
            token_id: "a.b*".to_owned(),
            expires_at: Some(7),
        });
        assert_eq!(read(&order(subject, None, *protobuf)), expected);
        let json = r#"{"revoke_token":{"jti":"a.b*","expires_at":7}}"#;
        let kind = Some("application/json; charset=utf-8");
        assert_eq!(read(&order(subject, kind, json)), expected);
    }

    #[test]
    fn an_order_is_refused_on_the_subject_of_another() {
        let json = r#"{"revoke_user_tokens":{"user_id":"bob","issued_before":7}}"#;
        let kind = Some("application/json");
        assert!(read(&order("chat.control.user.bob", kind, json)).is_ok());
        for subject in [
            "chat.control.user.alice",
            "chat.control.disconnect.bob",
            "chat.control.bob",
        ] {
            assert!(read(&order(subject, kind, json)).is_err(), "{subject}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_without_quoting_it() {
        let kind = Some("application/json");
        let long = format!(r#"{{"revoke_token":{{"jti":"{}"}}}}"#, "s3cret".repeat(30));
        for (subject, json) in [
            ("chat.control.token._", r#"{"revoke_token":{"jti":""}}"#),
            ("chat.control.token._", r#"{"revoke_token":{}}"#),
            (
                "chat.control.user.bob",
                r#"{"revoke_user_tokens":{"user_id":"bob"}}"#,
            ),
            ("chat.control.disconnect._", r#"{"disconnect_user":{}}"#),
            (
                "chat.control.disconnect.bob",
                r#"{"disconnect_user":{"user_id":"bob","s3cret":1}}"#,
            ),
            ("chat.control.x", r#"{"s3cret":{}}"#),
            ("chat.control.x", "{}"),
            ("chat.control.x", "s3cret"),
            (
                &subject::control(&control::Body::RevokeToken(RevokeToken {
                    jti: "s3cret".repeat(30),
                    expires_at: 0,
                })),
                &long,
            ),
        ] {
            let problem = read(&order(subject, kind, json)).unwrap_err();
            assert!(!problem.contains("s3cret"), "{problem}");
        }
        assert!(read(&order("chat.control.x", None, [0xFF; 9])).is_err());
    }
}
