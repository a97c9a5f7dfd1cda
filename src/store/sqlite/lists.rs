//! Filtered lists of jobs and of calls. Next: `store/reads`, which has them for both databases.

use std::sync::Arc;

use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{Arguments, AssertSqlSafe};

use super::row::{self, Columns};
use super::{SqliteStore, sql};
use crate::model::call::Call;
use crate::model::filter::Filter;
use crate::model::id::CallId;
use crate::store::filter::{Bind, condition, number_parameters, of_call, of_job};
use crate::store::{CallPage, Error, JobPage, LIST_SCAN_MAX, page};

crate::store::reads::filtered_lists!(
    SqliteStore,
    SqliteRow,
    SqliteArguments,
    '?',
    "(select value from json_each(j.labels) where key = ?)"
);
