//! A delivery of the command stream on its way through a batch.

use std::collections::BTreeSet;

use parlance_bus::{Delivery, subject};
use parlance_proto::ConversationId;
use parlance_proto::v1::{self, Command, ErrorCode, confirmation};
use prost::Message as _;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::Span;

use super::lane::Hold;
use super::trace;
use crate::model::work::Work;
use crate::report::Report;

/// A delivery and the lease it was taken under.
pub struct Job {
    /// From the stream.
    pub delivery: Delivery,
    /// Its partition.
    pub partition: u16,
    /// The lease's epoch.
    pub epoch: u64,
    /// Perhaps in hand when the last owner of the partition died.
    pub suspect: bool,
    /// Dropped when the delivery is done with: a partition is given up when none is left.
    pub token: TaskTrackerToken,
}

/// A delivery that was read.
pub struct Entry {
    /// Where it came from.
    pub job: Job,
    /// The asking gateway; empty for none.
    pub reply_to: String,
    /// As the emitter wrote it; empty where it could not be read.
    pub command_id: String,
    /// The service's message it was made of, if of any.
    pub service: Option<v1::ServiceOrigin>,
    /// The checked command; or the refusal, [`ErrorCode::Unprocessable`] if it is to be parked.
    pub work: Result<Work, v1::Error>,
    /// Open until the delivery is done with; none where nothing is recorded.
    pub span: Span,
    /// Attempts apart, with the one to come; 0 where they are not counted.
    pub attempts: u16,
    /// Was in a batch that could not be committed.
    pub doubtful: bool,
    /// While it is apart, those behind it in its conversation go there too.
    pub hold: Option<Hold>,
}

impl Entry {
    /// Reads a delivery.
    pub fn read(job: Job, partitions: u16) -> Self {
        let span = trace::process(&job.delivery);
        let unprocessable = |message| Err(v1::Error::with(ErrorCode::Unprocessable, message));
        let (mut command_id, mut reply_to, mut service) = Default::default();
        let work = match Command::decode(job.delivery.payload.clone()) {
            Ok(mut command) => {
                command_id = command.id.clone();
                reply_to = command.reply_to.clone();
                service = command.service.take();
                // On another partition than its conversation's, two replicas could work on one conversation.
                let id = command.conversation_id.parse::<ConversationId>();
                match id.map(|id| subject::partition_of(id, partitions)) {
                    Ok(home) if home != job.partition => {
                        unprocessable("the command came on a partition that is not its conversation's")
                    }
                    _ => Work::parse(command),
                }
            }
            Err(_) => unprocessable("not a readable command"),
        };
        Self {
            job,
            reply_to,
            command_id,
            service,
            work,
            span,
            attempts: 0,
            doubtful: false,
            hold: None,
        }
    }

    /// The outcome for the service whose message the command was made of, if of any.
    pub fn report(&self, result: &confirmation::Result, repeated: bool) -> Option<Report> {
        Report::of(self.service.as_ref(), &self.job.delivery, result, repeated)
    }

    /// The same of a refusal.
    pub fn refused(&self, refusal: v1::Error) -> Option<Report> {
        Report::refused(self.service.as_ref(), &self.job.delivery, refusal)
    }
}

impl AsRef<Span> for Entry {
    fn as_ref(&self) -> &Span {
        &self.span
    }
}

/// The leases a part of a batch depends on.
pub fn leases(part: &[Entry]) -> Vec<(u16, u64)> {
    let leases: BTreeSet<(u16, u64)> = part
        .iter()
        .map(|entry| (entry.job.partition, entry.job.epoch))
        .collect();
    leases.into_iter().collect()
}
