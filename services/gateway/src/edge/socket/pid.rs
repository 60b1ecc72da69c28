//! What a client presents of its page: it learns the page's id in the answer to its first CONNECT, as the reference
//! server's connection state recovery gives it (`pid`), and stock clients present it when they connect again. It also
//! names the gateway that the page is connected to, which is asked what the page got once it is back.
//!
//! The engine has no place for the id, so it is put into its CONNECT packet on the way out.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::session_id::names_gateway;
use crate::session::page::{self, LENGTH, Page};

/// Characters that make each `pid` another one.
const TURN: usize = 12;

/// A page that connects again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Returning {
    /// Which.
    pub page: Page,
    /// The gateway that it was connected to before; `None` where it does not say.
    pub gateway: Option<String>,
}

/// What the clients of one connection are to present next and have not learned yet: one in each namespace.
#[derive(Debug, Default)]
pub struct Introductions {
    any: AtomicBool,
    waiting: Mutex<Vec<(Box<str>, String)>>,
}

impl Introductions {
    /// The next CONNECT packet of this namespace introduces a page.
    pub fn expect(&self, namespace: &str, pid: String) {
        self.lock().push((namespace.into(), pid));
        self.any.store(true, Ordering::Release);
    }

    /// Whether a packet must be looked at.
    pub fn is_any(&self) -> bool {
        self.any.load(Ordering::Acquire)
    }

    /// The packet with the page in it, if it is a CONNECT packet that introduces one.
    pub fn complete(&self, packet: &[u8]) -> Option<Vec<u8>> {
        let rest = packet.strip_prefix(b"40")?;
        let namespace: &[u8] = match rest.iter().position(|byte| *byte == b',') {
            Some(end) if rest.first() == Some(&b'/') => &rest[..end],
            _ => b"/",
        };
        let open = packet.strip_suffix(b"}")?;
        let pid = self.take(namespace)?;
        Some([open, b",\"pid\":\"", pid.as_bytes(), b"\"}"].concat())
    }

    fn take(&self, namespace: &[u8]) -> Option<String> {
        let mut waiting = self.lock();
        let index = waiting
            .iter()
            .position(|(name, _)| name.as_bytes() == namespace)?;
        let (_, pid) = waiting.swap_remove(index);
        self.any.store(!waiting.is_empty(), Ordering::Release);
        Some(pid)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(Box<str>, String)>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the client of a page presents next, connected to this gateway now. Another one each time: a client that gets the
/// same again takes everything for recovered, its rooms too.
pub fn pid(page: Page, gateway: &str) -> String {
    format!("{page}{}{gateway}", page::random())
}

impl Returning {
    /// The page that a client presents; `None` where it presents another server's.
    pub fn of(pid: &str) -> Option<Self> {
        let page = Page::parse(pid.get(..LENGTH)?)?;
        let gateway = pid.get(LENGTH + TURN..).filter(|name| names_gateway(name));
        Some(Self {
            page,
            gateway: gateway.map(str::to_owned),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GATEWAY: &str = "0190a6e0000070008000000000000001";

    #[test]
    fn a_page_keeps_its_id_and_gets_another_pid_each_time() {
        let page = Page::open();
        let (one, other) = (pid(page, GATEWAY), pid(page, GATEWAY));
        assert_ne!(one, other);
        for presented in [one, other] {
            let returning = Returning::of(&presented).unwrap();
            assert_eq!(
                (returning.page, returning.gateway.as_deref()),
                (page, Some(GATEWAY))
            );
        }
        assert_ne!(Page::open(), page);
    }

    #[test]
    fn a_page_whose_gateway_cannot_be_one_returns_from_nowhere() {
        for gateway in ["", "*", "0190a6e000007000800000000000000>", "0190a6e0"] {
            let page = Page::open();
            let returning = Returning::of(&pid(page, gateway)).unwrap();
            assert_eq!((returning.page, returning.gateway), (page, None), "{gateway}");
        }
    }

    #[test]
    fn what_this_server_did_not_issue_is_no_page() {
        for pid in ["", "short", "twelve chars", "ünïcödë-ünïcödë", "%%%%%%%%%%%%"] {
            assert_eq!(Returning::of(pid), None, "{pid}");
        }
    }

    #[test]
    fn the_connect_packet_of_each_namespace_introduces_its_page() {
        let introductions = Introductions::default();
        let (main, chat) = (Page::open(), Page::open());
        introductions.expect("/", pid(main, GATEWAY));
        introductions.expect("/chat", pid(chat, GATEWAY));
        for packet in [
            "2",
            "42[\"x\",{}]",
            "40/other,{\"sid\":\"a\"}",
            "44{\"message\":\"no\"}",
        ] {
            assert_eq!(introductions.complete(packet.as_bytes()), None, "{packet}");
        }
        for (packet, begins, page) in [
            (
                "40/chat,{\"sid\":\"a\"}",
                "40/chat,{\"sid\":\"a\",\"pid\":\"",
                chat,
            ),
            ("40{\"sid\":\"b\"}", "40{\"sid\":\"b\",\"pid\":\"", main),
        ] {
            assert!(introductions.is_any());
            let packet = introductions.complete(packet.as_bytes()).unwrap();
            let packet = std::str::from_utf8(&packet).unwrap();
            let pid = packet.strip_prefix(begins).unwrap().strip_suffix("\"}").unwrap();
            assert_eq!(Returning::of(pid).map(|one| one.page), Some(page));
        }
        assert!(!introductions.is_any());
        assert_eq!(introductions.complete(b"40{\"sid\":\"b\"}"), None);
    }
}
