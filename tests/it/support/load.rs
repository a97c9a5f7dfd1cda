//! Clients that enqueue without pause, survive the daemon's death, and write down what they were told.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tidegate::clock::Clock;
use tidegate::grpc::pb;
use tidegate::grpc::pb::job_service_client::JobServiceClient;
use tidegate::simulator::dice::Dice;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use super::history::Entry;

/// Clients at one time. Each owns records of its own, so the order of their versions is the order of its calls.
const CLIENTS: u64 = 6;
/// Records per client: few, so that changes of one record meet.
const RECORDS: u64 = 10;
/// Jobs in an EnqueueJobs.
const BATCH: usize = 8;
/// Job ids that a client remembers for calling off.
const REMEMBERED: usize = 50;

/// Clients at work.
pub struct Load {
    clients: JoinSet<()>,
    stopping: CancellationToken,
    daemon: watch::Sender<Option<Channel>>,
    said: Arc<Mutex<Vec<Entry>>>,
}

impl Load {
    /// Starts clients that make about `per_second` jobs together; they wait until a daemon is named.
    pub fn start(seed: u64, per_second: f64) -> Load {
        Load::of(seed, per_second, |_| String::new())
    }

    /// The same, each client for an account of its own.
    pub fn with_accounts(seed: u64, per_second: f64) -> Load {
        Load::of(seed, per_second, |number| format!("account-{number}"))
    }

    fn of(seed: u64, per_second: f64, account: impl Fn(u64) -> String) -> Load {
        let (daemon, named) = watch::channel(None);
        let (said, stopping, mut clients) = (Arc::default(), CancellationToken::new(), JoinSet::new());
        for number in 0..CLIENTS {
            let client = Client {
                number,
                account: account(number),
                dice: Dice::new(seed ^ (number << 32)),
                versions: vec![0; RECORDS as usize],
                steps: vec![0; RECORDS as usize],
                events: 0,
                accepted: VecDeque::new(),
                said: Arc::clone(&said),
                clock: Clock::system(),
                pause: Duration::from_secs_f64(CLIENTS as f64 * MEAN_JOBS / per_second),
            };
            clients.spawn(client.run(named.clone(), stopping.clone()));
        }
        Load { clients, stopping, daemon, said }
    }

    /// Sends everything to this daemon from now on; `None` while there is none.
    pub fn daemon(&self, channel: Option<Channel>) {
        self.daemon.send_replace(channel);
    }

    /// Ends the clients and returns the client view.
    pub async fn stop(mut self) -> Vec<Entry> {
        self.stopping.cancel();
        while let Some(ended) = self.clients.join_next().await {
            ended.expect("a client failed");
        }
        std::mem::take(&mut self.said.lock().unwrap())
    }
}

/// Mean number of jobs per call of a client, for its pace: half of the calls carry one, half carry eight.
const MEAN_JOBS: f64 = (1.0 + BATCH as f64) / 2.0;

struct Client {
    number: u64,
    account: String,
    dice: Dice,
    /// Newest version handed in, per record.
    versions: Vec<i64>,
    /// The same of the records whose changes do not coalesce, so that many of one wait in line.
    steps: Vec<i64>,
    events: i64,
    accepted: VecDeque<String>,
    said: Arc<Mutex<Vec<Entry>>>,
    clock: Clock,
    pause: Duration,
}

/// A change that was handed in.
struct Change {
    record: String,
    version: i64,
}

