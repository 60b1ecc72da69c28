//! Clients, gateways and persistence, and the messages between them.

use std::collections::VecDeque;

use parlance_journal::{Budget, Document, Versions, WholeTextSession, Writer};

pub struct Settings {
    gateways: usize,
    /// Clients of whole texts.
    whole: usize,
    /// Yjs clients.
    crdt: usize,
    /// Whether whole-text clients join; others edit, but are emitted nothing.
    joins: bool,
    /// Whether some versions are not emitted, because the next one is before long.
    is_paced: bool,
    begins_with: String,
}

/// One client: a text area, or a Yjs document.
struct Client {
    gateway: usize,
    /// Messages sent.
    sent: u64,
    shows: String,
    document: Option<Document>,
    session: Option<WholeTextSession>,
    /// Whether the newest version is yet to be emitted to it.
    is_owed: bool,
    to_gateway: VecDeque<ToGateway>,
    to_client: VecDeque<ToClient>,
    words: Vec<String>,
}

enum ToGateway {
    Text(u64, String),
    Update(u64, Vec<u8>),
}

enum ToClient {
    Text(String),
    Update(Vec<u8>),
}

struct Gateway {
    versions: Versions,
    /// Commands on their way to persistence: each from this client.
    commands: VecDeque<(usize, Vec<u8>)>,
}

/// What must hold of one text in the end.
struct Expected {
    text: String,
    client: usize,
    /// The message of the client that inserts or deletes it.
    sent_with: u64,
    is_received: bool,
    /// Whether it may be lost: a command with it was lost, or a client deleted it.
    may_lack: bool,
    /// Whether a client that was sent it deleted it for sure.
    is_deleted: bool,
}

pub struct World {
    random: fastrand::Rng,
    settings: Settings,
    present: Document,
    /// Updates of all versions, the first one first; they are numbered from 1.
    log: Vec<Vec<u8>>,
    gateways: Vec<Gateway>,
    clients: Vec<Client>,
    expected: Vec<Expected>,
    writers: u64,
    characters: u32,
}

impl Settings {
    pub fn one_writer(random: &mut fastrand::Rng) -> Self {
        Self {
            gateways: 1,
            whole: 1,
            crdt: 0,
            joins: random.bool(),
            is_paced: random.bool(),
            begins_with: String::new(),
        }
    }

    pub fn two_writers(random: &mut fastrand::Rng) -> Self {
        Self {
            gateways: random.usize(1..3),
            whole: 2,
            crdt: 0,
            joins: true,
            is_paced: random.bool(),
            begins_with: "0: \n1: \n".to_owned(),
        }
    }

    pub fn calm(random: &mut fastrand::Rng) -> Self {
        Self {
            gateways: random.usize(1..3),
            whole: random.usize(1..4),
            crdt: random.usize(0..3),
            joins: true,
            is_paced: random.bool(),
            begins_with: (0..12).map(|_| format!("old: {}\n", words(random))).collect(),
        }
    }

    pub fn faulty(random: &mut fastrand::Rng) -> Self {
        Self {
            gateways: 2,
            ..Self::calm(random)
        }
    }
}

impl Client {
    /// It is emitted the newest version, if that is to be.
    fn receives(&mut self, versions: &Versions) {
        self.is_owed = false;
        let session = self.session.as_mut();
        if session.is_some_and(|session| session.emits(versions.newest(), versions)) {
            let text = versions.text().to_string();
            self.to_client.push_back(ToClient::Text(text));
        }
    }
}

/// Three words that stand nowhere else.
fn words(random: &mut fastrand::Rng) -> String {
    (0..17)
        .map(|at| if at % 6 == 5 { ' ' } else { random.lowercase() })
        .collect()
}

impl World {
    pub fn new(settings: Settings, seed: u64) -> Self {
        let mut present = Document::new(Writer::new(u64::MAX));
        present
            .rewrite(&settings.begins_with, &mut Budget::EDIT.clone())
            .unwrap();
        let checkpoint = present.checkpoint();
        let versions = || Versions::new(1, &checkpoint).unwrap();
        let gateways = (0..settings.gateways)
            .map(|_| Gateway {
                versions: versions(),
                commands: VecDeque::new(),
            })
            .collect();
        let mut world = Self {
            random: fastrand::Rng::with_seed(seed ^ 0x9e37_79b9_7f4a_7c15),
            present,
            log: vec![checkpoint.clone()],
            gateways,
            clients: Vec::new(),
            expected: Vec::new(),
            writers: 0,
            characters: 0,
            settings,
        };
        for n in 0..world.settings.whole + world.settings.crdt {
            let is_whole = n < world.settings.whole;
            let writer = world.writer();
            let joined = match world.settings.joins {
                true => WholeTextSession::joined(1),
                false => WholeTextSession::resumed(0),
            };
            world.clients.push(Client {
                gateway: n % world.settings.gateways,
                sent: 0,
                shows: world.settings.begins_with.clone(),
                document: (!is_whole).then(|| Document::load([&checkpoint], writer).unwrap()),
                session: is_whole.then_some(joined),
                is_owed: false,
                to_gateway: VecDeque::new(),
                to_client: VecDeque::new(),
                words: Vec::new(),
            });
        }
        world
    }

