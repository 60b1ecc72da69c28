//! Clients, two gateways and a server that merges; messages take their time but keep their order.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::journal::{Document, History, Shadow};

/// What clients do.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Habit {
    /// Put lines between lines.
    Paragraphs,
    /// Put characters anywhere.
    Anywhere,
    /// The first one also deletes characters of its own, but lets each of its edits be answered first.
    FirstDeletesToo,
}

pub(super) struct World {
    dice: u64,
    habit: Habit,
    start: Instant,
    /// Milliseconds since the start.
    now: u64,
    /// By arrival; the second number keeps those of one moment in order.
    mail: BTreeMap<(u64, u64), Mail>,
    sent: u64,
    /// When the last message on a way arrives.
    ways: BTreeMap<(Way, usize), u64>,
    server: Document,
    version: u64,
    gateways: Vec<Arc<History>>,
    clients: Vec<Client>,
    inserted: Vec<String>,
    written: Vec<(usize, char)>,
}

struct Client {
    gateway: usize,
    shadow: Shadow,
    screen: String,
    /// Edits not answered yet.
    awaited: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    Up,
    In,
    Out,
    Down,
}

/// By this client.
type Update = (usize, Vec<u8>);

enum Mail {
    Act(usize),
    Edit(usize, String),
    Update(Update),
    Version(usize, u64, String, Update),
    Show(usize, String, usize),
}

impl World {
    pub(super) fn new(seed: u64, clients: usize, habit: Habit) -> Self {
        let start = Instant::now();
        let empty = || Document::from_state(&[]).unwrap();
        let gateways: Vec<_> = (0..2)
            .map(|_| Arc::new(History::new(empty(), 0, start)))
            .collect();
        let client = |index: usize| Client {
            gateway: index % 2,
            shadow: Shadow::new(Arc::clone(&gateways[index % 2]), true),
            screen: String::new(),
            awaited: 0,
        };
        Self {
            dice: seed | 1,
            habit,
            start,
            now: 0,
            mail: BTreeMap::new(),
            sent: 0,
            ways: BTreeMap::new(),
            server: empty(),
            version: 0,
            clients: (0..clients).map(client).collect(),
            gateways,
            inserted: Vec::new(),
            written: Vec::new(),
        }
    }

    /// Lets clients act so many times, all at once and over each other, and everything arrive.
    pub(super) fn run(&mut self, acts: usize) {
        for _ in 0..acts {
            let (at, client) = (
                self.throw(acts as u64 * 75),
                self.throw(self.clients.len() as u64),
            );
            self.post(at, Mail::Act(usize::try_from(client).unwrap()));
        }
        self.settle();
    }

    /// Every act has been answered before the next.
    pub(super) fn run_slowly(&mut self, acts: usize) {
        for _ in 0..acts {
            self.post(self.now + self.dice % 900, Mail::Act(0));
            self.settle();
        }
    }

    pub(super) fn text(&self) -> String {
        self.server.text()
    }

    pub(super) fn typed(&self, client: usize) -> &str {
        &self.clients[client].screen
    }

    pub(super) fn all_show(&self, text: &str) -> bool {
        self.clients.iter().all(|client| client.screen == text)
    }

    pub(super) fn inserted(&self) -> &[String] {
        &self.inserted
    }

    pub(super) fn written(&self) -> &[(usize, char)] {
        &self.written
    }

    fn settle(&mut self) {
        while let Some(((at, _), mail)) = self.mail.pop_first() {
            self.now = self.now.max(at);
            self.take(mail);
        }
    }

    fn take(&mut self, mail: Mail) {
        let now = self.start + Duration::from_millis(self.now);
        match mail {
            Mail::Act(client) => {
                if self.habit == Habit::FirstDeletesToo && client == 0 && self.clients[0].awaited > 0 {
                    return;
                }
                self.act(client);
                self.clients[client].awaited += 1;
                let text = self.clients[client].screen.clone();
                self.send(Way::Up, client, 700, Mail::Edit(client, text));
            }
            Mail::Edit(client, text) => {
                let Client { shadow, gateway, .. } = &mut self.clients[client];
                let gateway = *gateway;
                match shadow.edit(&text, now).unwrap() {
                    Some(update) => self.send(Way::In, gateway, 60, Mail::Update((client, update))),
                    None => self.clients[client].awaited -= 1,
                }
            }
            Mail::Update((client, update)) => {
                let before = self.server.state();
                self.server.apply(&update).unwrap();
                if self.server.state() == before {
                    self.clients[client].awaited -= 1;
                    return;
                }
                self.version += 1;
                for gateway in 0..self.gateways.len() {
                    let update = (client, update.clone());
                    let version = Mail::Version(gateway, self.version, self.server.text(), update);
                    self.send(Way::Out, gateway, 60, version);
                }
            }
            Mail::Version(gateway, version, text, (by, update)) => {
                self.gateways[gateway].push(version, &text, &update, now).unwrap();
                for client in 0..self.clients.len() {
                    if self.clients[client].gateway == gateway {
                        self.send(Way::Down, client, 700, Mail::Show(client, text.clone(), by));
                    }
                }
            }
            Mail::Show(client, text, by) => {
                let shown = &mut self.clients[client];
                shown.screen = text;
                shown.awaited -= usize::from(by == client);
            }
        }
    }

    /// The client changes the text on its screen.
    fn act(&mut self, client: usize) {
        let screen = self.clients[client].screen.clone();
        let own = |char: &char| self.written.contains(&(client, *char));
        let own: Vec<(usize, char)> = screen.char_indices().filter(|(_, char)| own(char)).collect();
        if self.habit == Habit::FirstDeletesToo && client == 0 && !own.is_empty() && self.throw(2) == 0 {
            let (at, char) = own[self.throw_index(own.len())];
            self.clients[client]
                .screen
                .replace_range(at..at + char.len_utf8(), "");
            return;
        }
        // Of the private use area, each one only once.
        let sign = char::from_u32(0xE000 + u32::try_from(self.inserted.len()).unwrap()).unwrap();
        let (places, text): (Vec<usize>, String) = match self.habit {
            Habit::Paragraphs => {
                let ends = screen.match_indices('\n').map(|(at, _)| at + 1);
                let text = format!("a paragraph of {client}: {sign}\n");
                (std::iter::once(0).chain(ends).collect(), text)
            }
            Habit::Anywhere => {
                let letters = "see the sea ".repeat(1 + self.throw_index(2));
                (places(&screen), format!("{sign}{letters}"))
            }
            Habit::FirstDeletesToo => (places(&screen), sign.to_string()),
        };
        let at = places[self.throw_index(places.len())];
        self.clients[client].screen.insert_str(at, &text);
        self.inserted.push(text);
        self.written.push((client, sign));
    }

    fn send(&mut self, way: Way, whose: usize, at_most: u64, mail: Mail) {
        let arrival = self.now + 1 + self.throw(at_most);
        let last = self.ways.entry((way, whose)).or_default();
        *last = arrival.max(*last);
        let at = *last;
        self.post(at, mail);
    }

    fn post(&mut self, at: u64, mail: Mail) {
        self.sent += 1;
        self.mail.insert((at, self.sent), mail);
    }

    fn throw(&mut self, sides: u64) -> u64 {
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        self.dice % sides
    }

    fn throw_index(&mut self, sides: usize) -> usize {
        usize::try_from(self.throw(sides as u64)).unwrap()
    }
}

fn places(text: &str) -> Vec<usize> {
    text.char_indices()
        .map(|(at, _)| at)
        .chain([text.len()])
        .collect()
}
