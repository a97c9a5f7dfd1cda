//! A daemon with a provider that has lists, and collections as a test declares them.

use std::path::Path;
use std::time::Duration;

use tidegate::app::App;
use tidegate::config::{self, LoadOptions};
use tidegate::grpc::pb;
use tidegate::grpc::pb::record_service_client::RecordServiceClient;
use tidegate::simulator::{Latency, ListRule, Simulator, SimulatorConfig, SimulatorHandle};
use tonic::transport::Channel;

use crate::support::process::until;

pub const PATIENCE: Duration = Duration::from_secs(60);

/// Lists as `/a=link:10/3`, answered after `answer`.
pub async fn provider(lists: &[&str], answer: Duration) -> SimulatorHandle {
    let latency = Latency { median: answer, ..Latency::none() };
    let lists: Vec<ListRule> = lists.iter().map(|list| list.parse().unwrap()).collect();
    let config = SimulatorConfig { latency, lists, keep_arrivals: 10_000, ..SimulatorConfig::default() };
    Simulator::start(config).await.unwrap()
}

pub struct Stage {
    pub app: App,
    pub records: RecordServiceClient<Channel>,
}

/// `rest`: operations of provider `shop` and collections.
pub async fn start(folder: &Path, base_url: &str, rest: &str) -> Stage {
    let text = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\nsocket = \"none\"\n[http]\nlisten = \"127.0.0.1:0\"\n\
         [store]\npath = {:?}\n[providers.shop]\nbase_url = \"{base_url}\"\nallow_private = true\n{rest}",
        folder.join("tidegate.db")
    );
    let file = folder.join("tidegate.toml");
    std::fs::write(&file, text).unwrap();
    let options = LoadOptions { file: Some(file), ..LoadOptions::default() };
    let loaded = config::load(&options).unwrap_or_else(|problems| panic!("{problems}"));
    let app = App::start(loaded, options).await.unwrap();
    let records = RecordServiceClient::connect(format!("http://{}", app.address().unwrap())).await.unwrap();
    Stage { app, records }
}

impl Stage {
    pub async fn pull(&mut self, name: &str, full: bool) -> pb::PullCollectionResponse {
        let request = pb::PullCollectionRequest { collection: name.to_owned(), full };
        self.records.pull_collection(request).await.unwrap().into_inner()
    }

    /// Starts a pull and waits for its end.
    pub async fn pulled(&mut self, name: &str, full: bool) -> pb::Pull {
        let id = self.pull(name, full).await.pull.unwrap().id;
        let records = self.records.clone();
        let over = until(PATIENCE, || {
            let (mut records, name) = (records.clone(), name.to_owned());
            async move {
                let found = records.get_collection(pb::GetCollectionRequest { name }).await.unwrap().into_inner();
                let pull = found.collection.unwrap().pull.filter(|pull| pull.id == id)?;
                matches!(pull.state(), pb::PullState::Done | pb::PullState::Failed).then_some(pull)
            }
        });
        over.await.expect("the pull ends")
    }

    /// Every record as id, version and document.
    pub async fn all(&mut self, name: &str) -> Vec<(String, i64, String)> {
        all(&mut self.records, name).await
    }

    pub async fn put(&mut self, name: &str, id: &str, data: &str) -> pb::PutRecordResponse {
        let request = put(name, id, data);
        self.records.put_record(request).await.unwrap().into_inner()
    }
}

pub fn put(name: &str, id: &str, data: &str) -> pb::PutRecordRequest {
    pb::PutRecordRequest { collection: name.into(), id: id.into(), data: data.into(), ..Default::default() }
}

pub async fn all(records: &mut RecordServiceClient<Channel>, name: &str) -> Vec<(String, i64, String)> {
    let mut found = Vec::new();
    let mut request = pb::ListRecordsRequest { collection: name.into(), page_size: 1_000, ..Default::default() };
    loop {
        let page = records.list_records(request.clone()).await.unwrap().into_inner();
        found.extend(page.records.into_iter().map(|r| (r.id, r.version, r.data)));
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            return found;
        }
    }
}
