package lab

import "golang.org/x/sys/unix"

// removeSharedMemory removes a System V segment: the machine has a bounded number of them, and a killed postmaster leaves its own.
func removeSharedMemory(id int) { _, _ = unix.SysvShmCtl(id, unix.IPC_RMID, nil) }
