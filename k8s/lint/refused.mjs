// One or more broken overlays for every check: a check that lets its own through is no check.
// Each is [check, overlay, what the problem must say, how to break a healthy overlay].

const get = (objects, kind, name) => {
  const found = objects.find((object) => object.kind === kind && object.metadata.name.startsWith(name));
  if (!found) throw new Error(`no ${kind} ${name} to break`);
  return found;
};
const spec = (objects, kind, name) => get(objects, kind, name).spec;
const pod = (objects, name, kind = "Deployment") => spec(objects, kind, name).template.spec;
const container = (objects, name, kind) => pod(objects, name, kind).containers[0];

export const broken = [
  ["schema", "ha", /terminationGracePeriodSecond/, (o) => { pod(o, "parlance-gateway").terminationGracePeriodSecond = 1; }],
  ["schema", "ha", /replicas/, (o) => { spec(o, "StatefulSet", "parlance-nats").replicas = "three"; }],
  ["schema", "ha", /unknown to Kubernetes/, (o) => { get(o, "HorizontalPodAutoscaler", "parlance").apiVersion = "autoscaling/v2beta2"; }],
  ["schema", "ha", /pollingIntervall/, (o) => { spec(o, "ScaledObject", "parlance").pollingIntervall = 1; }],
  ["schema", "ha", /backendRefz/, (o) => { spec(o, "HTTPRoute", "parlance").rules[0].backendRefz = []; }],
  ["schema", "ha", /port/, (o) => { spec(o, "HTTPRoute", "parlance").rules[0].backendRefs[0].port = 70000; }],
  ["schema", "ha", /hostnam/, (o) => { spec(o, "BackendTLSPolicy", "parlance").validation.hostnam = "x"; }],
  ["schema", "ha", /intervl/, (o) => { spec(o, "ServiceMonitor", "parlance").endpoints[0].intervl = "15s"; }],
  ["schema", "ha", /form/, (o) => { spec(o, "PrometheusRule", "parlance").groups[0].rules[0].form = "1m"; }],

  ["restricted", "ha", /writable root/, (o) => { delete container(o, "parlance-gateway").securityContext.readOnlyRootFilesystem; }],
  ["restricted", "ha", /keeps capabilities/, (o) => { container(o, "parlance-nats", "StatefulSet").securityContext.capabilities.drop = []; }],
  ["restricted", "ha", /other than root/, (o) => { pod(o, "parlance-migrate", "Job").securityContext.runAsUser = 0; }],
  ["restricted", "ha", /seccomp/, (o) => { delete pod(o, "parlance-persistence").securityContext.seccompProfile; }],
  ["restricted", "ha", /token/, (o) => { delete pod(o, "parlance-persistence").automountServiceAccountToken; }],
  ["restricted", "ha", /enforce/, (o) => { delete get(o, "Namespace", "parlance").metadata.labels["pod-security.kubernetes.io/enforce"]; }],

  ["probes", "ha", /startupProbe is missing/, (o) => { delete container(o, "parlance-persistence").startupProbe; }],
  ["probes", "ha", /must ask \/livez/, (o) => { container(o, "parlance-gateway").livenessProbe.httpGet.path = "/readyz"; }],
  ["probes", "ha", /which is not there/, (o) => { container(o, "parlance-nats", "StatefulSet").readinessProbe.httpGet.port = "moniter"; }],

  ["grace", "ha", /preStop and shutdown take/, (o) => { pod(o, "parlance-gateway").terminationGracePeriodSeconds = 60; }],
  ["grace", "ha", /are needed/, (o) => { get(o, "ConfigMap", "parlance-gateway").data.PARLANCE_SHUTDOWN_DRAIN_MS = "74000"; }],
  ["grace", "ha", /are needed/, (o) => { get(o, "ConfigMap", "parlance-persistence").data.PARLANCE_SHUTDOWN_GRACE_MS = "5000"; }],
  ["grace", "ha", /must sleep/, (o) => { delete container(o, "parlance-gateway").lifecycle; }],
  ["grace", "ha", /lame duck lasts/, (o) => { pod(o, "parlance-nats", "StatefulSet").terminationGracePeriodSeconds = 30; }],

  ["selectors", "ha", /does not select its own/, (o) => { spec(o, "Deployment", "parlance-gateway").selector.matchLabels = { app: "x" }; }],
  ["selectors", "ha", /protects nobody/, (o) => { spec(o, "PodDisruptionBudget", "parlance-nats").selector.matchLabels = { app: "x" }; }],
  ["selectors", "ha", /is about nobody/, (o) => { spec(o, "NetworkPolicy", "gateway-from-clients").podSelector.matchLabels = { app: "x" }; }],

  ["services", "ha", /nobody listens on/, (o) => { spec(o, "Service", "parlance-gateway-internal").ports[0].targetPort = "metrics"; }],
  ["services", "ha", /leads to 0/, (o) => { spec(o, "Service", "parlance-gateway").selector = { app: "x" }; }],
  ["services", "ha", /no Service parlance-gateway with port 8080/, (o) => { spec(o, "HTTPRoute", "parlance").rules[0].backendRefs[0].port = 8080; }],
  ["services", "dev", /no Service parlance-gatewy/, (o) => { spec(o, "Ingress", "parlance").rules[0].http.paths[0].backend.service.name = "parlance-gatewy"; }],
  ["services", "ha", /\/metrics is open/, (o) => { spec(o, "HTTPRoute", "parlance").rules[0].matches.push({ path: { type: "PathPrefix", value: "/metrics" } }); }],
  ["services", "ha", /BackendTLSPolicy parlance-gateway: no Service/, (o) => { spec(o, "BackendTLSPolicy", "parlance").targetRefs[0].name = "x"; }],
  ["services", "ha", /speaks https without a certificate/, (o) => { delete get(o, "ConfigMap", "parlance-gateway").data.PARLANCE_HTTP_TLS_CERT_FILE; }],
  ["services", "ha", /timeouts are refused/, (o) => { spec(o, "HTTPRoute", "parlance").rules[0].timeouts = { request: "1h" }; }],

  ["phases", "ha", /without ServiceAccount/, (o) => { delete get(o, "ServiceAccount", "parlance-nats").metadata.labels["app.kubernetes.io/component"]; }],
  ["phases", "ha", /without ConfigMap/, (o) => { get(o, "ConfigMap", "parlance-gateway").metadata.labels["app.kubernetes.io/component"] = "x"; }],

  ["references", "ha", /no ConfigMap/, (o) => { container(o, "parlance-gateway").envFrom[0].configMapRef.name = "missing"; }],
  ["references", "ha", /has no nats-passwort/, (o) => { container(o, "parlance-gateway").env[0].valueFrom.secretKeyRef.key = "nats-passwort"; }],
  ["references", "dev", /no Secret/, (o) => { o.splice(o.indexOf(get(o, "Secret", "parlance-postgres")), 1); }],
  ["references", "ha", /nobody sets NATS_PUSH_PASSWORD/, (o) => { const c = container(o, "parlance-nats", "StatefulSet"); c.env = c.env.filter((e) => e.name !== "NATS_PUSH_PASSWORD"); }],
  ["references", "ha", /no volume/, (o) => { container(o, "parlance-nats", "StatefulSet").volumeMounts[0].name = "missing"; }],

  ["secrets", "ha", /does not belong/, (o) => { o.push({ apiVersion: "v1", kind: "Secret", metadata: { name: "x" }, stringData: { a: "b" } }); }],
  ["secrets", "ha", /in the open/, (o) => { get(o, "ConfigMap", "parlance-gateway").data.PARLANCE_JWT_SECRET = "secret"; }],

  ["images", "ha", /names no version/, (o) => { container(o, "parlance-gateway").image = "parlance-gateway:latest"; }],
  ["images", "ha", /are mixed/, (o) => { container(o, "parlance-migrate", "Job").image = "registry.example.com/parlance-persistence:0.2.0"; }],

  ["settings", "ha", /is no setting of the gateway/, (o) => { get(o, "ConfigMap", "parlance-gateway").data.PARLANCE_SHUTDOWN_DRAIN_SECONDS = "60"; }],
  ["settings", "dev", /PARLANCE_JWT_SECRETS is no setting/, (o) => { const s = get(o, "Secret", "parlance-jwt"); s.data = { PARLANCE_JWT_SECRETS: "eA==" }; }],
  ["settings", "ha", /must be a number/, (o) => { get(o, "ConfigMap", "parlance-gateway").data.PARLANCE_SHUTDOWN_DRAIN_MS = "60s"; }],

  ["files", "ha", /tls.crt is in no volume/, (o) => { container(o, "parlance-gateway").volumeMounts.shift(); }],
  ["files", "ha", /parlance-nats.*tls.key is in no volume/, (o) => { const c = container(o, "parlance-nats", "StatefulSet"); c.volumeMounts = c.volumeMounts.filter((m) => m.name !== "tls"); }],
  ["files", "ha", /no ConfigMap has/, (o) => { container(o, "parlance-nats", "StatefulSet").args[1] = "/etc/nats/missing.conf"; }],

  ["streams", "ha", /1 copies/, (o) => { get(o, "ConfigMap", "parlance-persistence").data.PARLANCE_NATS_STREAM_REPLICAS = "1"; }],
  ["streams", "ha", /different numbers/, (o) => { get(o, "ConfigMap", "parlance-gateway").data.PARLANCE_BUS_PARTITIONS = "32"; }],

  ["resources", "ha", /do not fit/, (o) => { get(o, "ConfigMap", "parlance-gateway").data.PARLANCE_SOCKET_MAX_CONNECTIONS = "90000"; }],
  ["resources", "ha", /no limit of memory/, (o) => { delete container(o, "parlance-persistence").resources.limits; }],
  ["resources", "ha", /throttled/, (o) => { container(o, "parlance-gateway").resources.limits.cpu = "1"; }],

  ["rollout", "ha", /takes pods away/, (o) => { spec(o, "Deployment", "parlance-gateway").strategy.rollingUpdate.maxUnavailable = 1; }],
  ["rollout", "ha", /hurries/, (o) => { delete spec(o, "Deployment", "parlance-persistence").minReadySeconds; }],
  ["rollout", "ha", /not spread/, (o) => { pod(o, "parlance-gateway").topologySpreadConstraints.pop(); }],
  ["rollout", "ha", /never gets a majority/, (o) => { delete spec(o, "StatefulSet", "parlance-nats").podManagementPolicy; }],

  ["scaling", "ha", /one pod at a time/, (o) => { spec(o, "HorizontalPodAutoscaler", "parlance").behavior.scaleDown.policies[0].value = 3; }],
  ["scaling", "ha", /less than ten minutes/, (o) => { spec(o, "HorizontalPodAutoscaler", "parlance").behavior.scaleDown.stabilizationWindowSeconds = 60; }],
  ["scaling", "ha", /while one still drains/, (o) => { spec(o, "HorizontalPodAutoscaler", "parlance").behavior.scaleDown.policies[0].periodSeconds = 60; }],
  ["scaling", "ha", /only when all are full/, (o) => { spec(o, "HorizontalPodAutoscaler", "parlance").metrics[0].pods.target.averageValue = "30000"; }],
  ["scaling", "websocket-only", /others that admit/, (o) => { get(o, "ConfigMap", "parlance-gateway").data.PARLANCE_SHUTDOWN_DRAIN_MS = "2000"; }],
  ["scaling", "ha", /sets its replicas/, (o) => { spec(o, "Deployment", "parlance-gateway").replicas = 2; }],
  ["scaling", "ha", /nobody offers/, (o) => { spec(o, "ScaledObject", "parlance").triggers[0].metadata.query = "sum(chat_lag)"; }],
  ["scaling", "ha", /more replicas than partitions/, (o) => { spec(o, "ScaledObject", "parlance").maxReplicaCount = 17; }],

  ["disruption", "ha", /0 disruption budgets/, (o) => { o.splice(o.indexOf(get(o, "PodDisruptionBudget", "parlance-nats")), 1); }],
  ["disruption", "ha", /more than one/, (o) => { spec(o, "PodDisruptionBudget", "parlance-nats").maxUnavailable = 2; }],

  ["network", "ha", /nothing denies/, (o) => { o.splice(o.indexOf(get(o, "NetworkPolicy", "default-deny")), 1); }],
  ["network", "ha", /gateway → parlance-nats:client is closed/, (o) => { spec(o, "NetworkPolicy", "services-to-nats").podSelector.matchExpressions[0].values = ["parlance-persistence"]; }],
  ["network", "ha", /parlance-gateway → parlance-gateway:http is closed/, (o) => { o.splice(o.indexOf(get(o, "NetworkPolicy", "gateway-to-gateways")), 1); }],
  ["network", "dev", /parlance-gateway → parlance-postgres:postgres is open/, (o) => {
    spec(o, "NetworkPolicy", "persistence-to-postgres").podSelector = {};
    spec(o, "NetworkPolicy", "postgres-from-persistence").podSelector = {};
    delete spec(o, "NetworkPolicy", "postgres-from-persistence").ingress[0].from;
  }],
  ["network", "ha", /internal port is open/, (o) => { spec(o, "NetworkPolicy", "gateway-from-clients").ingress[0].ports.push({ port: "internal" }); }],

  ["monitoring", "ha", /does not scrape parlance-persistence/, (o) => { delete get(o, "Service", "parlance-persistence-internal").metadata.labels["parlance/metrics"]; }],
  ["monitoring", "ha", /differs from/, (o) => { spec(o, "PrometheusRule", "parlance").groups[0].rules[0].expr = "vector(1)"; }],
];
