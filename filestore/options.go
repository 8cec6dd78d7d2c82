package filestore

import (
	"encoding/base64"
	"errors"
	"fmt"
	"mime"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// maxMetadata bounds the metadata of an object, in bytes of names and values as they travel in headers: S3 takes 2 KiB with the driver's own.
const maxMetadata = 1900

// Bounds of signed links.
const (
	defaultTTL = 6 * time.Hour
	maxTTL     = 7 * 24 * time.Hour
)

func (o *PutOptions) check() error {
	var errs []error
	if o.Size < 0 {
		errs = append(errs, fmt.Errorf("PutOptions.Size is %d: give the number of bytes, or 0 when it is unknown", o.Size))
	}
	if o.IfAbsent && o.IfMatch != "" {
		errs = append(errs, errors.New("PutOptions.IfAbsent and IfMatch are both set: use one"))
	}
	if n := len(o.SHA256); n != 0 && n != 32 {
		errs = append(errs, fmt.Errorf("PutOptions.SHA256 has %d bytes: give 32 or none", n))
	}
	if !isHeader(o.ContentType) {
		errs = append(errs, fmt.Errorf("PutOptions.ContentType is %q: give at most 255 bytes of printable ASCII", shorten(o.ContentType)))
	}
	size := 0
	for name, value := range o.Metadata {
		size += len(name) + len(EncodeMetadata(value))
		if name == "" || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" || strings.HasPrefix(name, "nines-") {
			errs = append(errs, fmt.Errorf("PutOptions.Metadata has the name %q: use a-z, 0-9 and -, and no name that begins with nines-", shorten(name)))
		}
		if !utf8.ValidString(value) || strings.ContainsFunc(value, unicode.IsControl) || strings.TrimSpace(value) != value || strings.Contains(value, "=?") {
			errs = append(errs, fmt.Errorf("PutOptions.Metadata[%q] is %q: use UTF-8 without control characters, without space at the ends and without =?", shorten(name), shorten(value)))
		}
	}
	if size > maxMetadata {
		errs = append(errs, fmt.Errorf("PutOptions.Metadata has %d bytes: at most %d are kept", size, maxMetadata))
	}
	return errors.Join(errs...)
}

func isHeader(s string) bool {
	return len(s) <= 255 && strings.TrimSpace(s) == s && !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' })
}

// EncodeMetadata returns a value of PutOptions.Metadata as it fits into a header: as it is when it is ASCII, else as an encoded word (RFC 2047).
// It is for drivers.
func EncodeMetadata(value string) string {
	if !strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r > '~' }) {
		return value
	}
	return "=?utf-8?b?" + base64.StdEncoding.EncodeToString([]byte(value)) + "?="
}

// DecodeMetadata is the reverse of EncodeMetadata. What is not encoded is returned as it is.
func DecodeMetadata(value string) string {
	if d, err := new(mime.WordDecoder).DecodeHeader(value); err == nil {
		return d
	}
	return value
}

func (o *AppendOptions) check() error {
	if o.At < 0 || o.Size < 0 {
		return fmt.Errorf("AppendOptions.At is %d, Size is %d: neither may be negative", o.At, o.Size)
	}
	return nil
}

// complete fills in the defaults.
func (o *SignOptions) complete(key string) (*SignOptions, error) {
	full := SignOptions{TTL: defaultTTL, Method: "GET", Filename: key[strings.LastIndexByte(key, '/')+1:]}
	if o != nil {
		if o.TTL != 0 {
			full.TTL = o.TTL
		}
		if o.Method != "" {
			full.Method = o.Method
		}
		if o.Filename != "" {
			full.Filename = o.Filename
		}
		full.ContentType = o.ContentType
	}
	var errs []error
	if full.TTL < time.Second || full.TTL > maxTTL {
		errs = append(errs, fmt.Errorf("SignOptions.TTL is %s: give 1s to 168h, or 0 for 6h", full.TTL))
	}
	if full.Method != "GET" && full.Method != "PUT" {
		errs = append(errs, fmt.Errorf("SignOptions.Method is %q: use GET or PUT", full.Method))
	}
	if !isHeader(full.ContentType) {
		errs = append(errs, fmt.Errorf("SignOptions.ContentType is %q: give at most 255 bytes of printable ASCII", shorten(full.ContentType)))
	}
	return &full, errors.Join(errs...)
}
