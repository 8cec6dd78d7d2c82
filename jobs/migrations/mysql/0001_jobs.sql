-- Jobs, schedules and the nodes that run them. Times are microseconds since 1970. live_key stands for a partial unique index.
CREATE TABLE IF NOT EXISTS nines_jobs (
  id bigint NOT NULL AUTO_INCREMENT PRIMARY KEY,
  kind varchar(190) NOT NULL,
  queue varchar(190) NOT NULL,
  state smallint NOT NULL,
  outcome varchar(20) NOT NULL,
  priority int NOT NULL,
  run_us bigint NOT NULL,
  deadline_us bigint NOT NULL,
  attempt int NOT NULL,
  uncounted int NOT NULL,
  max_attempts int NOT NULL,
  owner varchar(190) NULL,
  node varchar(190) NOT NULL,
  schedule varchar(190) NULL,
  due_us bigint NULL,
  held smallint NOT NULL,
  cancel smallint NOT NULL,
  unique_key varchar(190) NULL,
  args mediumtext NOT NULL,
  progress int NOT NULL,
  note mediumtext NOT NULL,
  error mediumtext NOT NULL,
  created_us bigint NOT NULL,
  started_us bigint NOT NULL,
  done_us bigint NOT NULL,
  live_key varchar(190) GENERATED ALWAYS AS (CASE WHEN state<3 THEN unique_key END) STORED
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;
CREATE TABLE IF NOT EXISTS nines_job_schedules (
  name varchar(190) NOT NULL PRIMARY KEY,
  spec varchar(190) NOT NULL,
  zone varchar(190) NOT NULL,
  kind varchar(190) NOT NULL,
  queue varchar(190) NOT NULL,
  priority int NOT NULL,
  max_attempts int NOT NULL,
  args mediumtext NOT NULL,
  catch_up varchar(20) NOT NULL,
  catch_max int NOT NULL,
  overlap varchar(20) NOT NULL,
  jitter_us bigint NOT NULL,
  deadline_us bigint NOT NULL,
  paused smallint NOT NULL,
  next_us bigint NOT NULL,
  last_us bigint NOT NULL
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;
CREATE TABLE IF NOT EXISTS nines_job_nodes (
  id varchar(190) NOT NULL PRIMARY KEY,
  node varchar(190) NOT NULL,
  host varchar(190) NOT NULL,
  beat bigint NOT NULL,
  seen_us bigint NOT NULL,
  scheduling smallint NOT NULL,
  working smallint NOT NULL
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;
CREATE UNIQUE INDEX nines_jobs_slot ON nines_jobs (schedule, due_us);
CREATE INDEX nines_job_schedules_due ON nines_job_schedules (next_us);
CREATE INDEX nines_jobs_claim ON nines_jobs (state, queue, priority, run_us, id);
CREATE INDEX nines_jobs_due ON nines_jobs (state, run_us);
CREATE INDEX nines_jobs_owner ON nines_jobs (state, owner);
CREATE INDEX nines_jobs_done ON nines_jobs (state, done_us);
CREATE UNIQUE INDEX nines_jobs_unique ON nines_jobs (kind, live_key);
CREATE INDEX nines_jobs_live ON nines_jobs (schedule, state, id);
