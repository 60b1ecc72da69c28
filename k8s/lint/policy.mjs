// What no schema knows: whether the objects of an overlay fit together, and whether they do what the runbook says.
// Each check is a function (overlay, facts) → problems; refused.mjs has a broken overlay for every one of them.
import { isDeepStrictEqual } from "node:util";

const OURS = { gateway: /(^|\/)parlance-gateway(:|$)/, persistence: /(^|\/)parlance-persistence(:|$)/ };
const WORKLOADS = ["Deployment", "StatefulSet", "Job"];
/** Memory of one idle websocket, measured. */
const IDLE_WEBSOCKET = 27.1 * 1024;
/** What a gateway may take after its last client: presence's good-bye, traces, the last acknowledgements. */
const FLUSH_MS = 4000;

export const checks = {
  restricted,
  probes,
  grace,
  selectors,
  services,
  phases,
  references,
  secrets,
  images,
  settings,
  files,
  streams,
  resources,
  rollout,
  scaling,
  disruption,
  network,
  monitoring,
};

const name = (object) => `${object.kind} ${object.metadata.name}`;
const of = (overlay, ...kinds) => overlay.filter((object) => kinds.includes(object.kind));
const workloads = (overlay) => of(overlay, ...WORKLOADS);
const pod = (workload) => workload.spec.template.spec;
const podLabels = (workload) => workload.spec.template.metadata.labels ?? {};
const containers = (workload) => [...(pod(workload).initContainers ?? []), ...pod(workload).containers];
const serviceOf = (container) => Object.keys(OURS).find((service) => OURS[service].test(container.image));
const runs = (workload) => workload.kind !== "Job";

function selects(selector, labels) {
  const wanted = selector.matchLabels ?? {};
  const rules = selector.matchExpressions ?? [];
  return Object.entries(wanted).every(([key, value]) => labels[key] === value)
    && rules.every(({ key, operator, values }) => operator === "In" && values.includes(labels[key]));
}

/** The variables of a container with what is known of their values. */
function variables(container, overlay) {
  const found = {};
  for (const { configMapRef } of container.envFrom ?? []) {
    const map = configMapRef && of(overlay, "ConfigMap").find((m) => m.metadata.name === configMapRef.name);
    Object.assign(found, map?.data);
  }
  for (const { name, value } of container.env ?? []) found[name] = value ?? null;
  return found;
}

function setting(container, overlay, facts, key) {
  const service = serviceOf(container);
  const variable = `PARLANCE_${key.replaceAll(".", "_").toUpperCase()}`;
  return variables(container, overlay)[variable] ?? facts.settings[service].get(key);
}

/** Pod Security "restricted", and a root file system nobody can write to. */
function restricted(overlay) {
  const problems = [];
  for (const workload of workloads(overlay)) {
    const spec = pod(workload);
    const say = (what) => problems.push(`${name(workload)}: ${what}`);
    const context = spec.securityContext ?? {};
    if (context.runAsNonRoot !== true || !(context.runAsUser > 0)) say("must run as a numbered user other than root");
    if (context.seccompProfile?.type !== "RuntimeDefault") say("seccompProfile must be RuntimeDefault");
    if (spec.automountServiceAccountToken !== false) say("must not mount an account's token");
    for (const key of ["hostNetwork", "hostPID", "hostIPC"]) if (spec[key]) say(`${key} is forbidden`);
    if ((spec.volumes ?? []).some((volume) => volume.hostPath)) say("hostPath is forbidden");
    for (const container of containers(workload)) {
      const own = container.securityContext ?? {};
      if (own.allowPrivilegeEscalation !== false) say(`${container.name} may gain privileges`);
      if (own.privileged) say(`${container.name} is privileged`);
      if (own.runAsUser === 0 || own.runAsNonRoot === false) say(`${container.name} runs as root`);
      if (own.readOnlyRootFilesystem !== true) say(`${container.name} has a writable root file system`);
      if (!own.capabilities?.drop?.includes("ALL")) say(`${container.name} keeps capabilities`);
      if ((own.capabilities?.add ?? []).length > 0) say(`${container.name} adds capabilities`);
    }
  }
  for (const space of of(overlay, "Namespace")) {
    if (space.metadata.labels?.["pod-security.kubernetes.io/enforce"] !== "restricted") {
      problems.push(`${name(space)} does not enforce "restricted"`);
    }
  }
  return problems;
}

