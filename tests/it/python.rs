//! A client in another language: generated from `proto/`, it enqueues, watches, and resumes after a restart.
//!
//! The checks stand in tests/clients/python/check.py; here are the daemon that it restarts and the provider behind.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tidegate::clock::Clock;
use tidegate::grpc::pb;
use tidegate::grpc::pb::job_service_client::JobServiceClient;

use crate::support::left_out;
use crate::support::process::{Place, Provider, until};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// A daemon that is started and restarted by a script, as an operator would.
struct Script {
    folder: PathBuf,
}

impl Script {
    /// Kills the daemon if there is one, and starts it. Returns once the old one is gone.
    fn write(folder: &Path, config: &Path) -> Script {
        let text = format!(
            "#!/bin/bash\n\
             set -e\n\
             cd '{folder}'\n\
             if [ -s pid ]; then\n\
             \x20 pid=$(cat pid)\n\
             \x20 kill -9 \"$pid\"\n\
             \x20 while [ -d /proc/$pid ] && ! grep -q '^State:.*Z' /proc/$pid/status; do sleep 0.05; done\n\
             fi\n\
             setsid '{program}' serve --config '{config}' </dev/null >>daemon.log 2>&1 &\n\
             echo $! >pid\n",
            folder = folder.display(),
            program = env!("CARGO_BIN_EXE_tidegate"),
            config = config.display(),
        );
        std::fs::write(folder.join("restart.sh"), text).unwrap();
        Script { folder: folder.to_owned() }
    }

    fn command(&self) -> String {
        format!("bash '{}'", self.folder.join("restart.sh").display())
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        let pid = std::fs::read_to_string(self.folder.join("pid")).unwrap_or_default();
        if !pid.trim().is_empty() {
            // It may have ended by itself.
            let _ = Command::new("kill").args(["-9", pid.trim()]).status();
        }
    }
}

#[tokio::test]
async fn a_python_client_enqueues_watches_and_resumes_after_a_restart() {
    let python = Path::new(ROOT).join("target/tools/python/bin/python");
    if !python.exists() {
        return left_out("the Python client, as grpcio-tools is not installed");
    }
    let folder = tempfile::tempdir().unwrap();
    let provider = Provider::start(&["--latency", "2ms", "--tail-share", "0"], &folder.path().join("log")).await;
    let place = Place::new(folder.path(), folder.path(), "");
    let script = Script::write(folder.path(), &place.config);
    assert!(Command::new("bash").arg(folder.path().join("restart.sh")).status().unwrap().success());
    let out = tokio::process::Command::new(python)
        .arg(format!("{ROOT}/tests/clients/python/check.py"))
        .args(["--address", &format!("127.0.0.1:{}", place.port), "--provider-url", &provider.base_url])
        .args(["--restart-command", &script.command()])
        .output()
        .await
        .unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{said}\n{}", place.log_tail());
    assert!(said.contains("the watch went on where it was") && said.contains("all held"), "{said}");
}

#[tokio::test]
async fn a_python_program_makes_its_own_calls_under_the_limits_that_jobs_share() {
    const JOBS: usize = 60;
    let python = Path::new(ROOT).join("target/tools/python/bin/python");
    if !python.exists() {
        return left_out("the Python program, as grpcio-tools is not installed");
    }
    let folder = tempfile::tempdir().unwrap();
    let flags = ["--latency", "2ms", "--tail-share", "0", "--limit", "core=rolling:20/2s"];
    let provider = Provider::start(&flags, &folder.path().join("log")).await;
    let declaration = format!(
        "[providers.shared]\nbase_url = \"{}\"\nallow_private = true\n\
         limits = [{{ name = \"core\", max = 20, per = \"2s\" }}]\n\n\
         [providers.shared.operations.put]\nrequest = \"PUT /jobs/{{key}}\"\nbody = \"{{payload}}\"\n",
        provider.base_url
    );
    let place = Place::new(folder.path(), folder.path(), &declaration);
    let daemon = place.start().await;
    let job = |n: usize| pb::JobSpec {
        provider: "shared".into(),
        operation: "put".into(),
        key: format!("j{n}"),
        payload: format!("{{\"n\":{n}}}"),
        ..Default::default()
    };
    let request = pb::EnqueueJobsRequest { jobs: (0..JOBS).map(job).collect(), ..Default::default() };
    JobServiceClient::new(daemon.channel()).enqueue_jobs(request).await.unwrap();
    let out = tokio::process::Command::new(python)
        .arg(format!("{ROOT}/tests/clients/python/permits.py"))
        .args(["--address", &format!("127.0.0.1:{}", place.port), "--provider", "shared", "--calls", "40"])
        .args(["--url", &provider.base_url])
        .output()
        .await
        .unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success() && said.contains("40 calls made"), "{said}\n{}", place.log_tail());
    daemon.drained("shared", Duration::from_secs(60)).await.unwrap();
    assert!(daemon.stop().await);
    let report = provider.stop().await;
    let core = report.limit("core").unwrap();
    assert_eq!((report.refused, report.records.distinct), (0, JOBS as u64 + 40));
    assert!(core.max_in_any_window.is_some_and(|most| most <= 20), "{core:?}");
}

