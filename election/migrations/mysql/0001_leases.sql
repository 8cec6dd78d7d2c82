-- lease_terms changes only at takeover, and fenced transactions lock it; lease_beats changes at each renewal.
CREATE TABLE IF NOT EXISTS nines_lease_terms (
	name varchar(190) CHARACTER SET ascii COLLATE ascii_bin PRIMARY KEY,
	term bigint NOT NULL,
	holder varchar(190) CHARACTER SET ascii COLLATE ascii_bin NOT NULL
) ENGINE=InnoDB;
CREATE TABLE IF NOT EXISTS nines_lease_beats (
	name varchar(190) CHARACTER SET ascii COLLATE ascii_bin PRIMARY KEY,
	term bigint NOT NULL,
	holder varchar(190) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
	beat bigint NOT NULL,
	server varchar(190) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
	lock_session varchar(190) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
	expires_us bigint NOT NULL
) ENGINE=InnoDB;
