// Objects of other controllers: values by the validators that @kubernetes-models make from the CRDs, unknown fields
// by the same packages' types, because most CRDs say nothing about those.
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { BackendTLSPolicy, HTTPRoute } from "@kubernetes-models/gateway-api/gateway.networking.k8s.io/v1";
import { ScaledObject } from "@kubernetes-models/keda/keda.sh/v1alpha1";
import { PrometheusRule, ServiceMonitor } from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1";

const KINDS = {
  BackendTLSPolicy: [BackendTLSPolicy, "@kubernetes-models/gateway-api/gateway.networking.k8s.io/v1"],
  HTTPRoute: [HTTPRoute, "@kubernetes-models/gateway-api/gateway.networking.k8s.io/v1"],
  PrometheusRule: [PrometheusRule, "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1"],
  ScaledObject: [ScaledObject, "@kubernetes-models/keda/keda.sh/v1alpha1"],
  ServiceMonitor: [ServiceMonitor, "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1"],
};
const HERE = import.meta.dirname;

export function isCustom(object) {
  const model = KINDS[object.kind]?.[0];
  return model !== undefined && model.apiVersion === object.apiVersion;
}

/** Problems of values. */
export function problems(object) {
  try {
    new KINDS[object.kind][0](structuredClone(object)).validate();
    return [];
  } catch (error) {
    return [error.message];
  }
}

/** Problems of names, of all objects at once because the compiler takes a second to begin. */
export function misspelt(objects) {
  const lines = objects.map((object, i) => {
    const [, module] = KINDS[object.kind];
    return `import type { I${object.kind} as T${i} } from "${module}";\nexport const o${i}: T${i} = ${JSON.stringify(object)};`;
  });
  const folder = mkdtempSync(join(HERE, ".types-"));
  try {
    writeFileSync(join(folder, "objects.ts"), lines.join("\n"));
    const options = ["--noEmit", "--strict", "--skipLibCheck", "--target", "es2022"];
    const modules = ["--module", "nodenext", "--moduleResolution", "nodenext"];
    const compiler = join(HERE, "node_modules", "typescript", "bin", "tsc");
    execFileSync(process.execPath, [compiler, ...options, ...modules, join(folder, "objects.ts")], { stdio: "pipe" });
    return [];
  } catch (error) {
    const text = String(error.stdout ?? error);
    return text.split("\n").filter((line) => line.includes("error TS")).map((line) => {
      const at = Number(/objects\.ts\((\d+),/.exec(line)?.[1] ?? 0);
      const object = objects[Math.floor((at - 1) / 2)];
      return `${object?.kind}: ${line.replace(/^.*error /, "")}`;
    });
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
