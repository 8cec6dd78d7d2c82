package home_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/wsfanout/internal/home"
	"github.com/nines-go/nines/wsfanout/internal/wire"
)

// cast starts nodes that see each other, A first, and runs them to rest.
func cast(t *testing.T, cfg home.Config, ids ...string) *stage {
	s := &stage{t: t, nodes: map[string]*home.Node{}, queues: map[[2]string][]home.Message{}, clients: map[string]*actor{}, cfg: cfg, order: append(slices.Clone(ids), "X")}
	s.command("start " + strings.Join(ids, " "))
	if len(ids) == 1 {
		s.command("tick 2500ms")
	}
	s.command("run")
	s.flush()
	return s
}

// play runs commands and returns what they lead to.
func (s *stage) play(commands ...string) string {
	for _, c := range commands {
		s.command(c)
	}
	if len(s.lines) == 0 {
		return ""
	}
	return s.flush()
}

// numbers returns n commands with a number each.
func numbers(format string, from, to int) []string {
	var cs []string
	for i := from; i <= to; i++ {
		cs = append(cs, fmt.Sprintf(format, i))
	}
	return cs
}

func TestConfigNamesEveryFault(t *testing.T) {
	_, err := home.New(home.Config{MinCopies: 3, Partitions: -1, Uncertain: time.Hour})
	for _, field := range []string{"ID", "MinCopies", "Partitions", "Uncertain"} {
		require.ErrorContains(t, err, "Config."+field)
	}
}

func TestAloneWaitsBeforeItLeads(t *testing.T) {
	n, err := home.New(home.Config{ID: "A"})
	require.NoError(t, err)
	n.SetView(time.Hour, home.View{Settled: true, Alive: []string{"A"}})
	n.Attach(time.Hour, 1, "t", home.Cursor{})
	n.Tick(time.Hour + 1900*time.Millisecond)
	require.Empty(t, n.Take().Events)
	require.False(t, n.Settled())
	n.Tick(time.Hour + 3100*time.Millisecond)
	o := n.Take()
	require.Len(t, o.Events, 1)
	require.Equal(t, home.Fresh, o.Events[0].(*home.Answer).Kind)
	require.Empty(t, o.Frames)
	require.True(t, n.Settled())
	_, known := n.HomeOf("t")
	require.True(t, known)
	require.Equal(t, 1024, n.Stats().Homed)
}

func TestNothingBeforeTheFirstSettledView(t *testing.T) {
	n, err := home.New(home.Config{ID: "A"})
	require.NoError(t, err)
	n.SetView(0, home.View{Alive: []string{"A", "B"}})
	for d := range 20 {
		n.Tick(time.Duration(d) * time.Second)
	}
	require.Empty(t, n.Take().Frames)
}

func TestAloneLeadsAtOnceWhenTheOtherIsProvenDead(t *testing.T) {
	s := cast(t, home.Config{}, "A", "B")
	s.play("crash B", "view A: A B=dead")
	require.Equal(t, "A: publish m1 acknowledged at 1.A:1, copies 1\n", s.play("publish A m1"))
}

func TestRingOverrunIsReported(t *testing.T) {
	s := cast(t, home.Config{RingBytes: 1000}, "A", "B", "C")
	s.play("attach c C", "run", "publish A m1", "run", "detach c")
	s.play(numbers("publish A n%d", 1, 30)...)
	s.play("run", "tick 10s", "run", "tick 10s", "run")
	out := s.play("attach c C", "run")
	require.Contains(t, out, "client c GAP ring_overrun from 1.A:1 to 1.A:")
	require.Contains(t, out, "n30")
	require.NotContains(t, out, "n5\n")
	for _, id := range []string{"A", "B"} {
		require.LessOrEqual(t, s.nodes[id].Stats().RingBytes, 2000)
		require.NoError(t, s.nodes[id].BooksBalance())
	}
}

