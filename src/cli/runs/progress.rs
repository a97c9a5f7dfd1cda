//! The progress of a run: a bar on a terminal, a line every five seconds elsewhere, JSON for programs.
//!
//! Must never know: how a run was made. Next: `create.rs`.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tonic::Code;

use crate::cli::connect::Daemon;
use crate::cli::exit::{Error, Exit};
use crate::cli::output::{Format, Output};
use crate::cli::show;
use crate::clock::{Clock, Timestamp};
use crate::grpc::pb;
use crate::grpc::pb::watch_run_response::Item;

/// Between two lines where nobody watches a bar.
const LINE_EVERY: Duration = Duration::from_secs(5);
/// Between two tries to come back after the daemon went away.
const PAUSE: Duration = Duration::from_secs(1);
/// Tries to come back before giving up.
const TRIES: u32 = 120;

/// Shows how far something is.
#[derive(Debug)]
pub struct Meter {
    bar: Option<ProgressBar>,
    output: Output,
    clock: Clock,
    told_at: Timestamp,
}

impl Meter {
    /// `what`: the word in front of the bar. Counts are shown against `total`, which may grow.
    pub fn new(what: &'static str, output: &Output) -> Self {
        let bar = output.live.then(|| {
            let form = if output.color {
                "{prefix} {wide_bar:.cyan} {human_pos}/{human_len} {msg}"
            } else {
                "{prefix} {wide_bar} {human_pos}/{human_len} {msg}"
            };
            let style = ProgressStyle::with_template(form).expect("the template is a constant");
            ProgressBar::new(0).with_style(style).with_prefix(what)
        });
        let clock = Clock::system();
        Meter { bar, output: output.clone(), told_at: Timestamp::ZERO, clock }
    }

    /// Says where it is: moves the bar, or writes `line` when the last one is five seconds old.
    pub fn tell(&mut self, done: u64, total: u64, note: &str, line: impl FnOnce() -> String) {
        match &self.bar {
            Some(bar) => {
                bar.set_length(total);
                bar.set_position(done);
                bar.set_message(note.to_owned());
            }
            None if self.clock.steady().since(self.told_at) >= LINE_EVERY => {
                self.told_at = self.clock.steady();
                self.output.say(&line());
            }
            None => {}
        }
    }

    /// Takes the bar away and leaves `line` in its place.
    pub fn end(self, line: &str) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        self.output.say(line);
    }
}

/// Follows a run to its end, across restarts of the daemon.
pub async fn watch(id: &str, daemon: &Daemon, output: &Output) -> Result<Exit, Error> {
    let mut meter = Meter::new("run", output);
    let mut request = pb::WatchRunRequest { run_id: id.to_owned(), resume_token: String::new() };
    let mut failures = 0;
    loop {
        match follow(&mut request, &mut failures, &mut meter, daemon, output).await {
            Ok(Some(run)) => {
                meter.end(&sentence(&run));
                return Ok(verdict(&run));
            }
            // The stream ended without the run's end, as a drain does: the same as a daemon that went away.
            Ok(None) if failures < TRIES => {}
            Err(status) if status.code() == Code::Unavailable && failures < TRIES => {}
            Ok(None) => return Err(Error::new(Exit::Unreachable, "the daemon went away and did not come back")),
            Err(status) => return Err(status.into()),
        }
        failures += 1;
        tokio::time::sleep(PAUSE).await;
    }
}

async fn follow(
    request: &mut pb::WatchRunRequest,
    failures: &mut u32,
    meter: &mut Meter,
    daemon: &Daemon,
    output: &Output,
) -> Result<Option<pb::Run>, tonic::Status> {
    let mut stream = daemon.runs().watch_run(request.clone()).await?.into_inner();
    let mut seen: Option<pb::Run> = None;
    loop {
        let message = tokio::select! {
            message = stream.message() => message?,
            // Nothing changes, as while a limit holds everything back: say so again, or it looks hung.
            () = tokio::time::sleep(LINE_EVERY) => {
                seen.iter().for_each(|run| tell(meter, run));
                continue;
            }
        };
        let Some(message) = message else { return Ok(None) };
        *failures = 0;
        request.resume_token.clone_from(&message.resume_token);
        let Some(Item::Run(run)) = &message.item else { continue };
        if matches!(output.format, Format::Json | Format::Jsonl) {
            output.json_line("WatchRunResponse", &message).map_err(|e| tonic::Status::cancelled(e.message))?;
        }
        tell(meter, run);
        if is_over(run) {
            return Ok(Some(run.clone()));
        }
        seen = Some(run.clone());
    }
}

