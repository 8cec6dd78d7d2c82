package s3store

// SetMaxParts lowers the number of parts that S3 allows.
func SetMaxParts(c *Config, n int) { c.maxParts = n }
