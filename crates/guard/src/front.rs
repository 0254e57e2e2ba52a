use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use farthing_policy::AgentName;

/// Which fronts are connected now. What a front holds that is gone may be taken over.
#[derive(Clone, Default)]
pub(crate) struct Fronts(Arc<Mutex<HashMap<String, usize>>>);

impl Fronts {
    /// Notes a connection of an agent's front, for as long as what is returned lives; `None` if the agent has `most`.
    pub fn enter(&self, agent: &AgentName, front: &str, most: usize) -> Option<Present> {
        // No name of an agent has this sign, so that no front of one is taken for another's.
        let prefix = format!("{agent}@");
        let mut fronts = self.lock();
        let open: usize = fronts.iter().filter(|(name, _)| name.starts_with(&prefix)).map(|(_, n)| n).sum();
        if open >= most {
            return None;
        }
        let name = format!("{prefix}{front}");
        *fronts.entry(name.clone()).or_default() += 1;
        drop(fronts);
        Some(Present { fronts: self.clone(), name })
    }

    pub fn is_there(&self, name: &str) -> bool {
        self.lock().contains_key(name)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Fronts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fronts")
    }
}

/// A connection of a front.
#[derive(Debug)]
pub(crate) struct Present {
    fronts: Fronts,
    name: String,
}

impl Present {
    /// The front's name, among all agents' fronts.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        let mut fronts = self.fronts.lock();
        if let Some(left) = fronts.get_mut(&self.name) {
            *left = left.saturating_sub(1);
            if *left == 0 {
                fronts.remove(&self.name);
            }
        }
    }
}
