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
	won := make([]int, processes)
	for key := range keys {
		for _, p := range all { // all at once, for each key
			_, err := fmt.Fprintln(p.in, key)
			require.NoError(t, err)
		}
		winners := 0
		for i, p := range all {
			require.True(t, p.out.Scan())
			if p.out.Text() == "won" {
				won[i]++
				winners++
				require.Equal(t, fmt.Sprint(i), get(t, s, raceKey(key)))
				continue
			}
			require.Equal(t, "lost", p.out.Text())
		}
		require.Equal(t, 1, winners, "winners of key %d", key)
	}
	for _, p := range all {
		require.NoError(t, p.in.Close())
		require.NoError(t, p.cmd.Wait())
	}
	t.Logf("of %d keys the processes won %d", keys, won)
}

func raceKey(i int) string { return fmt.Sprintf("race/%02d/%d", i%97, i) }

// Racer is what a process of Race does, over its standard input and output.
func Racer(ctx context.Context, s *filestore.Store, id string) error {
	fmt.Println("ready")
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		var key int
		if _, err := fmt.Sscan(in.Text(), &key); err != nil {
			return err
		}
		_, err := s.Put(ctx, raceKey(key), strings.NewReader(id), &filestore.PutOptions{IfAbsent: true})
		switch {
		case err == nil:
			fmt.Println("won")
		case errors.Is(err, fs.ErrExist):
			fmt.Println("lost")
		default:
			return err
		}
	}
	return nil
}
