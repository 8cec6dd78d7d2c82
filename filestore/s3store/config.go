package s3store

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"github.com/minio/minio-go/v7/pkg/encrypt"

	"github.com/nines-go/nines/filestore"
)

const (
	amazon      = "s3.amazonaws.com"
	minPart     = 5 << 20 // of S3, but for the last one
	maxPart     = 5 << 30
	defaultPart = 8 << 20
	maxParts    = 10000

	dialTimeout = 5 * time.Second
	slowTimeout = 10 * time.Minute // for requests in which the server copies before it answers: asking again would do it twice at once
)

// Config is what Open needs.
type Config struct {
	// Bucket is the bucket's name. Required.
	Bucket string
	// Prefix is put before every key, with a slash between: several stores may share a bucket. Default none.
	Prefix string
	// Endpoint is the server as host or host:port; default s3.amazonaws.com.
	Endpoint string
	// Region is the bucket's region. Default: asked for at Amazon, us-east-1 elsewhere.
	Region string

	// AccessKey and SecretKey sign the requests, SessionToken goes with temporary ones. Without them the environment (AWS_ACCESS_KEY_ID …), the
	// user's AWS files, and the machine's role (IAM: instance, container, web identity) are asked, in this order.
	AccessKey, SecretKey, SessionToken string

	// NoTLS speaks plain HTTP: for a server on the same machine or network. Keys are not sent, but contents can be read on the way.
	NoTLS bool
	// InsecureSkipVerify accepts any certificate: for tests.
	InsecureSkipVerify bool
	// PathStyle puts the bucket into the path instead of the host's name, as most servers that are not Amazon's need. Default: chosen by Endpoint.
	PathStyle bool
	// SignV2 signs the old way, for old servers; contents are then protected by MD5.
	SignV2 bool
	// CreateBucket makes the bucket when it is not there.
	CreateBucket bool

	// SSE asks the server to encrypt: "" leaves it to the bucket, "s3" is with S3's keys, "kms" with KMSKeyID ("" is the account's own).
	SSE, KMSKeyID string
	// StorageClass of new objects, such as STANDARD_IA; default the bucket's.
	StorageClass string

	// Checksum protects contents on their way: "sha256" (in the signature; the default), "crc32c" (kept by the server too), "md5", or "none". Some
	// servers know not all of them.
	Checksum string
	// PartSize is the size of the parts of a large upload, in bytes: 5 MiB to 5 GiB, default 8 MiB. Two parts are in memory. 10,000 parts are the
	// largest content of unknown size, 78 GiB with the default; known sizes get larger parts where they need them.
	PartSize int64

	// RequestTimeout is how long a request may stand still, and how long Open may take; default 30 s, 100 ms to 1 h. It is not how long a
	// large content may take: that is the business of the caller's context. A server that copies by itself, or puts the parts of an upload
	// together, may be silent for ten minutes.
	RequestTimeout time.Duration
	// MaxRetries is how often a request is tried that failed for a reason that may pass; default 5, 1 (no retry) to 20.
	MaxRetries int

	// Trace gets every request and answer without contents and signatures. Default none.
	Trace io.Writer
	// Transport carries the requests instead of the package's own; RequestTimeout, InsecureSkipVerify and the certificates are then its business.
	Transport http.RoundTripper
	// Logger gets what Open found out, at level debug. Default slog.Default().
	Logger *slog.Logger

	maxParts int // of S3; less in tests
}

// String returns the settings without the secrets.
func (c Config) String() string {
	return fmt.Sprintf("s3store.Config{Bucket:%q Prefix:%q Endpoint:%q Region:%q AccessKey:%q}", c.Bucket, c.Prefix, c.Endpoint, c.Region, c.AccessKey)
}

// GoString is String.
func (c Config) GoString() string { return c.String() }

// LogValue is String.
func (c Config) LogValue() slog.Value { return slog.StringValue(c.String()) }

