//! When will it go? Puts the limits and the backlog of a gate before `plan/forecast`.

use super::actor::Gate;
use crate::clock::Timestamp;
use crate::model::flow::Class;
use crate::model::id::FlowId;

#[derive(Debug, Default)]
pub(super) struct Forecast {
    /// Steady time at which the last of the jobs asked about has left; `None` when it cannot be said.
    pub through_at: Option<Timestamp>,
    /// Jobs per second that the limits allow for the work at hand; `None`: no limit binds.
    pub allowed_per_second: Option<f64>,
    /// Name of the limit that binds.
    pub bound_by: Option<String>,
}

impl Gate {
    /// For everything that is ready, or for the job behind `ahead` others of its flow.
    pub async fn forecast(&mut self, _of: Option<(FlowId, Class, u64)>) -> Forecast {
        Forecast::default()
    }
}
