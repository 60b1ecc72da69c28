//! What waits in the streams, for operators.

use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::context::GetStreamErrorKind;
use futures::TryStreamExt;
use parlance_proto::v1::{ConsumerLag, StreamLag};

use crate::connection::Bus;
use crate::error::{Error, ErrorKind};
use crate::push::{PUSH, PUSH_PARKED};
use crate::streams::{COMMANDS, CONTROL, EVENTS, SYSTEM};

/// Consumers that are told of one stream: ours are few, other services may have many on the feed.
const MOST_CONSUMERS: usize = 200;

/// What waits for the taker of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionLag {
    /// Which.
    pub partition: u16,
    /// Under which lease.
    pub epoch: u64,
    /// Not taken yet.
    pub waiting: u64,
    /// Taken and not settled.
    pub in_work: u64,
}

impl Bus {
    /// The streams and their consumers.
    ///
    /// # Errors
    /// NATS does not answer.
    pub async fn lag(&self) -> Result<Vec<StreamLag>, Error> {
        let mut streams = Vec::new();
        for name in [COMMANDS, SYSTEM, EVENTS, CONTROL, PUSH, PUSH_PARKED] {
            streams.push(self.stream_lag(name).await?);
        }
        Ok(streams)
    }

    /// What waits for those who take the commands of partitions.
    ///
    /// # Errors
    /// NATS does not answer.
    pub async fn partition_lag(&self) -> Result<Vec<PartitionLag>, Error> {
        let commands = self.stream_lag(COMMANDS).await?;
        Ok(commands.consumers.iter().filter_map(partition).collect())
    }

    async fn stream_lag(&self, name: &str) -> Result<StreamLag, Error> {
        let mut lag = StreamLag {
            stream: name.to_owned(),
            ..StreamLag::default()
        };
        let stream = match self.jetstream.get_stream(name).await {
            Ok(stream) => stream,
            Err(error) => {
                return match error.kind() {
                    GetStreamErrorKind::JetStream(error)
                        if error.error_code() == ErrorCode::STREAM_NOT_FOUND =>
                    {
                        Ok(lag)
                    }
                    _ => Err(Error::with(ErrorKind::Other, "cannot look at a stream", error)),
                };
            }
        };
        let state = &stream.cached_info().state;
        lag.exists = true;
        lag.messages = state.messages;
        lag.bytes = state.bytes;
        lag.first_seq = state.first_sequence;
        lag.last_seq = state.last_sequence;
        let mut consumers = stream.consumers();
        let failed = |e| Error::with(ErrorKind::Other, "cannot list consumers", e);
        while let Some(info) = consumers.try_next().await.map_err(failed)? {
            if lag.consumers.len() == MOST_CONSUMERS {
                break;
            }
            lag.consumers.push(ConsumerLag {
                consumer: info.name,
                waiting: info.num_pending,
                in_work: info.num_ack_pending as u64,
                redelivered: info.num_redelivered as u64,
            });
        }
        lag.consumers.sort_by(|a, b| a.consumer.cmp(&b.consumer));
        Ok(lag)
    }
}

/// Reads `p<partition>-e<epoch>`.
fn partition(consumer: &ConsumerLag) -> Option<PartitionLag> {
    let (partition, epoch) = consumer.consumer.strip_prefix('p')?.split_once("-e")?;
    Some(PartitionLag {
        partition: partition.parse().ok()?,
        epoch: epoch.parse().ok()?,
        waiting: consumer.waiting,
        in_work: consumer.in_work,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_takers_of_partitions_count_as_such() {
        let consumer = |name: &str| ConsumerLag {
            consumer: name.to_owned(),
            waiting: 3,
            ..ConsumerLag::default()
        };
        let read = partition(&consumer("p7-e12")).unwrap();
        assert_eq!((read.partition, read.epoch, read.waiting), (7, 12, 3));
        for other in ["push", "p-e1", "p1", "intake-e3", "p70000-e1"] {
            assert_eq!(partition(&consumer(other)), None, "{other}");
        }
    }
}
