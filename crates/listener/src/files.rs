use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::Limits;

/// Open files that are kept for everything but clients: the store, nodes, upstreams in use.
pub const RESERVED_FILES: u64 = 256;

/// Lets this process open as many files as the system allows it to, and returns how many that is.
///
/// A connection is a file, and the customary limit is 1024: one stranger could use them all, and then neither the
/// upstream nor a node could be reached.
pub fn raise_file_limit() -> u64 {
    let now = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: now.maximum, maximum: now.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "the limit on open files cannot be raised");
    }
    open_files()
}

fn open_files() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// How many connections there may be, so that half of the files are left for what is done on their behalf.
pub(crate) fn most_connections(wanted: usize) -> usize {
    let most = open_files().saturating_sub(RESERVED_FILES) / 2;
    let most = usize::try_from(most).unwrap_or(usize::MAX).max(1);
    const WHY: &str = "fewer connections than configured: the limit on open files (ulimit -n)";
    if most < wanted && wanted == Limits::default().max_connections {
        // Nobody asked for so many.
        tracing::info!(wanted, most, "{WHY}");
    } else if most < wanted {
        tracing::warn!(wanted, most, "{WHY}");
    }
    wanted.min(most)
}