func TestOldRecordsAreTrimmedAndTheTopicForgotten(t *testing.T) {
	s := cast(t, home.Config{RingAge: time.Minute, IdleAge: 10 * time.Minute}, "A", "B", "C")
	s.play("attach c C", "run", "publish A m1", "publish A m2", "run", "detach c")
	s.play("tick 80s", "run")
	require.Empty(t, s.nodes["A"].State(0).Topics["t"].Records)
	require.Contains(t, s.play("attach c C", "run"), "client c resumed(0) at 1.A:2")
	s.play("detach c", "tick 11s", "run", "tick 11m")
	require.Empty(t, s.nodes["A"].State(0).Topics)
	// A topic that is born again never uses an offset twice.
	out := s.play("attach x C", "run", "publish C m3", "run")
	require.Contains(t, out, "client x fresh at 1.A:2")
	require.Contains(t, out, "client x sees 1.A:3 m3")
	require.Equal(t, s.nodes["A"].State(0).Topics["t"].Records, s.nodes["B"].State(0).Topics["t"].Records)
}

func TestForgottenAtTheReplicaOnly(t *testing.T) {
	s := cast(t, home.Config{RingAge: time.Minute, IdleAge: 10 * time.Minute}, "A", "B", "C")
	s.play("attach c C", "run", "publish A m1", "publish A m2", "run", "tick B 20m", "run")
	require.Empty(t, s.nodes["B"].State(0).Topics)
	s.play("publish A m3", "run", "crash A", "view B: B C A=failed", "view C: B C A=failed", "run")
	out := s.play("publish C m4", "run")
	require.Contains(t, out, "client c sees 2.B:4 m4")
	require.NotContains(t, out, "GAP")
}

func TestPublishIDsAreForgottenAfterAWhile(t *testing.T) {
	s := cast(t, home.Config{WindowAge: time.Minute}, "A", "B")
	require.Contains(t, s.play("publish B m1", "run"), "acknowledged at 1.A:1, copies 2")
	require.Contains(t, s.play("publish A m1", "run"), "acknowledged at 1.A:1, copies 2")
	s.play("tick 80s", "run")
	require.Contains(t, s.play("publish B m1", "run"), "acknowledged at 1.A:2, copies 2")
}

func TestTheWindowIsBounded(t *testing.T) {
	s := cast(t, home.Config{WindowIDs: 4}, "A")
	s.play(numbers("publish A m%d", 1, 8)...)
	s.play("tick 20s")
	require.Contains(t, s.play("publish A m8"), "acknowledged at 1.A:8")
	require.Contains(t, s.play("publish A m1"), "acknowledged at 1.A:9")
}

func TestNodeBytesTrimTheTopicsIdleLongest(t *testing.T) {
	n, err := home.New(home.Config{ID: "A", NodeBytes: 100_000, SoloDelay: 1, Retry: time.Millisecond})
	require.NoError(t, err)
	n.SetView(0, home.View{Settled: true, Alive: []string{"A"}})
	n.Tick(time.Second)
	now := time.Second
	for i := range 40 {
		for range 10 {
			now += time.Millisecond
			_, err := n.Publish(now, home.Publish{Topic: fmt.Sprint("t", i), Data: make([]byte, 1000)})
			require.NoError(t, err)
		}
	}
	require.Greater(t, n.Stats().RingBytes, 300_000)
	n.Tick(now)
	require.LessOrEqual(t, n.Stats().RingBytes, 100_000)
	require.NoError(t, n.BooksBalance())
	old := n.State(home.PartitionOf("t0", 1024)).Topics["t0"]
	require.Empty(t, old.Records)
	require.EqualValues(t, 10, old.Base.Offset)
	require.Len(t, n.State(home.PartitionOf("t39", 1024)).Topics["t39"].Records, 10)
}

func TestMinCopies(t *testing.T) {
	s := cast(t, home.Config{MinCopies: 2}, "A", "B")
	require.Contains(t, s.play("publish A m1", "run"), "copies 2")
	s.play("crash B", "view A: A B=dead")
	s.play("publish A m2", "publish A m1")
	out := s.play("tick 31s")
	require.Contains(t, out, "publish m2: "+home.ErrNoReplica.Error())
	require.Contains(t, out, "publish m1: "+home.ErrUncertain.Error(), "it is in the log, on one node")
	out = s.play("publish A m3", "join X A", "view A: A X", "run")
	require.Contains(t, out, "A: publish m3 acknowledged at 1.A:2, copies 2")
}

func TestMinMembers(t *testing.T) {
	s := cast(t, home.Config{MinMembers: 2}, "A", "B")
	require.Contains(t, s.play("publish A m1", "run"), "copies 2")
	s.play("crash B", "view A: A B=dead")
	require.NotContains(t, s.play("publish A m2", "tick 20s"), "publish m2")
	require.Contains(t, s.play("tick 11s"), "publish m2: "+home.ErrUncertain.Error())
}

