package home

// A rule can be taken out by a test, to see that something notices. Product code never does.
type rule uint

const (
	ruleReplicateFirst  rule = iota // R14
	ruleToken                       // R6: an epoch goes on only with its token
	ruleFence                       // R13
	ruleNackStops                   // R9
	ruleTokenLeaves                 // R3: the token leaves with the promise
	ruleOneStep                     // R16: choose the start and register in one step
	ruleWindowCopied                // R12, R13: publish IDs go with the copy
	ruleConfirm                     // R16: no gap without asking the replica
	ruleExactTerm                   // R16, R17: an answer is for one term and request
	ruleEmptyPosition               // R16: the position of an empty topic is told
	ruleEpochCompared               // R15
	ruleSameTerm                    // R17: records of another term are not taken
	ruleNewerRequest                // R17: an older request never replaces a newer one
	ruleReturn                      // R8
	ruleOrphansKept                 // R6, R7: orphans are kept until a term is activated
	rulePairCheck                   // R5
	ruleClosure                     // R4
	ruleContact                     // R3
	ruleLeftCounts                  // R5: a replica that left gracefully counts
	ruleOffer                       // R1
	ruleTimer                       // R1
	ruleReplicaGone                 // R1: a home or installer whose replica left the view proposes anew
	ruleLatePromise                 // R4
	ruleActivationCheck             // R1: a home looks at first and second when it activates
	rulePredecessor                 // R17: a record must follow
	ruleGapRecord                   // R6: the gap record of an unverified epoch
	ruleBackfill                    // R22: older records are fetched
	ruleHold                        // R22: a subscription waits for older records on their way
	ruleSourceKept                  // R22: nobody is told to drop a copy that has older records
)

func (n *Node) on(r rule) bool { return n.off&(1<<r) == 0 }
