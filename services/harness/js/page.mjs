// A page with the CodeMirror example in it, in a document of jsdom's; as a program it stays open and shows a cursor.
import { JSDOM } from 'jsdom';

const WINDOW = ['document', 'window', 'Window', 'MutationObserver', 'Node', 'HTMLElement', 'Range', 'getSelection', 'DOMRect'];

/** What CodeMirror measures and jsdom does not have. */
function completed(window) {
  const nowhere = { left: 0, right: 0, top: 0, bottom: 0, width: 0, height: 0 };
  window.Range.prototype.getClientRects = () => [];
  window.Range.prototype.getBoundingClientRect = () => nowhere;
  window.requestAnimationFrame ??= (draw) => setTimeout(draw, 16);
  window.cancelAnimationFrame ??= clearTimeout;
  return window;
}

// CodeMirror and lib0 take the document from the globals; one for all pages of a process.
const { window } = new JSDOM('<body></body>', { pretendToBeVisual: true });
completed(window);
for (const name of WINDOW) globalThis[name] ??= window[name];
const { openJournal } = await import('./examples/codemirror.mjs');

/** Opens a journal in an editor of its own. */
export async function page(url, token, id) {
  const parent = document.body.appendChild(document.createElement('div'));
  const journal = openJournal(url, token, id, parent);
  const { view, socket } = journal;
  return {
    shown: () => view.state.doc.toString(),
    types: (insert, at) => view.dispatch({ changes: { from: at, insert } }),
    /** The names at the cursors of others. */
    names: () => [...parent.querySelectorAll('.cm-ySelectionInfo')].map((one) => one.textContent),
    selects: (anchor) => {
      view.focus();
      view.dispatch({ selection: { anchor } });
    },
    cut: () => socket.io.engine.close(),
    close: journal.close,
  };
}

if (process.argv[1] === import.meta.filename) {
  process.on('disconnect', () => process.exit());
  const one = await page(...process.argv.slice(2));
  const shown = setInterval(() => {
    if (one.shown() === '') return;
    clearInterval(shown);
    one.selects(1);
  }, 50);
}
