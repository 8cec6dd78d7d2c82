package main_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/cluster"
)

// chat is the built program.
var chat string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "nines-chat-")
		if err != nil {
			panic(err)
		}
		defer os.RemoveAll(dir)
		chat = filepath.Join(dir, "chat")
		if out, err := exec.Command("go", "build", "-o", chat, ".").CombinedOutput(); err != nil {
			panic(fmt.Sprintf("%v\n%s", err, out))
		}
		return m.Run()
	}())
}

// section is one section of a configuration file.
type section map[string]any

// settings is a configuration that works on this machine, in dir, with free ports.
func settings(dir string) map[string]section {
	return map[string]section{
		"ServiceSettings": {"ListenAddress": "127.0.0.1:0"},
		"ClusterSettings": {
			"Enable": true, "ClusterName": "test", "BindAddress": "127.0.0.1", "AdvertiseAddress": "127.0.0.1", "GossipPort": 0,
			"EncryptionKeys": []string{cluster.FormatKey(make([]byte, cluster.KeySize))},
		},
		"SqlSettings":  {"DriverName": "sqlite", "DataSource": "file:" + filepath.Join(dir, "chat.db")},
		"FileSettings": {"Directory": dir},
		"LogSettings":  {"ConsoleLevel": "WARN"},
	}
}

func writeConfig(t *testing.T, cfg map[string]section) string {
	t.Helper()
	text, err := json.Marshal(cfg)
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "config.json")
	require.NoError(t, os.WriteFile(path, text, 0o600))
	return path
}

// run runs the program to its end, for at most 15 s.
func run(t *testing.T, env []string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, chat, args...)
	cmd.Env = append(os.Environ(), env...)
	var out, err bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &err
	_ = cmd.Run() // the exit status says it
	require.NoError(t, ctx.Err(), "it did not end within 15 s: %s", err.String())
	return cmd.ProcessState.ExitCode(), out.String(), err.String()
}

// files lists all that is below dir.
func files(t *testing.T, dir string) (list []string) {
	t.Helper()
	require.NoError(t, filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		list = append(list, path)
		return err
	}))
	return list
}

func TestBadSettingsEndServeWithASentence(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { taken.Close() })
	_, takenPort, err := net.SplitHostPort(taken.Addr().String())
	require.NoError(t, err)

	for name, c := range map[string]struct {
		change func(dir string, cfg map[string]section)
		env    []string
		want   []string // setting, value, remedy
	}{
		"empty cluster name": {
			change: func(_ string, cfg map[string]section) { cfg["ClusterSettings"]["ClusterName"] = "" },
			want:   []string{`ClusterSettings.ClusterName "" is empty`, "give all servers of the cluster the same name"},
		},
		"unknown key": {
			change: func(_ string, cfg map[string]section) { cfg["SqlSettings"]["DataSourceReplica"] = []string{} },
			want:   []string{"SqlSettings.DataSourceReplica is not known", "did you mean DataSourceReplicas?"},
		},
		"unknown variable": {
			env:  []string{"NINES_SQLSETTINGS_DATASORCE=x"},
			want: []string{"NINES_SQLSETTINGS_DATASORCE", "did you mean DataSource?"},
		},
		"taken port": {
			change: func(_ string, cfg map[string]section) {
				cfg["ServiceSettings"]["ListenAddress"] = taken.Addr().String()
			},
			want: []string{fmt.Sprintf("ServiceSettings.ListenAddress %q", taken.Addr()), "address already in use", "choose another one"},
		},
		"foreign address": {
			change: func(_ string, cfg map[string]section) { cfg["ServiceSettings"]["ListenAddress"] = "192.0.2.1:8065" },
			want:   []string{`ServiceSettings.ListenAddress "192.0.2.1:8065"`, "choose an address of this host"},
		},
		"taken gossip port": {
			env:  []string{"NINES_CLUSTERSETTINGS_GOSSIPPORT=" + takenPort},
			want: []string{"ClusterSettings.GossipPort " + takenPort, "address already in use", "choose another one"},
		},
		"name that nobody knows": {
			change: func(_ string, cfg map[string]section) {
				cfg["ClusterSettings"]["AdvertiseAddress"] = "no-such-host.invalid"
			},
			want: []string{`ClusterSettings.AdvertiseAddress "no-such-host.invalid" cannot be resolved`, "a name that the other servers know"},
		},
		"key of wrong length": {
			change: func(_ string, cfg map[string]section) {
				cfg["ClusterSettings"]["EncryptionKeys"] = []string{"c2VjcmV0LXNlY3JldA=="}
			},
			want: []string{"ClusterSettings.EncryptionKeys[0] has 13 bytes and not 32", "chat keygen"},
		},
		"no key": {
			change: func(_ string, cfg map[string]section) { delete(cfg["ClusterSettings"], "EncryptionKeys") },
			want:   []string{"ClusterSettings.EncryptionKeys [] is empty", "chat keygen"},
		},
		"wrong driver": {
			change: func(_ string, cfg map[string]section) { cfg["SqlSettings"]["DriverName"] = "oracle" },
			want:   []string{`SqlSettings.DriverName "oracle" is not known`, "use postgres, mysql or sqlite"},
		},
		"unreachable master": {
			change: func(_ string, cfg map[string]section) {
				cfg["SqlSettings"]["DriverName"] = "postgres"
				cfg["SqlSettings"]["DataSource"] = "host=127.0.0.1 port=1 user=chat password=secret sslmode=disable"
			},
			want: []string{"SqlSettings.DataSource", "127.0.0.1", "connection refused", "start that database"},
		},
		"silent master": {
			change: func(_ string, cfg map[string]section) {
				cfg["SqlSettings"]["DriverName"] = "postgres"
				cfg["SqlSettings"]["DataSource"] = "postgres://chat:secret@" + taken.Addr().String() + "/chat?sslmode=disable"
			},
			want: []string{"SqlSettings.DataSource", taken.Addr().String(), "start that database"},
		},
		"database folder is missing": {
			change: func(dir string, cfg map[string]section) {
				cfg["SqlSettings"]["DataSource"] = "file:" + dir + "/none/chat.db"
			},
			want: []string{"SqlSettings.DataSource", "none/chat.db"},
		},
		"not a database": {
			change: func(dir string, cfg map[string]section) { cfg["SqlSettings"]["DataSource"] = "file:" + dir + "/a file" },
			want:   []string{"SqlSettings.DataSource", "a file"},
		},
		"missing directory": {
			change: func(dir string, cfg map[string]section) { cfg["FileSettings"]["Directory"] = dir + "/none" },
			want:   []string{"FileSettings.Directory", "/none", "no such file or directory", "create it, or mount the disk"},
		},
		"directory is a file": {
			change: func(dir string, cfg map[string]section) { cfg["FileSettings"]["Directory"] = dir + "/a file" },
			want:   []string{"FileSettings.Directory", "/a file", "not a directory", "give a directory"},
		},
		"unwritable directory": {
			change: func(_ string, cfg map[string]section) { cfg["FileSettings"]["Directory"] = "/proc" },
			want:   []string{`FileSettings.Directory "/proc" cannot be written`, "give a directory"},
		},
		"S3": {
			change: func(_ string, cfg map[string]section) { cfg["FileSettings"]["DriverName"] = "amazons3" },
			want:   []string{`FileSettings.DriverName "amazons3" is not here yet`, "use local"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			require.NoError(t, os.WriteFile(filepath.Join(dir, "a file"), bytes.Repeat([]byte("not a database\n"), 1000), 0o600))
			cfg := settings(dir)
			if c.change != nil {
				c.change(dir, cfg)
			}
			before := files(t, dir)
			code, stdout, stderr := run(t, c.env, "serve", "-config", writeConfig(t, cfg))
			require.Equal(t, 1, code, stderr)
			require.Empty(t, stdout)
			require.Equal(t, 1, strings.Count(stderr, "\n"), "more than a sentence:\n%s", stderr)
			for _, want := range c.want {
				require.Contains(t, stderr, want)
			}
			require.NotContains(t, stderr, "secret")
			require.NotContains(t, stderr, "c2VjcmV0")
			require.Equal(t, before, files(t, dir), "something was left behind")
		})
	}
}

