package config

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nines-go/nines/cluster"
)

// What the nodes tell each other.
const (
	topicPrepare = "nines.config.prepare"
	topicApply   = "nines.config.apply"
	topicGet     = "nines.config.get"
)

// Tags of a node with a Store.
const (
	tagHash     = "nines.config"          // version number, who saved it, hash
	tagSections = "nines.config.sections" // key of the names, and six characters for each section's hash
	tagSecrets  = "nines.config.secrets"  // for each key of the ring: its ID, and eight characters for each section with secrets
)

// Code is that of the Reason that a member has another configuration.
const Code = "config"

const (
	maxSections = 40 // told apart in the tag; the last one stands for the rest
	maxSecrets  = 8
	maxRing     = 3               // keys under which secrets are compared
	young       = 5 * time.Second // a difference may be on its way out
)

// Attach puts the Store on a Node, once: the node tells its version and hashes as tags, answers what Save of others asks, and its Status is red
// where another member has another configuration, naming the sections. Call it before the Node runs: then whoever sees the node sees them.
// What has to be caught up and compared anew is Run's work.
func (s *Store[T]) Attach(n *cluster.Node) error {
	select {
	case <-s.ended:
		return ErrClosed
	default:
	}
	if n == nil {
		return errors.New("config: Attach of a nil Node")
	}
	if !s.node.CompareAndSwap(nil, n) {
		return errors.New("config: the Store has a Node already; open another Store for another Node")
	}
	stops := []func(){
		cluster.HandleJSON(n, topicPrepare, func(_ context.Context, _ string, in parcel) (Version, error) {
			now := s.now.Load()
			if now.version.Compare(in.Version) >= 0 {
				return now.version, nil
			}
			_, err := s.candidate(now, in)
			if err == nil && s.cfg.Path != "" {
				err = writable(s.cfg.Path)
			}
			return now.version, err
		}),
		cluster.HandleJSON(n, topicApply, func(ctx context.Context, from string, in parcel) (Version, error) {
			return s.take(ctx, nameOf(n, from), in)
		}),
		cluster.HandleJSON(n, topicGet, func(context.Context, string, struct{}) (parcel, error) {
			now := s.now.Load()
			return parcel{now.version, now.lineage, s.schema.travelling(now.doc)}, nil
		}),
		n.Judge(s.judge),
		n.Notify(s.wake),
	}
	s.mu.Lock()
	s.detach = stops
	s.mu.Unlock()
	s.tell()
	s.poke()
	if n.Tag(n.ID(), tagHash) == "" {
		return errors.New("config: the Node takes no tags; it has ended, or has 16 already")
	}
	return nil
}

