package filestore

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	idKey    = Reserved + "store-id"
	probeDir = Reserved + "probe/"
)

// The first byte of an answer to a probe.
const (
	answerSum   = 1 // and the SHA-256 of what was read
	answerError = 2 // and why it could not be read, though the storage works
	answerFault = 3 // and what is wrong with the storage: the member is red itself
)

// The first byte of a verdict.
const (
	verdictOK      = 1
	verdictPending = 2 // it still reads what was overwritten
	verdictWrong   = 3 // and what is wrong
)

// text is what was written under a name.
type text struct {
	key string
	sum [sha256.Size]byte
	at  time.Time
}

// round does what is due: the store's ID first, then a write of its own, then every member that is new, failed or was not asked for Interval.
func (p *Proof) round(ctx context.Context) {
	alive := p.cfg.Cluster.Alive()
	if alive == nil {
		return
	}
	err := p.own(ctx, alive)
	p.mu.Lock()
	p.stats.Rounds++
	if (err == nil) != (p.fault == nil) && p.ready {
		p.cfg.Logger.Warn("file store changed", "err", err)
	}
	p.fault = err
	due := p.dueLocked(alive)
	p.mu.Unlock()
	if err == nil && len(due) > 0 {
		if err := p.probe(ctx, due); err != nil && ctx.Err() == nil {
			p.mu.Lock()
			p.fault = err
			p.mu.Unlock()
		}
	}
	p.mu.Lock()
	if ctx.Err() != nil {
		p.mu.Unlock()
		return
	}
	p.ready = true
	first := p.settleLocked()
	p.mu.Unlock()
	if first {
		if err := p.cfg.Cluster.SetTag(provenTag, "1"); err != nil {
			p.cfg.Logger.Warn("file store: the others cannot be told that it is proven", "err", err)
		}
	}
}

// own sees to this process's own access: the ID is read often, because an empty mount point shows there first, a write is tried now and then.
func (p *Proof) own(ctx context.Context, alive []string) error {
	p.mu.Lock()
	broken := p.fault != nil
	identify := broken || time.Since(p.identified) >= min(p.cfg.Interval/6, hangLimit)
	check := broken || time.Since(p.checked) >= p.cfg.Interval/3
	p.mu.Unlock()
	if identify {
		if err := p.timed(func() error { return p.identify(ctx, alive) }); err != nil {
			return err
		}
		p.mu.Lock()
		p.identified = time.Now()
		p.mu.Unlock()
	}
	if check {
		if err := p.timed(func() error { return p.cfg.Store.Check(ctx) }); err != nil {
			return err
		}
		p.mu.Lock()
		p.checked = time.Now()
		p.mu.Unlock()
	}
	return nil
}

// timed calls what uses the storage, so that Check sees when it hangs.
func (p *Proof) timed(use func() error) error {
	p.mu.Lock()
	p.began = time.Now()
	p.mu.Unlock()
	err := use()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.began = time.Time{}
	return err
}

// dueLocked returns whom to ask now, and forgets who is gone.
func (p *Proof) dueLocked(alive []string) []string {
	for id := range p.peers {
		if !slices.Contains(alive, id) {
			delete(p.peers, id)
		}
	}
	for id, v := range p.told { // the word of a member may come before it is seen
		if !slices.Contains(alive, id) && time.Since(v.at) > verdictLimit {
			delete(p.told, id)
		}
	}
	var due []string
	for _, id := range alive {
		if id == p.cfg.Cluster.ID() {
			continue
		}
		o := p.peers[id]
		if o == nil {
			o = &peer{since: time.Now()}
			p.peers[id] = o
		}
		wait := p.cfg.Interval
		if !o.shared {
			wait = min(wait, retryMost, retry<<min(o.failed, 8)/2)
		}
		if time.Since(o.asked) >= wait {
			due = append(due, id)
		}
	}
	return due
}

