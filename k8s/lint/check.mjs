// Renders every overlay and holds it against Kubernetes' schemas, the CRDs and our own policy; then breaks it in every
// way that matters and holds that this is noticed. `--write` makes what is generated: rendered/ and the copies that
// kustomize needs inside of its root.
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, readdirSync, statSync, writeFileSync } from "node:fs";
import { join, relative } from "node:path";
import yaml from "js-yaml";
import { isCustom, misspelt, problems as valuesOf } from "./crds.mjs";
import { checks } from "./policy.mjs";
import { broken } from "./refused.mjs";
import { validator, versions } from "./schemas.mjs";

const K8S = join(import.meta.dirname, "..");
const ROOT = join(K8S, "..");
const OVERLAYS = ["websocket-only", "dev", "ha"];
const WRITE = process.argv.includes("--write");
const SCHEMAS = process.env.PARLANCE_KUBERNETES_SCHEMAS;

const failures = [];
const fail = (what) => failures.push(what);
const read = (...path) => readFileSync(join(ROOT, ...path), "utf8");

// --- what is generated -----------------------------------------------------------------------------------------

const alerts = yaml.load(read("deploy", "observability", "alerts.yml")).groups;
const rules = {
  apiVersion: "monitoring.coreos.com/v1",
  kind: "PrometheusRule",
  metadata: { name: "parlance" },
  spec: { groups: alerts },
};
generated("k8s/components/monitoring/rules.yaml",
  `# Made from deploy/observability/alerts.yml by k8s/check --write.\n${yaml.dump(rules, { lineWidth: 118, noRefs: true })}`);
generated("k8s/components/nats/nats.conf", read("deploy", "nats.conf"));

function generated(path, content) {
  if (WRITE) writeFileSync(join(ROOT, path), content);
  else if (read(path) !== content) fail(`${path} is out of date: k8s/check --write`);
}

// --- rendering ---------------------------------------------------------------------------------------------------

function files(folder) {
  return readdirSync(folder).flatMap((name) => {
    const path = join(folder, name);
    return statSync(path).isDirectory() ? files(path) : [path];
  });
}

/** What the rendered files were made from, so that stale ones are noticed where no kustomize is. */
function fingerprint() {
  const hash = createHash("sha256");
  for (const path of ["base", "components", "overlays"].flatMap((name) => files(join(K8S, name))).sort()) {
    hash.update(relative(K8S, path)).update("\0").update(readFileSync(path)).update("\0");
  }
  return hash.digest("hex");
}

