// Command chat is the reference server: a small chat that keeps running when any one server dies, made of the packages of this module.
//
//	chat demo                   three servers, a proxy, a database and files on this machine, with keys to break them
//	chat serve [-config FILE]   one server, from a configuration file and NINES_… variables
//	chat status [-url URL] [-expect N] [-json]
//	                            the cluster as one server sees it; exit status 0 green, 1 amber, 2 red, 3 cannot reach
//	chat keygen                 a key for ClusterSettings.EncryptionKeys
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/nines-go/nines/cluster"
	"github.com/nines-go/nines/examples/chat/internal/demo"
	"github.com/nines-go/nines/examples/chat/internal/server"
)

const usage = `usage: chat COMMAND [flags]

  demo      three servers on this machine, with keys to break them
  serve     one server
  status    the cluster as one server sees it
  keygen    a key for ClusterSettings.EncryptionKeys

chat COMMAND -h shows the flags of a command.
`

// exitUsage is the exit status of a command line that makes no sense.
const exitUsage = 2

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	if len(args) == 0 {
		fmt.Fprint(os.Stderr, usage)
		return exitUsage
	}
	ctx := context.Background()
	switch command, args := args[0], args[1:]; command {
	case "demo":
		return demo.Main(ctx, args)
	case "serve":
		return serve(ctx, args)
	case "status":
		return status(ctx, args, os.Stdout)
	case "keygen":
		return keygen(args, os.Stdout)
	case "help", "-h", "-help", "--help":
		fmt.Print(usage)
		return 0
	default:
		fmt.Fprintf(os.Stderr, "chat: there is no command %q\n%s", command, usage)
		return exitUsage
	}
}

// parse reads the flags of a command that takes no other arguments. It reports false with the exit status when that is all.
func parse(flags *flag.FlagSet, args []string) (code int, ok bool) {
	err := flags.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0, false
	case err != nil:
		return exitUsage, false
	case flags.NArg() > 0:
		fmt.Fprintf(os.Stderr, "chat %s takes no argument %q: see chat %s -h\n", flags.Name(), flags.Arg(0), flags.Name())
		return exitUsage, false
	}
	return 0, true
}

func serve(ctx context.Context, args []string) int {
	flags := flag.NewFlagSet("serve", flag.ContinueOnError)
	path := flags.String("config", "", "JSON `file` with the sections of the reference server; without it, defaults and NINES_… variables")
	if code, ok := parse(flags, args); !ok {
		return code
	}
	cfg, err := server.Load(*path, os.Environ())
	if err != nil {
		return complain(err)
	}
	term, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(term, stop) // a second signal kills
	if err := server.Run(ctx, term.Done(), cfg, server.Options{}); err != nil {
		return complain(err)
	}
	return 0
}

// complain writes each fault on a line of its own.
func complain(err error) int {
	lines := slices.DeleteFunc(strings.Split(err.Error(), "\n"), func(l string) bool { return strings.TrimSpace(l) == "" })
	for _, line := range lines {
		fmt.Fprintln(os.Stderr, "chat:", line)
	}
	return 1
}

func keygen(args []string, out io.Writer) int {
	if code, ok := parse(flag.NewFlagSet("keygen", flag.ContinueOnError), args); !ok {
		return code
	}
	fmt.Fprintln(out, cluster.FormatKey(cluster.NewKey()))
	return 0
}