impl Client {
    async fn run(mut self, mut daemon: watch::Receiver<Option<Channel>>, stopping: CancellationToken) {
        loop {
            let named = stopping.run_until_cancelled(daemon.wait_for(Option::is_some)).await;
            let Some(Ok(channel)) = named.map(|named| named.map(|c| c.clone())) else { return };
            let channel = channel.expect("waited for");
            let mut jobs = JobServiceClient::new(channel);
            while self.work(&mut jobs).await.is_ok() {
                let pause = self.pause.mul_f64(2.0 * self.dice.share());
                if stopping.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                    return;
                }
            }
            // The daemon is gone: wait for the next one, or a moment if it is only busy.
            let _ = tokio::time::timeout(Duration::from_millis(20), daemon.changed()).await;
        }
    }

    fn say(&self, entry: Entry) {
        self.said.lock().unwrap().push(entry);
    }

    /// One call. An error means that the connection is worth nothing any more.
    async fn work(&mut self, jobs: &mut JobServiceClient<Channel>) -> Result<(), tonic::Status> {
        match self.dice.below(20) {
            0 => self.cancel_one(jobs).await,
            n if n.is_multiple_of(2) => self.enqueue_one(jobs).await,
            _ => self.enqueue_many(jobs).await,
        }
    }

    /// The next change: mostly of a record, newest wins; sometimes a step, of which each counts and in order; sometimes an
    /// event, that must never be sent twice.
    fn next_job(&mut self) -> (Change, pb::JobSpec) {
        let (is_event, is_step) = (self.dice.falls(0.2), self.dice.falls(0.25));
        let (operation, record, version) = if is_event {
            self.events += 1;
            ("post_event", format!("e{}-{}", self.number, self.events), 1)
        } else {
            let i = self.dice.below(RECORDS);
            let (operation, kind, versions) = match is_step {
                true => ("log_step", "s", &mut self.steps),
                false => ("sync_user", "u", &mut self.versions),
            };
            versions[i as usize] += 1;
            (operation, format!("{kind}{}-{i}", self.number), versions[i as usize])
        };
        let spec = pb::JobSpec {
            provider: "crm".to_owned(),
            operation: operation.to_owned(),
            account: self.account.clone(),
            key: if is_event { String::new() } else { record.clone() },
            payload: format!(r#"{{"id":"{record}","n":{version},"name":"{:x}"}}"#, self.dice.next_u64()),
            ..pb::JobSpec::default()
        };
        self.say(Entry::Tried { record: record.clone(), version });
        (Change { record, version }, spec)
    }

    fn acked(&mut self, job: String, change: Change) {
        let at_us = self.clock.steady().0;
        self.say(Entry::Acked { at_us, job: job.clone(), record: change.record, version: change.version });
        if self.accepted.len() == REMEMBERED {
            self.accepted.pop_front();
        }
        self.accepted.push_back(job);
    }

    async fn enqueue_one(&mut self, jobs: &mut JobServiceClient<Channel>) -> Result<(), tonic::Status> {
        let (change, spec) = self.next_job();
        let request = pb::EnqueueJobRequest { job: Some(spec), ..pb::EnqueueJobRequest::default() };
        let answer = jobs.enqueue_job(request).await?.into_inner();
        self.acked(answer.job_id, change);
        Ok(())
    }

    async fn enqueue_many(&mut self, jobs: &mut JobServiceClient<Channel>) -> Result<(), tonic::Status> {
        let (changes, specs): (Vec<Change>, Vec<pb::JobSpec>) = (0..BATCH).map(|_| self.next_job()).unzip();
        let request = pb::EnqueueJobsRequest { jobs: specs, ..pb::EnqueueJobsRequest::default() };
        let answer = jobs.enqueue_jobs(request).await?.into_inner();
        assert_eq!(answer.results.len(), changes.len(), "one result per item");
        for (change, result) in changes.into_iter().zip(answer.results) {
            match result.result {
                Some(pb::enqueue_result::Result::Enqueued(enqueued)) => self.acked(enqueued.job_id, change),
                other => panic!("expected the item to be accepted, got {other:?}"),
            }
        }
        Ok(())
    }

    async fn cancel_one(&mut self, jobs: &mut JobServiceClient<Channel>) -> Result<(), tonic::Status> {
        let Some(job) = self.accepted.pop_back() else { return Ok(()) };
        let request = pb::CancelJobsRequest { job_ids: vec![job.clone()], ..pb::CancelJobsRequest::default() };
        let answer = jobs.cancel_jobs(request).await?.into_inner();
        let changes = answer.result.map(|r| r.changes).unwrap_or_default();
        if changes.first().is_some_and(|c| c.state() == pb::JobState::Cancelled && c.error.is_none()) {
            self.say(Entry::Cancelled { at_us: self.clock.steady().0, job });
        }
        Ok(())
    }
}
