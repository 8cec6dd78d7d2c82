-- A job without a slot costs the index of slots nothing. What a job leaves behind (output, the errors of its attempts, where it was), limits of a key, and what each node has workers for.
ALTER TABLE nines_jobs ADD COLUMN output text NOT NULL DEFAULT '';
ALTER TABLE nines_jobs ADD COLUMN errors text NOT NULL DEFAULT '';
ALTER TABLE nines_jobs ADD COLUMN position text NOT NULL DEFAULT '';
ALTER TABLE nines_jobs ADD COLUMN limit_key text NULL;
ALTER TABLE nines_jobs ADD COLUMN limit_max int NOT NULL DEFAULT 0;
ALTER TABLE nines_job_schedules ADD COLUMN limit_key text NULL;
ALTER TABLE nines_job_schedules ADD COLUMN limit_max int NOT NULL DEFAULT 0;
ALTER TABLE nines_job_nodes ADD COLUMN kinds text NOT NULL DEFAULT '';
ALTER TABLE nines_job_nodes ADD COLUMN queues text NOT NULL DEFAULT '';
CREATE TABLE nines_job_locks (
  name text NOT NULL PRIMARY KEY
);
CREATE INDEX nines_jobs_limit ON nines_jobs (kind, limit_key, held, priority, run_us, id) WHERE limit_key IS NOT NULL AND state<3;
DROP INDEX nines_jobs_slot;
CREATE UNIQUE INDEX nines_jobs_slot ON nines_jobs (schedule, due_us) WHERE schedule IS NOT NULL;
