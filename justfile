# The usual errands. `just` alone lists them. Each is one command that also works without just.

export CARGO_TERM_COLOR := "always"

_default:
    @just --list --unsorted

# Everything that must hold before a change goes in.
test *args:
    scripts/test {{args}}

# The Rust tests of one crate: just t wire
t crate *args:
    cargo test -p farthing-{{crate}} {{args}}

# The whole journey on an embedded chain, in under half a minute.
demo *args:
    cargo run --release -- demo {{args}}

# Kills gateways, a facilitator and wallets under load, cuts their nodes off, and compares everybody's books.
kills n="100" *args: _packages
    cargo build --release
    node scripts/e2e/hundred-kills.mjs --kills {{n}} {{args}}

# Seeded worlds over the production code: just sim 10000; just sim --seed 77 --shrink
sim *args:
    cargo run --release -q -p farthing-sim --bin sim -- {{args}}

# Breaks each guard on purpose, and sees that the simulator notices.
sim-mutants *args:
    scripts/sim-mutants {{args}}

# Functions by criterion, servers by load; every number beside its peer or its limit.
bench *args:
    scripts/bench {{args}}

# Saturation, latencies, cost as payers and history grow; writes docs/reference/performance.md.
load-report *args:
    scripts/load-report {{args}}

# Feeds strangers' bytes to every parser that meets them: just fuzz --seconds 600 --jobs 2
fuzz *args:
    scripts/fuzz {{args}}

# Every pairing with the published packages, on a real chain node.
interop *args: _packages
    cargo build --release
    node interop/x402/run.mjs {{args}}

# A chain with real USDC and Permit2, until it is stopped: just world --port 8545
world *args: _packages
    node interop/support/world.mjs {{args}}

# Writes the golden vectors anew from the published packages.
vectors: _packages
    for script in interop/vectors/generate-*.mjs; do node "$script"; done

# Compiles the contracts; the artifacts are committed.
contracts: _packages
    node contracts/build.mjs

fmt:
    cargo fmt --all

lint:
    cargo clippy --workspace --all-targets -- -D warnings

# Licences, advisories and bans of what we depend on. Needs cargo-deny.
deny:
    cargo deny check

_packages:
    scripts/test --only packages
