// The front end of "Chat Service" (a support desk): cases with a status between the same users, rooms joined by hand,
// optimistic bubbles whose `tempId` comes back in `message:new`, threads beside the main line, agents.
import { Page, changed } from './page.mjs';

export class ThreadsPage extends Page {
  static dialect = 'threads';

  async start() {
    await this.list();
    this.connect({
      connect: () => this.rejoin(),
      'message:new': (message) => this.received(message),
      'message:edited': ({ _id, content }) =>
        this.set(({ bubbles }) => ({ bubbles: changed(bubbles, ({ id }) => id === _id, { text: content }) })),
      'message:deleted': ({ messageId }) =>
        this.set(({ bubbles }) => ({ bubbles: bubbles.filter(({ id }) => id !== messageId) })),
      'message:error': ({ messageId, error }) =>
        this.set(({ bubbles }) => ({
          error,
          bubbles: changed(bubbles, ({ id }) => id === messageId, { pending: false, failed: true }),
        })),
      'user:typing': ({ userId, isTyping }) =>
        this.set(({ typing }) => {
          const others = typing.filter((one) => one.userId !== userId);
          return { typing: isTyping ? [...others, { userId }] : others };
        }),
      'thread:created': (thread) => this.set(({ threads = [] }) => ({ threads: [...threads, thread] })),
      error: ({ message }) => this.set({ error: message }),
    });
  }

  /** The cases this user takes part in, the latest first. */
  async list(filter = '') {
    const { conversations } = await this.call('GET', `/api/conversations${filter}`);
    const mine = conversations.filter(({ participants }) => participants.includes(this.me));
    const at = ({ lastMessage, createdAt }) => Date.parse(lastMessage?.createdAt ?? createdAt);
    mine.sort((one, other) => at(other) - at(one));
    this.set({ rows: mine.map((one) => this.row(one)) });
  }

  row({ _id, title, status, channel, type, lastMessage }) {
    return { id: _id, title, status, channel: channel ?? type, preview: lastMessage?.content ?? null };
  }

  async chatWith(user, title = 'Support') {
    const { _id } = await this.call('POST', '/api/conversations', { title, participants: [user] });
    return _id;
  }

  async open(id) {
    const { messages } = await this.call('GET', `/api/conversations/${id}/messages`);
    this.show(id, null, messages);
    this.rejoin();
  }

  async openThread(thread) {
    const { open } = this.state;
    const { messages } = await this.call('GET', `/api/conversations/${open}/threads/${thread}`);
    this.show(open, thread, messages);
    this.emit('thread:switch', { conversationId: open, threadId: thread });
  }

  show(open, thread, messages) {
    const sorted = [...messages].sort((one, other) => Date.parse(one.createdAt) - Date.parse(other.createdAt));
    this.set({ open, thread, error: null, typing: [], bubbles: sorted.map((message) => this.bubble(message)) });
  }

  async back() {
    this.emit('conversation:leave', this.state.open);
    this.set({ open: null, bubbles: [] });
    await this.list();
  }

  rejoin() {
    if (this.state.open !== null) this.emit('conversation:join', this.state.open);
  }

  send(content) {
    const tempId = `temp-${Date.now()}-${Math.random()}`;
    this.set(({ bubbles }) => ({ bubbles: [...bubbles, { id: tempId, text: content, mine: true, pending: true }] }));
    const { open, thread } = this.state;
    this.emit('message:send', { conversationId: open, content, tempId, ...(thread && { threadId: thread }) });
  }

  received(message) {
    const { open, thread, bubbles } = this.state;
    if (message.conversationId !== open || (message.threadId ?? null) !== thread) return;
    const bubble = this.bubble(message);
    const known = message.tempId && bubbles.some(({ id }) => id === message.tempId);
    this.set({ bubbles: known ? bubbles.map((one) => (one.id === message.tempId ? bubble : one)) : [...bubbles, bubble] });
  }

  bubble({ _id, senderId, senderType, content }) {
    const [mine, agent] = [senderId === this.me, senderType === 'agent'];
    return { id: _id, text: content, mine, from: senderId, agent, pending: false };
  }

  typing(isTyping) {
    this.emit('typing', { conversationId: this.state.open, isTyping });
  }

  createThread(title) {
    this.emit('thread:create', { conversationId: this.state.open, title });
  }

  async edit(id, content) {
    await this.call('PATCH', `/api/conversations/${this.state.open}/messages/${id}`, { content });
  }

  async remove(id) {
    await this.call('DELETE', `/api/conversations/${this.state.open}/messages/${id}`);
  }

  async update(change) {
    await this.call('PUT', `/api/conversations/${this.state.open}`, change);
  }
}
