//! A daemon with nothing to do: resident memory and CPU.

use std::time::Duration;

use super::super::exit::Error;
use super::Figure;
use super::daemon::{Daemon, unlimited};

const SETTLE: Duration = Duration::from_secs(3);
const WATCH: Duration = Duration::from_secs(20);

pub async fn measure() -> Result<Vec<Figure>, Error> {
    let daemon = Daemon::start(&unlimited("http://127.0.0.1:9")).await?;
    daemon.clock.sleep_until(daemon.clock.steady() + SETTLE).await;
    let before = daemon.cpu();
    daemon.clock.sleep_until(daemon.clock.steady() + WATCH).await;
    let used = daemon.cpu().saturating_sub(before);
    let figures = vec![
        Figure::new("idle: resident memory", daemon.memory_mb(), "MB"),
        Figure::new("idle: CPU", used.as_secs_f64() / WATCH.as_secs_f64() * 100.0, "% of a core"),
    ];
    daemon.stop().await;
    Ok(figures)
}
