package filestore

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// Bounds of keys.
const (
	MaxKey     = 1024 // bytes
	MaxSegment = 200  // bytes between two slashes
)

// Reserved is the prefix of the store's own objects. Users' keys cannot begin with it, and List does not show it.
const Reserved = ".nines/"

// CheckKey returns nil for a valid key, else an error that wraps ErrInvalidKey and says why. A key is segments joined by slashes: UTF-8 in
// normal form C, no control characters, no empty, "." or ".." segment and none of white space alone, at most MaxKey bytes, at most MaxSegment a segment, not below Reserved.
// The same keys are valid in every store.
func CheckKey(key string) error {
	if err := checkGrammar(key); err != nil {
		return err
	}
	if strings.HasPrefix(key+"/", Reserved) {
		return fmt.Errorf("%w %q: %s is reserved", ErrInvalidKey, key, Reserved)
	}
	return nil
}

func checkGrammar(key string) error {
	fault := func(why string) error { return fmt.Errorf("%w %q: %s", ErrInvalidKey, shorten(key), why) }
	switch {
	case key == "":
		return fault("it is empty")
	case len(key) > MaxKey:
		return fault(fmt.Sprintf("it has %d bytes, at most %d are allowed", len(key), MaxKey))
	case !utf8.ValidString(key):
		return fault("it is not UTF-8")
	case !norm.NFC.IsNormalString(key):
		return fault("it is not in Unicode normal form C")
	case strings.ContainsFunc(key, unicode.IsControl):
		return fault("it has a control character")
	}
	for segment := range strings.SplitSeq(key, "/") {
		switch {
		case segment == "":
			return fault("a segment is empty (leading, trailing or double slash)")
		case segment == "." || segment == "..":
			return fault("a segment is . or ..")
		case strings.TrimSpace(segment) == "":
			return fault("a segment is white space alone")
		case len(segment) > MaxSegment:
			return fault(fmt.Sprintf("a segment has %d bytes, at most %d are allowed", len(segment), MaxSegment))
		}
	}
	return nil
}

// checkPrefix accepts "", and every beginning of a valid key.
func checkPrefix(prefix string) error {
	if prefix == "" {
		return nil
	}
	if before, ok := strings.CutSuffix(prefix, "/"); ok {
		return CheckKey(before)
	}
	return CheckKey(prefix)
}

func shorten(key string) string {
	if len(key) > 80 {
		return key[:80] + "…"
	}
	return key
}
