//! Watching the configuration and the certificates, and going on with new ones if they are good.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc;

use super::Gateway;
use crate::config::Config;

/// How often files are looked at.
pub const LOOK_EVERY: Duration = Duration::from_secs(2);

/// When files were last changed, and how long they are: enough to notice that they were.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look(Vec<Option<(SystemTime, u64)>>);

impl Look {
    pub fn at(files: &[&Path]) -> Self {
        let one = |file: &&Path| {
            let meta = std::fs::metadata(file).ok()?;
            Some((meta.modified().ok()?, meta.len()))
        };
        Self(files.iter().map(one).collect())
    }
}

/// Reloads when the file or a certificate changes, and whenever `asked` yields. Never returns.
pub async fn watch(gateway: Gateway, file: PathBuf, mut asked: mpsc::Receiver<()>) {
    let certificates = |gateway: &Gateway| match gateway.certificate() {
        Some(certificate) => Look::at(&certificate.files()),
        None => Look::at(&[]),
    };
    let (mut seen_config, mut seen_certificates) = (Look::at(&[&file]), certificates(&gateway));
    loop {
        let mut forced = false;
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            Some(()) = asked.recv() => forced = true,
        }
        let config = Look::at(&[&file]);
        if forced || config != seen_config {
            seen_config = config;
            report("configuration", reload_config(&gateway, &file));
        }
        let certificate = certificates(&gateway);
        if forced || certificate != seen_certificates {
            seen_certificates = certificate;
            if let Some(certificate) = gateway.certificate() {
                report("certificate", certificate.reload().map_err(|error| error.to_string()));
            }
        }
    }
}

/// Reads the file and goes on with it, or says why not.
pub fn reload_config(gateway: &Gateway, file: &Path) -> Result<(), String> {
    let config = Config::load(file).map_err(|error| error.to_string())?;
    let config = config.gateway.ok_or("the file has no [gateway] section any more")?;
    gateway.reload(&config).map_err(|error| error.to_string())
}

fn report(what: &str, result: Result<(), String>) {
    match result {
        Ok(()) => tracing::info!("the {what} was reloaded"),
        Err(error) => tracing::error!(%error, "the new {what} is not used; the old one stays"),
    }
}
