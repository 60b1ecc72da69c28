//! What the reference server checks of a client's packets and the engine does not: namespaces that are not
//! connected, event names that are numbers, packets of another parser.
//!
//! Looks at the beginning of a packet only, and never at what an event says.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// A verdict needs at most so much of a packet.
pub const PREFIX: usize = 256;
/// What a client with another parser reads in `connect_error`, and in the log of the gateway.
pub const OTHER_PARSER: &str =
    "this server speaks the default Socket.IO parser only: remove the `parser` option of the client";
/// Longer, and it would need another header in MessagePack.
const _: () = assert!(OTHER_PARSER.len() < 256);

/// What one Engine.IO connection, over whatever transport, has sent so far, as far as later packets must fit it.
#[derive(Debug, Default)]
pub struct Packets {
    state: Mutex<State>,
    cut: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    /// The namespaces that the client is connected to: of those that are served.
    namespaces: Vec<Box<str>>,
    /// Binary attachments that the last event announced.
    attachments: u32,
}

/// The largest message of a client, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct MessageLimit {
    /// Of one that is connected to a namespace: nobody else has shown a token.
    pub connected: usize,
    /// Before that.
    pub connecting: usize,
}

/// What is to be done with a packet.
#[derive(Debug, PartialEq, Eq)]
pub enum PacketVerdict {
    /// The engine takes it.
    Pass,
    /// The engine takes it once this part, an event's name, is in quotes.
    Quote(Range<usize>),
    /// The connection ends, for this reason.
    Close(&'static str),
    /// The client uses another parser and is refused.
    OtherParser,
}

impl Packets {
    /// The server ends the connection because of a packet.
    pub fn cut(&self) {
        self.cut.store(true, Ordering::Relaxed);
    }

    /// Whether it does.
    pub fn is_cut(&self) -> bool {
        self.cut.load(Ordering::Relaxed)
    }

    /// How large the next message may be, in bytes.
    pub fn allowance(&self, limit: MessageLimit) -> usize {
        if self.lock().namespaces.is_empty() {
            limit.connecting.min(limit.connected)
        } else {
            limit.connected
        }
    }

    /// The client is connected to this namespace from now on.
    pub fn join(&self, namespace: &str) {
        let mut state = self.lock();
        if !state.is_in(namespace) {
            state.namespaces.push(namespace.into());
        }
    }

    /// The client is not connected to this namespace any more.
    pub fn leave(&self, namespace: &str) {
        self.lock().leave(namespace);
    }

    /// Judges a text packet by its beginning. `whole`: there is no more of it.
    pub fn judge_text(&self, packet: &[u8], whole: bool) -> PacketVerdict {
        let verdict = match packet {
            // As polling carries binary messages.
            [b'b', ..] => return self.judge_binary(),
            [b'4', kind @ b'0'..=b'6', ..] => self.judge_packet(*kind, packet, whole),
            _ => PacketVerdict::Pass,
        };
        if matches!(verdict, PacketVerdict::Close(_)) {
            self.cut();
        }
        verdict
    }

    /// Judges a binary message.
    pub fn judge_binary(&self) -> PacketVerdict {
        let mut state = self.lock();
        if state.attachments == 0 {
            self.cut();
            return PacketVerdict::OtherParser;
        }
        state.attachments -= 1;
        PacketVerdict::Pass
    }

