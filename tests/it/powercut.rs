//! The power cut under the daemon: the file system below its store is shut down without a flush, then mounted again.
//!
//! The only test that a missing fsync cannot survive: SIGKILL leaves the page cache. 3 rounds by default,
//! `TIDEGATE_POWER_CUTS` in full. Needs root and loop devices; says so in one line where they are missing.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tidegate::clock::Clock;
use tidegate::simulator::dice::Dice;

use crate::support::history::Entry;
use crate::support::load::Load;
use crate::support::process::Place;
use crate::torture::{conclude, declaration, judge, number, provider};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/power_cut.py");
const LOAD: f64 = 150.0;
/// How long a daemon runs before the power goes.
const LIFE_MS: (u64, u64) = (100, 500);
const DRAIN_MAX: Duration = Duration::from_secs(120);

/// A mounted disk; unmounted when dropped.
struct Disk {
    folder: PathBuf,
}

impl Disk {
    /// `Err`: why this machine cannot do it.
    fn begin(folder: &Path) -> Result<Disk, String> {
        script("possible", folder)?;
        script("begin", folder)?;
        Ok(Disk { folder: folder.to_owned() })
    }

    fn data(&self) -> PathBuf {
        self.folder.join("mnt")
    }

    /// Returns when the power began to fail, on the machine's steady line.
    fn cut(&self, clock: &Clock) -> i64 {
        let since_boot_us = script("cut", &self.folder).unwrap();
        since_boot_us.parse::<i64>().expect("the script says when it cut") + clock.boot().1
    }

    fn again(&self) {
        script("again", &self.folder).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Err(problem) = script("end", &self.folder) {
            eprintln!("{problem}");
        }
    }
}

/// What it printed; `Err`: what it complained of.
fn script(what: &str, folder: &Path) -> Result<String, String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    let done =
        Command::new("python3").arg(SCRIPT).arg(what).arg(folder).output().map_err(|e| format!("python3: {e}"))?;
    match done.status.success() {
        true => Ok(text(&done.stdout)),
        false => Err(text(&done.stderr)),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_the_loss_of_power() {
    let (rounds, seed) = (number("TIDEGATE_POWER_CUTS", 3), number("TIDEGATE_TORTURE_SEED", 1));
    let (folder, clock, mut dice) = (tempfile::tempdir().unwrap(), Clock::system(), Dice::new(seed));
    let disk = match Disk::begin(folder.path()) {
        Ok(disk) => disk,
        Err(why) => return eprintln!("skipped: {why}"),
    };
    let provider = provider(folder.path(), &[]).await;
    let place = Place::new(folder.path(), &disk.data(), &declaration(&provider.base_url));
    let (load, mut entries) = (Load::start(seed, LOAD), Vec::new());
    for _ in 0..rounds {
        let daemon = place.start().await;
        load.daemon(Some(daemon.channel()));
        tokio::time::sleep(Duration::from_millis(LIFE_MS.0 + dice.below(LIFE_MS.1 - LIFE_MS.0))).await;
        let from_us = disk.cut(&clock);
        load.daemon(None);
        daemon.kill(&clock).await;
        let until_us = clock.steady().0;
        entries.extend([Entry::Killed { at_us: from_us }, Entry::Dark { from_us, until_us }]);
        disk.again();
    }
    let daemon = place.start().await;
    entries.extend(load.stop().await);
    let (findings, report) = judge(folder.path(), daemon, provider, entries, DRAIN_MAX).await;
    drop(disk);
    assert_eq!(findings.kills as u64, rounds);
    assert!(findings.acked as u64 > 5 * rounds, "hardly any load: {findings}");
    conclude(folder, &findings, &report, seed);
}
