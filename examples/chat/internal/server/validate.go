package server

import (
	"cmp"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nines-go/nines/cluster"
)

// drivers are the values of SqlSettings.DriverName, each with its database/sql driver in this program.
var drivers = []string{"postgres", "mysql", "sqlite"}

// Validate tells every fault of the values at once.
func (c *Config) Validate() error {
	var errs []error
	bad := func(setting, value, remedy string) {
		errs = append(errs, fmt.Errorf("%s %s: %s", setting, value, remedy))
	}
	c.validateService(bad)
	c.validateCluster(bad)
	c.validateStorage(bad)
	if _, err := level(c.LogSettings.ConsoleLevel); err != nil {
		bad("LogSettings.ConsoleLevel", is(c.LogSettings.ConsoleLevel)+" is not a level", "use DEBUG, INFO, WARN or ERROR")
	}
	if r := c.DataRetentionSettings; r.EnableMessageDeletion && r.MessageRetentionDays < 1 {
		bad("DataRetentionSettings.MessageRetentionDays", is(strconv.Itoa(r.MessageRetentionDays))+" is too small", "use at least 1, or turn EnableMessageDeletion off")
	}
	if _, err := time.Parse("15:04", c.DataRetentionSettings.DeletionJobStartTime); err != nil {
		bad("DataRetentionSettings.DeletionJobStartTime", is(c.DataRetentionSettings.DeletionJobStartTime)+" is not a time of day", `write it as "02:00"`)
	}
	return errors.Join(errs...)
}

type fault func(setting, value, remedy string)

func is(v string) string { return strconv.Quote(v) }

func (c *Config) validateService(bad fault) {
	s := c.ServiceSettings
	if _, port, err := net.SplitHostPort(s.ListenAddress); err != nil {
		bad("ServiceSettings.ListenAddress", is(s.ListenAddress)+" is not an address", `write it as "host:port" or ":8065"`)
	} else if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
		bad("ServiceSettings.ListenAddress", is(s.ListenAddress)+" has no port up to 65535", `write it as ":8065"`)
	}
	if s.SiteURL != "" && !isOrigin(s.SiteURL, true) {
		bad("ServiceSettings.SiteURL", is(s.SiteURL)+" is not a URL", `write it as "https://chat.example.com"`)
	}
	for _, o := range s.AllowedOrigins {
		if !isOrigin(o, false) {
			bad("ServiceSettings.AllowedOrigins", is(o)+" is not an origin", `write it as "https://chat.example.com", without a path`)
		}
	}
	for _, p := range s.TrustedProxies {
		if _, err := parseProxy(p); err != nil {
			bad("ServiceSettings.TrustedProxies", is(p)+" is not an address or network", `write it as "10.0.0.1" or "10.0.0.0/24"`)
		}
	}
	for name, n := range map[string]int{"MaxRequests": s.MaxRequests, "ReadTimeout": s.ReadTimeout, "IdleTimeout": s.IdleTimeout} {
		if n < 1 {
			bad("ServiceSettings."+name, is(strconv.Itoa(n))+" is too small", "use at least 1")
		}
	}
	if s.MaxSockets < 0 {
		bad("ServiceSettings.MaxSockets", is(strconv.Itoa(s.MaxSockets))+" is negative", "use 0 for the default")
	}
}

func isOrigin(text string, path bool) bool {
	u, err := url.Parse(text)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" && (path || u.Path == "")
}

func parseProxy(text string) (netip.Prefix, error) {
	if strings.Contains(text, "/") {
		return netip.ParsePrefix(text)
	}
	addr, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Prefix{}, err
	}
	return netip.PrefixFrom(addr, addr.BitLen()), nil
}

