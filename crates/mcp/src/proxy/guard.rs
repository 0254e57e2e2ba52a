//! The policy in force, its counters, and which definitions of tools are accepted.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::SystemTime;

use farthing_primitives::Timestamp;
use farthing_toolguard::{
    Call, Decision, Key, MAX_POLICY_BYTES, Policy, Reason, Reservation, Tally, decide, decide_spend, keys_of,
    loosened, read,
};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::state::{Counters, State, StateError};

/// A policy as it was in its file.
#[derive(Debug, Clone)]
pub struct Loaded {
    pub policy: Arc<Policy>,
    /// SHA-256 of the text.
    pub hash: [u8; 32],
}

#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("{path}: {error}")]
    Io { path: String, error: std::io::Error },
    /// One problem a line, each with its line and column.
    #[error("{0}")]
    Invalid(String),
}

impl Loaded {
    pub fn read(path: &Path) -> Result<Self, LoadError> {
        use std::io::Read as _;
        let shown = path.display().to_string();
        let io = |error| LoadError::Io { path: shown.clone(), error };
        let mut text = String::new();
        let file = std::fs::File::open(path).map_err(io)?;
        // One byte more than is read, so that what is too long is seen to be.
        file.take(MAX_POLICY_BYTES as u64 + 1).read_to_string(&mut text).map_err(io)?;
        let done = read(&text);
        match done.policy {
            Some(policy) => {
                Ok(Self { policy: Arc::new(policy), hash: Sha256::digest(text.as_bytes()).into() })
            }
            None => {
                let lines: Vec<String> = done.problems.iter().map(|one| format!("{shown}:{one}")).collect();
                Err(LoadError::Invalid(lines.join("\n")))
            }
        }
    }
}

/// What came of looking at the policy's file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reload {
    Unchanged,
    /// The new policy is in force.
    Taken,
    /// It cannot be read, so the old one stays.
    Invalid(String),
    /// It lets through what the old one does not, so the old one stays until the owner accepts it.
    Looser(Vec<String>),
}

/// What a file looks like from outside. Also a file that takes another's name is another one.
type Mark = (Option<SystemTime>, u64, u64);

#[derive(Debug)]
pub struct Guard {
    path: PathBuf,
    state: Arc<State>,
    loaded: RwLock<Loaded>,
    /// A looser policy is taken without asking.
    loosen: bool,
    /// What was seen last, and what was said of it.
    looked: Mutex<(Option<Mark>, Option<[u8; 32]>)>,
}

impl Guard {
    pub fn new(path: PathBuf, loaded: Loaded, state: Arc<State>, loosen: bool) -> Self {
        Self { looked: Mutex::new((mark(&path), None)), path, state, loaded: RwLock::new(loaded), loosen }
    }

    pub fn policy(&self) -> Arc<Policy> {
        self.loaded.read().unwrap_or_else(PoisonError::into_inner).policy.clone()
    }

    pub fn state(&self) -> &Arc<State> {
        &self.state
    }

    /// Looks whether the file is another one, and takes what it says if that is no looser, or was accepted.
    pub fn reload(&self) -> Reload {
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        let now = mark(&self.path);
        // A looser one that waits is asked about again: it may have been accepted meanwhile.
        if now == looked.0 && looked.1.is_none() {
            return Reload::Unchanged;
        }
        let first_sight = now != looked.0;
        looked.0 = now;
        let loaded = match Loaded::read(&self.path) {
            Ok(loaded) => loaded,
            Err(error) => {
                looked.1 = None;
                return if first_sight { Reload::Invalid(error.to_string()) } else { Reload::Unchanged };
            }
        };
        let mut current = self.loaded.write().unwrap_or_else(PoisonError::into_inner);
        if loaded.hash == current.hash {
            looked.1 = None;
            return Reload::Unchanged;
        }
        let looser = loosened(&current.policy, &loaded.policy);
        let accepted =
            looser.is_empty() || self.loosen || self.state.is_accepted(&loaded.hash).unwrap_or(false);
        if accepted {
            looked.1 = None;
            *current = loaded;
            return Reload::Taken;
        }
        if looked.1.replace(loaded.hash) == Some(loaded.hash) {
            return Reload::Unchanged;
        }
        Reload::Looser(looser.iter().map(ToString::to_string).collect())
    }

