package wire

import "net"

// NetConn returns the wrapped connection, like the method of [crypto/tls.Conn].
func (c *calmConn) NetConn() net.Conn {
	return c.Conn
}
