// A journal in CodeMirror, with everybody's cursors and names, over the stock Socket.IO client. 40 lines.
import { EditorView } from '@codemirror/view';
import { io } from 'socket.io-client';
import { yCollab } from 'y-codemirror.next';
import { Awareness, applyAwarenessUpdate, encodeAwarenessUpdate, removeAwarenessStates } from 'y-protocols/awareness';
import * as Y from 'yjs';
const base64 = (bytes) => btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(''));
const bytes = (text) => Uint8Array.from(atob(text), (char) => char.charCodeAt(0));

export function openJournal(url, token, journal_id, parent, color = '#30bced', refused = console.warn) {
  const doc = new Y.Doc(), awareness = new Awareness(doc), text = doc.getText('content');
  const socket = io(url, { auth: { token, dialect: 'native' } });
  let isJoined = false, isEdited = false, retrying, sharing;
  const asks = (event, more) => socket.timeout(15_000).emitWithAck(event, { journal_id, ...more }).catch(() => ({}));
  const edit = async (update) => { // What is not stored is part of the next difference.
    const { ok, error } = await asks('journal:edit', { update: base64(update) });
    if (!ok) error?.retry === false ? refused(error) : (retrying ??= setTimeout(join, 1_000));
  };
  const join = async () => { // Both sides send what the other lacks.
    retrying = undefined;
    const { ok, journal } = await asks('journal:join', { state_vector: base64(Y.encodeStateVector(doc)) });
    if (!ok) return socket.connected && (retrying ??= setTimeout(join, 1_000));
    isJoined = true;
    Y.applyUpdate(doc, bytes(journal.update), socket);
    if (isEdited) edit(Y.encodeStateAsUpdate(doc, bytes(journal.state_vector)));
    share();
  };
  const shareNow = () => isJoined && socket.emit('journal:awareness', { journal_id, update: base64(encodeAwarenessUpdate(awareness, [doc.clientID])) });
  const share = () => (sharing ??= setTimeout(() => { sharing = undefined; shareNow(); }, 100)); // Ten times a second at most.
  const renewal = setInterval(() => awareness.setLocalState(awareness.getLocalState()), 5_000); // Gone after 12 s without.
  const others = () => [...awareness.getStates().keys()].filter((client) => client !== doc.clientID);
  socket.on('connect', join).on('disconnect', () => removeAwarenessStates(awareness, others(), (isJoined = false)));
  socket.on('journal:updated', (one) => one.journal_id === journal_id && Y.applyUpdate(doc, bytes(one.update), socket));
  socket.on('journal:awareness', (one) => one.journal_id === journal_id && applyAwarenessUpdate(awareness, bytes(one.update), socket));
  doc.on('update', (update, origin) => origin !== socket && (isEdited = true) && isJoined && edit(update));
  awareness.on('update', ({ added, updated, removed }) => [added, updated, removed].flat().includes(doc.clientID) && share());
  awareness.setLocalStateField('user', { color }); // The server adds id and name.
  const view = new EditorView({ extensions: [yCollab(text, awareness)], parent });
  return { view, socket, close: () => [clearInterval(renewal), socket.disconnect(), awareness.destroy(), view.destroy()] };
}
