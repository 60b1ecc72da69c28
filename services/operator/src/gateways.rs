//! What gateways are asked: connections, rooms, tokens; and the order to go.

use std::io::Read as _;

use anyhow::{Context as _, bail};
use parlance_proto::v1::{
    CheckToken, Drain, Draining, Followers, GatewayStatus, GetFollowers, GetGatewayStatus, ListUserSessions,
    TokenVerdict, UserSession, UserSessions, ops, ops_reply,
};
use serde_json::{Value, json};

use crate::ask::{Gathered, Operator, refused};
use crate::cli::{Check, Token, Verdict};
use crate::show::{Table, at_ms, at_seconds, line, print, warn};

/// More would be no token.
const MOST_TOKEN_BYTES: u64 = 64 * 1024;

/// `connections`.
pub async fn connections(operator: &Operator) -> anyhow::Result<Verdict> {
    let gathered = operator
        .gateways(ops::Body::GetGatewayStatus(GetGatewayStatus {}))
        .await?;
    let mut table = Table::new([
        "GATEWAY",
        "VERSION",
        "STATE",
        "SINCE",
        "USERS",
        "WEBSOCKET",
        "POLLING",
        "ROOMS",
        "DIALECTS",
    ]);
    let mut all = Vec::new();
    for (instance, version, status) in statuses(&gathered)? {
        let dialects: Vec<String> = status
            .dialects
            .iter()
            .map(|one| format!("{}:{}", one.dialect, one.sessions))
            .collect();
        table.row([
            instance.to_owned(),
            version.to_owned(),
            state(&status).to_owned(),
            at_ms(status.started_at_ms),
            status.users.to_string(),
            status.websocket.to_string(),
            status.polling.to_string(),
            status.rooms.to_string(),
            dialects.join(" "),
        ]);
        let dialects = status.dialects.iter();
        all.push(json!({
            "gateway": instance, "version": version, "state": state(&status),
            "started_at": at_ms(status.started_at_ms), "users": status.users,
            "websocket": status.websocket, "polling": status.polling, "rooms": status.rooms,
            "dialects": dialects.map(|one| (one.dialect.clone(), one.sessions.into()))
                .collect::<serde_json::Map<String, Value>>(),
        }));
    }
    print(operator.json, &Value::Array(all), &table)?;
    Ok(completeness(&gathered))
}

/// `connections USER`.
pub async fn sessions(operator: &Operator, user: &str) -> anyhow::Result<Verdict> {
    let asked = ListUserSessions {
        user_id: user.to_owned(),
    };
    let gathered = operator.gateways(ops::Body::ListUserSessions(asked)).await?;
    let mut shown = Shown::new();
    for reply in &gathered.replies {
        match &reply.body {
            Some(ops_reply::Body::UserSessions(UserSessions { sessions, more })) => {
                shown.add(&reply.instance, sessions, *more);
            }
            body => return Err(unexpected(body.as_ref())),
        }
    }
    shown.print(operator)?;
    Ok(completeness(&gathered))
}

/// `rooms`.
pub async fn rooms(operator: &Operator) -> anyhow::Result<Verdict> {
    let gathered = operator
        .gateways(ops::Body::GetGatewayStatus(GetGatewayStatus {}))
        .await?;
    let mut table = Table::new(["GATEWAY", "ROOMS"]);
    let mut all = Vec::new();
    for (instance, _, status) in statuses(&gathered)? {
        table.row([instance.to_owned(), status.rooms.to_string()]);
        all.push(json!({ "gateway": instance, "rooms": status.rooms }));
    }
    print(operator.json, &Value::Array(all), &table)?;
    Ok(completeness(&gathered))
}

/// `rooms CONVERSATION`.
pub async fn followers(operator: &Operator, conversation: &str) -> anyhow::Result<Verdict> {
    let asked = GetFollowers {
        conversation_id: conversation.to_owned(),
    };
    let gathered = operator.gateways(ops::Body::GetFollowers(asked)).await?;
    let mut shown = Shown::new();
    let mut heads = Vec::new();
    for reply in &gathered.replies {
        match &reply.body {
            Some(ops_reply::Body::Followers(Followers {
                followed,
                head_seq,
                participants,
                sessions,
                more,
            })) => {
                if *followed {
                    heads.push(json!({
                        "gateway": reply.instance, "head_seq": head_seq, "participants": participants,
                    }));
                }
                shown.add(&reply.instance, sessions, *more);
            }
            body => return Err(unexpected(body.as_ref())),
        }
    }
    if operator.json {
        let all = json!({ "gateways": heads, "followers": shown.all });
        print(true, &all, &shown.table)?;
    } else {
        for head in &heads {
            line(&format!(
                "{} follows it, up to seq {} of {} participants",
                head["gateway"].as_str().unwrap_or_default(),
                head["head_seq"],
                head["participants"]
            ))?;
        }
        shown.print(operator)?;
    }
    Ok(completeness(&gathered))
}

/// `drain GATEWAY`.
pub async fn drain(operator: &Operator, gateway: &str) -> anyhow::Result<Verdict> {
    match operator.gateway(gateway, ops::Body::Drain(Drain {})).await? {
        ops_reply::Body::Draining(Draining { before }) => {
            let mut table = Table::new(["GATEWAY", "STATE"]);
            let said = if before { "was draining before" } else { "draining" };
            table.row([gateway.to_owned(), said.to_owned()]);
            let all = json!({ "gateway": gateway, "draining": true, "before": before });
            print(operator.json, &all, &table)?;
            Ok(Verdict::Done)
        }
        body => Err(refused(body)),
    }
}

