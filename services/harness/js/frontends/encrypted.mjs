// The front end of "Real-Time Chat Feature": a store keyed by message id, ciphertext, statuses, presence, optimistic
// sends that the acknowledgement confirms. It joins nothing, and its backfill must come unasked.
import { Page } from './page.mjs';

const encrypt = (text) => Buffer.from(text).toString('base64');
const decrypt = (content) => (content == null ? content : Buffer.from(content, 'base64').toString());

export class EncryptedPage extends Page {
  static dialect = 'encrypted';
  messagesById = {};
  messageIds = [];
  statuses = {};

  async start() {
    await this.list();
    this.connect({
      connect: () => {
        this.set({ offline: false });
        this.emit('presence:online');
      },
      disconnect: () => this.set({ offline: true }),
      'chat:message_received': (message) => this.received(message),
      'chat:message_status_updated': ({ messageId, status, userId }) => {
        (this.statuses[messageId] ??= {})[userId] = status;
        this.draw();
      },
      'user:status_changed': ({ userId, status }) =>
        this.set(({ online }) => ({ online: { ...online, [userId]: status === 'online' } })),
      'chat:user_typing': ({ userId, username, isTyping }) =>
        this.set(({ typing }) => {
          const others = typing.filter((one) => one.userId !== userId);
          return { typing: isTyping ? [...others, { userId, name: username }] : others };
        }),
    });
  }

  async list() {
    const { conversations } = await this.call('GET', '/api/conversations');
    this.set({ rows: conversations.map((one) => this.row(one)) });
  }

  row({ id, type, title, last_message, participants }) {
    const others = participants.filter(({ user_id }) => user_id !== this.me).map(({ username }) => username);
    const title_ = type === 'direct' ? (title ?? others[0]) : title;
    const preview = last_message ? decrypt(last_message.content_encrypted) : null;
    return { id, type, title: title_, preview, previewMine: last_message?.sender_id === this.me };
  }

  /** Starts a direct chat, or finds it: the conflict carries it. */
  async chatWith(user) {
    const { id } = await this.call('POST', '/api/conversations/direct', { user_id: user });
    return id;
  }

  async open(id) {
    const { messages } = await this.call('GET', `/api/messages/${id}?limit=50&offset=0`);
    this.set({ open: id, error: null, typing: [] });
    this.messageIds = [];
    const sorted = [...messages].sort((one, other) => Date.parse(one.created_at) - Date.parse(other.created_at));
    for (const message of sorted) {
      for (const { user_id, status } of message.statuses) (this.statuses[message.id] ??= {})[user_id] = status;
      this.add(message);
      if (message.sender_id !== this.me) this.emit('chat:message_read', { messageId: message.id });
    }
  }

  async back() {
    this.set({ open: null, bubbles: [] });
    await this.list();
  }

  /** Shows it at once, then as what the server made of it; a refusal takes it away and is shown. */
  async send(text) {
    const tempId = `temp-${Date.now()}-${Math.random()}`;
    const { open: conversationId } = this.state;
    const contentEncrypted = encrypt(text);
    this.add({ id: tempId, sender_id: this.me, content_encrypted: contentEncrypted, created_at: new Date() });
    const sent = this.socket.emitWithAck('chat:message_send', { conversationId, contentEncrypted });
    const response = await sent.catch(({ message }) => ({ success: false, error: message }));
    delete this.messagesById[tempId];
    if (response.success) {
      this.messagesById[response.message.id] = response.message;
      this.messageIds = this.messageIds.map((id) => (id === tempId ? response.message.id : id));
    } else {
      this.messageIds = this.messageIds.filter((id) => id !== tempId);
      this.set({ error: response.error });
    }
    this.draw();
  }

  received(message) {
    this.emit('chat:message_delivered', { messageId: message.id });
    if (message.conversation_id !== this.state.open) return;
    this.add(message);
    this.emit('chat:message_read', { messageId: message.id });
  }

  /** Keyed by id: one that is known is replaced. */
  add(message) {
    if (!this.messageIds.includes(message.id)) this.messageIds.push(message.id);
    this.messagesById[message.id] = message;
    this.draw();
  }

  draw() {
    const bubbles = this.messageIds.map((id) => {
      const { sender_id, content_encrypted } = this.messagesById[id];
      const mine = sender_id === this.me;
      const pending = id.startsWith('temp-');
      return { id, text: decrypt(content_encrypted), mine, from: sender_id, pending, ticks: this.ticks(id) };
    });
    this.set({ bubbles });
  }

  /** The least that all recipients have; of one recipient simply its status. */
  ticks(id) {
    const all = Object.values(this.statuses[id] ?? {});
    return ['sent', 'delivered', 'read'].find((status) => all.includes(status)) ?? 'sent';
  }

  typing(isTyping) {
    this.emit('chat:typing', { conversationId: this.state.open, isTyping });
  }

  async edit(id, text) {
    await this.call('PATCH', `/api/messages/${id}`, { content_encrypted: encrypt(text) });
    this.messagesById[id] = { ...this.messagesById[id], content_encrypted: encrypt(text) };
    this.draw();
  }

  async remove(id) {
    await this.call('DELETE', `/api/messages/${id}`);
    this.messageIds = this.messageIds.filter((one) => one !== id);
    this.draw();
  }
}
