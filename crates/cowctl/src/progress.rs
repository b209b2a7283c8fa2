//! Progress on standard error, where that is a terminal.

use cowstore::transfer::Progress;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar that appears with the first thing told.
pub struct Bar {
    bar: ProgressBar,
    sized: bool,
}

impl Bar {
    /// Not shown yet. Never shown when standard error is no terminal.
    pub fn new() -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        Self { bar, sized: false }
    }

    /// Shows how far it is.
    pub fn tell(&mut self, told: &Progress) {
        if !self.sized {
            self.sized = true;
            let template = match told.total_bytes {
                Some(_) => "{msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} {eta}",
                None => "{msg} {spinner} {bytes} {bytes_per_sec}",
            };
            if let Ok(style) = ProgressStyle::with_template(template) {
                self.bar.set_style(style.progress_chars("=> "));
            }
            self.bar.set_message(told.phase.clone());
        }
        if let Some(total) = told.total_bytes {
            self.bar.set_length(total);
        }
        self.bar.set_position(told.done_bytes);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