/// `token check`.
pub async fn check_token(operator: &Operator, task: &Token) -> anyhow::Result<Verdict> {
    let Token::Check(Check { file }) = task;
    let mut token = String::new();
    match file {
        Some(path) => std::fs::File::open(path)
            .with_context(|| format!("cannot open {}", path.display()))?
            .take(MOST_TOKEN_BYTES)
            .read_to_string(&mut token),
        None => std::io::stdin().take(MOST_TOKEN_BYTES).read_to_string(&mut token),
    }
    .context("cannot read the token")?;
    let token = token.trim().to_owned();
    if token.is_empty() {
        bail!("no token: write it to standard input, or name its file with --file");
    }
    let gathered = operator
        .gateways(ops::Body::CheckToken(CheckToken { token }))
        .await?;
    let mut table = Table::new([
        "GATEWAY", "VALID", "WHY NOT", "USER", "NAME", "EXPIRES", "ISSUED", "ID", "SERVICE",
    ]);
    let mut all = Vec::new();
    let mut valid = true;
    for reply in &gathered.replies {
        let Some(ops_reply::Body::TokenVerdict(verdict)) = &reply.body else {
            return Err(unexpected(reply.body.as_ref()));
        };
        valid &= verdict.valid;
        table.row(judged(&reply.instance, verdict));
        all.push(json!({
            "gateway": reply.instance, "valid": verdict.valid, "reason": verdict.reason,
            "user_id": verdict.user_id, "username": verdict.username, "expires_at": verdict.expires_at,
            "issued_at": verdict.issued_at, "token_id": verdict.token_id, "service": verdict.is_service,
        }));
    }
    print(operator.json, &Value::Array(all), &table)?;
    Ok(if valid {
        completeness(&gathered)
    } else {
        Verdict::No
    })
}

fn judged(instance: &str, verdict: &TokenVerdict) -> [String; 9] {
    let or_dash = |text: &str| {
        if text.is_empty() {
            "-".to_owned()
        } else {
            text.to_owned()
        }
    };
    let yes_no = |yes: bool| if yes { "yes" } else { "no" }.to_owned();
    [
        instance.to_owned(),
        yes_no(verdict.valid),
        or_dash(&verdict.reason),
        or_dash(&verdict.user_id),
        or_dash(&verdict.username),
        at_seconds(verdict.expires_at),
        at_seconds(verdict.issued_at),
        or_dash(&verdict.token_id),
        yes_no(verdict.is_service),
    ]
}

/// Sessions of several gateways.
struct Shown {
    table: Table,
    all: Vec<Value>,
    more: bool,
}

impl Shown {
    fn new() -> Self {
        Self {
            table: Table::of_people([
                "GATEWAY",
                "SESSION",
                "USER",
                "DIALECT",
                "TRANSPORT",
                "SINCE",
                "TOKEN UNTIL",
                "CONVERSATIONS",
            ]),
            all: Vec::new(),
            more: false,
        }
    }

    fn add(&mut self, instance: &str, sessions: &[UserSession], more: bool) {
        self.more |= more;
        for one in sessions {
            self.table.row([
                instance.to_owned(),
                one.session.to_string(),
                one.user_id.clone(),
                one.dialect.clone(),
                one.transport.clone(),
                at_ms(one.since_ms),
                at_seconds(one.token_expires_at),
                one.conversations.to_string(),
            ]);
            self.all.push(json!({
                "gateway": instance, "session": one.session, "user_id": one.user_id, "dialect": one.dialect,
                "transport": one.transport, "since": at_ms(one.since_ms),
                "token_expires_at": one.token_expires_at, "conversations": one.conversations,
            }));
        }
    }

    fn print(self, operator: &Operator) -> anyhow::Result<()> {
        print(operator.json, &Value::Array(self.all), &self.table)?;
        if self.more {
            warn("a gateway has more than the 1,000 that it shows");
        }
        Ok(())
    }
}

fn statuses(gathered: &Gathered) -> anyhow::Result<Vec<(&str, &str, GatewayStatus)>> {
    let read = |reply: &'_ parlance_proto::v1::OpsReply| match &reply.body {
        Some(ops_reply::Body::GatewayStatus(status)) => Ok(status.clone()),
        body => Err(unexpected(body.as_ref())),
    };
    gathered
        .replies
        .iter()
        .map(|reply| Ok((reply.instance.as_str(), reply.version.as_str(), read(reply)?)))
        .collect()
}

fn state(status: &GatewayStatus) -> &'static str {
    if status.draining {
        "draining"
    } else if status.ready {
        "ready"
    } else {
        "unready"
    }
}

fn unexpected(body: Option<&ops_reply::Body>) -> anyhow::Error {
    match body {
        Some(body) => refused(body.clone()),
        None => anyhow::anyhow!("an empty answer; are versions mixed?"),
    }
}

/// Names the instances that are missing.
fn completeness(gathered: &Gathered) -> Verdict {
    let answered = gathered.replies.len();
    match gathered.expected {
        Some(expected) if answered < expected => {
            warn(&format!(
                "{answered} of {expected} gateways answered; the others hang, or ended within the last seconds"
            ));
            Verdict::Incomplete
        }
        Some(_) => Verdict::Done,
        None => {
            warn("persistence does not answer, so it is not known whether all gateways did");
            Verdict::Incomplete
        }
    }
}
