//! What `tidegate workers` shows of programs that take jobs, as a table and as JSON.

use std::process::Command;

use tidegate::grpc::pb;

use super::{Ground, PATIENCE, Say, Stand, Worker, enqueue, everywhere, job, stand};
use crate::support::process::until;

everywhere!(workers_and_what_they_work_on_are_shown);

async fn workers_and_what_they_work_on_are_shown(ground: Ground) {
    let Stand { daemon, place, _hold } = &stand(ground, "true", "").await;
    let ask = async |more: &[&str]| {
        let (address, more) = (format!("http://127.0.0.1:{}", place.port), more.iter().map(ToString::to_string));
        let args: Vec<String> = ["--addr".to_owned(), address, "workers".to_owned()].into_iter().chain(more).collect();
        let out = tokio::task::spawn_blocking(move || {
            Command::new(env!("CARGO_BIN_EXE_tidegate")).args(args).env_remove("TIDEGATE_ADDR").output().unwrap()
        });
        let out = out.await.unwrap();
        assert!(out.status.success(), "{out:?}");
        String::from_utf8(out.stdout).unwrap()
    };
    assert!(!ask(&[]).await.contains("WORKS ON"), "nobody is there");
    let ids = enqueue(daemon, 1).await;
    let mut worker = Worker::join(daemon, 3, &[]).await;
    let lease = worker.job().await;
    let text = "page 1 of 4";
    let progress = pb::WorkerProgress { token: lease.token.clone(), fraction: 0.25, text: text.into() };
    worker.say(Say::Progress(progress)).await;
    let seen = until(PATIENCE, async || job(daemon, &ids[0]).await.progress);
    assert!(seen.await.is_some());
    let table = ask(&[]).await;
    let line = table.lines().find(|line| line.starts_with("ada")).unwrap_or_else(|| panic!("{table}"));
    let words: Vec<&str> = line.split_whitespace().collect();
    assert_eq!((words[1], words[2]), ("crm/review", "1/3"), "{table}");
    assert!(line.ends_with(&format!("{} 25 % {text}", ids[0])), "{table}");
    let shown: serde_json::Value = serde_json::from_str(&ask(&["-o", "json"]).await).unwrap();
    let shown = &shown["workers"][0];
    assert_eq!(
        (&shown["name"], &shown["seats"], &shown["takenSeats"]),
        (&"ada".into(), &3.into(), &1.into()),
        "{shown}"
    );
    let leased = &shown["leases"][0];
    assert_eq!((&leased["jobId"], &leased["operation"]), (&ids[0].as_str().into(), &"crm/review".into()), "{shown}");
    assert_eq!((&leased["progress"]["fraction"], &leased["progress"]["text"]), (&0.25.into(), &text.into()), "{shown}");
    // Whoever has gone away is shown no more; what it had is still on its way.
    drop(worker);
    let gone = until(PATIENCE, async || (!ask(&[]).await.contains("WORKS ON")).then_some(()));
    assert!(gone.await.is_some());
}
