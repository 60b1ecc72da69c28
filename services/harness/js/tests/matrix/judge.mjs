// Carries one row of the authorisation matrix out for everyone, each in a fresh place, and judges every cell:
// the answer, and what came of it.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after } from 'node:test';
import { now } from '../../client.mjs';
import { nothing } from './effects.mjs';
import { INSIDERS, OUTSIDERS, look, nowhere, place } from './world.mjs';

/** What a cell's letter stands for. */
const LETTERS = {
  y: 'ok',
  n: 'forbidden',
  '-': 'invalid',
  '.': 'not_found',
};
const count = { ok: 0, refused: 0 };
const [part, parts] = (process.env.PARLANCE_PART ?? '1/1').split('/').map(Number);

/** The rows that this run judges: PARLANCE_PART=2/3 is every third, from the second on. */
export const ofThisPart = (rows) => rows.filter((_, index) => index % parts === part - 1);

after(() => console.log(`${count.ok + count.refused} cells, ${count.refused} of them refusals`));

/** Counts a cell that was judged elsewhere. */
export const counts = (code) => (count[code === 'ok' ? 'ok' : 'refused'] += 1);

/** The rows of a table must be the operations of the contract, no more and no fewer. */
export function assertComplete(rows, operations) {
  assert.ok(operations.length > 0);
  assert.deepEqual([...new Set(rows)].sort(), [...new Set(operations)].sort());
}

export const contract = (name) =>
  JSON.parse(readFileSync(new URL(`../../../../gateway/contract/${name}`, import.meta.url), 'utf8'));

/** What an answer says about a place, with the names of nothing in their stead. */
function masked(answer, at, nothingThere) {
  let text = JSON.stringify(answer);
  for (const name of Object.keys(nothingThere)) {
    if (at[name] !== undefined) text = text.replaceAll(String(at[name]), String(nothingThere[name]));
  }
  return JSON.parse(text);
}

async function inside(row, column, letter) {
  const at = await place(column, row);
  await row.before?.(at);
  const was = await look(at);
  const { code, answer } = await row.attempt(at);
  const what = `${at.role}: ${JSON.stringify(answer)?.slice(0, 300)}`;
  assert.equal(code, letter === 'y' ? 'ok' : (row.refusal?.[letter] ?? LETTERS[letter]), what);
  const is = await look(at);
  try {
    const effect = letter === 'y' ? (row.effect ?? nothing) : nothing;
    await effect(was, is, at, answer);
    await row.after?.(at, letter === 'y');
  } catch (error) {
    error.message = `${at.role}: ${error.message}`;
    throw error;
  }
  counts(code);
}

async function outside(row, column) {
  const at = await place(column, row);
  await row.before?.(at);
  const [was, gone] = [await look(at), nowhere()];
  const about = await row.attempt(at);
  const aboutNothing = await row.attempt({ ...at, ...gone });
  const what = `${at.role} of a ${at.kind}: ${JSON.stringify(about.answer)?.slice(0, 300)}`;
  assert.equal(about.code, row.outsiders ?? 'not_found', what);
  assert.ok(!JSON.stringify(about.answer)?.includes(at.secret), what);
  const is = await look(at);
  nothing(was, is);
  if (row.effect && about.code === 'ok') await row.effect(was, is, at, about.answer);
  else assert.deepEqual(masked(about.answer, at, gone), masked(aboutNothing.answer, at, gone), what);
  await row.after?.(at, false);
  counts(about.code);
}

/**
 * Judges all cells of a row. `cells` has a letter for each of INSIDERS; `attempt(at)` resolves with
 * `{code, answer}`, code being `ok` or that of the failure. Outsiders get what they get about a place that does
 * not exist: `not_found`, or what `outsiders` says. `roles`: the insiders that are tried, all by default.
 */
export async function judge(row) {
  assert.equal(row.cells.length, INSIDERS.length, `cells of ${row.name}`);
  const tried = INSIDERS.map((column, index) => [column, row.cells[index]]);
  await Promise.all([
    ...tried.filter(([[role]]) => row.roles?.includes(role) ?? true).map(([column, letter]) => inside(row, column, letter)),
    ...(row.noOutsiders ? [] : OUTSIDERS.map((column) => outside(row, column))),
  ]);
}

/** A token that was good a minute ago. */
export const expired = { exp: now() - 60 };
