//! `--watch`: shows the same thing again and again, until interrupted.
//!
//! On a terminal it stays in place; elsewhere one picture follows the other, and JSON stays a stream of documents.
//! Must never know: what is shown. Next: any list.

use std::time::Duration;

use super::exit::{Error, Exit};
use super::output::{Format, Output};

/// Between two looks.
const EVERY: Duration = Duration::from_secs(2);

/// The flag, for commands that show how things stand.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub struct Again {
    /// Show it again every two seconds, until interrupted.
    #[arg(short, long)]
    pub watch: bool,
}

impl Again {
    /// Shows once, or for ever. A daemon that goes away ends it like any other command.
    pub async fn show(self, output: &Output, look: impl AsyncFn() -> Result<Exit, Error>) -> Result<Exit, Error> {
        if !self.watch {
            return look().await;
        }
        loop {
            if output.color && matches!(output.format, Format::Table | Format::Wide) {
                // Home and clear to the end: the screen does not flicker, and scrollback stays as it was.
                output.raw(b"\x1b[H\x1b[J")?;
            }
            look().await?;
            tokio::time::sleep(EVERY).await;
        }
    }
}
