// Package clustertest is a network in memory for tests of what runs on cluster: Nodes of several hosts in one process, with kills, pauses, partitions,
// one-way cuts, loss and delay. In a testing/synctest bubble an hour of a cluster takes seconds, and nothing waits for a real clock.
//
// It is made for any Node: package cluster is tested with it as it is, with its gossip, links and encryption. What is simulated is the network
// below, not the cluster.
//
// # Use
//
//	synctest.Test(t, func(t *testing.T) {
//		net := clustertest.New(seed)
//		a, err := cluster.New(net.Config("a")) // and b, c; then Run each on a goroutine
//		...
//		net.Partition([]string{"a"})           // a on one side, all others on the other
//		time.Sleep(time.Minute)                // simulated
//		net.Heal()
//	})
//
// See the Example. Config fills in what joins; Host gives the network alone, for a Config of one's own or for other programs that listen and
// dial. All hosts of a Network see each other by name and address ("a:8074", "10.0.0.1:8074"). Leave BindAddr empty. Nodes look names up
// with the machine's resolver: give them Discovery, or addresses (Host.Addr), not names.
//
//	Kill                       a process ends: resets, ports that refuse; Host gives the next process of that host
//	Pause Resume               a host's traffic stands still
//	Partition                  any number of groups that cannot reach each other
//	CutOneWay CutPair          what one host sends to another is lost; both ways
//	Heal                       ends Partition and all cuts
//	Loss Delay                 of datagrams; of everything, one way
//	FailDiscovery              the table that all share is away
//	Sent                       what a host has sent so far
//
// TestDiscovery is the conformance test for a cluster.Discovery of your own that keeps what it is told.
//
// # Bubbles
//
// Make the Network, the Nodes and everything else inside the bubble. Everything here blocks on channels and timers only, which a bubble's time passes;
// it owns no goroutines, and a stream that both sides have closed, or that was killed, is gone. Code under test has to do the same: a goroutine that
// waits for a mutex which another holds while it reads or writes stops a bubble's time for good. crypto/tls does that in its handshake:
// complete it before two goroutines use a stream, as Nodes do.
//
// The gossip library under a Node ends some of its goroutines up to 3 s after Run. At the end of a bubble's test function time stands still, so
// let it pass there, after the last Run has returned: time.Sleep(5 * time.Second).
//
// Outside of bubbles all of it works too, in real time.
//
// # Guarantees
//
//   - Streams lose, repeat and reorder nothing. They hold 256 KiB a direction and then make the writer wait. Deadlines, half-close (CloseWrite),
//     resets and refusals are those of TCP: syscall.ECONNREFUSED for a port that nobody listens at, syscall.ECONNRESET after Kill and for what
//     is sent to a closed end. golang.org/x/net/nettest passes.
//   - In a cut they stand still and go on with TCP's next retransmission after it: 0.2 s, 0.6 s, 1.4 s after the beginning of the cut and so on,
//     at most 120 s apart. A connection is asked for at 0 s, 1 s, 3 s, 7 s. So a cluster that waits for its old connections after a long
//     cut is as late here as it would be outside.
//   - A one-way cut stops the acknowledgements too: what goes the other way stops when the window is full, and no new connection is made.
//   - Datagrams are lost at random (Loss), in cuts, and when a socket has 512 unread ones; with Delay they overtake each other.
//   - Kill is the end of a process: peers are told by resets as far as they can be reached, and what the process had of the network is dead. The
//     next process of that host can have its ports at once.
//
// # Not guaranteed
//
//   - The same run twice. Losses and delays come from the seed, in the order in which they are drawn; the order of goroutines, the
//     gossip library's own randomness and IDs do not. A seed repeats a scenario, and most often what came of it.
//   - Pause is the view from outside: nothing comes from a paused host and its buffers fill. Inside, clocks and goroutines go on, so that it calls its
//     peers failed, which a stopped process would not, and its watch for pauses notices nothing. For that, stop a process.
//   - Bandwidth, congestion, and slow machines. CPU costs no time in a bubble.
//
// # Failures
//
// A misuse that a test's author can see (a Delay with max below min, a host without a name) panics. FailDiscovery takes Discovery away; it is
// reached through partitions otherwise, as a database that all sides still see.
//
// # Lifecycle and concurrency
//
// New starts nothing and there is nothing to close. All methods are safe for concurrent use; a change of the topology is there for everybody when the
// method returns. What is on its way when a cut begins and takes time (Delay) is held with it on streams, and arrives as a datagram.
//
// # Limits
//
// Used with up to 100 Nodes. A minute of 3 Nodes takes about 0.1 s, of 10 Nodes about 1 s, of 100 ten minutes, because every pair has a
// connection; ten times that with the race detector. Most of what
// encryption costs is in connecting: InsecureNoKeys makes long runs with many cuts faster.
//
// # Not yet
//
// Duplicated datagrams, delays by pair, bandwidth.
package clustertest
