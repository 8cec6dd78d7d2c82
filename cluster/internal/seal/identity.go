package seal

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Identity makes streams mutual TLS: both ends show a certificate of Roots. All fields but Names are required.
type Identity struct {
	Name        string                           // of this process, at most 255 bytes
	Certificate func() (*tls.Certificate, error) // asked for each stream, so that it may be renewed
	Roots       *x509.CertPool
	Names       []string // that certificates of peers may carry, "*.example.org" too; empty: the name that the peer gives
}

// WithIdentity makes the streams mutual TLS. It must be called before the first of them. Streams without keys stay plain.
func (s *Streams) WithIdentity(id Identity) { s.identity = &id }

// certificate is what this process shows.
func (s *Streams) certificate() (*tls.Certificate, error) {
	if s.identity == nil {
		return &s.cert, nil
	}
	c, err := s.identity.Certificate()
	if err != nil {
		return nil, fmt.Errorf("%w: this process has none to show: %w", ErrCertificate, err)
	}
	return c, nil
}

// chain verifies that the peer has shown a certificate of Roots.
func (id *Identity) chain(state tls.ConnectionState) error {
	if len(state.PeerCertificates) == 0 {
		return fmt.Errorf("%w: the peer has shown none", ErrCertificate)
	}
	opts := x509.VerifyOptions{
		Roots: id.Roots, Intermediates: x509.NewCertPool(), CurrentTime: time.Now(),
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}, // a node is client and server
	}
	for _, c := range state.PeerCertificates[1:] {
		opts.Intermediates.AddCert(c)
	}
	if _, err := state.PeerCertificates[0].Verify(opts); err != nil {
		return fmt.Errorf("%w: that of the peer is none of the roots of this process (or the peer runs without certificates): %w", ErrCertificate, err)
	}
	return nil
}

// named verifies that the certificate is one for the peer. Call it after chain.
func (id *Identity) named(cert *x509.Certificate, name string) error {
	if len(id.Names) == 0 {
		if err := cert.VerifyHostname(name); err != nil {
			return fmt.Errorf("%w: the peer calls itself %.80q: %w", ErrCertificate, name, err)
		}
		return nil
	}
	for _, has := range cert.DNSNames {
		for _, want := range id.Names {
			if matches(want, has) {
				return nil
			}
		}
	}
	return fmt.Errorf("%w: that of the peer is for %.200q, and none of the names %q", ErrCertificate, cert.DNSNames, id.Names)
}

// matches reports whether name is pattern, or below it where it begins with "*.".
func matches(pattern, name string) bool {
	pattern, name = strings.ToLower(pattern), strings.ToLower(name)
	if below, ok := strings.CutPrefix(pattern, "*"); ok && strings.HasPrefix(below, ".") {
		return strings.HasSuffix(name, below) && len(name) > len(below)
	}
	return pattern == name
}

// Check reports what peers would refuse about this process' own certificate.
func (id *Identity) Check() error {
	c, err := id.Certificate()
	if err != nil {
		return err
	}
	if c == nil || len(c.Certificate) == 0 {
		return errors.New("there is none")
	}
	leaf, err := x509.ParseCertificate(c.Certificate[0])
	if err != nil {
		return err
	}
	state := tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf}}
	for _, der := range c.Certificate[1:] {
		if x, err := x509.ParseCertificate(der); err == nil {
			state.PeerCertificates = append(state.PeerCertificates, x)
		}
	}
	if err := id.chain(state); err != nil {
		return err
	}
	return id.named(leaf, id.Name)
}
