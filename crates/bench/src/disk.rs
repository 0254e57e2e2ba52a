//! What the disk itself can sync: one small write and one `fdatasync` after another, by one thread.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;

const BLOCK: [u8; 4096] = [1; 4096];

#[derive(Debug, Serialize)]
pub struct Syncs {
    /// In a second.
    pub rate: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
}

/// Syncs below `dir` for so long.
pub fn measure(dir: &Path, length: Duration) -> std::io::Result<Syncs> {
    let scratch = tempfile::tempdir_in(dir)?;
    let mut file = OpenOptions::new().create_new(true).append(true).open(scratch.path().join("sync"))?;
    let mut took_ms = Vec::new();
    let began = Instant::now();
    while began.elapsed() < length || took_ms.is_empty() {
        let one = Instant::now();
        file.write_all(&BLOCK)?;
        file.sync_data()?;
        took_ms.push(one.elapsed().as_secs_f64() * 1000.0);
    }
    let rate = took_ms.len() as f64 / began.elapsed().as_secs_f64();
    took_ms.sort_unstable_by(f64::total_cmp);
    let at = |part: usize| took_ms.get((took_ms.len() - 1) * part / 100).copied().unwrap_or(0.0);
    Ok(Syncs { rate, p50_ms: at(50), p99_ms: at(99) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_disk_syncs() {
        let dir = tempfile::tempdir().unwrap();
        let syncs = measure(dir.path(), Duration::from_millis(5)).unwrap();
        assert!(syncs.rate > 0.0 && syncs.p50_ms <= syncs.p99_ms);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
