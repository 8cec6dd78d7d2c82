package s3store

import "net/http"

// SetMaxParts lowers the number of parts that S3 allows.
func SetMaxParts(c *Config, n int) { c.maxParts = n }

// SentBodies is the RoundTripper around the transport.
func SentBodies(next http.RoundTripper) http.RoundTripper { return sentBodies{next} }