    fn judge_packet(&self, kind: u8, packet: &[u8], whole: bool) -> PacketVerdict {
        let mut at = 2;
        let mut attachments = 0;
        if matches!(kind, b'5' | b'6') {
            let digits = digits(&packet[at..]);
            attachments = number(&packet[at..at + digits]).unwrap_or_default();
            at += digits + 1;
        }
        let rest = packet.get(at..).unwrap_or_default();
        let namespace = if rest.first() == Some(&b'/') {
            let end = rest.iter().position(|byte| *byte == b',');
            if end.is_none() && !whole {
                return PacketVerdict::Close("the namespace is too long");
            }
            let end = end.unwrap_or(rest.len());
            at += end + 1;
            std::str::from_utf8(&rest[..end]).unwrap_or_default()
        } else {
            "/"
        };
        let mut state = self.lock();
        match kind {
            b'0' if state.is_in(namespace) => PacketVerdict::Close("this namespace is connected already"),
            b'0' | b'4' => PacketVerdict::Pass,
            _ if !state.is_in(namespace) => PacketVerdict::Close("this namespace is not connected"),
            b'1' => {
                state.leave(namespace);
                PacketVerdict::Pass
            }
            b'2' | b'5' => {
                state.attachments = attachments;
                quoted(packet, at).map_or(PacketVerdict::Pass, PacketVerdict::Quote)
            }
            _ => {
                state.attachments = attachments;
                PacketVerdict::Pass
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn is_in(&self, namespace: &str) -> bool {
        self.namespaces.iter().any(|one| **one == *namespace)
    }

    fn leave(&mut self, namespace: &str) {
        self.namespaces.retain(|one| **one != *namespace);
    }
}

/// Refuses a client that speaks MessagePack, the only other parser of note: a CONNECT_ERROR that it can read.
pub fn refusal_in_message_pack() -> Vec<u8> {
    fn text(packet: &mut Vec<u8>, text: &str) {
        match u8::try_from(text.len()) {
            Ok(short @ ..32) => packet.push(0xa0 | short),
            length => packet.extend([0xd9, length.unwrap_or_default()]),
        }
        packet.extend(text.bytes());
    }
    // Maps of three and of one entry.
    let mut packet = vec![0x83];
    text(&mut packet, "type");
    packet.push(4);
    text(&mut packet, "nsp");
    text(&mut packet, "/");
    text(&mut packet, "data");
    packet.push(0x81);
    text(&mut packet, "message");
    text(&mut packet, OTHER_PARSER);
    packet
}

/// The same as the answer to a poll.
pub fn refusal_in_message_pack_over_polling() -> String {
    format!("b{}", STANDARD.encode(refusal_in_message_pack()))
}

/// Where the event's name is, if it is a number; `at` is where its acknowledgement id may begin.
fn quoted(packet: &[u8], at: usize) -> Option<Range<usize>> {
    let at = at + digits(packet.get(at..)?);
    let array = packet.get(at..)?.strip_prefix(b"[")?;
    let blank = array.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
    let length = array[blank..]
        .iter()
        .position(|byte| matches!(byte, b',' | b']') || byte.is_ascii_whitespace())?;
    let name = &array[blank..blank + length];
    let _: serde_json::Number = serde_json::from_slice(name).ok()?;
    let begin = at + 1 + blank;
    Some(begin..begin + length)
}

fn digits(text: &[u8]) -> usize {
    text.iter().take_while(|byte| byte.is_ascii_digit()).count()
}

fn number(digits: &[u8]) -> Option<u32> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOREIGN: PacketVerdict = PacketVerdict::Close("this namespace is not connected");

    fn connected() -> Packets {
        let connection = Packets::default();
        connection.join("/");
        connection
    }

    fn judge(connection: &Packets, packet: &str) -> PacketVerdict {
        connection.judge_text(packet.as_bytes(), true)
    }

    #[test]
    fn much_may_be_sent_only_while_a_namespace_is_connected() {
        let limit = MessageLimit {
            connected: 1_000,
            connecting: 10,
        };
        let connection = Packets::default();
        assert_eq!(connection.allowance(limit), 10);
        connection.join("/");
        assert_eq!(connection.allowance(limit), 1_000);
        connection.leave("/");
        assert_eq!(connection.allowance(limit), 10);
    }

    #[test]
    fn packets_of_connected_namespaces_pass() {
        let connection = connected();
        for packet in [
            "3",
            "1",
            "2probe",
            "42[\"event\",{}]",
            "4212[\"event\"]",
            "430[{}]",
            "451-[\"event\",{\"_placeholder\":true,\"num\":0}]",
            "40/other,{}",
            "40/other",
            "4",
            "49",
            "",
            "\u{e9}",
        ] {
            assert_eq!(judge(&connection, packet), PacketVerdict::Pass, "{packet}");
        }
    }

    #[test]
    fn packets_of_a_namespace_that_is_not_connected_close_the_connection() {
        let connection = Packets::default();
        for packet in [
            "42[\"event\"]",
            "41",
            "430[]",
            "451-[\"event\"]",
            "42/other,[\"event\"]",
            "42/other,",
        ] {
            assert_eq!(judge(&connection, packet), FOREIGN, "{packet}");
        }
        connection.join("/other");
        assert_eq!(judge(&connection, "42/other,1[\"event\"]"), PacketVerdict::Pass);
        assert_eq!(judge(&connection, "42[\"event\"]"), FOREIGN);
    }

    #[test]
    fn a_second_connect_closes_the_connection_and_one_after_a_disconnect_does_not() {
        let connection = connected();
        assert_eq!(
            judge(&connection, "40{}"),
            PacketVerdict::Close("this namespace is connected already")
        );
        assert_eq!(judge(&connection, "41"), PacketVerdict::Pass);
        assert_eq!(judge(&connection, "40{}"), PacketVerdict::Pass);
        connection.join("/");
        connection.leave("/");
        assert_eq!(judge(&connection, "40"), PacketVerdict::Pass);
    }

    #[test]
    fn numbers_become_event_names_in_quotes() {
        let connection = connected();
        connection.join("/other");
        for (packet, name) in [
            ("42[5,\"x\"]", "5"),
            ("4217[5]", "5"),
            ("42/other,3[ -1.5e3 ,1]", "-1.5e3"),
            ("451-[7,{}]", "7"),
        ] {
            let PacketVerdict::Quote(range) = judge(&connection, packet) else {
                panic!("{packet} passes as it is");
            };
            assert_eq!(&packet[range], name);
        }
        for packet in [
            "42[\"5\",1]",
            "42[5x]",
            "42[null]",
            "42[",
            "42[5",
            "42{}",
            "42[[5]]",
            "42[]",
        ] {
            assert_eq!(judge(&connection, packet), PacketVerdict::Pass, "{packet}");
        }
    }

    #[test]
    fn binary_messages_that_no_event_announced_are_of_another_parser() {
        let connection = connected();
        assert_eq!(connection.judge_binary(), PacketVerdict::OtherParser);
        assert_eq!(judge(&connection, "bgaR0eXBl"), PacketVerdict::OtherParser);
        assert_eq!(judge(&connection, "452-[\"event\"]"), PacketVerdict::Pass);
        assert_eq!(judge(&connection, "bAAAA"), PacketVerdict::Pass);
        assert_eq!(connection.judge_binary(), PacketVerdict::Pass);
        assert_eq!(connection.judge_binary(), PacketVerdict::OtherParser);
    }

    #[test]
    fn the_beginning_of_a_packet_is_enough() {
        let connection = connected();
        let beginning = "42[\"event\",\"xxxx".as_bytes();
        assert_eq!(connection.judge_text(beginning, false), PacketVerdict::Pass);
        let endless = format!("40/{}", "x".repeat(PREFIX));
        let verdict = connection.judge_text(endless.as_bytes(), false);
        assert_eq!(verdict, PacketVerdict::Close("the namespace is too long"));
    }

    #[test]
    fn the_refusal_is_message_pack() {
        let packet = refusal_in_message_pack();
        assert!(packet.starts_with(b"\x83\xa4type\x04\xa3nsp\xa1/\xa4data\x81\xa7message\xd9"));
        assert!(packet.ends_with(OTHER_PARSER.as_bytes()));
    }
}
