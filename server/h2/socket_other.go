//go:build !linux || race

package h2

import "net"

// newSocket is of use on Linux.
func newSocket(conn net.Conn) net.Conn { return conn }
