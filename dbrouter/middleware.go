package dbrouter

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"time"
)

// Where Middleware carries the token of a session.
const (
	TokenCookie = "dbrouter_token"
	TokenHeader = "Dbrouter-Token" // of requests and answers; in a request it counts beside the cookie
)

// Middleware makes each request a session that goes on from the one before it of the same client, on whichever server: the client carries the
// token in a cookie (Secure, HttpOnly, SameSite=Lax), or, when it is no browser, sends the header back that it was given. The
// token is that of the moment when the answer begins: what a handler writes to the database after it has begun to answer is not
// part of it. A request that has used no database gets no cookie.
//
// It panics when Config has no TokenKey, since anybody could send every read to the master then.
func (r *Router) Middleware(next http.Handler) http.Handler {
	if len(r.top.Load().cfg.TokenKey) == 0 {
		panic("dbrouter: Middleware needs Config.TokenKey: set it to 32 random bytes, the same on all servers")
	}
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		ctx, s := WithSession(req.Context())
		var given string
		if c, err := req.Cookie(TokenCookie); err == nil {
			given = c.Value
			ctx = WithToken(ctx, given)
		}
		if h := req.Header.Get(TokenHeader); h != "" && h != given {
			ctx = WithToken(ctx, h)
		}
		tw := &tokenWriter{ResponseWriter: w, r: r, s: s, ctx: req.Context(), given: given}
		next.ServeHTTP(tw, req.WithContext(ctx))
		tw.begin()
	})
}

// tokenWriter adds the token to the header of an answer just before that is sent.
type tokenWriter struct {
	http.ResponseWriter
	r     *Router
	s     *Session
	ctx   context.Context
	given string
	begun bool
}

func (w *tokenWriter) begin() {
	if w.begun {
		return
	}
	w.begun = true
	if w.s.tracks.Load() == nil {
		return
	}
	// The client may be gone while its write has happened: its next request needs the token all the same.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(w.ctx), 2*probeTimeout)
	defer cancel()
	token, err := w.s.Token(ctx)
	if err != nil || token == "" || token == w.given {
		return
	}
	w.Header().Set(TokenHeader, token)
	http.SetCookie(w.ResponseWriter, &http.Cookie{Name: TokenCookie, Value: token, Path: "/", Secure: true, HttpOnly: true,
		SameSite: http.SameSiteLaxMode, MaxAge: max(int(w.r.top.Load().cfg.TokenTTL/time.Second), 1)})
}

func (w *tokenWriter) WriteHeader(status int) {
	if status >= 200 || status == http.StatusSwitchingProtocols {
		w.begin()
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *tokenWriter) Write(b []byte) (int, error) {
	w.begin()
	return w.ResponseWriter.Write(b)
}

func (w *tokenWriter) ReadFrom(src io.Reader) (int64, error) {
	w.begin()
	return io.Copy(w.ResponseWriter, src)
}

func (w *tokenWriter) Flush() { _ = w.FlushError() }

func (w *tokenWriter) FlushError() error {
	w.begin()
	return http.NewResponseController(w.ResponseWriter).Flush()
}

func (w *tokenWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	w.begun = true
	return http.NewResponseController(w.ResponseWriter).Hijack()
}

// Unwrap is for http.ResponseController.
func (w *tokenWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
