//! WebSockets between hyper and the engine: answers the handshake, and screens what the client sends.
//!
//! The engine closes a connection without a code, takes frames of any state, and upgrades a session before its
//! client has confirmed that frames arrive. So it does not get the connection itself but a [`Screened`] one: client
//! frames pass as they are, message by message, once [`packets`] has judged how the message begins; where the
//! connection must end, the engine reads a close frame with a code, as if the client had sent it, and replies with
//! the same code. Nothing of a message is buffered beyond its beginning.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Buf as _, BytesMut};
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use parlance_runtime::tasks;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};

use super::connection::Connection;
use super::packets::{self, MessageLimit, PacketVerdict};

/// Appended to a client's key, by RFC 6455.
const KEY_SUFFIX: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// How long a client whose connection was ended may take to read why: what it still sends is discarded meanwhile.
const LINGER: Duration = Duration::from_secs(5);
/// Read at once where a frame begins.
const CHUNK: usize = 1024;

const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
/// Largest payload of a frame that is no part of a message.
const MAX_CONTROL: u64 = 125;
const FINAL: u8 = 0x80;
const MASKED: u8 = 0x80;

/// Why the server ends a WebSocket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CloseCode {
    /// A frame that RFC 6455 does not allow.
    Protocol = 1002,
    /// The client uses another parser.
    Unsupported = 1003,
    /// A packet that does not fit the connection's state.
    Policy = 1008,
    /// A message above `maxPayload`.
    TooBig = 1009,
}

/// A client's connection as the engine gets it.
pub struct Screened<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> {
    /// Taken at the end.
    io: Option<S>,
    connection: Arc<Connection>,
    limit: MessageLimit,
    /// From the client, not judged yet: at most the beginning of a frame and what came with it.
    input: BytesMut,
    /// For the engine.
    ready: BytesMut,
    /// For the client, from the engine.
    taken: BytesMut,
    /// For the client, before the engine reads that the connection ends.
    farewell: BytesMut,
    /// Bytes of the current frame that pass as they are.
    passing: u64,
    /// Bytes so far of a message in several frames.
    message: u64,
    /// Bytes of the engine that the client has got already.
    hidden: usize,
    /// The engine is in the middle of a frame.
    cut: bool,
    /// The client is read from no more.
    ended: bool,
    /// Called where the client uses another parser.
    on_other_parser: Option<Box<dyn FnOnce() + Send>>,
}

/// The beginning of a client's frame.
#[derive(Debug, PartialEq, Eq)]
pub struct Header {
    first: u8,
    /// Bytes of the header.
    size: usize,
    /// Bytes of the payload.
    pub length: u64,
    /// Absent where the client breaks the protocol.
    mask: Option<[u8; 4]>,
}

/// The answer to a valid WebSocket handshake.
pub fn accept(headers: &HeaderMap) -> Response<Body> {
    let key = headers.get(header::SEC_WEBSOCKET_KEY);
    let key = key.map(HeaderValue::as_bytes).unwrap_or_default();
    let mut hash = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY);
    hash.update(key);
    hash.update(KEY_SUFFIX);
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    if let Ok(value) = HeaderValue::from_str(&STANDARD.encode(hash.finish())) {
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, value);
    }
    response
}

/// A short frame of the server.
pub fn server_frame(text: &str) -> Vec<u8> {
    short_frame(TEXT, text.as_bytes(), false)
}

/// The same text as a frame of a client.
pub fn client_frame(text: &str) -> Vec<u8> {
    short_frame(TEXT, text.as_bytes(), true)
}

/// A close frame of the server, without a code.
pub fn close_frame() -> Vec<u8> {
    short_frame(CLOSE, &[], false)
}

/// Takes the first frame of a client out of `input` once it is there whole: its payload, unmasked.
///
/// # Errors
/// [`io::ErrorKind::InvalidData`] if it is no whole, masked text message of at most `limit` bytes.
pub fn take_text(input: &mut BytesMut, limit: u64) -> io::Result<Option<Vec<u8>>> {
    let Some(header) = Header::parse(input) else {
        return Ok(None);
    };
    let (Some(mask), true) = (
        header.mask,
        header.first == FINAL | TEXT && header.length <= limit,
    ) else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    let size = header.size + usize::try_from(header.length).unwrap_or(usize::MAX);
    if input.len() < size {
        return Ok(None);
    }
    let frame = input.split_to(size);
    let mut payload = frame[header.size..].to_vec();
    apply(mask, &mut payload);
    Ok(Some(payload))
}