func TestCancelledPublishIsNotAcknowledged(t *testing.T) {
	s := cast(t, home.Config{}, "A", "B")
	h, err := s.nodes["B"].Publish(s.now, home.Publish{Topic: "t", ID: "m1"})
	require.NoError(t, err)
	s.take("B")
	s.nodes["B"].Cancel(h)
	s.nodes["B"].Cancel(h)
	require.NotContains(t, s.play("run"), "acknowledged")
	require.Zero(t, s.nodes["B"].Stats().Publishing)
}

func TestTwoPublishesWithOneIDAreOneMessage(t *testing.T) {
	s := cast(t, home.Config{}, "A", "B")
	s.play("attach b B", "run")
	out := s.play("publish B m1", "publish B m1", "publish A m1", "run")
	require.Equal(t, 3, strings.Count(out, "publish m1 acknowledged at 1.A:1"))
	require.Equal(t, 1, strings.Count(out, "sees"))
}

func TestPublishRefusesWhatCannotTravel(t *testing.T) {
	s := cast(t, home.Config{}, "A")
	for _, p := range []home.Publish{
		{}, {Topic: strings.Repeat("x", 256)}, {Topic: "t", ID: strings.Repeat("x", 256)}, {Topic: "t", ID: "\x00x"}, {Topic: "t", ID: "\xff"},
	} {
		_, err := s.nodes["A"].Publish(s.now, p)
		require.Error(t, err)
	}
}

func TestEphemeralHasNoPosition(t *testing.T) {
	s := cast(t, home.Config{}, "A", "B", "C")
	s.play("attach c C", "run")
	_, err := s.nodes["B"].Publish(s.now, home.Publish{Topic: "t", Data: []byte("typing"), Ephemeral: true})
	require.NoError(t, err)
	o := s.nodes["B"].Take()
	require.Len(t, o.Acks, 1)
	require.Zero(t, o.Acks[0].Copies)
	s.nodes["A"].Receive(s.now, "B", o.Frames[0].Messages)
	live := s.nodes["A"].Take()
	require.Len(t, live.Frames, 1, "only to the node with a subscriber, not to the replica")
	s.nodes["C"].Receive(s.now, "A", live.Frames[0].Messages)
	d := s.nodes["C"].Take().Events[0].(*home.Deliver)
	require.Equal(t, wire.Ephemeral, d.Records[0].Kind)
	require.Empty(t, s.nodes["A"].State(0).Topics["t"].Records)
}

func TestClientsShareTheRingOfTheirNode(t *testing.T) {
	s := cast(t, home.Config{}, "A", "B", "C")
	s.play("attach c C", "run", "publish A m1", "publish A m2", "publish A m3", "run")
	// Answered from the ring, without a message.
	require.Equal(t, "C: client d resumed(2) at 1.A:1\nC: client d sees 1.A:2 m2\nC: client d sees 1.A:3 m3\n", s.play("attach d C 1|1.A:1|1.A:1|m1"))
	require.Equal(t, "C: client e fresh at 1.A:3\n", s.play("attach e C"))
	// Not in the ring: only the home may say that it is a gap.
	out := s.play("attach x C 1|9.X:1||")
	require.Equal(t, "C → A SUB 1.A t 9.X:1 only\n", out)
	require.Contains(t, s.play("run"), "client x GAP epoch_changed from 9.X:1 to 1.A:0")
	out = s.play("publish A m4", "run")
	for _, c := range []string{"c", "d", "e", "x"} {
		require.Contains(t, out, "client "+c+" sees 1.A:4 m4")
	}
	rs, ok := s.nodes["C"].Since("t", home.Position{Epoch: home.Term{N: 1, Node: "A"}, Offset: 2}, nil)
	require.True(t, ok)
	require.Len(t, rs, 2)
	_, ok = s.nodes["C"].Since("t", home.Position{Epoch: home.Term{N: 2, Node: "A"}, Offset: 2}, nil)
	require.False(t, ok)
}

