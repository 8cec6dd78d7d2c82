-- lease_terms changes only at takeover; lease_beats changes at each renewal.
CREATE TABLE IF NOT EXISTS nines_lease_terms (
	name text PRIMARY KEY,
	term bigint NOT NULL,
	holder text NOT NULL
);
CREATE TABLE IF NOT EXISTS nines_lease_beats (
	name text PRIMARY KEY,
	term bigint NOT NULL,
	holder text NOT NULL,
	beat bigint NOT NULL,
	server text NOT NULL,
	lock_session text NOT NULL,
	expires_us bigint NOT NULL
);
