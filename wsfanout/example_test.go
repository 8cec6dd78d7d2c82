package wsfanout_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/nines-go/nines/wsfanout"
	"github.com/nines-go/nines/wsfanout/client"
)

func Example() {
	hub, err := wsfanout.New(wsfanout.Config{
		// Transport: node, a *cluster.Node
		Authenticate: func(r *http.Request) (wsfanout.Identity, error) {
			return wsfanout.Identity{User: r.URL.Query().Get("user")}, nil // your sessions here
		},
		Authorize: func(ctx context.Context, id wsfanout.Identity, topic string) error {
			if topic == "room/"+id.User+"s-diary" || topic == "room/lobby" {
				return nil
			}
			return wsfanout.ErrForbidden
		},
	})
	if err != nil {
		panic(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	ended := make(chan error)
	go func() { ended <- hub.Run(ctx) }()
	mux := http.NewServeMux()
	mux.Handle("/ws", hub)
	mux.Handle("/ws.js", wsfanout.Script())
	server := httptest.NewServer(mux)
	defer server.Close()
	for hub.Check(ctx) != nil { // as a proxy asks /readyz
		time.Sleep(10 * time.Millisecond)
	}

	shown := make(chan client.Message)
	ann, err := client.Dial(ctx, client.Config{
		URLs:      []string{server.URL + "/ws?user=ann"},
		OnMessage: func(m client.Message) { shown <- m },
		OnDenied:  func(topic, reason string) { shown <- client.Message{ID: topic, Data: []byte("denied")} },
	})
	if err != nil {
		panic(err)
	}
	_ = ann.Subscribe(ctx, "room/bobs-diary", "")
	m := <-shown
	fmt.Println(m.ID, string(m.Data))
	_ = ann.Subscribe(ctx, "room/lobby", "")
	for ann.Stats().Fresh == 0 {
		time.Sleep(time.Millisecond)
	}
	at, err := hub.Publish(ctx, "room/lobby", []byte(`{"text":"hello"}`), &wsfanout.PublishOptions{ID: "row-17"})
	fmt.Println(at.Offset, at.Copies, err)
	m = <-shown
	fmt.Println(m.ID, string(m.Data))

	_ = ann.Close()
	_ = hub.Shutdown(ctx)
	fmt.Println(<-ended)
	// Output:
	// room/bobs-diary denied
	// 1 1 <nil>
	// row-17 {"text":"hello"}
	// <nil>
}
