package dbrouter_test

import (
	"context"
	"database/sql/driver"
	"fmt"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"

	"github.com/jackc/pgx/v5/stdlib"
	"github.com/jmoiron/sqlx"

	"github.com/nines-go/nines/dbrouter"
	"github.com/nines-go/nines/dbrouter/dbroutertest"
)

func Example() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	r, err := dbrouter.Open(ctx, dbrouter.Config{
		DriverName: "sqlite", // with "postgres" or "mysql", DataSourceReplicas and DataSourceSearchReplicas name the replicas
		DataSource: filepath.Join(dir, "app.db"),
	})
	if err != nil {
		log.Fatal(err)
	}
	defer r.Close()

	if _, err := r.Master().ExecContext(ctx, "CREATE TABLE posts (id INTEGER PRIMARY KEY, text TEXT)"); err != nil {
		log.Fatal(err)
	}
	ctx, _ = dbrouter.WithSession(ctx) // one for each request; Router.Middleware begins them
	err = r.RunTx(ctx, nil, func(tx *sqlx.Tx) error {
		_, err := tx.ExecContext(ctx, "INSERT INTO posts (text) VALUES (?)", "hello")
		return err
	})
	if err != nil {
		log.Fatal(err)
	}

	var posts []struct {
		ID   int
		Text string
	}
	// Without a session a replica that trails might not have what was just written.
	if err := r.Replica().SelectContext(ctx, &posts, "SELECT id, text FROM posts"); err != nil {
		log.Fatal(err)
	}
	fmt.Println(posts)
	// Output: [{1 hello}]
}

// Every statement as a span: the driver is wrapped. With OpenTelemetry's wrapper github.com/XSAM/otelsql the line marked is
//
//	traced := otelsql.WrapDriver(&stdlib.Driver{}, otelsql.WithAttributes(semconv.DBSystemNamePostgreSQL))
//
// and its spans have the contexts of the calls as parents, those of reads that move to another source included.
func ExampleConfig_tracing() {
	traced := wrapDriver(stdlib.GetDefaultDriver()) // here
	cfg := dbrouter.Config{
		DriverName:         "pgx", // still says which SQL is spoken
		DataSource:         os.Getenv("DB_MASTER"),
		DataSourceReplicas: strings.Fields(os.Getenv("DB_REPLICAS")),
		Connector: func(dataSource string) (driver.Connector, error) {
			return traced.(driver.DriverContext).OpenConnector(dataSource)
		},
	}
	if cfg.DataSource == "" {
		return // nothing to connect to here
	}
	r, err := dbrouter.Open(context.Background(), cfg)
	if err != nil {
		log.Fatal(err)
	}
	defer r.Close()
	// Output:
}

// wrapDriver stands for otelsql.WrapDriver, which has the same signature.
func wrapDriver(d driver.Driver) driver.Driver { return d }

// A session goes on in another process: the token travels in the message that says what has changed.
func ExampleSession_Token() {
	ctx := context.Background()
	db := dbroutertest.New(1) // a program has Config with data sources here
	cfg := db.Config()
	cfg.Logger = slog.New(slog.DiscardHandler)
	cfg.TokenKey = []byte("32 random bytes, on all servers.")
	here, err := dbrouter.Open(ctx, cfg)
	if err != nil {
		log.Fatal(err)
	}
	defer here.Close()
	there, err := dbrouter.Open(ctx, cfg)
	if err != nil {
		log.Fatal(err)
	}
	defer there.Close()

	writing, session := dbrouter.WithSession(ctx)
	if _, err := here.Master().ExecContext(writing, "INSERT INTO posts VALUES ('hello')"); err != nil {
		log.Fatal(err)
	}
	token, err := session.Token(writing)
	if err != nil {
		log.Fatal(err)
	}

	reading := dbrouter.WithToken(ctx, token)
	var row struct{ Server, Writes int }
	if err := there.Replica().GetContext(reading, &row, "SELECT count(*) FROM posts"); err != nil {
		log.Fatal(err)
	}
	fmt.Println(row.Writes)
	// Output: 1
}

// Every request of a browser sees what the one before it has written, on whichever server.
func ExampleRouter_Middleware() {
	cfg := dbroutertest.New(1).Config()
	cfg.Logger = slog.New(slog.DiscardHandler)
	cfg.TokenKey = []byte("32 random bytes, on all servers.")
	r, err := dbrouter.Open(context.Background(), cfg)
	if err != nil {
		log.Fatal(err)
	}
	defer r.Close()
	mux := http.NewServeMux()
	mux.HandleFunc("POST /posts", func(w http.ResponseWriter, req *http.Request) {
		if _, err := r.Master().ExecContext(req.Context(), "INSERT INTO posts VALUES ('hello')"); err != nil {
			http.Error(w, "not now", http.StatusServiceUnavailable)
		}
	})
	answer := httptest.NewRecorder()
	r.Middleware(mux).ServeHTTP(answer, httptest.NewRequest("POST", "/posts", nil))
	for _, c := range answer.Result().Cookies() {
		fmt.Println(c.Name, c.Secure, c.HttpOnly)
	}
	// Output: dbrouter_token true true
}
