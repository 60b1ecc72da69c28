// The front end of "Real-Time Messaging Implementation Summary": a list that `conversation_updated` keeps in order, a
// detail page that joins, and sends over REST whose answer replaces the grayed-out bubble.
import { Page, changed, raised } from './page.mjs';

export class InboxPage extends Page {
  static dialect = 'inbox';

  async start() {
    await this.list();
    this.connect({
      connect: () => this.rejoin(),
      new_message: (message) => this.received(message),
      conversation_updated: ({ conversationId, lastMessage, timestamp, unread }) =>
        this.set(({ rows, open }) => ({
          rows: raised(
            changed(rows, ({ id }) => id === conversationId, {
              preview: lastMessage,
              timestamp,
              unread: conversationId === open ? 0 : unread,
            }),
            ({ id }) => id === conversationId,
          ),
        })),
      typing_start: ({ conversationId, userId }) => this.types(conversationId, userId, [{ userId }]),
      typing_stop: ({ conversationId, userId }) => this.types(conversationId, userId, []),
      error: ({ message }) => this.set({ error: message }),
    });
  }

  async list() {
    const { conversations } = await this.call('GET', '/api/v1/conversations');
    this.set({
      rows: conversations.map(({ id, title, lastMessage, timestamp, unread, participants }) => ({
        id,
        title: title ?? participants.find((one) => (one.userId ?? one.user_id) !== this.me)?.username,
        preview: lastMessage,
        timestamp,
        unread,
      })),
    });
  }

  async chatWith(user) {
    const { id } = await this.call('POST', '/api/v1/conversations/direct', { user_id: user });
    return id;
  }

  async open(id) {
    const { messages } = await this.call('GET', `/api/v1/conversations/${id}/messages`);
    const bubbles = messages.map((message) => this.bubble(message)).sort((one, other) => one.at - other.at);
    this.set({ open: id, error: null, typing: [], bubbles });
    this.set(({ rows }) => ({ rows: changed(rows, (row) => row.id === id, { unread: 0 }) }));
    this.rejoin();
    this.emit('mark_as_read', { conversationId: id });
  }

  async back() {
    this.emit('leave_conversation', this.state.open);
    this.set({ open: null, bubbles: [] });
  }

  rejoin() {
    if (this.state.open !== null) this.emit('join_conversation', this.state.open);
  }

  /** Grayed out at once; the answer takes its place, unless the room brought it first. */
  async send(content) {
    const tempId = `temp-${Date.now()}-${Math.random()}`;
    const { open } = this.state;
    this.set(({ bubbles }) => ({ bubbles: [...bubbles, { id: tempId, text: content, mine: true, pending: true }] }));
    try {
      const sent = this.bubble(await this.call('POST', `/api/v1/conversations/${open}/messages`, { content }));
      // Where the gray one was dismissed meanwhile, the room brings the message.
      const isDrawn = ({ id }) => id === tempId;
      this.set(({ bubbles }) => ({
        bubbles: bubbles.some(isDrawn)
          ? changed(
              bubbles.filter(({ id }) => id !== sent.id),
              isDrawn,
              sent,
            )
          : bubbles,
      }));
    } catch (error) {
      this.set(({ bubbles }) => ({ error: error.message, bubbles: bubbles.filter(({ id }) => id !== tempId) }));
    }
  }

  received(message) {
    const { open, bubbles } = this.state;
    if (message.conversationId !== open) return;
    const mine = message.senderId === this.me;
    // Its own, which the answer has already brought; everything else is appended.
    if (mine && bubbles.some(({ id }) => id === message.id)) return;
    this.set({ bubbles: [...bubbles, this.bubble(message)] });
    if (!mine) this.emit('mark_as_read', { conversationId: open });
  }

  bubble({ id, senderId, content, createdAt }) {
    return { id, text: content, mine: senderId === this.me, from: senderId, at: new Date(createdAt), pending: false };
  }

  types(conversation, userId, added) {
    if (conversation !== this.state.open) return;
    this.set(({ typing }) => ({ typing: [...typing.filter((one) => one.userId !== userId), ...added] }));
  }

  typing(on) {
    this.emit(on ? 'typing_start' : 'typing_stop', { conversationId: this.state.open });
  }
}
