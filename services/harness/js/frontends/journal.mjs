// The front end of "Chat Service Internals": direct chats whose bubbles appear when `receiveMessage` brings them, a
// double check mark once they are read, and shared journals. It only ever appends. Its document has no REST; list and
// history are read where other front ends have them, in the columns of its tables.
import { Page, changed } from './page.mjs';

export class JournalPage extends Page {
  static dialect = 'journal';

  async start() {
    await this.list();
    this.connect({
      connect: () => this.rejoin(),
      receiveMessage: (message) => this.received(message),
      messageUpdated: ({ messageIds, read_status }) =>
        this.set(({ bubbles }) => ({
          bubbles: changed(bubbles, ({ id }) => messageIds.includes(id), { read: read_status }),
        })),
      messageError: ({ error, details }) => this.set({ error: details ? `${error}: ${details}` : error }),
      journalUpdate: ({ content }) => this.set({ journal: content }),
    });
  }

  async list() {
    const { conversations } = await this.call('GET', '/api/conversations');
    this.set({
      rows: conversations.map(({ conversation_id, user1_id, user2_id, unread }) => ({
        id: conversation_id,
        title: `user ${user1_id === this.me ? user2_id : user1_id}`,
        unread,
      })),
    });
  }

  /** Starts the chat with another user. */
  async chatWith(user) {
    const { conversation_id } = await this.call('POST', '/api/conversations/direct?ensure=true', { user_id: user });
    return conversation_id;
  }

  async open(id) {
    const { messages } = await this.call('GET', `/api/conversations/${id}/messages`);
    const bubbles = messages.map((message) => this.bubble(message));
    this.set({ open: id, error: null, bubbles: bubbles.sort((one, other) => one.at - other.at) });
    this.rejoin();
    this.read(messages);
  }

  async back() {
    this.set({ open: null, bubbles: [] });
    await this.list();
  }

  rejoin() {
    const { open, journalId } = this.state;
    if (open !== null) this.emit('joinRoom', open);
    if (journalId) this.emit('joinJournal', journalId);
  }

  send(content) {
    this.emit('sendMessage', { conversationId: this.state.open, senderId: this.me, content });
  }

  received(message) {
    if (message.conversation_id !== this.state.open) return;
    this.set(({ bubbles }) => ({ bubbles: [...bubbles, this.bubble(message)] }));
    this.read([message]);
  }

  read(messages) {
    const unread = messages.filter(({ sender_id, read_status }) => sender_id !== this.me && !read_status);
    const messageIds = unread.map(({ message_id }) => message_id);
    if (messageIds.length > 0) this.emit('markAsRead', { conversationId: this.state.open, messageIds });
  }

  bubble({ message_id, sender_id, content, timestamp, read_status, message_type, metadata }) {
    const share = message_type === 'journal_share' ? { journal: metadata.journalId } : {};
    const mine = sender_id === this.me;
    return { id: message_id, text: content, mine, from: sender_id, at: new Date(timestamp), read: read_status, ...share };
  }

  async openJournal(id) {
    const { content } = await this.call('GET', `/api/journals/${id}`);
    this.set({ journalId: id, journal: content });
    this.rejoin();
  }

  writeJournal(content) {
    this.set({ journal: content });
    this.emit('journalEdit', { journalId: this.state.journalId, content });
  }
}
