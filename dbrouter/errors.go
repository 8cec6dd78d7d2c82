package dbrouter

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"reflect"
	"strings"
	"syscall"

	"github.com/nines-go/nines/internal/dialect"
)

var (
	// ErrClosed is returned by every call after Router.Close.
	ErrClosed = errors.New("dbrouter: router closed")

	// ErrUnknownOutcome is part of the error of RunTx when the connection was lost during COMMIT, and of Master's Exec, NamedExec, Get and
	// Select when it was lost under the statement: what it should do may have happened. The driver's error is part of it, too.
	ErrUnknownOutcome = errors.New("dbrouter: the connection was lost, the outcome is unknown")

	// ErrTwoMasters is returned by calls of Master, and by Open and Reconfigure, with Config.FollowMaster while two data sources accept writes and
	// nothing tells which of them is the master.
	ErrTwoMasters = errors.New("dbrouter: two data sources accept writes")

	// ErrLagging is returned by reads with LaggingError when every replica that answers trails by more than MaxLag.
	ErrLagging = errors.New("dbrouter: all replicas trail the master by more than MaxLag")
)

// Fault is what an error of a driver means to the router. Config.Classify may tell it about errors that it does not know.
type Fault int

// The faults.
const (
	FaultNone       Fault = iota // an answer to this statement: it would be the same elsewhere
	FaultConnection              // the source is away, going away or not ready: it is taken out of use, and a read runs elsewhere
	FaultBusy                    // the source refuses for the moment, or cancelled the read for the sake of replication: a read runs elsewhere
	FaultReadOnly                // the source does not accept writes: a statement that came through a Reader runs on the master
	FaultRetry                   // a serialization failure or a deadlock: RunTx repeats its callback
)

// states are PostgreSQL's SQLSTATE values that need an answer.
var states = map[string]Fault{
	"57P01": FaultConnection, // admin shutdown
	"57P02": FaultConnection, // crash shutdown
	"57P03": FaultConnection, // cannot connect now
	"53300": FaultBusy,       // too many connections
	"25006": FaultReadOnly,
	"40001": FaultRetry,
	"40P01": FaultRetry,
}

// numbers are those of MySQL's and MariaDB's errors.
var numbers = map[int]Fault{
	1053: FaultConnection, // server shutdown in progress
	2006: FaultConnection,
	2013: FaultConnection,
	1040: FaultBusy, // too many connections
	1203: FaultBusy,
	1290: FaultReadOnly, // --read-only
	1792: FaultReadOnly, // read-only transaction
	1836: FaultReadOnly,
	1213: FaultRetry, // deadlock
	1205: FaultRetry, // lock wait timeout
}

// classify tells what err, which is not nil, means. A cancelled or expired context is the caller's and no fault.
func (t *topology) classify(err error) Fault {
	if c := t.cfg.Classify; c != nil {
		if f := c(err); f != FaultNone {
			return f
		}
	}
	var state interface{ SQLState() string }
	if errors.As(err, &state) {
		s := state.SQLState()
		if strings.HasPrefix(s, "08") {
			return FaultConnection
		}
		return states[s]
	}
	switch t.dialect {
	case dialect.MySQL:
		if n, ok := number(err, "Number"); ok {
			return numbers[n]
		}
	case dialect.SQLite:
		if n, ok := sqliteCode(err); ok {
			switch n & 0xff {
			case 5, 6: // SQLITE_BUSY, SQLITE_LOCKED
				return FaultRetry
			case 8: // SQLITE_READONLY
				return FaultReadOnly
			}
			return FaultNone
		}
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return FaultNone
	}
	if lost(err) {
		return FaultConnection
	}
	return FaultNone
}

// unknown is the error of a statement whose connection was lost under it.
func unknown(err error) error { return fmt.Errorf("%w: %w", ErrUnknownOutcome, err) }

// dialError is one of the making of a connection: no statement has been sent.
type dialError struct{ error }

func (e *dialError) Unwrap() error { return e.error }

// unsent reports whether a call that failed with a fault has certainly done nothing.
func unsent(f Fault, err error) bool {
	var dial *dialError
	if f == FaultReadOnly || errors.As(err, &dial) || errors.Is(err, errHung) || errors.Is(err, driver.ErrBadConn) {
		return true
	}
	var state interface{ SQLState() string }
	if errors.As(err, &state) {
		text := err.Error()
		return state.SQLState() == "57P03" || strings.HasPrefix(state.SQLState(), "08") &&
			// PgBouncer, which has no server to send the statement to
			(strings.Contains(text, "server login") || strings.Contains(text, "connect failed") || strings.Contains(text, "query_wait_timeout"))
	}
	return safe(err)
}

// safe reports whether pgx says that nothing was sent.
func safe(err error) bool {
	var s interface{ SafeToRetry() bool }
	return errors.As(err, &s) && s.SafeToRetry()
}

// lost reports whether err is that of a connection.
func lost(err error) bool {
	var u *url.Error // of parsing a data source; it poses as one of the network
	if errors.As(err, &u) {
		return false
	}
	for _, e := range []error{errHung, driver.ErrBadConn, io.EOF, io.ErrUnexpectedEOF, net.ErrClosed,
		syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.ECONNABORTED, syscall.EPIPE, syscall.ETIMEDOUT, syscall.EHOSTUNREACH, syscall.ENETUNREACH} {
		if errors.Is(err, e) {
			return true
		}
	}
	var ne net.Error
	if errors.As(err, &ne) {
		return true
	}
	text := err.Error()
	return strings.HasSuffix(text, "invalid connection") /* go-sql-driver/mysql */ || strings.HasSuffix(text, "conn closed") /* pgx */
}

// number reads an integer field of the first error in the chain that is a struct with such a field: the MySQL driver tells its numbers in
// no other way, and importing it is the user's choice.
func number(err error, field string) (int, bool) {
	for ; err != nil; err = errors.Unwrap(err) {
		v := reflect.ValueOf(err)
		if v.Kind() == reflect.Pointer {
			v = v.Elem()
		}
		if v.Kind() != reflect.Struct {
			continue
		}
		if f := v.FieldByName(field); f.IsValid() {
			switch {
			case f.CanInt():
				return int(f.Int()), true
			case f.CanUint():
				return int(f.Uint()), true
			}
		}
	}
	return 0, false
}

// sqliteCode returns SQLite's result code: the drivers tell it by a method or by a field.
func sqliteCode(err error) (int, bool) {
	var coded interface{ Code() int }
	if errors.As(err, &coded) {
		return coded.Code(), true
	}
	return number(err, "Code")
}

// closedText is the error of database/sql for a closed pool; it has no name there. It means that the call did not begin.
const closedText = "sql: database is closed"
