//! Collections end to end: real daemon, real store, a real provider that lists page by page.

mod pulls;
mod restart;
mod service;
mod stage;