impl Header {
    /// `None` while bytes are missing.
    pub fn parse(input: &[u8]) -> Option<Self> {
        let (first, second) = (*input.first()?, *input.get(1)?);
        let (extended, length) = match second & !MASKED {
            126 => (
                2,
                u64::from(u16::from_be_bytes(input.get(2..4)?.try_into().ok()?)),
            ),
            127 => (8, u64::from_be_bytes(input.get(2..10)?.try_into().ok()?)),
            short => (0, u64::from(short)),
        };
        let size = 2 + extended;
        if second & MASKED == 0 {
            return Some(Self {
                first,
                size,
                length,
                mask: None,
            });
        }
        let mask = input.get(size..size + 4)?.try_into().ok()?;
        Some(Self {
            first,
            size: size + 4,
            length,
            mask: Some(mask),
        })
    }

    fn opcode(&self) -> u8 {
        self.first & 0x0f
    }

    fn is_final(&self) -> bool {
        self.first & FINAL != 0
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Screened<S> {
    /// A client's connection whose messages may be as large as `limit` says.
    pub fn new(io: S, connection: Arc<Connection>, limit: MessageLimit) -> Self {
        Self {
            io: Some(io),
            connection,
            limit,
            input: BytesMut::new(),
            ready: BytesMut::new(),
            taken: BytesMut::new(),
            farewell: BytesMut::new(),
            passing: 0,
            message: 0,
            hidden: 0,
            cut: false,
            ended: false,
            on_other_parser: None,
        }
    }

    /// Has `note` called where the client uses another parser.
    pub fn on_other_parser(mut self, note: impl FnOnce() + Send + 'static) -> Self {
        self.on_other_parser = Some(Box::new(note));
        self
    }

    /// What was exchanged before the engine gets the connection: `input` was read and not used, `repeated` is what
    /// the engine shall read first, and `hidden` the bytes of its answer, which the client has got.
    pub fn resumed(mut self, input: BytesMut, repeated: &[u8], hidden: usize) -> Self {
        self.input = input;
        self.ready.extend_from_slice(repeated);
        self.hidden = hidden;
        self
    }

    /// A client that uses another parser, as was noticed before.
    pub fn refused(mut self) -> Self {
        self.refuse();
        self
    }

    fn refuse(&mut self) {
        let refusal = long_frame(BINARY, &packets::refusal_in_message_pack());
        self.farewell.extend_from_slice(&refusal);
        self.end(CloseCode::Unsupported, packets::OTHER_PARSER);
    }

    /// What the engine writes, with the pages in it that CONNECT packets introduce; `None` where there is none.
    fn introduce(&self, data: &[u8]) -> Option<Vec<u8>> {
        let mut completed = Vec::new();
        let (mut rest, mut any) = (data, false);
        while let Some(header) = Header::parse(rest) {
            let size = header
                .size
                .saturating_add(usize::try_from(header.length).unwrap_or(usize::MAX));
            let Some((frame, others)) = rest.split_at_checked(size) else {
                break;
            };
            let is_text = header.first == FINAL | TEXT;
            match is_text
                .then(|| self.connection.introductions.complete(&frame[header.size..]))
                .flatten()
            {
                Some(packet) => {
                    any = true;
                    completed.extend(long_frame(TEXT, &packet));
                }
                None => completed.extend_from_slice(frame),
            }
            rest = others;
        }
        completed.extend_from_slice(rest);
        any.then_some(completed)
    }

    /// Writes what was taken over from the engine and not written.
    fn poll_taken(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(io) = &mut self.io else {
            return Poll::Ready(Ok(()));
        };
        while !self.taken.is_empty() {
            let written = ready!(Pin::new(&mut *io).poll_write(cx, &self.taken))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            consume(&mut self.taken, written);
        }
        Poll::Ready(Ok(()))
    }

    /// Handles the beginning of a frame. False while bytes are missing.
    fn screen(&mut self) -> bool {
        let Some(header) = Header::parse(&self.input) else {
            return false;
        };
        let opcode = header.opcode();
        let (Some(mask), CONTINUATION | TEXT | BINARY) = (header.mask, opcode) else {
            // The engine refuses what is not masked, and what control frames may not be, only once it has all of it.
            if header.length > MAX_CONTROL {
                self.connection.packets.cut();
                self.end(CloseCode::Protocol, "a frame that the protocol does not allow");
            } else {
                self.pass(&header);
            }
            return true;
        };
        let message = self.message.saturating_add(header.length);
        if message > self.connection.packets.allowance(self.limit) as u64 {
            self.connection.packets.cut();
            self.end(CloseCode::TooBig, "the message is larger than maxPayload");
            return true;
        }
        if opcode == CONTINUATION {
            self.message = if header.is_final() { 0 } else { message };
            self.pass(&header);
            return true;
        }
        let size = usize::try_from(header.length)
            .unwrap_or(usize::MAX)
            .min(packets::PREFIX);
        let Some(masked) = self.input.get(header.size..header.size + size) else {
            return false;
        };
        let mut beginning = masked.to_vec();
        apply(mask, &mut beginning);
        self.message = if header.is_final() { 0 } else { message };
        let verdict = if opcode == BINARY {
            self.connection.packets.judge_binary()
        } else {
            let whole = header.is_final() && beginning.len() as u64 == header.length;
            self.connection.packets.judge_text(&beginning, whole)
        };
        match verdict {
            PacketVerdict::Pass => self.pass(&header),
            PacketVerdict::Quote(name) => self.quote(&header, mask, beginning, name),
            PacketVerdict::Close(reason) => self.end(CloseCode::Policy, reason),
            PacketVerdict::OtherParser => {
                if let Some(note) = self.on_other_parser.take() {
                    note();
                }
                self.refuse();
            }
        }
        true
    }

    fn pass(&mut self, header: &Header) {
        self.passing = header.length.saturating_add(header.size as u64);
    }

    /// Two bytes more make the name a string. The rest of the frame stays masked as it is, so the mask turns by two.
    fn quote(
        &mut self,
        header: &Header,
        mask: [u8; 4],
        mut beginning: Vec<u8>,
        name: std::ops::Range<usize>,
    ) {
        let size = beginning.len();
        beginning.insert(name.end, b'"');
        beginning.insert(name.start, b'"');
        let turned = [mask[2], mask[3], mask[0], mask[1]];
        apply(turned, &mut beginning);
        self.ready.extend_from_slice(&[header.first, MASKED | 127]);
        self.ready.extend_from_slice(&(header.length + 2).to_be_bytes());
        self.ready.extend_from_slice(&turned);
        self.ready.extend_from_slice(&beginning);
        self.input.advance(header.size + size);
        self.passing = header.length - size as u64;
    }

    /// The engine reads that the client closes, and replies with the same code and reason.
    fn end(&mut self, code: CloseCode, reason: &str) {
        let mut payload = (code as u16).to_be_bytes().to_vec();
        payload.extend_from_slice(reason.as_bytes());
        self.ready.extend_from_slice(&short_frame(CLOSE, &payload, true));
        self.input = BytesMut::new();
        self.ended = true;
    }

    fn poll_farewell(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_taken(cx))?;
        let Some(io) = &mut self.io else {
            return Poll::Ready(Ok(()));
        };
        // In the middle of a frame it would be garbage.
        while !self.farewell.is_empty() && !self.cut {
            let written = ready!(Pin::new(&mut *io).poll_write(cx, &self.farewell))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.farewell.advance(written);
        }
        self.farewell.clear();
        Poll::Ready(Ok(()))
    }

    /// Passes bytes of the current frame.
    fn poll_pass(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let passing = usize::try_from(self.passing).unwrap_or(usize::MAX);
        if !self.input.is_empty() {
            let count = self.input.len().min(passing).min(buffer.remaining());
            buffer.put_slice(&self.input[..count]);
            consume(&mut self.input, count);
            self.passing -= count as u64;
            return Poll::Ready(Ok(()));
        }
        let Some(io) = &mut self.io else {
            return Poll::Ready(Ok(()));
        };
        let begin = buffer.filled().len();
        ready!(Pin::new(io).poll_read(cx, buffer))?;
        let count = buffer.filled().len() - begin;
        // What follows the frame is screened first.
        if count > passing {
            self.input.extend_from_slice(&buffer.filled()[begin + passing..]);
            buffer.set_filled(begin + passing);
        }
        self.passing -= count.min(passing) as u64;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> AsyncRead for Screened<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            if !this.farewell.is_empty() {
                ready!(this.poll_farewell(cx))?;
            }
            if !this.ready.is_empty() {
                let count = this.ready.len().min(buffer.remaining());
                buffer.put_slice(&this.ready[..count]);
                consume(&mut this.ready, count);
                return Poll::Ready(Ok(()));
            }
            if this.ended {
                return Poll::Ready(Ok(()));
            }
            if this.passing > 0 {
                return this.poll_pass(cx, buffer);
            }
            if this.screen() {
                continue;
            }
            let Some(io) = &mut this.io else {
                return Poll::Ready(Ok(()));
            };
            let mut chunk = [0; CHUNK];
            let mut chunk = ReadBuf::new(&mut chunk);
            ready!(Pin::new(io).poll_read(cx, &mut chunk))?;
            if chunk.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            this.input.extend_from_slice(chunk.filled());
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> AsyncWrite for Screened<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if this.hidden > 0 {
            let count = this.hidden.min(data.len());
            this.hidden -= count;
            return Poll::Ready(Ok(count));
        }
        ready!(this.poll_taken(cx))?;
        // What was cut is not at the beginning of a frame.
        if !this.cut
            && this.connection.introductions.is_any()
            && let Some(completed) = this.introduce(data)
        {
            this.taken.extend_from_slice(&completed);
            // What is left goes before anything that comes.
            if let Poll::Ready(result) = this.poll_taken(cx) {
                result?;
            }
            return Poll::Ready(Ok(data.len()));
        }
        let Some(io) = &mut this.io else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        let written = ready!(Pin::new(io).poll_write(cx, data))?;
        this.cut = written < data.len();
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_taken(cx))?;
        match &mut self.io {
            Some(io) => Pin::new(io).poll_flush(cx),
            None => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_taken(cx))?;
        match &mut self.io {
            Some(io) => Pin::new(io).poll_shutdown(cx),
            None => Poll::Ready(Ok(())),
        }
    }
}

