# The leaf server, a program in Rust: its compiler, its lock file, its build. Sourced by setup.sh,
# and by hatch_build.py where there is nothing but the unpacked sources.
# shellcheck shell=bash

LEAF_PROGRAMS=src/anabranch/media/bin
LEAF_PACKAGES=(gcc libc6-dev pkg-config libssl-dev)

# Whether a Rust is here that is as new as leaf/Cargo.toml wants it.
has_rust() {
  local wanted found
  wanted=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' leaf/Cargo.toml)
  found=$(rustc --version 2>/dev/null | cut -d' ' -f2) || return 1
  command -v cargo >/dev/null && printf '%s\n' "$wanted" "$found" | sort -CV
}

# The line by which cargo's lock files name where packages come from, as this cargo spells it: it
# locks a package of an own folder that stands in for the registry. Needs no network.
source_line() {
  local work
  work=$(mktemp -d) || return
  mkdir -p "$work/src" "$work/packages/any/src"
  touch "$work/src/lib.rs" "$work/packages/any/src/lib.rs"
  printf '[package]\nname = "any"\nversion = "1.0.0"\n' > "$work/packages/any/Cargo.toml"
  printf '{"files": {}, "package": null}' > "$work/packages/any/.cargo-checksum.json"
  printf '[package]\nname = "locked"\n[dependencies]\nany = "1"\n[workspace]\n' > "$work/Cargo.toml"
  cargo generate-lockfile --quiet --offline --manifest-path "$work/Cargo.toml" \
    --config 'source.crates-io.replace-with = "folder"' \
    --config "source.folder.directory = '$work/packages'" &&
    grep '^source = ' "$work/Cargo.lock"
  local code=$?
  rm -rf "$work"
  return $code
}

# leaf/crates.lock has versions and hashes, and no address of a registry; cargo wants one in
# leaf/Cargo.lock for every package that has a hash.
write_cargo_lock() {
  local line
  line=$(source_line) || return
  awk -v line="$line" '/^checksum = / { print line } { print }' leaf/crates.lock > leaf/Cargo.lock
}

# cargo_leaf COMMAND ARGUMENTS...: cargo with what is locked, and one place for what it makes.
cargo_leaf() {
  cargo "$1" --locked --manifest-path leaf/Cargo.toml --target-dir .cache/leaf "${@:2}"
}

build_leaf() {
  write_cargo_lock &&
    cargo_leaf build --release -p anabranch-leaf -p leaf-load &&
    install -D -t $LEAF_PROGRAMS .cache/leaf/release/anabranch-leaf .cache/leaf/release/leaf-load
}
