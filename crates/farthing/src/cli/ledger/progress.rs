//! One line that is written over, for people who wait.

use std::io::{IsTerminal, Write};

/// The line of a terminal; nothing at all where standard error is none.
#[derive(Debug, Clone, Copy)]
pub struct Line {
    on: bool,
}

impl Line {
    pub fn new() -> Self {
        Self { on: std::io::stderr().is_terminal() }
    }

    pub fn show(self, text: &str) {
        if self.on {
            // Nobody who looks at it is missed.
            let _ = write!(std::io::stderr(), "\r\x1b[K{text}");
        }
    }

    pub fn clear(self) {
        self.show("");
    }
}