// However many clients come back at once, and wherever they stand, the home is asked once: its answer makes the ring as long as the oldest
// needs it.
func TestOneQuestionForAll(t *testing.T) {
	s := cast(t, home.Config{}, "A", "B", "C")
	s.play(numbers("publish A m%d", 1, 9)...)
	s.play("run", "attach c C", "run", "publish A m10", "run")
	asked := s.nodes["C"].Stats().Asked
	out := s.play(append(numbers("attach x%d C 1|1.A:5|1.A:5|m5", 1, 50), numbers("attach y%d C 1|1.A:7|1.A:7|m7", 1, 50)...)...)
	require.Equal(t, 1, strings.Count(out, "only"), out)
	out = s.play("run")
	require.Equal(t, 50, strings.Count(out, "resumed(5) at 1.A:5"), out)
	require.Equal(t, 50, strings.Count(out, "resumed(3) at 1.A:7"), out)
	require.Contains(t, s.play("attach z C 1|1.A:6|1.A:6|m6"), "resumed(4)", "from the ring by now")
	require.EqualValues(t, asked+1, s.nodes["C"].Stats().Asked)
	// Those whom the ring cannot help have one question for each cursor.
	out = s.play(append(numbers("attach v%d C 1|7.Q:3||", 1, 20), numbers("attach w%d C 1|8.Q:4||", 1, 20)...)...)
	out += s.play("run")
	require.Equal(t, 20, strings.Count(out, "GAP epoch_changed from 7.Q:3"), out)
	require.Equal(t, 20, strings.Count(out, "GAP epoch_changed from 8.Q:4"), out)
	require.EqualValues(t, asked+3, s.nodes["C"].Stats().Asked)
	require.NoError(t, s.nodes["C"].BooksBalance())
	out = s.play("publish A m11", "run")
	require.Equal(t, 142, strings.Count(out, "sees 1.A:11 m11"), out)
}

func TestClientWhoseQuestionIsOpenWhenTheHomeDies(t *testing.T) {
	s := cast(t, home.Config{}, "A", "B", "C")
	s.play("attach c C", "run", "publish A m1", "run", "detach c", "attach c C", "attach x C 1|1.A:0||", "run")
	s.play("attach y C 1|7.Q:0||")
	s.play("crash A", "view B: B C A=failed", "view C: B C A=failed", "run")
	out := s.play("publish C m2", "run")
	for _, c := range []string{"c", "x", "y"} {
		require.Contains(t, out, "client "+c+" sees 2.B:2 m2")
	}
}

func TestSubscriptionLingersAndEnds(t *testing.T) {
	s := cast(t, home.Config{}, "A", "B", "C")
	s.play("attach c C", "run", "detach c")
	require.NotContains(t, s.play("tick 9s", "run"), "UNSUB")
	require.Contains(t, s.play("publish A m1", "run"), "A → C LIVE")
	require.Contains(t, s.play("tick 2s", "run"), "C → A UNSUB")
	require.NotContains(t, s.play("publish A m2", "run"), "LIVE")
	require.Zero(t, s.nodes["C"].Stats().Subscribed)
	require.Contains(t, s.play("attach c C", "run"), "client c resumed(2) at 1.A:0")
}

func TestHoleIsRepairedBySubscribingAgain(t *testing.T) {
	s := cast(t, home.Config{}, "A", "B", "C")
	s.play("attach c C", "run", "publish A m1", "send A>B", "send B>A", "lose A>C", "publish A m2", "send A>B", "send B>A")
	out := s.play("run")
	require.NotContains(t, out, "HOLE")
	require.Contains(t, out, "C → A SUB")
	require.Contains(t, out, "client c sees 1.A:1 m1\nC: client c sees 1.A:2 m2\n")
	require.EqualValues(t, 1, s.nodes["C"].Stats().Repairs)
}

func TestDigestFindsALostRegistration(t *testing.T) {
	s := cast(t, home.Config{}, "A", "B", "C")
	s.play("attach c C", "run")
	s.nodes["A"].Receive(s.now, "C", []home.Message{&wire.Unsub{G: home.Term{N: 1, Node: "A"}, Request: 1 << 40, Topic: "t"}})
	s.digests = true
	s.play("publish A m1", "run", "tick 6s", "run")
	require.Equal(t, "1|1.A:1|1.A:1|m1", s.clients["c"].cur.String())
	s.play("tick 12s", "run")
	require.EqualValues(t, 1, s.nodes["C"].Stats().Repairs, "equal digests repair nothing")
}