// TestServeCanBeStoppedWhileItOpens sends SIGTERM while the database is tried.
func TestServeCanBeStoppedWhileItOpens(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer silent.Close()
	cfg := settings(t.TempDir())
	cfg["SqlSettings"]["DriverName"] = "postgres"
	cfg["SqlSettings"]["DataSource"] = "postgres://chat@" + silent.Addr().String() + "/chat?sslmode=disable"
	cmd := exec.Command(chat, "serve", "-config", writeConfig(t, cfg))
	require.NoError(t, cmd.Start())
	c, err := silent.Accept() // it asks the database: the signal is handled by now
	require.NoError(t, err)
	defer c.Close()
	begun := time.Now()
	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	require.NoError(t, cmd.Wait())
	require.Less(t, time.Since(begun), 10*time.Second)
}

func TestConfigurationFileThatCannotBeRead(t *testing.T) {
	code, _, stderr := run(t, nil, "serve", "-config", "/none/config.json")
	require.Equal(t, 1, code)
	require.Equal(t, "chat: configuration file \"/none/config.json\" cannot be read (no such file or directory): give the path of a JSON file with -config\n", stderr)
}

func TestAllFaultsAtOnce(t *testing.T) {
	cfg := settings(t.TempDir())
	cfg["ClusterSettings"]["ClusterName"] = ""
	cfg["SqlSettings"]["DriverName"] = "oracle"
	code, _, stderr := run(t, nil, "serve", "-config", writeConfig(t, cfg))
	require.Equal(t, 1, code)
	require.Equal(t, 2, strings.Count(stderr, "\n"), stderr)
}

func TestCommandLine(t *testing.T) {
	for _, c := range []struct {
		args   []string
		code   int
		output string
	}{
		{nil, 2, "usage: chat COMMAND"},
		{[]string{"frob"}, 2, `there is no command "frob"`},
		{[]string{"help"}, 0, "usage: chat COMMAND"},
		{[]string{"serve", "-frob"}, 2, "flag provided but not defined"},
		{[]string{"serve", "now"}, 2, `takes no argument "now"`},
		{[]string{"keygen", "-h"}, 0, ""},
		{[]string{"status", "-url", "http://127.0.0.1:1"}, 3, "cannot be read"},
	} {
		code, stdout, stderr := run(t, nil, c.args...)
		require.Equal(t, c.code, code, "%v: %s", c.args, stderr)
		require.Contains(t, stdout+stderr, c.output)
	}
	code, first, _ := run(t, nil, "keygen")
	require.Zero(t, code)
	_, second, _ := run(t, nil, "keygen")
	require.NotEqual(t, first, second)
	key, err := cluster.ParseKey(first)
	require.NoError(t, err)
	require.Len(t, key, cluster.KeySize)
}
