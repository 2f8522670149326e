# Sets the checkout up: Debian packages, Python packages, pages, leaf server. Sourced by the other
# scripts, which call `set_up run` or `set_up test`. Idempotent; a second time it takes well under
# a second.
# shellcheck shell=bash
. scripts/leaf.sh

RUN_PACKAGES=(
  janus openvswitch-switch ffmpeg nginx-light libnginx-mod-rtmp
  gstreamer1.0-tools gstreamer1.0-plugins-base gstreamer1.0-plugins-good
  gstreamer1.0-plugins-bad gstreamer1.0-plugins-ugly gstreamer1.0-x
  python3-gi gir1.2-gstreamer-1.0 gir1.2-gst-plugins-base-1.0
  wireguard-tools wireguard-go dnsmasq-base python3 python3-venv nftables ethtool iproute2 util-linux libseccomp2 fonts-dejavu-core ca-certificates
)
TEST_PACKAGES=(
  gir1.2-gst-rtsp-server-1.0 gir1.2-gst-plugins-bad-1.0 gstreamer1.0-nice
  chromium nats-server postgresql sqlite3 socat procps git openssl
  mininet iperf iputils-ping udhcpc vlc-bin vlc-plugin-base
  kamailio sip-tester coturn curl
)

if [ -t 1 ]; then BOLD=$'\e[1m' DIM=$'\e[2m' GREEN=$'\e[32m' RED=$'\e[31m' PLAIN=$'\e[0m'
else BOLD='' DIM='' GREEN='' RED='' PLAIN=''; fi

fail() { printf '%s\n' "${RED}$1${PLAIN}" >&2; exit 1; }

# step NAME COMMAND...: run it, show that it moves, and its end if it fails.
step() {
  local name=$1 log; shift
  log=$(mktemp)
  printf '%s\n' "${BOLD}$name${PLAIN}"
  local began=$SECONDS
  if ! "$@" 2>&1 | tee "$log" | show_progress; then
    tail -n 15 "$log" >&2; rm -f "$log"
    fail "That failed: $name"
  fi
  rm -f "$log"
  printf '  %s\n' "${GREEN}✓${PLAIN} ${DIM}$((SECONDS - began)) s${PLAIN}"
}

# On a terminal one line that changes; elsewhere a line every 10 s, so that no minute is silent.
show_progress() {
  local line last=$SECONDS
  while IFS= read -r line; do
    if [ -t 1 ]; then printf '\r\e[K  %s' "${DIM}${line:0:90}${PLAIN}"
    elif ((SECONDS - last >= 10)); then printf '  %s\n' "${line:0:90}"; last=$SECONDS; fi
  done
  if [ -t 1 ]; then printf '\r\e[K'; fi
}

missing_packages() {
  local name
  for name in "$@"; do
    dpkg-query -W -f='${db:Status-Status}' "$name" 2>/dev/null | grep -qx installed || echo "$name"
  done
}

install_packages() {
  # The servers in these packages are started by Anabranch, each where it belongs; Debian would
  # also start one of each for the whole machine. 101: "not allowed", see invoke-rc.d(8).
  local policy=/usr/sbin/policy-rc.d service
  if [ ! -e $policy ]; then
    printf '#!/bin/sh\nexit 101\n' > $policy
    chmod 755 $policy
    trap "rm -f $policy" EXIT
  fi
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -q
  apt-get install -q -y --no-install-recommends "$@"
  rm -f $policy
  trap - EXIT
  if [ -d /run/systemd/system ]; then
    for service in janus openvswitch-switch nginx nats-server postgresql kamailio coturn; do
      case " $* " in *" $service"*) systemctl disable --now "$service" || true ;; esac
    done
  fi
}

