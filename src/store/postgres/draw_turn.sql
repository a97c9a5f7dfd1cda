-- The next number of the line of jobs, for a job that goes to its end.
select nextval('job_seq')
