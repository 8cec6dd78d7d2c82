package lab

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
)

// freePort returns a port of 127.0.0.1 that nobody listens on. It lies below the range from which the kernel takes the ports of outgoing
// connections, so that it is still free when a server is started on it again later.
func freePort() (int, error) {
	for range 200 {
		port := 15000 + rand.N(17000)
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			continue
		}
		return port, l.Close()
	}
	return 0, errors.New("no free port on 127.0.0.1")
}
