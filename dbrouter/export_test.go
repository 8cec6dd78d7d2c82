package dbrouter

import (
	"context"

	"github.com/jmoiron/sqlx"
)

// Choose is the hot path alone.
func (rd *Reader) Choose(ctx context.Context, query string) { _ = rd.begin(ctx, query) }

// Redact is what the log shows of a data source.
var Redact = redact

// RedactIn is what the log shows of a driver's message.
var RedactIn = redactIn

// Direct is a pool without a router.
func Direct(driver, dsn string) *sqlx.DB { return sqlx.MustOpen(driver, dsn) }
