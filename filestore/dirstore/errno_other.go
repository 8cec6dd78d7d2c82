//go:build !unix

package dirstore

import "io/fs"

func isNotDir(error) bool      { return false }
func isInvalid(error) bool     { return false }
func inode(fs.FileInfo) uint64 { return 0 }
