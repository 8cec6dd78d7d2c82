package cluster

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"strings"
)

// KeySize is the length of a cluster key in bytes.
const KeySize = 32

// NewKey returns a fresh random cluster key.
func NewKey() []byte {
	key := make([]byte, KeySize)
	rand.Read(key) // never fails
	return key
}

// FormatKey returns the text form of a key, the one that keygen prints and ParseKey reads.
func FormatKey(key []byte) string { return base64.StdEncoding.EncodeToString(key) }

// ParseKey reads a key in its text form: base64 of 32 bytes, standard or URL alphabet, with or without padding; white space around it is
// ignored. The error never shows the key.
func ParseKey(text string) ([]byte, error) {
	text = strings.TrimRight(strings.TrimSpace(text), "=")
	text = strings.NewReplacer("-", "+", "_", "/").Replace(text)
	key, err := base64.RawStdEncoding.DecodeString(text)
	if err != nil {
		return nil, fmt.Errorf("cluster: key is not base64; make one with keygen or FormatKey(NewKey())")
	}
	if len(key) != KeySize {
		return nil, fmt.Errorf("cluster: key has %d bytes, want %d; make one with keygen or FormatKey(NewKey())", len(key), KeySize)
	}
	return key, nil
}
