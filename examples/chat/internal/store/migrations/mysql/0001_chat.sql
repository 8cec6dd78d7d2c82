CREATE TABLE IF NOT EXISTS chat_users (
	id varchar(36) NOT NULL PRIMARY KEY,
	name varchar(64) NOT NULL UNIQUE,
	password varchar(100) NOT NULL,
	created_at bigint NOT NULL
);
CREATE TABLE IF NOT EXISTS chat_sessions (
	token varchar(64) NOT NULL PRIMARY KEY,
	user_id varchar(36) NOT NULL,
	expires_at bigint NOT NULL,
	KEY chat_sessions_expires (expires_at)
);
CREATE TABLE IF NOT EXISTS chat_rooms (
	id varchar(36) NOT NULL PRIMARY KEY,
	name varchar(64) NOT NULL UNIQUE,
	created_at bigint NOT NULL
);
CREATE TABLE IF NOT EXISTS chat_messages (
	seq bigint NOT NULL AUTO_INCREMENT PRIMARY KEY,
	id varchar(64) NOT NULL UNIQUE,
	room varchar(36) NOT NULL,
	user_name varchar(64) NOT NULL,
	client varchar(64) NOT NULL,
	number bigint NOT NULL,
	text text NOT NULL,
	file text NOT NULL,
	created_at bigint NOT NULL,
	KEY chat_messages_room (room, seq),
	KEY chat_messages_created (created_at)
);
CREATE TABLE IF NOT EXISTS chat_heartbeat (
	id int NOT NULL PRIMARY KEY,
	runs bigint NOT NULL,
	node varchar(64) NOT NULL,
	at bigint NOT NULL
);
INSERT IGNORE INTO chat_rooms (id, name, created_at) VALUES ('lobby', 'Lobby', 0);
INSERT IGNORE INTO chat_heartbeat (id, runs, node, at) VALUES (1, 0, '', 0);
