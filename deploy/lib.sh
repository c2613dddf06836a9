# What deploy/demo, deploy/test and deploy/chaos share: finds out what a bare Debian 12 or 13 lacks, and installs that.
# To be sourced by bash. Safe to run again: with nothing missing it changes nothing and asks no network.

say() { printf '%s\n' "deploy: $*" >&2; }
die() { say "$*"; exit 1; }

# PostgreSQL's programs are not on Debian's PATH.
has_postgres() {
  command -v initdb >/dev/null && command -v postgres >/dev/null && return
  compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null
}

# Whether this machine can boot a systemd in a box (see tests/box).
can_box() {
  [ "$(id -u)" = 0 ] && [ -x "${SYSTEMD_BOX:-../shared/systemd-box}" ] && grep -qw cgroup2 /proc/filesystems
}

# package:why, for each thing that is missing.
missing() {
  command -v cc >/dev/null || echo 'gcc:the linker, and C parts of two crates'
  [ -e /usr/include/stdlib.h ] || echo 'libc6-dev:the C library to link with'
  command -v make >/dev/null || echo 'make:the build of a C part'
  has_postgres || echo 'postgresql:the embedded database, and the tests'
  command -v psql >/dev/null || echo 'postgresql-client:trackd psql'
  [ -e /etc/ssl/certs/ca-certificates.crt ] || echo 'ca-certificates:https'
  [ "${1-}" != package ] || command -v dpkg-shlibdeps >/dev/null || echo 'dpkg-dev:what the package depends on'
  [ "${1-}" != package ] || command -v lintian >/dev/null || echo 'lintian:what Debian expects of a package'
  [ "${1-}" != test ] || command -v jq >/dev/null || echo 'jq:the tests compare with it'
  [ "${1-}" != test ] || [ -x /usr/sbin/pgbouncer ] || echo 'pgbouncer:the tests connect through it'
  [ "${1-}" != chaos ] || compgen -G '/usr/lib/*/faketime/libfaketimeMT.so.1' >/dev/null ||
    echo 'libfaketime:clocks of daemons are stepped'
  if [ "${1-}" = test ] && can_box; then
    command -v systemd-nspawn >/dev/null || echo 'systemd-container:a box with a systemd of its own'
    command -v mmdebstrap >/dev/null || echo 'mmdebstrap:what is in the box'
  fi
  [ "${1-}" != test ] || command -v curl >/dev/null || echo 'curl:the tests ask the pages with it'
}

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"
  elif command -v sudo >/dev/null; then sudo "$@"
  else die "this needs root: run as root: $*"; fi
}

install_missing() {
  local lines packages=() package why
  lines=$(missing "${1-}")
  [ -n "$lines" ] || return 0
  command -v apt-get >/dev/null || die "missing, and there is no apt-get to install it with: $lines"
  while IFS=: read -r package why; do
    say "installs $package ($why)"
    packages+=("$package")
  done <<<"$lines"
  # A cluster of the system's own is not wanted: trackd and the tests make theirs.
  if [[ " ${packages[*]} " == *' postgresql '* && ! -e /etc/postgresql-common/createcluster.conf ]]; then
    say 'writes /etc/postgresql-common/createcluster.conf: no cluster of the system is started'
    as_root mkdir -p /etc/postgresql-common
    echo 'create_main_cluster = false' | as_root tee /etc/postgresql-common/createcluster.conf >/dev/null
  fi
  as_root apt-get update -q
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends \
    -o Dpkg::Options::=--force-confold "${packages[@]}"
}

find_cargo() {
  command -v cargo >/dev/null || PATH=$HOME/.cargo/bin:$PATH
  command -v cargo >/dev/null || die 'no cargo: install Rust 1.90 or later (https://rustup.rs, or apt-get install rustup)'
}
