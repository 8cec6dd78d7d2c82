package cluster_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/cluster"
)

// tick counts ticks in which those were heard, and asks and pings are thrown away.
func (s *script) ticks(n int, lives ...string) *script {
	for range n {
		s.pass(100 * time.Millisecond)
		s.Listen(s.now, lives...)
	}
	return s
}

func TestWhoNobodyHearsIsFailed(t *testing.T) {
	s := newScript(t)
	s.join(idB)
	s.join(idC)
	s.ticks(3, idB, idC)
	s.expect(idB, cluster.FateAlive, idA, idB, idC)
	pinged, asked := false, false
	for tick := 1; tick <= 10; tick++ {
		s.pass(100 * time.Millisecond)
		ping, ask := s.Listen(s.now, idC)
		pinged = pinged || len(ping) > 0
		if ask != nil {
			require.True(t, pinged, "it is tried before anybody is asked")
			require.Equal(t, map[string][]string{idC: {idB}}, ask)
			asked = true
		}
	}
	require.True(t, asked)
	s.ticks(5, idC)
	s.expect(idB, cluster.FateAlive, idA, idB, idC) // C has not answered
	s.Answered(idC, map[string]int{idB: 200})
	s.ticks(2, idC).expect(idB, cluster.FateAlive, idA, idB, idC) // C hears it
	s.Answered(idC, map[string]int{idB: 700})
	s.expect(idB, cluster.FateFailed, idA, idC)
	require.Equal(t, []string{idB + ":1"}, s.Lost(), "it is looked for")
	require.Equal(t, map[string]int{idB: 1100, idC: 0}, s.QuietHere(idA, idB, idC))
	s.ticks(1, idB, idC).expect(idB, cluster.FateAlive, idA, idB, idC) // one sign of life
}

func TestWhoHearsNobodyIsAlone(t *testing.T) {
	s := newScript(t)
	s.join(idB)
	s.join(idC)
	s.ticks(3, idB, idC).ticks(10)
	s.expect(idB, cluster.FateAlive, idA, idB, idC)
	s.ticks(1).expect(idB, cluster.FateFailed, idA)
}

func TestGossipDoesNotGiveUpWhoWasHeardJustNow(t *testing.T) {
	s := newScript(t)
	s.join(idB)
	s.join(idC)
	s.ticks(3, idB, idC)
	s.LinkDown(idB, s.now) // silent for a second, and a datagram came through
	s.GossipLeave(idB)
	s.expect(idB, cluster.FateSuspect, idA, idB, idC)
	s.ticks(5, idC).ticks(1, idB, idC).ticks(9, idC)
	s.expect(idB, cluster.FateSuspect, idA, idB, idC)
	s.ticks(2, idC).expect(idB, cluster.FateFailed, idA, idC) // gossip is enough then: C need not answer
	s.GossipJoin(idB, s.now)
	s.ticks(5, idC).expect(idB, cluster.FateAlive, idA, idB, idC) // it begins anew
	s.LinkUp(idB, s.now)
	s.ticks(1, idB, idC).expect(idB, cluster.FateAlive, idA, idB, idC)
}

func TestOwnPauseCountsNoSilence(t *testing.T) {
	s := newScript(t)
	s.join(idB)
	s.ticks(3, idB).ticks(10)
	s.Resume(s.now, 2*time.Second)
	s.ticks(10).expect(idB, cluster.FateAlive, idA, idB)
	s.ticks(1).expect(idB, cluster.FateSuspect, idA, idB) // the others have their time to answer
	s.ticks(10).expect(idB, cluster.FateFailed, idA)
}
