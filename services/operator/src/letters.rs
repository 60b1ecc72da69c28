//! Dead letters: shown without content unless it is asked for.

use anyhow::bail;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use parlance_proto::v1::{
    Command, DeadLetter, DeadLetters, DiscardDeadLetter, GetDeadLetter, ListDeadLetters, Push,
    ReplayDeadLetter, Replayed, SystemMessage, ops, ops_reply,
};
use prost::Message as _;
use serde_json::{Value, json};

use crate::ask::{Operator, refused};
use crate::cli::{Letters, Verdict};
use crate::show::{Table, at_ms, line, print, warn};

/// `dead-letters …`.
pub async fn run(operator: &Operator, task: &Letters) -> anyhow::Result<Verdict> {
    match task {
        Letters::List { limit, cursor } => list(operator, *limit, cursor).await,
        Letters::Show { id, content } => show(operator, id, *content).await,
        Letters::Replay { id } => replay(operator, id).await,
        Letters::Discard { id, yes } => discard(operator, id, *yes).await,
    }
}

async fn list(operator: &Operator, limit: u32, cursor: &str) -> anyhow::Result<Verdict> {
    let asked = ListDeadLetters {
        limit,
        cursor: cursor.to_owned(),
    };
    let DeadLetters { letters, cursor } =
        match operator.persistence(ops::Body::ListDeadLetters(asked)).await? {
            ops_reply::Body::DeadLetters(page) => page,
            body => return Err(refused(body)),
        };
    let mut table = Table::new(["ID", "PARKED", "SUBJECT", "COMMAND", "BYTES", "CODE", "CAUSE"]);
    for letter in &letters {
        table.row([
            letter.id.clone(),
            at_ms(letter.created_at_ms),
            letter.subject.clone(),
            letter.command_id.clone(),
            letter.bytes.to_string(),
            letter.error_code.clone(),
            letter.error.clone(),
        ]);
    }
    let all: Vec<Value> = letters.iter().map(shown).collect();
    let all = json!({ "dead_letters": all, "cursor": (!cursor.is_empty()).then_some(&cursor) });
    print(operator.json, &all, &table)?;
    if !operator.json && !cursor.is_empty() {
        warn(&format!("there are more: --cursor {cursor}"));
    }
    Ok(Verdict::Done)
}

async fn show(operator: &Operator, id: &str, content: bool) -> anyhow::Result<Verdict> {
    let asked = GetDeadLetter {
        id: id.to_owned(),
        with_payload: content,
    };
    let letter = match operator.persistence(ops::Body::GetDeadLetter(asked)).await? {
        ops_reply::Body::DeadLetter(letter) => letter,
        body => return Err(refused(body)),
    };
    let mut value = shown(&letter);
    if content {
        value["payload_base64"] = STANDARD.encode(&letter.payload).into();
        value["payload"] = readable(&letter).into();
    }
    let mut table = Table::new(["FIELD", "VALUE"]);
    for (name, field) in value.as_object().into_iter().flatten() {
        if name.starts_with("payload") {
            continue;
        }
        let field = field.as_str().map_or_else(|| field.to_string(), str::to_owned);
        table.row([name.clone(), field]);
    }
    print(operator.json, &value, &table)?;
    if content && !operator.json {
        line(&readable(&letter))?;
    }
    Ok(Verdict::Done)
}

async fn replay(operator: &Operator, id: &str) -> anyhow::Result<Verdict> {
    let asked = ReplayDeadLetter { id: id.to_owned() };
    match operator.persistence(ops::Body::ReplayDeadLetter(asked)).await? {
        ops_reply::Body::Replayed(Replayed { subjects }) => {
            let mut table = Table::new(["REPLAYED TO"]);
            for subject in &subjects {
                table.row([subject.clone()]);
            }
            print(
                operator.json,
                &json!({ "id": id, "replayed_to": subjects }),
                &table,
            )?;
            Ok(Verdict::Done)
        }
        body => Err(refused(body)),
    }
}

async fn discard(operator: &Operator, id: &str, yes: bool) -> anyhow::Result<Verdict> {
    if !yes {
        bail!("nothing is discarded without --yes: it cannot be had back");
    }
    let asked = DiscardDeadLetter { id: id.to_owned() };
    match operator.persistence(ops::Body::DiscardDeadLetter(asked)).await? {
        ops_reply::Body::Discarded(_) => {
            let mut table = Table::new(["DISCARDED"]);
            table.row([id.to_owned()]);
            print(operator.json, &json!({ "id": id, "discarded": true }), &table)?;
            Ok(Verdict::Done)
        }
        body => Err(refused(body)),
    }
}

fn shown(letter: &DeadLetter) -> Value {
    let mut value = json!({
        "id": letter.id, "parked_at": at_ms(letter.created_at_ms), "kind": letter.kind, "subject": letter.subject,
        "command_id": letter.command_id, "code": letter.error_code, "cause": letter.error, "bytes": letter.bytes,
    });
    for (name, text) in [
        ("actor", &letter.actor),
        ("action", &letter.action),
        ("conversation_id", &letter.conversation_id),
    ] {
        if !text.is_empty() {
            value[name] = text.as_str().into();
        }
    }
    value
}

/// The payload in words.
fn readable(letter: &DeadLetter) -> String {
    let payload = letter.payload.as_slice();
    let text = match letter.kind.as_str() {
        "push" => Push::decode(payload).ok().map(|push| format!("{push:#?}")),
        "system" if payload.trim_ascii_start().starts_with(b"{") => None,
        "system" => SystemMessage::decode(payload)
            .ok()
            .map(|message| format!("{message:#?}")),
        _ => Command::decode(payload)
            .ok()
            .map(|command| format!("{command:#?}")),
    };
    text.unwrap_or_else(|| String::from_utf8_lossy(payload).into_owned())
}