/// A connection that is closed while bytes of the client wait is reset, and the client never reads why. So these are
/// discarded for a while.
impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Drop for Screened<S> {
    fn drop(&mut self) {
        if !self.ended {
            return;
        }
        let (Some(mut io), Ok(runtime)) = (self.io.take(), tokio::runtime::Handle::try_current()) else {
            return;
        };
        let discarding = tokio::time::timeout(LINGER, async move {
            io.shutdown().await?;
            let mut discarded = [0; CHUNK];
            while io.read(&mut discarded).await? > 0 {}
            io::Result::Ok(())
        });
        tasks::spawn_at(&runtime, "linger", discarding);
    }
}

/// A connection that is idle keeps no buffer.
fn consume(buffer: &mut BytesMut, count: usize) {
    buffer.advance(count);
    if buffer.is_empty() {
        *buffer = BytesMut::new();
    }
}

fn short_frame(opcode: u8, payload: &[u8], masked: bool) -> Vec<u8> {
    let mut frame = long_frame(opcode, payload);
    if masked {
        // A mask of zeros changes nothing.
        frame[1] |= MASKED;
        frame.splice(2..2, [0; 4]);
    }
    frame
}

/// A server's frame of up to 65,535 bytes; masking needs one of up to 125.
fn long_frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![FINAL | opcode];
    match u8::try_from(payload.len()) {
        Ok(short @ ..126) => frame.push(short),
        _ => {
            frame.push(126);
            let length = u16::try_from(payload.len()).unwrap_or(u16::MAX);
            frame.extend(length.to_be_bytes());
        }
    }
    frame.extend_from_slice(payload);
    frame
}

