-- lease_terms changes only at takeover, and fenced transactions lock it; lease_beats changes at each renewal.
-- There is no foreign key between them: its check would lock the term row.
CREATE TABLE IF NOT EXISTS nines_lease_terms (
	name text PRIMARY KEY,
	term bigint NOT NULL,
	holder text NOT NULL
) WITH (fillfactor=50);
CREATE TABLE IF NOT EXISTS nines_lease_beats (
	name text PRIMARY KEY,
	term bigint NOT NULL,
	holder text NOT NULL,
	beat bigint NOT NULL,
	server text NOT NULL,
	lock_session text NOT NULL,
	expires_us bigint NOT NULL
) WITH (fillfactor=50);
