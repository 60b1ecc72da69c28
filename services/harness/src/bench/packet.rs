//! Engine.IO and Socket.IO packets as text: what a server may send on the main namespace of one WebSocket.
//!
//! Borrows from the frame and parses no JSON: the generator has to be far cheaper than the servers.

/// One packet from the server.
#[derive(Debug, PartialEq, Eq)]
pub enum Packet<'a> {
    /// Engine.IO handshake.
    Open,
    /// Engine.IO heartbeat, to be answered with `3`.
    Ping,
    /// Socket.IO CONNECT: the token is accepted.
    Connected,
    /// Socket.IO CONNECT_ERROR with its JSON.
    Refused(&'a str),
    /// Socket.IO DISCONNECT, or the end of Engine.IO.
    Disconnected,
    /// An event: its name and what follows the name in the array, as JSON.
    Event(&'a str, &'a str),
    /// An acknowledgement: its number and the inside of its array, as JSON.
    Ack(u32, &'a str),
    /// Anything else.
    Other,
}

impl<'a> Packet<'a> {
    /// Reads the text of one frame.
    #[must_use]
    pub fn parse(text: &'a str) -> Self {
        let bytes = text.as_bytes();
        match bytes {
            [b'0', ..] => Self::Open,
            [b'1', ..] | [b'4', b'1', ..] => Self::Disconnected,
            [b'2', ..] => Self::Ping,
            [b'4', b'0', ..] => Self::Connected,
            [b'4', b'2', ..] => event(&text[2..]).unwrap_or(Self::Other),
            [b'4', b'3', ..] => ack(&text[2..]).unwrap_or(Self::Other),
            [b'4', b'4', ..] => Self::Refused(&text[2..]),
            _ => Self::Other,
        }
    }
}

/// `["name",payload]`, perhaps after the number of an acknowledgement that the server asks for.
fn event(text: &str) -> Option<Packet<'_>> {
    let inside = text.trim_start_matches(|character: char| character.is_ascii_digit());
    let inside = inside.strip_prefix("[\"")?.strip_suffix(']')?;
    let (name, rest) = inside.split_once('"')?;
    Some(Packet::Event(name, rest.strip_prefix(',').unwrap_or_default()))
}

/// `17[payload]`.
fn ack(text: &str) -> Option<Packet<'_>> {
    let (number, rest) = text.split_once('[')?;
    Some(Packet::Ack(number.parse().ok()?, rest.strip_suffix(']')?))
}

/// An event that asks for an acknowledgement with this number.
#[must_use]
pub fn request(number: u32, event: &str, payload: &str) -> String {
    format!(r#"42{number}["{event}",{payload}]"#)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_packet_of_a_session_is_told_apart() {
        for (text, packet) in [
            (r#"0{"sid":"a","pingInterval":25000}"#, Packet::Open),
            ("1", Packet::Disconnected),
            ("2", Packet::Ping),
            (r#"40{"sid":"b"}"#, Packet::Connected),
            ("41", Packet::Disconnected),
            (
                r#"42["typing",{"a":"]"}]"#,
                Packet::Event("typing", r#"{"a":"]"}"#),
            ),
            (r#"4212["auth",1]"#, Packet::Event("auth", "1")),
            (r#"42["resync"]"#, Packet::Event("resync", "")),
            (
                r#"4317[{"ok":true,"list":[1]}]"#,
                Packet::Ack(17, r#"{"ok":true,"list":[1]}"#),
            ),
            ("430[]", Packet::Ack(0, "")),
            (r#"44{"message":"no"}"#, Packet::Refused(r#"{"message":"no"}"#)),
            ("6", Packet::Other),
            ("42nonsense", Packet::Other),
            ("43x[]", Packet::Other),
            ("", Packet::Other),
        ] {
            assert_eq!(Packet::parse(text), packet, "{text}");
        }
    }

    #[test]
    fn a_request_is_an_event_with_the_number_of_its_acknowledgement() {
        assert_eq!(
            request(7, "message:send", r#"{"a":1}"#),
            r#"427["message:send",{"a":1}]"#
        );
    }
}
