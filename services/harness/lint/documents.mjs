// Holds the documents: every link within the repository leads to a file, and to a heading where it names one; worked
// examples name texts that exist; the README stays short enough to be read.
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import { ROOT, tracked } from './files.mjs';

const README_LINES = 150;
const problems = [];

/** @param {string} path */
function anchors(path) {
  const text = readFileSync(join(ROOT, path), 'utf8').replace(/^```[\s\S]*?^```/gm, '');
  /** @type {Map<string, number>} */
  const seen = new Map();
  return new Set(
    [...text.matchAll(/^#+ +(.*)$/gm)].map(([, heading]) => {
      const slug = heading
        .replace(/\[([^\]]*)\]\([^)]*\)/g, '$1')
        .toLowerCase()
        .replace(/[^\p{L}\p{N}\p{M}_ -]/gu, '')
        .replace(/ /g, '-');
      const times = seen.get(slug) ?? 0;
      seen.set(slug, times + 1);
      return times ? `${slug}-${times}` : slug;
    }),
  );
}

for (const path of tracked().filter((path) => path.endsWith('.md'))) {
  const text = readFileSync(join(ROOT, path), 'utf8').replace(/^```[\s\S]*?^```/gm, '');
  for (const [, target] of text.matchAll(/\]\(([^)\s]+)\)/g)) {
    if (/^[a-z]+:/.test(target)) continue;
    const [file, anchor] = target.split('#');
    const place = file ? normalize(join(dirname(path), file)).replace(/\/$/, '') : path;
    if (!existsSync(join(ROOT, place))) problems.push(`${path}: ${target} leads nowhere`);
    else if (anchor && !(place.endsWith('.md') && anchors(place).has(anchor)))
      problems.push(`${path}: ${target} names no heading`);
  }
}

// Worked examples: a link, a colon and a text that the file contains.
const guide = readFileSync(join(ROOT, 'CONTRIBUTING.md'), 'utf8');
for (const [, path, text] of guide.matchAll(/\]\(([^)#]+)\): `([^`]+)`/g)) {
  if (!readFileSync(join(ROOT, path), 'utf8').includes(text)) problems.push(`CONTRIBUTING.md: ${path} has no \`${text}\``);
}

// The table of invariants: each path in it exists, from one of the folders that it is read from.
const ALIASES = { it: 'services/harness/tests/it', js: 'services/harness/js/tests' };
const FOLDERS = [
  'services',
  'services/gateway/src',
  'services/persistence/src',
  'services/persistence/src/ingest',
  'services/harness',
  '.',
];

/**
 * @param {string} path
 * @returns {string[]}
 */
function expanded(path) {
  const found = /^([^{]*)\{([^}]*)\}(.*)$/.exec(path);
  if (!found) return [path];
  return found[2].split(',').flatMap((part) => expanded(found[1] + part + found[3]));
}

const services = readFileSync(join(ROOT, 'services', 'README.md'), 'utf8');
const [, table = ''] = /\n## Invariants.*?\n([\s\S]*?)\n## /.exec(services) ?? [];
const rows = table
  .split('\n')
  .filter((line) => line.startsWith('| '))
  .slice(2);
if (rows.length < 50) problems.push(`services/README.md: ${rows.length} invariants`);
for (const row of rows) {
  const [, , where, held] = row.split(' | ').flatMap((cell, index) => (index === 0 ? ['', cell] : [cell]));
  for (const [, path] of `${where} ${held}`.matchAll(/`([\w.{},-]*(?:\/|\.rs)[\w.{},/-]*)`/g)) {
    for (const one of expanded(path)) {
      const [first, ...rest] = one.split('/');
      const places = first in ALIASES ? [join(ALIASES[first], ...rest)] : FOLDERS.map((folder) => join(folder, one));
      if (!places.some((place) => existsSync(join(ROOT, place))))
        problems.push(`services/README.md: ${path} is nowhere (${one})`);
    }
  }
}

// A semicolon ends a statement of Mermaid, in the middle of a text too: the picture would not be drawn.
for (const path of tracked().filter((path) => path.endsWith('.md'))) {
  for (const [, picture] of readFileSync(join(ROOT, path), 'utf8').matchAll(/^```mermaid\n([\s\S]*?)^```/gm)) {
    for (const line of picture.split('\n').filter((line) => line.includes(';')))
      problems.push(`${path}: Mermaid ends at ";": ${line.trim()}`);
  }
}

const lines = readFileSync(join(ROOT, 'README.md'), 'utf8').trimEnd().split('\n').length;
if (lines >= README_LINES) problems.push(`README.md has ${lines} lines, of fewer than ${README_LINES}`);

if (problems.length > 0) {
  console.error(problems.join('\n'));
  process.exit(1);
}
