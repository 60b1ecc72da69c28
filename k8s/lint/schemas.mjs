// Kubernetes' own object schemas, strict (unknown fields are refused), for every version we promise.
// They come out of the wheel `kubernetes-validate`, which `k8s/check` unpacks; nothing here needs a cluster.
import { readFileSync, readdirSync, existsSync } from "node:fs";
import { join } from "node:path";
import { Ajv2020 } from "ajv/dist/2020.js";

const FIRST = 30;
const LAST = 37;

// What JSON schema alone leaves open; the API server counts these formats as hints as well.
const FORMATS = ["int-or-string", "quantity", "double", "int32", "int64", "date-time", "byte", "duration"];

export function versions() {
  return Array.from({ length: LAST - FIRST + 1 }, (_, i) => `1.${FIRST + i}`);
}

/** A function (object) → problems, for one version such as "1.34". */
export function validator(folder, version) {
  const found = readdirSync(folder)
    .filter((name) => name.startsWith(`v${version}.`) && name.endsWith("-local-strict"))
    .sort();
  if (found.length === 0) throw new Error(`no schemas of Kubernetes ${version} in ${folder}`);
  const home = join(folder, found.at(-1));
  const ajv = new Ajv2020({ strict: false, allErrors: true });
  for (const format of FORMATS) ajv.addFormat(format, true);
  ajv.addSchema(JSON.parse(readFileSync(join(home, "_definitions.json"), "utf8")), "/api/_definitions.json");
  const compiled = new Map();
  return (object) => {
    const name = fileOf(object);
    if (!compiled.has(name)) {
      const path = join(home, name);
      compiled.set(name, existsSync(path) ? ajv.compile(JSON.parse(readFileSync(path, "utf8"))) : null);
    }
    const check = compiled.get(name);
    if (!check) return [`${object.apiVersion} ${object.kind} is unknown to Kubernetes ${version}`];
    if (check(object)) return [];
    return check.errors.map(
      (error) => `Kubernetes ${version}: ${error.instancePath} ${error.message} ${said(error.params)}`,
    );
  };
}

function fileOf({ apiVersion, kind }) {
  const [group, version] = apiVersion.includes("/") ? apiVersion.split("/") : ["", apiVersion];
  return `${[kind.toLowerCase(), group.split(".")[0], version].filter(Boolean).join("-")}.json`;
}

function said(params) {
  return params.additionalProperty ?? params.allowedValues?.join(", ") ?? "";
}
