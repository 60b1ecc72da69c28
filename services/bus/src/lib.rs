//! Typed access to NATS: subjects, streams, publish, subscribe and request, over the types of `parlance-proto`.
//!
//! Owns every subject name, header, stream and consumer definition, and is the only crate that names
//! `async-nats`. Must not know SQL, sockets or JSON.
//!
//! What each subject guarantees:
//!
//! | subject | carries | guarantee |
//! | --- | --- | --- |
//! | `chat.cmd.<partition>.<conversation>` | [`Command`](parlance_proto::v1::Command) | accepted once the stream answers; ordered per conversation; at least once |
//! | `chat.cfm.<gateway>` | [`ConfirmationBatch`](parlance_proto::v1::ConfirmationBatch) | at most once; a missing one means outcome unknown |
//! | `chat.evt.<conversation>` | [`EventBatch`](parlance_proto::v1::EventBatch) | live at most once, in the stream `EVENTS` at least once; repair by seq |
//! | `chat.eph.<conversation>` | [`Ephemeral`](parlance_proto::v1::Ephemeral) | at most once, never stored |
//! | `chat.usr.<user>` | [`UserNotice`](parlance_proto::v1::UserNotice) | at most once; repair by memberships version |
//! | `chat.prs.<user>` | [`Presence`](parlance_proto::v1::Presence) | at most once; repair by asking for changes since |
//! | `chat.push.<conversation>` | [`Push`](parlance_proto::v1::Push) | at least once, a few attempts, then parked |
//! | `chat.qry.<name>` | [`Query`](parlance_proto::v1::Query) → [`Reply`](parlance_proto::v1::Reply) | one replica of the queue group answers |
//! | `chat.qry.<name>.<replica>` | the same | this replica answers |
//! | `chat.system.<conversation>`, `chat.system.user.<user>` | [`SystemMessage`](parlance_proto::v1::SystemMessage) | accepted once the stream answers |
//! | `chat.ops.…` | [`Ops`](parlance_proto::v1::Ops) → [`OpsReply`](parlance_proto::v1::OpsReply) | whoever is asked answers, or nobody |
//! | `chat.control.<kind>.<name>` | [`Control`](parlance_proto::v1::Control) | live at most once, in the stream `CONTROL` the latest of each subject |
//! | `chat.gw.<gateway>` | [`Relay`](parlance_proto::v1::Relay) → [`RelayReceipt`](parlance_proto::v1::RelayReceipt) | answered by that gateway alone, at once where it is gone |

pub mod connection;
pub mod consume;
pub mod control;
pub mod error;
pub mod faults;
pub mod inspect;
pub mod operations;
pub mod publish;
pub mod push;
pub mod relay;
pub mod request;
pub mod streams;
pub mod subject;
pub mod subscribe;
pub mod trace;

pub use connection::{Bus, ConnectSettings, Link, Tls};
pub use consume::{Delivery, Puller};
pub use error::{Error, ErrorKind};
pub use operations::{IncomingOps, OpsServer};
pub use publish::{MAX_PAYLOAD, StoredEvents};
pub use relay::{IncomingRelay, Relays};
pub use request::{IncomingQuery, QueryServer};
pub use streams::{StreamSettings, StreamUse, StreamsFound};
pub use subject::Audience;
pub use subscribe::{Subscription, SystemTarget};
