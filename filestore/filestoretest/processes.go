package filestoretest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/filestore"
)

// Chaos returns many where the environment says NINES_CHAOS, else few.
func Chaos(few, many int) int {
	if os.Getenv("NINES_CHAOS") != "" {
		return many
	}
	return few
}

// Race lets several processes, which start makes and which call Racer, put the same keys with IfAbsent at the same time, and checks by their
// answers and by s that each key has exactly one winner, whose content it has.
func Race(t *testing.T, s *filestore.Store, processes, keys int, start func(id string) *exec.Cmd) {
	type process struct {
		cmd *exec.Cmd
		in  io.WriteCloser
		out *bufio.Scanner
	}
	var all []process
	for i := range processes {
		cmd := start(fmt.Sprint(i))
		cmd.Stderr = os.Stderr
		in, err := cmd.StdinPipe()
		require.NoError(t, err)
		out, err := cmd.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, cmd.Start())
		t.Cleanup(func() { _ = cmd.Process.Kill() })
		p := process{cmd, in, bufio.NewScanner(out)}
		require.True(t, p.out.Scan())
		require.Equal(t, "ready", p.out.Text())
		all = append(all, p)
	}
	for _, p := range all {
		_, err := fmt.Fprintln(p.in, keys)
		require.NoError(t, err)
	}
	winners := make(map[int]string, keys)
	for i, p := range all {
		won := 0
		for p.out.Scan() && p.out.Text() != "done" {
			var key int
			_, err := fmt.Sscan(p.out.Text(), &key)
			require.NoError(t, err, p.out.Text())
			other, taken := winners[key]
			require.False(t, taken, "key %d was won by %d and %s", key, i, other)
			winners[key] = fmt.Sprint(i)
			won++
		}
		require.Equal(t, "done", p.out.Text())
		require.NoError(t, p.cmd.Wait())
		t.Logf("process %d won %d of %d keys", i, won, keys)
	}
	require.Len(t, winners, keys, "every key has a winner")
	for key, winner := range winners {
		require.Equal(t, winner, get(t, s, raceKey(key)))
	}
}

func raceKey(i int) string { return fmt.Sprintf("race/%02d/%d", i%97, i) }

// Racer is what a process of Race does, over its standard input and output.
func Racer(ctx context.Context, s *filestore.Store, id string) error {
	fmt.Println("ready")
	var keys int
	if _, err := fmt.Scan(&keys); err != nil {
		return err
	}
	out := bufio.NewWriter(os.Stdout)
	for i := range keys {
		_, err := s.Put(ctx, raceKey(i), strings.NewReader(id), &filestore.PutOptions{IfAbsent: true})
		switch {
		case err == nil:
			fmt.Fprintln(out, i)
		case !errors.Is(err, fs.ErrExist):
			return err
		}
	}
	fmt.Fprintln(out, "done")
	return out.Flush()
}