func (c *Config) validateCluster(bad fault) {
	s := c.ClusterSettings
	if !s.Enable {
		return
	}
	if s.ClusterName == "" {
		bad("ClusterSettings.ClusterName", is("")+" is empty", "give all servers of the cluster the same name, or set ClusterSettings.Enable to false for one server")
	}
	if s.GossipPort < 0 || s.GossipPort > 65535 {
		bad("ClusterSettings.GossipPort", is(strconv.Itoa(s.GossipPort))+" is not a port", "use 8074 or another up to 65535; 0 takes a free one")
	}
	if s.NetworkInterface != "" {
		if _, err := net.InterfaceByName(s.NetworkInterface); err != nil {
			bad("ClusterSettings.NetworkInterface", is(s.NetworkInterface)+" is not an interface of this host", "use a name that `ip addr` shows, or leave it empty")
		}
	}
	switch {
	case s.EnableGossipEncryption && len(s.EncryptionKeys) == 0:
		bad("ClusterSettings.EncryptionKeys", "[] is empty", "make a key with `chat keygen` and give the same one to all servers")
	case !s.EnableGossipEncryption && len(s.EncryptionKeys) > 0:
		bad("ClusterSettings.EnableGossipEncryption", "false contradicts EncryptionKeys", "set it to true, or remove the keys")
	}
	for i, key := range s.EncryptionKeys {
		if _, err := cluster.ParseKey(key); err != nil {
			bad(fmt.Sprintf("ClusterSettings.EncryptionKeys[%d]", i), keyFault(key), "make one with `chat keygen` and give the same one to all servers")
		}
	}
}

// keyFault says what is wrong with a key without telling it.
func keyFault(key string) string {
	if b, err := base64.StdEncoding.DecodeString(key); err == nil {
		return fmt.Sprintf("has %d bytes and not %d", len(b), cluster.KeySize)
	}
	return fmt.Sprintf("of %d characters is not base64", len(key))
}

func (c *Config) validateStorage(bad fault) {
	s := c.SqlSettings
	if !slices.Contains(drivers, s.DriverName) {
		bad("SqlSettings.DriverName", is(s.DriverName)+" is not known", "use postgres, mysql or sqlite")
	}
	if s.DataSource == "" {
		bad("SqlSettings.DataSource", is("")+" is empty", "give the address of the master database")
	}
	for name, n := range map[string]int{"MaxIdleConns": s.MaxIdleConns, "MaxOpenConns": s.MaxOpenConns, "ConnMaxLifetimeMilliseconds": s.ConnMaxLifetimeMilliseconds,
		"ConnMaxIdleTimeMilliseconds": s.ConnMaxIdleTimeMilliseconds, "QueryTimeout": s.QueryTimeout} {
		if n < 0 {
			bad("SqlSettings."+name, is(strconv.Itoa(n))+" is negative", "use 0 for the default")
		}
	}
	f := c.FileSettings
	switch f.DriverName {
	case "local":
		if f.Directory == "" {
			bad("FileSettings.Directory", is("")+" is empty", "give a directory that all servers share")
		}
	case "amazons3":
		bad("FileSettings.DriverName", is(f.DriverName)+" is not here yet", "use local with a shared directory")
	default:
		bad("FileSettings.DriverName", is(f.DriverName)+" is not known", "use local")
	}
	if f.MaxFileSize < 1 {
		bad("FileSettings.MaxFileSize", is(strconv.FormatInt(f.MaxFileSize, 10))+" is too small", "give a number of bytes")
	}
}

func level(name string) (slog.Level, error) {
	var l slog.Level
	err := l.UnmarshalText([]byte(cmp.Or(name, "INFO")))
	return l, err
}

// reason is the innermost error, without the name of the operation and the path that the caller tells better.
func reason(err error) error {
	for {
		var path *fs.PathError
		var call *os.SyscallError
		var op *net.OpError
		switch {
		case errors.As(err, &path):
			err = path.Err
		case errors.As(err, &op):
			err = op.Err
		case errors.As(err, &call):
			err = call.Err
		default:
			return err
		}
	}
}
