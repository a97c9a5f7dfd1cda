//! Jobs that workers carry out: seats before permits, a lease where others have a call on the wire.
//!
//! A group whose workers have no free seat is parked, and costs nothing until one is free. Breakers of the host hold
//! these jobs too; those of credentials do not, as the worker brings its own. Must never know: streams. Next:
//! `../caller/lease`, which waits for a worker's word; `../desk`, who has which seat.

use super::super::caller::Errand;
use super::super::caller::lease::Leased;
use super::super::desk::Seat;
use super::super::open_calls;
use super::actor::Gate;
use super::group::GroupKey;
use super::release::Planned;
use crate::clock::Timestamp;
use crate::model::call::Call;
use crate::model::job::ClaimedJob;
use crate::model::provider::{External, Operation};
use crate::store::BegunCall;

impl Gate {
    /// Seats for the group's jobs. None: it is parked until one is free.
    pub fn take_seats(&mut self, key: &GroupKey, slots: u32) -> Vec<Seat> {
        let seats = self.parts.desk.seats(&self.current.provider.name, &key.operation, slots);
        if seats.is_empty() {
            self.seatless.insert(key.clone());
            self.turns.park(key, Timestamp::NEVER);
        } else {
            self.seatless.remove(key);
        }
        seats
    }

    /// Every planned call gets its seat; what is left goes back.
    pub fn seat(&self, planned: &mut [Planned], mut seats: Vec<Seat>) {
        for plan in planned {
            let from = seats.len().saturating_sub(plan.begin.calls_max as usize);
            plan.seats = seats.split_off(from);
        }
    }

    pub fn seats_were_freed(&mut self) {
        for key in std::mem::take(&mut self.seatless) {
            self.turns.unpark(&key);
        }
    }

    fn leased(&self, external: External) -> Option<Leased> {
        let caller = self.caller(self.current.transport.clone().ok()?);
        let (desk, open_calls) = (self.parts.desk.clone(), self.parts.open_calls.clone());
        Some(Leased { caller, external, desk, open_calls, stopping: self.parts.supervisor.stopping() })
    }

    pub fn launch_lease(
        &self,
        external: External,
        group: GroupKey,
        errand: Errand,
        seat: Option<Seat>,
        open: open_calls::Held,
    ) {
        let Some(leased) = self.leased(external) else { return };
        let (shared, spent) = (self.shared.clone(), errand.permit.spends.clone());
        let completed = move |completion| shared.completed(group, spent, completion);
        self.parts.supervisor.task(leased.carry(errand, seat, open, completed));
    }

    /// A lease of a dead process: its worker has its time to come back. False: nobody can say what it is.
    pub fn take_up(&self, call: Call, jobs: Vec<ClaimedJob>) -> bool {
        let operation = self.current.provider.operations.get(&call.operation).cloned();
        let Some((operation, external)) = operation.and_then(|o: std::sync::Arc<Operation>| {
            let external = o.external?;
            Some((o, external))
        }) else {
            return false;
        };
        let Some(leased) = self.leased(external) else { return false };
        let errand = Errand {
            call: BegunCall { id: call.id, jobs },
            operation,
            lane: call.lane,
            account: call.account,
            tenant: Default::default(),
            permit: call.permit,
            lease_until: call.lease_until,
            keyed: std::sync::Arc::from([]),
            probe: false,
            splitter: Default::default(),
        };
        let Some(work) = leased.work(&errand) else { return false };
        if let Some(word) = leased.desk.expect_back(call.id, &work, leased.term(&errand)) {
            self.parts.supervisor.task(leased.carry_on(errand, word));
        }
        true
    }
}
