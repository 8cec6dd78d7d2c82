package cluster_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/cluster"
)

// ids that are IDs, in ascending order.
var (
	idA = cluster.MakeID(1000, 1)
	idB = cluster.MakeID(2000, 1)
	idC = cluster.MakeID(3000, 1)
)

// script is a table with a clock.
type script struct {
	*cluster.Table
	t   *testing.T
	now time.Time
}

func newScript(t *testing.T) *script {
	now := time.Unix(1e9, 0)
	return &script{cluster.NewTable(idA, now), t, now}
}

func (s *script) pass(d time.Duration) *script { s.now = s.now.Add(d); return s }

func (s *script) expect(id, fate string, alive ...string) {
	s.t.Helper()
	s.Refresh(s.now)
	require.Equal(s.t, fate, s.Fate(id))
	require.Equal(s.t, alive, s.Alive())
}

func (s *script) join(id string) {
	s.GossipJoin(id, s.now)
	s.LinkUp(id, s.now)
	s.Told(id, 1, false, false, s.now)
}

func TestNewcomerIsShownWithItsTags(t *testing.T) {
	s := newScript(t)
	s.GossipJoin(idB, s.now)
	s.expect(idB, cluster.FateAlive, idA) // nothing is known of it yet
	s.pass(100 * time.Millisecond)
	s.Told(idB, 1, false, false, s.now)
	s.expect(idB, cluster.FateAlive, idA, idB)
	s.GossipJoin(idC, s.now)
	s.expect(idC, cluster.FateAlive, idA, idB)
	s.pass(500*time.Millisecond).expect(idC, cluster.FateAlive, idA, idB, idC) // not held back for ever
}

func TestProvenDeathIsAtOnceAndForEver(t *testing.T) {
	s := newScript(t)
	s.join(idB)
	s.expect(idB, cluster.FateAlive, idA, idB)
	s.Bury(idB, s.now)
	s.expect(idB, cluster.FateDead, idA)
	s.GossipJoin(idB, s.now) // gossip is slower
	s.LinkUp(idB, s.now)
	s.Told(idB, 2, false, false, s.now)
	s.expect(idB, cluster.FateDead, idA)
	require.Empty(t, s.Lost())
	s.pass(25 * time.Hour).Refresh(s.now)
	s.GossipJoin(idB, s.now)
	s.expect(idB, "", idA)
}

func TestFailedComesBack(t *testing.T) {
	s := newScript(t)
	s.join(idB)
	s.expect(idB, cluster.FateAlive, idA, idB)
	s.pass(time.Second).LinkDown(idB, s.now)
	s.expect(idB, cluster.FateAlive, idA, idB)
	s.pass(300*time.Millisecond).expect(idB, cluster.FateSuspect, idA, idB)
	s.GossipLeave(idB)
	s.expect(idB, cluster.FateFailed, idA)
	require.Equal(t, []string{idB + ":1"}, s.Lost())
	s.pass(time.Hour).GossipJoin(idB, s.now)
	s.expect(idB, cluster.FateAlive, idA, idB)
	require.Empty(t, s.Lost())
}

func TestGossipAloneDoesNotGiveUpWhoTalksToUs(t *testing.T) {
	s := newScript(t)
	s.join(idB)
	s.expect(idB, cluster.FateAlive, idA, idB)
	s.GossipLeave(idB)
	s.expect(idB, cluster.FateAlive, idA, idB)
	require.Equal(t, []string{idB + ":1"}, s.Lost(), "gossip is to have it again")
	s.pass(time.Hour).expect(idB, cluster.FateAlive, idA, idB)
	s.LinkDown(idB, s.now)
	s.expect(idB, cluster.FateFailed, idA)
}

func TestOwnPauseIsNoEvidence(t *testing.T) {
	s := newScript(t)
	s.join(idB)
	s.expect(idB, cluster.FateAlive, idA, idB)
	s.pass(10 * time.Second)
	s.Resume(s.now, 2*time.Second)
	s.LinkDown(idB, s.now)
	s.GossipLeave(idB) // our timers ran out while we did not run
	s.expect(idB, cluster.FateSuspect, idA, idB)
	s.pass(1900*time.Millisecond).expect(idB, cluster.FateSuspect, idA, idB)
	s.GossipJoin(idB, s.now)
	s.LinkUp(idB, s.now)
	s.pass(time.Second).expect(idB, cluster.FateAlive, idA, idB)

	s.Resume(s.now, 2*time.Second) // and who is really gone is given up after all
	s.LinkDown(idB, s.now)
	s.GossipLeave(idB)
	s.pass(2*time.Second).expect(idB, cluster.FateFailed, idA)
}

func TestGoodbyeAndDraining(t *testing.T) {
	s := newScript(t)
	s.join(idB)
	s.Told(idB, 2, true, false, s.now)
	s.expect(idB, cluster.FateDraining, idA, idB)
	s.Told(idB, 1, false, false, s.now) // older
	s.expect(idB, cluster.FateDraining, idA, idB)
	s.Told(idB, 3, true, true, s.now)
	s.expect(idB, cluster.FateLeft, idA)
	s.Bury(idB, s.now) // its port refuses now
	s.GossipJoin(idB, s.now)
	s.expect(idB, cluster.FateLeft, idA)
	require.Empty(t, s.Lost())
}

func TestRumourOfDeath(t *testing.T) {
	s := newScript(t)
	s.join(idB)
	s.join(idC)
	s.Rumour(idC, idB, s.now) // C talks to us
	s.expect(idC, cluster.FateAlive, idA, idB, idC)
	s.LinkDown(idC, s.now)
	s.Rumour(idC, idB, s.now)
	s.expect(idC, cluster.FateDead, idA, idB)
	s.Rumour(idA, idB, s.now) // and we live
	s.expect(idA, cluster.FateAlive, idA, idB)
}

func TestTheTableForgets(t *testing.T) {
	s := newScript(t)
	s.join(idB)
	s.Told(idB, 2, true, true, s.now)
	s.LinkDown(idB, s.now)
	s.GossipLeave(idB)
	s.expect(idB, cluster.FateLeft, idA)
	s.pass(23*time.Hour).expect(idB, cluster.FateLeft, idA)
	s.pass(2 * time.Hour).Refresh(s.now)
	require.Equal(t, 1, s.Known())
}

func TestSuccessorAtTheSameAddress(t *testing.T) {
	s := newScript(t)
	s.join(idB)
	s.expect(idB, cluster.FateAlive, idA, idB)
	s.GossipJoinAt(idC, idB+":1", s.now)
	s.LinkUp(idC, s.now)
	s.Told(idC, 1, false, false, s.now)
	s.expect(idB, cluster.FateAlive, idA, idB, idC) // it talks to us
	s.LinkDown(idB, s.now)
	s.expect(idB, cluster.FateDead, idA, idC)
}

func TestClockOffsetIsSaid(t *testing.T) {
	s := newScript(t)
	s.join(idB)
	s.expect(idB, cluster.FateAlive, idA, idB)
	require.Empty(t, s.About(idB, 900*time.Millisecond, s.now))
	for _, off := range []time.Duration{2 * time.Second, -2 * time.Second} {
		got := s.About(idB, off, s.now)
		require.Len(t, got, 1)
		require.Equal(t, cluster.CodeClock, got[0].Code)
		require.Equal(t, cluster.Amber, got[0].Level)
	}
}
