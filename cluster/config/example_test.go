package config_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/nines-go/nines/cluster"
	"github.com/nines-go/nines/cluster/config"
)

// AppConfig is the program's own.
type AppConfig struct {
	Service struct {
		Title   string
		Workers int `nines:"restart"`
	}
	Database struct {
		DataSource string `nines:"secret"`
	}
	Node struct {
		Name string
	} `nines:"local,restart"`
}

func Example() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	var defaults AppConfig
	defaults.Service.Title, defaults.Service.Workers = "untitled", 4
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()

	store, err := config.Open(ctx, config.Config[AppConfig]{
		Path:      filepath.Join(dir, "config.json"), // not there yet
		Default:   defaults,
		EnvPrefix: "APP_",
		Env:       []string{"APP_DATABASE_DATASOURCE=postgres://…"}, // os.Environ() when nil
		Logger:    quiet,
		Validate: func(c *AppConfig) error {
			if c.Service.Workers < 1 {
				return errors.New("Service.Workers: use at least 1")
			}
			return nil
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	node, err := cluster.New(cluster.Config{Single: true, NodeName: store.Get().Node.Name, Logger: quiet})
	if err != nil {
		log.Fatal(err)
	}
	if err := store.Attach(node); err != nil {
		log.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() { _ = node.Run(context.Background()) })
	wg.Go(func() { _ = store.Run(context.Background()) })

	// On every node, from any:
	err = store.Save(ctx, func(c *AppConfig) error {
		c.Service.Title = "hello"
		return nil
	}, nil)
	fmt.Println(store.Get().Service.Title, store.Version(), err)
	for _, s := range store.Settings() {
		fmt.Println(s.Name, s.Value, s.Source)
	}
	text, _ := os.ReadFile(filepath.Join(dir, "config.json"))
	fmt.Printf("%s", text)

	_ = store.Shutdown(ctx)
	_ = node.Shutdown(ctx)
	wg.Wait()
	// Output:
	// hello 1 <nil>
	// Service.Title "hello" file
	// Service.Workers 4 default
	// Database.DataSource (secret) environment
	// Node.Name "" default
	// {
	//   "Service": {
	//     "Title": "hello"
	//   }
	// }
}
