//! Reads that both databases do alike, written once: their queries have the same names and columns, and only the types of
//! rows and of bound values differ. Made by macros because the driver's traits cannot be said of both at once. Names such
//! as `sql` and `row` are those of the file that uses a macro. Next: `sqlite/lists`, `postgres/lists`.

/// Filtered lists, newest first: of jobs, and of calls. Each looks at a window of rows along the primary key. `$sign`
/// stands before the number of a parameter; `$label`: a label of a job, for the filter.
macro_rules! filtered_lists {
    ($store:ty, $row:ty, $args:ty, $sign:literal, $label:literal) => {
        /// Rows that a list looks at first.
        const FIRST_WINDOW: usize = 256;

        /// A list with a filter in its text.
        struct List<T> {
            text: Arc<str>,
            binds: Vec<Bind>,
            /// The query for where a window ends.
            floor: &'static str,
            read: fn(&$row) -> Result<T, Error>,
            number: fn(&T) -> i64,
        }

        impl $store {
            pub(super) async fn read_list(
                &self,
                filter: &Filter,
                before: Option<i64>,
                limit: usize,
            ) -> Result<JobPage, Error> {
                let mut binds = Vec::new();
                let condition = condition(filter, &of_job($label), &mut binds);
                let text = with(sql::LIST_JOBS, &condition, 4);
                let list = List { text, binds, floor: sql::LIST_FLOOR, read: row::job, number: |job| job.id.seq };
                let (jobs, next) = self.window(list, before, limit).await?;
                Ok(JobPage { jobs, next })
            }

            pub(super) async fn read_call_list(
                &self,
                filter: &Filter,
                before: Option<CallId>,
                limit: usize,
                bodies: bool,
            ) -> Result<CallPage, Error> {
                let mut binds = vec![Bind::Int(i64::from(bodies))];
                let condition = condition(filter, &of_call, &mut binds);
                let text = with(sql::LIST_CALLS, &condition, 5);
                let number = |call: &Call| call.id.0;
                let list = List { text, binds, floor: sql::CALL_FLOOR, read: row::call, number };
                let (calls, next) = self.window(list, before.map(|id| id.0), limit).await?;
                Ok(CallPage { calls, next: next.map(CallId) })
            }

            /// Looks at a few rows first and at more only if they do not fill the page: most lists are not that selective.
            async fn window<T>(
                &self,
                list: List<T>,
                before: Option<i64>,
                limit: usize,
            ) -> Result<(Vec<T>, Option<i64>), Error> {
                let limit = page(limit);
                let (mut found, mut next) = (Vec::new(), None);
                let mut below = before.unwrap_or(i64::MAX);
                let mut looked = 0;
                while looked < LIST_SCAN_MAX {
                    let window = if looked == 0 { FIRST_WINDOW.max(limit) } else { LIST_SCAN_MAX - looked };
                    looked += window;
                    let args = args([below, window as i64, (limit - found.len()) as i64], &list.binds);
                    // Safe: the text is made of words of ours; values go in as parameters only.
                    let query = sqlx::query_with(AssertSqlSafe(list.text.clone()), args).persistent(false);
                    found.extend(self.rows(query, list.read).await?);
                    if found.len() == limit {
                        next = found.last().map(list.number);
                        break;
                    }
                    let floor = sqlx::query(list.floor).bind(below).bind(window as i64 - 1);
                    next = self.row(floor, |row| Columns::of(row).int()).await?;
                    let Some(floor) = next else { break };
                    below = floor;
                }
                Ok((found, next))
            }
        }

        /// The text with the filter in it. The parameters of the file are numbered, those of the condition are not: number them
        /// on from there, as the driver binds them by position.
        fn with(text: &str, condition: &str, first: usize) -> Arc<str> {
            number_parameters(&text.replacen("where true", &format!("where {condition}"), 1), first, $sign).into()
        }

        fn args(numbers: [i64; 3], binds: &[Bind]) -> $args {
            let mut args = <$args>::default();
            for n in numbers {
                args.add(n).expect("a number can always be bound");
            }
            for bind in binds {
                match bind {
                    Bind::Text(text) => args.add(text.as_str()).expect("a text can always be bound"),
                    Bind::Int(n) => args.add(*n).expect("a number can always be bound"),
                }
            }
            args
        }
    };
}

/// Records: each read is one range of an index. `by_name` and `by_key` bind a list of one name, and of one record.
macro_rules! record_reads {
    ($store:ty) => {
        #[async_trait]
        impl Records for $store {
            async fn collection(&self, name: &CollectionName) -> Result<Option<CollectionInfo>, Error> {
                self.row(by_name(sqlx::query(sql::COLLECTIONS_BY_NAME), name), row::collection).await
            }

            async fn collections(&self) -> Result<Vec<CollectionInfo>, Error> {
                self.rows(sqlx::query(sql::COLLECTIONS), row::collection).await
            }

            async fn record(&self, collection: &CollectionName, id: &Key) -> Result<Option<Record>, Error> {
                self.row(by_key(sqlx::query(sql::RECORD_ROWS), collection, id), row::record).await
            }

            async fn list_records(
                &self,
                collection: &CollectionName,
                index: Option<(&str, &str)>,
                after: &str,
                limit: usize,
            ) -> Result<RecordPage, Error> {
                let limit = page(limit);
                let text = if index.is_some() { sql::LIST_RECORDS_BY_INDEX } else { sql::LIST_RECORDS };
                let query = sqlx::query(text).bind(collection.as_str()).bind(after).bind(limit as i64 + 1);
                let query = match index {
                    Some((name, value)) => query.bind(name).bind(value),
                    None => query,
                };
                let records = self.rows(query, row::record).await?;
                Ok(RecordPage::of(records, limit))
            }

            async fn record_changes(
                &self,
                collection: &CollectionName,
                after: i64,
                limit: usize,
            ) -> Result<Vec<Record>, Error> {
                let query = sqlx::query(sql::RECORD_CHANGES).bind(collection.as_str()).bind(after);
                self.rows(query.bind(page(limit) as i64), row::record).await
            }

            async fn top_groups(
                &self,
                collection: &CollectionName,
                aggregate: &str,
                limit: usize,
            ) -> Result<Vec<Group>, Error> {
                let query = sqlx::query(sql::TOP_GROUPS).bind(collection.as_str()).bind(aggregate);
                self.rows(query.bind(ALL_TIME).bind(limit as i64), row::group).await
            }

            async fn groups_between(
                &self,
                collection: &CollectionName,
                aggregate: &str,
                from: i64,
                to: i64,
                limit: usize,
            ) -> Result<Vec<Group>, Error> {
                let query = sqlx::query(sql::GROUPS_BETWEEN).bind(collection.as_str()).bind(aggregate);
                self.rows(query.bind(from).bind(to).bind(limit as i64), row::group).await
            }
        }
    };
}

pub(super) use {filtered_lists, record_reads};
