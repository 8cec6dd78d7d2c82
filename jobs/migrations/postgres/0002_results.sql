-- No index has rows that it is not for: a planner that takes live jobs to be few would read them all in it. What a job leaves behind (output, the errors of its attempts, where it was), limits of a key, and what each node has workers for.
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
DROP INDEX nines_jobs_unique;
CREATE UNIQUE INDEX nines_jobs_unique ON nines_jobs (kind, unique_key) WHERE state<3 AND unique_key IS NOT NULL;
DROP INDEX nines_jobs_live;
CREATE INDEX nines_jobs_live ON nines_jobs (schedule, id) WHERE state<3 AND schedule IS NOT NULL;