    fn writer(&mut self) -> Writer {
        self.writers += 1;
        Writer::new(self.writers << 20)
    }

    pub fn text(&self) -> String {
        self.present.text()
    }

    /// The client's text area holds another text now; it sends that.
    pub fn show(&mut self, client: usize, text: &str) {
        let client = &mut self.clients[client];
        client.sent += 1;
        match &mut client.document {
            None => client
                .to_gateway
                .push_back(ToGateway::Text(client.sent, text.to_owned())),
            Some(document) => {
                // A Yjs client writes the exact change; the diff stands for its editor binding.
                let edit = document.rewrite(text, &mut Budget::EDIT.clone()).unwrap();
                let updates = edit.map(|edit| ToGateway::Update(client.sent, edit.update));
                client.to_gateway.extend(updates);
            }
        }
        client.shows = text.to_owned();
    }

    fn any_client(&mut self) -> usize {
        self.random.usize(..self.clients.len())
    }

    fn expect(&mut self, client: usize, text: &str) {
        self.expected.push(Expected {
            text: text.to_owned(),
            client,
            sent_with: self.clients[client].sent + 1,
            is_received: false,
            may_lack: false,
            is_deleted: false,
        });
    }

    pub fn insert_paragraph(&mut self) {
        let n = self.any_client();
        let paragraph = format!("client {n}: {}\n", words(&mut self.random));
        let mut lines: Vec<&str> = self.clients[n].shows.split_inclusive('\n').collect();
        lines.insert(self.random.usize(..=lines.len()), &paragraph);
        let text = lines.concat();
        self.expect(n, &paragraph);
        self.show(n, &text);
    }

    /// Each of the first paragraphs has one client that may delete it.
    pub fn delete_old_paragraph(&mut self) {
        let n = self.any_client();
        let old = self
            .settings
            .begins_with
            .split_inclusive('\n')
            .skip(n)
            .step_by(self.clients.len());
        let shown: Vec<_> = old
            .filter(|old| self.clients[n].shows.contains(*old))
            .map(str::to_owned)
            .collect();
        if shown.is_empty() {
            return;
        }
        let old = &shown[self.random.usize(..shown.len())];
        let text = self.clients[n].shows.replace(old.as_str(), "");
        self.expect(n, old);
        if let Some(expected) = self.expected.last_mut() {
            expected.is_deleted = true;
        }
        self.show(n, &text);
    }

    /// A character that stands nowhere else, between any two.
    pub fn type_character(&mut self) {
        let n = self.any_client();
        self.characters += 1;
        let typed = char::from_u32(0x4e00 + self.characters).unwrap().to_string();
        let mut text = self.clients[n].shows.clone();
        let places: Vec<usize> = text
            .char_indices()
            .map(|(at, _)| at)
            .chain([text.len()])
            .collect();
        text.insert_str(places[self.random.usize(..places.len())], &typed);
        self.expect(n, &typed);
        self.show(n, &text);
    }

    /// At the end of the client's own line; or the last word there is corrected.
    pub fn type_word_in_own_paragraph(&mut self) {
        let n = self.any_client();
        let shows = self.clients[n].shows.clone();
        let end = shows
            .find(&format!("{n}: "))
            .and_then(|at| Some(at + shows[at..].find('\n')?))
            .unwrap();
        let word: String = (0..8).map(|_| self.random.lowercase()).chain([' ']).collect();
        let before = self.clients[n].words.pop();
        let corrects = before
            .as_ref()
            .is_some_and(|last| shows[..end].ends_with(last.as_str()));
        let text = match &before {
            Some(last) if corrects && self.random.bool() => {
                let corrected = self.expected.iter_mut().rfind(|expected| &expected.text == last);
                let corrected = corrected.unwrap();
                (corrected.is_deleted, corrected.is_received) = (true, false);
                corrected.sent_with = self.clients[n].sent + 1;
                [&shows[..end - last.len()], &word, &shows[end..]].concat()
            }
            _ => [&shows[..end], &word, &shows[end..]].concat(),
        };
        self.clients[n].words.push(word.clone());
        self.expect(n, &word);
        self.show(n, &text);
    }

