//! Messages that webhooks brought: each becomes one commit with what it starts, or nothing when it was there before.
//!
//! Must never know: signatures, HTTP. Next: `store/change`, which has the delivery.

use super::collections::PullError;
use super::{EngineError, Handle};
use crate::clock::Timestamp;
use crate::model::job::NewJob;
use crate::model::name::WebhookName;
use crate::model::schedule::PullSpec;
use crate::store::{Change, Delivery, RecordOp};

/// What a message starts.
#[derive(Debug)]
pub enum Wanted {
    Job(NewJob),
    Pull(PullSpec),
    Record(RecordOp),
}

/// A message whose sender is known.
#[derive(Debug)]
pub struct Received {
    pub webhook: WebhookName,
    /// Stands for the message.
    pub mark: [u8; 32],
    /// Until then it is known when it comes again; wall time.
    pub forget_at: Timestamp,
    pub wanted: Wanted,
}

impl Handle {
    /// Durable when it returns. Refused with [`crate::store::Refusal::Repeated`] when the message was there before.
    pub async fn receive(&self, received: Received) -> Result<(), PullError> {
        if self.is_draining() {
            return Err(EngineError::Draining.into());
        }
        let Received { webhook, mark, forget_at, wanted } = received;
        let mut delivery = Delivery { webhook, mark, forget_at, job: None, record: None };
        match wanted {
            Wanted::Job(job) => {
                let mut jobs = vec![job];
                self.place(&mut jobs);
                delivery.job = jobs.pop();
            }
            Wanted::Pull(spec) => {
                let by = format!("webhook {}", delivery.webhook);
                let start = self.pull_to_start(&spec.collection, spec.full, &by).await?;
                delivery.record = Some(RecordOp::StartPull(Box::new(start)));
            }
            Wanted::Record(op) => delivery.record = Some(op),
        }
        self.change(Change::Receive(Box::new(delivery))).await?;
        Ok(())
    }
}