// settleLocked notes that this member agrees with all others, and reports whether it is the first time.
func (p *Proof) settleLocked() bool {
	if p.established || p.fault != nil {
		return false
	}
	for id, o := range p.peers {
		if p.disagreementLocked(id, o) != nil || p.waitingLocked(id, o) {
			return false
		}
	}
	p.established = true
	return true
}

// identify reads the store's ID and tells it to the others. It makes one only when no member has one: an empty directory in a cluster that has a
// store is the wrong directory.
func (p *Proof) identify(ctx context.Context, alive []string) error {
	p.mu.Lock()
	known := p.id
	p.mu.Unlock()
	b, err := p.cfg.Store.read(ctx, idKey)
	if errors.Is(err, fs.ErrNotExist) {
		for _, other := range alive {
			if tag := p.cfg.Cluster.Tag(other, idTag); other != p.cfg.Cluster.ID() && tag != "" {
				return fmt.Errorf("%w: this store has no ID, member %s has one with ID %s", ErrNotShared, other, tag)
			}
		}
		if known != "" {
			return fmt.Errorf("%w: the store lost its ID", ErrNotShared)
		}
		b, err = p.makeID(ctx)
	}
	if err != nil {
		return fmt.Errorf("the store's ID cannot be read: %w", err)
	}
	id := string(b)
	if len(id) != 32 || strings.Trim(id, "0123456789abcdef") != "" {
		return fmt.Errorf("%w: the store's ID is %q: it was damaged", ErrNotShared, shorten(id))
	}
	if known != "" && known != id && p.cfg.Store.Capabilities().IfAbsent {
		return fmt.Errorf("%w: the store's ID was %s and is %s: it is another store than before", ErrNotShared, known, id)
	}
	p.mu.Lock()
	p.id = id
	p.mu.Unlock()
	if p.cfg.Cluster.Tag(p.cfg.Cluster.ID(), idTag) == id {
		return nil
	}
	return p.cfg.Cluster.SetTag(idTag, id)
}

