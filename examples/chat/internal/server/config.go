package server

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// envPrefix begins the names of overrides: envPrefix + SECTION + "_" + KEY.
const envPrefix = "NINES_"

// Config is the configuration of one server. The sections and keys are those of the reference server's file, and some of our own.
type Config struct {
	ServiceSettings       ServiceSettings
	ClusterSettings       ClusterSettings
	SqlSettings           SqlSettings
	FileSettings          FileSettings
	JobSettings           JobSettings
	LogSettings           LogSettings
	DataRetentionSettings DataRetentionSettings

	ignored []string // settings of the reference server that were given and mean nothing here
}

// ServiceSettings is about HTTP.
type ServiceSettings struct {
	ListenAddress  string   // ":8065"
	SiteURL        string   // where browsers find the service; https makes cookies Secure
	AllowedOrigins []string // origins besides the server's own, such as "https://chat.example.com"
	TrustedProxies []string // addresses or networks whose X-Forwarded-For and X-Forwarded-Proto are believed
	MaxSockets     int      // WebSockets that this server takes; 0 is the hub's default
	MaxRequests    int      // requests served at once, 512
	ReadTimeout    int      // seconds for reading a request, 300
	IdleTimeout    int      // seconds that an idle connection is kept, 60
}

// ClusterSettings is about the other servers.
type ClusterSettings struct {
	Enable                  bool
	ClusterName             string
	NodeName                string // label on the console; the host's name
	OverrideHostname        string
	NetworkInterface        string
	BindAddress             string
	AdvertiseAddress        string
	UseIPAddress            bool // true
	EnableGossipCompression bool // accepted; there is nothing to compress yet
	EnableGossipEncryption  bool // true: EncryptionKeys are required
	ReadOnlyConfig          bool // true; settings cannot be changed through the API yet
	GossipPort              int  // 8074
	EncryptionKeys          []string
}

// SqlSettings is about the databases.
type SqlSettings struct {
	DriverName                  string // postgres, mysql or sqlite
	DataSource                  string
	DataSourceReplicas          []string
	DataSourceSearchReplicas    []string
	MaxIdleConns                int // 50
	MaxOpenConns                int // 100
	ConnMaxLifetimeMilliseconds int // 3600000
	ConnMaxIdleTimeMilliseconds int // 300000
	QueryTimeout                int // seconds, 30
	Trace                       bool
}

// FileSettings is about uploads.
type FileSettings struct {
	DriverName  string // local
	Directory   string // shared by all servers; "./data/"
	MaxFileSize int64  // bytes, 100 MiB
}

// JobSettings is about background work.
type JobSettings struct {
	RunJobs      bool // true: this server works
	RunScheduler bool // true: this server may lead and schedule
}

// LogSettings is about the log on stderr.
type LogSettings struct {
	EnableConsole bool   // true
	ConsoleLevel  string // DEBUG, INFO, WARN or ERROR
	ConsoleJson   bool   // true
}

// DataRetentionSettings is about old messages.
type DataRetentionSettings struct {
	EnableMessageDeletion bool
	MessageRetentionDays  int    // 365
	DeletionJobStartTime  string // "02:00"
}

// Default is the configuration of an empty file.
func Default() Config {
	return Config{
		ServiceSettings:       ServiceSettings{ListenAddress: ":8065", MaxRequests: 512, ReadTimeout: 300, IdleTimeout: 60},
		ClusterSettings:       ClusterSettings{UseIPAddress: true, EnableGossipEncryption: true, ReadOnlyConfig: true, GossipPort: 8074},
		SqlSettings:           SqlSettings{DriverName: "postgres", MaxIdleConns: 50, MaxOpenConns: 100, ConnMaxLifetimeMilliseconds: 3600000, ConnMaxIdleTimeMilliseconds: 300000, QueryTimeout: 30},
		FileSettings:          FileSettings{DriverName: "local", Directory: "./data/", MaxFileSize: 100 << 20},
		JobSettings:           JobSettings{RunJobs: true, RunScheduler: true},
		LogSettings:           LogSettings{EnableConsole: true, ConsoleLevel: "INFO", ConsoleJson: true},
		DataRetentionSettings: DataRetentionSettings{MessageRetentionDays: 365, DeletionJobStartTime: "02:00"},
	}
}

// Load reads the file at path (none when empty) and the overrides in env, as of os.Environ. All faults are told at once. Whether the values are
// fit to run is Validate's question.
func Load(path string, env []string) (Config, error) {
	cfg := Default()
	var errs []error
	if path != "" {
		text, err := os.ReadFile(path)
		if err != nil {
			return Config{}, fmt.Errorf("configuration file %q cannot be read (%v): give the path of a JSON file with -config", path, reason(err))
		}
		errs = append(errs, cfg.decode(path, text)...)
	}
	errs = append(errs, cfg.override(env)...)
	if err := errors.Join(errs...); err != nil {
		return Config{}, err
	}
	slices.Sort(cfg.ignored)
	cfg.ignored = slices.Compact(cfg.ignored)
	return cfg, nil
}

