package server

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"golang.org/x/crypto/bcrypt"

	"github.com/nines-go/nines/examples/chat/internal/store"
)

const (
	cookieName      = "nines_session"
	sessionLength   = 30 * 24 * time.Hour
	passwordWait    = 2 * time.Second
	maxAttempts     = 10 // failed sign-ins a minute for one name or one address
	maxAttemptNames = 10_000
)

// passwordCost makes guessing from a stolen table slow; tests lower it.
var passwordCost = bcrypt.DefaultCost

var userName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,31}$`)

var errNoSession = errors.New("sign in first")

type credentials struct {
	Username string `json:"username"`
	Password string `json:"password"`
}

func (c *credentials) name() string { return strings.ToLower(strings.TrimSpace(c.Username)) }

const nameRule = "a name has 1 to 32 letters a to z, digits, dots, dashes and underscores, and begins with a letter or digit"

// signUp makes an account and signs in.
func (s *Server) signUp(w http.ResponseWriter, r *http.Request) {
	var c credentials
	if !read(w, r, &c) {
		return
	}
	switch {
	case !userName.MatchString(c.name()):
		fail(w, http.StatusBadRequest, nameRule)
		return
	case utf8.RuneCountInString(c.Password) < 8 || len(c.Password) > 72:
		fail(w, http.StatusBadRequest, "a password has at least 8 characters and at most 72 bytes")
		return
	}
	if !s.hashing(w, r) {
		return
	}
	hash, err := bcrypt.GenerateFromPassword([]byte(c.Password), passwordCost)
	<-s.passwords
	if err != nil {
		s.broken(w, r, err)
		return
	}
	user, err := s.store.CreateUser(r.Context(), c.name(), string(hash))
	switch {
	case errors.Is(err, store.ErrTaken):
		fail(w, http.StatusConflict, "that name is taken")
	case err != nil:
		s.broken(w, r, err)
	default:
		s.startSession(w, r, user, http.StatusCreated)
	}
}

// hashing takes a token for hashing a password, which costs a processor a tenth of a second, or answers that there is none.
func (s *Server) hashing(w http.ResponseWriter, r *http.Request) bool {
	ctx, cancel := context.WithTimeout(r.Context(), passwordWait)
	defer cancel()
	select {
	case s.passwords <- struct{}{}:
		return true
	case <-ctx.Done():
		s.stats.refused.Add(1)
		later(w, "too many people sign in at this moment: try again")
		return false
	}
}

// nobody is compared with when there is no such account, so that the time of the answer does not tell.
var nobody = sync.OnceValue(func() []byte {
	hash, _ := bcrypt.GenerateFromPassword([]byte(rand.Text()), passwordCost) // short enough
	return hash
})

func (s *Server) signIn(w http.ResponseWriter, r *http.Request) {
	var c credentials
	if !read(w, r, &c) {
		return
	}
	from := s.clients.client(r)
	if !s.attempts.allowed("name "+c.name(), "addr "+from) {
		w.Header().Set("Retry-After", "60")
		fail(w, http.StatusTooManyRequests, "too many failed sign-ins: wait a minute")
		return
	}
	user, err := s.store.User(r.Context(), c.name())
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		s.broken(w, r, err)
		return
	}
	if !s.hashing(w, r) {
		return
	}
	hash := []byte(user.Password)
	if len(hash) == 0 {
		hash = nobody()
	}
	wrong := bcrypt.CompareHashAndPassword(hash, []byte(c.Password)) != nil || user.Password == ""
	<-s.passwords
	if wrong {
		s.attempts.failed("name "+c.name(), "addr "+from)
		fail(w, http.StatusUnauthorized, "name or password is wrong")
		return
	}
	s.startSession(w, r, user, http.StatusOK)
}

// demoLogin signs in by name alone: on one's own machine only, with Options.Demo.
func (s *Server) demoLogin(w http.ResponseWriter, r *http.Request) {
	var c credentials
	if !read(w, r, &c) {
		return
	}
	if !userName.MatchString(c.name()) {
		fail(w, http.StatusBadRequest, nameRule)
		return
	}
	user, err := s.store.CreateUser(r.Context(), c.name(), "")
	if errors.Is(err, store.ErrTaken) {
		user, err = s.store.User(r.Context(), c.name())
	}
	if err != nil {
		s.broken(w, r, err)
		return
	}
	s.startSession(w, r, user, http.StatusOK)
}

func (s *Server) startSession(w http.ResponseWriter, r *http.Request, user store.User, code int) {
	token := rand.Text()
	expires := time.Now().Add(sessionLength)
	if err := s.store.AddSession(r.Context(), hashed(token), user.ID, expires); err != nil {
		s.broken(w, r, err)
		return
	}
	s.wrote(w, r)
	http.SetCookie(w, s.cookie(r, token, expires))
	reply(w, code, user)
}

func (s *Server) cookie(r *http.Request, token string, expires time.Time) *http.Cookie {
	return &http.Cookie{
		Name: cookieName, Value: token, Path: "/", Expires: expires, HttpOnly: true, SameSite: http.SameSiteLaxMode,
		Secure: s.secureCookies(r),
	}
}

func (s *Server) secureCookies(r *http.Request) bool {
	return s.clients.secure(r) || strings.HasPrefix(s.cfg.ServiceSettings.SiteURL, "https:")
}

// signOut ends the session and closes its sockets on all nodes.
func (s *Server) signOut(w http.ResponseWriter, r *http.Request) {
	user, token, err := s.session(r)
	if err == nil {
		err = s.store.EndSession(r.Context(), token)
	}
	if err == nil {
		err = s.hub.Revoke(r.Context(), user.Name, token)
	}
	if err != nil && !errors.Is(err, errNoSession) && !errors.Is(err, store.ErrNotFound) {
		s.broken(w, r, err)
		return
	}
	http.SetCookie(w, s.cookie(r, "", time.Unix(1, 0)))
	w.WriteHeader(http.StatusNoContent)
}

// clientConfig is what a page needs first: who it is, and what it may do.
func (s *Server) clientConfig(w http.ResponseWriter, r *http.Request) {
	answer := struct {
		Demo        bool        `json:"demo"`
		Version     string      `json:"version"`
		MaxFileSize int64       `json:"max_file_size"`
		User        *store.User `json:"user"` // null: nobody is signed in
	}{Demo: s.opts.Demo, Version: Version, MaxFileSize: s.cfg.FileSettings.MaxFileSize}
	user, _, err := s.session(r)
	switch {
	case err == nil:
		answer.User = &user
	case !errors.Is(err, errNoSession):
		s.broken(w, r, err)
		return
	}
	reply(w, http.StatusOK, answer)
}

func (s *Server) me(w http.ResponseWriter, _ *http.Request, user store.User) {
	reply(w, http.StatusOK, user)
}

// hashed is what the database knows of a token: a copy of the table lets nobody in.
func hashed(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}

// session finds the user of a request, and the hash of its token.
func (s *Server) session(r *http.Request) (user store.User, token string, err error) {
	c, err := r.Cookie(cookieName)
	if err != nil || c.Value == "" {
		return user, "", errNoSession
	}
	token = hashed(c.Value)
	user, err = s.store.Session(r.Context(), token)
	if errors.Is(err, store.ErrNotFound) {
		err = errNoSession
	}
	return user, token, err
}

// signedIn is for calls that need a session.
func (s *Server) signedIn(fn func(w http.ResponseWriter, r *http.Request, user store.User)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		user, _, err := s.session(r)
		switch {
		case errors.Is(err, errNoSession):
			fail(w, http.StatusUnauthorized, err.Error())
		case err != nil:
			s.broken(w, r, err)
		default:
			fn(w, r, user)
		}
	}
}

// attempts counts failed sign-ins in the current minute. The zero value is ready.
type attempts struct {
	mu     sync.Mutex
	minute int64
	count  map[string]int
}

func (a *attempts) turn() {
	if now := time.Now().Unix() / 60; now != a.minute || len(a.count) > maxAttemptNames {
		a.minute, a.count = now, map[string]int{}
	}
}

func (a *attempts) allowed(keys ...string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.turn()
	for _, k := range keys {
		if a.count[k] >= maxAttempts {
			return false
		}
	}
	return true
}

func (a *attempts) failed(keys ...string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.turn()
	for _, k := range keys {
		a.count[k]++
	}
}
