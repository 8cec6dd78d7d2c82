-- Jobs, schedules and the nodes that run them. Times are microseconds since 1970. An id is never used again.
CREATE TABLE nines_jobs (
  id integer PRIMARY KEY AUTOINCREMENT,
  kind text NOT NULL,
  queue text NOT NULL,
  state smallint NOT NULL,
  outcome varchar(20) NOT NULL,
  priority int NOT NULL,
  run_us bigint NOT NULL,
  deadline_us bigint NOT NULL,
  attempt int NOT NULL,
  uncounted int NOT NULL,
  max_attempts int NOT NULL,
  owner text NULL,
  node text NOT NULL,
  schedule text NULL,
  due_us bigint NULL,
  held smallint NOT NULL,
  cancel smallint NOT NULL,
  unique_key text NULL,
  args text NOT NULL,
  progress int NOT NULL,
  note text NOT NULL,
  error text NOT NULL,
  created_us bigint NOT NULL,
  started_us bigint NOT NULL,
  done_us bigint NOT NULL
);
CREATE TABLE nines_job_schedules (
  name text NOT NULL PRIMARY KEY,
  spec text NOT NULL,
  zone text NOT NULL,
  kind text NOT NULL,
  queue text NOT NULL,
  priority int NOT NULL,
  max_attempts int NOT NULL,
  args text NOT NULL,
  catch_up varchar(20) NOT NULL,
  catch_max int NOT NULL,
  overlap varchar(20) NOT NULL,
  jitter_us bigint NOT NULL,
  deadline_us bigint NOT NULL,
  paused smallint NOT NULL,
  next_us bigint NOT NULL,
  last_us bigint NOT NULL
);
CREATE TABLE nines_job_nodes (
  id text NOT NULL PRIMARY KEY,
  node text NOT NULL,
  host text NOT NULL,
  beat bigint NOT NULL,
  seen_us bigint NOT NULL,
  scheduling smallint NOT NULL,
  working smallint NOT NULL
);
CREATE UNIQUE INDEX nines_jobs_slot ON nines_jobs (schedule, due_us);
CREATE INDEX nines_job_schedules_due ON nines_job_schedules (next_us);
CREATE INDEX nines_jobs_claim ON nines_jobs (queue, priority, run_us, id) WHERE state=1;
CREATE INDEX nines_jobs_due ON nines_jobs (run_us) WHERE state=0;
CREATE INDEX nines_jobs_owner ON nines_jobs (owner) WHERE state=2;
CREATE INDEX nines_jobs_done ON nines_jobs (done_us) WHERE state=3;
CREATE UNIQUE INDEX nines_jobs_unique ON nines_jobs (kind, unique_key) WHERE state<3;
CREATE INDEX nines_jobs_live ON nines_jobs (schedule, id) WHERE state<3;
