package wire

import "net"

// NetConn returns the connection below, as that of [crypto/tls.Conn] does.
func (c *calmConn) NetConn() net.Conn {
	return c.Conn
}
