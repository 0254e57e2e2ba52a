//! How long a program takes from its start to its first answer.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use farthing_load::http::{HttpError, Target};

/// How often it is asked.
const EVERY: Duration = Duration::from_micros(250);
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot start {0}: {1}")]
    Spawn(String, std::io::Error),
    #[error(transparent)]
    Url(#[from] HttpError),
    #[error("{0} ended before it answered")]
    Ended(String),
    #[error("{0} did not answer in time")]
    Silent(String),
}

/// Starts `program` and waits until `url` answers 200; ends it.
pub fn until_ready(program: &str, args: &[String], url: &str) -> Result<Duration, StartError> {
    let target = Target::parse(url)?;
    let began = Instant::now();
    let child = Command::new(program).args(args).stdin(Stdio::null()).stdout(Stdio::null()).spawn();
    let mut child = Ending(child.map_err(|error| StartError::Spawn(program.to_owned(), error))?);
    loop {
        if answers(&target) {
            return Ok(began.elapsed());
        }
        if matches!(child.0.try_wait(), Ok(Some(_))) {
            return Err(StartError::Ended(program.to_owned()));
        }
        if began.elapsed() > PATIENCE {
            return Err(StartError::Silent(program.to_owned()));
        }
        std::thread::sleep(EVERY);
    }
}

/// Runs `program` to its end.
pub fn until_ended(program: &str, args: &[String]) -> Result<Duration, StartError> {
    let failed = |error| StartError::Spawn(program.to_owned(), error);
    let began = Instant::now();
    let status = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .map_err(failed)?;
    if status.success() { Ok(began.elapsed()) } else { Err(StartError::Ended(program.to_owned())) }
}

struct Ending(Child);

impl Drop for Ending {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn answers(target: &Target) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect(target.authority())?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(
            stream,
            "GET {} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n",
            target.path(),
            target.authority()
        )?;
        let mut head = [0u8; 12];
        stream.read_exact(&mut head)?;
        Ok(&head == b"HTTP/1.1 200")
    };
    ask().unwrap_or(false)
}
