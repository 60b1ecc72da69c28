// The front end of "WebSocket-Based Chat Backend Architecture": chats that are joined by the server, and a badge that
// counts each `message:new` of a chat that is not open. Its own messages appear when they come back.
import { Page, changed, raised } from './page.mjs';

export class ChatsPage extends Page {
  static dialect = 'chats';

  async start() {
    await this.list();
    this.connect({
      'message:new': (message) => this.received(message),
      'message:read': ({ messageId, userId }) => {
        if (userId === this.me) return;
        this.set(({ bubbles }) => ({ bubbles: changed(bubbles, ({ id }) => id === messageId, { read: true }) }));
      },
      'typing:start': ({ chatId, userId, username }) => this.types(chatId, userId, [{ userId, name: username }]),
      'typing:stop': ({ chatId, userId }) => this.types(chatId, userId, []),
      'user:status': ({ userId, status }) => this.set(({ online }) => ({ online: { ...online, [userId]: status === 'online' } })),
      error: ({ message }) => this.set({ error: message }),
    });
  }

  async list() {
    const { conversations } = await this.call('GET', '/api/conversations');
    this.set({
      rows: conversations.map(({ id, title, unread, lastMessage, participants }) => ({
        id,
        title: title ?? participants.find((one) => one.id !== this.me)?.username,
        preview: lastMessage?.content ?? null,
        unread,
      })),
    });
  }

  async chatWith(user) {
    const { id } = await this.call('POST', '/api/conversations/direct?ensure=true', { user_id: user });
    return id;
  }

  async open(id) {
    const { messages } = await this.call('GET', `/api/conversations/${id}/messages`);
    const sorted = [...messages].sort((one, other) => Date.parse(one.created_at) - Date.parse(other.created_at));
    this.set({ open: id, error: null, typing: [], bubbles: sorted.map((message) => this.bubble(message)) });
    this.set(({ rows }) => ({ rows: changed(rows, (row) => row.id === id, { unread: 0 }) }));
    const last = sorted.findLast(({ sender }) => sender.id !== this.me);
    if (last) this.emit('message:read', { messageId: last.id, chatId: id });
  }

  async back() {
    this.set({ open: null, bubbles: [] });
  }

  send(content) {
    this.emit('message:send', { chatId: this.state.open, content, messageType: 'text' });
  }

  received(message) {
    const { id, chat_id, content, sender } = message;
    const counts = chat_id !== this.state.open && sender.id !== this.me;
    this.set(({ rows }) => ({
      rows: raised(
        changed(
          rows,
          (row) => row.id === chat_id,
          ({ unread }) => ({ preview: content, unread: unread + (counts ? 1 : 0) }),
        ),
        (row) => row.id === chat_id,
      ),
    }));
    if (chat_id !== this.state.open) return;
    this.set(({ bubbles }) => ({ bubbles: [...bubbles, this.bubble(message)] }));
    if (sender.id !== this.me) this.emit('message:read', { messageId: id, chatId: chat_id });
  }

  bubble({ id, content, sender, created_at }) {
    return { id, text: content, mine: sender.id === this.me, from: sender.username, at: new Date(created_at) };
  }

  types(chat, userId, added) {
    if (chat !== this.state.open) return;
    this.set(({ typing }) => ({ typing: [...typing.filter((one) => one.userId !== userId), ...added] }));
  }

  typing(on) {
    this.emit(on ? 'typing:start' : 'typing:stop', { chatId: this.state.open });
  }
}