func TestAfterAPauseTheHomeAsksBeforeItAnswers(t *testing.T) {
	s := cast(t, home.Config{}, "A", "B", "C")
	require.Contains(t, s.play("pause A 10s"), "A → B CONFIRM 1.A")
	out := s.play("attach a A")
	require.NotContains(t, out, "fresh")
	require.Contains(t, s.play("run"), "client a fresh at 1.A:0")
}

func TestAPauseIsNoEvidenceAgainstOthers(t *testing.T) {
	s := cast(t, home.Config{}, "A", "B", "C")
	s.play("pause A 10s", "view A: A B=failed C=failed")
	require.NotContains(t, s.play("tick A 1s"), "PREPARE")
	s.play("view A: A B C")
	require.Equal(t, "home", s.nodes["A"].State(0).Role)
	require.Equal(t, home.Term{N: 1, Node: "A"}, s.nodes["A"].State(0).G)
}

func TestALastNodeMayLeaveOnlyWhenTheOthersAreGone(t *testing.T) {
	s := cast(t, home.Config{}, "A", "B")
	s.play("view A: A B=failed", "tick A 3s", "drain A")
	require.False(t, s.nodes["A"].MayLeave(), "B may have a branch of its own")
	s.play("view A: A B=dead")
	require.True(t, s.nodes["A"].MayLeave())
}

func TestAllPartitionsInOneFrameForEachPeer(t *testing.T) {
	var nodes []*home.Node
	ids := []string{"A", "B", "C"}
	for _, id := range ids {
		n, err := home.New(home.Config{ID: id})
		require.NoError(t, err)
		nodes = append(nodes, n)
	}
	queue := []struct {
		from string
		f    home.Frame
	}{}
	take := func(i int) {
		for _, f := range nodes[i].Take().Frames {
			queue = append(queue, struct {
				from string
				f    home.Frame
			}{ids[i], f})
		}
	}
	for i, n := range nodes {
		n.SetView(0, home.View{Settled: true, Alive: ids})
		take(i)
	}
	require.Len(t, queue, 6, "one frame for each peer")
	frames := 0
	for len(queue) > 0 {
		q := queue[0]
		queue = queue[1:]
		frames++
		i := slices.Index(ids, q.f.To)
		nodes[i].Receive(0, q.from, q.f.Messages)
		take(i)
	}
	homed := 0
	for _, n := range nodes {
		require.True(t, n.Settled())
		s := n.Stats()
		homed += s.Homed
		require.InDelta(t, 341, s.Homed, 80)
		require.InDelta(t, 341, s.Replicated, 80)
	}
	require.Equal(t, 1024, homed)
	require.Less(t, frames, 80)
}

func TestPartitionsAreAConstantOfTheVersion(t *testing.T) {
	for topic, want := range map[string]int{"": 294, "t": 827, "room/1": 578, "user/42": 765, "Größe": 934} {
		require.Equal(t, want, home.PartitionOf(topic, wire.Partitions), topic)
	}
}

func TestRankIsAConstantOfTheVersion(t *testing.T) {
	nodes := []string{"A", "B", "C", "D", "E"}
	var firsts, seconds strings.Builder
	for part := range 24 {
		first, second := home.Rank(part, nodes, "A")
		firsts.WriteString(first)
		seconds.WriteString(second)
	}
	require.Equal(t, "ABADDCAEDEACCDEAAABDDECB", firsts.String())
	require.Equal(t, "EBBDDCCEDECCCDEBECBDDECB", seconds.String())
}

func TestAJoinerMovesOnlyWhatItLeads(t *testing.T) {
	for part := range 1024 {
		before, _ := home.Rank(part, []string{"A", "B", "C"}, "A")
		after, _ := home.Rank(part, []string{"A", "B", "C", "D"}, "A")
		if after != "D" {
			require.Equal(t, before, after)
		}
	}
}

