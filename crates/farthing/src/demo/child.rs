//! Processes of this same binary, started by their public commands, and gone with whoever started them.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::cli::Failure;

/// How long a service may take until it says that it listens.
const READY_WITHIN: Duration = Duration::from_secs(10);

/// A folder that is removed with its last user.
#[derive(Debug)]
pub struct TempDir(PathBuf);

impl TempDir {
    pub fn new() -> std::io::Result<Self> {
        let mut random = [0u8; 8];
        getrandom::fill(&mut random).map_err(std::io::Error::other)?;
        let path = std::env::temp_dir().join(format!("farthing-demo-{}", hex::encode(random)));
        // Keys lie in it, though everybody knows them.
        let mut builder = std::fs::DirBuilder::new();
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(&path)?;
        Ok(Self(path))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        // What cannot be removed is left to the system's own cleaning.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A running service.
#[derive(Debug)]
pub struct Service {
    pub url: String,
    // Killed when dropped.
    child: Child,
}

impl Service {
    /// The number of its process.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Ends it by SIGKILL: it learns nothing of that, and can tidy nothing up.
    pub async fn kill(&mut self) -> std::io::Result<()> {
        self.child.kill().await
    }
}

/// A command of this binary.
pub fn command<I, S>(program: &Path, args: I) -> Command
where
    I: IntoIterator<Item = S>,
    S: AsRef<OsStr>,
{
    let mut command = Command::new(program);
    command.args(args).kill_on_drop(true);
    // What the surroundings say of other worlds must not reach into this one.
    for (name, _) in std::env::vars_os() {
        let name_text = name.to_string_lossy();
        if name_text.starts_with("FARTHING_") && name_text != "FARTHING_LOG" {
            command.env_remove(&name);
        }
    }
    command
}

/// Starts a service and waits until it says where it listens.
pub async fn serve(mut command: Command, name: &str) -> Result<Service, Failure> {
    let failed = |why: String| Failure::failed(format!("{name} did not start: {why}"));
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().map_err(|error| failed(error.to_string()))?;
    let stdout = child.stdout.take().ok_or_else(|| failed("no standard output".to_owned()))?;
    let mut lines = BufReader::new(stdout).lines();
    let ready = async {
        while let Some(line) = lines.next_line().await.map_err(|error| failed(error.to_string()))? {
            let said: Value = serde_json::from_str(&line).unwrap_or_default();
            if let Some(url) = said["url"].as_str() {
                return Ok(url.trim_end_matches('/').to_owned());
            }
        }
        Err(failed("it ended".to_owned()))
    };
    let url = tokio::time::timeout(READY_WITHIN, ready)
        .await
        .map_err(|_| failed(format!("it said nothing within {READY_WITHIN:?}")))??;
    // A service that prints more must not stop on a full pipe.
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    Ok(Service { url, child })
}

/// What a command that ended has said.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Said {
    /// The output of a command that printed one JSON value.
    pub fn json(&self) -> Option<Value> {
        serde_json::from_str(self.stdout.trim()).ok()
    }
}

/// Runs a command to its end.
pub async fn output(mut command: Command) -> Result<Said, Failure> {
    let done = command
        .stdin(Stdio::null())
        .output()
        .await
        .map_err(|error| Failure::failed(format!("a command could not be run: {error}")))?;
    Ok(Said {
        code: done.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&done.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&done.stderr).into_owned(),
    })
}

/// Runs a command that has to succeed.
pub async fn succeed(command: Command, what: &str) -> Result<Said, Failure> {
    let said = output(command).await?;
    if said.code == 0 {
        return Ok(said);
    }
    Err(Failure::failed(format!("{what}: exit code {}: {}{}", said.code, said.stdout, said.stderr.trim())))
}