    /// Some of the messages that are on their way arrive.
    pub fn run(&mut self, messages: usize) {
        for _ in 0..messages {
            self.step();
        }
    }

    fn step(&mut self) {
        let client = self.any_client();
        let gateway = self.random.usize(..self.gateways.len());
        match self.random.usize(0..4) {
            0 => self.client_to_gateway(client),
            1 => self.gateway_to_persistence(gateway),
            2 => self.persistence_to_gateway(gateway),
            _ => self.gateway_to_client(client),
        };
    }

    fn client_to_gateway(&mut self, n: usize) -> bool {
        let Some(message) = self.clients[n].to_gateway.pop_front() else {
            return false;
        };
        let writer = self.writer();
        let client = &mut self.clients[n];
        let gateway = &mut self.gateways[client.gateway];
        let received = match message {
            ToGateway::Update(number, update) => {
                gateway.commands.push_back((n, update));
                number
            }
            ToGateway::Text(number, text) => {
                let session = client.session.as_mut().unwrap();
                let budget = &mut Budget::EDIT.clone();
                let edit = session.edit(&text, &gateway.versions, writer, budget).unwrap();
                if let Some(update) = edit.update {
                    gateway.commands.push_back((n, update));
                } else if !edit.is_exact {
                    let newest = gateway.versions.text().to_string();
                    client.to_client.push_back(ToClient::Text(newest));
                }
                number
            }
        };
        let of_client = self.expected.iter_mut().filter(|expected| expected.client == n);
        of_client.for_each(|expected| expected.is_received |= expected.sent_with <= received);
        true
    }

    fn gateway_to_persistence(&mut self, gateway: usize) -> bool {
        let Some((_, update)) = self.gateways[gateway].commands.pop_front() else {
            return false;
        };
        self.store(&update);
        true
    }

    fn store(&mut self, update: &[u8]) {
        let before = self.present.checkpoint();
        self.present.apply(update, u64::MAX).unwrap();
        if self.present.checkpoint() != before {
            self.log.push(update.to_vec());
        }
    }

    fn persistence_to_gateway(&mut self, n: usize) -> bool {
        let gateway = &mut self.gateways[n];
        let number = gateway.versions.newest() + 1;
        let Some(update) = self.log.get(usize::try_from(number).unwrap() - 1) else {
            return false;
        };
        gateway.versions.push(number, update).unwrap();
        let is_held_back = self.settings.is_paced && self.random.u8(0..3) > 0;
        for client in self.clients.iter_mut().filter(|client| client.gateway == n) {
            match &mut client.session {
                Some(_) if !self.settings.joins => {}
                Some(_) if is_held_back => client.is_owed = true,
                Some(_) => client.receives(&gateway.versions),
                None => client.to_client.push_back(ToClient::Update(update.clone())),
            }
        }
        true
    }

    fn gateway_to_client(&mut self, n: usize) -> bool {
        let client = &mut self.clients[n];
        match client.to_client.pop_front() {
            None => return false,
            Some(ToClient::Text(text)) => client.shows = text,
            Some(ToClient::Update(update)) => {
                let document = client.document.as_mut().unwrap();
                document.apply(&update, u64::MAX).unwrap();
                client.shows = document.text();
            }
        }
        true
    }

    /// A client loses its connection, with what is on its way, and goes on at any gateway with what it shows.
    pub fn reconnect(&mut self) {
        let n = self.any_client();
        let gateway = self.random.usize(..self.gateways.len());
        self.connect(n, gateway, false);
    }

