//! The meaning of a list filter, as a tree of conditions that must all or any hold: of jobs, or of calls. A field that
//! the things of a list do not have lets none of them through. `api/filter` parses the text.

use super::call::{Call, Ending, Lane};
use super::flow::{Class, FlowKey};
use super::id::RunId;
use super::state::State;
use crate::clock::Timestamp;

#[derive(Clone, Debug, PartialEq)]
pub enum Filter {
    All(Vec<Filter>),
    Any(Vec<Filter>),
    Not(Box<Filter>),
    Is(Field, Comparison, Value),
}

impl Filter {
    /// Lets everything through.
    pub fn everything() -> Self {
        Filter::All(Vec::new())
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Field {
    State,
    Provider,
    Operation,
    Account,
    Tenant,
    Key,
    Run,
    Class,
    Attempts,
    LastStatus,
    CreateTime,
    DueTime,
    Label(String),
    // Of calls only.
    Lane,
    Ending,
    Status,
    /// Whole milliseconds.
    Latency,
    BeginTime,
    EndTime,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Text(String),
    Number(i64),
    State(State),
    Class(Class),
    Run(RunId),
    Time(Timestamp),
    Lane(Lane),
    Ending(Ending),
}

impl Filter {
    /// Does the job pass? The reference for every store's own evaluation.
    pub fn passes(&self, job: &super::job::Job) -> bool {
        self.holds(&|field, value| field.compare(job, value))
    }

    /// The same for a call.
    pub fn passes_call(&self, call: &Call) -> bool {
        self.holds(&|field, value| field.compare_call(call, value))
    }

    fn holds(&self, compare: &dyn Fn(&Field, &Value) -> Option<std::cmp::Ordering>) -> bool {
        match self {
            Filter::All(parts) => parts.iter().all(|p| p.holds(compare)),
            Filter::Any(parts) => parts.iter().any(|p| p.holds(compare)),
            Filter::Not(part) => !part.holds(compare),
            Filter::Is(field, comparison, value) => compare(field, value).is_some_and(|o| comparison.holds(o)),
        }
    }
}

impl Filter {
    /// Can a job of the flow pass? `false` is certain, so its jobs need not be read.
    pub fn may_pass_flow(&self, flow: &FlowKey) -> bool {
        self.of_flow(flow) != Some(false)
    }

    /// What the flow alone says; `None`: it depends on the job.
    fn of_flow(&self, flow: &FlowKey) -> Option<bool> {
        match self {
            Filter::All(parts) => fold(parts, flow, false),
            Filter::Any(parts) => fold(parts, flow, true),
            Filter::Not(part) => part.of_flow(flow).map(|passes| !passes),
            Filter::Is(field, comparison, value) => {
                let order = match (field, value) {
                    (Field::Provider, Value::Text(v)) => flow.provider.as_str().cmp(v),
                    (Field::Operation, Value::Text(v)) => flow.operation.as_str().cmp(v),
                    (Field::Account, Value::Text(v)) => flow.account.as_str().cmp(v),
                    (Field::Tenant, Value::Text(v)) => flow.tenant.as_str().cmp(v),
                    (Field::Run, Value::Run(v)) => flow.run.cmp(&v.seq),
                    _ => return None,
                };
                Some(comparison.holds(order))
            }
        }
    }
}

/// `decides` settles the list as soon as one part says it.
fn fold(parts: &[Filter], flow: &FlowKey, decides: bool) -> Option<bool> {
    let mut open = false;
    for part in parts {
        match part.of_flow(flow) {
            Some(said) if said == decides => return Some(decides),
            Some(_) => {}
            None => open = true,
        }
    }
    (!open).then_some(!decides)
}

impl Comparison {
    fn holds(self, o: std::cmp::Ordering) -> bool {
        match self {
            Comparison::Equal => o.is_eq(),
            Comparison::NotEqual => o.is_ne(),
            Comparison::Less => o.is_lt(),
            Comparison::LessOrEqual => o.is_le(),
            Comparison::Greater => o.is_gt(),
            Comparison::GreaterOrEqual => o.is_ge(),
        }
    }
}

impl Field {
    /// How the job's value stands to `value`; `None` when the job has no such value or the kinds differ.
    fn compare(&self, job: &super::job::Job, value: &Value) -> Option<std::cmp::Ordering> {
        let text = |s: &str| {
            if let Value::Text(v) = value { Some(s.cmp(v.as_str())) } else { None }
        };
        let number = |n: i64| {
            if let Value::Number(v) = value { Some(n.cmp(v)) } else { None }
        };
        let time = |t: Timestamp| {
            if let Value::Time(v) = value { Some(t.cmp(v)) } else { None }
        };
        match self {
            Field::State => {
                if let Value::State(v) = value {
                    Some(job.state.cmp(v))
                } else {
                    None
                }
            }
            Field::Provider => text(job.flow_key.provider.as_str()),
            Field::Operation => text(job.flow_key.operation.as_str()),
            Field::Account => text(job.flow_key.account.as_str()),
            Field::Tenant => text(job.flow_key.tenant.as_str()),
            Field::Key => job.key.as_ref().and_then(|k| text(k.as_str())),
            Field::Run => {
                if let Value::Run(v) = value {
                    Some(job.flow_key.run.cmp(&v.seq))
                } else {
                    None
                }
            }
            Field::Class => {
                if let Value::Class(v) = value {
                    Some(job.class.cmp(v))
                } else {
                    None
                }
            }
            Field::Attempts => number(i64::from(job.attempts)),
            Field::LastStatus => job.last_status.and_then(|s| number(i64::from(s))),
            Field::CreateTime => time(job.id.created_at),
            Field::DueTime => time(job.due_at),
            Field::Label(name) => job.labels.get(name).and_then(|v| text(v)),
            Field::Lane | Field::Ending | Field::Status | Field::Latency | Field::BeginTime | Field::EndTime => None,
        }
    }

    fn compare_call(&self, call: &Call, value: &Value) -> Option<std::cmp::Ordering> {
        match (self, value) {
            (Field::Provider, Value::Text(v)) => Some(call.provider.as_str().cmp(v)),
            (Field::Operation, Value::Text(v)) => Some(call.operation.as_str().cmp(v)),
            (Field::Account, Value::Text(v)) => Some(call.account.as_str().cmp(v)),
            (Field::Lane, Value::Lane(v)) => Some(call.lane.cmp(v)),
            (Field::Ending, Value::Ending(v)) => Some(call.ending.cmp(v)),
            (Field::Status, Value::Number(v)) => call.status.map(|status| i64::from(status).cmp(v)),
            (Field::Latency, Value::Number(v)) => {
                call.seen.as_ref().map(|seen| i64::try_from(seen.latency.as_millis()).unwrap_or(i64::MAX).cmp(v))
            }
            (Field::BeginTime, Value::Time(v)) => Some(call.begun_at.cmp(v)),
            (Field::EndTime, Value::Time(v)) => call.ended_at.map(|at| at.cmp(v)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::name::{Account, OperationName, ProviderName, Tenant};

    #[test]
    fn a_flow_is_ruled_out_only_when_none_of_its_jobs_can_pass() {
        let flow = FlowKey {
            provider: ProviderName::new("crm").unwrap(),
            operation: OperationName::new("sync").unwrap(),
            account: Account::default(),
            tenant: Tenant::default(),
            run: 0,
            part: 0,
        };
        let provider = |name: &str| Filter::Is(Field::Provider, Comparison::Equal, Value::Text(name.into()));
        let dead = || Filter::Is(Field::State, Comparison::Equal, Value::State(State::Dead));
        let not = |f| Filter::Not(Box::new(f));
        assert!(Filter::everything().may_pass_flow(&flow));
        assert!(dead().may_pass_flow(&flow) && not(dead()).may_pass_flow(&flow));
        assert!(Filter::All(vec![dead(), provider("crm")]).may_pass_flow(&flow));
        assert!(!Filter::All(vec![dead(), provider("shop")]).may_pass_flow(&flow));
        assert!(Filter::Any(vec![dead(), provider("shop")]).may_pass_flow(&flow));
        assert!(!not(Filter::Any(vec![dead(), provider("crm")])).may_pass_flow(&flow));
    }
}