fn tell(meter: &mut Meter, run: &pb::Run) {
    let whole = |n: i64| u64::try_from(n).unwrap_or(0);
    meter.tell(whole(run.job_count - super::left(run)), whole(run.job_count), &note(run), || sentence(run));
}

fn is_over(run: &pb::Run) -> bool {
    matches!(run.state(), pb::RunState::Finished | pb::RunState::Cancelled)
}

fn verdict(run: &pb::Run) -> Exit {
    let counts = run.counts.unwrap_or_default();
    if counts.dead + counts.cancelled > 0 { Exit::EndedBadly } else { Exit::Done }
}

fn note(run: &pb::Run) -> String {
    let dead = run.counts.unwrap_or_default().dead;
    let dead = if dead > 0 { format!("{} dead, ", show::count(dead)) } else { String::new() };
    let dead = format!("{dead}{}", at_workers(run).map(|said| format!("{said}, ")).unwrap_or_default());
    match &run.forecast_finish_time {
        Some(time) => format!("{dead}through at {}", show::clock_time(time)),
        None => format!("{dead}{}", show::run_state(run.state)),
    }
}

/// `3 at workers, 45 % through on average`.
fn at_workers(run: &pb::Run) -> Option<String> {
    let progress = run.progress.as_ref().filter(|progress| progress.job_count > 0)?;
    let percent = progress.fraction_sum / progress.job_count as f64 * 100.0;
    Some(format!("{} at workers, {percent:.0} % through on average", show::count(progress.job_count)))
}

/// `20,000 of 40,000 final (19,990 delivered, 10 dead), through at 14:32:10`.
pub fn sentence(run: &pb::Run) -> String {
    let counts = run.counts.unwrap_or_default();
    let mut parts = vec![format!("{} delivered", show::count(counts.delivered))];
    for (n, word) in [(counts.dead, "dead"), (counts.cancelled, "cancelled"), (counts.unknown, "unknown")] {
        if n > 0 {
            parts.push(format!("{} {word}", show::count(n)));
        }
    }
    let (done, all) = (run.job_count - super::left(run), run.job_count);
    parts.extend(at_workers(run));
    let end = match &run.forecast_finish_time {
        Some(time) if !is_over(run) => format!(", through at {}", show::clock_time(time)),
        _ => format!(", {}", show::run_state(run.state)),
    };
    format!("{} of {} jobs are final ({}){end}", show::count(done), show::count(all), parts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_told_in_one_sentence() {
        let counts = pb::JobCounts { waiting: 5, delivered: 19_990, dead: 10, ..Default::default() };
        let mut run = pb::Run {
            job_count: 20_005,
            counts: Some(counts),
            state: pb::RunState::Sealed as i32,
            ..Default::default()
        };
        assert_eq!(sentence(&run), "20,000 of 20,005 jobs are final (19,990 delivered, 10 dead), sealed");
        assert_eq!(verdict(&run), Exit::EndedBadly);
        run.progress = Some(pb::RunProgress { job_count: 2, fraction_sum: 0.9, latest: Vec::new() });
        let with_workers = "(19,990 delivered, 10 dead, 2 at workers, 45 % through on average), sealed";
        assert!(sentence(&run).ends_with(with_workers), "{}", sentence(&run));
        run.counts = Some(pb::JobCounts { delivered: 20_005, ..Default::default() });
        assert_eq!(verdict(&run), Exit::Done);
    }
}
