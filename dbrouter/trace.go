package dbrouter

import (
	"context"
	"log/slog"
	"time"
)

// observeCall logs a call that is traced or slow. Arguments are logged when that is asked for: they are users' data.
func (r *Router) observeCall(ctx context.Context, t *topology, s *source, query string, args []any, began time.Time, err error) {
	took := time.Since(began)
	slow := t.cfg.SlowQuery > 0 && took > t.cfg.SlowQuery
	if slow && s != nil {
		s.counts.slow.Add(1)
	}
	if !slow && !t.cfg.Trace {
		return
	}
	level, message := slog.LevelInfo, "sql"
	if slow {
		level, message = slog.LevelWarn, "slow query"
	}
	attrs := []slog.Attr{slog.String("query", query), slog.Duration("took", took)}
	if s != nil {
		attrs = append(attrs, slog.String("role", string(s.role)), slog.String("source", s.name))
	}
	if t.cfg.TraceArguments && len(args) > 0 {
		attrs = append(attrs, slog.Any("args", args))
	}
	if err != nil {
		text := err.Error()
		if s != nil {
			text = redactIn(text, s.dsn)
		}
		attrs = append(attrs, slog.String("error", text))
	}
	t.cfg.Logger.LogAttrs(ctx, level, message, attrs...)
}
