//! Request templates: `{name}` substitution into path, query, headers and JSON body. Strict: an unknown variable is an
//! error when the config is checked, never when a job leaves.
//!
//! The language has no logic on purpose. Must never know: HTTP clients, files.

/// A text with variables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    pub source: String,
}

/// A request body: JSON with variables in place of values.
#[derive(Clone, Debug, PartialEq)]
pub struct BodyTemplate {
    pub source: serde_json::Value,
}

/// Where a batch answer tells the fate of each job.
#[derive(Clone, Debug, PartialEq)]
pub struct BatchResult {
    /// JSONPath to the per-record results.
    pub each: String,
    /// JSON pointer within a result to the job's key.
    pub key: String,
    /// JSON pointer whose presence (not null, false, "" or 0) means that this record failed.
    pub failed_if: Option<String>,
}