// BenchmarkPublish is one message from its origin over home and replica to a third node and back, encoded and decoded.
func BenchmarkPublish(b *testing.B) {
	ids := []string{"A", "B", "C"}
	nodes := map[string]*home.Node{}
	type posted struct {
		from, to string
		frames   [][]byte
	}
	var queue []posted
	take := func(id string) (acks int) {
		o := nodes[id].Take()
		for _, f := range o.Frames {
			queue = append(queue, posted{id, f.To, wire.Encode(f.Messages)})
		}
		return len(o.Acks)
	}
	drain := func() (acks int) {
		for len(queue) > 0 {
			q := queue[0]
			queue = queue[1:]
			for _, f := range q.frames {
				ms, err := wire.Decode(f)
				require.NoError(b, err)
				nodes[q.to].Receive(0, q.from, ms)
				acks += take(q.to)
			}
		}
		return acks
	}
	for _, id := range ids {
		n, err := home.New(home.Config{ID: id, Partitions: 1})
		require.NoError(b, err)
		n.Order(ids...)
		nodes[id] = n
	}
	for _, id := range ids {
		nodes[id].SetView(0, home.View{Settled: true, Alive: ids})
		take(id)
	}
	drain()
	nodes["C"].Attach(0, 1, "t", home.Cursor{})
	take("C")
	drain()
	data := make([]byte, 200)
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		if i++; i%1000 == 0 {
			for _, n := range nodes {
				n.Tick(0)
				n.Take()
			}
		}
		_, err := nodes["C"].Publish(0, home.Publish{Topic: "t", Data: data})
		require.NoError(b, err)
		if acks := take("C") + drain(); acks != 1 {
			b.Fatal(acks)
		}
	}
}

// BenchmarkTakeOver is what the survivors of three nodes do when one of them dies, for all partitions.
func BenchmarkTakeOver(b *testing.B) {
	for b.Loop() {
		b.StopTimer()
		s := &stage{t: b, nodes: map[string]*home.Node{}, queues: map[[2]string][]home.Message{}, clients: map[string]*actor{}, hush: true, all: true}
		s.command("start A B C")
		s.hush = true
		s.command("run")
		s.command("crash A")
		b.StartTimer()
		s.command("view B: B C A=dead")
		s.command("view C: B C A=dead")
		s.command("run")
		b.StopTimer()
		require.True(b, s.nodes["B"].Settled())
		b.StartTimer()
	}
}

func TestReplicaFollowsABirthAtItsHome(t *testing.T) {
	s := cast(t, home.Config{IdleAge: 10 * time.Minute}, "A", "B", "C")
	s.play("publish A m1", "publish A m2", "run", "crash A", "view B: B C A=dead", "view C: B C A=dead", "run", "tick B 20m")
	require.Empty(t, s.nodes["B"].State(0).Topics)
	require.Len(t, s.nodes["C"].State(0).Topics["t"].Records, 2)
	s.play("publish B m3", "run")
	b, c := s.nodes["B"].State(0).Topics["t"], s.nodes["C"].State(0).Topics["t"]
	require.Equal(t, b.Base, c.Base)
	require.Equal(t, b.Records, c.Records)
	require.NoError(t, s.nodes["C"].BooksBalance())
}

func TestForkOfAForgottenTopicIsReported(t *testing.T) {
	s := cast(t, home.Config{IdleAge: 10 * time.Minute}, "A", "B")
	for i := range 3 {
		_, err := s.nodes["A"].Publish(s.now, home.Publish{Topic: "u", ID: fmt.Sprint(i)})
		require.NoError(t, err)
	}
	s.play("publish A m1", "run", "view A: A B=failed", "view B: B A=failed", "tick A 3s")
	require.Contains(t, s.play("publish A m2"), "m2 acknowledged at 1.A:2, copies 1")
	s.play("tick B 20m")
	require.Empty(t, s.nodes["B"].State(0).Topics, "B has forgotten both")
	require.Contains(t, s.play("attach b B"), "client b fresh at 2.B:3")
	require.Contains(t, s.play("view A: A B", "view B: A B", "run"), "client b sees 2.B:4 gap{fork:1.A:2}")
}

func TestPositionOfAForkIsNotTheBirthOfAForgottenTopic(t *testing.T) {
	s := cast(t, home.Config{IdleAge: 10 * time.Minute}, "A", "B")
	s.play("publish A m1", "run", "view A: A B=failed", "view B: B A=failed", "tick 3s", "publish A m2", "publish B m3", "tick B 20m")
	require.Empty(t, s.nodes["B"].State(0).Topics)
	require.Contains(t, s.play("attach x B 1|1.A:2|1.A:2|m2"), "client x GAP epoch_changed from 1.A:2 to 2.B:2")
	require.Contains(t, s.play("attach y B 1|2.B:2|2.B:2|m3"), "client y resumed(0) at 2.B:2")
}