// Ignored names the settings that were given and have no effect here.
func (c *Config) Ignored() []string { return slices.Clone(c.ignored) }

func (c *Config) decode(path string, text []byte) (errs []error) {
	dec := json.NewDecoder(bytes.NewReader(text))
	var sections map[string]json.RawMessage
	err := dec.Decode(&sections)
	if err == nil {
		if _, more := dec.Token(); more != io.EOF {
			err = errors.New("something follows the closing brace")
		}
	}
	if err != nil {
		return []error{fmt.Errorf("configuration file %q is not a JSON object (%v%s): mend it there", path, err, place(text, dec.InputOffset()))}
	}
	for _, name := range sorted(sections) {
		section, ok := field(reflect.ValueOf(c).Elem(), name)
		if !ok {
			if known(referenceSections, name) {
				c.ignored = append(c.ignored, name)
				continue
			}
			errs = append(errs, fmt.Errorf("configuration section %q is not known: %s", name, suggest(name, sectionNames())))
			continue
		}
		var values map[string]json.RawMessage
		if err := json.Unmarshal(sections[name], &values); err != nil {
			errs = append(errs, fmt.Errorf("configuration section %s is not a JSON object: write \"%s\": {…}", name, name))
			continue
		}
		for _, key := range sorted(values) {
			v, ok := field(section, key)
			if !ok {
				errs = append(errs, c.unknown(sectionName(name), key)...)
				continue
			}
			if err := json.Unmarshal(values[key], v.Addr().Interface()); err != nil {
				errs = append(errs, fmt.Errorf("%s.%s is %s: give %s", sectionName(name), key, secretless(key, string(values[key])), kind(v)))
			}
		}
	}
	return errs
}

// place is where in text the decoder stopped.
func place(text []byte, offset int64) string {
	if offset <= 0 || offset > int64(len(text)) {
		return ""
	}
	return fmt.Sprintf(", line %d", bytes.Count(text[:offset], []byte("\n"))+1)
}

// unknown judges a key that no section of ours has.
func (c *Config) unknown(section, key string) []error {
	if known(referenceKeys[section], key) {
		c.ignored = append(c.ignored, section+"."+key)
		return nil
	}
	return []error{fmt.Errorf("setting %s.%s is not known: %s", section, key, suggest(key, keyNames(section)))}
}

func (c *Config) override(env []string) (errs []error) {
	for _, e := range env {
		name, value, _ := strings.Cut(e, "=")
		rest, ok := strings.CutPrefix(name, envPrefix)
		if !ok {
			continue
		}
		section, key, ok := strings.Cut(rest, "_")
		if !ok || !strings.HasSuffix(section, "SETTINGS") {
			continue // not a setting
		}
		s, ok := field(reflect.ValueOf(c).Elem(), section)
		if !ok {
			if known(referenceSections, section) {
				c.ignored = append(c.ignored, name)
				continue
			}
			errs = append(errs, fmt.Errorf("environment variable %s names no known section: %s", name, suggest(section, sectionNames())))
			continue
		}
		v, ok := field(s, key)
		if !ok {
			if known(referenceKeys[sectionName(section)], key) {
				c.ignored = append(c.ignored, name)
				continue
			}
			errs = append(errs, fmt.Errorf("environment variable %s names no known setting: %s", name, suggest(key, keyNames(sectionName(section)))))
			continue
		}
		if err := set(v, value); err != nil {
			errs = append(errs, fmt.Errorf("environment variable %s is %s: give %s", name, secretless(key, strconv.Quote(value)), kind(v)))
		}
	}
	return errs
}

// set assigns text to v.
func set(v reflect.Value, text string) error {
	switch v.Kind() {
	case reflect.String:
		v.SetString(text)
	case reflect.Bool:
		b, err := strconv.ParseBool(text)
		if err != nil {
			return err
		}
		v.SetBool(b)
	case reflect.Int, reflect.Int64:
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return err
		}
		v.SetInt(n)
	case reflect.Slice:
		v.Set(reflect.ValueOf(strings.Fields(text)))
	default:
		return fmt.Errorf("a setting of kind %s", v.Kind())
	}
	return nil
}

// kind says in words what v takes.
func kind(v reflect.Value) string {
	switch v.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.Int, reflect.Int64:
		return "a whole number"
	case reflect.Slice:
		return "a list of texts"
	}
	return "a text"
}

// field finds an exported field without regard to case, as encoding/json does.
func field(v reflect.Value, name string) (reflect.Value, bool) {
	f, ok := v.Type().FieldByNameFunc(func(n string) bool { return strings.EqualFold(n, name) })
	if !ok || !f.IsExported() {
		return reflect.Value{}, false
	}
	return v.FieldByIndex(f.Index), true
}

// secretless hides values that may hold a secret.
func secretless(key, value string) string {
	k := strings.ToLower(key)
	if strings.HasPrefix(k, "datasource") || strings.Contains(k, "key") {
		return "not of the right form"
	}
	if len(value) > 100 {
		return value[:100] + "…"
	}
	return value
}

func sorted(m map[string]json.RawMessage) []string {
	names := make([]string, 0, len(m))
	for n := range m {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}
