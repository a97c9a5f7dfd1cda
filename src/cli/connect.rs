//! The way to the daemon: where it listens, and one channel to it.
//!
//! Must never know: what is asked of it. Next: `jobs.rs`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tonic::transport::{Channel, Endpoint};

use super::exit::{Error, Exit};
use crate::grpc::pb::admin_service_client::AdminServiceClient;
use crate::grpc::pb::call_service_client::CallServiceClient;
use crate::grpc::pb::job_service_client::JobServiceClient;
use crate::grpc::pb::provider_service_client::ProviderServiceClient;
use crate::grpc::pb::record_service_client::RecordServiceClient;
use crate::grpc::pb::run_service_client::RunServiceClient;
use crate::grpc::pb::schedule_service_client::ScheduleServiceClient;

/// Where the daemon listens when nothing else is said.
pub const ADDRESS_DEFAULT: &str = "http://127.0.0.1:7070";
/// Where the packaged daemon's socket is.
pub const SOCKET_DEFAULT: &str = "/run/tidegate/tidegate.sock";
/// A daemon of this machine answers in microseconds; one that takes longer is not there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Largest answer that is read: the daemon's own bound of what it sends.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// The address to use: what was asked for, else the unix socket if it is there, else the loopback port.
pub fn address(asked: Option<&str>) -> String {
    let socket = || {
        let own = std::env::var_os("XDG_RUNTIME_DIR").map(|dir| PathBuf::from(dir).join("tidegate.sock"));
        own.into_iter().chain([PathBuf::from(SOCKET_DEFAULT)]).find(|path| path.exists())
    };
    match asked {
        Some(asked) => normal(asked),
        None => socket().map_or_else(|| ADDRESS_DEFAULT.to_owned(), |path| of_socket(&path)),
    }
}

/// `unix:/path` and `/path` name a socket; `host:port` is taken for `http://host:port`.
fn normal(asked: &str) -> String {
    match asked {
        path if path.starts_with('/') => of_socket(Path::new(path)),
        uri if uri.starts_with("unix:") || uri.contains("://") => uri.to_owned(),
        host => format!("http://{host}"),
    }
}

fn of_socket(path: &Path) -> String {
    format!("unix:{}", path.display())
}

/// A connection to the daemon. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Daemon {
    channel: Channel,
}

impl Daemon {
    /// Connects, or says where it tried to.
    pub async fn connect(asked: Option<&str>) -> Result<Daemon, Error> {
        let address = address(asked);
        let wrong = |e: tonic::transport::Error| {
            Error::usage(format!("expected an address like {ADDRESS_DEFAULT} or unix:/path, got {address:?}: {e}"))
        };
        let endpoint = Endpoint::from_shared(address.clone()).map_err(wrong)?.connect_timeout(CONNECT_TIMEOUT);
        let channel = endpoint.connect().await.map_err(|e| {
            Error::new(Exit::Unreachable, format!("no daemon answers at {address}: {}", root(&e)))
                .hint("start one with `tidegate serve`, or name another with --addr or TIDEGATE_ADDR")
        })?;
        Ok(Daemon { channel })
    }

    pub fn jobs(&self) -> JobServiceClient<Channel> {
        JobServiceClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    pub fn runs(&self) -> RunServiceClient<Channel> {
        RunServiceClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    pub fn records(&self) -> RecordServiceClient<Channel> {
        RecordServiceClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    pub fn providers(&self) -> ProviderServiceClient<Channel> {
        ProviderServiceClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    pub fn calls(&self) -> CallServiceClient<Channel> {
        CallServiceClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    pub fn schedules(&self) -> ScheduleServiceClient<Channel> {
        ScheduleServiceClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    pub fn admin(&self) -> AdminServiceClient<Channel> {
        AdminServiceClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }
}

/// The innermost cause: "connection refused" says more than "transport error".
fn root(e: &(dyn std::error::Error + 'static)) -> String {
    let mut at = e;
    while let Some(source) = at.source() {
        at = source;
    }
    at.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_be_written_in_short() {
        assert_eq!(address(Some("127.0.0.1:9")), "http://127.0.0.1:9");
        assert_eq!(address(Some("/tmp/t.sock")), "unix:/tmp/t.sock");
        assert_eq!(address(Some("unix:/tmp/t.sock")), "unix:/tmp/t.sock");
        assert_eq!(address(Some("http://[::1]:7070")), "http://[::1]:7070");
    }

    #[tokio::test]
    async fn a_daemon_that_is_not_there_is_named_with_a_next_step() {
        let dir = tempfile::tempdir().unwrap();
        let asked = dir.path().join("none.sock");
        let e = Daemon::connect(asked.to_str()).await.unwrap_err();
        assert_eq!(e.exit, Exit::Unreachable);
        assert!(e.message.contains("none.sock") && e.hint.is_some(), "{e:?}");
    }
}
