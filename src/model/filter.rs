//! The meaning of a list filter, as a tree of conditions that must all or any hold. `api/filter` parses the text.

use super::flow::Class;
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
}

impl Filter {
    /// Does the job pass? The reference for every store's own evaluation.
    pub fn passes(&self, job: &super::job::Job) -> bool {
        match self {
            Filter::All(parts) => parts.iter().all(|p| p.passes(job)),
            Filter::Any(parts) => parts.iter().any(|p| p.passes(job)),
            Filter::Not(part) => !part.passes(job),
            Filter::Is(field, comparison, value) => field.compare(job, value).is_some_and(|o| comparison.holds(o)),
        }
    }
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
        }
    }
}
