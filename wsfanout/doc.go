// Package wsfanout: publish anywhere, delivered in order to every subscriber on every node.
package wsfanout
