//! Reporting a message of another to those who moderate. A report takes no seq, and nobody in the conversation learns of it, its
//! sender least of all.

use parlance_proto::v1::{self, ErrorCode};

use super::CommandContext;
use crate::model::permissions::Right;
use crate::model::refusals::{no_message, refuse};
use crate::model::state::{Outcome, Reported};
use crate::model::work::Report;

pub(super) fn report(context: &mut CommandContext<'_>, report: &Report) -> Result<Outcome, v1::Error> {
    context.check(Right::Report)?;
    let id = context
        .conversation
        .message_id(report.message)
        .ok_or_else(no_message)?;
    let found = context
        .conversation
        .message(report.message)
        .ok_or_else(no_message)?
        .clone();
    let sender = found
        .sender
        .as_ref()
        .map_or("", |sender| sender.id.as_str())
        .to_owned();
    if sender == context.actor().as_str() {
        return Err(refuse(
            "message_id names a message of your own; report those of others",
        ));
    }
    if found.deleted_at_ms.is_some() {
        return Err(no_message());
    }
    let most = context.bounds.user_reports;
    let reporter = context.actor().clone();
    // Those of other conversations at the same time may come on top of it.
    let open = context.open_reports.entry(reporter.clone()).or_default();
    if *open >= most {
        let message =
            format!("as many of your reports are not settled as limits.user_reports allows: {most}");
        return Err(v1::Error::with(ErrorCode::TooLarge, message));
    }
    *open += 1;
    let reported = Reported {
        id: context.work.id,
        conversation: context.id(),
        message: id,
        message_seq: found.seq,
        sender,
        content: found.content.clone(),
        reporter,
        reason: report.reason,
        comment: report.comment.clone(),
        at_ms: context.now_ms,
    };
    context.effects.reports.push(reported);
    Ok(Outcome::Message {
        message: Box::new(found),
        repeated: false,
        event: None,
        hidden: false,
        then: Vec::new(),
    })
}
