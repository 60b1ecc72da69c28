//! A polling session's upgrade to WebSocket, up to the client's confirmation.
//!
//! ```text
//! client                                   gateway
//!   │ GET …&transport=websocket&sid=…  ──►   │
//!   │ ◄── 101                                │
//!   │ 2probe  ──►                            │
//!   │ ◄── 3probe; held polls end             │
//!   │ (the last poll ends)                   │
//!   │ 5  ──►                                 │ only now the engine learns of it
//! ```
//! The engine would end all polls from the first line on and close the session where a later one fails. But there are
//! middleboxes that pass the 101 and then no frame. So the session goes on polling until `5`, and if that does not
//! come the WebSocket ends and nothing else.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use http::Request;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tower::Service as _;

use super::engine::Engine;
use super::packets::MessageLimit;
use super::polling::{self, Upgrading};
use super::websocket::{self, Screened};
use crate::edge::socket::state::SocketState;
use crate::session::wire::Wire;

/// How long a client may take to confirm: as the reference server.
const UPGRADE: Duration = Duration::from_secs(10);
/// What clients send before it is longer than needed.
const LIMIT: u64 = 16;
const PROBE: &str = "2probe";
const PROBED: &str = "3probe";
const CONFIRMATION: &str = "5";

/// An upgrade under way.
pub struct Upgrade {
    /// Held until the engine has the connection.
    pub upgrading: Upgrading,
    /// The session, by the engine's id.
    pub engine_id: String,
    /// The engine.
    pub engine: Engine,
    /// To find the session's connection by.
    pub state: SocketState,
    /// The WebSocket's connection.
    pub wire: Option<Arc<Wire>>,
    /// See `defaults.toml`.
    pub limit: MessageLimit,
}

impl Upgrade {
    /// Goes through the upgrade over a WebSocket that is open, and hands it to the engine.
    pub async fn run<S>(mut self, mut io: S)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let confirmed = tokio::time::timeout(UPGRADE, confirmation(&mut io, || self.upgrading.end_polls()));
        match confirmed.await {
            Ok(Ok(input)) => self.complete(io, input),
            outcome => {
                let reason = outcome.map_or_else(
                    |late| late.to_string(),
                    |outcome| outcome.map_or_else(|error| error.to_string(), |_| String::new()),
                );
                tracing::debug!(
                    reason,
                    "an upgrade was not confirmed; its session goes on polling"
                );
                drop(self);
                let close = async {
                    io.write_all(&websocket::close_frame()).await?;
                    io.shutdown().await
                };
                drop(tokio::time::timeout(UPGRADE, close).await);
            }
        }
    }

    /// The engine does in an instant what the client has done: it reads the client's packets once more, and its
    /// answer goes nowhere.
    fn complete<S>(&mut self, io: S, input: BytesMut)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let uri = format!("/socket.io/?EIO=4&transport=websocket&sid={}", self.engine_id);
        let Ok(request) = Request::get(uri).body(()) else {
            return;
        };
        if let Some(wire) = &self.wire {
            self.state.transports.upgraded(&self.engine_id, wire);
        }
        let said = [PROBE, CONFIRMATION].map(websocket::client_frame).concat();
        let hidden = websocket::server_frame(PROBED).len();
        let screened = Screened::new(io, self.upgrading.connection(), self.limit);
        let state = self.state.clone();
        let screened = screened
            .resumed(input, &said, hidden)
            .on_other_parser(move || polling::note_other_parser(&state));
        let screened = if self.upgrading.is_refused() {
            screened.refused()
        } else {
            screened
        };
        // Ready at once.
        drop(self.engine.call((screened, request)));
    }
}

/// Answers the client's probe and waits for its confirmation; what followed that.
async fn confirmation<S>(io: &mut S, probed: impl FnOnce()) -> io::Result<BytesMut>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut input = BytesMut::new();
    expect(io, &mut input, PROBE).await?;
    io.write_all(&websocket::server_frame(PROBED)).await?;
    io.flush().await?;
    probed();
    expect(io, &mut input, CONFIRMATION).await?;
    Ok(input)
}

async fn expect<S: AsyncRead + Unpin>(io: &mut S, input: &mut BytesMut, packet: &str) -> io::Result<()> {
    loop {
        if let Some(text) = websocket::take_text(input, LIMIT)? {
            return if text == packet.as_bytes() {
                Ok(())
            } else {
                Err(io::ErrorKind::InvalidData.into())
            };
        }
        if io.read_buf(input).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test]
    async fn an_upgrade_is_confirmed_after_the_probe() {
        let (mut server, mut client) = tokio::io::duplex(1024);
        let ended = Cell::new(false);
        let client = async {
            client.write_all(&websocket::client_frame(PROBE)).await.unwrap();
            let mut answer = vec![0; websocket::server_frame(PROBED).len()];
            client.read_exact(&mut answer).await.unwrap();
            assert_eq!(answer, websocket::server_frame(PROBED));
            let rest = [websocket::client_frame(CONFIRMATION), b"rest".to_vec()].concat();
            client.write_all(&rest).await.unwrap();
            client
        };
        let server = confirmation(&mut server, || ended.set(true));
        let (input, _client) = tokio::join!(server, client);
        assert_eq!(&input.unwrap()[..], b"rest");
        assert!(ended.get());
    }

    #[tokio::test]
    async fn anything_else_is_no_upgrade() {
        for said in ["5", "2", "42[\"event\"]"] {
            let (mut server, mut client) = tokio::io::duplex(1024);
            client.write_all(&websocket::client_frame(said)).await.unwrap();
            let outcome = confirmation(&mut server, || panic!("no probe came")).await;
            assert_eq!(outcome.unwrap_err().kind(), io::ErrorKind::InvalidData, "{said}");
        }
        let (mut server, client) = tokio::io::duplex(1024);
        drop(client);
        let outcome = confirmation(&mut server, || panic!("no probe came")).await;
        assert_eq!(outcome.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
