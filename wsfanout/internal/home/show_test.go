package home_test

import (
	"fmt"
	"strings"

	"github.com/nines-go/nines/wsfanout/internal/home"
	"github.com/nines-go/nines/wsfanout/internal/wire"
)

// show writes a message in one line, as the scripts have it.
func show(m home.Message) string {
	switch m := m.(type) {
	case *wire.Prepare:
		return fmt.Sprintf("PREPARE %v replica %s", m.G, name(m.Replica))
	case *wire.Promise:
		return fmt.Sprintf("PROMISE %v %s open %s active %s view %s", m.G, showCopy(m.Copy), showOpen(m.Open), term(m.Active), strings.Join(m.View, ""))
	case *wire.ViewUpdate:
		return fmt.Sprintf("VIEWUPD %v view %s", m.G, strings.Join(m.View, ""))
	case *wire.Nack:
		return fmt.Sprintf("NACK %v promised %v", m.Refused, m.Promised.Term)
	case *wire.Install:
		return fmt.Sprintf("INSTALL %v %s", m.G, showCopy(m.Copy))
	case *wire.Installed:
		if m.Whole {
			return fmt.Sprintf("INSTALLED %v", m.G)
		}
		return fmt.Sprintf("INSTALLED %v, older ones to come", m.G)
	case *wire.Fetch:
		return fmt.Sprintf("FETCH %s before %v", m.Topic, m.Before)
	case *wire.Backfill:
		more := ""
		if m.Older {
			more = " more"
		}
		return fmt.Sprintf("BACKFILL %s%s%s", m.Topic, showRecords(m.Records), more)
	case *wire.Active:
		return fmt.Sprintf("ACTIVE %v replica %s", m.G, name(m.Replica))
	case *wire.Offer:
		return fmt.Sprintf("OFFER %v", m.T.Term)
	case *wire.Pub:
		return fmt.Sprintf("PUB %s %s", m.Topic, m.ID)
	case *wire.PubAck:
		if m.NoReplica {
			return fmt.Sprintf("PUBACK %s %s no replica", m.Topic, m.ID)
		}
		return fmt.Sprintf("PUBACK %s %s %v copies %d", m.Topic, m.ID, m.At, m.Copies)
	case *wire.Rep:
		return fmt.Sprintf("REP %v %s %s", m.G, m.Topic, showRecord(m.Record))
	case *wire.RepAck:
		return fmt.Sprintf("REPACK %v %s %d", m.G, m.Topic, m.Offset)
	case *wire.Sub:
		only := ""
		if m.Only {
			only = " only"
		}
		return fmt.Sprintf("SUB %v %s %v%s", m.G, m.Topic, showCursor(m.Cursor), only)
	case *wire.SubOK:
		kind := [...]string{"", "fresh", "resumed", "gap " + m.Reason}[m.Answer]
		return fmt.Sprintf("SUBOK %v %s %s start %v%s", m.G, m.Topic, kind, m.Start, showRecords(m.Records))
	case *wire.Live:
		return fmt.Sprintf("LIVE %v %s %s", m.G, m.Topic, showRecord(m.Record))
	case *wire.Confirm:
		return fmt.Sprintf("CONFIRM %v", m.G)
	case *wire.Confirmed:
		return fmt.Sprintf("CONFIRMED %v", m.G)
	case *wire.Return:
		var s strings.Builder
		s.WriteString(fmt.Sprintf("RETURN %v", m.G))
		for _, t := range m.Tips {
			s.WriteString(fmt.Sprintf(" %s@%v", t.Topic, t.At))
		}
		return s.String()
	case *wire.ReturnOK:
		return fmt.Sprintf("RETURNOK %v", m.G)
	case *wire.Unsub:
		return fmt.Sprintf("UNSUB %v %s", m.G, m.Topic)
	case *wire.Digest:
		return fmt.Sprintf("DIGEST %v", m.G)
	case *wire.Resub:
		return fmt.Sprintf("RESUB %v", m.G)
	case *wire.Bye:
		return "BYE"
	}
	return fmt.Sprintf("%T", m)
}

func name(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func term(t home.Term) string { return name(t.String()) }

func showRecord(r *home.Record) string {
	if r.Kind == wire.Gap {
		return fmt.Sprintf("%v gap{%s}", r.Position, r.ID)
	}
	return fmt.Sprintf("%v %s", r.Position, r.ID)
}

func showRecords(rs []*home.Record) string {
	if len(rs) == 0 {
		return ""
	}
	var ss []string
	for _, r := range rs {
		ss = append(ss, showRecord(r))
	}
	return " [" + strings.Join(ss, ", ") + "]"
}

func showOpen(os []wire.Open) string {
	if len(os) == 0 {
		return "-"
	}
	var ss []string
	for _, o := range os {
		ss = append(ss, o.Term.String())
	}
	return strings.Join(ss, ",")
}

func showCopy(c *wire.Copy) string {
	if c == nil {
		return "nothing"
	}
	var s strings.Builder
	s.WriteString("acc " + term(c.Acc))
	if c.Token {
		s.WriteString(" token")
	}
	s.WriteString(" epochs")
	for _, l := range c.Lineage {
		s.WriteString(" " + l.Epoch.String())
		if !l.Verified {
			s.WriteString("?")
		}
	}
	for _, t := range c.Topics {
		tail := ""
		switch {
		case t.Tail:
			tail = "…"
		case t.Older:
			tail = "(older follow)"
		}
		s.WriteString(fmt.Sprintf(" %s%s%s", t.Name, tail, showRecords(t.Records)))
	}
	return s.String()
}

func showCursor(c home.Cursor) string {
	if c.IsZero() {
		return "-"
	}
	var s strings.Builder
	s.WriteString(c.Pos.String())
	for i, x := range c.Seen {
		if i == 0 {
			s.WriteString(" seen")
		}
		s.WriteString(" " + x.String())
	}
	return s.String()
}
