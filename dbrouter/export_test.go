package dbrouter

import "context"

// Choose is the hot path alone.
func (rd *Reader) Choose(ctx context.Context) { rd.choose(ctx) }

// Redact is what the log shows of a data source.
var Redact = redact
