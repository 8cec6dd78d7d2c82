// Package dbrouter sends writes to the master, reads to healthy replicas and searches to search replicas.
package dbrouter