    fn connect(&mut self, n: usize, gateway: usize, is_crash: bool) {
        let client = &mut self.clients[n];
        client.to_client.clear();
        let lost = std::mem::take(&mut client.to_gateway);
        if !lost.is_empty() {
            let unsure = self.expected.iter_mut().filter(|expected| expected.client == n);
            unsure.for_each(|expected| expected.may_lack |= !expected.is_received);
        }
        let unstored = client
            .session
            .as_ref()
            .and_then(|session| session.unstored().unwrap());
        let former = client.gateway;
        match unstored {
            // The gateway publishes what it accepted, also after the client has gone.
            Some(update) if !is_crash => self.gateways[former].commands.push_back((n, update)),
            Some(_) => {
                let unsure = self.expected.iter_mut().filter(|expected| expected.client == n);
                unsure.for_each(|expected| expected.may_lack = true);
            }
            None => {}
        }
        self.clients[n].gateway = gateway;
        // The barrier: what the client's former gateway published comes first.
        for gateway in 0..self.gateways.len() {
            while self.gateway_to_persistence(gateway) {}
        }
        while self.persistence_to_gateway(gateway) {}
        let (client, versions) = (&mut self.clients[n], &self.gateways[gateway].versions);
        if client.session.is_some() {
            let mut session = WholeTextSession::resumed(0);
            session.emits(versions.newest(), versions);
            client.session = Some(session);
            client.is_owed = false;
            client.to_client.clear();
            client
                .to_client
                .push_back(ToClient::Text(versions.text().to_string()));
        } else if let Some(document) = &mut client.document {
            // Yjs sync, both ways.
            let missing = versions.document().diff_since(&document.state_vector()).unwrap();
            document.apply(&missing, u64::MAX).unwrap();
            client.shows = document.text();
            let unsent = document.diff_since(&versions.document().state_vector()).unwrap();
            client.to_client.clear();
            client
                .to_gateway
                .push_back(ToGateway::Update(client.sent, unsent));
        }
    }

    /// A gateway dies: its commands are published or not, its clients go elsewhere.
    pub fn crash_gateway(&mut self) {
        let n = self.random.usize(..self.gateways.len());
        if self.random.bool() {
            self.lose_commands_of(n, true);
        }
        while self.gateway_to_persistence(n) {}
        let survivor = (n + 1) % self.gateways.len();
        for client in 0..self.clients.len() {
            if self.clients[client].gateway == n {
                self.connect(client, survivor, true);
            }
        }
    }

    /// The bus loses commands of one gateway, which publishes them again with the next edit or when asked to.
    pub fn lose_commands(&mut self) {
        let n = self.random.usize(..self.gateways.len());
        self.lose_commands_of(n, false);
    }

    fn lose_commands_of(&mut self, gateway: usize, for_good: bool) {
        let lost: Vec<_> = self.gateways[gateway].commands.drain(..).collect();
        for (client, update) in lost {
            if self.clients[client].document.is_some() {
                // A Yjs client has its command confirmed, or sends it again.
                self.gateways[gateway].commands.push_back((client, update));
            } else if for_good {
                let unsure = self
                    .expected
                    .iter_mut()
                    .filter(|expected| expected.client == client);
                unsure.for_each(|expected| expected.may_lack = true);
            }
        }
    }

    /// Everything arrives that is on its way.
    pub fn settle(&mut self) {
        let mut is_moving = true;
        while is_moving {
            is_moving = false;
            for client in 0..self.clients.len() {
                while self.client_to_gateway(client) {}
                let gateway = self.clients[client].gateway;
                let session = self.clients[client].session.as_ref();
                let unstored = session.and_then(|session| session.unstored().unwrap());
                self.gateways[gateway]
                    .commands
                    .extend(unstored.map(|update| (client, update)));
            }
            for gateway in 0..self.gateways.len() {
                while self.gateway_to_persistence(gateway) {}
            }
            for gateway in 0..self.gateways.len() {
                while self.persistence_to_gateway(gateway) {
                    is_moving = true;
                }
            }
            for client in 0..self.clients.len() {
                while self.gateway_to_client(client) {}
            }
        }
        // Everyone pauses.
        for client in &mut self.clients {
            let versions = &self.gateways[client.gateway].versions;
            if client.is_owed {
                client.receives(versions);
                while let Some(ToClient::Text(text)) = client.to_client.pop_front() {
                    client.shows = text;
                }
            }
            let Some(session) = client
                .session
                .as_mut()
                .filter(|session| session.is_behind(versions))
            else {
                continue;
            };
            session.shows_newest(versions);
            client.shows = versions.text().to_string();
        }
    }

    pub fn check(&self) {
        let text = self.text();
        for expected in &self.expected {
            let count = text.matches(&expected.text).count();
            let right = match expected {
                Expected { may_lack: true, .. }
                | Expected {
                    is_received: false, ..
                } => count <= 1,
                Expected { is_deleted: true, .. } => count == 0,
                _ => count == 1,
            };
            assert!(
                right,
                "{:?} of {} is there {count} times in {text:?}",
                expected.text, expected.client
            );
        }
        for gateway in &self.gateways {
            assert_eq!(**gateway.versions.text(), text);
        }
        for client in &self.clients {
            assert_eq!(client.shows, text);
        }
    }
}
