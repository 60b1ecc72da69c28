//! One Socket.IO client over a plain TCP connection, cheap enough that thousands cost less than one server.
//!
//! Answers heartbeats, matches acknowledgements and hands every delivered message to the checks. Must not retry or
//! reconnect: scenarios decide that.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, anyhow, bail, ensure};
use serde::Deserialize;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::{AbortHandle, spawn_local};

use super::checks::{GrowingText, RoomStream, Stamp};
use super::dialect::Dialect;
use super::frame::{Frame, FrameReader, text};
use super::packet::{Packet, request};
use super::recorder::{Recorder, add};

/// Longest wait for a handshake or an acknowledgement.
const PATIENCE: Duration = Duration::from_secs(30);
const LARGEST_HEAD: usize = 8 * 1024;
/// The events with text of a message that streams: a part of it, and at the end all.
const CHUNK: &str = "message:chunk";
const FINISHED: &str = "message:finished";

/// The payload of either.
#[derive(Deserialize)]
struct Grown<'a> {
    #[serde(default)]
    offset: u64,
    #[serde(borrow, alias = "content")]
    text: Cow<'a, str>,
}

/// Why a client was refused.
#[derive(Debug)]
pub enum Refusal {
    /// HTTP 503: retry later.
    Busy,
    /// Anything else.
    Failed(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for Refusal {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// A connected client; its connection ends when it is dropped.
#[derive(Debug)]
pub struct Client {
    link: Rc<Link>,
    reader: AbortHandle,
}

#[derive(Debug)]
struct Link {
    socket: TcpStream,
    dialect: Dialect,
    recorder: Rc<Recorder>,
    /// Bytes that the socket did not take yet.
    unsent: RefCell<Vec<u8>>,
    acks: RefCell<HashMap<u32, oneshot::Sender<String>>>,
    next_ack: Cell<u32>,
    /// By index of the room: those this user is a member of.
    streams: RefCell<HashMap<u32, RoomStream>>,
    /// Of the one message that streams.
    text: RefCell<GrowingText>,
}

impl Client {
    /// Connects as the user of `token`, a member of `rooms`; `since` as in [`Dialect::auth`].
    ///
    /// # Errors
    /// [`Refusal::Busy`] if the server answers 503, [`Refusal::Failed`] for any other refusal or silence.
    pub async fn connect(
        address: SocketAddr,
        dialect: Dialect,
        (token, since): (&str, &str),
        rooms: impl IntoIterator<Item = u32>,
        recorder: &Rc<Recorder>,
    ) -> Result<Self, Refusal> {
        let connected = async {
            let socket = TcpStream::connect(address).await?;
            socket.set_nodelay(true)?;
            let streams = rooms.into_iter().map(|room| (room, RoomStream::default()));
            let mut link = Link {
                socket,
                dialect,
                recorder: Rc::clone(recorder),
                unsent: RefCell::default(),
                acks: RefCell::default(),
                next_ack: Cell::new(0),
                streams: RefCell::new(streams.collect()),
                text: RefCell::default(),
            };
            let mut frames = link.upgrade(address).await?;
            link.until(&mut frames, &Packet::Open).await?;
            link.write(&format!("40{}", dialect.auth(token, since)))?;
            link.until(&mut frames, &Packet::Connected).await?;
            Ok::<_, Refusal>((Rc::new(link), frames))
        };
        let connected = tokio::time::timeout(PATIENCE, connected).await;
        let (link, frames) = connected.context("no answer to a handshake")??;
        let reader = spawn_local(Rc::clone(&link).read(frames)).abort_handle();
        Ok(Self { link, reader })
    }

    /// Emits an event and returns the acknowledgement, which must be positive.
    ///
    /// # Errors
    /// It is negative, does not come, or the connection is closed.
    pub async fn request(&self, (event, payload): (&str, String)) -> anyhow::Result<String> {
        let link = &self.link;
        let number = link.next_ack.get();
        link.next_ack.set(number.wrapping_add(1));
        let (sender, ack) = oneshot::channel();
        link.acks.borrow_mut().insert(number, sender);
        Link::write_all(link, &request(number, event, &payload))?;
        let ack = tokio::time::timeout(PATIENCE, ack).await;
        let ack = ack
            .with_context(|| format!("no answer to {event}"))?
            .map_err(|_| anyhow!("the connection was closed before {event} was answered"))?;
        ensure!(link.dialect.accepts(&ack), "{event} was refused: {ack:.200}");
        Ok(ack)
    }

    /// Takes a message that the client fetched by itself, unless it was emitted as well.
    pub fn fetched(&self, stamp: Stamp) {
        let mut streams = self.link.streams.borrow_mut();
        if let Some(stream) = streams.get_mut(&stamp.room) {
            stream.fill(stamp.number);
        }
    }

    /// What it has of the text that streams.
    #[must_use]
    pub fn text(&self) -> String {
        self.link.text.borrow().as_str().to_owned()
    }

    /// What it has received of a room.
    #[must_use]
    pub fn stream(&self, room: u32) -> RoomStream {
        self.link.streams.borrow().get(&room).cloned().unwrap_or_default()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Link {
    /// The WebSocket handshake; what was read beyond it is already fed.
    async fn upgrade(&mut self, address: SocketAddr) -> Result<FrameReader, Refusal> {
        let request = format!(
            "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\n\
             Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        );
        self.socket.write_all(request.as_bytes()).await?;
        let mut head = Vec::new();
        let end = loop {
            if let Some(end) = head.windows(4).position(|end| end == b"\r\n\r\n") {
                break end + 4;
            }
            if head.len() > LARGEST_HEAD {
                return Err(anyhow!("the answer to a handshake does not end").into());
            }
            self.read_into(|bytes| head.extend_from_slice(bytes)).await?;
        };
        let first = String::from_utf8_lossy(&head[..end])
            .lines()
            .next()
            .map(str::to_owned);
        match first.unwrap_or_default().split(' ').nth(1) {
            Some("101") => {}
            Some("503") => return Err(Refusal::Busy),
            status => return Err(anyhow!("a handshake was answered {status:?}").into()),
        }
        let mut frames = FrameReader::default();
        frames.feed(&head[end..]);
        Ok(frames)
    }

    /// Reads up to a packet; events before it are taken like any other.
    async fn until(&self, frames: &mut FrameReader, wanted: &Packet<'_>) -> anyhow::Result<()> {
        loop {
            while let Some(frame) = frames.next_frame()? {
                let Frame::Text(text) = frame else { continue };
                let packet = Packet::parse(text);
                if packet == *wanted {
                    return Ok(());
                }
                self.take(&packet)?;
            }
            self.read_into(|bytes| frames.feed(bytes)).await?;
        }
    }

    async fn read(self: Rc<Self>, mut frames: FrameReader) {
        // The task of a dropped client is aborted, so what ends here was closed by the server.
        let _closed = self.read_all(&mut frames).await;
        self.recorder.violations.borrow_mut().closed += 1;
        self.acks.borrow_mut().clear();
    }

    async fn read_all(&self, frames: &mut FrameReader) -> anyhow::Result<()> {
        loop {
            while let Some(frame) = frames.next_frame()? {
                match frame {
                    Frame::Text(text) => self.take(&Packet::parse(text))?,
                    Frame::Control => {}
                    Frame::Close => bail!("closed"),
                }
            }
            self.read_into(|bytes| frames.feed(bytes)).await?;
            self.flush();
        }
    }

    /// What a packet means, whenever it comes.
    fn take(&self, packet: &Packet<'_>) -> anyhow::Result<()> {
        match packet {
            Packet::Event(name, payload) => {
                add(&self.recorder.events, 1);
                if *name == self.dialect.delivery() {
                    self.deliver(payload);
                } else if [CHUNK, FINISHED].contains(name) {
                    self.grow(payload)?;
                }
            }
            Packet::Ack(number, payload) => {
                if let Some(waiting) = self.acks.borrow_mut().remove(number) {
                    // The request may have timed out.
                    waiting.send((*payload).to_owned()).ok();
                }
            }
            Packet::Ping => {
                self.write("3")?;
                add(&self.recorder.heartbeats, 1);
            }
            Packet::Refused(reason) => bail!("refused: {reason:.200}"),
            Packet::Disconnected => bail!("disconnected"),
            Packet::Open | Packet::Connected | Packet::Other => {}
        }
        Ok(())
    }

    fn grow(&self, grown: &str) -> anyhow::Result<()> {
        let Grown { offset, text } = serde_json::from_str(grown)?;
        for due in self.text.borrow_mut().take(offset, &text) {
            self.recorder.delivered(due);
        }
        Ok(())
    }

    fn deliver(&self, message: &str) {
        let Some(stamp) = Stamp::find(message) else { return };
        let recorder = &self.recorder;
        recorder.delivered(stamp.due);
        let violations = &mut recorder.violations.borrow_mut();
        let named = self.dialect.conversation(message);
        let room = recorder.rooms.get(stamp.room as usize);
        let mut streams = self.streams.borrow_mut();
        match streams.get_mut(&stamp.room) {
            Some(stream) if room.map(|room| room.id.as_str()) == named => {
                stream.receive(stamp.number, violations);
            }
            _ => violations.wrong_room += 1,
        }
    }

    async fn read_into(&self, mut each: impl FnMut(&[u8])) -> anyhow::Result<()> {
        loop {
            self.socket.readable().await?;
            let scratch = &mut *self.recorder.scratch.borrow_mut();
            match self.socket.try_read(scratch) {
                Ok(0) => bail!("closed"),
                Ok(count) => {
                    each(&scratch[..count]);
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Writes what the socket takes now and keeps the rest.
    fn write(&self, packet: &str) -> anyhow::Result<()> {
        let frame = text(packet);
        let unsent = &mut *self.unsent.borrow_mut();
        let taken = if unsent.is_empty() {
            match self.socket.try_write(&frame) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
                Err(error) => return Err(error.into()),
            }
        } else {
            0
        };
        unsent.extend_from_slice(&frame[taken..]);
        Ok(())
    }

    /// [`Link::write`], the rest as soon as the socket takes it.
    fn write_all(link: &Rc<Self>, packet: &str) -> anyhow::Result<()> {
        link.write(packet)?;
        if !link.unsent.borrow().is_empty() {
            let link = Rc::clone(link);
            spawn_local(async move {
                while !link.unsent.borrow().is_empty() && link.socket.writable().await.is_ok() {
                    link.flush();
                }
            });
        }
        Ok(())
    }

    fn flush(&self) {
        let unsent = &mut *self.unsent.borrow_mut();
        if !unsent.is_empty()
            && let Ok(count) = self.socket.try_write(unsent)
        {
            unsent.drain(..count);
        }
    }
}
