package demo

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"github.com/nines-go/nines/examples/chat/internal/server"
	"github.com/nines-go/nines/internal/faultnet"
)

// readyLine is what a node prints when it listens.
const readyLine = "listening"

// runNode is the child process: the ordinary server behind a network that the supervisor can cut. It ends with its standard input.
func runNode(path string) int {
	network := faultnet.New(nil)
	stop := make(chan struct{})
	var once sync.Once
	end := func() { once.Do(func() { close(stop) }) }
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	go func() { <-term; end() }()
	go func() {
		lines := bufio.NewScanner(os.Stdin)
		for lines.Scan() {
			switch lines.Text() {
			case "cut":
				network.Cut()
			case "heal":
				network.Heal()
			}
		}
		os.Exit(3) // the supervisor is gone
	}()
	cfg, err := server.Load(path, os.Environ())
	if err == nil {
		err = server.Run(context.Background(), stop, cfg, server.Options{
			Network: network,
			Demo:    true,
			Ready:   func(string) { fmt.Println(readyLine) },
			Logger:  slog.New(slog.NewTextHandler(os.Stderr, nil)),
		})
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}
