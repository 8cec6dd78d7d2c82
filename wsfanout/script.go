package wsfanout

import (
	"bytes"
	_ "embed"
	"net/http"
	"time"
)

//go:embed js/client.js
var script []byte

// Script serves the JavaScript client, one ES module without dependencies: import { connect } from "/wsfanout.js".
func Script() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/javascript; charset=utf-8")
		w.Header().Set("Cache-Control", "no-cache")
		http.ServeContent(w, r, "client.js", time.Time{}, bytes.NewReader(script))
	})
}