// makeID makes an ID and returns the one that is there then: another member may have been first.
func (p *Proof) makeID(ctx context.Context) ([]byte, error) {
	id := newID()
	opts := &PutOptions{Size: int64(len(id)), IfAbsent: true}
	_, err := p.cfg.Store.driver.Put(ctx, idKey, strings.NewReader(id), opts)
	if errors.Is(err, errors.ErrUnsupported) { // the last one counts, for all
		opts.IfAbsent = false
		_, err = p.cfg.Store.driver.Put(ctx, idKey, strings.NewReader(id), opts)
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	return p.cfg.Store.read(ctx, idKey)
}

// write stores a random text.
func (p *Proof) write(ctx context.Context, key string) (text, error) {
	random := newID()
	t := text{key: key, sum: sha256.Sum256([]byte(random)), at: time.Now()}
	err := p.timed(func() error {
		_, err := p.cfg.Store.driver.Put(ctx, key, strings.NewReader(random), &PutOptions{Size: int64(len(random))})
		return err
	})
	if err != nil {
		return text{}, fmt.Errorf("the store cannot be written: %w", err)
	}
	return t, nil
}

// probe asks members, all at once. Its error is a fault of this member's own store.
func (p *Proof) probe(ctx context.Context, due []string) error {
	prefix := probeDir + p.cfg.Cluster.ID() + "-"
	fresh, err := p.write(ctx, prefix+newID())
	if err != nil {
		return err
	}
	defer p.remove(ctx, fresh.key)
	if p.live.key == "" {
		if p.live, err = p.write(ctx, prefix+"live"); err != nil {
			return err
		}
	}
	var missing []string // asked again under another new name: a name may have been looked for too early
	p.each(due, func(id string) {
		if !p.ask(ctx, id, fresh) {
			p.mu.Lock()
			defer p.mu.Unlock()
			missing = append(missing, id)
		}
	})
	if len(missing) > 0 {
		again, err := p.write(ctx, prefix+newID())
		if err != nil {
			return err
		}
		defer p.remove(ctx, again.key)
		p.each(missing, func(id string) { p.ask(ctx, id, again) })
	}
	p.each(due, func(id string) { p.prime(ctx, id) })
	if p.live, err = p.write(ctx, p.live.key); err != nil {
		return err
	}
	p.each(due, func(id string) {
		p.overwritten(ctx, id)
		p.tell(ctx, id)
	})
	return nil
}

func (p *Proof) each(ids []string, fn func(id string)) {
	var wg sync.WaitGroup
	for _, id := range ids {
		wg.Go(func() { fn(id) })
	}
	wg.Wait()
}

func (p *Proof) remove(ctx context.Context, key string) {
	_ = p.cfg.Store.driver.Delete(context.WithoutCancel(ctx), key)
}

// request asks a member what it reads: nil where it reads what was written. wrong says that it reads something else or nothing; an error without
// it, that it could not be asked.
func (p *Proof) request(ctx context.Context, id string, t text) (wrong bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	answer, err := p.cfg.Cluster.Request(ctx, id, probeTopic, []byte(t.key))
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stats.Probes++
	if err != nil {
		p.stats.Failures++
		return false, fmt.Errorf("filestore: member %s could not be asked: %w", id, err)
	}
	if len(answer) == 1+len(t.sum) && answer[0] == answerSum && bytes.Equal(answer[1:], t.sum[:]) {
		p.stats.Visible = time.Since(t.at)
		return false, nil
	}
	p.stats.Failures++
	if len(answer) > 0 && answer[0] == answerFault {
		return false, fmt.Errorf("filestore: member %s has a fault: %s", id, answer[1:])
	}
	if len(answer) > 0 && answer[0] == answerError {
		return true, fmt.Errorf("%w: member %s cannot read what this one wrote: %s", ErrNotShared, id, answer[1:])
	}
	return true, fmt.Errorf("%w: member %s reads something else than this one wrote", ErrNotShared, id)
}

// ask notes whether a member sees a new name, and reports false when it does not.
func (p *Proof) ask(ctx context.Context, id string, t text) bool {
	wrong, err := p.request(ctx, id, t)
	p.mu.Lock()
	defer p.mu.Unlock()
	o := p.peers[id]
	if o == nil || ctx.Err() != nil {
		return true
	}
	if wrong && !o.wrong {
		p.cfg.Logger.Error("another member has another file store", "member", id, "err", err)
	}
	o.asked, o.fault, o.wrong, o.shared = time.Now(), err, wrong, err == nil
	o.answered = o.answered || err == nil || wrong
	if o.failed++; err == nil {
		o.failed = 0
	}
	return !wrong
}

// prime lets a member that sees new names read the name that will be overwritten, so that its cache, if it has one, holds the old content.
func (p *Proof) prime(ctx context.Context, id string) {
	p.mu.Lock()
	o := p.peers[id]
	skip := o == nil || !o.shared || o.primed
	p.mu.Unlock()
	if skip {
		return
	}
	if _, err := p.request(ctx, id, p.live); err == nil {
		p.mu.Lock()
		o.primed = true
		p.mu.Unlock()
	}
}

// overwritten notes whether a member sees the new content under the old name. A cache may take a while; not longer than staleLimit.
func (p *Proof) overwritten(ctx context.Context, id string) {
	p.mu.Lock()
	o := p.peers[id]
	skip := o == nil || !o.shared
	p.mu.Unlock()
	if skip {
		return
	}
	wrong, err := p.request(ctx, id, p.live)
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case ctx.Err() != nil:
	case err == nil:
		o.stale, o.primed = time.Time{}, true
	case !wrong: // it could not be asked
		o.shared, o.fault = false, err
	case o.stale.IsZero():
		o.stale, o.shared = p.live.at, false
		o.fault = fmt.Errorf("filestore: member %s still reads what this one has overwritten", id)
	case time.Since(o.stale) < p.staleLimit:
		o.shared = false
		o.fault = fmt.Errorf("filestore: member %s still reads what this one has overwritten", id)
	default:
		if !o.wrong {
			p.cfg.Logger.Error("another member reads old contents of the file store", "member", id)
		}
		o.shared, o.wrong = false, true
		o.fault = fmt.Errorf("%w: member %s reads what was overwritten %s ago: its mount caches for too long", ErrNotShared, id, time.Since(o.stale).Round(time.Second))
	}
}

