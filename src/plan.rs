//! What should leave, and when: lanes, batches, turns and forecasts. Pure functions of state and now.
//!
//! `lanes` is the tide rule over two lanes, `batcher` the size of a batch and what becomes of a refused one, `fairness`
//! whose turn it is, `forecast` when a job will go. They see limits only as [`crate::limit::LimitView`]. Must never
//! know: stores, limiters' whereabouts, clocks. Next: `engine/gate`, which asks all of them.

pub mod batcher;
pub mod fairness;
pub mod forecast;
pub mod lanes;
