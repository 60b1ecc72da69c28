//! Memory of a gateway per idle WebSocket, measured from outside.
//!
//! The clients are as small as can be: Engine.IO and Socket.IO by hand over a plain connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::eventually::eventually;
use crate::{Stack, Token};

/// Handshakes at once.
const AT_ONCE: usize = 64;
/// The gateway's heartbeat comes every 25 s.
const HEARTBEAT: Duration = Duration::from_secs(60);
const ONE_HANDSHAKE: Duration = Duration::from_secs(30);

/// What was measured. RSS in KiB.
#[derive(Clone, Copy, Debug)]
pub struct Footprint {
    /// Connections that were open at the end.
    pub connections: usize,
    /// Before the first of them.
    pub before: u64,
    /// When all were open.
    pub opened: u64,
    /// When each had answered a heartbeat.
    pub idle: u64,
}

impl Footprint {
    /// KiB per connection, once all of them idle.
    #[must_use]
    pub fn per_connection(&self) -> f64 {
        let grown = self.idle.saturating_sub(self.before);
        grown as f64 / self.connections.max(1) as f64
    }
}

/// Opens connections of so many users to the first gateway of a stack and measures its memory.
///
/// # Errors
/// A connection is refused or lost, or the gateway's memory cannot be read.
pub async fn measure(stack: &Stack, connections: usize, users: usize) -> anyhow::Result<Footprint> {
    let gateway = stack.gateway(0);
    let pid = gateway.pid().context("the gateway does not run")?;
    let address = gateway
        .base_url()
        .strip_prefix("http://")
        .context("not an http:// URL")?
        .to_owned();
    // A gateway that has just started turns clients away until persistence has answered it once.
    let first = || async { handshake(&address, &stack.token("first")).await.map(drop) };
    eventually(ONE_HANDSHAKE, "a first handshake", first).await?;
    // The first ones build what all share: pools, tables, threads.
    let (stop, stopped) = watch::channel(());
    let beats = Arc::new(AtomicUsize::new(0));
    let open = |number: usize| {
        open(
            &address,
            stack,
            number % users.max(1),
            stopped.clone(),
            Arc::clone(&beats),
        )
    };
    stream::iter(0..AT_ONCE)
        .map(open)
        .buffer_unordered(AT_ONCE)
        .try_collect::<Vec<_>>()
        .await?;
    let before = rss(pid)?;
    let all = stream::iter(AT_ONCE..AT_ONCE + connections)
        .map(open)
        .buffer_unordered(AT_ONCE);
    let tasks: Vec<_> = all.try_collect().await?;
    let opened = rss(pid)?;
    let seen = beats.load(Ordering::Relaxed);
    eventually(HEARTBEAT, "a heartbeat of every connection", || async {
        beats.load(Ordering::Relaxed) >= seen + connections
    })
    .await?;
    let idle = rss(pid)?;
    let lost = tasks.iter().filter(|task| task.is_finished()).count();
    ensure!(lost == 0, "{lost} of {connections} connections were closed");
    drop(stop);
    Ok(Footprint {
        connections,
        before,
        opened,
        idle,
    })
}

/// Resident memory of a process in KiB.
fn rss(pid: u32) -> anyhow::Result<u64> {
    let status =
        std::fs::read_to_string(format!("/proc/{pid}/status")).context("memory is read from /proc")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line
        .and_then(|line| line.split_whitespace().next())
        .context("no VmRSS")?;
    Ok(number.parse()?)
}

/// One client: connected when this returns, then answers heartbeats until it is stopped.
async fn open(
    address: &str,
    stack: &Stack,
    user: usize,
    stopped: watch::Receiver<()>,
    beats: Arc<AtomicUsize>,
) -> anyhow::Result<tokio::task::JoinHandle<anyhow::Result<()>>> {
    let token = Token::new(&format!("idle-{user}")).sign(stack.jwt_secret())?;
    let handshake = handshake(address, &token);
    let socket = tokio::time::timeout(ONE_HANDSHAKE, handshake)
        .await
        .context("a handshake takes too long")??;
    Ok(tokio::spawn(keep_alive(socket, stopped, beats)))
}

async fn handshake(address: &str, token: &str) -> anyhow::Result<BufReader<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let mut socket = BufReader::with_capacity(1_024, stream);
    let request = format!(
        "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\n\
         Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    );
    socket.write_all(request.as_bytes()).await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await.context("refused without an answer")?);
    }
    let head = String::from_utf8_lossy(&head);
    ensure!(
        head.starts_with("HTTP/1.1 101"),
        "refused: {}",
        head.lines().next().unwrap_or_default()
    );
    expect(&mut socket, "0{").await?;
    send(&mut socket, &format!(r#"40{{"token":"{token}"}}"#)).await?;
    expect(&mut socket, "40{").await?;
    Ok(socket)
}

async fn keep_alive(
    mut socket: BufReader<TcpStream>,
    mut stopped: watch::Receiver<()>,
    beats: Arc<AtomicUsize>,
) -> anyhow::Result<()> {
    loop {
        let packet = tokio::select! {
            packet = receive(&mut socket) => packet?,
            // The sender is dropped at the end.
            _ = stopped.changed() => return Ok(()),
        };
        if packet == "2" {
            send(&mut socket, "3").await?;
            beats.fetch_add(1, Ordering::Relaxed);
        }
    }
}

async fn expect(socket: &mut BufReader<TcpStream>, start: &str) -> anyhow::Result<()> {
    let mut packet = receive(socket).await?;
    // The first heartbeat may come before anything else.
    while packet == "2" {
        send(socket, "3").await?;
        packet = receive(socket).await?;
    }
    ensure!(packet.starts_with(start), "got {packet:?} instead of {start}…");
    Ok(())
}

/// The next text frame.
async fn receive(socket: &mut BufReader<TcpStream>) -> anyhow::Result<String> {
    let first = socket.read_u8().await?;
    let length = match socket.read_u8().await? {
        126 => usize::from(socket.read_u16().await?),
        127 => usize::try_from(socket.read_u64().await?)?,
        length => usize::from(length),
    };
    let mut payload = vec![0; length];
    socket.read_exact(&mut payload).await?;
    match first {
        0x81 => Ok(String::from_utf8(payload)?),
        0x88 => bail!("the gateway closed the connection"),
        other => bail!("a frame that starts with {other:#x} was not expected"),
    }
}

/// Sends a text frame. Clients must mask; a key of zeros leaves the text as it is.
async fn send(socket: &mut BufReader<TcpStream>, text: &str) -> anyhow::Result<()> {
    let mut frame = vec![0x81];
    match u8::try_from(text.len()) {
        Ok(length) if length < 126 => frame.push(0x80 | length),
        _ => {
            frame.push(0x80 | 126);
            frame.extend(u16::try_from(text.len())?.to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend(text.as_bytes());
    Ok(socket.write_all(&frame).await?)
}
