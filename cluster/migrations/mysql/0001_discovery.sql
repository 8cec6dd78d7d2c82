-- One row per running process; times are milliseconds since 1970 by the database's clock.
CREATE TABLE IF NOT EXISTS ClusterDiscovery (
    id varchar(64) NOT NULL PRIMARY KEY,
    type varchar(64) NOT NULL,
    clustername varchar(64) NOT NULL,
    hostname varchar(512) NOT NULL,
    gossipport int NOT NULL,
    port int NOT NULL,
    createat bigint NOT NULL,
    lastpingat bigint NOT NULL
) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