set_up_packages() {
  local missing
  mapfile -t missing < <(missing_packages "$@")
  [ ${#missing[@]} -eq 0 ] && return
  command -v apt-get >/dev/null || fail "This needs Debian 12. It lacks: ${missing[*]}"
  [ "$(id -u)" -eq 0 ] || fail "Packages are missing: sudo apt-get install --no-install-recommends ${missing[*]}"
  step "Debian packages: ${missing[*]}" install_packages "${missing[@]}"
}

# The checksum of the files that something was made from: made again only when they change.
sum_of() { cat "$@" | sha256sum | cut -d' ' -f1; }
sum_of_tree() {
  find "$1" \( -name node_modules -o -name target -o -name Cargo.lock \) -prune -o -type f -print0 |
    sort -z | xargs -0 cat | sha256sum | cut -d' ' -f1
}

set_up_python() {
  local lock=$1 stamp=.venv/.made-from sum
  sum=$(sum_of "$lock" pyproject.toml)-$PWD
  # What is installed for the tests serves a run, too.
  if [ -f $stamp ] && { grep -qxF "$sum" $stamp || { [ "$lock" = requirements.lock ] &&
    grep -qxF "$(sum_of requirements-dev.lock pyproject.toml)-$PWD" $stamp; }; }; then return; fi
  [ -w . ] || fail "This checkout belongs to somebody else: run this as its owner, or with sudo"
  if [ ! -x .venv/bin/python ] || ! .venv/bin/python -c '' 2>/dev/null; then
    step "Python environment" /usr/bin/python3 -m venv --clear .venv
  fi
  step "Python packages ($lock)" .venv/bin/python -m pip install --disable-pip-version-check \
    --no-deps --require-hashes --progress-bar off -r "$lock"
  step "Anabranch itself" .venv/bin/python -m pip install --disable-pip-version-check \
    --no-deps --no-build-isolation -e .
  printf '%s\n' "$sum" > $stamp
}

# Node 20.19 or newer: the machine's, or the one that a Python package brings.
node_path() {
  if command -v node >/dev/null && command -v npm >/dev/null &&
    node -e 'const [a, b] = process.versions.node.split(".").map(Number);
             process.exit(a > 22 || (a === 22 && b >= 12) || (a === 20 && b >= 19) ? 0 : 1)'; then
    return
  fi
  if [ ! -x .cache/node/bin/npm ]; then
    step "Node, to build the pages" bash -c '/usr/bin/python3 -m venv --clear .cache/node &&
      .cache/node/bin/python -m pip install --disable-pip-version-check --progress-bar off \
        --no-deps --require-hashes -r requirements-node.lock'
  fi
  PATH=$PWD/.cache/node/bin:$PATH
}

set_up_pages() {
  local sum stamp=src/anabranch/console/static/.made-from
  sum=$(sum_of_tree web)
  [ -f $stamp ] && [ "$(cat $stamp)" = "$sum" ] && return
  [ -w . ] || fail "This checkout belongs to somebody else: run this as its owner, or with sudo"
  node_path
  step "Front-end packages" npm --prefix web ci --no-audit --no-fund
  step "Pages" npm --prefix web run build
  printf '%s\n' "$sum" > $stamp
}

# The machine's Rust if it is new enough, else Debian's: the one that it keeps up to date for
# browsers, beside the one of its release.
rust_path() {
  if has_rust; then return; fi
  set_up_packages cargo-web
  PATH=/usr/bin:$PATH
  has_rust || fail "cargo-web is too old; with bookworm-security in apt's sources: apt-get install cargo-web"
}

# What checks Rust needs beside what builds it.
set_up_rust_checks() {
  set_up_packages "${LEAF_PACKAGES[@]}"
  rust_path
  if ! { cargo fmt --version && cargo clippy --version; } >/dev/null 2>&1; then
    [ "$(command -v cargo)" = /usr/bin/cargo ] ||
      fail "This machine's Rust lacks parts: rustup component add rustfmt clippy"
    set_up_packages rustfmt-web rust-web-clippy
  fi
  write_cargo_lock
}

set_up_leaf() {
  local sum stamp=$LEAF_PROGRAMS/.made-from
  sum=$(sum_of_tree leaf)
  [ -f $stamp ] && [ "$(cat $stamp)" = "$sum" ] && return
  [ -w . ] || fail "This checkout belongs to somebody else: run this as its owner, or with sudo"
  set_up_packages "${LEAF_PACKAGES[@]}"
  rust_path
  step "Leaf server" build_leaf
  printf '%s\n' "$sum" > $stamp
}

set_up() {
  local lock=requirements.lock packages=("${RUN_PACKAGES[@]}")
  if [ "$1" = test ]; then lock=requirements-dev.lock packages+=("${TEST_PACKAGES[@]}"); fi
  set_up_packages "${packages[@]}"
  set_up_python $lock
  set_up_pages
  set_up_leaf
}
