//! The steps of the walk, a resource each. Where a step leaves something behind, the next ones use it.

use serde_json::{Value, json};

use super::{Body, Walk, lose_answers};

/// An id that nothing has.
const NOBODY: &str = "019aa8c2-7d31-7123-8000-00000000002a";

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("expected a text, got {value}")).to_owned()
}

fn job(operation: &str, key: &str) -> Value {
    json!({"provider": "crm", "operation": operation, "key": key, "payload": {"id": key, "n": 1}})
}

fn later(key: &str) -> Value {
    let mut job = job("sync", key);
    job["delay"] = "3600s".into();
    job["labels"] = json!({"team": "x"});
    job
}

pub async fn jobs(walk: &mut Walk) {
    let at = "JobService_";
    let id = |method: &str| format!("{at}{method}");
    let made = walk.good(&id("EnqueueJob"), &[], "", Body::Json(later("a"))).await;
    let a = text(&made["jobId"]);
    walk.bad(&id("EnqueueJob"), &[], "", Body::Json(job("none", "a")), "NO_SUCH_OPERATION").await;

    let many = json!({"jobs": [later("b"), job("none", "c")], "requestId": "r-1"});
    let made = walk.good(&id("EnqueueJobs"), &[], "", Body::Json(many)).await;
    let b = text(&made["results"][0]["enqueued"]["jobId"]);
    assert_eq!(made["results"][1]["error"]["reason"], "NO_SUCH_OPERATION", "{made}");
    walk.bad(&id("EnqueueJobs"), &[], "", Body::Json(json!({"jobs": []})), "BAD_JOB_COUNT").await;

    let lines =
        vec![json!({"sequence": "1", "jobs": [job("sync", "d")]}), json!({"sequence": "2", "jobs": [later("e")]})];
    walk.good(&id("EnqueueStream"), &[], "", Body::Lines(lines)).await;
    let lines = vec![json!({"sequence": "2", "jobs": [later("f")]}), json!({"sequence": "1", "jobs": [later("g")]})];
    walk.bad(&id("EnqueueStream"), &[], "", Body::Lines(lines), "SEQUENCE_NOT_INCREASING").await;

    walk.good(&id("GetJob"), &[&a], "?view=VIEW_FULL", Body::None).await;
    walk.bad(&id("GetJob"), &[NOBODY], "", Body::None, "NO_SUCH_JOB").await;
    walk.good(&id("ListJobs"), &[], "?view=VIEW_FULL&page_size=2", Body::None).await;
    walk.bad(&id("ListJobs"), &[], "?filter=nonsense", Body::None, "BAD_FILTER").await;
    walk.good(&id("ExplainJob"), &[&a], "", Body::None).await;
    walk.bad(&id("ExplainJob"), &[NOBODY], "", Body::None, "NO_SUCH_JOB").await;
    walk.good(&id("WatchJobs"), &[], "?snapshot=true", Body::None).await;
    walk.bad(&id("WatchJobs"), &[], "?resume_token=nonsense", Body::None, "BAD_RESUME_TOKEN").await;

    let change = json!({"payload": {"id": "a", "n": 2}, "priorityClass": "PRIORITY_CLASS_BULK"});
    walk.good(&id("EditJob"), &[&a], "", Body::Json(change.clone())).await;
    walk.bad(&id("EditJob"), &[NOBODY], "", Body::Json(change), "NO_SUCH_JOB").await;
    walk.good(&id("CancelJobs"), &[], "", Body::Json(json!({"jobIds": [b]}))).await;
    walk.bad(&id("CancelJobs"), &[], "", Body::Json(json!({})), "IDS_OR_FILTER").await;
    walk.good(&id("WaitJobs"), &[], "", Body::Json(json!({"jobIds": [b, NOBODY], "timeout": "20s"}))).await;
    walk.bad(&id("WaitJobs"), &[], "", Body::Json(json!({"jobIds": ["x"]})), "BAD_ID").await;

    // A POST whose answer is lost waits for a decision; given up, it may be tried again.
    lose_answers(walk, 1.0);
    let lost = walk.good(&id("EnqueueJob"), &[], "", Body::Json(job("note", "n"))).await;
    let lost = text(&lost["jobId"]);
    walk.until(&id("GetJob"), &[&lost], |got| got["job"]["state"] == "JOB_STATE_UNKNOWN").await;
    lose_answers(walk, 0.0);
    let decided = json!({"jobIds": [lost], "decision": "DECISION_DEAD"});
    walk.good(&id("ResolveJobs"), &[], "", Body::Json(decided)).await;
    walk.bad(&id("ResolveJobs"), &[], "", Body::Json(json!({"jobIds": [lost]})), "NO_DECISION").await;
    walk.good(&id("RetryJobs"), &[], "", Body::Json(json!({"jobIds": [lost], "asNew": true}))).await;
    walk.bad(&id("RetryJobs"), &[], "", Body::Json(json!({"filter": "state = WAITING AND"})), "BAD_FILTER").await;
}

