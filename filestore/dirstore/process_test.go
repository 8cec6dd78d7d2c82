package dirstore_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/filestore"
	"github.com/nines-go/nines/filestore/dirstore"
	"github.com/nines-go/nines/filestore/filestoretest"
	"github.com/nines-go/nines/filestore/internal/nastest"
)

// What the test binary does when it is started as another process: role and directory.
const childRole, childDir = "NINES_DIRSTORE_ROLE", "NINES_DIRSTORE_DIR"

func TestMain(m *testing.M) {
	if role := os.Getenv(childRole); role != "" {
		if err := child(role); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func child(role string) error {
	ctx := context.Background()
	s, err := dirstore.Open(ctx, dirstore.Config{Dir: os.Getenv(childDir)})
	if err != nil {
		return err
	}
	if id, ok := strings.CutPrefix(role, "race "); ok {
		return filestoretest.Racer(ctx, s, id)
	}
	switch role {
	case "write": // until killed
		for i := 0; ; i++ {
			if _, err := s.WriteFile(ctx, "k", content(i), nil); err != nil {
				return err
			}
			fmt.Println(i)
		}
	case "replace", "create":
		fmt.Println("ready")
		if _, err := fmt.Scanln(); err != nil {
			return err
		}
		_, err := s.WriteFile(ctx, "a/k", []byte("new content"), &filestore.PutOptions{ContentType: "text/new", IfAbsent: role == "create"})
		if err == nil {
			fmt.Println("done")
		}
		return err
	}
	return fmt.Errorf("unknown role %q", role)
}

func command(role, dir string) *exec.Cmd {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childRole+"="+role, childDir+"="+dir)
	return cmd
}

func content(i int) []byte { return bytes.Repeat([]byte{byte(i)}, 200<<10+i%256) }

// A process that is killed at any moment of a write leaves the old object or the new one, and nothing that blocks the next write.
func TestKilledWriter(t *testing.T) {
	dir := nastest.Scratch(t)
	for round := range filestoretest.Chaos(6, 300) {
		cmd := command("write", dir)
		out, err := cmd.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, cmd.Start())
		lines := bufio.NewScanner(out)
		last := -1
		for range 3 + round%20 {
			require.True(t, lines.Scan())
			_, err := fmt.Sscan(lines.Text(), &last)
			require.NoError(t, err, lines.Text())
		}
		require.NoError(t, cmd.Process.Kill())
		for lines.Scan() {
			if _, err := fmt.Sscan(lines.Text(), &last); err != nil {
				break
			}
		}
		_ = cmd.Wait()
		s := open(t, dir)
		b, err := s.ReadFile(t.Context(), "k")
		require.NoError(t, err)
		old, next := content(last), content(last+1)
		require.True(t, bytes.Equal(b, old) || bytes.Equal(b, next), "round %d: %d bytes", round, len(b))
		_, err = s.WriteFile(t.Context(), "k", []byte("after"), nil)
		require.NoError(t, err)
	}
}

// Several processes, as several nodes are, agree on who was first.
func TestIfAbsentAcrossProcesses(t *testing.T) {
	dir := nastest.Scratch(t)
	filestoretest.Race(t, open(t, dir), 4, filestoretest.Chaos(400, 10000), func(id string) *exec.Cmd { return command("race "+id, dir) })
}