/** Every server has all three probes; ours do not die with their dependencies. */
function probes(overlay) {
  const problems = [];
  for (const workload of workloads(overlay).filter(runs)) {
    for (const container of pod(workload).containers) {
      const ports = new Set((container.ports ?? []).map((port) => port.name));
      for (const kind of ["startupProbe", "livenessProbe", "readinessProbe"]) {
        const probe = container[kind];
        const say = (what) => problems.push(`${name(workload)}/${container.name}: ${kind} ${what}`);
        if (!probe) {
          say("is missing");
          continue;
        }
        if (probe.httpGet && !ports.has(probe.httpGet.port)) say(`asks the port ${probe.httpGet.port}, which is not there`);
        if (!serviceOf(container)) continue;
        const path = kind === "readinessProbe" ? "/readyz" : "/livez";
        if (probe.httpGet?.path !== path) say(`must ask ${path}`);
        if (probe.httpGet?.port !== "internal") say("must ask the internal port");
      }
    }
  }
  return problems;
}

/** Who drains has the time to. */
function grace(overlay, facts) {
  const problems = [];
  for (const workload of workloads(overlay)) {
    const seconds = pod(workload).terminationGracePeriodSeconds;
    const say = (what) => problems.push(`${name(workload)}: ${what}`);
    if (seconds === undefined) say("terminationGracePeriodSeconds is not set");
    for (const container of pod(workload).containers) {
      const service = serviceOf(container);
      if (service && runs(workload)) {
        const ms = (key) => Number(setting(container, overlay, facts, key));
        const needs = service === "gateway"
          ? ms("shutdown.wait_ms") + ms("shutdown.drain_ms") + FLUSH_MS
          : ms("database.write_timeout_ms");
        if (ms("shutdown.grace_ms") < needs) say(`shutdown.grace_ms is ${ms("shutdown.grace_ms")} but ${needs} are needed`);
        const before = container.lifecycle?.preStop?.sleep?.seconds ?? 0;
        if (service === "gateway" && before < 5) say("preStop must sleep while load balancers take notice");
        // One second for tasks that have to be abandoned.
        const sum = before + ms("shutdown.grace_ms") / 1000 + 1;
        if (seconds < sum) say(`terminationGracePeriodSeconds is ${seconds} but preStop and shutdown take ${sum}`);
      }
      if (/^nats:/.test(container.image) && workload.spec.replicas > 1) {
        const duck = Number(/lame_duck_duration:\s*"(\d+)s"/.exec(JSON.stringify(overlay).replaceAll("\\", ""))?.[1] ?? NaN);
        if (!(seconds > duck)) say(`terminationGracePeriodSeconds is ${seconds}, lame duck lasts ${duck}`);
        if (!container.lifecycle?.preStop?.exec?.command.some((word) => word.startsWith("ldm="))) say("preStop must be lame duck");
      }
    }
  }
  for (const { file, line, value, sum } of facts.sums) {
    if (value !== sum) problems.push(`${file}:${line}: the sum beside terminationGracePeriodSeconds ${value} makes ${sum}`);
  }
  return problems;
}