pub async fn runs(walk: &mut Walk) {
    let id = |method: &str| format!("RunService_{method}");
    let start = json!({"displayName": "walk", "labels": {"team": "x"}, "requestId": "r-2"});
    let made = walk.good(&id("CreateRun"), &[], "", Body::Json(start)).await;
    let run = text(&made["run"]["id"]);
    let long = json!({"displayName": "x".repeat(10_000)});
    walk.bad(&id("CreateRun"), &[], "", Body::Json(long), "BAD_DISPLAY_NAME").await;
    let lines = vec![json!({"runId": run, "sequence": "1", "jobs": [job("sync", "r1"), job("sync", "r2")]})];
    walk.good(&id("AddRunJobs"), &[], "", Body::Lines(lines)).await;
    let lines = vec![json!({"runId": NOBODY, "sequence": "1", "jobs": [job("sync", "r3")]})];
    walk.bad(&id("AddRunJobs"), &[], "", Body::Lines(lines), "NO_SUCH_RUN").await;
    walk.good(&id("ListRuns"), &[], "?page_size=1", Body::None).await;
    walk.bad(&id("ListRuns"), &[], "?page_token=nonsense", Body::None, "BAD_PAGE_TOKEN").await;
    walk.bad(&id("UndoRun"), &[&run], "", Body::None, "RUN_NOT_ENDED").await;
    for method in ["GetRun", "WatchRun", "PauseRun", "ResumeRun", "SealRun"] {
        walk.good(&id(method), &[&run], "", Body::None).await;
        walk.bad(&id(method), &[NOBODY], "", Body::None, "NO_SUCH_RUN").await;
    }
    walk.until(&id("GetRun"), &[&run], |got| got["run"]["state"] == "RUN_STATE_FINISHED").await;
    let undone = walk.good(&id("UndoRun"), &[&run], "", Body::None).await;
    assert_eq!(undone["jobCount"], "2", "{undone}");
    let made = walk.good(&id("CreateRun"), &[], "", Body::Json(json!({"displayName": "second"}))).await;
    walk.good(&id("CancelRun"), &[&text(&made["run"]["id"])], "", Body::None).await;
    walk.bad(&id("CancelRun"), &["nonsense"], "", Body::None, "BAD_ID").await;
}

pub async fn calls(walk: &mut Walk) {
    let read = json!({"provider": "crm", "operation": "read", "key": "u1", "maxWait": "10s"});
    walk.good("CallService_Call", &[], "", Body::Json(read.clone())).await;
    let again = walk.good("CallService_Call", &[], "", Body::Json(read)).await;
    assert_eq!(again["cache"], "CACHE_STATUS_HIT", "{again}");
    let none = json!({"provider": "none", "operation": "read"});
    walk.bad("CallService_Call", &[], "", Body::Json(none), "NO_SUCH_PROVIDER").await;
    let which = json!({"namespace": "crm", "prefix": "/"});
    walk.good("CallService_InvalidateCache", &[], "", Body::Json(which)).await;
    walk.bad("CallService_InvalidateCache", &[], "", Body::Json(json!({"namespace": "a b"})), "BAD_NAME").await;

    let listed = walk.good("AdminService_ListCalls", &[], "?page_size=3&view=VIEW_FULL", Body::None).await;
    walk.bad("AdminService_ListCalls", &[], "?filter=status%20%3D%20often", Body::None, "BAD_FILTER").await;
    walk.good("AdminService_GetCall", &[&text(&listed["calls"][0]["id"])], "", Body::None).await;
    walk.bad("AdminService_GetCall", &["999999999"], "", Body::None, "NOT_FOUND").await;

    let some = json!({"provider": "crm", "operation": "sync", "minCount": 1, "maxCount": 2, "wait": "10s"});
    let granted = walk.good("PermitService_AcquirePermits", &[], "", Body::Json(some)).await;
    let none = json!({"provider": "crm", "minCount": 3, "maxCount": 2});
    walk.bad("PermitService_AcquirePermits", &[], "", Body::Json(none), "BAD_COUNT").await;
    let headers = json!([{"name": "retry-after", "value": "1"}]);
    let settled = json!({"token": granted["token"], "sentCount": 2, "status": 200, "headers": headers});
    walk.ask("PermitService_SettlePermits", &[], "", &Body::Json(settled.clone())).await;
    walk.good("PermitService_SettlePermits", &[], "", Body::Json(settled)).await;
    walk.bad("PermitService_SettlePermits", &[], "", Body::Json(json!({"token": "x"})), "BAD_ID").await;
}