// tell puts what holds into the node's tags.
func (s *Store[T]) tell() {
	n := s.node.Load()
	if n == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock() // so that the last one to come tells last
	now := s.now.Load()
	s.macs = s.secretsTag(n, now.print)
	for key, value := range map[string]string{
		tagSections: sectionsTag(now.print), tagSecrets: s.macs,
		tagHash: fmt.Sprintf("%d %s %s", now.version.Number, orDash(now.version.By), now.print.hash),
	} {
		if err := n.SetTag(key, value); err != nil && !errors.Is(err, cluster.ErrClosed) {
			s.log.Error("a tag cannot be set", "tag", key, "error", err)
		}
	}
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// told is what a member's tagHash says.
func told(tag string) (v Version, hash string, ok bool) {
	f := strings.Fields(tag)
	if len(f) != 3 {
		return v, "", false
	}
	number, err := strconv.ParseUint(f[0], 10, 64)
	if err != nil {
		return v, "", false
	}
	v.Number = number
	if f[1] != "-" {
		v.By = f[1]
	}
	return v, f[2], true
}

// bounded gives each name one of at most max places; the last place is everybody's beyond.
func bounded(names []string, max int) [][]string {
	slices.Sort(names)
	var places [][]string
	for i, name := range names {
		if i < max {
			places = append(places, []string{name})
		} else {
			places[max-1] = append(places[max-1], name)
		}
	}
	return places
}

func namesKey(p print) string {
	return short(digest([]byte(strings.Join(sortedKeys(p.sections), "\x00") + "\x01" + strings.Join(sortedKeys(p.secrets), "\x00"))))[:4]
}

// short is the first characters of a hexadecimal hash, denser.
func short(hash string) string {
	b, _ := hex.DecodeString(hash)
	return base64.RawURLEncoding.EncodeToString(b)
}

const perSection = 6

func sectionsTag(p print) string {
	var tag strings.Builder
	tag.WriteString(namesKey(p))
	for _, place := range bounded(sortedKeys(p.sections), maxSections) {
		tag.WriteString(sum(place, func(name string) string { return p.sections[name] })[:perSection])
	}
	return tag.String()
}

func sum(place []string, of func(name string) string) string {
	if len(place) == 1 {
		return short(of(place[0]))
	}
	var all []string
	for _, name := range place {
		all = append(all, of(name))
	}
	return short(digest([]byte(strings.Join(all, " "))))
}

const perSecret = 8

func (s *Store[T]) secretsTag(n *cluster.Node, p print) string {
	byKey := map[string]string{}
	var order []string
	for _, place := range bounded(sortedKeys(p.secrets), maxSecrets) {
		var data []byte
		for _, name := range place {
			data = append(data, marshal([]string{name, string(p.secrets[name])})...)
		}
		for i, mac := range n.MAC("config secrets", data) {
			if i == maxRing {
				break
			}
			if byKey[mac.KeyID] == "" {
				order = append(order, mac.KeyID)
			}
			byKey[mac.KeyID] += base64.RawURLEncoding.EncodeToString(mac.MAC)[:perSecret]
		}
	}
	for i, id := range order {
		order[i] = id + ":" + byKey[id]
	}
	return strings.Join(order, " ")
}

// differing names the places at which two runs of fixed width differ.
func differing(a, b string, width int, places [][]string) (names []string) {
	for i, place := range places {
		from, to := i*width, (i+1)*width
		if to > len(a) || to > len(b) || a[from:to] != b[from:to] {
			names = append(names, place...)
		}
	}
	return names
}

// judge compares a member's tags with what holds here.
func (s *Store[T]) judge(m cluster.Member) []cluster.Reason {
	n := s.node.Load()
	if n == nil || m.ID == n.ID() {
		return nil
	}
	switch m.State {
	case cluster.FateLeft, cluster.FateDead, cluster.FateFailed:
		return nil
	}
	now := s.now.Load()
	version, hash, ok := told(m.Tags[tagHash])
	if !ok {
		return nil
	}
	s.mu.Lock()
	macs := s.macs
	s.mu.Unlock()
	var what []string
	places := bounded(sortedKeys(now.print.sections), maxSections)
	own, theirs := sectionsTag(now.print), m.Tags[tagSections]
	sameNames := len(theirs) >= 4 && own[:4] == theirs[:4]
	switch {
	case hash == now.print.hash:
	case !sameNames:
		what = append(what, "which settings there are")
	default:
		if names := differing(own[4:], theirs[4:], perSection, places); len(names) > 0 {
			what = append(what, sectionsText(names))
		} else {
			what = append(what, "some section") // the short hashes are equal by chance
		}
	}
	if names := secretsDiffer(macs, m.Tags[tagSecrets], bounded(sortedKeys(now.print.secrets), maxSecrets)); sameNames && len(names) > 0 {
		what = append(what, "the secrets of "+sectionsText(names))
	}
	if len(what) == 0 {
		return nil
	}
	name := m.Name
	if name == "" {
		name = m.ID
	}
	r := cluster.Reason{
		Code: Code, Level: cluster.Red,
		Text:   fmt.Sprintf("%s has another configuration than this node: %s differ%s", name, strings.Join(what, " and "), plural(what)),
		Remedy: "copy the file of the node that is right to the others and reload it, or save there once more",
	}
	if version != now.version {
		r.Text += fmt.Sprintf(" (version %s there, %s here)", version, now.version)
		if at := time.Now(); at.Sub(now.at) < young || at.Sub(m.Since) < young {
			r.Level, r.Remedy = cluster.Amber, "wait: the older one is being brought up to date"
		}
	}
	return []cluster.Reason{r}
}

func plural(what []string) string {
	if len(what) == 1 && strings.HasPrefix(what[0], "section ") {
		return "s"
	}
	return ""
}

func sectionsText(names []string) string {
	if len(names) == 1 {
		return "section " + names[0]
	}
	return "sections " + strings.Join(names, ", ")
}

// secretsDiffer names the sections whose secrets differ under a key that both have.
func secretsDiffer(own, theirs string, places [][]string) []string {
	for mine := range strings.FieldsSeq(own) {
		id, a, _ := strings.Cut(mine, ":")
		for other := range strings.FieldsSeq(theirs) {
			if b, ok := strings.CutPrefix(other, id+":"); ok {
				return differing(a, b, perSecret, places)
			}
		}
	}
	return nil // no key in common, or none at all
}
