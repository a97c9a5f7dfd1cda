//! Filtered lists of jobs and of calls. Next: `store/reads`, which has them for both databases.

use std::sync::Arc;

use sqlx::postgres::{PgArguments, PgRow};
use sqlx::{Arguments, AssertSqlSafe};

use super::row::{self, Columns};
use super::{PgStore, sql};
use crate::model::call::Call;
use crate::model::filter::Filter;
use crate::model::id::CallId;
use crate::store::filter::{Bind, condition, number_parameters, of_call, of_job};
use crate::store::{CallPage, Error, JobPage, LIST_SCAN_MAX, page};

crate::store::reads::filtered_lists!(PgStore, PgRow, PgArguments, '$', "((j.labels::json ->> ?) collate \"C\")");
