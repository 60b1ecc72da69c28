//! What waits in the streams, for operators.

use std::time::{Duration, SystemTime};

use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::context::{ConsumerInfoErrorKind, GetStreamErrorKind};
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

/// A consumer of the feed.
#[derive(Debug, Clone, PartialEq)]
pub struct Follower {
    /// Its name.
    pub consumer: String,
    /// Messages it has not taken yet.
    pub waiting: u64,
    /// How much of what the stream can keep it has used up by being behind, 0 to 1: at 1 the oldest of what it has not
    /// taken is dropped.
    pub used: f64,
}

/// Those who follow the feed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Followers {
    /// Those that are there.
    pub found: Vec<Follower>,
    /// Names of those that were deleted, or never made.
    pub missing: Vec<String>,
}

/// How full a stream is that drops the oldest, by bytes or by age, 0 to 1. Limits of 0 are none.
fn fullness((bytes, max_bytes): (u64, u64), (age, max_age): (Duration, Duration)) -> f64 {
    let by_age = if max_age.is_zero() {
        0.0
    } else {
        age.div_duration_f64(max_age)
    };
    share(bytes, max_bytes).max(by_age).min(1.0)
}

#[expect(clippy::cast_precision_loss, reason = "a share needs no single message")]
fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        return 0.0;
    }
    (part as f64 / whole as f64).min(1.0)
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

    /// How far these consumers are behind in the feed, and which of them surely are not there. One that NATS says nothing of
    /// now is in neither.
    ///
    /// # Errors
    /// NATS does not answer.
    pub async fn followers(&self, names: &[String]) -> Result<Followers, Error> {
        let failed = |e| Error::with(ErrorKind::Other, "cannot look at the stream EVENTS", e);
        let stream = self.jetstream.get_stream(EVENTS).await.map_err(failed)?;
        let info = stream.cached_info();
        let (state, config) = (&info.state, &info.config);
        // From the oldest to the latest: the bus has a clock, and we need none.
        let (first, last): (SystemTime, SystemTime) =
            (state.first_timestamp.into(), state.last_timestamp.into());
        let age = last.duration_since(first).unwrap_or_default();
        let max_bytes = u64::try_from(config.max_bytes).unwrap_or(0);
        let full = fullness((state.bytes, max_bytes), (age, config.max_age));
        let mut followers = Followers::default();
        for name in names {
            let consumer = match stream.consumer_info(name).await {
                Ok(consumer) => consumer,
                Err(error) => {
                    if error.kind() == ConsumerInfoErrorKind::NotFound {
                        followers.missing.push(name.clone());
                    }
                    continue;
                }
            };
            followers.found.push(Follower {
                consumer: name.clone(),
                waiting: consumer.num_pending,
                used: full * share(consumer.num_pending, state.messages),
            });
        }
        Ok(followers)
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
    fn a_follower_is_as_far_behind_as_the_stream_can_keep() {
        let hour = Duration::from_secs(3600);
        // An empty or young stream keeps everything, however far behind somebody is.
        assert_eq!(fullness((0, 1_000), (Duration::ZERO, hour)), 0.0);
        assert_eq!(fullness((500, 1_000), (hour / 10, hour)), 0.5);
        assert_eq!(fullness((1, 1_000), (hour * 3 / 4, hour)), 0.75);
        assert_eq!(fullness((2_000, 1_000), (hour * 2, hour)), 1.0);
        assert_eq!(fullness((500, 0), (hour, Duration::ZERO)), 0.0);
        assert_eq!((share(3, 4), share(3, 0)), (0.75, 0.0));
    }

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
