// What promtool says of deploy/observability, and what it does not know: that each alert is tested both ways, has its
// place in the runbook, and asks for metrics that exist. Then rules and cases are broken, and that must be noticed.
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import yaml from "js-yaml";

const ROOT = join(import.meta.dirname, "..", "..");
const HOME = join(ROOT, "deploy", "observability");
const PROMTOOL = process.env.PARLANCE_PROMTOOL;
const failures = [];
const fail = (what) => failures.push(what);

/** Nothing, or what promtool has against it. */
function promtool(...words) {
  try {
    execFileSync(PROMTOOL, words, { cwd: HOME, encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
    return "";
  } catch (error) {
    return `${error.stdout ?? ""}${error.stderr ?? ""}` || String(error);
  }
}

const rules = yaml.load(readFileSync(join(HOME, "alerts.yml"), "utf8"));
const cases = yaml.load(readFileSync(join(HOME, "alerts.test.yml"), "utf8"));
const dashboard = JSON.parse(readFileSync(join(HOME, "grafana", "dashboards", "parlance.json"), "utf8"));
const runbook = readFileSync(join(ROOT, "deploy", "README.md"), "utf8");
const known = new Set(readFileSync(join(ROOT, "services", "README.md"), "utf8").match(/chat_\w+/g));
const alerts = rules.groups.flatMap((group) => group.rules);
const expressions = dashboard.panels.flatMap((panel) => (panel.targets ?? []).map((target) => [panel.title, target.expr]));

for (const words of [["check", "config", "prometheus.yml"], ["check", "rules", "alerts.yml"], ["test", "rules", "alerts.test.yml"]]) {
  const said = promtool(...words);
  if (said) fail(`promtool ${words.join(" ")}: ${said}`);
}

// --- alerts ---

function untested(tests) {
  return alerts.flatMap(({ alert }) => {
    const own = tests.flatMap((test) => test.alert_rule_test ?? []).filter((test) => test.alertname === alert);
    const raised = own.some((test) => (test.exp_alerts ?? []).length > 0);
    const quiet = own.some((test) => (test.exp_alerts ?? []).length === 0);
    return [...(raised ? [] : [`${alert}: no case raises it`]), ...(quiet ? [] : [`${alert}: no case leaves it quiet`])];
  });
}

function unexplained(text) {
  const anchors = new Set([...text.matchAll(/^#+ (.+)$/gm)].map(([, title]) => title.toLowerCase().replace(/[^\w -]/g, "").replaceAll(" ", "-")));
  return alerts.flatMap((/** @type {any} */ { alert, annotations = {} }) => {
    const { summary, description, runbook_url: url = "" } = annotations;
    const [page, anchor] = url.split("#");
    return [
      ...(summary && description ? [] : [`${alert}: no summary or description`]),
      ...(page.endsWith("/deploy/README.md") && anchors.has(anchor) ? [] : [`${alert}: ${url} is no place in deploy/README.md`]),
    ];
  });
}

function unheard(texts) {
  return texts.flatMap(([where, text]) => (text.match(/chat_\w+/g) ?? [])
    .filter((name) => !known.has(name) && !known.has(name.replace(/_(bucket|sum|count)$/, "")))
    .map((name) => `${where}: services/README.md knows no ${name}`));
}

for (const what of [...untested(cases.tests), ...unexplained(runbook)]) fail(what);
for (const what of unheard([...expressions, ...alerts.map(({ alert, expr }) => [alert, expr])])) fail(what);
if (alerts.length < 20 || expressions.length < 30) fail(`only ${alerts.length} alerts and ${expressions.length} expressions were found`);

// --- dashboard ---

const work = mkdtempSync(join(tmpdir(), "parlance-alerts-"));
try {
  /** What promtool has against these expressions. */
  const parsed = (list) => {
    const group = { name: "dashboard", rules: list.map(([, expr], i) => ({ record: `panel:${i}`, expr })) };
    const path = join(work, "dashboard.yml");
    writeFileSync(path, yaml.dump({ groups: [group] }));
    return promtool("check", "rules", path);
  };
  const said = parsed(expressions);
  if (said) fail(`dashboard: ${said}`);
  if (!parsed([["broken", "sum(rate(chat_gateway_rooms[1m]"]])) fail("a broken expression is not noticed");

  // Rules that always, and that never, raise: every alert must fall out of one of its cases.
  for (const [expr, which] of [["vector(1)", "quiet"], ["vector(0) > 1", "raised"]]) {
    const broken = structuredClone(rules);
    for (const rule of broken.groups.flatMap((group) => group.rules)) {
      rule.expr = expr;
      delete rule.for;
    }
    writeFileSync(join(work, "alerts.yml"), yaml.dump(broken));
    const tests = cases.tests.filter(({ name }) => name.endsWith(` ${which}`));
    writeFileSync(join(work, "cases.yml"), yaml.dump({ ...cases, tests }));
    const said = promtool("test", "rules", join(work, "cases.yml"));
    for (const { alert } of alerts) {
      if (!said.includes(`name: ${alert} ${which},`)) fail(`${alert}: its cases do not notice ${expr}`);
    }
  }
} finally {
  rmSync(work, { recursive: true, force: true });
}

// --- the checks themselves ---

if (untested(cases.tests.slice(1)).length !== 1) fail("a missing case is not noticed");
if (unexplained(runbook.replace(`# ${alerts[0].alert}`, "# Something")).length !== 1) fail("a missing place in the runbook is not noticed");
if (unheard([["x", "rate(chat_gateway_typos_total[1m])"]]).length !== 1) fail("an unknown metric is not noticed");

if (failures.length > 0) {
  for (const what of failures) console.error(`  ${what}`);
  console.error(`alerts: ${failures.length} problems`);
  process.exit(1);
}
console.log(`alerts: ${alerts.length} alerts with ${cases.tests.length} cases, ${expressions.length} expressions of the dashboard`);
