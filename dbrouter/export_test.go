package dbrouter

import (
	"context"

	"github.com/jmoiron/sqlx"

	"github.com/nines-go/nines/internal/dialect"
)

// Choose is the hot path alone.
func (rd *Reader) Choose(ctx context.Context, query string) { _ = rd.begin(ctx, query) }

// Redact is what the log shows of a data source.
var Redact = redact

// RedactIn is what the log shows of a driver's message.
var RedactIn = redactIn

// Direct is a pool without a router.
func Direct(driver, dsn string) *sqlx.DB { return sqlx.MustOpen(driver, dsn) }

// Position is how far a server has come.
type Position = position

// At is a position on PostgreSQL.
func At(timeline, lsn uint64) Position { return position{{timeline, lsn}} }

// The functions of positions.
var (
	GTIDs          = func(list string) Position { return gtids(list) }
	GTIDSet        = gtidSet
	WithoutHeader  = withoutHeader
	ParsePosition  = parsePosition
	AppendPosition = func(p Position) []byte { return p.append(nil) }
)

// Covers is what a read asks for.
func Covers(d dialect.Dialect, p, q Position) bool { return p.covers(d, q) }

// Merge is the least position that covers both.
func Merge(d dialect.Dialect, p, q Position) Position { return p.merge(d, q) }

// Accepts reports whether a token says anything to the router.
func (r *Router) Accepts(token string) bool {
	tr := &track{r: r}
	tr.fold(token)
	return !tr.pinned.Load()
}

// BelongsOnMaster is the scan of statements.
var BelongsOnMaster = belongsOnMaster

// Claim is what a data source says about being the master.
func Claim(writable bool, at Position) claim { return claim{writable: writable, at: at} }

// Follow decides who is the master.
var Follow = follow

// Budget is that of attempts on other sources.
type Budget = budget

// Take asks for another attempt.
func (b *budget) Take(reads uint32, limit int) bool { return b.take(reads, limit) }

// Claims is an empty list of them.
func Claims() []claim { return nil }
