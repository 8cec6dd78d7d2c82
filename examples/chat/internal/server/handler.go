package server

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/nines-go/nines/examples/chat/internal/web"
	"github.com/nines-go/nines/wsfanout"
)

const (
	maxBody      = 64 << 10
	writeTimeout = 5 * time.Minute
)

// handler is everything that the server answers.
func (s *Server) handler() http.Handler {
	api := http.NewServeMux()
	api.HandleFunc("GET /api/v4/config", s.clientConfig)
	api.HandleFunc("POST /api/v4/users", s.signUp)
	api.HandleFunc("POST /api/v4/users/login", s.signIn)
	api.HandleFunc("POST /api/v4/users/logout", s.signOut)
	api.HandleFunc("GET /api/v4/users/me", s.signedIn(s.me))
	api.HandleFunc("GET /api/v4/rooms", s.signedIn(s.listRooms))
	api.HandleFunc("POST /api/v4/rooms", s.signedIn(s.createRoom))
	api.HandleFunc("GET /api/v4/rooms/{room}/messages", s.signedIn(s.listMessages))
	api.HandleFunc("GET /api/v4/rooms/{room}/presence", s.signedIn(s.presence))
	api.HandleFunc("GET /api/v4/search", s.signedIn(s.search))
	api.HandleFunc("POST /api/v4/posts", s.signedIn(s.post))
	api.HandleFunc("POST /api/v4/files", s.signedIn(s.upload))
	api.HandleFunc("GET /api/v4/files/{key...}", s.signedIn(s.download))
	api.HandleFunc("/api/", func(w http.ResponseWriter, r *http.Request) { fail(w, http.StatusNotFound, "there is no such call") })

	mux := http.NewServeMux()
	mux.Handle("/api/v4/", s.bounded(api))
	mux.HandleFunc("GET /api/v4/system/ping", s.ping)
	mux.Handle("GET /api/v4/websocket", s.hub)
	mux.Handle("GET /ws", s.hub)
	mux.Handle("GET /ws.js", wsfanout.Script())
	health := s.page.Health()
	for _, path := range []string{"/livez", "/readyz", "/healthz"} {
		mux.Handle("GET "+path, health)
	}
	mux.Handle("/admin/ha/", s.streams(s.page))
	mux.Handle("/admin/ha", http.RedirectHandler("/admin/ha/", http.StatusPermanentRedirect))
	mux.Handle("/", web.Handler())
	if s.opts.Demo {
		mux.HandleFunc("GET /demo/state", s.demoState)
		mux.HandleFunc("POST /api/v4/demo/login", s.demoLogin)
	}

	origin := http.NewCrossOriginProtection()
	for _, o := range s.origins() {
		_ = origin.AddTrustedOrigin(o) // Validate has seen it
	}
	return s.secure(origin.Handler(mux))
}

// secure sets the headers that keep a page from being misused.
func (s *Server) secure(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		if s.clients.secure(r) {
			h.Set("Strict-Transport-Security", "max-age=31536000")
		}
		next.ServeHTTP(w, r)
	})
}

// bounded answers 503 above MaxRequests, so that the work of a lost server does not take the others down.
func (s *Server) bounded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case s.requests <- struct{}{}:
			defer func() { <-s.requests }()
		default:
			s.stats.refused.Add(1)
			later(w, "this server has all the requests that it takes")
			return
		}
		rc := http.NewResponseController(w)
		_ = rc.SetWriteDeadline(time.Now().Add(writeTimeout)) // a client that does not read keeps no place
		defer func() { _ = rc.SetWriteDeadline(time.Time{}) }()
		w.Header().Set("Cache-Control", "no-store")
		next.ServeHTTP(w, r.WithContext(s.reads(r)))
	})
}

// streams ends what would otherwise keep the server from stopping.
func (s *Server) streams(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithCancel(r.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			select {
			case <-s.closing:
				cancel()
			case <-ctx.Done():
			}
		})
		defer wg.Wait()
		defer cancel()
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

func reply(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(v) // the client is gone
}

// fail answers with a sentence for people.
func fail(w http.ResponseWriter, code int, message string) {
	reply(w, code, map[string]string{"message": message})
}

// later asks the client to repeat the request.
func later(w http.ResponseWriter, message string) {
	w.Header().Set("Retry-After", "1")
	fail(w, http.StatusServiceUnavailable, message)
}

// broken answers a fault of ours: a database that is switching over, most of all, so the client may repeat.
func (s *Server) broken(w http.ResponseWriter, r *http.Request, err error) {
	if r.Context().Err() == nil {
		s.log.Warn("request failed", "method", r.Method, "path", r.URL.Path, "error", err)
	}
	later(w, "that did not work just now: try again")
}

// read decodes a JSON body, or answers why not.
func read(w http.ResponseWriter, r *http.Request, v any) bool {
	if kind, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";"); kind != "application/json" {
		fail(w, http.StatusUnsupportedMediaType, "send application/json")
		return false
	}
	err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody)).Decode(v)
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		fail(w, http.StatusRequestEntityTooLarge, "the request is larger than 64 KiB")
	case err != nil:
		fail(w, http.StatusBadRequest, "the request is not the JSON that is expected")
	}
	return err == nil
}
