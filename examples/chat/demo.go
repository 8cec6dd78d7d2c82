package main

import (
	"context"
	"fmt"
	"os"
)

func demoMain(context.Context, []string) int {
	fmt.Fprintln(os.Stderr, "chat: demo is not here yet")
	return 1
}
