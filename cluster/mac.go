package cluster

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
)

// KeyedMAC is an authentication code under one key of the ring.
type KeyedMAC struct {
	KeyID string // the same on all nodes for one key, and tells nothing of it
	MAC   []byte // HMAC-SHA-256
}

// MAC returns HMAC-SHA-256 codes of data, one for each of the node's keys in their order, under keys that are derived from them for purpose.
// Nodes whose rings have a key in common can compare what they must not show: two codes with one KeyID are equal when the data are. Without
// keys there are none.
func (n *Node) MAC(purpose string, data []byte) []KeyedMAC {
	var macs []KeyedMAC
	for _, key := range n.ring.all() {
		macs = append(macs, KeyedMAC{
			KeyID: base64.RawURLEncoding.EncodeToString(derive(key, "key-id")[:3]),
			MAC:   hmacOf(derive(key, "mac:"+purpose), data),
		})
	}
	return macs
}

func derive(key []byte, purpose string) []byte {
	out, err := hkdf.Key(sha256.New, key, nil, "nines "+purpose, sha256.Size)
	if err != nil {
		panic(err) // the length is right
	}
	return out
}

func hmacOf(key, data []byte) []byte {
	h := hmac.New(sha256.New, key)
	h.Write(data)
	return h.Sum(nil)
}
