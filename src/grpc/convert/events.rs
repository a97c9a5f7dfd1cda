//! The event log and the daemon as proto.
//!
//! Must never know: policy. Next: `api/admin`.

use super::jobs::kind;
use super::{count, counts, run_state, small, state, time};
use crate::api::admin::{Daemon, EventView, Events};
use crate::api::watch::Kind;
use crate::engine::status::{ActorInfo, ClusterView, HeldView, MemberView};
use crate::grpc::pb;
use crate::model::event::What;
use crate::model::id::RunId;
use crate::model::invalidation::Keys;
use crate::model::state::State;

pub fn events(events: Events) -> pb::ListEventsResponse {
    pb::ListEventsResponse {
        events: events.items.into_iter().map(event).collect(),
        next_page_token: events.next_page_token,
        more: events.more,
    }
}

fn event(view: EventView) -> pb::Event {
    use pb::event::What as W;
    let EventView { event, flow, jobs } = view;
    let of_jobs = |what: Kind, to: Option<State>, n: usize| pb::JobsChanged {
        kind: kind(what) as i32,
        state: to.map_or(pb::JobState::Unspecified, state) as i32,
        job_count: count(n),
        job_ids: jobs.iter().map(ToString::to_string).collect(),
        provider: flow.as_ref().map(|f| f.provider.to_string()).unwrap_or_default(),
        operation: flow.as_ref().map(|f| f.operation.to_string()).unwrap_or_default(),
        ..Default::default()
    };
    let what = match event.what {
        What::Enqueued { jobs, .. } => W::Jobs(of_jobs(Kind::Enqueued, Some(State::Waiting), jobs.len())),
        What::DuplicateObserved { call, jobs } => {
            W::Jobs(pb::JobsChanged { call_id: call.0, ..of_jobs(Kind::DuplicateObserved, None, jobs.len()) })
        }
        What::Changed { jobs, change, to, call, status, error, due_at, .. } => W::Jobs(pb::JobsChanged {
            call_id: call.map_or(0, |call| call.0),
            status: status.map_or(0, i32::from),
            error: error.unwrap_or_default(),
            due_time: due_at.and_then(time),
            ..of_jobs(Kind::Changed(change), Some(to), jobs.len())
        }),
        What::Run { run, created_at, state } => {
            W::Run(pb::RunChanged { run_id: RunId::new(created_at, run).to_string(), state: run_state(state) as i32 })
        }
        What::Provider { provider, kind, detail, actor } => {
            W::Provider(pb::ProviderChanged { provider, kind, detail, actor })
        }
        What::Schedule { schedule, kind, detail, actor } => {
            W::Schedule(pb::ScheduleChanged { schedule, kind, detail, actor })
        }
        What::Invalidated { which, actor } => {
            let namespace = which.namespace.to_string();
            let (key, prefix) = match which.keys {
                Keys::Exactly(key) => (key, String::new()),
                Keys::Beginning(prefix) => (String::new(), prefix),
            };
            W::Cache(pb::CacheInvalidated { namespace, key, prefix, actor })
        }
        What::Daemon { kind, detail } => W::Daemon(pb::DaemonChanged { kind, detail }),
        What::Records { collection, first, last } => {
            W::Records(pb::RecordsChanged { collection, first_change: first, last_change: last })
        }
        What::Pull { collection, pull, state, detail } => W::Pull(pb::PullChanged {
            collection,
            pull_id: pull,
            state: super::records::pull_state(state) as i32,
            detail: detail.unwrap_or_default(),
        }),
    };
    pb::Event { sequence: event.seq, time: time(event.at), what: Some(what) }
}

pub fn daemon(daemon: Daemon) -> pb::Daemon {
    let store = pb::StoreStatus {
        kind: daemon.store.kind,
        schema_version: daemon.store.schema_version,
        durability: daemon.store.durability,
        size_bytes: count(daemon.store.size_bytes),
        limiter_epoch: daemon.store.epoch,
        fault: daemon.store.fault.unwrap_or_default(),
    };
    pb::Daemon {
        version: daemon.version.to_owned(),
        start_time: time(daemon.started_at),
        time: time(daemon.now),
        draining: daemon.draining,
        store: Some(store),
        actors: daemon.actors.into_iter().map(actor).collect(),
        provider_count: small(daemon.providers),
        counts: Some(counts(&daemon.counts)),
        pid: small(std::process::id()),
        last_event_sequence: daemon.last_event,
        cluster: daemon.cluster.map(cluster),
        obstacles: daemon.health.obstacles,
        remarks: daemon.health.remarks,
        workers: daemon.workers.into_iter().map(super::workers::worker).collect(),
    }
}

fn cluster(view: ClusterView) -> pb::Cluster {
    pb::Cluster {
        daemon_id: view.daemon,
        daemons: view.daemons.into_iter().map(member).collect(),
        partition_count: i32::from(view.partitions),
        limiter_fault: view.limiter_fault.unwrap_or_default(),
    }
}

fn member(member: MemberView) -> pb::ClusterDaemon {
    let partition = |(number, fence): (u16, i64)| pb::Partition { number: i32::from(number), fence };
    let held = |held: HeldView| pb::HeldPartitions {
        provider: held.provider.to_string(),
        partitions: held.partitions.into_iter().map(partition).collect(),
    };
    pb::ClusterDaemon {
        id: member.id,
        name: member.name,
        start_time: time(member.started_at),
        alive: member.alive,
        heartbeat_end_time: time(member.heartbeat_until),
        partitions: member.held.into_iter().map(held).collect(),
    }
}

fn actor(info: ActorInfo) -> pb::Actor {
    pb::Actor {
        name: info.name,
        start_time: time(info.started_at),
        restart_count: small(info.restarts),
        last_reason: info.last_reason.unwrap_or_default(),
        last_beat_time: time(info.last_beat_at),
        alive: info.alive,
    }
}
