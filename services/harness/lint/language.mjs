// Holds the terms of this project: one idea, one word. Each rule names a word that readers would not recognise and the
// term to use instead. Occurrences that are older than this check are counted per file in language-allowed.json; a count
// may only fall. `--write` takes over lower counts, and refuses higher ones.
//
// Comments, string literals and documents are prose. The rest of a source is names: those change with the code they name.
import { readFileSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { ROOT, tracked } from './files.mjs';

/**
 * @typedef {object} Rule
 * @property {string} not what should not be written
 * @property {string} say what to write instead
 * @property {RegExp} prose
 * @property {RegExp} [name] one part of an identifier
 * @property {RegExp} [only] paths for which the rule holds
 */

/** @type {Rule[]} */
const RULES = [
  {
    not: 'tell',
    say: 'deliver to a session, publish to the bus, emit an event, notify a user, report; distinguish',
    prose: /\b(un)?(tell|tells|told|telling|teller)\b/gi,
    name: /^(un)?(tell|tells|told|telling|teller)$/,
  },
  { not: 'let hear', say: 'deliver, notify', prose: /\blets? (\w+ )?hear\b/gi },
  { not: 'vocabulary', say: 'dialect', prose: /\bvocabular(y|ies)\b/gi, name: /^vocabular(y|ies)$/ },
  {
    not: 'own words',
    say: 'dialect; an event or a field of it',
    prose: /\b(in (its|their) own words?|ha(s|ve) (a|no) words? for|without (a|any) words? for)\b/gi,
  },
  {
    not: 'whoever',
    say: 'session, user, member, participant; "a client that …"',
    prose: /\b(whoever|somebody)\b/gi,
    name: /^(whoever|somebody)$/,
  },
  { not: 'stranger', say: 'non-member, unauthenticated client', prose: /\bstrangers?\b/gi, name: /^strangers?$/ },
  { not: 'people', say: 'users, members, operators', prose: /\bpeople\b/gi, name: /^people$/ },
  { not: 'who is', say: 'presence; the user, the member; "users that …"', prose: /\bwho (is|it is)\b/gi },
  { not: 'is seen', say: 'presence; appears', prose: /\b(is|are) seen\b/gi },
  { not: 'anew', say: 'again; resync, start over', prose: /\banew\b/gi, name: /^anew$/ },
  { not: 'hole', say: 'gap', prose: /\bholes?\b/gi, name: /^holes?$/ },
  { not: 'what was missed', say: 'gap, catch-up, backfill', prose: /\bwhat (was|is|they|it|he|she) missed\b/gi },
  { not: 'how far', say: 'position, head, cursor, watermark', prose: /\bhow far\b/gi },
  {
    not: 'hand over',
    say: 'takeover, rebalance, fencing',
    prose: /\b(hand(s|ed|ing)?[ -]?over|taken by another|shar(e|es|ed|ing) out)\b/gi,
    name: /^handover$/,
  },
  {
    not: 'heap up',
    say: 'queue depth, back-pressure, in flight',
    prose: /\b(heap(s|ed)? up|(wait|waits|waiting) in line|too many come at once)\b/gi,
  },
  {
    not: 'culprit',
    say: 'poison command, quarantine, dead letter',
    prose: /\b(culprits?|can never be carried out)\b/gi,
    name: /^culprits?$/,
  },
  { not: 'send away', say: 'drain', prose: /\b((send|sends|sent|sending) (away|elsewhere)|lets? go)\b/gi },
  {
    not: 'let in',
    say: 'admit; connection limit, admission control',
    prose: /\b(lets?|letting) (\w+ )?in(?= ?[.,;:)]|$)/gim,
  },
  { not: 'rob', say: 'failure injection: kill, pause, partition, degrade', prose: /\b(rob|robs|robbed|robbing)\b/gi },
  { not: 'question', say: 'query', prose: /\bquestions?\b/gi, name: /^questions?$/ },
  { not: 'letter', say: 'notice', prose: /(?<!dead[ -])\bletters?\b/gi },
  {
    not: 'answer',
    say: 'reply; confirmation of a command',
    prose: /\banswer(s|ed|ing)?\b/gi,
    name: /^answer(s|ed|ing)?$/,
    only: /^(proto|services\/bus)\//,
  },
  {
    not: 'news',
    say: 'event, notice',
    prose: /\bnews\b/gi,
    name: /^news$/,
    only: /^(proto|services\/(bus|gateway|persistence))\//,
  },
];

/** Made by programs, fixed by checksums or by others, or about the words themselves. */
const NOT_OURS =
  /(^LICENSE|^CONTRIBUTING\.md$|^Cargo\.lock|^migrations\/.*\.sql|package-lock\.json|\/(fixtures|snapshots|corpus|rendered|contract)\/|\.(lock|txt|snap|bin|jsonl)$|language(-allowed\.json|\.mjs)$)/;
const DOCUMENT = /\.(md|toml|ya?ml|sql|proto|conf|cfg|env|json|css|html|sh|py)$|^[^.]*$|^\.[a-z.]+$/;