fn apply(mask: [u8; 4], payload: &mut [u8]) {
    for (byte, key) in payload.iter_mut().zip(mask.into_iter().cycle()) {
        *byte ^= key;
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::DuplexStream;

    use super::*;

    const MAX: usize = 1_000;
    const LIMIT: MessageLimit = MessageLimit {
        connected: MAX,
        connecting: 100,
    };
    const KEY: [u8; 4] = [1, 2, 3, 4];

    /// A client's frame, masked.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![first];
        match payload.len() {
            short @ ..126 => frame.push(MASKED | u8::try_from(short).unwrap()),
            long => {
                frame.push(MASKED | 126);
                frame.extend(u16::try_from(long).unwrap().to_be_bytes());
            }
        }
        frame.extend(KEY);
        let mut masked = payload.to_vec();
        apply(KEY, &mut masked);
        frame.extend(masked);
        frame
    }

    fn screened() -> (Screened<DuplexStream>, DuplexStream) {
        let (server, client) = tokio::io::duplex(1 << 20);
        let connection = Arc::new(Connection::default());
        connection.packets.join("/");
        (Screened::new(server, connection, LIMIT), client)
    }

    /// The messages and control frames in what the engine reads.
    fn frames(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
        let mut frames = Vec::new();
        while let Some(header) = Header::parse(bytes) {
            let end = header.size + usize::try_from(header.length).unwrap();
            let mut payload = bytes[header.size..end].to_vec();
            apply(header.mask.unwrap(), &mut payload);
            frames.push((header.first, payload));
            bytes = &bytes[end..];
        }
        assert!(bytes.is_empty(), "{bytes:?}");
        frames
    }

    /// What the engine reads when the client sends this in pieces of `piece` bytes and ends.
    async fn read(sent: &[u8], piece: usize) -> Vec<(u8, Vec<u8>)> {
        let (mut engine, mut client) = screened();
        let sent = sent.to_vec();
        let client = async move {
            for part in sent.chunks(piece) {
                client.write_all(part).await.unwrap();
                tokio::task::yield_now().await;
            }
            client.shutdown().await.unwrap();
            client
        };
        let mut bytes = Vec::new();
        let engine = async { engine.read_to_end(&mut bytes).await.map(|_| ()) };
        let (_client, outcome) = tokio::join!(client, engine);
        outcome.unwrap();
        frames(&bytes)
    }

    #[tokio::test]
    async fn frames_pass_as_they_are() {
        let long = [b"42[\"event\",\"".as_slice(), &[b'x'; 700], b"\"]"].concat();
        let all = [
            (FINAL | TEXT, b"3".to_vec()),
            (FINAL | 9, b"ping".to_vec()),
            (FINAL | TEXT, long.clone()),
            (TEXT, b"42[\"ev".to_vec()),
            (CONTINUATION, b"ent".to_vec()),
            (FINAL | CONTINUATION, b"\",1]".to_vec()),
            (FINAL | TEXT, long),
            (FINAL | CLOSE, 1000_u16.to_be_bytes().to_vec()),
        ];
        let sent: Vec<u8> = all
            .iter()
            .flat_map(|(first, payload)| frame(*first, payload))
            .collect();
        for piece in [1, 2, 7, 100, sent.len()] {
            assert_eq!(read(&sent, piece).await, all, "in pieces of {piece}");
        }
    }

    #[tokio::test]
    async fn numeric_event_names_are_quoted_and_the_rest_stays() {
        let rest = "x".repeat(600);
        let sent = frame(FINAL | TEXT, format!("427[5,\"{rest}\"]").as_bytes());
        let wanted = format!("427[\"5\",\"{rest}\"]").into_bytes();
        let next = frame(FINAL | TEXT, b"3");
        let sent = [sent, next].concat();
        for piece in [1, 50, sent.len()] {
            let wanted = [(FINAL | TEXT, wanted.clone()), (FINAL | TEXT, b"3".to_vec())];
            assert_eq!(read(&sent, piece).await, wanted, "in pieces of {piece}");
        }
    }

    async fn closed_with(sent: &[u8]) -> u16 {
        let frames = read(sent, sent.len()).await;
        let (first, payload) = frames.last().unwrap();
        assert_eq!((*first, frames.len()), (FINAL | CLOSE, 1));
        assert!(payload.len() <= 125);
        u16::from_be_bytes([payload[0], payload[1]])
    }

    #[tokio::test]
    async fn what_must_not_pass_closes_with_a_code() {
        assert_eq!(closed_with(&frame(FINAL | TEXT, &[b'4'; MAX + 1])).await, 1009);
        assert_eq!(
            closed_with(&frame(FINAL | TEXT, b"42/other,[\"event\"]")).await,
            1008
        );
        assert_eq!(closed_with(&frame(FINAL | TEXT, b"40")).await, 1008);
        assert_eq!(closed_with(&frame(FINAL | BINARY, b"\x83")).await, 1003);
        let fragments = [
            frame(TEXT, &[b'3'; 600]),
            frame(FINAL | CONTINUATION, &[b'3'; 401]),
        ]
        .concat();
        let read = read(&fragments, 10).await;
        assert_eq!(read[1].1[..2], 1009_u16.to_be_bytes());
    }

    #[tokio::test]
    async fn nothing_large_is_taken_from_a_client_that_is_not_connected() {
        let header_of = |first: u8, mask: u8, length: u64| {
            let mut header = vec![first, mask | 127];
            header.extend(length.to_be_bytes());
            header.extend(KEY);
            header
        };
        for (first, mask, code) in [
            // A frame of 9.9 MB of which nothing but the beginning comes.
            (FINAL | TEXT, MASKED, CloseCode::TooBig),
            (TEXT, MASKED, CloseCode::TooBig),
            (FINAL | BINARY, MASKED, CloseCode::TooBig),
            // Neither limit of messages holds for these.
            (FINAL | 9, MASKED, CloseCode::Protocol),
            (FINAL | TEXT, 0, CloseCode::Protocol),
        ] {
            let (server, mut client) = tokio::io::duplex(1 << 20);
            let limit = MessageLimit {
                connected: 10_000_000,
                connecting: 100,
            };
            let mut engine = Screened::new(server, Arc::default(), limit);
            let sent = [header_of(first, mask, 9_900_000), b"40{\"token\":".to_vec()].concat();
            client.write_all(&sent).await.unwrap();
            let mut read = Vec::new();
            // It ends although the client does not.
            engine.read_to_end(&mut read).await.unwrap();
            let frames = frames(&read);
            assert_eq!(frames.len(), 1, "{first}");
            assert_eq!(frames[0].1[..2], (code as u16).to_be_bytes(), "{first}");
        }
    }

    #[tokio::test]
    async fn a_client_with_another_parser_is_told_before_the_end() {
        let (mut engine, mut client) = screened();
        client.write_all(&frame(FINAL | BINARY, b"\x83")).await.unwrap();
        engine.read_to_end(&mut Vec::new()).await.unwrap();
        drop(engine);
        client.shutdown().await.unwrap();
        let mut bytes = Vec::new();
        client.read_to_end(&mut bytes).await.unwrap();
        assert_eq!(bytes[0], FINAL | BINARY);
        assert!(bytes.ends_with(&packets::refusal_in_message_pack()));
    }

    #[tokio::test]
    async fn what_was_exchanged_before_is_repeated_to_the_engine_alone() {
        let (engine, mut client) = screened();
        let hello = server_frame("3probe");
        let mut engine = engine.resumed(
            BytesMut::from(&frame(FINAL | TEXT, b"3")[..]),
            &client_frame("2probe"),
            hello.len(),
        );
        engine
            .write_all(&[hello.clone(), b"next".to_vec()].concat())
            .await
            .unwrap();
        let mut next = [0; 4];
        client.read_exact(&mut next).await.unwrap();
        assert_eq!(&next, b"next");
        client.shutdown().await.unwrap();
        let mut bytes = Vec::new();
        engine.read_to_end(&mut bytes).await.unwrap();
        let wanted = [(FINAL | TEXT, b"2probe".to_vec()), (FINAL | TEXT, b"3".to_vec())];
        assert_eq!(frames(&bytes), wanted);
    }

    #[test]
    fn the_handshake_is_answered_as_in_the_standard() {
        let mut headers = HeaderMap::new();
        let key = HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ==");
        headers.insert(header::SEC_WEBSOCKET_KEY, key);
        let response = accept(&headers);
        assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
        assert_eq!(
            response.headers()[header::SEC_WEBSOCKET_ACCEPT],
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        );
    }

    #[test]
    fn only_short_whole_texts_are_taken_before_the_upgrade() {
        let mut input = BytesMut::from(&[frame(FINAL | TEXT, b"2probe"), b"rest".to_vec()].concat()[..]);
        assert_eq!(take_text(&mut input, 16).unwrap().unwrap(), b"2probe");
        assert_eq!(&input[..], b"rest");
        let whole = frame(FINAL | TEXT, b"2probe");
        for length in 0..whole.len() {
            let mut input = BytesMut::from(&whole[..length]);
            assert!(take_text(&mut input, 16).unwrap().is_none());
        }
        for bad in [
            frame(FINAL | CLOSE, b""),
            frame(TEXT, b"2"),
            frame(FINAL | TEXT, &[b'2'; 17]),
            server_frame("5"),
        ] {
            assert!(take_text(&mut BytesMut::from(&bad[..]), 16).is_err(), "{bad:?}");
        }
    }
}
