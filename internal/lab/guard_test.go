package lab_test

import (
	"bufio"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/internal/lab"
)

const childEnv = "NINES_LAB_CHILD"

// The servers and files of a test process end with it, even when it is killed.
func TestNothingOutlivesTheTestProcess(t *testing.T) {
	if os.Getenv(childEnv) != "" {
		c := lab.Postgres(t, 1)
		c.Pause(1) // the hardest one to end
		os.Stdout.WriteString("lab: " + c.Addr(0) + " " + c.Dir() + "\n")
		select {}
	}
	lab.Need(t, "PostgreSQL", lab.PostgresMissing())
	cmd := exec.Command(os.Args[0], "-test.run", "^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), childEnv+"=1")
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	var addr, dir string
	for scan := bufio.NewScanner(out); addr == "" && scan.Scan(); {
		if rest, ok := strings.CutPrefix(scan.Text(), "lab: "); ok {
			addr, dir, _ = strings.Cut(rest, " ")
		}
	}
	require.NotEmpty(t, addr)
	conn, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	conn.Close()
	require.NoError(t, cmd.Process.Kill())
	_ = cmd.Wait()
	require.Eventually(t, func() bool {
		_, err := os.Stat(dir)
		return os.IsNotExist(err) && len(lab.Inside(dir)) == 0
	}, time.Minute, 20*time.Millisecond)
	_, err = net.Dial("tcp", addr)
	require.Error(t, err)
}
