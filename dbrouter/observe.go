package dbrouter

import (
	"context"
	"database/sql"
	"time"

	"github.com/nines-go/nines/dbrouter/internal/question"
	"github.com/nines-go/nines/internal/dialect"
)

// observation is what one probe saw.
type observation struct {
	known    bool          // it has told its role
	standby  bool          // the server follows another one, or is read only
	at       position      // replayed on a standby and written on a primary; nil where unknown
	seen     position      // what reads there may have shown already: a server shows a commit a moment before it tells; nil where unknown
	received int64         // on a PostgreSQL standby, what it has of the log; -1 where unknown
	sent     time.Time     // when the question was sent
	latency  time.Duration // until the answer
}

// observe asks a server where it stands, in the words that it understands: MySQL does not know MariaDB's, and a server that knows none is
// only asked to answer.
func (s *source) observe(ctx context.Context) (observation, error) {
	return observe(ctx, s.probe, s.dialect, question.Words(s.words.Load()))
}

func observe(ctx context.Context, db *sql.DB, d dialect.Dialect, words question.Words) (observation, error) {
	o := observation{received: -1, sent: time.Now()}
	row := db.QueryRowContext(ctx, question.Of(string(d), words))
	var err error
	switch {
	case words == question.Plain || d == dialect.SQLite:
		err = row.Scan(new(int))
	case d == dialect.Postgres:
		var line, seq, received sql.NullInt64
		var block, segment int64
		err = row.Scan(&o.standby, &line, &seq, &received, &block, &segment)
		if line.Valid && seq.Valid && err == nil {
			lsn := uint64(seq.Int64)
			if !received.Valid {
				lsn = withoutHeader(lsn, uint64(block), uint64(segment))
			}
			o.at = position{{uint64(line.Int64), lsn}}
			if !o.standby {
				o.seen = o.at
			}
		}
		if received.Valid {
			o.received = received.Int64
			if o.at != nil {
				o.seen = position{{o.at[0].line, max(o.at[0].seq, uint64(o.received))}}
			}
		}
	case words == question.MariaDB:
		var applied, written sql.NullString
		var both bool
		if err = row.Scan(&o.standby, &applied, &written, &both); err == nil {
			o.at = gtids(applied.String)
			if !o.standby || both {
				o.seen = gtids(applied.String, written.String) // the binary log is written before the commit shows
			}
			if !o.standby {
				o.at = o.seen
			}
		}
	default:
		var set sql.NullString
		if err = row.Scan(&o.standby, &set); err == nil {
			if o.at = gtidSet(set.String); !o.standby {
				o.seen = o.at
			}
		}
	}
	if len(o.at) == 0 {
		o.at, o.seen = nil, nil // it keeps no such account
	}
	o.latency = time.Since(o.sent)
	o.known = err == nil && words != question.Plain
	return o, err
}

// learn notes what an observation says about a source.
func (s *source) learn(o observation) {
	if o.at == nil {
		s.mute.Store(true)
		s.applied.Store(nil)
		return
	}
	s.applied.Store(&o.at)
	s.mute.Store(false)
}

// plainProbes is how many times a server that understands no question is only asked to answer before it is asked again: it may have been
// something that passed.
const plainProbes = 60

// simpler has the source asked in other words; it reports whether there are any.
func (s *source) simpler() bool {
	w := question.Words(s.words.Load())
	if w == question.Plain {
		return false
	}
	next := question.Plain
	if s.dialect == dialect.MySQL && w == question.MariaDB {
		next = question.MySQL
	}
	s.words.Store(int32(next))
	return true
}

// unknown counts the answers without a role, and reports whether this is the first.
func (s *source) unknown() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.plain++
	if s.plain%plainProbes == 0 {
		s.words.Store(int32(question.First))
	}
	return s.plain == 1
}

// identify reads the number that the servers of one PostgreSQL cluster share, as it goes into tokens; 0 where there is none.
func identify(ctx context.Context, db *sql.DB, d dialect.Dialect) uint32 {
	if d != dialect.Postgres {
		return 0
	}
	var id sql.NullInt64
	if err := db.QueryRowContext(ctx, question.Identity).Scan(&id); err != nil {
		return 0
	}
	return uint32(id.Int64) ^ uint32(id.Int64>>32)
}
