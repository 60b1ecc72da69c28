// Users of the five front ends: each has a network that can fail and any number of tabs. Checks ask for what
// is drawn; nothing here knows an event.
import assert from 'node:assert/strict';
import { randomBytes, randomUUID } from 'node:crypto';
import { eventually, gateways, token, transport } from '../../client.mjs';
import { ChatsPage } from '../../frontends/chats.mjs';
import { EncryptedPage } from '../../frontends/encrypted.mjs';
import { InboxPage } from '../../frontends/inbox.mjs';
import { JournalPage } from '../../frontends/journal.mjs';
import { Network } from '../../frontends/network.mjs';
import { ThreadsPage } from '../../frontends/threads.mjs';

/** `bare`: REST is asked without naming a dialect, as by a page whose fetch nobody configured. */
const restDialect = process.env.PARLANCE_FRONTENDS_REST !== 'bare';
const transports = { websocket: ['websocket'], polling: ['polling'], default: ['polling', 'websocket'] }[transport];
const entrances = process.env.PARLANCE_BALANCER?.split(',') ?? gateways;
const all = new Set();
let turn = 0;

const number = () => Math.floor(Math.random() * 2 ** 46) + 1_000_000;

/** Each front end, and a user as its tokens name one. */
export const FRONT_ENDS = {
  journal: { Page: JournalPage, user: number, claims: (userId, username) => ({ userId, username }) },
  encrypted: { Page: EncryptedPage, user: randomUUID, claims: (userId, username) => ({ userId, username }) },
  chats: { Page: ChatsPage, user: randomUUID, claims: (id, username) => ({ id, username }) },
  threads: { Page: ThreadsPage, user: () => randomBytes(12).toString('hex'), claims: (_id, name) => ({ _id, name }) },
  inbox: { Page: InboxPage, user: randomUUID, claims: (id, name) => ({ id, name }) },
};

export class Person {
  tabs = [];

  constructor(frontEnd, name, more = {}) {
    const { Page, user, claims } = FRONT_ENDS[frontEnd];
    this.Page = Page;
    this.name = name;
    this.id = user();
    this.network = new Network(entrances, turn++);
    this.token = token(undefined, { name: undefined, ...claims(this.id, name), ...more });
    all.add(this);
  }

  /** Another device of the same person, on a network of its own. */
  device() {
    const own = { tabs: [], network: new Network(entrances, turn++) };
    const device = Object.assign(Object.create(Person.prototype), this, own);
    all.add(device);
    return device;
  }

  /** A new tab, logged in and connected; in that conversation if one is named. */
  async opens(conversation) {
    if (!this.network.listening) await this.network.up();
    const { url } = this.network;
    const page = new this.Page(this.id, { url, token: this.token, dialect: this.Page.dialect, transports, restDialect });
    this.tabs.push(page);
    await page.start();
    await eventually(`${this.name}'s page is connected`, () => page.socket.connected);
    if (conversation !== undefined) await page.open(conversation);
    return page;
  }

  /** Closes all tabs. */
  leaves() {
    for (const page of this.tabs.splice(0)) page.close();
  }

  /** Reloads the tab: what the store held is gone. */
  async reloads(conversation) {
    this.leaves();
    return this.opens(conversation);
  }

  /**
   * The network fails and comes back; resolves once the page is connected again. `meanwhile` happens in between. What is
   * on its way when a line breaks is neither surely lost nor surely drawn, so it fails when nothing is.
   */
  async blips(page, meanwhile = async () => {}) {
    await this.network.quiet();
    this.network.down();
    await eventually(`${this.name}'s page notices`, () => !page.socket.connected);
    await meanwhile();
    await this.network.up();
    await eventually(`${this.name}'s page is back`, () => page.socket.connected, 30_000);
  }
}

/** Two users of a front end who chat, both with the conversation open. */
export async function pair(frontEnd) {
  const [alice, bob] = [new Person(frontEnd, 'Alice'), new Person(frontEnd, 'Bob')];
  // Both have logged in before.
  for (const one of [alice, bob]) await one.reloads();
  const conversation = await alice.tabs[0].chatWith(bob.id);
  const [a, b] = [await alice.reloads(conversation), await bob.reloads(conversation)];
  // Nothing on the page says when a room is entered: what is written until both show it is the first bubble.
  await settled(a, b);
  return { alice, bob, conversation, a, b };
}

let marks = 0;
/** Writes until a message of each is drawn by both, so that later ones find everybody listening. */
async function settled(a, b) {
  for (const [from, to] of [
    [a, b],
    [b, a],
  ]) {
    const text = `mark ${++marks}`;
    await from.send(text);
    await eventually('both see the first messages', () => texts(from).includes(text) && texts(to).includes(text));
  }
}

/** What is written on the bubbles, from top to bottom. */
export const texts = (page) => page.state.bubbles.map(({ text }) => text);

/** Waits until exactly these bubbles are drawn, and none is left pending. */
export const shows = (page, expected, what = 'the bubbles') =>
  eventually(what, () => {
    assert.deepEqual(texts(page), expected);
    assert.deepEqual(
      page.state.bubbles.filter(({ pending, failed }) => pending || failed),
      [],
    );
    return true;
  });

export const row = (page, id) => page.state.rows.find((one) => one.id === id);

/** Sends and waits until it is drawn as sent, and by the others. */
export async function says(page, text, ...others) {
  await page.send(text);
  for (const one of [page, ...others]) {
    await eventually(`"${text}" is drawn`, () => one.state.bubbles.some((drawn) => drawn.text === text && !drawn.pending));
  }
}

/** The same text never twice: what nobody expects is given a moment to come, by a later message that does. */
export async function quiet(from, to, expected) {
  const text = `last ${++marks}`;
  await says(from, text);
  await shows(to, [...expected, text], 'nothing but the last message was added');
  return [...expected, text];
}

/** Ends everything. */
export function closeAll() {
  for (const one of all) {
    one.leaves();
    one.network.down();
  }
}
