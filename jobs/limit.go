package jobs

import (
	"context"
	"database/sql"
	"slices"
	"strconv"
)

// limitKey is what EnqueueOptions.LimitKey limits.
type limitKey struct{ kind, key string }

const letBatch = 100 // keys that one look lets through

// letThrough makes jobs available that wait for nothing but their key, as many as the limit leaves room for. Only this gives a job the right to
// run beside others of its key, and only one process at a time does it for a kind, so that no two can give the same place away. A job
// keeps its place over a rescue and over Shutdown, and loses it when it ends or waits for a retry.
func (r *Runner) letThrough(ctx context.Context, keys []limitKey) (let int, err error) {
	byKind := map[string][]string{}
	for _, k := range keys {
		if !slices.Contains(byKind[k.kind], k.key) {
			byKind[k.kind] = append(byKind[k.kind], k.key)
		}
	}
	for kind, keys := range byKind {
		n := 0
		err := r.inTx(ctx, func(tx *sql.Tx) error {
			n = 0
			if err := r.turn(ctx, tx, "limit "+kind); err != nil {
				return err
			}
			for _, key := range keys {
				m, err := r.letKey(ctx, tx, kind, key)
				if err != nil {
					return err
				}
				n += m
			}
			return nil
		})
		if err != nil {
			return let, err
		}
		let += n
	}
	if let > 0 {
		r.wake(topicWake)
	}
	return let, nil
}

func (r *Runner) letKey(ctx context.Context, tx *sql.Tx, kind, key string) (let int, err error) {
	var busy int64
	err = r.one(ctx, tx, `SELECT count(*) FROM nines_jobs WHERE kind=? AND {live_key}=? AND state<3 AND held=0 AND state IN (1,2)`, []any{kind, key}, &busy)
	if err != nil {
		return 0, err
	}
	var ids []int64
	full := false
	err = r.each(ctx, tx, `SELECT id, limit_max FROM nines_jobs WHERE kind=? AND {live_key}=? AND state<3 AND held=2 AND state=0 ORDER BY priority, run_us, id LIMIT 1000`, []any{kind, key}, func(rows *sql.Rows) error {
		var id, most int64
		if err := rows.Scan(&id, &most); err != nil {
			return err
		}
		if full = full || busy >= most; !full {
			ids = append(ids, id)
			busy++
		}
		return nil
	})
	if err != nil || len(ids) == 0 {
		return 0, err
	}
	n, err := r.exec(ctx, tx, `UPDATE nines_jobs SET state=1, held=0 WHERE state=0 AND held=2 AND id IN (`+numbers(ids)+`)`)
	return int(n), err
}

// letWaiting lets jobs through whose key has room, whichever key: for places that came free unseen, and jobs whose time has come.
func (r *Runner) letWaiting(ctx context.Context) (more bool, err error) {
	keys, err := r.roomy(ctx)
	if err != nil || len(keys) == 0 {
		return false, err
	}
	let, err := r.letThrough(ctx, keys)
	return let > 0 && len(keys) == letBatch, err
}

func (r *Runner) roomy(ctx context.Context) (keys []limitKey, err error) {
	const busy = `(SELECT count(*) FROM nines_jobs b WHERE b.kind=w.kind AND b.state<3 AND b.{live_key}=w.limit_key AND b.held=0 AND b.state IN (1,2))`
	const waiting = `{live_key} IS NOT NULL AND state<3 AND {waits} AND held=2`
	query := `SELECT kind, limit_key FROM (SELECT kind, limit_key, max(limit_max) AS most FROM nines_jobs WHERE ` + waiting + ` GROUP BY kind, limit_key) w WHERE ` + busy + ` < most LIMIT ` + strconv.Itoa(letBatch)
	err = r.each(ctx, r.cfg.DB, query, nil, func(rows *sql.Rows) error {
		var k limitKey
		err := rows.Scan(&k.kind, &k.key)
		keys = append(keys, k)
		return err
	})
	return keys, err
}
