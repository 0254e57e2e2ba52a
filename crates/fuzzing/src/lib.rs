//! What a stranger's bytes must never do: one function for each group of parsers, which panics if a law is broken.
//!
//! A fuzzer drives them (`fuzz/`, `scripts/fuzz`), and `tests/corpus.rs` replays everything that the fuzzer found
//! worth keeping, on the stable compiler, in every run of the tests. The laws go beyond "no panic": what is read
//! prints and reads back as itself, one meaning has one spelling, an answer is never larger than the question, and
//! where somebody else's reader exists, both agree.
//!
//! Some parsers are private to their crates. Their very files are read here a second time, rather than opening the
//! crates for the sake of a test.

// Here a panic is the report.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic)]

pub mod codec_peer;
mod edit;
mod input;
mod money;
pub mod seeds;
mod targets;
mod templates;

#[path = "../../store/src/codec.rs"]
#[allow(dead_code)]
mod codec;
#[path = "../../farthing/src/config/document.rs"]
#[allow(dead_code, unreachable_pub)]
mod document;
#[path = "../../paywall/src/session/events.rs"]
#[allow(dead_code, unreachable_pub)]
mod events;
#[path = "../../guard/src/protocol/mod.rs"]
#[allow(dead_code, unreachable_pub)]
mod guard_protocol;
#[path = "../../guard/src/hook/message.rs"]
#[allow(dead_code, unreachable_pub)]
mod hook_message;
#[path = "../../wallet/src/client/last_id.rs"]
mod last_id;
#[path = "../../guard/src/lines.rs"]
#[allow(unreachable_pub)]
mod lines;
#[path = "../../store/src/pack.rs"]
#[allow(dead_code)]
mod pack;
#[path = "../../proxy/src/headers.rs"]
mod proxy_headers;
#[path = "../../proxy/src/target.rs"]
#[allow(dead_code)]
mod proxy_target;
#[path = "../../store/src/record.rs"]
#[allow(dead_code)]
mod record;
#[path = "../../chain/src/wire.rs"]
#[allow(dead_code)]
mod rpc_wire;
#[path = "../../engine/src/slot_call.rs"]
#[allow(dead_code, unreachable_pub)]
mod slot_call;
#[path = "../../wallet/src/record.rs"]
#[allow(dead_code)]
mod wallet_record;
#[path = "../../guard/src/whom.rs"]
#[allow(dead_code, unreachable_pub)]
mod whom;

// As `proxy_target` names it.
use farthing_proxy::Problem;

/// A group of parsers that is fuzzed together.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    pub name: &'static str,
    /// Panics if a law is broken.
    pub run: fn(&[u8]),
    /// The longest input worth trying, in bytes.
    pub max_len: usize,
}

/// All targets. `fuzz/fuzz_targets` has a file for each, and `fuzz/corpus` a folder.
pub const TARGETS: &[Target] = &[
    Target { name: "json", run: targets::json::run, max_len: 4096 },
    Target { name: "payment", run: targets::payment::run, max_len: 8192 },
    Target { name: "challenge", run: targets::challenge::run, max_len: 8192 },
    Target { name: "facilitator", run: targets::facilitator::run, max_len: 8192 },
    Target { name: "names", run: targets::names::run, max_len: 512 },
    Target { name: "evm", run: targets::evm::run, max_len: 2048 },
    Target { name: "recall", run: targets::recall::run, max_len: 2048 },
    Target { name: "path", run: targets::path::run, max_len: 512 },
    Target { name: "stored", run: targets::stored::run, max_len: 2048 },
    Target { name: "rpc", run: targets::rpc::run, max_len: 4096 },
    Target { name: "mpp_challenge", run: targets::mpp::challenge, max_len: 4096 },
    Target { name: "mpp_credential", run: targets::mpp::credential, max_len: 8192 },
    Target { name: "mpp_stream", run: targets::mpp::stream, max_len: 4096 },
    Target { name: "documents", run: targets::documents::run, max_len: 4096 },
    Target { name: "events", run: targets::events::run, max_len: 1024 },
    Target { name: "stripe", run: targets::stripe::run, max_len: 2048 },
    Target { name: "policy", run: targets::policy::run, max_len: 2048 },
    Target { name: "toolpolicy", run: targets::toolpolicy::run, max_len: 2048 },
    Target { name: "approval", run: targets::approval::run, max_len: 2048 },
    Target { name: "audit", run: targets::audit::run, max_len: 2048 },
    Target { name: "guard", run: targets::guard::run, max_len: 4096 },
    Target { name: "ap2", run: targets::ap2::run, max_len: 4096 },
    Target { name: "proxy", run: targets::proxy::run, max_len: 1024 },
];

/// Runs the target of this name.
///
/// # Panics
/// If there is none, or if a law is broken.
pub fn run(name: &str, data: &[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name).expect("a target of this name");
    (target.run)(data);
}