/** Selectors find what they are made for. */
function selectors(overlay) {
  const problems = [];
  const everybody = workloads(overlay);
  const found = (selector) => everybody.some((workload) => selects(selector, podLabels(workload)));
  for (const workload of of(overlay, "Deployment", "StatefulSet")) {
    if (!selects(workload.spec.selector, podLabels(workload))) problems.push(`${name(workload)} does not select its own pods`);
    const others = everybody.filter((other) => other !== workload && selects(workload.spec.selector, podLabels(other)));
    for (const other of others) problems.push(`${name(workload)} also selects the pods of ${name(other)}`);
    for (const { labelSelector } of pod(workload).topologySpreadConstraints ?? []) {
      if (!selects(labelSelector, podLabels(workload))) problems.push(`${name(workload)} spreads pods that are not its own`);
    }
  }
  for (const object of of(overlay, "PodDisruptionBudget")) {
    if (!found(object.spec.selector)) problems.push(`${name(object)} protects nobody`);
  }
  for (const object of of(overlay, "NetworkPolicy")) {
    if (!found(object.spec.podSelector)) problems.push(`${name(object)} is about nobody`);
  }
  return problems;
}

/** Services have pods with such ports, and what names a Service names a port that it has. */
function services(overlay, facts) {
  const problems = [];
  const all = of(overlay, "Service");
  for (const service of all) {
    const behind = workloads(overlay).filter((w) => runs(w) && selects({ matchLabels: service.spec.selector }, podLabels(w)));
    if (behind.length !== 1) problems.push(`${name(service)} leads to ${behind.length} workloads`);
    for (const { targetPort } of service.spec.ports) {
      const open = behind.flatMap((w) => containers(w)).flatMap((c) => c.ports ?? []);
      if (!open.some((port) => port.name === targetPort)) problems.push(`${name(service)}: nobody listens on ${targetPort}`);
    }
  }
  const has = (wanted, port) => all.some((service) => service.metadata.name === wanted
    && service.spec.ports.some((p) => p.name === port || p.port === port));
  for (const route of of(overlay, "HTTPRoute")) {
    for (const { name: service, port } of route.spec.rules.flatMap((rule) => rule.backendRefs)) {
      if (!has(service, port)) problems.push(`${name(route)}: no Service ${service} with port ${port}`);
    }
    if (route.spec.rules.some((rule) => rule.timeouts)) problems.push(`${name(route)}: timeouts are refused by some load balancers`);
  }
  for (const ingress of of(overlay, "Ingress")) {
    for (const { backend } of ingress.spec.rules.flatMap((rule) => rule.http.paths)) {
      const { name: service, port } = backend.service;
      if (!has(service, port.name ?? port.number)) problems.push(`${name(ingress)}: no Service ${service} with that port`);
    }
  }
  for (const policy of of(overlay, "BackendTLSPolicy")) {
    for (const { name: service } of policy.spec.targetRefs) {
      if (!all.some((s) => s.metadata.name === service)) problems.push(`${name(policy)}: no Service ${service}`);
    }
    for (const { name: map } of policy.spec.validation.caCertificateRefs) {
      if (!facts.outside.ConfigMap[map]) problems.push(`${name(policy)}: no ConfigMap ${map}`);
    }
  }
  for (const service of all) {
    for (const workload of workloads(overlay).filter((w) => selects({ matchLabels: service.spec.selector }, podLabels(w)))) {
      const encrypts = containers(workload).some((c) => variables(c, overlay).PARLANCE_HTTP_TLS_CERT_FILE);
      const says = service.spec.ports.some((port) => port.appProtocol === "https");
      if (says && !encrypts) problems.push(`${name(service)} speaks https without a certificate`);
      if (encrypts && !says && service.spec.ports.some((port) => port.appProtocol)) problems.push(`${name(service)} does not say that it speaks https`);
    }
  }
  const paths = [
    ...of(overlay, "HTTPRoute").flatMap((r) => r.spec.rules.flatMap((rule) => (rule.matches ?? [{}]).map((m) => m.path?.value ?? "/"))),
    ...of(overlay, "Ingress").flatMap((i) => i.spec.rules.flatMap((rule) => rule.http.paths.map((p) => p.path))),
  ];
  for (const path of paths) {
    if (!["/socket.io", "/api", "/docs"].includes(path)) problems.push(`${path} is open to the world`);
  }
  for (const set of of(overlay, "StatefulSet")) {
    if (!all.some((service) => service.metadata.name === set.spec.serviceName)) problems.push(`${name(set)}: no Service ${set.spec.serviceName}`);
  }
  return problems;
}