const ALLOWED = join(import.meta.dirname, 'language-allowed.json');

/**
 * Splits a source into prose and names, both with their lines kept.
 * @param {string} text
 * @param {string} language its suffix
 */
function split(text, language) {
  const strings =
    language === 'rs'
      ? String.raw`r(#+)".*?"\1|"(?:\\.|[^"\\])*"`
      : String.raw`()'(?:\\.|[^'\\\n])*'|"(?:\\.|[^"\\\n])*"|${'`'}(?:\\.|[^${'`'}\\])*${'`'}`;
  const parts = new RegExp(String.raw`//[^\n]*|/\*.*?\*/|${strings}`, 'gs');
  const blank = (/** @type {string} */ part) => part.replace(/[^\n]/g, ' ');
  let prose = '';
  let end = 0;
  for (const part of text.matchAll(parts)) {
    prose += blank(text.slice(end, part.index)) + part[0];
    end = part.index + part[0].length;
  }
  return { prose: prose + blank(text.slice(end)), names: text.replace(parts, blank) };
}

/** @param {string} identifier */
const parts = (identifier) =>
  identifier
    .replace(/([a-z0-9])([A-Z])/g, '$1_$2')
    .toLowerCase()
    .split('_');

/**
 * @param {string} path
 * @returns {Map<string, number[]>} lines by rule and kind
 */
function occurrences(path) {
  const text = readFileSync(join(ROOT, path), 'utf8');
  const source = /\.(rs|mjs)$/.exec(path)?.[1];
  const { prose, names } = source ? split(text, source) : { prose: text, names: '' };
  /** @type {Map<string, number[]>} */
  const found = new Map();
  const note = (/** @type {string} */ key, /** @type {number} */ line) => {
    const lines = found.get(key);
    if (lines) lines.push(line);
    else found.set(key, [line]);
  };
  const line = (/** @type {string} */ within, /** @type {number} */ index) => within.slice(0, index).split('\n').length;
  const identifiers = [...names.matchAll(/[A-Za-z_][A-Za-z0-9_]*/g)];
  for (const rule of RULES.filter(({ only }) => !only || only.test(path))) {
    for (const match of prose.matchAll(rule.prose)) note(`${rule.not}, prose`, line(prose, match.index));
    const { name } = rule;
    if (!name) continue;
    for (const match of identifiers)
      if (parts(match[0]).some((part) => name.test(part))) note(`${rule.not}, names`, line(names, match.index));
    if (parts(basename(path).replace(/\..*/, '')).some((part) => name.test(part))) note(`${rule.not}, names`, 0);
  }
  return found;
}

const files = tracked().filter((path) => !NOT_OURS.test(path) && (/\.(rs|mjs)$/.test(path) || DOCUMENT.test(basename(path))));
/** @type {Record<string, Record<string, number>>} */
const allowed = JSON.parse(readFileSync(ALLOWED, 'utf8'));
/** @type {typeof allowed} */
const present = {};
const problems = [];
const lowered = [];
for (const path of files) {
  const found = occurrences(path);
  const keys = new Set([...found.keys(), ...Object.keys(allowed[path] ?? {})]);
  for (const key of [...keys].sort()) {
    const lines = found.get(key) ?? [];
    const most = allowed[path]?.[key] ?? 0;
    if (lines.length > 0) {
      present[path] ??= {};
      present[path][key] = lines.length;
    }
    const rule = RULES.find(({ not }) => not === key.split(', ')[0]);
    if (lines.length > most)
      problems.push(
        `${path}: "${rule?.not}" ${lines.length} times where ${most} are left (line ${lines.join(', ')}); say: ${rule?.say}`,
      );
    if (lines.length < most) lowered.push(`${path}: "${key}" ${lines.length}, not ${most}`);
  }
}
lowered.push(...Object.keys(allowed).filter((path) => !files.includes(path)));

const sum = (/** @type {typeof allowed} */ counts) =>
  Object.values(counts)
    .flatMap((file) => Object.values(file))
    .reduce((all, count) => all + count, 0);
if (process.argv.includes('--write')) {
  // Files are moved and split: their counts move with them, the sum may not grow. --raise is for merges alone.
  if (sum(present) > sum(allowed) && !process.argv.includes('--raise')) {
    console.error(`${problems.join('\n')}\nlanguage: ${sum(present)} occurrences, ${sum(allowed)} before: the sum may only fall`);
    process.exit(1);
  }
  writeFileSync(ALLOWED, `${JSON.stringify(present, null, 2)}\n`);
  console.log(`language: ${sum(allowed)} → ${sum(present)} occurrences left`);
} else if (problems.length > 0) {
  console.error(`${problems.join('\n')}\nlanguage: ${problems.length} new occurrences; the terms stand in CONTRIBUTING.md`);
  process.exit(1);
} else if (lowered.length > 0) {
  console.error(`${lowered.join('\n')}\nlanguage: fewer than are left: node services/harness/lint/language.mjs --write`);
  process.exit(1);
}
