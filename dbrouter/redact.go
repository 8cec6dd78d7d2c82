package dbrouter

import (
	"net/url"
	"regexp"
	"strings"
)

var (
	keyValuePassword = regexp.MustCompile(`(?i)((?:^|[\s?&;])(?:ssl)?(?:password|pwd|passwd)\s*=\s*)('(?:[^'\\]|\\.)*'|[^\s&;]*)`)
	escape           = regexp.MustCompile(`(invalid URL escape) "[^"]*"`) // shows a piece of what was to be escaped, mostly the password
	userPassword     = regexp.MustCompile(`^([^:@/]*):(.*)@(\w+\(|/|[^@]*$)`)
)

// redact returns a data source as it may be logged: without its password.
func redact(dsn string) string {
	scheme, rest, found := strings.Cut(dsn, "://")
	if found && !strings.ContainsAny(scheme, " =@") {
		// The last @ before the path ends the password: a parser would stumble over one that is not escaped.
		authority, path := rest, ""
		if i := strings.LastIndexByte(rest, '@'); i >= 0 {
			if j := strings.IndexAny(rest[i:], "/?"); j >= 0 {
				authority, path = rest[:i+j], rest[i+j:]
			}
			user, _, _ := strings.Cut(authority[:i], ":")
			if strings.Contains(authority[:i], ":") {
				user += ":***"
			}
			return scheme + "://" + user + authority[i:] + keyValuePassword.ReplaceAllString(path, "${1}***")
		}
		return keyValuePassword.ReplaceAllString(dsn, "${1}***")
	}
	if m := userPassword.FindStringSubmatchIndex(dsn); m != nil && !strings.Contains(dsn[:m[3]], "=") && !strings.HasPrefix(dsn, "file:") {
		return dsn[:m[3]] + ":***" + keyValuePassword.ReplaceAllString(dsn[m[5]:], "${1}***")
	}
	return keyValuePassword.ReplaceAllString(dsn, "${1}***")
}

// redactIn takes the data source and its password out of a driver's message.
func redactIn(text, dsn string) string {
	text = strings.ReplaceAll(text, dsn, redact(dsn))
	text = escape.ReplaceAllString(text, "${1}: write % as %25, @ as %40 in a user or password")
	if i := strings.Index(text, "://"); i >= 0 && strings.Contains(dsn, "://") {
		if u, err := url.Parse(dsn); err == nil && u.User != nil {
			if p, ok := u.User.Password(); ok && len(p) > 2 {
				text = strings.ReplaceAll(text, p, "***")
			}
		}
	}
	return text
}

// sourceError is an error about a data source whose text holds no password.
type sourceError struct {
	text string
	err  error
}

func (e *sourceError) Error() string { return e.text }
func (e *sourceError) Unwrap() error { return e.err }