/** What is rolled out by itself (`kubectl apply -l app.kubernetes.io/component=…`) brings what its pods need to begin. */
function phases(overlay) {
  const problems = [];
  const label = "app.kubernetes.io/component";
  for (const workload of workloads(overlay)) {
    const component = workload.metadata.labels?.[label];
    if (!component) problems.push(`${name(workload)} belongs to no component`);
    const maps = [...(pod(workload).volumes ?? []).map((v) => v.configMap?.name),
      ...containers(workload).flatMap((c) => (c.envFrom ?? []).map((e) => e.configMapRef?.name))];
    const needed = [...of(overlay, "ServiceAccount").filter((o) => o.metadata.name === pod(workload).serviceAccountName),
      ...of(overlay, "ConfigMap").filter((o) => maps.includes(o.metadata.name))];
    for (const object of needed) {
      if (object.metadata.labels?.[label] !== component) problems.push(`${name(workload)} is rolled out without ${name(object)}`);
    }
  }
  return problems;
}

/** Config maps, secrets, accounts and volumes that are named are there, or said to come from outside. */
function references(overlay, facts) {
  const problems = [];
  const keys = (kind, wanted) => {
    const object = of(overlay, kind).find((o) => o.metadata.name === wanted);
    return object && Object.keys({ ...object.data, ...object.stringData });
  };
  for (const workload of workloads(overlay)) {
    const say = (what) => problems.push(`${name(workload)}: ${what}`);
    const want = (kind, wanted, key, optional) => {
      const outside = facts.overlay === "dev" ? undefined : facts.outside[kind]?.[wanted];
      const there = keys(kind, wanted) ?? outside;
      if (!there) {
        if (!optional) say(`no ${kind} ${wanted}`);
      } else if (key && !there.includes(key)) say(`${kind} ${wanted} has no ${key}`);
    };
    const account = pod(workload).serviceAccountName;
    if (account && !of(overlay, "ServiceAccount").some((o) => o.metadata.name === account)) say(`no ServiceAccount ${account}`);
    const volumes = pod(workload).volumes ?? [];
    for (const volume of volumes) {
      if (volume.configMap) want("ConfigMap", volume.configMap.name, undefined, volume.configMap.optional);
      if (volume.secret) want("Secret", volume.secret.secretName, undefined, volume.secret.optional);
    }
    const known = new Set([...volumes, ...(workload.spec.volumeClaimTemplates ?? []).map((c) => c.metadata)].map((v) => v.name));
    for (const container of containers(workload)) {
      for (const { configMapRef, secretRef } of container.envFrom ?? []) {
        if (configMapRef) want("ConfigMap", configMapRef.name);
        if (secretRef) want("Secret", secretRef.name);
      }
      for (const { valueFrom } of container.env ?? []) {
        if (valueFrom?.secretKeyRef) want("Secret", valueFrom.secretKeyRef.name, valueFrom.secretKeyRef.key);
        if (valueFrom?.configMapKeyRef) want("ConfigMap", valueFrom.configMapKeyRef.name, valueFrom.configMapKeyRef.key);
      }
      // Configuration files of NATS take passwords from the environment.
      const maps = volumes.map((v) => of(overlay, "ConfigMap").find((o) => o.metadata.name === v.configMap?.name));
      const taken = maps.flatMap((map) => Object.values(map?.data ?? {})).flatMap((text) => text.match(/(?<=\$)[A-Z][A-Z_]+\b(?!\.)/g) ?? []);
      for (const variable of new Set(taken)) {
        if (!(container.env ?? []).some((e) => e.name === variable)) say(`nobody sets ${variable}`);
      }
      for (const mount of container.volumeMounts ?? []) if (!known.has(mount.name)) say(`no volume ${mount.name}`);
    }
  }
  return problems;
}