// tell says to a member what was found of it.
func (p *Proof) tell(ctx context.Context, id string) {
	p.mu.Lock()
	o := p.peers[id]
	if o == nil || !o.answered {
		p.mu.Unlock()
		return
	}
	payload := []byte{verdictOK}
	switch {
	case o.wrong:
		payload = append([]byte{verdictWrong}, strings.TrimPrefix(o.fault.Error(), ErrNotShared.Error()+": ")...)
	case !o.stale.IsZero():
		payload = []byte{verdictPending}
	case !o.shared:
		p.mu.Unlock()
		return
	}
	p.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	if _, err := p.cfg.Cluster.Request(ctx, id, verdictTopic, payload); err != nil {
		p.mu.Lock()
		defer p.mu.Unlock()
		if o.shared { // it is asked again soon, and told
			o.shared, o.fault = false, fmt.Errorf("filestore: member %s could not be told: %w", id, err)
		}
	}
}

// hear is told what another member found of this one.
func (p *Proof) hear(_ context.Context, from string, payload []byte) ([]byte, error) {
	if len(payload) == 0 || payload[0] < verdictOK || payload[0] > verdictWrong {
		return nil, fmt.Errorf("filestore: %q is no verdict", payload)
	}
	p.mu.Lock()
	old := p.told[from]
	p.told[from] = verdict{time.Now(), payload[0], string(payload[1:])}
	p.mu.Unlock()
	if old.code != payload[0] {
		if payload[0] == verdictWrong {
			p.cfg.Logger.Error("another member finds that this one has another file store", "member", from, "err", string(payload[1:]))
		}
		p.poke()
	}
	return nil, nil
}

// poke begins the next round at once.
func (p *Proof) poke() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// answer reads what another member wrote. Who is asked by a member that it does not know to be shared asks back at once.
func (p *Proof) answer(ctx context.Context, from string, payload []byte) ([]byte, error) {
	key := string(payload)
	if !strings.HasPrefix(key, probeDir+from+"-") || checkGrammar(key) != nil {
		return nil, fmt.Errorf("filestore: %q is no probe of %s", key, from)
	}
	p.mu.Lock()
	o := p.peers[from]
	unknown := o == nil || !o.answered
	if o != nil && unknown {
		o.asked = time.Time{}
	}
	p.mu.Unlock()
	if unknown {
		p.poke()
	}
	b, err := p.cfg.Store.read(ctx, key)
	if err == nil {
		sum := sha256.Sum256(b)
		return append([]byte{answerSum}, sum[:]...), nil
	}
	if fault := p.lost(ctx, err); fault != nil {
		return append([]byte{answerFault}, fault.Error()...), nil
	}
	return append([]byte{answerError}, err.Error()...), nil
}

// lost tells whether this member's own storage is why a probe could not be read: then it is red, and not who asked.
func (p *Proof) lost(ctx context.Context, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		p.mu.Lock()
		known := p.id
		p.mu.Unlock()
		b, idErr := p.cfg.Store.read(ctx, idKey)
		switch {
		case known == "" || idErr == nil && string(b) == known:
			return nil
		case idErr == nil || errors.Is(idErr, fs.ErrNotExist):
			err = fmt.Errorf("%w: the store lost its ID", ErrNotShared)
		default:
			err = idErr
		}
	}
	p.mu.Lock()
	p.identified, p.checked = time.Time{}, time.Time{}
	p.mu.Unlock()
	p.poke()
	return err
}

func newID() string {
	b := make([]byte, 16)
	if _, err := rand.Read(b); err != nil {
		panic(err) // never: crypto/rand ends the process itself
	}
	return hex.EncodeToString(b)
}