/** The objects of an overlay as kustomize makes them; null without kustomize. */
function kustomize(overlay) {
  const folder = join(K8S, "overlays", overlay);
  for (const [program, ...words] of [["kustomize", "build"], ["kubectl", "kustomize"]]) {
    try {
      return execFileSync(program, [...words, folder], { encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
    } catch (error) {
      // The kubectl of Debian has a kustomize of 2019, which knows no components.
      const old = /unknown field|invalid Kustomization|json: unknown|Found unknown/i.test(String(error.stderr));
      if (error.code !== "ENOENT" && !(program === "kubectl" && old)) throw new Error(`${overlay}: ${error.stderr ?? error}`);
    }
  }
  return null;
}

const stamp = join(K8S, "rendered", "made-from");
const print = `${fingerprint()}\n`;
if (WRITE) {
  mkdirSync(join(K8S, "rendered"), { recursive: true });
  writeFileSync(stamp, print);
} else if (!existsSync(stamp) || readFileSync(stamp, "utf8") !== print) {
  fail("k8s/rendered is out of date: k8s/check --write");
}
const overlays = Object.fromEntries(OVERLAYS.map((overlay) => {
  const path = join(K8S, "rendered", `${overlay}.yaml`);
  const fresh = kustomize(overlay);
  if (WRITE) {
    if (fresh === null) throw new Error("--write needs kustomize 5 or kubectl 1.27 or later");
    writeFileSync(path, `# k8s/overlays/${overlay}, made by k8s/check --write.\n${fresh}`);
  }
  const kept = existsSync(path) ? readFileSync(path, "utf8") : "";
  const objects = yaml.loadAll(fresh ?? kept).filter(Boolean);
  if (fresh !== null && JSON.stringify(objects) !== JSON.stringify(yaml.loadAll(kept).filter(Boolean))) {
    fail(`k8s/rendered/${overlay}.yaml is not what kustomize makes: k8s/check --write`);
  }
  if (objects.length < 20) fail(`${overlay}: only ${objects.length} objects`);
  return [overlay, objects];
}));

// --- facts -------------------------------------------------------------------------------------------------------

/** Every setting with its default: numbers as numbers, anything else as text. */
function settingsOf(text) {
  const found = new Map();
  let table = "";
  for (const line of text.split("\n")) {
    const header = /^\[([\w.]+)\]$/.exec(line);
    const entry = /^(\w+) = (.*)$/.exec(line);
    if (header) {
      table = header[1];
      // A table without entries takes any.
      found.set(table, "");
    } else if (entry) found.set(`${table}.${entry[1]}`, /^\d+(\.\d+)?$/.test(entry[2]) ? Number(entry[2]) : entry[2]);
  }
  return found;
}

/** The sums in comments above terminationGracePeriodSeconds. */
function sums() {
  return ["base", "components", "overlays"].flatMap((name) => files(join(K8S, name))).flatMap((path) => {
    const lines = readFileSync(path, "utf8").split("\n");
    return lines.flatMap((line, i) => {
      const value = Number(/terminationGracePeriodSeconds: (\d+)/.exec(line)?.[1] ?? NaN);
      if (Number.isNaN(value)) return [];
      let comment = "";
      for (let at = i - 1; /^\s*#/.test(lines[at]); at -= 1) comment = `${lines[at].replace(/^\s*#/, "")} ${comment}`;
      const addends = [...comment.split("=")[0].matchAll(/(?:^|\+)\s*(\d+) /g)].map((match) => Number(match[1]));
      return [{ file: relative(ROOT, path), line: i + 1, value, sum: addends.reduce((a, b) => a + b, 0) }];
    });
  });
}

const facts = {
  alerts,
  outside: JSON.parse(readFileSync(join(import.meta.dirname, "outside.json"), "utf8")),
  settings: {
    gateway: settingsOf(read("services", "gateway", "defaults.toml")),
    persistence: settingsOf(read("services", "persistence", "src", "defaults.toml")),
  },
  metrics: new Set(read("services", "README.md").match(/chat_\w+/g)),
  sums: sums(),
};
for (const [service, known] of Object.entries(facts.settings)) {
  if (known.size < 20) fail(`only ${known.size} settings of the ${service} were found`);
}
if (facts.sums.length < 4) fail("the sums of the grace periods were not found");

// --- checking ----------------------------------------------------------------------------------------------------

const validators = new Map(versions().map((version) => [version, validator(SCHEMAS, version)]));

function schemaProblems(objects, versions = [...validators.keys()]) {
  const plain = objects.filter((object) => !isCustom(object));
  return [
    ...objects.filter(isCustom).flatMap((object) => valuesOf(object).map((what) => `${object.kind}: ${what}`)),
    ...plain.flatMap((object) => versions.flatMap((version) => {
      const found = validators.get(version)(object);
      return found.map((what) => `${object.kind} ${object.metadata.name}: ${what}`);
    })),
  ];
}

for (const [overlay, objects] of Object.entries(overlays)) {
  for (const what of schemaProblems(objects)) fail(`${overlay}: ${what}`);
  for (const [check, look] of Object.entries(checks)) {
    for (const what of look(objects, { ...facts, overlay })) fail(`${overlay}: ${check}: ${what}`);
  }
}

// The compiler sees healthy and broken objects in one go and its findings are assigned by line.
const custom = Object.values(overlays).flat().filter(isCustom);
const samples = broken.map((/** @type {any[]} */ [check, overlay, expected, destroy]) => {
  const objects = structuredClone(overlays[overlay]);
  destroy(objects);
  return { check, overlay, expected, objects };
});
for (const what of misspelt(custom)) fail(what);
const strange = samples.filter(({ check }) => check === "schema").flatMap(({ objects, overlay }) => objects.filter(isCustom)
  .filter((object) => !overlays[overlay].some((healthy) => JSON.stringify(healthy) === JSON.stringify(object))));
const misspellings = misspelt(strange).join("\n");

const tried = new Set();
for (const { check, overlay, expected, objects } of samples) {
  const found = check === "schema"
    ? [...schemaProblems(objects, ["1.30"]), misspellings]
    : checks[check](objects, { ...facts, overlay });
  tried.add(check);
  if (!found.some((what) => expected.test(what))) fail(`broken on purpose and not noticed: ${check} ${expected}; said: ${found.join("; ") || "nothing"}`);
}
for (const check of Object.keys(checks)) if (!tried.has(check)) fail(`no broken sample for the check ${check}`);
const wrong = checks.grace(overlays.ha, { ...facts, overlay: "ha", sums: [{ file: "x", line: 1, value: 90, sum: 80 }] });
if (!wrong.some((what) => what.includes("makes 80"))) fail("a wrong sum is not noticed");

if (failures.length > 0) {
  for (const what of failures) console.error(`  ${what}`);
  console.error(`k8s: ${failures.length} problems`);
  process.exit(1);
}
const count = Object.values(overlays).flat().length;
console.log(`k8s: ${count} objects of ${OVERLAYS.length} overlays hold for ${versions()[0]} to ${versions().at(-1)}; ${broken.length} broken ones are refused`);