/** Secrets come by reference; only `dev` makes its own. */
function secrets(overlay, facts) {
  const problems = [];
  if (facts.overlay !== "dev") {
    for (const secret of of(overlay, "Secret")) problems.push(`${name(secret)} does not belong into a repository`);
  }
  for (const workload of workloads(overlay)) {
    for (const container of containers(workload)) {
      for (const [variable, value] of Object.entries(variables(container, overlay))) {
        if (value !== null && /PASSWORD|SECRET|TOKEN|DATABASE_URL/.test(variable)) {
          problems.push(`${name(workload)}/${container.name}: ${variable} stands there in the open`);
        }
      }
    }
  }
  return problems;
}

/** Every image says which, and one service is of one version everywhere. */
function images(overlay) {
  const problems = [];
  const seen = new Map();
  for (const workload of workloads(overlay)) {
    for (const { image } of containers(workload)) {
      const bare = image.split("/").at(-1);
      const [program, tag] = bare.split(":");
      if (!image.includes("@sha256:") && (!tag || tag === "latest")) problems.push(`${name(workload)}: ${image} names no version`);
      if (seen.has(program) && seen.get(program) !== image) problems.push(`${image} and ${seen.get(program)} are mixed`);
      seen.set(program, image);
    }
  }
  return problems;
}

/** Variables are settings of the service that gets them. */
function settings(overlay, facts) {
  const problems = [];
  for (const workload of workloads(overlay)) {
    for (const container of containers(workload)) {
      const service = serviceOf(container);
      if (!service) continue;
      const known = new Set([...facts.settings[service].keys()].map((key) => `PARLANCE_${key.replaceAll(".", "_").toUpperCase()}`));
      known.add("PARLANCE_CONFIG");
      const given = Object.keys(variables(container, overlay));
      const fromSecrets = (container.envFrom ?? []).flatMap(({ secretRef }) => {
        const secret = secretRef && of(overlay, "Secret").find((s) => s.metadata.name === secretRef.name);
        return Object.keys({ ...secret?.data, ...secret?.stringData });
      });
      for (const variable of [...given, ...fromSecrets]) {
        if (!known.has(variable)) problems.push(`${name(workload)}/${container.name}: ${variable} is no setting of the ${service}`);
      }
      for (const variable of given.filter((v) => v.startsWith("PARLANCE_"))) {
        const value = variables(container, overlay)[variable];
        const key = [...facts.settings[service].keys()].find((k) => `PARLANCE_${k.replaceAll(".", "_").toUpperCase()}` === variable);
        const usual = key && facts.settings[service].get(key);
        if (value !== null && typeof usual === "number" && !/^\d+(\.\d+)?$/.test(value)) problems.push(`${variable} must be a number`);
      }
    }
  }
  return problems;
}

/** Files that settings and configurations name are in a volume. */
function files(overlay) {
  const problems = [];
  for (const workload of workloads(overlay)) {
    const volumes = pod(workload).volumes ?? [];
    for (const container of containers(workload)) {
      const mounts = (container.volumeMounts ?? []).map((mount) => `${mount.mountPath}/`);
      const config = (container.args ?? []).find((word) => word.endsWith(".conf"))?.split("/").at(-1);
      const map = volumes.map((v) => of(overlay, "ConfigMap").find((o) => o.metadata.name === v.configMap?.name)).find((m) => m?.data[config]);
      const named = [
        ...Object.entries(variables(container, overlay)).filter(([variable, value]) => variable.endsWith("_FILE") && value).map(([, value]) => value),
        ...[...(map?.data[config] ?? "").matchAll(/_file: "([^"]+)"/g)].map(([, path]) => path),
      ];
      for (const path of named) {
        if (!mounts.some((mount) => path.startsWith(mount))) problems.push(`${name(workload)}/${container.name}: ${path} is in no volume`);
      }
      if (config && !map) problems.push(`${name(workload)}/${container.name}: no ConfigMap has ${config}`);
    }
  }
  return problems;
}