// complete fills in defaults and names every fault.
func (c *Config) complete() error {
	var errs []error
	bad := func(field string, value any, remedy string) {
		errs = append(errs, fmt.Errorf("s3store: Config.%s is %v: %s", field, value, remedy))
	}
	if c.Bucket == "" {
		errs = append(errs, errors.New("s3store: Config.Bucket is empty: give the bucket's name"))
	}
	if c.Prefix = strings.TrimSuffix(c.Prefix, "/"); c.Prefix != "" {
		if err := filestore.CheckKey(c.Prefix); err != nil {
			errs = append(errs, fmt.Errorf("s3store: Config.Prefix: %w", err))
		}
	}
	if c.Endpoint == "" {
		c.Endpoint = amazon
	}
	if u, err := url.Parse("x://" + c.Endpoint); err != nil || u.Host != c.Endpoint || u.Hostname() == "" {
		bad("Endpoint", fmt.Sprintf("%q", redact(c.Endpoint)), "give host or host:port without https:// and without a path; NoTLS chooses plain HTTP")
	}
	if (c.AccessKey == "") != (c.SecretKey == "") {
		errs = append(errs, errors.New("s3store: one of Config.AccessKey and SecretKey is empty: give both, or none for the machine's role"))
	}
	if c.SSE != "" && c.SSE != "s3" && c.SSE != "kms" {
		bad("SSE", fmt.Sprintf("%q", c.SSE), `use "s3", "kms" or nothing`)
	}
	if c.KMSKeyID != "" && c.SSE != "kms" {
		bad("KMSKeyID", fmt.Sprintf("%q", c.KMSKeyID), `set SSE to "kms" with it`)
	}
	switch c.Checksum {
	case "":
		c.Checksum = "sha256"
		if c.SignV2 {
			c.Checksum = "md5"
		}
	case "sha256", "crc32c":
		if c.SignV2 {
			bad("Checksum", fmt.Sprintf("%q", c.Checksum), `SignV2 goes with "md5" or "none"`)
		}
	case "md5", "none":
	default:
		bad("Checksum", fmt.Sprintf("%q", c.Checksum), `use "sha256", "crc32c", "md5" or "none"`)
	}
	if c.PartSize == 0 {
		c.PartSize = defaultPart
	}
	if c.PartSize < minPart || c.PartSize > maxPart {
		bad("PartSize", c.PartSize, "give 5 MiB (5242880) to 5 GiB, or 0 for 8 MiB")
	}
	if c.maxParts == 0 {
		c.maxParts = maxParts
	}
	if c.RequestTimeout == 0 {
		c.RequestTimeout = 30 * time.Second
	}
	if c.RequestTimeout < 100*time.Millisecond || c.RequestTimeout > time.Hour {
		bad("RequestTimeout", c.RequestTimeout, "give 100ms to 1h, or 0 for 30s")
	}
	if c.MaxRetries == 0 {
		c.MaxRetries = 5
	}
	if c.MaxRetries < 1 || c.MaxRetries > 20 {
		bad("MaxRetries", c.MaxRetries, "give 1 to 20, or 0 for 5")
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return errors.Join(errs...)
}

// redact takes away what stands before an @: someone may have written keys there.
func redact(endpoint string) string {
	if i := strings.LastIndexByte(endpoint, '@'); i >= 0 {
		return "…" + endpoint[i:]
	}
	return endpoint
}

// client connects with limit as the time that a request may stand still.
func (c *Config) client(limit time.Duration) (core *minio.Core, closeIdle func(), err error) {
	region := c.Region
	if region == "" && !strings.HasSuffix(hostOf(c.Endpoint), ".amazonaws.com") {
		region = "us-east-1"
	}
	transport, closeIdle := c.Transport, func() {}
	if transport == nil {
		own := c.transport(limit)
		transport, closeIdle = own, own.CloseIdleConnections
	}
	transport = sentBodies{transport}
	opts := &minio.Options{
		Creds: c.credentials(transport), Secure: !c.NoTLS, Transport: transport, Region: region, MaxRetries: c.MaxRetries,
	}
	if c.PathStyle {
		opts.BucketLookup = minio.BucketLookupPath
	}
	core, err = minio.NewCore(c.Endpoint, opts)
	if err == nil && c.Trace != nil {
		core.TraceOn(c.Trace)
	}
	return core, closeIdle, err
}

func hostOf(endpoint string) string {
	if host, _, err := net.SplitHostPort(endpoint); err == nil {
		return host
	}
	return endpoint
}

func (c *Config) credentials(transport http.RoundTripper) *credentials.Credentials {
	switch {
	case c.AccessKey != "" && c.SignV2:
		return credentials.NewStaticV2(c.AccessKey, c.SecretKey, c.SessionToken)
	case c.AccessKey != "":
		return credentials.NewStaticV4(c.AccessKey, c.SecretKey, c.SessionToken)
	}
	return credentials.NewChainCredentials([]credentials.Provider{
		&credentials.EnvAWS{}, &credentials.FileAWSCredentials{},
		&credentials.IAM{Client: &http.Client{Transport: transport, Timeout: c.RequestTimeout}},
	})
}

func (c *Config) transport(limit time.Duration) *http.Transport {
	dialer := &net.Dialer{Timeout: min(dialTimeout, c.RequestTimeout), KeepAlive: 15 * time.Second}
	return &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           stallDialer(dialer, limit),
		TLSClientConfig:       &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: c.InsecureSkipVerify}, //nolint:gosec // asked for
		TLSHandshakeTimeout:   min(2*dialTimeout, c.RequestTimeout),
		ResponseHeaderTimeout: limit,
		MaxIdleConns:          256,
		MaxIdleConnsPerHost:   64,
		IdleConnTimeout:       limit / 2, // before the stall's deadline, which would close it too
		WriteBufferSize:       64 << 10,
		ReadBufferSize:        64 << 10,
		DisableCompression:    true,
	}
}

func (c *Config) encryption() (encrypt.ServerSide, error) {
	switch c.SSE {
	case "s3":
		return encrypt.NewSSE(), nil
	case "kms":
		return encrypt.NewSSEKMS(c.KMSKeyID, nil)
	}
	return nil, nil
}
