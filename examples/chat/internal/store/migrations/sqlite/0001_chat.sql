CREATE TABLE chat_users (
	id varchar(36) NOT NULL PRIMARY KEY,
	name varchar(64) NOT NULL UNIQUE,
	password varchar(100) NOT NULL,
	created_at bigint NOT NULL
);
CREATE TABLE chat_sessions (
	token varchar(64) NOT NULL PRIMARY KEY,
	user_id varchar(36) NOT NULL,
	expires_at bigint NOT NULL
);
CREATE INDEX chat_sessions_expires ON chat_sessions (expires_at);
CREATE TABLE chat_rooms (
	id varchar(36) NOT NULL PRIMARY KEY,
	name varchar(64) NOT NULL UNIQUE,
	created_at bigint NOT NULL
);
CREATE TABLE chat_messages (
	seq integer PRIMARY KEY AUTOINCREMENT,
	id varchar(64) NOT NULL UNIQUE,
	room varchar(36) NOT NULL,
	user_name varchar(64) NOT NULL,
	client varchar(64) NOT NULL,
	number bigint NOT NULL,
	text text NOT NULL,
	file text NOT NULL,
	created_at bigint NOT NULL
);
CREATE INDEX chat_messages_room ON chat_messages (room, seq);
CREATE INDEX chat_messages_created ON chat_messages (created_at);
CREATE VIRTUAL TABLE chat_search USING fts5(text, content='chat_messages', content_rowid='seq');
CREATE TRIGGER chat_search_insert AFTER INSERT ON chat_messages BEGIN INSERT INTO chat_search(rowid, text) VALUES (new.seq, new.text); END;
CREATE TRIGGER chat_search_delete AFTER DELETE ON chat_messages BEGIN INSERT INTO chat_search(chat_search, rowid, text) VALUES ('delete', old.seq, old.text); END;
CREATE TABLE chat_heartbeat (
	id int NOT NULL PRIMARY KEY,
	runs bigint NOT NULL,
	node varchar(64) NOT NULL,
	at bigint NOT NULL
);
INSERT INTO chat_rooms (id, name, created_at) VALUES ('lobby', 'Lobby', 0);
INSERT INTO chat_heartbeat (id, runs, node, at) VALUES (1, 0, '', 0);
