package seal

import (
	"crypto/tls"
	"net"
)

// RawTLS is a TLS connection without the proof, as somebody in the middle would make it.
func RawTLS(s *Streams, conn net.Conn, client bool) net.Conn {
	cfg := &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{s.cert}, InsecureSkipVerify: true}
	if client {
		return tls.Client(conn, cfg)
	}
	return tls.Server(conn, cfg)
}