    /// Decides on a call and counts it. Waits for a disk.
    pub fn decide(&self, policy: &Policy, call: &Call<'_>, approved: bool, now: Timestamp) -> Decision {
        self.count(&keys_of(policy, call.tool), |tallies| decide(policy, call, tallies, now, approved))
    }

    /// Decides on what a call costs and counts it. Waits for a disk.
    pub fn decide_spend(
        &self,
        policy: &Policy,
        tool: &str,
        dollars: Option<u128>,
        now: Timestamp,
    ) -> Decision {
        self.count(&policy.spend_keys(tool), |tallies| decide_spend(policy, tool, dollars, tallies, now))
    }

    fn count(
        &self,
        keys: &BTreeSet<Key>,
        mut step: impl FnMut(&mut BTreeMap<Key, Tally>) -> Decision,
    ) -> Decision {
        // Without counters there is nothing to keep.
        if keys.is_empty() {
            return step(&mut BTreeMap::new());
        }
        let mut decision = None;
        let done = self.state.change(keys, &mut |tallies| decision = Some(step(tallies)));
        match (done, decision) {
            (Ok(()), Some(decision)) => decision,
            // A denial needs no counter.
            (Err(_), Some(decision @ Decision::Denied(_))) => decision,
            (failed, _) => {
                if let Err(error) = failed {
                    tracing::error!(%error, "a call is denied: its counters cannot be used");
                }
                let text = "the policy's counters cannot be used now".to_owned();
                let retry_after = None;
                Decision::Denied(vec![Reason { code: "state_unavailable", rule: None, text, retry_after }])
            }
        }
    }

    /// Takes back what a call counted that never left. Waits for a disk.
    pub fn give_back(&self, reservation: &Reservation) {
        let keys: BTreeSet<Key> = reservation.0.iter().map(|taken| taken.key.clone()).collect();
        if keys.is_empty() {
            return;
        }
        if let Err(error) = self.state.change(&keys, &mut |tallies| reservation.give_back(tallies)) {
            tracing::warn!(%error, "what a call counted that never left stays counted");
        }
    }

    /// The tools whose definition is not the one that the policy names, or else that was seen first.
    pub fn changed(
        &self,
        seen: &[(String, [u8; 32])],
        accept: bool,
        now: Timestamp,
    ) -> Result<BTreeSet<String>, StateError> {
        let policy = self.policy();
        let (pinned, free): (Vec<_>, Vec<_>) =
            seen.iter().cloned().partition(|(tool, _)| policy.pins.contains_key(tool));
        let mut changed = self.state.pin(&free, accept, now)?;
        let differs = pinned.into_iter().filter(|(tool, hash)| policy.pins.get(tool) != Some(hash));
        changed.extend(differs.map(|(tool, _)| tool));
        Ok(changed)
    }
}

fn mark(path: &Path) -> Option<Mark> {
    let meta = std::fs::metadata(path).ok()?;
    #[cfg(unix)]
    let inode = std::os::unix::fs::MetadataExt::ino(&meta);
    #[cfg(not(unix))]
    let inode = 0;
    Some((meta.modified().ok(), meta.len(), inode))
}

/// What somebody is asked to agree to.
#[derive(Debug)]
pub struct Ask<'a> {
    pub server: &'a str,
    pub tool: &'a str,
    pub arguments: &'a Map<String, Value>,
    pub rule: &'a str,
    pub timeout: Option<std::time::Duration>,
}

