//! The end of a session's token, and how a client puts it off: the same in every dialect, because it is about
//! the connection and not about what is said over it.

use std::pin::Pin;
use std::time::Duration;

use parlance_proto::v1::ErrorCode;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::time::{Instant, Sleep, sleep};

use super::Serving;
use crate::clock::now;
use crate::dialect::shape::time;
use crate::error::ClientError;
use crate::session::{Ack, Request, Session};

/// The client's event.
pub(super) const EVENT: &str = "auth:refresh";

#[derive(Deserialize)]
struct RefreshPayload {
    token: String,
}

/// Every dialect's front end finds its own words here.
#[derive(Serialize)]
struct RenewedJson {
    ok: bool,
    success: bool,
    expires_at: String,
    #[serde(rename = "expiresAt")]
    expires_at_camel: String,
}

/// Waits for what is next: the notice that the token ends soon, or its end.
pub(super) struct Expiry {
    notice: Option<Duration>,
    /// What is waited for.
    expires_at: i64,
    noticed: bool,
    sleep: Pin<Box<Sleep>>,
}

impl Expiry {
    /// `notice` is how long before the end the client is told of it; zero for never.
    pub(super) fn new(session: &Session, notice: Duration) -> Self {
        let notice = Some(notice).filter(|notice| !notice.is_zero());
        let mut expiry = Self {
            notice,
            expires_at: session.expires_at(),
            noticed: false,
            sleep: Box::pin(sleep(Duration::ZERO)),
        };
        expiry.arm();
        expiry
    }

    /// Completes when [`Expiry::is_over`] has something to do.
    pub(super) async fn comes(&mut self) {
        self.sleep.as_mut().await;
    }

    /// Whether the token has ended; if not, tells the client that it will soon.
    pub(super) fn is_over(&mut self, session: &Session) -> bool {
        if self.noticed || self.notice.is_none() {
            return true;
        }
        self.noticed = true;
        if let Some(frame) = session.dialect().expiring(self.expires_at.saturating_mul(1000)) {
            session.emit(&frame);
        }
        self.arm();
        false
    }

    /// The session may stand on another token by now.
    pub(super) fn follow(&mut self, session: &Session) {
        if self.expires_at != session.expires_at() {
            self.expires_at = session.expires_at();
            self.noticed = false;
            self.arm();
        }
    }

    fn arm(&mut self) {
        let left = self.expires_at.saturating_sub(now().timestamp());
        let left = Duration::from_secs(u64::try_from(left).unwrap_or_default());
        let notice = self.notice.filter(|_| !self.noticed).unwrap_or_default();
        let at = Instant::now().checked_add(left.saturating_sub(notice));
        // Beyond what the clock can hold nobody stays connected.
        let at = at.unwrap_or_else(|| Instant::now() + Duration::from_secs(u64::from(u32::MAX)));
        self.sleep.as_mut().reset(at);
    }
}

impl Serving {
    /// Lets the session stand on the token in the payload.
    pub(super) async fn renew(&self, payload: &RawValue) -> Result<i64, ClientError> {
        metrics::counter!("chat_gateway_events_total", "direction" => "in", "event" => EVENT).increment(1);
        let Self { state, session, .. } = self;
        state.core.limits.admit(&session.user, 0)?;
        let RefreshPayload { token } = serde_json::from_str(payload.get())
            .map_err(|_| ClientError::invalid("token is missing or no text"))?;
        let identity = state.core.auth.authenticate(&token).await.map_err(|error| {
            let code = if error.is_retryable() {
                ErrorCode::Unavailable
            } else {
                ErrorCode::Unauthenticated
            };
            ClientError::new(code, error.to_string())
        })?;
        if identity.user_id != session.user {
            return Err(ClientError::new(
                ErrorCode::Forbidden,
                "the token is another user's",
            ));
        }
        let grant = identity.grant.clone();
        state.core.acting_user(identity).await?;
        session.renew(grant);
        // Revoked between its check and now, when the session stood on another one.
        if session.is_revoked(state.core.auth.revocations()) {
            session.dismiss();
        }
        Ok(session.expires_at())
    }

    /// Answers [`Serving::renew`].
    pub(super) fn renewed(&self, outcome: Result<i64, ClientError>, ack: Ack) {
        let result = outcome.as_ref().map_or_else(|error| error.code, |_| "ok");
        metrics::counter!("chat_gateway_token_renewals_total", "result" => result).increment(1);
        match outcome {
            Ok(expires_at) => {
                let at = time(expires_at.saturating_mul(1000));
                let renewed = RenewedJson {
                    ok: true,
                    success: true,
                    expires_at: at.clone(),
                    expires_at_camel: at,
                };
                self.session.acknowledge(ack, &renewed);
            }
            Err(error) => {
                let request = Request {
                    ack,
                    event: EVENT,
                    tag: None,
                };
                self.session.answer(request, Err(&error), None);
            }
        }
    }
}
