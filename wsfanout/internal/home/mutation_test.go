package home_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/wsfanout/internal/home"
)

// mutations are the rules that can be taken out, each with what notices: a script whose outcome for clients, publishers or
// state changes, or a story of the simulator.
var mutations = []struct {
	name string
	rule home.Rule
	by   string // script, or story
}{
	{"replicate before visible", home.RuleReplicateFirst, "flap"},
	{"an epoch goes on only with its token", home.RuleToken, "flap"},
	{"fence", home.RuleFence, "pauses"},
	{"step down when refused", home.RuleNackStops, "flap"},
	{"token leaves with the promise", home.RuleTokenLeaves, "splits"},
	{"choose and register in one step", home.RuleOneStep, "chaos"},
	{"window goes with the copy", home.RuleWindowCopied, "storm"},
	{"confirm before gap", home.RuleConfirm, "06-pause-of-the-home"},
	{"answers of exactly one term", home.RuleExactTerm, "20-old-subscription"},
	{"position of empty topics", home.RuleEmptyPosition, "steady"},
	{"epoch compared", home.RuleEpochCompared, "splits"},
	{"records of the same term only", home.RuleSameTerm, "flap"},
	{"return", home.RuleReturn, "splits"},
	{"orphans kept until activation", home.RuleOrphansKept, "18-deposed-with-a-report"},
	{"pair check", home.RulePairCheck, "13-stale-copy"},
	{"closure", home.RuleClosure, "15-lying-observer"},
	{"contact", home.RuleContact, "16-unknown-joiner"},
	{"left gracefully counts", home.RuleLeftCounts, "17-replica-left"},
	{"offer", home.RuleOffer, "moves"},
	{"timer", home.RuleTimer, "10-two-node-partition"},
	{"replica change is a term", home.RuleReplicaGone, "crashes"},
	{"late promise", home.RuleLatePromise, "19-late-promise"},
	{"look around at activation", home.RuleActivationCheck, "flap"},
	{"older records are fetched", home.RuleBackfill, "backfill"},
	{"a subscription waits for older records", home.RuleHold, "backfill"},
	{"nobody drops what is still needed", home.RuleSourceKept, "22-two-joiners"},
	{"gap record of an unverified epoch", home.RuleGapRecord, "13-stale-copy"},
}

// outcomes are the lines of a script that clients, publishers and state see.
func outcomes(text string) []string {
	var lines []string
	for l := range strings.SplitSeq(text, "\n") {
		if strings.Contains(l, "client ") || strings.Contains(l, "publish ") && strings.Contains(l, ": ") || strings.Contains(l, " promised ") && !strings.Contains(l, "→") {
			lines = append(lines, l)
		}
	}
	return lines
}

func TestEveryRuleIsNeeded(t *testing.T) {
	for _, m := range mutations {
		t.Run(m.name+" by "+m.by, func(t *testing.T) {
			t.Parallel()
			cfg, story := configs[m.by]
			if !story {
				got, want := playScript(t, "testdata/golden/"+m.by+".txt", m.rule)
				require.NotEqual(t, outcomes(want), outcomes(got))
				return
			}
			cfg.off = []home.Rule{m.rule}
			for seed := uint64(1); seed <= 400; seed++ {
				if _, err := simulate(seed, cfg); err != nil {
					t.Logf("seed %d: %v", seed, err)
					return
				}
			}
			require.Fail(t, "nothing noticed that the rule is missing")
		})
	}
}

// TestMutationSurvey looks for all stories that notice each missing rule. It takes long.
func TestMutationSurvey(t *testing.T) {
	if os.Getenv("NINES_SURVEY") == "" {
		return
	}
	for _, m := range mutations {
		var found strings.Builder
		for name, cfg := range configs {
			cfg.off = []home.Rule{m.rule}
			for seed := uint64(1); seed <= uint64(seeds(100)); seed++ {
				if _, err := simulate(seed, cfg); err != nil {
					found.WriteString(fmt.Sprintf("\n      %s seed %d: %v", name, seed, err))
					break
				}
			}
		}
		t.Logf("%s: %s", m.name, found.String())
	}
}
