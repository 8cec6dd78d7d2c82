package main

import (
	"context"

	"github.com/nines-go/nines/examples/chat/internal/demo"
)

func demoMain(ctx context.Context, args []string) int { return demo.Main(ctx, args) }
