package cluster

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"

	"github.com/nines-go/nines/cluster/internal/seal"
)

// TLS makes the streams between nodes mutual TLS: beside the proof of a key each end shows a certificate, so that a key that was stolen is
// not enough to join. Datagrams, which only help to find failures, stay under the keys. All nodes have it or none.
type TLS struct {
	// Certificate returns this node's certificate with its private key and, in it, the intermediate ones. It is asked for each new
	// stream, so that a renewed certificate needs no restart: tls.LoadX509KeyPair in a function will do. Required.
	Certificate func() (*tls.Certificate, error)

	// Roots are the authorities of which certificates of peers must be. Use one for this cluster alone. Required.
	Roots *x509.CertPool

	// Names are the names (DNS, in the subject alternative names) that the certificate of a peer may be for: one of them will do;
	// "*.example.org" is every name below example.org. Default: a peer's certificate must be for its NodeName.
	Names []string
}

func (t *TLS) validate(keys int, bad func(string, ...any)) {
	if t.Certificate == nil {
		bad("TLS.Certificate is nil; return this node's certificate, or leave TLS nil")
	}
	if t.Roots == nil {
		bad("TLS.Roots is nil; give the authority of the nodes' certificates, or leave TLS nil")
	}
	if keys == 0 {
		bad("TLS is set without Keys; datagrams need a key: set Keys")
	}
}

// identity is TLS as the streams need it. The certificate is looked at once, so that a wrong one is found at the start.
func (n *Node) identity() (seal.Identity, error) {
	t := n.cfg.TLS
	id := seal.Identity{Name: n.cfg.NodeName, Certificate: t.Certificate, Roots: t.Roots, Names: t.Names}
	if err := id.Check(); err != nil {
		return id, fmt.Errorf("TLS.Certificate is one that peers refuse: %w; use one of Roots for NodeName %q, or for one of Names", err, n.cfg.NodeName)
	}
	return id, nil
}
