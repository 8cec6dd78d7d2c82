package lab

// Inside lists the processes of a folder.
var Inside = inside

// PostgresMissing says why there is no PostgreSQL.
func PostgresMissing() error {
	_, err := postgresBin()
	return err
}

// Dir is the folder of a cluster.
func (c *PostgresCluster) Dir() string { return c.dir }
