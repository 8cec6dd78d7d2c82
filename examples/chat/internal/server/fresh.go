package server

import (
	"context"
	"net/http"
	"time"

	"github.com/nines-go/nines/dbrouter"
)

// freshFor is how long the reads of somebody who has written go to the master, on whichever server: replicas may trail.
const freshFor = 5 * time.Second

const freshCookie = "nines_fresh"

// reads is the context of a request: its reads see what it has written, and what the same browser wrote a moment ago.
func (s *Server) reads(r *http.Request) context.Context {
	ctx, _ := dbrouter.WithSession(r.Context())
	if _, err := r.Cookie(freshCookie); err == nil {
		ctx = dbrouter.UseMaster(ctx)
	}
	return ctx
}

// wrote has the browser's next requests see what this one has written. Call it before the answer.
func (s *Server) wrote(w http.ResponseWriter, r *http.Request) {
	http.SetCookie(w, &http.Cookie{
		Name: freshCookie, Value: "1", Path: "/api/", MaxAge: int(freshFor / time.Second), HttpOnly: true, SameSite: http.SameSiteLaxMode,
		Secure: s.secureCookies(r),
	})
}