/** As many copies of a stream as there can be, and the same partitions for all. */
function streams(overlay, facts) {
  const problems = [];
  const nats = of(overlay, "StatefulSet").find((set) => containers(set).some((c) => /^nats:/.test(c.image)));
  const partitions = new Set();
  for (const workload of workloads(overlay).filter(runs)) {
    for (const container of containers(workload)) {
      const service = serviceOf(container);
      if (!service) continue;
      partitions.add(String(setting(container, overlay, facts, service === "gateway" ? "bus.partitions" : "ingest.partitions")));
      if (service === "persistence" && nats) {
        const copies = Number(setting(container, overlay, facts, "nats.stream_replicas"));
        const wanted = nats.spec.replicas >= 3 ? 3 : 1;
        if (copies !== wanted) problems.push(`${copies} copies of a stream on ${nats.spec.replicas} servers`);
      }
    }
  }
  if (partitions.size > 1) problems.push(`different numbers of partitions: ${[...partitions].join(", ")}`);
  return problems;
}

const UNITS = { Ki: 1024, Mi: 1024 ** 2, Gi: 1024 ** 3 };

function bytes(quantity) {
  const [, number, unit] = /^(\d+)(Ki|Mi|Gi)$/.exec(quantity ?? "") ?? [];
  return number ? Number(number) * UNITS[unit] : 0;
}

/** Everybody asks for what it needs, is stopped before it takes the node's memory, and is never throttled. */
function resources(overlay, facts) {
  const problems = [];
  for (const workload of workloads(overlay)) {
    for (const container of containers(workload)) {
      const { requests = {}, limits = {} } = container.resources ?? {};
      const say = (what) => problems.push(`${name(workload)}/${container.name}: ${what}`);
      if (!requests.cpu || !requests.memory) say("asks for no CPU or memory");
      if (!limits.memory) say("has no limit of memory");
      if (limits.cpu) say("would be throttled");
      if (bytes(limits.memory) < bytes(requests.memory)) say("asks for more memory than it may have");
      if (serviceOf(container) === "gateway") {
        const most = Number(setting(container, overlay, facts, "socket.max_connections"));
        if (bytes(requests.memory) < most * IDLE_WEBSOCKET) say(`${most} connections do not fit into ${requests.memory}`);
      }
    }
  }
  return problems;
}

/** A rollout adds before it takes away, and spreads what it adds. */
function rollout(overlay) {
  const problems = [];
  for (const workload of of(overlay, "Deployment")) {
    const { strategy, minReadySeconds = 0 } = workload.spec;
    const say = (what) => problems.push(`${name(workload)}: ${what}`);
    if (strategy?.rollingUpdate?.maxUnavailable !== 0) say("takes pods away before new ones are there");
    if (strategy?.rollingUpdate?.maxSurge !== "25%") say("must surge by a quarter");
    if (minReadySeconds < 10) say("hurries on before a pod has proved itself");
    const keys = new Set((pod(workload).topologySpreadConstraints ?? []).map((c) => c.topologyKey));
    if (!keys.has("topology.kubernetes.io/zone") || !keys.has("kubernetes.io/hostname")) say("is not spread over zones and nodes");
  }
  for (const set of of(overlay, "StatefulSet").filter((s) => containers(s).some((c) => /^nats:/.test(c.image)))) {
    if (set.spec.podManagementPolicy !== "Parallel") problems.push(`${name(set)} begins one by one and never gets a majority`);
  }
  return problems;
}

