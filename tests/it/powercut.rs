//! The power cut under the daemon: the file system below its store is shut down without a flush, then mounted again.
//!
//! The only test that a missing fsync cannot survive: SIGKILL leaves the page cache. 3 rounds by default,
//! `TIDEGATE_POWER_CUTS` in full. Needs root and loop devices; says so in one line where they are missing.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tidegate::clock::Clock;
use tidegate::simulator::dice::Dice;

use crate::support::checker::check;
use crate::support::history::{Entry, History};
use crate::support::load::Load;
use crate::support::process::Place;
use crate::torture::{conclude, declaration, gather, number, provider};

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

/// Takes out what the daemon answered between the failing of the power and its kill, and returns it.
///
/// A machine without power answers nobody; ours goes on until it is killed, over a file system that is being shut down,
/// and a flush under way there may be told that it succeeded (jbd2 forgets an aborted transaction, and who waits for one
/// that is forgotten is not told of the abort). Such an answer promises nothing that a real power cut could break.
fn answered_without_power(entries: &mut Vec<Entry>, cuts: &[(i64, i64)]) -> Vec<Entry> {
    let dark = |at: i64| cuts.iter().any(|(cut, killed)| (*cut..=*killed).contains(&at));
    let late = |entry: &mut Entry| match entry {
        Entry::Acked { at_us, .. } | Entry::Cancelled { at_us, .. } => dark(*at_us),
        _ => false,
    };
    entries.extract_if(.., late).collect()
}

fn is_gone(answer: &Entry, history: &History) -> bool {
    let Entry::Acked { job, .. } = answer else { return false };
    !history.entries.iter().any(|entry| matches!(entry, Entry::Job(row) if row.job == *job))
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
    let (load, mut entries, mut cuts) = (Load::start(seed, LOAD), Vec::new(), Vec::new());
    for _ in 0..rounds {
        let daemon = place.start().await;
        load.daemon(Some(daemon.channel()));
        tokio::time::sleep(Duration::from_millis(LIFE_MS.0 + dice.below(LIFE_MS.1 - LIFE_MS.0))).await;
        let cut = disk.cut(&clock);
        entries.push(Entry::Killed { at_us: cut });
        load.daemon(None);
        daemon.kill(&clock).await;
        cuts.push((cut, clock.steady().0));
        disk.again();
    }
    let daemon = place.start().await;
    entries.extend(load.stop().await);
    let late = answered_without_power(&mut entries, &cuts);
    let (history, report) = gather(folder.path(), daemon, provider, entries, DRAIN_MAX).await;
    drop(disk);
    let findings = check(&history);
    let gone = late.iter().filter(|answer| is_gone(answer, &history)).count();
    eprintln!("{} answers came without power and count for nothing; {gone} of them are gone", late.len());
    assert_eq!(findings.kills as u64, rounds);
    assert!(findings.acked as u64 > 5 * rounds, "hardly any load: {findings}");
    conclude(folder, &findings, &report, seed);
}
