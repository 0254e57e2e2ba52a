//! Which process works on a purchase, so that another knows whether to wait for it or to take over.

use std::sync::Arc;

/// Names the process that uses a journal, and tells which others are gone.
#[derive(Clone)]
pub(crate) struct Processes {
    pub this: String,
    pub is_gone: Arc<dyn Fn(&str) -> bool + Send + Sync>,
}

impl Processes {
    pub fn of_system() -> Self {
        Self { this: this_process(), is_gone: Arc::new(is_gone) }
    }
}

/// Names this process: the boot, its number, and when it started, because numbers are used again. Empty where the system
/// does not say, and then nothing is ever taken over unasked.
fn this_process() -> String {
    name(std::process::id()).unwrap_or_default()
}

/// Whether the process of that name is surely gone.
fn is_gone(holder: &str) -> bool {
    let Some(pid) = holder.split(':').nth(1).and_then(|pid| pid.parse().ok()) else { return false };
    // Without a name of our own the system does not say, and then a missing one says nothing.
    name(std::process::id()).is_some() && name(pid).as_deref() != Some(holder)
}

/// Linux only.
fn name(pid: u32) -> Option<String> {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The program's name comes in parentheses and may hold blanks; the start is the 20th field after it.
    let (_, rest) = stat.rsplit_once(')')?;
    let started = rest.split_whitespace().nth(19)?;
    Some(format!("{}:{pid}:{started}", boot.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_ended_is_gone_and_this_one_is_not() {
        assert!(!is_gone(&this_process()));
        assert!(!is_gone(""), "what is not known is not taken over");
        if cfg!(target_os = "linux") {
            let (before_start, _) =
                this_process().rsplit_once(':').map(|(a, b)| (a.to_owned(), b.len())).unwrap();
            assert!(is_gone(&format!("{before_start}:1")), "another process of the same number");
            let mut child = std::process::Command::new("true").spawn().unwrap();
            let holder = name(child.id());
            child.wait().unwrap();
            assert!(holder.is_none_or(|holder| is_gone(&holder)));
        }
    }
}
