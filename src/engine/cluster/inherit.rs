//! Takes up leases of workers whose daemon died: a worker that comes to another daemon brings its jobs with it.
//!
//! The journal says who began a call and until when it may last; the list of daemons says whether that one lives. Ends are
//! not fenced by partitions, so any daemon may wait for the worker's word. Of one that only seemed dead the end counts that
//! is recorded first, and a success that comes after a loss is adopted as every late success. Must never know: streams.
//! Next: `gate/leases`, which takes the lease up.

use crate::clock::Timestamp;
use crate::engine::EngineError;
use crate::engine::handle::Handle;
use crate::model::call::{Call, Ending};
use crate::model::id::{CallId, DaemonId, Id};
use crate::store::{Error, Whose};

/// What can be done for a worker that brings a token which no lease here has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inherited {
    /// It can be resumed here now.
    Taken,
    /// The daemon that gave it out lives, or is not known to be dead yet: it ends there, or can be had here in a moment.
    Elsewhere,
    /// It is over, or nobody can tell what it was.
    Over,
}

impl Handle {
    pub async fn inherit_lease(&self, token: Id) -> Result<Inherited, EngineError> {
        let Some(standing) = self.standing() else { return Ok(Inherited::Over) };
        let now = self.clock().steady();
        let call = self.store().call(CallId(token.seq)).await?.filter(|call| is_lease(call, token, now));
        let Some(call) = call else { return Ok(Inherited::Over) };
        for (daemon, alive) in standing.others() {
            if !self.began(daemon, call.id).await? {
                continue;
            }
            if alive {
                return Ok(Inherited::Elsewhere);
            }
            let jobs = self.store().claimed(call.id).await?;
            let Some(entry) = self.registry().get(&call.provider) else { return Ok(Inherited::Over) };
            let taken = entry.gate.take_up(call, jobs).await;
            return Ok(if taken { Inherited::Taken } else { Inherited::Over });
        }
        // Of one that began before we saw it: soon known.
        let ours = self.began(standing.daemon(), call.id).await?;
        Ok(if ours { Inherited::Over } else { Inherited::Elsewhere })
    }

    async fn began(&self, daemon: DaemonId, call: CallId) -> Result<bool, Error> {
        let next = self.store().open_calls(Whose::Daemon(daemon), CallId(call.0 - 1), 1).await?;
        Ok(next.first().is_some_and(|open| open.id == call))
    }
}

fn is_lease(call: &Call, token: Id, now: Timestamp) -> bool {
    let lasts = call.ending == Ending::Open && call.lease_until > now;
    lasts && call.outside > 0 && !call.jobs.is_empty() && call.permit.granted_at == token.created_at
}
