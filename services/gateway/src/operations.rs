//! Answers operators over the bus: who is connected here, who follows what, whether a token holds; and goes when
//! told to. Shows no content, and neither logs nor keeps tokens.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use parlance_bus::OpsServer;
use parlance_proto::ConversationId;
use parlance_proto::v1::{
    self, DialectCount, Draining, Error, ErrorCode, Followers, GatewayStatus, TokenVerdict, UserSession,
    UserSessions, ops, ops_reply,
};
use parlance_runtime::health::Health;
use parlance_runtime::tasks;
use tokio_util::sync::CancellationToken;

use crate::actions::core::Areas;
use crate::clock::now;
use crate::session::Session;

/// Sessions told in one answer.
const MOST_SESSIONS: usize = 1_000;

/// What answers need.
#[derive(Clone)]
struct Operations {
    areas: Areas,
    draining: CancellationToken,
    health: Health,
    started_at_ms: i64,
}

/// Answers until `stop`; an operator cancels `draining`. Clients are served also where it cannot.
pub async fn run(areas: Areas, draining: CancellationToken, health: Health, stop: CancellationToken) {
    if let Err(error) = serve(areas, draining, health, stop).await {
        tracing::error!(%error, "operators are not answered any more");
    }
}

async fn serve(
    areas: Areas,
    draining: CancellationToken,
    health: Health,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let mut server: OpsServer = areas.bus.serve_gateway_operations().await?;
    let operations = Operations {
        areas,
        draining,
        health,
        started_at_ms: now().timestamp_millis(),
    };
    loop {
        let incoming = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            incoming = server.next() => incoming,
        };
        let Some(incoming) = incoming else {
            anyhow::ensure!(stop.is_cancelled(), "the connection to NATS is closed for good");
            return Ok(());
        };
        let operations = operations.clone();
        // Keys may have to be fetched to judge a token: others need not wait for that.
        tasks::spawn("answer an operator", async move {
            let answer = match &incoming.ops {
                Ok(v1::Ops { body: Some(body) }) => operations.answer(body).await,
                _ => Err(unknown()),
            };
            let body = answer.unwrap_or_else(ops_reply::Body::Error);
            if let Err(error) = incoming.reply(env!("CARGO_PKG_VERSION"), body).await {
                tracing::debug!(%error, "an operator is not answered");
            }
        });
    }
}

impl Operations {
    async fn answer(&self, body: &ops::Body) -> Result<ops_reply::Body, Error> {
        Ok(match body {
            ops::Body::GetGatewayStatus(_) => ops_reply::Body::GatewayStatus(self.status()),
            ops::Body::ListUserSessions(asked) => {
                let of_user = |session: &Session| session.user.as_str() == asked.user_id;
                let (sessions, more) = self.sessions(of_user);
                ops_reply::Body::UserSessions(UserSessions { sessions, more })
            }
            ops::Body::GetFollowers(asked) => {
                let id = asked.conversation_id.parse();
                let id = id.map_err(|_| Error::with(ErrorCode::Invalid, "the conversation id is no UUID"))?;
                ops_reply::Body::Followers(self.followers(id))
            }
            ops::Body::CheckToken(asked) => ops_reply::Body::TokenVerdict(self.verdict(&asked.token).await),
            ops::Body::Drain(_) => {
                let draining = &self.draining;
                let before = draining.is_cancelled();
                if !before {
                    tracing::info!("an operator drains this gateway");
                    draining.cancel();
                }
                ops_reply::Body::Draining(Draining { before })
            }
            _ => return Err(unknown()),
        })
    }

    fn status(&self) -> GatewayStatus {
        let sessions = self.areas.sessions.all();
        let mut dialects: BTreeMap<&str, u64> = BTreeMap::new();
        for session in &sessions {
            *dialects.entry(session.dialect().name()).or_default() += 1;
        }
        let polling = sessions
            .iter()
            .filter(|session| session.transport() == "polling")
            .count();
        let users: HashSet<_> = sessions.iter().map(|session| &session.user).collect();
        GatewayStatus {
            started_at_ms: self.started_at_ms,
            draining: self.draining.is_cancelled(),
            ready: self.health.is_ready(),
            websocket: (sessions.len() - polling) as u64,
            polling: polling as u64,
            users: users.len() as u64,
            rooms: self.areas.rooms.followed().len() as u64,
            dialects: dialects
                .into_iter()
                .map(|(dialect, sessions)| DialectCount {
                    dialect: dialect.to_owned(),
                    sessions,
                })
                .collect(),
        }
    }

    fn followers(&self, conversation: ConversationId) -> Followers {
        let place = self.areas.rooms.place(conversation);
        let (sessions, more) = self.sessions(|session| session.is_attached(conversation));
        Followers {
            followed: place.is_some(),
            head_seq: place.as_ref().map_or(0, |place| place.head_seq),
            participants: place.as_ref().map_or(0, |place| place.participant_count),
            sessions,
            more,
        }
    }

    /// Those that match, oldest first, and whether there are more.
    fn sessions(&self, matches: impl Fn(&Session) -> bool) -> (Vec<UserSession>, bool) {
        let mut matching: Vec<Arc<Session>> = self.areas.sessions.all();
        matching.retain(|session| matches(session));
        matching.sort_unstable_by_key(|session| session.id.number());
        let more = matching.len() > MOST_SESSIONS;
        matching.truncate(MOST_SESSIONS);
        let shown = matching.iter().map(|session| UserSession {
            user_id: session.user.to_string(),
            session: session.id.number(),
            dialect: session.dialect().name().to_owned(),
            transport: session.transport().to_owned(),
            since_ms: session.since_ms(),
            token_expires_at: session.expires_at(),
            conversations: session.conversations().len() as u64,
        });
        (shown.collect(), more)
    }

    async fn verdict(&self, token: &str) -> TokenVerdict {
        match self.areas.auth.authenticate(token).await {
            Ok(identity) => TokenVerdict {
                valid: true,
                reason: String::new(),
                username: identity.username.unwrap_or_else(|| identity.user_id.to_string()),
                user_id: identity.user_id.to_string(),
                expires_at: identity.grant.expires_at,
                issued_at: identity.grant.issued_at.unwrap_or_default(),
                token_id: identity.grant.token_id.unwrap_or_default(),
                is_service: identity.is_service,
            },
            Err(error) => TokenVerdict {
                valid: false,
                reason: error.to_string(),
                ..TokenVerdict::default()
            },
        }
    }
}

fn unknown() -> Error {
    Error::with(
        ErrorCode::UnknownEvent,
        "this version of the gateway does not know that question",
    )
}
