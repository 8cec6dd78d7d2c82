//go:build !unix

package dirstore

import "io/fs"

const nonblock = 0

func isNotDir(error) bool      { return false }
func isNoDevice(error) bool    { return false }
func isInvalid(error) bool     { return false }
func inode(fs.FileInfo) uint64 { return 0 }