pub async fn records(walk: &mut Walk) {
    let id = |method: &str| format!("RecordService_{method}");
    let put = |points: u32| Body::Json(json!({"team": "red", "points": points}));
    walk.good(&id("PutRecord"), &["users", "u1"], "", put(3)).await;
    walk.bad(&id("PutRecord"), &["users", "u1"], "?expected_version=7", put(4), "STALE_VERSION").await;
    let many = json!({"records": [{"id": "u2", "data": {"team": "blue", "points": 5}}, {"id": "", "data": {}}]});
    let made = walk.good(&id("PutRecords"), &["users"], "", Body::Json(many)).await;
    assert!(made["results"][1]["error"]["reason"].is_string(), "{made}");
    walk.bad(&id("PutRecords"), &["users"], "", Body::Json(json!({"records": []})), "BAD_RECORD_COUNT").await;
    walk.good(&id("GetRecord"), &["users", "u1"], "", Body::None).await;
    walk.bad(&id("GetRecord"), &["users", "u9"], "", Body::None, "NOT_FOUND").await;
    walk.good(&id("ListRecords"), &["users"], "?page_size=1", Body::None).await;
    walk.bad(&id("ListRecords"), &["users"], "?filter=team%20%3D%20%22red%22", Body::None, "NO_SUCH_INDEX").await;
    walk.good(&id("PushRecord"), &["users", "u2"], "", Body::None).await;
    walk.bad(&id("PushRecord"), &["items", "u2"], "", Body::None, "NO_PUSH").await;
    let sums = walk.good(&id("AggregateRecords"), &["users", "by_team"], "", Body::None).await;
    assert_eq!(sums["groups"].as_array().unwrap().len(), 2, "{sums}");
    walk.bad(&id("AggregateRecords"), &["users", "by_none"], "", Body::None, "NO_SUCH_AGGREGATE").await;
    walk.good(&id("WatchRecords"), &["users"], "?snapshot=true", Body::None).await;
    walk.bad(&id("WatchRecords"), &["none"], "", Body::None, "NOT_FOUND").await;
    walk.good(&id("DeleteRecord"), &["users", "u1"], "", Body::None).await;
    walk.bad(&id("DeleteRecord"), &["users", "u9"], "", Body::None, "NOT_FOUND").await;
    walk.good(&id("PullCollection"), &["items"], "", Body::None).await;
    walk.bad(&id("PullCollection"), &["users"], "", Body::None, "NO_PULL").await;
    walk.until(&id("GetCollection"), &["items"], |got| got["collection"]["pull"]["state"] == "PULL_STATE_DONE").await;
    walk.good(&id("GetCollection"), &["items"], "", Body::None).await;
    walk.bad(&id("GetCollection"), &["none"], "", Body::None, "NOT_FOUND").await;
    walk.good(&id("ListCollections"), &[], "", Body::None).await;
    walk.bad(&id("ListCollections"), &[], "?page=2", Body::None, "UNKNOWN_PARAMETER").await;
}

