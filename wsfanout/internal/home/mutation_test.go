package home_test

import (
	"fmt"
	"os"
	"slices"
	"testing"

	"github.com/nines-go/nines/wsfanout/internal/home"
)

// mutations are the rules, each with the stories in which the simulator notices that it is missing.
var mutations = []struct {
	name    string
	rule    home.Rule
	stories []string
}{
	{"replicate before visible", home.RuleReplicateFirst, nil},
	{"epoch goes on only with its token", home.RuleToken, nil},
	{"fence", home.RuleFence, nil},
	{"step down when refused", home.RuleNackStops, nil},
	{"token leaves with the promise", home.RuleTokenLeaves, nil},
	{"choose and register in one step", home.RuleOneStep, nil},
	{"window goes with the copy", home.RuleWindowCopied, nil},
	{"confirm before gap", home.RuleConfirm, nil},
	{"answers of exactly one term", home.RuleExactTerm, nil},
	{"position of empty topics", home.RuleEmptyPosition, nil},
	{"epoch compared", home.RuleEpochCompared, nil},
	{"records of the same term only", home.RuleSameTerm, nil},
	{"newer request wins", home.RuleNewerRequest, nil},
	{"return", home.RuleReturn, nil},
	{"orphans kept until activation", home.RuleOrphansKept, nil},
	{"pair check", home.RulePairCheck, nil},
	{"closure", home.RuleClosure, nil},
	{"contact", home.RuleContact, nil},
	{"left gracefully counts", home.RuleLeftCounts, nil},
	{"offer", home.RuleOffer, nil},
	{"timer", home.RuleTimer, nil},
	{"replica change is a term", home.RuleReplicaGone, nil},
	{"late promise", home.RuleLatePromise, nil},
	{"look around at activation", home.RuleActivationCheck, nil},
	{"records must follow", home.RulePredecessor, nil},
	{"gap record of an unverified epoch", home.RuleGapRecord, nil},
}

// TestMutationSurvey looks for stories that notice each missing rule. It takes minutes.
func TestMutationSurvey(t *testing.T) {
	if os.Getenv("NINES_SURVEY") == "" {
		return
	}
	for _, m := range mutations {
		found := ""
		for name, cfg := range configs {
			cfg.off = []home.Rule{m.rule}
			for seed := uint64(1); seed <= uint64(seeds(100)); seed++ {
				if _, err := simulate(seed, cfg); err != nil {
					found += fmt.Sprintf("\n      %s seed %d: %v", name, seed, err)
					break
				}
			}
		}
		t.Logf("%s: %s", m.name, found)
	}
}

var _ = slices.Contains[[]int]