/// Who is asked for approval.
pub trait Approvals: Send + Sync + std::fmt::Debug {
    /// Whether somebody agreed to exactly this call. Silence is a no; asking for the same again asks nobody twice.
    fn is_approved(&self, ask: &Ask<'_>) -> bool;
}

/// Nobody can be asked, so nobody agrees.
#[derive(Debug, Clone, Copy)]
pub struct NobodyToAsk;

impl Approvals for NobodyToAsk {
    fn is_approved(&self, _: &Ask<'_>) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "version: \"1\"\ndefault: deny\ntools:\n  t:\n    rules:\n      - ";

    fn limit(n: u32) -> String {
        format!("{HEAD}{{ name: r, rate_limit: {n}/day }}\n")
    }

    /// Writes a file beside the other and gives it its name, as editors do.
    fn replace(path: &Path, text: &str) {
        let beside = path.with_extension("new");
        std::fs::write(&beside, text).unwrap();
        std::fs::rename(&beside, path).unwrap();
    }

    fn guard(dir: &Path, loosen: bool) -> (PathBuf, Guard) {
        let path = dir.join("policy.yaml");
        std::fs::write(&path, limit(2)).unwrap();
        let state = Arc::new(State::open(&dir.join("state.db")).unwrap());
        (path.clone(), Guard::new(path.clone(), Loaded::read(&path).unwrap(), state, loosen))
    }

    fn call(guard: &Guard) -> bool {
        let (policy, arguments) = (guard.policy(), Map::new());
        let call = Call { tool: "t", arguments: &arguments };
        let now = Timestamp::from_secs(1_795_348_800);
        matches!(guard.decide(&policy, &call, false, now), Decision::Allowed(_))
    }

    #[test]
    fn a_stricter_policy_is_taken_a_looser_one_when_it_is_accepted_and_a_broken_one_never() {
        let dir = tempfile::tempdir().unwrap();
        let (path, guard) = guard(dir.path(), false);
        assert!(call(&guard));
        assert_eq!(guard.reload(), Reload::Unchanged);
        replace(&path, "version: 7");
        assert!(matches!(guard.reload(), Reload::Invalid(text) if text.contains("policy.yaml:1:10")));
        assert_eq!(guard.reload(), Reload::Unchanged);
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(guard.reload(), Reload::Invalid(_)));
        assert!(call(&guard));
        replace(&path, &limit(3));
        assert!(matches!(guard.reload(), Reload::Looser(what) if what.len() == 1));
        assert_eq!(guard.reload(), Reload::Unchanged);
        assert!(!call(&guard), "the old limit holds");
        guard.state().accept(&Loaded::read(&path).unwrap().hash).unwrap();
        assert_eq!(guard.reload(), Reload::Taken);
        // What was counted under the old policy counts under the new one.
        assert!(call(&guard) && !call(&guard));
        replace(&path, &limit(1));
        assert_eq!(guard.reload(), Reload::Taken);
        assert!(!call(&guard));
    }

    #[test]
    fn a_looser_policy_is_taken_at_once_if_the_owner_said_so() {
        let dir = tempfile::tempdir().unwrap();
        let (path, guard) = guard(dir.path(), true);
        replace(&path, &limit(3));
        assert_eq!(guard.reload(), Reload::Taken);
    }

    #[test]
    fn a_definition_that_the_policy_names_is_the_only_one() {
        let dir = tempfile::tempdir().unwrap();
        let (path, guard) = guard(dir.path(), false);
        let now = Timestamp::from_secs(1);
        let seen = |hash: u8| vec![("t".to_owned(), [hash; 32])];
        assert!(guard.changed(&seen(1), false, now).unwrap().is_empty());
        assert!(!guard.changed(&seen(2), false, now).unwrap().is_empty());
        let pins = format!("{}pins: {{ t: sha256:{} }}\n", limit(2), hex::encode([2; 32]));
        replace(&path, &pins);
        assert_eq!(guard.reload(), Reload::Taken);
        assert!(guard.changed(&seen(2), false, now).unwrap().is_empty());
        assert!(!guard.changed(&seen(1), true, now).unwrap().is_empty(), "accepting goes by the policy");
    }
}