pub async fn schedules(walk: &mut Walk) {
    let id = |method: &str| format!("ScheduleService_{method}");
    let target = json!({"jobs": [{"provider": "crm", "operation": "sync", "key": "s", "payload": {"id": "s"}}]});
    let spec = json!({"cron": "*/15 * * * *", "zone": "Europe/Berlin", "jitter": "30s", "jobs": target});
    let named = |name: &str| Body::Json(json!({"name": name, "spec": spec}));
    walk.good(&id("CreateSchedule"), &[], "", named("refresh")).await;
    walk.bad(&id("CreateSchedule"), &[], "", named("refresh"), "SCHEDULE_EXISTS").await;
    let again = json!({"spec": spec});
    walk.good(&id("UpdateSchedule"), &["refresh"], "", Body::Json(again.clone())).await;
    walk.bad(&id("UpdateSchedule"), &["none"], "", Body::Json(again), "NO_SUCH_SCHEDULE").await;
    for method in ["PauseSchedule", "ResumeSchedule", "RunSchedule", "GetSchedule"] {
        walk.good(&id(method), &["refresh"], "", Body::None).await;
        walk.bad(&id(method), &["none"], "", Body::None, "NO_SUCH_SCHEDULE").await;
    }
    walk.good(&id("ListSchedules"), &[], "", Body::None).await;
    walk.bad(&id("ListSchedules"), &[], "?page_size=-1", Body::None, "BAD_PAGE_SIZE").await;
    walk.good(&id("DeleteSchedule"), &["refresh"], "", Body::None).await;
    walk.bad(&id("DeleteSchedule"), &["refresh"], "", Body::None, "NO_SUCH_SCHEDULE").await;
}

pub async fn providers(walk: &mut Walk) {
    let id = |method: &str| format!("ProviderService_{method}");
    let source =
        "[providers.shop]\nbase_url = \"https://shop.example\"\n[providers.shop.operations.get]\nrequest = \"GET /\"\n";
    let applied = json!({"source": source, "etag": "none"});
    walk.good(&id("ApplyProvider"), &[], "", Body::Json(applied)).await;
    walk.bad(&id("ApplyProvider"), &[], "", Body::Json(json!({"source": "[providers.shop]\n"})), "BAD_DECLARATION")
        .await;
    walk.good(&id("ListProviders"), &[], "?view=VIEW_FULL", Body::None).await;
    walk.bad(&id("ListProviders"), &[], "?page_token=nonsense", Body::None, "BAD_PAGE_TOKEN").await;
    walk.good(&id("GetProvider"), &["crm"], "?view=VIEW_FULL", Body::None).await;
    walk.good(&id("TestProvider"), &["crm"], "", Body::Json(json!({"path": "/users/1"}))).await;
    walk.bad(&id("TestProvider"), &["none"], "", Body::Json(json!({})), "NO_SUCH_PROVIDER").await;
    walk.bad(&id("GetProvider"), &["none"], "", Body::None, "NO_SUCH_PROVIDER").await;
    for method in ["GetProviderStatus", "WatchProviderStatus", "PauseProvider", "ResumeProvider", "ResetBreaker"] {
        walk.good(&id(method), &["crm"], "", Body::None).await;
        walk.bad(&id(method), &["none"], "", Body::None, "NO_SUCH_PROVIDER").await;
    }
    walk.good(&id("DeleteProvider"), &["shop"], "", Body::None).await;
    walk.bad(&id("DeleteProvider"), &["shop"], "", Body::None, "NO_SUCH_PROVIDER").await;
}

/// The last one leaves a daemon that takes no more.
pub async fn daemon(walk: &mut Walk) {
    walk.good("AdminService_GetDaemon", &[], "", Body::None).await;
    walk.bad("AdminService_GetDaemon", &[], "?view=VIEW_FULL", Body::None, "UNKNOWN_PARAMETER").await;
    walk.good("AdminService_ListEvents", &[], "?page_size=1000", Body::None).await;
    walk.bad("AdminService_ListEvents", &[], "?wait=never", Body::None, "BAD_JSON").await;
    let file = walk.house.folder.path().join("tidegate.toml");
    let before = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("{before}[providers.crm]\n")).unwrap();
    walk.bad("AdminService_ReloadConfig", &[], "", Body::None, "BAD_CONFIG").await;
    std::fs::write(&file, before.replace("5m", "6m")).unwrap();
    walk.good("AdminService_ReloadConfig", &[], "", Body::None).await;
    walk.bad("AdminService_Drain", &[], "?now=true", Body::None, "UNKNOWN_PARAMETER").await;
    walk.good("AdminService_Drain", &[], "", Body::None).await;
}
