// Package link carries frames between the processes of a cluster.
package link
