package server

import (
	"errors"
	"io"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/nines-go/nines/examples/chat/internal/store"
	"github.com/nines-go/nines/filestore"
)

// fileKey is how keys of uploads look; nothing else of the store can be asked for.
var fileKey = regexp.MustCompile(`^uploads/\d{4}-\d{2}/[0-9a-f-]{36}/[A-Za-z0-9._-]{1,100}$`)

var unsafeName = regexp.MustCompile(`[^A-Za-z0-9._-]+`)

// inline are the types that a browser may show; all else is saved.
var inline = map[string]bool{"image/png": true, "image/jpeg": true, "image/gif": true, "image/webp": true}

func newKey(name string) string {
	name = strings.Trim(unsafeName.ReplaceAllString(path.Base(name), "-"), "-.")
	if len(name) > 100 {
		name = name[len(name)-100:]
	}
	if name == "" {
		name = "file"
	}
	return "uploads/" + time.Now().UTC().Format("2006-01") + "/" + uuid.NewString() + "/" + name
}

// upload stores the body under a new key; ?name= is the file's name.
func (s *Server) upload(w http.ResponseWriter, r *http.Request, _ store.User) {
	limit := s.cfg.FileSettings.MaxFileSize
	if r.ContentLength > limit {
		fail(w, http.StatusRequestEntityTooLarge, "the file is larger than "+strconv.FormatInt(limit, 10)+" bytes")
		return
	}
	key := newKey(r.URL.Query().Get("name"))
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil {
		kind = "application/octet-stream"
	}
	o, err := s.files.Put(r.Context(), key, http.MaxBytesReader(w, r.Body, limit), &filestore.PutOptions{
		Size: max(r.ContentLength, 0), ContentType: kind, IfAbsent: true,
	})
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		fail(w, http.StatusRequestEntityTooLarge, "the file is larger than "+strconv.FormatInt(limit, 10)+" bytes")
	case err != nil:
		s.broken(w, r, err)
	default:
		s.stats.uploads.Add(1)
		reply(w, http.StatusCreated, map[string]any{"key": key, "name": path.Base(key), "size": o.Size, "type": kind})
	}
}

func (s *Server) download(w http.ResponseWriter, r *http.Request, _ store.User) {
	key := r.PathValue("key")
	if !fileKey.MatchString(key) {
		fail(w, http.StatusNotFound, "there is no such file")
		return
	}
	body, o, err := s.files.Get(r.Context(), key, nil)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		fail(w, http.StatusNotFound, "there is no such file")
		return
	case err != nil:
		s.broken(w, r, err)
		return
	}
	defer body.Close()
	h := w.Header()
	h.Set("Content-Security-Policy", "default-src 'none'; sandbox") // whatever it is, it runs nothing
	h.Set("Cache-Control", "private, max-age=31536000, immutable")
	h.Set("Content-Length", strconv.FormatInt(o.Size, 10))
	disposition := "attachment"
	h.Set("Content-Type", "application/octet-stream")
	if inline[o.ContentType] {
		disposition = "inline"
		h.Set("Content-Type", o.ContentType)
	}
	h.Set("Content-Disposition", mime.FormatMediaType(disposition, map[string]string{"filename": path.Base(key)}))
	if r.Method == http.MethodHead {
		return
	}
	if _, err := io.Copy(w, body); err != nil && r.Context().Err() == nil {
		s.log.Warn("download ended early", "key", key, "error", err)
	}
}