/** What scales exists, scales on what counts, and goes down slower than it drains. */
function scaling(overlay, facts) {
  const problems = [];
  const target = (kind, wanted) => of(overlay, kind).find((o) => o.metadata.name === wanted);
  const scaled = [
    ...of(overlay, "HorizontalPodAutoscaler").map((o) => [o, o.spec.scaleTargetRef, o.spec.behavior]),
    ...of(overlay, "ScaledObject").map((o) => [o, o.spec.scaleTargetRef, o.spec.advanced?.horizontalPodAutoscalerConfig?.behavior]),
  ];
  for (const [object, reference, behavior] of scaled) {
    const say = (what) => problems.push(`${name(object)}: ${what}`);
    const workload = target(reference.kind ?? "Deployment", reference.name);
    if (!workload) {
      say(`no ${reference.name} to scale`);
      continue;
    }
    if (workload.spec.replicas !== undefined) say("the Deployment sets its replicas as well");
    const down = behavior?.scaleDown ?? {};
    if (!(down.stabilizationWindowSeconds >= 600)) say("scales down after less than ten minutes");
    const one = (down.policies ?? []).length === 1 && down.policies[0].type === "Pods" && down.policies[0].value === 1;
    if (!one) say("must take one pod at a time");
    if (one && down.policies[0].periodSeconds <= pod(workload).terminationGracePeriodSeconds) say("takes the next pod while one still drains");
    if (object.kind === "HorizontalPodAutoscaler") {
      const metric = object.spec.metrics[0]?.pods;
      if (metric?.metric.name !== "chat_gateway_connections") say("must scale on connections");
      const most = Number(setting(pod(workload).containers[0], overlay, facts, "socket.max_connections"));
      // The clients of a full pod come back at once to as few others as there may be.
      const seconds = Number(setting(pod(workload).containers[0], overlay, facts, "shutdown.drain_ms")) / 1000;
      const admitted = Number(setting(pod(workload).containers[0], overlay, facts, "socket.handshakes_per_second"));
      const others = object.spec.minReplicas - 1;
      if (most / seconds > admitted * others) say(`a drain sends ${most / seconds} clients a second to others that admit ${admitted * others}`);
      if (!(Number(metric?.target.averageValue) < most)) say(`scales only when all are full (${most})`);
    } else {
      const unknown = object.spec.triggers.flatMap((t) => t.metadata.query?.match(/chat_\w+/g) ?? []).filter((m) => !facts.metrics.has(m));
      for (const metric of unknown) say(`nobody offers ${metric}`);
      const partitions = Number(setting(pod(workload).containers[0], overlay, facts, "ingest.partitions"));
      if (object.spec.maxReplicaCount > partitions) say(`more replicas than partitions (${partitions})`);
    }
  }
  return problems;
}

/** Whatever has several pods keeps some of them while nodes are emptied. */
function disruption(overlay) {
  const problems = [];
  for (const workload of of(overlay, "Deployment", "StatefulSet")) {
    if (workload.spec.replicas === 1) continue;
    const budgets = of(overlay, "PodDisruptionBudget").filter((b) => selects(b.spec.selector, podLabels(workload)));
    if (budgets.length !== 1) problems.push(`${name(workload)} has ${budgets.length} disruption budgets`);
    if (budgets.some((b) => b.spec.maxUnavailable !== 1)) problems.push(`${name(workload)} may lose more than one at a time`);
  }
  return problems;
}

const WAYS = [
  // from, to, port, allowed
  ["parlance-gateway", "parlance-gateway", "http", true],
  ["parlance-persistence", "parlance-gateway", "http", false],
  ["parlance-gateway", "parlance-nats", "client", true],
  ["parlance-persistence", "parlance-nats", "client", true],
  ["parlance-nats", "parlance-nats", "cluster", true],
  ["parlance-gateway", "parlance-nats", "cluster", false],
  ["parlance-persistence", "parlance-postgres", "postgres", true],
  ["parlance-migrate", "parlance-postgres", "postgres", true],
  ["parlance-gateway", "parlance-postgres", "postgres", false],
  ["parlance-migrate", "parlance-nats", "client", false],
  ["parlance-gateway", "parlance-persistence", "internal", false],
  ["parlance-persistence", "parlance-gateway", "internal", false],
];

