//! What a failed write means for the commands of its batch, where one function decides and nothing else may; and why a
//! query has no answer.

use std::fmt;

use parlance_proto::v1;
use tokio::time::{Instant, timeout_at};

/// What to do with the batch that met an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disposition {
    /// Nothing is wrong with the commands: the same batch again, for as long as the lease is ours.
    Retry,
    /// A command holds data the database refuses: find it, park it, go on.
    Culprit,
}

/// A batch that was not committed.
#[derive(Debug)]
pub enum BatchError {
    /// These partitions are not ours any more.
    LeaseLost(Vec<u16>),
    /// The database said no, or nothing.
    Database(sqlx::Error),
    /// It took too long; whether it was committed is unknown.
    TimedOut,
}

/// Why there is no answer.
#[derive(Debug)]
pub enum QueryError {
    /// The asker may know.
    Refused(v1::Error),
    /// The database failed.
    Database(sqlx::Error),
    /// Nobody waits for the answer any more.
    Expired,
}

/// Decides what an error of the database means.
pub fn disposition(error: &sqlx::Error) -> Disposition {
    match error {
        sqlx::Error::Database(database) => {
            let code = database.code().unwrap_or_default();
            // 21 cardinality, 22 data exception, 23 integrity, 54 program limit exceeded.
            match code.get(..2) {
                Some("21" | "22" | "23" | "54") => Disposition::Culprit,
                _ => Disposition::Retry,
            }
        }
        // A stored row that cannot be read, or a value that cannot be sent.
        sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. } | sqlx::Error::Encode(_) => {
            Disposition::Culprit
        }
        _ => Disposition::Retry,
    }
}

/// An error of the database in words that never hold data: its code and, where it is not about data, its
/// message. The message of a data error may quote the data.
pub fn without_content(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::Database(database) => {
            let code = database.code().unwrap_or_default();
            match disposition(error) {
                Disposition::Retry => format!("{code} {}", database.message()),
                Disposition::Culprit => match database.constraint() {
                    Some(constraint) => format!("SQLSTATE {code}, constraint {constraint}"),
                    None => format!("SQLSTATE {code}"),
                },
            }
        }
        sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. } | sqlx::Error::Encode(_) => {
            "a value that cannot be converted".to_owned()
        }
        other => other.to_string(),
    }
}

impl From<sqlx::Error> for BatchError {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error)
    }
}

impl From<sqlx::Error> for QueryError {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error)
    }
}

impl From<v1::Error> for QueryError {
    fn from(error: v1::Error) -> Self {
        Self::Refused(error)
    }
}

impl fmt::Display for BatchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LeaseLost(partitions) => write!(f, "lost the lease of partitions {partitions:?}"),
            Self::Database(error) => f.write_str(&without_content(error)),
            Self::TimedOut => f.write_str("the database did not answer in time"),
        }
    }
}

/// Waits, or reads, until the deadline.
///
/// # Errors
/// [`QueryError::Expired`] at the deadline; else as `work` fails.
pub(crate) async fn by<T, E>(
    deadline: Instant,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, QueryError>
where
    QueryError: From<E>,
{
    let done = timeout_at(deadline, work).await;
    Ok(done.map_err(|_| QueryError::Expired)??)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_errors_about_data_look_for_a_culprit() {
        assert_eq!(disposition(&sqlx::Error::PoolTimedOut), Disposition::Retry);
        assert_eq!(disposition(&sqlx::Error::RowNotFound), Disposition::Retry);
        assert_eq!(
            disposition(&sqlx::Error::Decode("x".into())),
            Disposition::Culprit
        );
        let decode = sqlx::Error::ColumnDecode {
            index: "content".into(),
            source: "secret words".into(),
        };
        assert!(!without_content(&decode).contains("secret"));
    }
}