#[tokio::test]
async fn a_python_worker_stops_a_job_that_is_called_off_and_goes_on_with_the_next() {
    let python = Path::new(ROOT).join("target/tools/python/bin/python");
    if !python.exists() {
        return left_out("the Python worker, as grpcio-tools is not installed");
    }
    let folder = tempfile::tempdir().unwrap();
    let declaration = "[providers.crm]\nbase_url = \"http://127.0.0.1:9\"\nallow_private = true\n\n\
                       [providers.crm.operations.review]\nexternal = { lease = \"10s\" }\n\
                       retry = { base = \"10ms\", cap = \"50ms\" }\n";
    let place = Place::new(folder.path(), folder.path(), declaration);
    let daemon = place.start().await;
    let mut jobs = JobServiceClient::new(daemon.channel());
    let mut enqueue = async |n: u32, seconds: f64| {
        let job = pb::JobSpec {
            provider: "crm".into(),
            operation: "review".into(),
            payload: format!("{{\"n\":{n},\"seconds\":{seconds}}}"),
            ..Default::default()
        };
        let request = pb::EnqueueJobRequest { job: Some(job), ..Default::default() };
        jobs.enqueue_job(request).await.unwrap().into_inner().job_id
    };
    // The worker looks for a cancel after half of it: long enough for one to come, however busy the machine is.
    let (stopped, done) = (enqueue(1, 8.0).await, enqueue(2, 0.0).await);
    let diary = folder.path().join("diary");
    let _worker = tokio::process::Command::new(&python)
        .arg(format!("{ROOT}/tests/clients/python/worker.py"))
        .args(["--address", &format!("127.0.0.1:{}", place.port), "--operation", "crm/review"])
        .arg("--diary")
        .arg(&diary)
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let get = async |id: &str| {
        let request = pb::GetJobRequest { job_id: id.to_owned(), ..Default::default() };
        JobServiceClient::new(daemon.channel()).get_job(request).await.unwrap().into_inner().job.unwrap()
    };
    // It has begun: its first word of progress is there.
    let begun = until(Duration::from_secs(60), async || get(&stopped).await.progress).await;
    assert!(begun.is_some(), "{}", place.log_tail());
    let request = pb::CancelJobsRequest { job_ids: vec![stopped.clone()], ..Default::default() };
    JobServiceClient::new(daemon.channel()).cancel_jobs(request).await.unwrap();
    let ended = until(Duration::from_secs(60), async || {
        let (stopped, done) = (get(&stopped).await, get(&done).await);
        let over = stopped.state() == pb::JobState::Cancelled && done.state() == pb::JobState::Delivered;
        over.then_some(stopped)
    });
    let ended =
        ended.await.unwrap_or_else(|| panic!("one is not cancelled or the other not done:\n{}", place.log_tail()));
    // By its own word, not by a lease that ended.
    assert_eq!((ended.last_error.as_str(), ended.attempts), ("called off", 1));
    assert_eq!(std::fs::read_to_string(&diary).unwrap(), "2\n", "the one that was called off was not done");
    assert!(daemon.stop().await);
}

#[tokio::test]
async fn python_workers_do_every_job_though_they_and_the_daemon_are_killed() {
    const JOBS: usize = 40;
    let python = Path::new(ROOT).join("target/tools/python/bin/python");
    if !python.exists() {
        return left_out("the Python worker, as grpcio-tools is not installed");
    }
    let folder = tempfile::tempdir().unwrap();
    let declaration = "[providers.crm]\nbase_url = \"http://127.0.0.1:9\"\nallow_private = true\n\n\
                       [providers.crm.operations.review]\nexternal = { lease = \"3s\" }\nrepeat = \"always\"\n\
                       retry = { base = \"10ms\", cap = \"50ms\" }\n";
    let place = Place::new(folder.path(), folder.path(), declaration);
    let daemon = place.start().await;
    let job = |n: usize| pb::JobSpec {
        provider: "crm".into(),
        operation: "review".into(),
        payload: format!("{{\"n\":{n},\"seconds\":0.2}}"),
        ..Default::default()
    };
    let request = pb::EnqueueJobsRequest { jobs: (0..JOBS).map(job).collect(), ..Default::default() };
    JobServiceClient::new(daemon.channel()).enqueue_jobs(request).await.unwrap();
    let diary = folder.path().join("diary");
    let worker = || {
        let mut command = tokio::process::Command::new(&python);
        command.arg(format!("{ROOT}/tests/clients/python/worker.py")).kill_on_drop(true);
        command.args(["--address", &format!("127.0.0.1:{}", place.port), "--operation", "crm/review", "--seats", "2"]);
        command.arg("--diary").arg(&diary).spawn().unwrap()
    };
    // Two work, and one of them dies with what it has.
    let (mut first, second) = (worker(), worker());
    let done = async |at_least: usize| {
        let lines = until(Duration::from_secs(60), async || {
            let lines = std::fs::read_to_string(&diary).unwrap_or_default().lines().count();
            (lines >= at_least).then_some(lines)
        });
        lines.await.unwrap_or_else(|| panic!("not {at_least} jobs were done:\n{}", place.log_tail()))
    };
    done(5).await;
    first.kill().await.unwrap();
    done(10).await;
    daemon.kill(&Clock::system()).await;
    let daemon = place.start().await;
    daemon.drained("crm", Duration::from_secs(60)).await.unwrap();
    let counts = daemon.counts("crm").await.unwrap();
    assert_eq!((counts.delivered as usize, counts.unknown, counts.dead), (JOBS, 0, 0));
    // The worker that lived through the daemon's death kept its jobs: only what the dead one had was done again.
    let diary = std::fs::read_to_string(&diary).unwrap();
    let (mut numbers, mut again): (Vec<&str>, usize) = (diary.lines().collect(), 0);
    numbers.sort_unstable();
    numbers.dedup_by(|a, b| {
        again += usize::from(a == b);
        a == b
    });
    assert_eq!(numbers.len(), JOBS);
    assert!(again <= 2, "{again} jobs were done twice");
    drop(second);
    assert!(daemon.stop().await);
}
