//! What the person at the terminal reads while a stack starts.

use std::fmt::Display;
use std::io::Write;
use std::time::Instant;

/// Prints one line. A reader that has gone away must not stop the work.
pub fn line(text: impl Display) {
    writeln!(std::io::stdout(), "{text}").ok();
}

/// Prints one line per step with the time it took.
#[derive(Debug)]
pub struct Report {
    begun: Instant,
    step: Instant,
}

impl Default for Report {
    fn default() -> Self {
        let now = Instant::now();
        Self {
            begun: now,
            step: now,
        }
    }
}

impl Report {
    /// Says what is about to take long.
    pub fn note(&self, text: &str) {
        line(format_args!("  … {text}"));
    }

    /// Ends a step; its time counts from the end of the one before.
    pub fn done(&mut self, what: &str, outcome: &str) {
        line(format_args!(
            "  ✓ {what:<16} {outcome:<44} {:>6.1} s",
            self.step.elapsed().as_secs_f64()
        ));
        self.step = Instant::now();
    }

    /// Seconds since the first step began.
    #[must_use]
    pub fn total_seconds(&self) -> f64 {
        self.begun.elapsed().as_secs_f64()
    }
}