/** Nothing passes that is not needed, and what is needed passes. */
function network(overlay) {
  const problems = [];
  const policies = of(overlay, "NetworkPolicy");
  const denies = policies.some(({ spec }) => Object.keys(spec.podSelector).length === 0 && spec.policyTypes.length === 2
    && !spec.ingress && !spec.egress);
  if (!denies) problems.push("nothing denies by default");
  const workload = (wanted) => workloads(overlay).find((w) => w.metadata.name === wanted);
  for (const [from, to, port, allowed] of WAYS) {
    const [source, target] = [workload(from), workload(to)];
    const opened = target && containers(target).flatMap((c) => c.ports ?? []).find((p) => p.name === port);
    if (!source || !opened) continue;
    const passes = lets(policies, "egress", source, target, opened) && lets(policies, "ingress", target, source, opened);
    if (passes !== allowed) problems.push(`${from} → ${to}:${port} is ${passes ? "open" : "closed"}`);
  }
  // With a database outside of the cluster there is no pod to hold this against.
  const reaches = (wanted, port) => policies.some(({ spec }) => selects(spec.podSelector, podLabels(workload(wanted)))
    && (spec.egress ?? []).some((rule) => (rule.ports ?? []).some((p) => p.port === port)));
  if (!reaches("parlance-persistence", 5432) || reaches("parlance-gateway", 5432)) problems.push("persistence alone talks to Postgres");
  const rules = policies.filter(({ spec }) => selects(spec.podSelector, podLabels(workload("parlance-gateway")))).flatMap(({ spec }) => spec.ingress ?? []);
  if (!rules.some((rule) => !rule.from && rule.ports?.some((p) => p.port === "http"))) problems.push("clients do not reach the gateway");
  if (rules.some((rule) => !rule.from && !rule.ports?.every((p) => p.port === "http"))) problems.push("the internal port is open to all");
  return problems;
}

function lets(policies, way, pod, peer, port) {
  const about = policies.filter(({ spec }) => selects(spec.podSelector, podLabels(pod))
    && spec.policyTypes.some((type) => type.toLowerCase() === way));
  if (about.length === 0) return true;
  const side = way === "egress" ? "to" : "from";
  return about.flatMap(({ spec }) => spec[way] ?? []).some((rule) => {
    const peers = rule[side];
    const known = !peers || peers.some((p) => p.podSelector && !p.namespaceSelector && selects(p.podSelector, podLabels(peer)));
    return known && (!rule.ports || rule.ports.some((p) => p.port === port.name || p.port === port.containerPort));
  });
}

/** Metrics are scraped from every replica of ours, and the rules are the ones that are tested. */
function monitoring(overlay, facts) {
  const problems = [];
  const monitors = of(overlay, "ServiceMonitor");
  for (const monitor of monitors) {
    const scraped = of(overlay, "Service").filter((s) => selects(monitor.spec.selector, s.metadata.labels ?? {}));
    for (const wanted of ["parlance-gateway", "parlance-persistence"]) {
      const service = scraped.find((s) => s.metadata.labels[monitor.spec.jobLabel] === wanted);
      const ports = (service?.spec.ports ?? []).map((p) => p.name);
      if (!monitor.spec.endpoints.every((e) => ports.includes(e.port))) problems.push(`${name(monitor)} does not scrape ${wanted}`);
    }
  }
  for (const rule of of(overlay, "PrometheusRule")) {
    if (!isDeepStrictEqual(rule.spec.groups, facts.alerts)) problems.push(`${name(rule)} differs from deploy/observability/alerts.yml`);
  }
  return problems;
}
